// Element types of the kernels: loads and stores as f32, and a dispatch from run-time types to templates.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels.h"

namespace tenon_cuda {

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }

template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}

// 16 bytes of T, loaded and stored at once.
template <typename T>
struct alignas(16) Vec {
  static constexpr int kSize = 16 / sizeof(T);
  T values[kSize];
};

// fn(T()) for the C++ type of `type`.
template <typename F>
Launch WithType(Type type, F&& fn) {
  switch (type) {
    case Type::kF32: return fn(float());
    case Type::kBf16: return fn(__nv_bfloat16());
    case Type::kF16: return fn(__half());
  }
  return cudaErrorNotSupported;
}

// act(x) of the op table: 0 silu, 1 gelu (erf), 2 gelu (tanh).
__device__ __forceinline__ float Activate(float x, int activation) {
  if (activation == 0) return x / (1.f + __expf(-x));
  if (activation == 1) return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
  return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

// Sum over the threads of a warp, the same in all of them.
__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// Number of the sequence that a token belongs to, or -1 for padding. cu_seqlens_q [num_seqs + 1].
__device__ __forceinline__ int SeqOfToken(const int32_t* cu_seqlens_q, int num_seqs, int token) {
  if (num_seqs == 0 || token >= cu_seqlens_q[num_seqs]) return -1;
  int low = 0, high = num_seqs;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (cu_seqlens_q[middle] <= token) low = middle;
    else high = middle;
  }
  return low;
}

}  // namespace tenon_cuda
