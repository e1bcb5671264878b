// Causal paged attention with grouped queries: softmax(q · Kᵀ · scale, soft-capped) · V over the positions that a token may see.
//
// The query heads that share a KV head are rows of one matrix: row r is token r / group, head r % group of the group. Three kernels:
//   decode   sequences with one new token: a block per (sequence, KV head) walks the keys in splits of fixed length, four warps each
//            their own quarter of a split; partial results meet in a second kernel, in the order of splits
//   prefill  sequences with several: a block per 64 rows, four warps of 16 rows share tiles of 64 keys
//   plain    f32, and head sizes that the others do not take: a warp per row
// Scores and sums in f32, with a running maximum; weights are rounded to T before they meet V. What a row gets depends on its own
// sequence alone: splits and tiles begin at fixed positions. Layouts: kernels.h.
#include <algorithm>
#include <climits>

#include "mma.cuh"

namespace tenon_cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = 16;        // of a warp
constexpr int kSplitUnit = 256;  // keys
constexpr int kMaxSplits = 32;   // of a sequence
// Finite, so that differences of masked scores are numbers.
constexpr float kMasked = -1e30f;
constexpr float kLog2E = 1.4426950408889634f;

int SplitLength(int max_seq_len) {
  const int units = (max_seq_len + kSplitUnit * kMaxSplits - 1) / (kSplitUnit * kMaxSplits);
  return kSplitUnit * std::max(units, 1);
}

struct Shape {
  AttentionParams p;
  int group;      // query heads per KV head
  int split_len;  // keys
  float* partials;  // [num_seqs][num_heads][kMaxSplits][head_dim + 2]: weighted sums, maximum (base 2), sum of weights
};

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

// Rows of a warp: the query's fragments, and the softmax so far. kDim: head_dim rounded up; what lies beyond is zero.
template <typename T, int kDim>
struct WarpRows {
  static constexpr int kStride = kDim + 8;  // elements of a row in shared memory: rows start in different banks
  uint32_t q[kDim / 16][4];
  float y[kDim / 8][4];
  float max[2], sum[2];  // of rows lane / 4 and lane / 4 + 8

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

  // 16 keys in shared memory, K and V rows of kStride. visible(row_half, key): whether the row may see it.
  template <typename F>
  __device__ void Attend(const T* k_tile, const T* v_tile, const AttentionParams& p, F&& visible) {
    const int lane = threadIdx.x % 32;
    float s[2][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      // matrices: keys 0-7 of dims 0-7, of dims 8-15, then keys 8-15
      uint32_t b[4];
      LoadMatrix4(b, k_tile + (lane % 8 + lane / 16 * 8) * kStride + k * 16 + lane / 8 % 2 * 8);
      Mma<T>(s[0], q[k], b[0], b[1]);
      Mma<T>(s[1], q[k], b[2], b[3]);
    }
    float newest[2] = {max[0], max[1]};
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int half = j / 2, key = n * 8 + lane % 4 * 2 + j % 2;
        s[n][j] = visible(half, key) ? ToLogit(s[n][j], p) : kMasked;
        newest[half] = fmaxf(newest[half], s[n][j]);
      }
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      newest[half] = fmaxf(newest[half], __shfl_xor_sync(0xffffffffu, newest[half], 1));
      newest[half] = fmaxf(newest[half], __shfl_xor_sync(0xffffffffu, newest[half], 2));
      shrink[half] = exp2f(max[half] - newest[half]);
      max[half] = newest[half];
      sum[half] *= shrink[half];
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int half = j / 2;
        s[n][j] = s[n][j] <= kMasked / 2 ? 0.f : exp2f(s[n][j] - max[half]);
        sum[half] += s[n][j];
      }
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) y[i][j] *= shrink[j / 2];
    const uint32_t weights[4] = {Pack<T>(s[0][0], s[0][1]), Pack<T>(s[0][2], s[0][3]), Pack<T>(s[1][0], s[1][1]),
                                 Pack<T>(s[1][2], s[1][3])};
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      // transposed: keys 0-7 and 8-15 of dims 0-7, then of dims 8-15
      uint32_t b[4];
      LoadMatrix4Transposed(b, v_tile + (lane % 8 + lane / 8 % 2 * 8) * kStride + n * 16 + lane / 16 * 8);
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

