// Attention of sequences with one new token: bound by reading the keys and values once, or, where they are few, by how long one step waits for another.
//
// A cluster of blocks takes a sequence, a KV head and up to 16 query heads of its group; each block takes a contiguous share of the keys, and each
// of its warps 16 keys at a time, in turn. A warp copies its own keys kStages - 1 steps ahead and attends to them without a barrier.
// At the end the warps' sums are merged in the block, then the blocks' through the cluster's shared memory, both in a fixed order: one
// launch, no scratch. How many blocks a cluster has follows from the number of sequences alone (ClusterBlocks), so a recorded launch
// fits any lengths; those without keys end at once. A row's last bits depend on that number. grid (blocks of a cluster * tiles of 16 query
// heads, num_kv_heads, num_seqs).
#include "attention.cuh"

namespace tenon_cuda {
namespace {

constexpr int kMinKeys = 128;   // of a block: one more costs the cluster more than its keys
constexpr int kFewStages = 2, kFewWarps = 4;  // for head_dim 128 where clusters have several blocks
constexpr int kSoonTiles = 4;   // of a warp, that are on their way to L2 before the query is there

// The keys of a block, and where its sequence is.
struct Share {
  int begin, end;  // keys; multiple of kTileKeys, and at most the sequence's length
  int first_key;   // those before are out of the window
  int blocks;      // of the cluster that have keys
  const int32_t* block_table;
  int kv_head;
};

// step_keys: that a block takes at a time.
__device__ __forceinline__ Share ShareOf(const AttentionParams& p, int seq, int seq_len, int kv_head, int rank, int num_blocks, int step_keys) {
  const int first_key = p.sliding_window > 0 ? max(0, seq_len - p.sliding_window) : 0, start = first_key / kTileKeys * kTileKeys, keys = seq_len - start;
  const int each = max(kMinKeys, ((keys + num_blocks - 1) / num_blocks + step_keys - 1) / step_keys * step_keys);
  return {start + rank * each, min(start + (rank + 1) * each, seq_len), first_key, max(1, (keys + each - 1) / each),
          p.step.block_tables + static_cast<int64_t>(seq) * p.step.block_table_stride, kv_head};
}

// Copies a warp's keys to shared memory, step by step.
template <typename T, int kDim, int kStepKeys>
struct Reader {
  const KvLayer& kv;
  const Share& share;
  const uint32_t block_magic;
  const int block_tiles;
  int key;               // of the next step
  const T *k = nullptr, *v = nullptr;  // looked up a step ahead

