// Attention of sequences with one new token: bound by reading the keys and values once.
//
// A cluster of blocks takes a sequence, a KV head and up to 16 query heads of its group; each block takes a contiguous share of the keys, and each
// of its four warps 16 keys at a time, in turn. A warp copies its own keys kStages - 1 steps ahead and attends to them without a barrier.
// At the end the warps' sums are merged in the block, then the blocks' through the cluster's shared memory, both in a fixed order: one
// launch, no scratch. How many blocks a cluster has follows from the number of sequences alone (ClusterBlocks), so a recorded launch
// fits any lengths; a row's last bits depend on that number. grid (blocks of a cluster * num_kv_heads * num_seqs, tiles of 16 query heads).
#include "attention.cuh"

namespace tenon_cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kStepKeys = kWarps * kTileKeys;  // that a block takes at a time

// The keys of a block, and where its sequence is.
struct Share {
  int begin, end;  // keys; multiple of kTileKeys, and at most the sequence's length
  int first_key;   // those before are out of the window
  const int32_t* block_table;
  int kv_head;
};

__device__ __forceinline__ Share ShareOf(const AttentionParams& p, int seq, int kv_head, int rank, int num_blocks) {
  const int seq_len = p.step.seq_lens[seq];
  const int first_key = p.sliding_window > 0 ? max(0, seq_len - p.sliding_window) : 0, start = first_key / kTileKeys * kTileKeys;
  const int each = ((seq_len - start + num_blocks - 1) / num_blocks + kStepKeys - 1) / kStepKeys * kStepKeys;
  return {start + rank * each, min(start + (rank + 1) * each, seq_len), first_key,
          p.step.block_tables + static_cast<int64_t>(seq) * p.step.block_table_stride, kv_head};
}

// Copies a warp's keys to shared memory, step by step.
template <typename T, int kDim>
struct Reader {
  const KvLayer& kv;
  const Share& share;
  int key, block;  // of the next step; the block is looked up a step ahead

  __device__ Reader(const KvLayer& layer, const Share& of, int warp) : kv(layer), share(of), key(of.begin + warp * kTileKeys) { FindBlock(); }
  __device__ void FindBlock() {
    if (key < share.end) block = share.block_table[key / kv.block_size];
  }
  // tile: keys, then values.
  __device__ void CopyNext(T* tile) {
    if (key < share.end) {
      const int lane = threadIdx.x % 32, count = share.end - key;
      const int64_t offset = static_cast<int64_t>(key % kv.block_size) * kv.head_dim;
      const T* k = CacheBlock<T>(kv.k, kv, block, share.kv_head) + offset;
      const T* v = CacheBlock<T>(kv.v, kv, block, share.kv_head) + offset;
      constexpr int kChunks = kDim / 8;
      if (count >= kTileKeys && kv.head_dim == kDim) {
        k += lane * 8;
        v += lane * 8;
#pragma unroll
        for (int i = 0; i < kTileKeys * kChunks / 32; ++i) {
          const int to = WarpRows<T, kDim>::At((i * 32 + lane) / kChunks, (i * 32 + lane) % kChunks);
          CopyAsync16(tile + to, k + i * 256);
          CopyAsync16(tile + kTileKeys * kDim + to, v + i * 256);
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
      FindBlock();
    }
    CommitCopies();
  }
};

// rows = rows ⊕ the ones in `from` [num_rows][kDim + 2].
template <typename T, int kDim>
__device__ __forceinline__ void MergeRows(WarpRows<T, kDim>& rows, const float* from, int num_rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + half * 8;
    if (row >= num_rows) continue;
    const float* other = from + row * (kDim + 2);
    const float2 stats = *reinterpret_cast<const float2*>(other + kDim);
    const float max = fmaxf(rows.max[half], stats.x);
    const float own = Exp2(rows.max[half] - max), theirs = Exp2(stats.x - max);
    rows.max[half] = max;
    rows.sum[half] = rows.sum[half] * own + stats.y * theirs;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const float2 y = *reinterpret_cast<const float2*>(other + n * 8 + lane % 4 * 2);
      rows.y[n][half * 2] = rows.y[n][half * 2] * own + y.x * theirs;
      rows.y[n][half * 2 + 1] = rows.y[n][half * 2 + 1] * own + y.y * theirs;
    }
  }
}
template <typename T, int kDim>
__device__ __forceinline__ void LeaveRows(const WarpRows<T, kDim>& rows, float* to, int num_rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + half * 8;
    if (row >= num_rows) continue;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
      *reinterpret_cast<float2*>(to + row * (kDim + 2) + n * 8 + lane % 4 * 2) = make_float2(rows.y[n][half * 2], rows.y[n][half * 2 + 1]);
    if (lane % 4 == 0) *reinterpret_cast<float2*>(to + row * (kDim + 2) + kDim) = make_float2(rows.max[half], rows.sum[half]);
  }
}

