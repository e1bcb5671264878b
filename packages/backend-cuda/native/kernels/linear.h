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

// linear.cu: what every GPU from sm_80 on has.
Launch LinearMma(const LinearParams& params, cudaStream_t stream);

}  // namespace tenon_cuda