  __device__ Reader(const Shape& shape, const Share& of, int warp)
      : kv(shape.p.kv), share(of), block_magic(shape.block_magic), block_tiles(shape.block_tiles), key(of.begin + warp * kTileKeys) {
    Find(key, k, v);
  }
  // Where the tile that begins with `first` is.
  __device__ __forceinline__ void Find(int first, const T*& keys, const T*& values) const {
    if (first >= share.end) return;
    const int tile = first / kTileKeys, index = block_magic == 0 ? tile : static_cast<int>(__umulhi(static_cast<uint32_t>(tile), block_magic));
    const int64_t offset = static_cast<int64_t>(tile - index * block_tiles) * kTileKeys * kv.head_dim;
    const int block = share.block_table[index];
    keys = CacheBlock<T>(kv.k, kv, block, share.kv_head) + offset;
    values = CacheBlock<T>(kv.v, kv, block, share.kv_head) + offset;
  }
  // Asks L2 for the first tiles. They need not be written yet, as L2 is what the writer writes to.
  __device__ __forceinline__ void FetchSoon() const {
    constexpr int kLineBytes = 128;
    const int tile_bytes = kTileKeys * kv.head_dim * static_cast<int>(sizeof(T)), lane = threadIdx.x % 32;
    const T *keys = k, *values = v;
#pragma unroll 1
    for (int i = 0; i < kSoonTiles; ++i) {
      const int first = key + i * kStepKeys;
      if (first >= share.end) return;
      Find(first, keys, values);
#pragma unroll
      for (int at = 0; at < kTileKeys * kDim * 2; at += 32 * kLineBytes) {
        const int byte = at + lane * kLineBytes;
        if (byte >= tile_bytes) continue;
        asm volatile("prefetch.global.L2 [%0];\n" ::"l"(reinterpret_cast<const char*>(keys) + byte));
        asm volatile("prefetch.global.L2 [%0];\n" ::"l"(reinterpret_cast<const char*>(values) + byte));
      }
    }
  }
  // tile: keys, then values.
  __device__ __forceinline__ void CopyNext(T* tile) {
    if (key < share.end) {
      const int lane = threadIdx.x % 32, count = share.end - key;
      constexpr int kChunks = kDim / 8;
      if (count >= kTileKeys && kv.head_dim == kDim) {
#pragma unroll
        for (int i = 0; i < kTileKeys * kChunks / 32; ++i) {
          const int to = WarpRows<T, kDim>::At((i * 32 + lane) / kChunks, (i * 32 + lane) % kChunks);
          CopyAsync16(tile + to, k + lane * 8 + i * 256);
          CopyAsync16(tile + kTileKeys * kDim + to, v + lane * 8 + i * 256);
        }
      } else {
#pragma unroll 4
        for (int i = lane; i < kTileKeys * kChunks; i += 32) {
          const int row = i / kChunks, chunk = i % kChunks, to = WarpRows<T, kDim>::At(row, chunk);
          const bool valid = row < count && chunk * 8 < kv.head_dim;
          const int from = valid ? row * kv.head_dim + chunk * 8 : 0;
          CopyAsync16(tile + to, k + from, valid);
          CopyAsync16(tile + kTileKeys * kDim + to, v + from, valid);
        }
      }
      key += kStepKeys;
      Find(key, k, v);
    }
    CommitCopies();
  }
};

// Where quad `quad` of a row's kDim floats lies among those that a warp leaves: swizzled, so that rows begin in different banks.
template <int kDim>
__device__ __forceinline__ int QuadAt(int row, int quad) { return row * kDim + (quad ^ (row & 7) * 2) * 4; }

// A warp's sums: of rows to `sums` [num_rows][kDim], of which a stage holds 16, and their maxima and weights to `stats` [num_rows].
template <typename T, int kDim>
__device__ __forceinline__ void LeaveRows(const WarpRows<T, kDim>& rows, float* sums, float2* stats, int num_rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + half * 8;
    if (row >= num_rows) continue;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
      *reinterpret_cast<float2*>(sums + QuadAt<kDim>(row, n * 2 + lane % 4 / 2) + lane % 2 * 2) = make_float2(rows.y[n][half * 2], rows.y[n][half * 2 + 1]);
    if (lane % 4 == 0) stats[row] = make_float2(rows.max[half], rows.sum[half]);
  }
}

// Weighted sums of one row, four dims of them.
struct Partial {
  float4 y{};
  float max = kMasked, sum = 0;

  // Those of kParts places, of which `parts` are there, in their order.
  template <int kParts>
  __device__ __forceinline__ void Add(const float2 (&stats)[kParts], const float4 (&ys)[kParts], int parts) {
    float newest = max;
#pragma unroll
    for (int i = 0; i < kParts; ++i)
      if (i < parts) newest = fmaxf(newest, stats[i].x);
    const float own = Exp2(max - newest);
    y = {y.x * own, y.y * own, y.z * own, y.w * own};
    sum *= own;
    max = newest;
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      if (i >= parts) continue;
      const float share = Exp2(stats[i].x - newest);
      sum += share * stats[i].y;
      y = {y.x + share * ys[i].x, y.y + share * ys[i].y, y.z + share * ys[i].z, y.w + share * ys[i].w};
    }
  }
};

template <typename T>
__device__ __forceinline__ void WriteFour(T* y, const Partial& of) {
  const float scale = __fdividef(1.f, of.sum);
  *reinterpret_cast<uint2*>(y) = make_uint2(Pack<T>(of.y.x * scale, of.y.y * scale), Pack<T>(of.y.z * scale, of.y.w * scale));
}

template <int kDim, int kStages, int kWarps>
constexpr int TileBytes() {
  return kWarps * kStages * 2 * kTileKeys * kDim * 2;
}