// Starts copies of `kKeys` keys of one cache block to shared memory, by `threads` threads. Keys at or beyond `count` become zero.
template <typename T, int kDim, int kKeys>
__device__ __forceinline__ void CopyKeys(T* shared, const T* keys, int head_dim, int count, int thread, int threads) {
  constexpr int kChunks = kDim / 8;
  for (int i = thread; i < kKeys * kChunks; i += threads) {
    const int key = i / kChunks, d = i % kChunks * 8;
    const bool valid = key < count && d < head_dim;
    CopyAsync16(shared + key * WarpRows<T, kDim>::kStride + d, keys + (valid ? key * head_dim + d : 0), valid);
  }
}

// ---- decode ----
// grid (num_seqs * num_kv_heads, groups of splits, tiles of 16 query heads). A warp reads its quarter of a split 16 keys at a time, with
// kStages tiles on their way.

constexpr int kStages = 3;
constexpr int kTileKeys = 16;

template <int kDim>
constexpr int DecodeSharedBytes() {
  const int tiles = kWarps * kStages * 2 * kTileKeys * (kDim + 8) * 2;
  const int merge = kWarps * kRows * (kDim + 2) * 4;
  return tiles > merge ? tiles : merge;
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads) DecodeKernel(Shape shape) {
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  const AttentionParams& p = shape.p;
  const KvLayer& kv = p.kv;
  const int seq = blockIdx.x / kv.num_kv_heads, kv_head = blockIdx.x % kv.num_kv_heads;
  const int token = p.step.cu_seqlens_q[seq];
  if (p.step.cu_seqlens_q[seq + 1] - token != 1) return;
  const int seq_len = p.step.seq_lens[seq];
  const int first_key = p.sliding_window > 0 ? max(0, seq_len - p.sliding_window) : 0;
  const int num_splits = (seq_len + shape.split_len - 1) / shape.split_len;
  const int first_row = blockIdx.z * kRows, num_rows = min(kRows, shape.group - first_row);
  const int first_head = kv_head * shape.group + first_row;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int32_t* block_table = p.step.block_tables + static_cast<int64_t>(seq) * p.step.block_table_stride;

  WarpRows<T, kDim> rows;
  const T* q = static_cast<const T*>(p.q) + (static_cast<int64_t>(token) * p.num_heads + first_head) * kv.head_dim;
  rows.LoadQuery(kv.head_dim, [&](int r) { return r < num_rows ? q + r * kv.head_dim : nullptr; });

  constexpr int kTile = kTileKeys * WarpRows<T, kDim>::kStride;
  T* tiles = reinterpret_cast<T*>(shared_bytes) + warp * kStages * 2 * kTile;
  float* merge = reinterpret_cast<float*>(shared_bytes);

  for (int split = first_key / shape.split_len + blockIdx.y; split < num_splits; split += gridDim.y) {
    const int quarter = shape.split_len / kWarps;
    const int begin = split * shape.split_len + warp * quarter;
    const int end = min(begin + quarter, seq_len);
    rows.Clear();
    const auto start = [&](int tile) {
      const int key = begin + tile * kTileKeys;
      if (key < end) {
        T* to = tiles + tile % kStages * 2 * kTile;
        const int block = block_table[key / kv.block_size], offset = key % kv.block_size;
        const int count = end - key;
        CopyKeys<T, kDim, kTileKeys>(to, CacheBlock<T>(kv.k, kv, block, kv_head) + offset * kv.head_dim, kv.head_dim, count, lane, 32);
        CopyKeys<T, kDim, kTileKeys>(to + kTile, CacheBlock<T>(kv.v, kv, block, kv_head) + offset * kv.head_dim, kv.head_dim, count, lane, 32);
      }
      CommitCopies();
    };
    const int skipped = max(0, (first_key - begin) / kTileKeys);
    const int num_tiles = (end - begin + kTileKeys - 1) / kTileKeys;
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) start(skipped + i);
    for (int tile = skipped; tile < num_tiles; ++tile) {
      start(tile + kStages - 1);
      WaitCopies<kStages - 1>();
      __syncwarp();
      const int key = begin + tile * kTileKeys;
      const T* keys = tiles + tile % kStages * 2 * kTile;
      rows.Attend(keys, keys + kTile, p, [&](int, int i) { return key + i < end && key + i >= first_key; });
      __syncwarp();
    }
    WaitCopies<0>();
    rows.FinishSums();

    // The warps' results, in the order of warps.
    __syncthreads();
    constexpr int kMergeStride = kDim + 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* to = merge + (warp * kRows + lane / 4 + half * 8) * kMergeStride;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        to[n * 8 + lane % 4 * 2] = rows.y[n][half * 2];
        to[n * 8 + lane % 4 * 2 + 1] = rows.y[n][half * 2 + 1];
      }
      if (lane % 4 == 0) {
        to[kDim] = rows.max[half];
        to[kDim + 1] = rows.sum[half];
      }
    }
    __syncthreads();
    const bool is_alone = num_splits == 1;
    for (int i = threadIdx.x; i < num_rows * kv.head_dim; i += kThreads) {
      const int row = i / kv.head_dim, d = i % kv.head_dim;
      float max = kMasked, sum = 0, y = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) max = fmaxf(max, merge[(w * kRows + row) * kMergeStride + kDim]);
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const float* from = merge + (w * kRows + row) * kMergeStride;
        const float weight = exp2f(from[kDim] - max);
        sum += weight * from[kDim + 1];
        y += weight * from[d];
      }
      if (is_alone) {
        T* to = static_cast<T*>(p.y) + (static_cast<int64_t>(token) * p.num_heads + first_head + row) * kv.head_dim;
        to[d] = FromFloat<T>(y / sum);
      } else {
        float* to = shape.partials + ((static_cast<int64_t>(seq) * p.num_heads + first_head + row) * kMaxSplits + split) * (kv.head_dim + 2);
        to[d] = y;
        if (d == 0) {
          to[kv.head_dim] = max;
          to[kv.head_dim + 1] = sum;
        }
      }
    }
    __syncthreads();
  }
}