// All threads of the cluster: the answer, from the blocks' rows in the order of blocks. sums: [num_rows][kDim + 2] of each block.
template <typename T, int kDim>
__device__ __forceinline__ void WriteAnswer(const AttentionParams& p, T* y, float* sums, int num_rows, int rank, int num_blocks) {
  const int quads = p.kv.head_dim / 4;
  for (int i = rank * kThreads + threadIdx.x; i < num_rows * quads; i += num_blocks * kThreads) {
    const int row = i / quads, d = i % quads * 4;
    float* own = sums + row * (kDim + 2);
    float max = kMasked, sum = 0;
    for (int b = 0; b < num_blocks; ++b) max = fmaxf(max, OfRank(own, b)[kDim]);
    float4 total{};
#pragma unroll 4
    for (int b = 0; b < num_blocks; ++b) {
      const float* of = OfRank(own, b);
      const float2 stats = *reinterpret_cast<const float2*>(of + kDim), low = *reinterpret_cast<const float2*>(of + d),
                   high = *reinterpret_cast<const float2*>(of + d + 2);
      const float share = Exp2(stats.x - max);
      sum += share * stats.y;
      total.x += share * low.x;
      total.y += share * low.y;
      total.z += share * high.x;
      total.w += share * high.y;
    }
    const float scale = 1.f / sum;
    *reinterpret_cast<uint2*>(y + row * p.kv.head_dim + d) =
        make_uint2(Pack<T>(total.x * scale, total.y * scale), Pack<T>(total.z * scale, total.w * scale));
  }
}

template <int kDim>
constexpr int MergeBytes(int rows) {
  return 3 * rows * (kDim + 2) * static_cast<int>(sizeof(float));
}
template <int kDim, int kStages>
constexpr int TileBytes() {
  return kWarps * kStages * 2 * kTileKeys * kDim * 2;
}

template <typename T, int kDim, int kStages>
__global__ void __launch_bounds__(kThreads) DecodeKernel(const __grid_constant__ Shape shape) {
  extern __shared__ __align__(128) uint8_t shared_bytes[];
  const AttentionParams& p = shape.p;
  const KvLayer& kv = p.kv;
  const int rank = ClusterRank(), num_blocks = ClusterSize(), pair = blockIdx.x / num_blocks;
  const int seq = pair / kv.num_kv_heads, kv_head = pair % kv.num_kv_heads, first_row = blockIdx.y * kRows;
  const int warp = threadIdx.x / 32, num_rows = min(kRows, shape.group - first_row);
  constexpr int kTile = 2 * kTileKeys * kDim;
  T* tiles = reinterpret_cast<T*>(shared_bytes) + warp * kStages * kTile;
  auto* merge = reinterpret_cast<float*>(shared_bytes + TileBytes<kDim, kStages>());

  // What the step says was there before its first kernel.
  LetNextStart();
  const int token = p.step.cu_seqlens_q[seq];
  const bool has_one = p.step.cu_seqlens_q[seq + 1] - token == 1;
  if (!has_one) {
    WaitForPrevious();  // a kernel must not end before those ahead of it
    return;
  }
  const Share share = ShareOf(p, seq, kv_head, rank, num_blocks);
  Reader<T, kDim> reader(kv, share, warp);
  const int64_t first = (static_cast<int64_t>(token) * p.num_heads + kv_head * shape.group + first_row) * kv.head_dim;
  WaitForPrevious();

  WarpRows<T, kDim> rows;
  rows.LoadQuery(kv.head_dim, [&](int r) { return r < num_rows ? static_cast<const T*>(p.q) + first + r * kv.head_dim : nullptr; });
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) reader.CopyNext(tiles + i * kTile);
  rows.Clear();
  int stage = 0;
  for (int key = share.begin + warp * kTileKeys; key < share.end; key += kStepKeys) {
    const int ahead = stage + kStages - 1;
    reader.CopyNext(tiles + (ahead >= kStages ? ahead - kStages : ahead) * kTile);
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

  // Warps 2 and 3 into 0 and 1, then 1 into 0.
  const int merge_rows = min(kRows, shape.group);
  float* places[3] = {merge, merge + merge_rows * (kDim + 2), merge + 2 * merge_rows * (kDim + 2)};
  if (warp >= 2) LeaveRows(rows, places[warp - 2], num_rows);
  __syncthreads();
  if (warp < 2) MergeRows(rows, places[warp], num_rows);
  if (warp == 1) LeaveRows(rows, places[2], num_rows);
  __syncthreads();
  if (warp == 0) {
    MergeRows(rows, places[2], num_rows);
    LeaveRows(rows, places[0], num_rows);
  }
  SyncCluster();
  WriteAnswer<T, kDim>(p, static_cast<T*>(p.y) + first, places[0], num_rows, rank, num_blocks);
  if (num_blocks > 1) EndCluster();
}

