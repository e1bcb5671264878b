// What the attention kernels share: the shape of a launch, scores, and the tensor-core arithmetic of 16 rows by 16 keys (mma.sync).
#pragma once

#include <algorithm>
#include <climits>

#include "mma.cuh"

namespace tenon_cuda {

constexpr int kRows = 16;      // of a warp
constexpr int kTileKeys = 16;  // that a warp takes at a time
// Where maxima begin: finite, so that what is masked (-inf) has the weight 0 from the first key on.
constexpr float kMasked = -1e30f;
constexpr float kLog2E = 1.4426950408889634f;

struct Shape {
  AttentionParams p;
  int group;                 // query heads per KV head
  int row_tiles;             // of kRows query heads
  int block_tiles;           // of kTileKeys keys, in a block of the cache
  uint32_t block_magic;      // the high word of block_magic * i is i / block_tiles; 0 where that is i
  bool all_at_once = false;  // no block of the launch waits for another one's end
};

// attention_decode.cu: the sequences with one new token. cudaErrorNotSupported where a block would need more shared memory than the
// device has.
template <typename T>
Launch LaunchDecode(const Shape& shape, cudaStream_t stream);
// attention_wgmma.cu: the sequences with several, on Hopper. cudaErrorNotSupported: sizes or devices that it does not take.
template <typename T>
Launch LaunchWgmmaPrefill(const Shape& shape, cudaStream_t stream);

// A score as base-2 logits of the softmax.
__device__ __forceinline__ float ToLogit(float score, const AttentionParams& p) {
  float s = score * p.scale;
  if (p.soft_cap > 0) s = p.soft_cap * tanhf(s / p.soft_cap);
  return s * kLog2E;
}

template <typename T>
__device__ __forceinline__ const T* CacheBlock(const void* cache, const KvLayer& kv, int block, int head) {
  return static_cast<const T*>(cache) + (static_cast<int64_t>(block) * kv.num_kv_heads + head) * kv.block_size * kv.head_dim;
}

// prefix [n + 1] in shared memory becomes the running sum of count(i), by all kThreads threads of the block.
template <int kThreads, typename F>
__device__ __forceinline__ void RunningSum(int* prefix, int n, F&& count) {
  __shared__ int warp_sums[kThreads / 32];
  const int each = (n + kThreads - 1) / kThreads, begin = min(static_cast<int>(threadIdx.x) * each, n), end = min(begin + each, n);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int own = 0;
  for (int i = begin; i < end; ++i) own += count(i);
  int sum = own;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += other;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  sum -= own;
  for (int w = 0; w < warp; ++w) sum += warp_sums[w];
  for (int i = begin; i < end; ++i) {
    prefix[i] = sum;
    sum += count(i);
  }
  if (begin < end && end == n) prefix[n] = sum;
  __syncthreads();
}
// The i with prefix[i] <= value < prefix[i + 1].
__device__ __forceinline__ int FindIn(const int* prefix, int n, int value) {
  int low = 0, high = n;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (prefix[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

// Rows of a warp: the query's fragments, and the softmax so far. kDim: head_dim rounded up; what lies beyond is zero. Keys lie in shared
// memory as rows of kDim elements whose chunks of 16 bytes are swizzled, so that eight rows' chunks are in different banks.
template <typename T, int kDim>
struct WarpRows {
  uint32_t q[kDim / 16][4];
  float y[kDim / 8][4];
  float max[2], sum[2];  // of rows lane / 4 and lane / 4 + 8

  static __device__ __forceinline__ int At(int key, int chunk) { return key * kDim + (chunk ^ (key & 7)) * 8; }

  __device__ void Clear() {
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) y[i][j] = 0;
    max[0] = max[1] = kMasked;
    sum[0] = sum[1] = 0;
  }

  // row_pointer(r): the query of row r, or null.
  template <typename F>
  __device__ void LoadQuery(int head_dim, F&& row_pointer) {
    const int lane = threadIdx.x % 32;
    const T* rows[2] = {row_pointer(lane / 4), row_pointer(lane / 4 + 8)};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int d = k * 16 + half * 8 + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 2; ++i)
          q[k][half * 2 + i] = rows[i] != nullptr && d < head_dim ? *reinterpret_cast<const uint32_t*>(rows[i] + d) : 0;
      }
    }
  }