// grid (num_seqs, num_heads): the splits of a sequence, in their order.
template <typename T>
__global__ void CombineKernel(Shape shape) {
  const AttentionParams& p = shape.p;
  const int seq = blockIdx.x, head = blockIdx.y, head_dim = p.kv.head_dim;
  const int token = p.step.cu_seqlens_q[seq];
  if (p.step.cu_seqlens_q[seq + 1] - token != 1) return;
  const int seq_len = p.step.seq_lens[seq];
  const int first_key = p.sliding_window > 0 ? max(0, seq_len - p.sliding_window) : 0;
  const int first = first_key / shape.split_len, num_splits = (seq_len + shape.split_len - 1) / shape.split_len;
  if (num_splits == 1) return;
  const float* partials = shape.partials + (static_cast<int64_t>(seq) * p.num_heads + head) * kMaxSplits * (head_dim + 2);
  float max = kMasked;
  for (int i = first; i < num_splits; ++i) max = fmaxf(max, partials[i * (head_dim + 2) + head_dim]);
  for (int d = threadIdx.x; d < head_dim; d += blockDim.x) {
    float sum = 0, y = 0;
    for (int i = first; i < num_splits; ++i) {
      const float* from = partials + i * (head_dim + 2);
      const float weight = exp2f(from[head_dim] - max);
      sum += weight * from[head_dim + 1];
      y += weight * from[d];
    }
    static_cast<T*>(p.y)[(static_cast<int64_t>(token) * p.num_heads + head) * head_dim + d] = FromFloat<T>(y / sum);
  }
}

// ---- prefill ----
// grid (tiles of 64 rows, num_kv_heads, num_seqs). Tiles of 64 keys, two on their way.

constexpr int kBlockRows = kRows * kWarps;
constexpr int kBlockKeys = 64;

