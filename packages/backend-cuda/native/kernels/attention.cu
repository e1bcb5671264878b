// Causal paged attention with grouped queries: softmax(q · Kᵀ · scale, soft-capped) · V over the positions that a token may see.
//
// The query heads that share a KV head are rows of one matrix: row r is token r / group, head r % group of the group. Four kernels:
//   decode   (attention_decode.cu) sequences with one new token
//   wgmma    (attention_wgmma.cu) sequences with several, on Hopper
//   prefill  the same on other devices: a block per 64 rows, four warps of 16 rows share tiles of keys
//   plain    f32, and head or block sizes that the others do not take: a warp per row
// Scores and sums in f32, with a running maximum; weights are rounded to T before they meet V. What a row gets depends on its own
// sequence alone: splits and tiles begin at fixed positions. Layouts: kernels.h.
#include "attention.cuh"

namespace tenon_cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

// ---- prefill ----
// grid (tiles of 64 rows of all sequences, num_kv_heads). Two tiles of keys on their way.

constexpr int kBlockRows = kRows * kWarps;
template <int kDim>
constexpr int kBlockKeys = kDim > 128 ? 32 : 64;

template <int kDim>
constexpr int PrefillSharedBytes() {
  return 2 * 2 * kBlockKeys<kDim> * kDim * 2;
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads) PrefillKernel(const __grid_constant__ Shape shape) {
  extern __shared__ __align__(128) uint8_t shared_bytes[];
  constexpr int kKeys = kBlockKeys<kDim>, kTile = kKeys * kDim;
  const AttentionParams& p = shape.p;
  const KvLayer& kv = p.kv;
  int* prefix = reinterpret_cast<int*>(shared_bytes + PrefillSharedBytes<kDim>());
  LetNextStart();
  RunningSum<kThreads>(prefix, p.step.num_seqs, [&](int s) {
    const int tokens = p.step.cu_seqlens_q[s + 1] - p.step.cu_seqlens_q[s];
    return tokens > 1 ? (tokens * shape.group + kBlockRows - 1) / kBlockRows : 0;
  });
  // the last tiles first: they see the most keys
  const int tile = prefix[p.step.num_seqs] - 1 - static_cast<int>(blockIdx.x);
  WaitForPrevious();
  if (tile < 0) return;
  const int seq = FindIn(prefix, p.step.num_seqs, tile), kv_head = blockIdx.y;
  const int first_token = p.step.cu_seqlens_q[seq], query_len = p.step.cu_seqlens_q[seq + 1] - first_token;
  const int total_rows = query_len * shape.group, tile_row = (tile - prefix[seq]) * kBlockRows;
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
  const int first_tile = max(0, first_position - (window - 1)) / kKeys, num_tiles = last_position / kKeys + 1;

  T* tiles = reinterpret_cast<T*>(shared_bytes);
  const auto start = [&](int t) {
    if (t < num_tiles) {
      T* to = tiles + t % 2 * 2 * kTile;
      constexpr int kChunks = kDim / 8;
      for (int i = threadIdx.x; i < kKeys * kChunks; i += kThreads) {
        const int key = t * kKeys + i / kChunks, chunk = i % kChunks;
        const bool valid = key <= last_position && chunk * 8 < kv.head_dim;
        const int block = valid ? block_table[key / kv.block_size] : 0;
        const int64_t offset = valid ? key % kv.block_size * kv.head_dim + chunk * 8 : 0;
        const int at = WarpRows<T, kDim>::At(i / kChunks, chunk);
        CopyAsync16(to + at, CacheBlock<T>(kv.k, kv, block, kv_head) + offset, valid);
        CopyAsync16(to + kTile + at, CacheBlock<T>(kv.v, kv, block, kv_head) + offset, valid);
      }
    }
    CommitCopies();
  };
  start(first_tile);
  for (int t = first_tile; t < num_tiles; ++t) {
    start(t + 1);
    WaitCopies<1>();
    __syncthreads();
    const T* keys = tiles + t % 2 * 2 * kTile;
#pragma unroll 1
    for (int part = 0; part < kKeys; part += kTileKeys) {
      const int key = t * kKeys + part;
      const bool sees_all = key + kTileKeys - 1 <= context + warp_row / shape.group && context + (warp_row + kRows - 1) / shape.group - key < window;
      rows.Attend(keys + part * kDim, keys + kTile + part * kDim, p, sees_all, [&](int half, int i) {
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
__global__ void __launch_bounds__(kThreads) PlainKernel(const __grid_constant__ Shape shape) {
  LetNextStart();
  WaitForPrevious();
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
  return LaunchEarly(PlainKernel<T>, dim3(static_cast<unsigned>((items + kWarps - 1) / kWarps)), dim3(kThreads), 0, stream, shape);
}

template <typename T, int kDim>
Launch LaunchPrefill(const Shape& shape, cudaStream_t stream) {
  const StepPointers& step = shape.p.step;
  const int shared_bytes = PrefillSharedBytes<kDim>() + (step.num_seqs + 1) * static_cast<int>(sizeof(int));
  static const Launch allowed = AllowShared(PrefillKernel<T, kDim>, Facts().shared_bytes - 1024);
  if (allowed != cudaSuccess) return allowed;
  const unsigned tiles = static_cast<unsigned>(MaxTiles(step, shape.group, kBlockRows));
  return LaunchEarly(PrefillKernel<T, kDim>, dim3(tiles, shape.p.kv.num_kv_heads), dim3(kThreads), static_cast<size_t>(shared_bytes), stream, shape);
}

template <typename T>
Launch LaunchPrefillForHead(const Shape& shape, cudaStream_t stream) {
  const Launch launch = LaunchWgmmaPrefill<T>(shape, stream);
  if (launch != cudaErrorNotSupported) return launch;
  const int head_dim = shape.p.kv.head_dim;
  if (head_dim <= 64) return LaunchPrefill<T, 64>(shape, stream);
  if (head_dim <= 128) return LaunchPrefill<T, 128>(shape, stream);
  return LaunchPrefill<T, 256>(shape, stream);
}

template <typename T>
Launch LaunchForHead(const Shape& shape, cudaStream_t stream) {
  const AttentionParams& p = shape.p;
  if (p.kv.head_dim > 256) return cudaErrorNotSupported;
  const bool aligned = (reinterpret_cast<uintptr_t>(p.q) | reinterpret_cast<uintptr_t>(p.y)) % 16 == 0;
  if (p.kv.block_size % kTileKeys != 0 || p.kv.head_dim % 8 != 0 || !aligned) return LaunchPlain<T>(shape, stream);
  if (p.step.num_single > 0) {
    const Launch launch = LaunchDecode<T>(shape, stream);
    if (launch != cudaSuccess) return launch;
  }
  return p.step.num_single < p.step.num_seqs ? LaunchPrefillForHead<T>(shape, stream) : cudaSuccess;
}

}  // namespace

size_t AttentionScratchBytes(int32_t, int32_t, int32_t, int32_t, int32_t) { return 0; }

Launch Attention(const AttentionParams& p, cudaStream_t stream) {
  if (p.step.num_tokens == 0 || p.step.num_seqs == 0) return cudaSuccess;
  const int group = p.num_heads / p.kv.num_kv_heads;
  const int block_tiles = std::max(1, p.kv.block_size / kTileKeys);
  const Shape shape{.p = p,
                    .group = group,
                    .row_tiles = (group + kRows - 1) / kRows,
                    .block_tiles = block_tiles,
                    .block_magic = block_tiles == 1 ? 0 : static_cast<uint32_t>((uint64_t{1} << 32) / static_cast<uint32_t>(block_tiles) + 1)};
  if (p.kv.type == Type::kF32) return LaunchPlain<float>(shape, stream);
  if (p.kv.type == Type::kBf16) return LaunchForHead<__nv_bfloat16>(shape, stream);
  return LaunchForHead<__half>(shape, stream);
}

}  // namespace tenon_cuda
