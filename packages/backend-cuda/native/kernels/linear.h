// The kernels behind Linear (kernels.h), for linear.cu to choose from and for the bench to time one by one.
#pragma once

#include "kernels.h"

namespace tenon_cuda {

// linear_wgmma.cu: how the product is cut for the tensor cores of sm_90.
struct WgmmaPlan {
  int columns;  // rows of x in a tile: 8, 16, 32, 64, 128, 256; a tile has 128 rows of w
  int share;    // neighbouring tiles of w whose blocks are one cluster and share a tile of x: 1, 2, 4; columns / share >= 8
  int split;    // blocks of the cluster that share a tile's k: 1, 2, 4, 8; share * split <= 8
  bool half = false;  // tiles of 64 rows of w, of which two warp groups have half of k each; up to 64 columns, share 1, split up to 4
};
// False where the pointers or sizes need another kernel, or the device is no sm_90.
bool WgmmaTakes(const LinearParams& params);
WgmmaPlan PlanWgmma(const LinearParams& params);
Launch LinearWgmma(const LinearParams& params, const WgmmaPlan& plan, cudaStream_t stream);

// linear_tiles.cu, for more than 64 rows on sm_90: tiles of 128 * blocks rows of w by `columns` rows of x.
struct TilesPlan {
  int blocks, columns;  // 1 with 128, 160, 192, 224, 256; 2 with 128
  int share;            // neighbouring tiles of w whose blocks are one cluster and share a tile of x: 1, 2
  int split;            // 1: tiles are whole; 2 … 8: each is cut in so many along k; 0: what is left after the last full wave is cut
  int group = 8;        // tiles of x that share what the second-level cache holds of w
  int rotation = 11;    // of the order of k, from one group of tiles of w to the next
};
bool TilesTake(const LinearParams& params);
TilesPlan PlanTiles(const LinearParams& params);
Launch LinearTiles(const LinearParams& params, const TilesPlan& plan, cudaStream_t stream);

// linear.cu: what every GPU from sm_80 on has.
Launch LinearMma(const LinearParams& params, cudaStream_t stream);

}  // namespace tenon_cuda
