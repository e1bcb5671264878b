// What the two kernels of Linear on sm_90 (linear_wgmma.cu, linear_tiles.cu) share: tensor maps and the activation.
#pragma once

#include "linear.h"
#include "wgmma.cuh"

namespace tenon_cuda {

constexpr int kTileK = 64;  // of k in a tile: 128 bytes, a row of the copy engine's swizzle
constexpr int kRowBytes = kTileK * 2;
constexpr int kSharedBytes = 227 * 1024;  // of a block, at most

// As Activate (types.cuh), with the fast exponential and division where that will do: (1 + tanh(x)) / 2 is the sigmoid of 2 x.
__device__ __forceinline__ float Act(float x, int activation) {
  if (activation == 1) return Activate(x, activation);
  const float z = activation == 0 ? x : 1.5957691216057308f * (x + 0.044715f * x * x * x);
  return __fdividef(x, 1.f + __expf(-z));
}

// ---- tensor maps ----

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                                 const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's function, or null.
inline EncodeTiled Encoder() {
  static const EncodeTiled encoder = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) != cudaSuccess) {
      cudaGetLastError();
      return static_cast<EncodeTiled>(nullptr);
    }
    return result == cudaDriverEntryPointSuccess ? reinterpret_cast<EncodeTiled>(found) : nullptr;
  }();
  return encoder;
}

// sizes from the innermost dimension on, in elements; strides of the others, in bytes.
template <int kRank>
bool Encode(CUtensorMap* map, Type type, const void* data, const cuuint64_t (&sizes)[kRank], const cuuint64_t (&strides)[kRank - 1],
            const cuuint32_t (&box)[kRank], CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B) {
  constexpr CUtensorMapDataType kTypes[] = {CU_TENSOR_MAP_DATA_TYPE_FLOAT32, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_DATA_TYPE_FLOAT16};
  cuuint32_t steps[kRank];
  for (cuuint32_t& step : steps) step = 1;
  return Encoder()(map, kTypes[static_cast<int>(type)], kRank, const_cast<void*>(data), sizes, strides, box, steps,
                   CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// w in tiles of `height` rows; where gated, of each 16 rows of a tile 8 are gate and 8 up.
inline bool EncodeWeight(CUtensorMap* map, const LinearParams& p, cuuint32_t height) {
  const auto n = static_cast<cuuint64_t>(p.n), k = static_cast<cuuint64_t>(p.k);
  if (!p.gated) return Encode<2>(map, p.type, p.w, {k, n}, {k * 2}, {kTileK, height});
  return Encode<4>(map, p.type, p.w, {k, 8, 2, n / 8}, {k * 2, n * k * 2, k * 16}, {kTileK, 8, 2, height / 16});
}
inline bool EncodeInput(CUtensorMap* map, const LinearParams& p, cuuint32_t rows) {
  const auto k = static_cast<cuuint64_t>(p.k);
  return Encode<2>(map, p.type, p.x, {k, static_cast<cuuint64_t>(p.rows)}, {k * 2}, {kTileK, rows});
}

}  // namespace tenon_cuda
