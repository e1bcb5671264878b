// Element types of the kernels: loads and stores as f32, and a dispatch from run-time types to templates.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <array>
#include <atomic>
#include <utility>

#include "kernels.h"

namespace tenon_cuda {

// ---- launches ----

// Of the current device; asked once.
struct DeviceFacts {
  int num_sms, capability, shared_bytes;  // capability: 90 for 9.0; shared_bytes: the most that a block may have
};
inline const DeviceFacts& Facts() {
  static std::array<DeviceFacts, 64> facts;
  static std::array<std::atomic<bool>, 64> known;
  int device = 0;
  cudaGetDevice(&device);
  const size_t i = static_cast<size_t>(device) % facts.size();
  if (!known[i].load(std::memory_order_acquire)) {
    int major = 0, minor = 0, sms = 1, bytes = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    facts[i] = {sms, major * 10 + minor, bytes};
    known[i].store(true, std::memory_order_release);
  }
  return facts[i];
}

// Launches a kernel whose blocks may start while the one before it still runs (from Hopper on), in clusters of `cluster` blocks along x. Such a
// kernel calls WaitForPrevious before it reads what an earlier kernel wrote, or writes anything, and in some block in any case: the next one
// waits for this one alone.
template <typename... Parameters, typename... Arguments>
Launch LaunchClusters(int cluster, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = Facts().capability < 90 ? 0 : cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}
template <typename... Parameters, typename... Arguments>
Launch LaunchEarly(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  return LaunchClusters(1, kernel, grid, block, shared_bytes, stream, std::forward<Arguments>(arguments)...);
}

// Until all earlier kernels of the stream have ended.
__device__ __forceinline__ void WaitForPrevious() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}
// The next kernel may start as soon as every block has come here.
__device__ __forceinline__ void LetNextStart() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n");
#endif
}

// ---- clusters ----
// Of Hopper and later; elsewhere, a block is a cluster of its own.

__device__ __forceinline__ int ClusterRank() {
  int rank = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
#endif
  return rank;
}
__device__ __forceinline__ int ClusterSize() {
  int size = 1;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mov.u32 %0, %%cluster_nctarank;\n" : "=r"(size));
#endif
  return size;
}
// Number of the block's cluster along x.
__device__ __forceinline__ int ClusterIndex() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  int index;
  asm volatile("mov.u32 %0, %%clusterid.x;\n" : "=r"(index));
  return index;
#else
  return static_cast<int>(blockIdx.x);
#endif
}
// A barrier of all threads of the cluster, which also orders their accesses to each other's shared memory.
__device__ __forceinline__ void SyncCluster() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
#else
  __syncthreads();
#endif
}
// Until no block reads another's shared memory any more.
__device__ __forceinline__ void EndCluster() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;\n" ::: "memory");
#endif
}
// Where the block of that rank has the same shared variable.
template <typename T>
__device__ __forceinline__ T* OfRank(T* shared, int rank) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  return static_cast<T*>(__cluster_map_shared_rank(shared, static_cast<unsigned>(rank)));
#else
  return shared;
#endif
}

// ---- elements ----

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

template <int kBytes>
__device__ __forceinline__ bool IsAligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % kBytes == 0;
}

// kSize elements of T as f32, 16 bytes at a time where that many are there and the address allows it. Those of the plan's buffers and weights do;
// values that a plan brings back in the step's result begin at any multiple of 4.
template <int kSize, typename T>
__device__ __forceinline__ void LoadFloats(float (&x)[kSize], const T* from) {
  constexpr int kBytes = kSize * static_cast<int>(sizeof(T)), kWord = kBytes % 16 == 0 ? 16 : 8;
  static_assert(kBytes % kWord == 0);
  alignas(16) T values[kSize];
  if (!IsAligned<kWord>(from)) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) x[i] = ToFloat(from[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kBytes / kWord; ++i) {
    if constexpr (kWord == 16) reinterpret_cast<uint4*>(values)[i] = reinterpret_cast<const uint4*>(from)[i];
    else reinterpret_cast<uint2*>(values)[i] = reinterpret_cast<const uint2*>(from)[i];
  }
#pragma unroll
  for (int i = 0; i < kSize; ++i) x[i] = ToFloat(values[i]);
}
template <int kSize, typename T>
__device__ __forceinline__ void StoreFloats(T* to, const float (&x)[kSize]) {
  constexpr int kBytes = kSize * static_cast<int>(sizeof(T)), kWord = kBytes % 16 == 0 ? 16 : 8;
  static_assert(kBytes % kWord == 0);
  alignas(16) T values[kSize];
#pragma unroll
  for (int i = 0; i < kSize; ++i) values[i] = FromFloat<T>(x[i]);
  if (!IsAligned<kWord>(to)) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) to[i] = values[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < kBytes / kWord; ++i) {
    if constexpr (kWord == 16) reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(values)[i];
    else reinterpret_cast<uint2*>(to)[i] = reinterpret_cast<const uint2*>(values)[i];
  }
}

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

// 2^x, to two units in the last place; 0 for what would be denormal.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
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