template <int kDim>
constexpr int PrefillSharedBytes() {
  return 2 * 2 * kBlockKeys * (kDim + 8) * 2;
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads) PrefillKernel(Shape shape) {
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  const AttentionParams& p = shape.p;
  const KvLayer& kv = p.kv;
  const int seq = blockIdx.z, kv_head = blockIdx.y;
  const int first_token = p.step.cu_seqlens_q[seq], query_len = p.step.cu_seqlens_q[seq + 1] - first_token;
  const int total_rows = query_len * shape.group;
  // the longest tiles first: they see the most keys
  const int tile_row = (static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)) * kBlockRows;
  if (query_len <= 1 || tile_row >= total_rows) return;
  const int seq_len = p.step.seq_lens[seq], context = seq_len - query_len;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = tile_row + warp * kRows;
  const int32_t* block_table = p.step.block_tables + static_cast<int64_t>(seq) * p.step.block_table_stride;

  WarpRows<T, kDim> rows;
  const auto offset_of = [&](int row) {
    return (static_cast<int64_t>(first_token + row / shape.group) * p.num_heads + kv_head * shape.group + row % shape.group) * kv.head_dim;
  };
  rows.LoadQuery(kv.head_dim, [&](int r) -> const T* {
    return warp_row + r < total_rows ? static_cast<const T*>(p.q) + offset_of(warp_row + r) : nullptr;
  });
  rows.Clear();

  // Positions of the tile's first and last row, and of this lane's two rows.
  const int last_row = min(tile_row + kBlockRows, total_rows) - 1;
  const int first_position = context + tile_row / shape.group, last_position = context + last_row / shape.group;
  const int positions[2] = {context + (warp_row + lane / 4) / shape.group, context + (warp_row + lane / 4 + 8) / shape.group};
  const int window = p.sliding_window > 0 ? p.sliding_window : INT_MAX;
  const int first_tile = max(0, first_position - (window - 1)) / kBlockKeys * (p.sliding_window > 0 ? 1 : 0);
  const int num_tiles = last_position / kBlockKeys + 1;

  constexpr int kTile = kBlockKeys * WarpRows<T, kDim>::kStride;
  T* tiles = reinterpret_cast<T*>(shared_bytes);
  const auto start = [&](int tile) {
    if (tile < num_tiles) {
      T* to = tiles + tile % 2 * 2 * kTile;
      constexpr int kChunks = kDim / 8;
      for (int i = threadIdx.x; i < kBlockKeys * kChunks; i += kThreads) {
        const int key = tile * kBlockKeys + i / kChunks, d = i % kChunks * 8;
        const bool valid = key <= last_position && d < kv.head_dim;
        const int block = valid ? block_table[key / kv.block_size] : 0;
        const int64_t offset = valid ? key % kv.block_size * kv.head_dim + d : 0;
        const int at = i / kChunks * WarpRows<T, kDim>::kStride + d;
        CopyAsync16(to + at, CacheBlock<T>(kv.k, kv, block, kv_head) + offset, valid);
        CopyAsync16(to + kTile + at, CacheBlock<T>(kv.v, kv, block, kv_head) + offset, valid);
      }
    }
    CommitCopies();
  };
  start(first_tile);
  for (int tile = first_tile; tile < num_tiles; ++tile) {
    start(tile + 1);
    WaitCopies<1>();
    __syncthreads();
    const T* keys = tiles + tile % 2 * 2 * kTile;
#pragma unroll 1
    for (int part = 0; part < kBlockKeys; part += kTileKeys) {
      const int key = tile * kBlockKeys + part;
      rows.Attend(keys + part * WarpRows<T, kDim>::kStride, keys + kTile + part * WarpRows<T, kDim>::kStride, p, [&](int half, int i) {
        return key + i <= positions[half] && positions[half] - (key + i) < window;
      });
    }
    __syncthreads();
  }
  rows.FinishSums();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp_row + lane / 4 + half * 8;
    if (row >= total_rows) continue;
    T* to = static_cast<T*>(p.y) + offset_of(row);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int d = n * 8 + lane % 4 * 2;
      if (d >= kv.head_dim) continue;
      *reinterpret_cast<uint32_t*>(to + d) = Pack<T>(rows.y[n][half * 2] / rows.sum[half], rows.y[n][half * 2 + 1] / rows.sum[half]);
    }
  }
}

// ---- plain ----
// A warp per (token, head), lanes over the head's dimensions.

constexpr int kMaxLaneDims = 256 / 32;

template <typename T>
__global__ void PlainKernel(Shape shape) {
  const AttentionParams& p = shape.p;
  const KvLayer& kv = p.kv;
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (item >= int64_t{p.step.num_tokens} * p.num_heads) return;
  const int token = static_cast<int>(item / p.num_heads), head = static_cast<int>(item % p.num_heads);
  const int seq = SeqOfToken(p.step.cu_seqlens_q, p.step.num_seqs, token);
  if (seq < 0) return;
  const int lane = threadIdx.x % 32, position = p.step.positions[token];
  const int32_t* block_table = p.step.block_tables + static_cast<int64_t>(seq) * p.step.block_table_stride;
  const T* q = static_cast<const T*>(p.q) + item * kv.head_dim;
  float query[kMaxLaneDims], y[kMaxLaneDims] = {};
#pragma unroll
  for (int i = 0; i < kMaxLaneDims; ++i) query[i] = lane + 32 * i < kv.head_dim ? ToFloat(q[lane + 32 * i]) : 0;
  float max = kMasked, sum = 0;
  const int first = p.sliding_window > 0 ? ::max(0, position - p.sliding_window + 1) : 0;
  for (int key = first; key <= position; ++key) {
    const int block = block_table[key / kv.block_size];
    const int64_t offset = static_cast<int64_t>(key % kv.block_size) * kv.head_dim;
    const T* k = CacheBlock<T>(kv.k, kv, block, head / shape.group) + offset;
    const T* v = CacheBlock<T>(kv.v, kv, block, head / shape.group) + offset;
    float score = 0;
#pragma unroll
    for (int i = 0; i < kMaxLaneDims; ++i)
      if (lane + 32 * i < kv.head_dim) score += query[i] * ToFloat(k[lane + 32 * i]);
    const float s = ToLogit(WarpSum(score), p);
    const float newest = fmaxf(max, s), shrink = exp2f(max - newest), weight = exp2f(s - newest);
    max = newest;
    sum = sum * shrink + weight;
#pragma unroll
    for (int i = 0; i < kMaxLaneDims; ++i)
      if (lane + 32 * i < kv.head_dim) y[i] = y[i] * shrink + weight * ToFloat(v[lane + 32 * i]);
  }
  T* to = static_cast<T*>(p.y) + item * kv.head_dim;
#pragma unroll
  for (int i = 0; i < kMaxLaneDims; ++i)
    if (lane + 32 * i < kv.head_dim) to[lane + 32 * i] = FromFloat<T>(y[i] / sum);
}