// Blocks of a cluster: as many as give each multiprocessor one block. (More, up to what fits at a time, was slower.)
int ClusterBlocks(const Shape& shape, int largest) {
  const int pairs = shape.p.step.num_seqs * shape.p.kv.num_kv_heads * shape.row_tiles;
  const int longest = shape.p.step.recording ? shape.p.max_model_len : shape.p.step.max_seq_len;
  int blocks = 1;
  while (blocks < largest && blocks * pairs * 2 <= Facts().num_sms && blocks * kStepKeys < longest) blocks *= 2;
  return blocks;
}

// The largest cluster that the device runs of this kernel.
template <typename Kernel>
int LargestCluster(Kernel* kernel, int shared_bytes) {
  if (Facts().capability < 90) return 1;
  constexpr int kLargest = 16, kPortable = 8;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) != cudaSuccess) return kPortable;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {kLargest, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(kLargest);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  const bool fits = cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess && clusters > 0;
  cudaGetLastError();
  return fits ? kLargest : kPortable;
}

template <typename T, int kDim, int kStages>
Launch LaunchStages(const Shape& shape, cudaStream_t stream) {
  const AttentionParams& p = shape.p;
  const int shared_bytes = TileBytes<kDim, kStages>() + MergeBytes<kDim>(std::min(kRows, shape.group)), limit = Facts().shared_bytes;
  if (shared_bytes > limit) return cudaErrorNotSupported;
  static const Launch allowed = AllowShared(DecodeKernel<T, kDim, kStages>, limit);
  if (allowed != cudaSuccess) return allowed;
  static const int largest = LargestCluster(DecodeKernel<T, kDim, kStages>, TileBytes<kDim, kStages>() + MergeBytes<kDim>(kRows));
  const int cluster = ClusterBlocks(shape, largest);
  const dim3 grid(static_cast<unsigned>(p.step.num_seqs * p.kv.num_kv_heads * cluster), static_cast<unsigned>(shape.row_tiles));
  return LaunchClusters(cluster, DecodeKernel<T, kDim, kStages>, grid, dim3(kThreads), static_cast<size_t>(shared_bytes), stream, shape);
}

}  // namespace

template <typename T>
Launch LaunchDecode(const Shape& shape, cudaStream_t stream) {
  const int head_dim = shape.p.kv.head_dim;
  if (head_dim <= 64) return LaunchStages<T, 64, 4>(shape, stream);
  if (head_dim <= 128) {
    const Launch launch = LaunchStages<T, 128, 3>(shape, stream);
    return launch != cudaErrorNotSupported ? launch : LaunchStages<T, 128, 2>(shape, stream);
  }
  const Launch launch = LaunchStages<T, 256, 3>(shape, stream);
  return launch != cudaErrorNotSupported ? launch : LaunchStages<T, 256, 1>(shape, stream);
}
template Launch LaunchDecode<__nv_bfloat16>(const Shape&, cudaStream_t);
template Launch LaunchDecode<__half>(const Shape&, cudaStream_t);

}  // namespace tenon_cuda