template <typename T, int kDim, int kStages, int kWarps>
__global__ void __launch_bounds__(32 * kWarps) DecodeKernel(const __grid_constant__ Shape shape) {
  extern __shared__ __align__(128) uint8_t shared_bytes[];
  __shared__ float2 warp_stats[kWarps][kRows], block_stats[kRows];
  constexpr int kThreads = 32 * kWarps, kStepKeys = kWarps * kTileKeys, kTile = 2 * kTileKeys * kDim;
  const AttentionParams& p = shape.p;
  const KvLayer& kv = p.kv;
  const int rank = ClusterRank(), cluster = ClusterSize(), seq = static_cast<int>(blockIdx.z), kv_head = static_cast<int>(blockIdx.y), first_row = ClusterIndex() * kRows;
  const int warp = threadIdx.x / 32, num_rows = min(kRows, shape.group - first_row);
  const auto tiles_of = [&](int of) { return reinterpret_cast<T*>(shared_bytes) + of * kStages * kTile; };
  T* tiles = tiles_of(warp);

  // What the step says was there before its first kernel.
  LetNextStart();
  const int token = p.step.cu_seqlens_q[seq], next_token = p.step.cu_seqlens_q[seq + 1], seq_len = p.step.seq_lens[seq];
  if (next_token - token != 1) {
    WaitForPrevious();  // a kernel must not end before those ahead of it
    return;
  }
  const Share share = ShareOf(p, seq, seq_len, kv_head, rank, cluster, kStepKeys);
  if (rank >= share.blocks) return;
  Reader<T, kDim, kStepKeys> reader(shape, share, warp);
  if (shape.all_at_once) reader.FetchSoon();
  const int64_t first = (static_cast<int64_t>(token) * p.num_heads + kv_head * shape.group + first_row) * kv.head_dim;
  WaitForPrevious();

  WarpRows<T, kDim> rows;
  rows.LoadQuery(kv.head_dim, [&](int r) { return r < num_rows ? static_cast<const T*>(p.q) + first + r * kv.head_dim : nullptr; });
  rows.Clear();
  // The first kStages - 1 turns copy only.
  int stage = 0, copied = 0;
#pragma unroll 1
  for (int key = share.begin + (warp - (kStages - 1) * kWarps) * kTileKeys; key < share.end; key += kStepKeys) {
    reader.CopyNext(tiles + copied * kTile);
    copied = copied + 1 == kStages ? 0 : copied + 1;
    if (key < share.begin) continue;
    WaitCopies<kStages - 1>();
    __syncwarp();
    const T* keys = tiles + stage * kTile;
    const bool sees_all = key + kTileKeys <= share.end && key >= share.first_key;
    rows.Attend(keys, keys + kTileKeys * kDim, p, sees_all, [&](int, int i) { return key + i < share.end && key + i >= share.first_key; });
    __syncwarp();
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  WaitCopies<0>();
  rows.FinishSums();

  // The warps' sums take the place of their first tiles; the block's then that of warp 0.
  LeaveRows(rows, reinterpret_cast<float*>(tiles), warp_stats[warp], num_rows);
  __syncthreads();
  T* y = static_cast<T*>(p.y) + first;
  constexpr int kQuads = kDim / 4;
#pragma unroll 1
  for (int i = threadIdx.x; i < num_rows * kQuads; i += kThreads) {
    const int row = i / kQuads, quad = i % kQuads;
    if (quad * 4 >= kv.head_dim) continue;
    float2 stats[kWarps];
    float4 ys[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      stats[w] = warp_stats[w][row];
      ys[w] = *reinterpret_cast<const float4*>(reinterpret_cast<const float*>(tiles_of(w)) + QuadAt<kDim>(row, quad));
    }
    Partial sum;
    sum.Add(stats, ys, kWarps);
    if (share.blocks == 1) {
      WriteFour(y + row * kv.head_dim + quad * 4, sum);
      continue;
    }
    *reinterpret_cast<float4*>(reinterpret_cast<float*>(shared_bytes) + QuadAt<kDim>(row, quad)) = sum.y;
    if (quad == 0) block_stats[row] = make_float2(sum.max, sum.sum);
  }
  if (share.blocks == 1) return;
  SyncCluster();
  constexpr int kParts = 8;  // whose loads are on their way together
#pragma unroll 1
  for (int i = rank * kThreads + threadIdx.x; i < num_rows * kQuads; i += share.blocks * kThreads) {
    const int row = i / kQuads, quad = i % kQuads;
    if (quad * 4 >= kv.head_dim) continue;
    Partial sum;
#pragma unroll 1
    for (int begin = 0; begin < share.blocks; begin += kParts) {
      float2 stats[kParts];
      float4 ys[kParts];
#pragma unroll
      for (int b = 0; b < kParts; ++b) {
        const int of = min(begin + b, share.blocks - 1);
        stats[b] = OfRank(block_stats, of)[row];
        ys[b] = *reinterpret_cast<const float4*>(OfRank(reinterpret_cast<float*>(shared_bytes), of) + QuadAt<kDim>(row, quad));
      }
      sum.Add(stats, ys, share.blocks - begin);
    }
    WriteFour(y + row * kv.head_dim + quad * 4, sum);
  }
  EndCluster();
}

// Blocks of a cluster: as many as give each multiprocessor one block. (More, up to what fits at a time, was slower; so were clusters of 16.)
int ClusterBlocks(const Shape& shape) {
  const int largest = Facts().capability < 90 ? 1 : 8;
  const int pairs = shape.p.step.num_seqs * shape.p.kv.num_kv_heads * shape.row_tiles;
  const int longest = shape.p.step.recording ? shape.p.max_model_len : shape.p.step.max_seq_len;
  int blocks = 1;
  while (blocks < largest && blocks * pairs * 2 <= Facts().num_sms && blocks * kMinKeys < longest) blocks *= 2;
  return blocks;
}

template <typename T, int kDim, int kStages, int kWarps>
Launch LaunchStages(const Shape& shape, cudaStream_t stream) {
  const AttentionParams& p = shape.p;
  constexpr int kSharedBytes = TileBytes<kDim, kStages, kWarps>(), kThreads = 32 * kWarps;
  const auto kernel = DecodeKernel<T, kDim, kStages, kWarps>;
  if (kSharedBytes + static_cast<int>((kWarps + 1) * kRows * sizeof(float2)) > Facts().shared_bytes) return cudaErrorNotSupported;
  static const Launch allowed = AllowShared(kernel, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const int cluster = ClusterBlocks(shape);
  const dim3 grid(static_cast<unsigned>(cluster * shape.row_tiles), static_cast<unsigned>(p.kv.num_kv_heads), static_cast<unsigned>(p.step.num_seqs));
  Shape with = shape;
  with.all_at_once = grid.x * grid.y * grid.z <= 2u * static_cast<unsigned>(Facts().num_sms);
  return LaunchClusters(cluster, kernel, grid, dim3(kThreads), kSharedBytes, stream, with);
}

}  // namespace

template <typename T>
Launch LaunchDecode(const Shape& shape, cudaStream_t stream) {
  const int head_dim = shape.p.kv.head_dim;
  if (head_dim <= 64) return LaunchStages<T, 64, 4, 4>(shape, stream);
  if (head_dim <= 128) {
    const bool few = shape.p.step.num_seqs * shape.p.kv.num_kv_heads * shape.row_tiles * 2 <= Facts().num_sms;
    const Launch launch = few ? LaunchStages<T, 128, kFewStages, kFewWarps>(shape, stream) : LaunchStages<T, 128, 3, 4>(shape, stream);
    return launch != cudaErrorNotSupported ? launch : LaunchStages<T, 128, 2, 4>(shape, stream);
  }
  const Launch launch = LaunchStages<T, 256, 3, 4>(shape, stream);
  return launch != cudaErrorNotSupported ? launch : LaunchStages<T, 256, 1, 4>(shape, stream);
}
template Launch LaunchDecode<__nv_bfloat16>(const Shape&, cudaStream_t);
template Launch LaunchDecode<__half>(const Shape&, cudaStream_t);

}  // namespace tenon_cuda