// ---- launches ----

template <typename T>
Launch LaunchPlain(const Shape& shape, cudaStream_t stream) {
  const int64_t items = int64_t{shape.p.step.num_tokens} * shape.p.num_heads;
  PlainKernel<T><<<static_cast<unsigned>((items + kWarps - 1) / kWarps), kThreads, 0, stream>>>(shape);
  return cudaGetLastError();
}

template <typename Kernel>
Launch AllowShared(Kernel* kernel, int bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

// Blocks along the splits: enough to fill the device when there are few sequences.
int SplitBlocks(const Shape& shape) {
  constexpr int kWantedBlocks = 264;
  const int others = shape.p.step.num_seqs * shape.p.kv.num_kv_heads;
  const int splits = (shape.p.step.max_seq_len + shape.split_len - 1) / shape.split_len;
  return std::clamp((kWantedBlocks + others - 1) / others, 1, std::max(splits, 1));
}

template <typename T, int kDim>
Launch LaunchTensorCores(const Shape& shape, cudaStream_t stream) {
  const AttentionParams& p = shape.p;
  static const Launch allowed = [] {
    const Launch decode = AllowShared(DecodeKernel<T, kDim>, DecodeSharedBytes<kDim>());
    return decode != cudaSuccess ? decode : AllowShared(PrefillKernel<T, kDim>, PrefillSharedBytes<kDim>());
  }();
  if (allowed != cudaSuccess) return allowed;
  {
    const dim3 grid(p.step.num_seqs * p.kv.num_kv_heads, SplitBlocks(shape), (shape.group + kRows - 1) / kRows);
    DecodeKernel<T, kDim><<<grid, kThreads, DecodeSharedBytes<kDim>(), stream>>>(shape);
    if (p.step.max_seq_len > shape.split_len)
      CombineKernel<T><<<dim3(p.step.num_seqs, p.num_heads), std::min(kDim, 128), 0, stream>>>(shape);
  }
  if (p.step.max_query_len > 1) {
    const int tiles = (p.step.max_query_len * shape.group + kBlockRows - 1) / kBlockRows;
    PrefillKernel<T, kDim><<<dim3(tiles, p.kv.num_kv_heads, p.step.num_seqs), kThreads, PrefillSharedBytes<kDim>(), stream>>>(shape);
  }
  return cudaGetLastError();
}

template <typename T>
Launch LaunchForHead(const Shape& shape, cudaStream_t stream) {
  const int head_dim = shape.p.kv.head_dim;
  if (shape.p.kv.block_size % kTileKeys != 0 || head_dim % 8 != 0) return LaunchPlain<T>(shape, stream);
  if (head_dim <= 64) return LaunchTensorCores<T, 64>(shape, stream);
  if (head_dim <= 128) return LaunchTensorCores<T, 128>(shape, stream);
  if (head_dim <= 256) return LaunchTensorCores<T, 256>(shape, stream);
  return cudaErrorNotSupported;
}

}  // namespace

size_t AttentionScratchBytes(int32_t, int32_t max_seqs, int32_t, int32_t num_heads, int32_t head_dim) {
  return sizeof(float) * static_cast<size_t>(max_seqs) * num_heads * kMaxSplits * (head_dim + 2);
}

Launch Attention(const AttentionParams& p, cudaStream_t stream) {
  if (p.step.num_tokens == 0 || p.step.num_seqs == 0) return cudaSuccess;
  const Shape shape{p, p.num_heads / p.kv.num_kv_heads, SplitLength(p.max_model_len), static_cast<float*>(p.scratch)};
  if (p.kv.type == Type::kF32) return LaunchPlain<float>(shape, stream);
  if (p.kv.type == Type::kBf16) return LaunchForHead<__nv_bfloat16>(shape, stream);
  return LaunchForHead<__half>(shape, stream);
}

}  // namespace tenon_cuda