  // 16 keys in shared memory. visible(row_half, key): whether the row may see it; sees_all: all rows see all.
  template <typename F>
  __device__ __forceinline__ void Attend(const T* k_tile, const T* v_tile, const AttentionParams& p, bool sees_all, F&& visible) {
    const int lane = threadIdx.x % 32;
    float s[2][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      // matrices: keys 0-7 of dims 0-7, of dims 8-15, then keys 8-15
      uint32_t b[4];
      LoadMatrix4(b, k_tile + At(lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
      Mma<T>(s[0], q[k], b[0], b[1]);
      Mma<T>(s[1], q[k], b[2], b[3]);
    }
    if (p.soft_cap > 0) {
#pragma unroll
      for (int i = 0; i < 8; ++i) s[i / 4][i % 4] = ToLogit(s[i / 4][i % 4], p);
    } else {
      const float scale = p.scale * kLog2E;
#pragma unroll
      for (int i = 0; i < 8; ++i) s[i / 4][i % 4] *= scale;
    }
    if (!sees_all) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const bool sees = visible(i % 4 / 2, i / 4 * 8 + lane % 4 * 2 + i % 2);
        s[i / 4][i % 4] = sees ? s[i / 4][i % 4] : -INFINITY;
      }
    }
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float newest = fmaxf(fmaxf(s[0][half * 2], s[0][half * 2 + 1]), fmaxf(s[1][half * 2], s[1][half * 2 + 1]));
      newest = fmaxf(newest, __shfl_xor_sync(0xffffffffu, newest, 1));
      newest = fmaxf(max[half], fmaxf(newest, __shfl_xor_sync(0xffffffffu, newest, 2)));
      shrink[half] = Exp2(max[half] - newest);
      max[half] = newest;
    }
    if (__any_sync(0xffffffffu, shrink[0] != 1 || shrink[1] != 1)) {
      sum[0] *= shrink[0];
      sum[1] *= shrink[1];
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) y[i][j] *= shrink[j / 2];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      s[i / 4][i % 4] = Exp2(s[i / 4][i % 4] - max[i % 4 / 2]);
      sum[i % 4 / 2] += s[i / 4][i % 4];
    }
    const uint32_t weights[4] = {Pack<T>(s[0][0], s[0][1]), Pack<T>(s[0][2], s[0][3]), Pack<T>(s[1][0], s[1][1]),
                                 Pack<T>(s[1][2], s[1][3])};
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      // transposed: keys 0-7 and 8-15 of dims 0-7, then of dims 8-15
      uint32_t b[4];
      LoadMatrix4Transposed(b, v_tile + At(lane % 8 + lane / 8 % 2 * 8, 2 * n + lane / 16));
      Mma<T>(y[2 * n], weights, b[0], b[1]);
      Mma<T>(y[2 * n + 1], weights, b[2], b[3]);
    }
  }

  // The sums of weights over the four lanes of a row.
  __device__ void FinishSums() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
      sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
    }
  }
};

// At least as many as the tiles of `tile_rows` rows that the sequences with several new tokens have.
inline int64_t MaxTiles(const StepPointers& step, int group, int tile_rows) {
  const int64_t rows = int64_t{step.num_tokens} * group;
  return rows / tile_rows + std::clamp(step.num_tokens - step.num_seqs, 1, step.num_seqs);
}

template <typename Kernel>
Launch AllowShared(Kernel* kernel, int bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

}  // namespace tenon_cuda
