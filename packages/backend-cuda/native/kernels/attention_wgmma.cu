// Attention of sequences with several new tokens on Hopper, after FlashAttention-3 (Shah et al., 2024).
//
// A block takes 128 rows of one sequence and KV head. Four warps copy tiles of keys and values with the copy engine, a box per cache
// block, kStages tiles ahead; two groups of four warps take 64 rows each. A group multiplies the next tile's scores while it adds
// the last tile's values, and while one group is at its softmax the other's products run. Tiles go from the last to the first, so that
// those on the diagonal come first. grid: a block per multiprocessor, which takes (128 rows, KV head) in turn, longest first.
#include "attention.cuh"
#include "hopper.cuh"

namespace tenon_cuda {
namespace {

constexpr int kGroupRows = 64, kGroups = 2, kBlockRows = kGroups * kGroupRows;
constexpr int kThreads = 128 * (kGroups + 1);
constexpr int kStages = 2;
constexpr int kPanel = 64;  // elements of a panel's row

template <int kDim>
constexpr int kKeys = kDim > 128 ? 64 : 128;  // of a tile
template <int kDim>
constexpr int SharedBytes() {
  return 1024 + (kBlockRows + kStages * 2 * kKeys<kDim>) * kDim * 2;
}

struct Maps {
  CUtensorMap k, v;
};

#ifdef TENON_HOPPER

constexpr int kTurnBarrier = 3;  // of the first group; the next is the second's

struct Barriers {
  uint64_t k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

// A tile of rows, and the tiles of keys that it sees: [first, last].
struct Tile {
  int seq, kv_head, first_row, total_rows, first_token, context, seq_len;
  int first, last;
};

// The block's `round`-th tile, or none. Tiles are numbered from the longest on, and dealt in turn, back and forth.
template <int kDim>
__device__ __forceinline__ bool FindTile(const Shape& shape, const int* prefix, int round, Tile* tile) {
  const AttentionParams& p = shape.p;
  const int32_t* cu_seqlens_q = p.step.cu_seqlens_q;
  const int turn = round % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x, number = round * gridDim.x + turn;
  const int index = prefix[p.step.num_seqs] - 1 - number / p.kv.num_kv_heads;
  if (index < 0) return false;
  tile->seq = FindIn(prefix, p.step.num_seqs, index);
  tile->kv_head = number % p.kv.num_kv_heads;
  tile->first_row = (index - prefix[tile->seq]) * kBlockRows;
  tile->first_token = cu_seqlens_q[tile->seq];
  const int tokens = cu_seqlens_q[tile->seq + 1] - tile->first_token;
  tile->total_rows = tokens * shape.group;
  tile->seq_len = p.step.seq_lens[tile->seq];
  tile->context = tile->seq_len - tokens;
  const int last_row = min(tile->first_row + kBlockRows, tile->total_rows) - 1;
  const int first_position = tile->context + tile->first_row / shape.group;
  tile->first = p.sliding_window > 0 ? max(0, first_position - p.sliding_window + 1) / kKeys<kDim> : 0;
  tile->last = (tile->context + last_row / shape.group) / kKeys<kDim>;
  return true;
}

// A stage of the tiles in flight, and the parity of its phase.
struct Turn {
  int stage, phase;
  __device__ __forceinline__ Turn Next() const { return stage + 1 == kStages ? Turn{0, phase ^ 1} : Turn{stage + 1, phase}; }
};

// What a copying warp does: warps 0 and 1 the keys, 2 and 3 the values, every other box each. A box is a cache block's keys (or a tile's, where
// blocks are longer) and 64 dims.
template <int kDim>
struct Copier {
  static constexpr int kPanels = kDim / kPanel, kTileBytes = kKeys<kDim> * kDim * 2, kPanelBytes = kKeys<kDim> * kPanel * 2;
  const CUtensorMap& map;
  uint8_t* tiles;
  uint64_t *full, *empty;

  __device__ __forceinline__ void CopyTiles(const Shape& shape, const Tile& tile, Turn* turn) {
    const KvLayer& kv = shape.p.kv;
    const int32_t* block_table = shape.p.step.block_tables + static_cast<int64_t>(tile.seq) * shape.p.step.block_table_stride;
    const int lane = threadIdx.x % 32, odd = threadIdx.x / 32 % 2;
    const int box_keys = min(kv.block_size, kKeys<kDim>), boxes = kKeys<kDim> / box_keys * kPanels;
    const int own_bytes = (boxes - odd + 1) / 2 * box_keys * kPanel * 2;
#pragma unroll 1
    for (int t = tile.last; t >= tile.first; --t) {
      // a lane looks up the row of a part of the tile
      const int key = t * kKeys<kDim> + lane * box_keys;
      const int block = lane * kPanels < boxes && key < tile.seq_len ? block_table[key / kv.block_size] : 0;
      const int row = (block * kv.num_kv_heads + tile.kv_head) * kv.block_size + key % kv.block_size;
      WaitBarrier(empty + turn->stage, turn->phase ^ 1);
      if (lane == 0) ArriveExpecting(full + turn->stage, own_bytes);
      __syncwarp();
#pragma unroll 1
      for (int i = odd; i < boxes; i += 2) {
        const int box_row = __shfl_sync(0xffffffffu, row, i / kPanels);
        uint8_t* to = tiles + turn->stage * kTileBytes + i % kPanels * kPanelBytes + i / kPanels * box_keys * kPanel * 2;
        if (lane == 0) CopyBox(to, map, i % kPanels * kPanel, box_row, full + turn->stage);
      }
      *turn = turn->Next();
    }
  }
};

// A group's 64 rows.
template <typename T, int kDim, bool kSoftCap>
struct GroupRows {
  static constexpr int kN = kKeys<kDim>;
  static constexpr int kHalf = kDim < 128 ? kDim : 128;  // columns of one product with V
  float s[kN / 2];
  float y[kDim / kHalf][kHalf / 2];
  uint32_t weights[kN / 16][4];
  float max[2], sum[2];

  __device__ __forceinline__ void StartScores(const uint8_t* q, const uint8_t* k) {
    FenceProducts();
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      const int offset = d % 4 * 32;
      WgmmaTiles<T, kN>(s, RowsDescriptor(q + d / 4 * kGroupRows * kPanel * 2 + offset), RowsDescriptor(k + d / 4 * kN * kPanel * 2 + offset), d > 0);
    }
    CommitProducts();
  }
  __device__ __forceinline__ void StartValues(const uint8_t* v) {
    FenceProducts();
#pragma unroll
    for (int i = 0; i < kN / 16; ++i)
#pragma unroll
      for (int h = 0; h < kDim / kHalf; ++h)
        WgmmaRows<T, kHalf>(y[h], weights[i], ColumnsDescriptor(v + h * (kHalf / kPanel) * kN * kPanel * 2 + i * 16 * kPanel * 2, kN * kPanel * 2));
    CommitProducts();
  }
  __device__ __forceinline__ void HoldValues() {
#pragma unroll
    for (int h = 0; h < kDim / kHalf; ++h) HoldRegisters(y[h]);
  }

  // Scores that the rows at `positions` may not see become -inf. first_key: of the tile.
  __device__ __forceinline__ void Mask(int first_key, const int (&positions)[2], int window) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < kN / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int behind = positions[i / 2] - (first_key + j * 8 + lane % 4 * 2 + i % 2);
        if (behind < 0 || behind >= window) s[j * 4 + i] = -INFINITY;
      }
  }

  // From scores to weights; shrink: what the sums so far are worth.
  __device__ __forceinline__ void Softmax(const AttentionParams& p, float (&shrink)[2]) {
    float scale = p.scale * kLog2E;
    if constexpr (kSoftCap) {
      const float inner = p.scale / p.soft_cap;
      scale = p.soft_cap * kLog2E;
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) s[i] = s[i] == -INFINITY ? s[i] : tanhf(s[i] * inner);
    }
    float newest[2] = {max[0], max[1]};
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) newest[i / 2 % 2] = fmaxf(newest[i / 2 % 2], s[i]);
    float offset[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      newest[half] = fmaxf(newest[half], __shfl_xor_sync(0xffffffffu, newest[half], 1));
      newest[half] = fmaxf(newest[half], __shfl_xor_sync(0xffffffffu, newest[half], 2));
      offset[half] = newest[half] == -INFINITY ? 0.f : newest[half] * scale;
      shrink[half] = Exp2(max[half] * scale - offset[half]);
      max[half] = newest[half];
      sum[half] *= shrink[half];
    }
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) {
      s[i] = Exp2(s[i] * scale - offset[i / 2 % 2]);
      sum[i / 2 % 2] += s[i];
    }
  }
  __device__ __forceinline__ void TakeWeights() {
#pragma unroll
    for (int i = 0; i < kN / 16; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) weights[i][j] = Pack<T>(s[i * 8 + j * 2], s[i * 8 + j * 2 + 1]);
  }
  __device__ __forceinline__ void Shrink(const float (&shrink)[2]) {
#pragma unroll
    for (int h = 0; h < kDim / kHalf; ++h)
#pragma unroll
      for (int i = 0; i < kHalf / 2; ++i) y[h][i] *= shrink[i / 2 % 2];
  }
};

// The group's queries to shared memory, swizzled panels of 64 rows; zeros where there are none.
template <typename T, int kDim>
__device__ __forceinline__ void StoreQuery(const Shape& shape, const Tile& tile, int first_row, uint8_t* q) {
  const AttentionParams& p = shape.p;
  constexpr int kChunks = kDim / 8;
  for (int i = threadIdx.x % 128; i < kGroupRows * kChunks; i += 128) {
    const int r = i / kChunks, chunk = i % kChunks, row = first_row + r;
    uint4 value{};
    if (row < tile.total_rows && chunk * 8 < p.kv.head_dim)
      value = *reinterpret_cast<const uint4*>(static_cast<const T*>(p.q) +
                                              (static_cast<int64_t>(tile.first_token + row / shape.group) * p.num_heads + tile.kv_head * shape.group + row % shape.group) * p.kv.head_dim + chunk * 8);
    *reinterpret_cast<uint4*>(q + chunk / 8 * kGroupRows * kPanel * 2 + r * kPanel * 2 + (chunk % 8 ^ r % 8) * 16) = value;
  }
}

// Values of keys that do not exist become zeros: what the cache holds there may be no numbers.
template <int kDim>
__device__ __forceinline__ void ClearValues(uint8_t* v, int first_key) {
  constexpr int kN = kKeys<kDim>, kChunks = kDim / 8;
  for (int i = threadIdx.x % 128 + first_key * kChunks; i < kN * kChunks; i += 128)
    *reinterpret_cast<uint4*>(v + i % kChunks / 8 * kN * kPanel * 2 + i / kChunks * kPanel * 2 + i % 8 * 16) = uint4{};
}

template <typename T, int kDim, bool kSoftCap>
__device__ __forceinline__ void AttendTiles(const Shape& shape, const Tile& tile, uint8_t* q, uint8_t* k_tiles, uint8_t* v_tiles, Barriers& barriers, Turn* turn) {
  constexpr int kN = kKeys<kDim>, kTileBytes = kN * kDim * 2;
  const AttentionParams& p = shape.p;
  const int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, barrier_id = 1 + group;
  const int first_row = tile.first_row + group * kGroupRows, own_row = first_row + warp * 16 + lane / 4;
  q += group * kGroupRows * kDim * 2;
  SyncThreads(barrier_id, 128);  // the last tile's queries are done with
  StoreQuery<T, kDim>(shape, tile, first_row, q);
  FenceAsyncProxy();
  SyncThreads(barrier_id, 128);

  const int positions[2] = {tile.context + own_row / shape.group, tile.context + (own_row + 8) / shape.group};
  const int first_position = tile.context + first_row / shape.group, last_position = tile.context + (first_row + kGroupRows - 1) / shape.group;
  const int window = p.sliding_window > 0 ? p.sliding_window : INT_MAX;
  GroupRows<T, kDim, kSoftCap> rows;
#pragma unroll
  for (int h = 0; h < kDim / rows.kHalf; ++h)
#pragma unroll
    for (int i = 0; i < rows.kHalf / 2; ++i) rows.y[h][i] = 0;
  rows.max[0] = rows.max[1] = -INFINITY;
  rows.sum[0] = rows.sum[1] = 0;
  const auto mask = [&](int t) {
    const bool sees_all = (t + 1) * kN - 1 <= first_position && last_position - t * kN < window;
    if (!sees_all) rows.Mask(t * kN, positions, window);
  };
  const auto clear = [&](int t, uint8_t* v) {
    if ((t + 1) * kN <= tile.seq_len) return;
    ClearValues<kDim>(v, tile.seq_len - t * kN);
    FenceAsyncProxy();
    SyncThreads(barrier_id, 128);
  };
  const auto release = [&](uint64_t* barrier) {
    if (lane == 0) Arrive(barrier);
  };

  // The groups' turns at the tensor cores: one starts its products when the other has started its own.
  const auto wait_turn = [&] { SyncThreads(kTurnBarrier + group, 128 * kGroups); };
  const auto end_turn = [&] { ArriveThreads(kTurnBarrier + (group + 1) % kGroups, 128 * kGroups); };

  float shrink[2];
  Turn now = *turn;
  WaitBarrier(barriers.k_full + now.stage, now.phase);
  wait_turn();
  rows.StartScores(q, k_tiles + now.stage * kTileBytes);
  end_turn();
  WaitProducts<0>();
  HoldRegisters(rows.s);
  release(barriers.k_empty + now.stage);
  mask(tile.last);
  rows.Softmax(p, shrink);
  rows.TakeWeights();
  for (int t = tile.last - 1; t >= tile.first; --t) {
    const Turn next = now.Next();
    WaitBarrier(barriers.k_full + next.stage, next.phase);
    wait_turn();
    rows.StartScores(q, k_tiles + next.stage * kTileBytes);
    WaitBarrier(barriers.v_full + now.stage, now.phase);
    clear(t + 1, v_tiles + now.stage * kTileBytes);
    rows.StartValues(v_tiles + now.stage * kTileBytes);
    end_turn();
    WaitProducts<1>();
    HoldRegisters(rows.s);
    release(barriers.k_empty + next.stage);
    mask(t);
    rows.Softmax(p, shrink);
    WaitProducts<0>();
    rows.HoldValues();
    release(barriers.v_empty + now.stage);
    rows.Shrink(shrink);
    rows.TakeWeights();
    now = next;
  }
  WaitBarrier(barriers.v_full + now.stage, now.phase);
  clear(tile.first, v_tiles + now.stage * kTileBytes);
  rows.StartValues(v_tiles + now.stage * kTileBytes);
  WaitProducts<0>();
  rows.HoldValues();
  release(barriers.v_empty + now.stage);
  *turn = now.Next();

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    rows.sum[half] += __shfl_xor_sync(0xffffffffu, rows.sum[half], 1);
    rows.sum[half] += __shfl_xor_sync(0xffffffffu, rows.sum[half], 2);
    const int row = own_row + half * 8;
    if (row >= tile.total_rows) continue;
    const float scale = 1.f / rows.sum[half];
    T* to = static_cast<T*>(p.y) + (static_cast<int64_t>(tile.first_token + row / shape.group) * p.num_heads + tile.kv_head * shape.group + row % shape.group) * p.kv.head_dim;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int d = n * 8 + lane % 4 * 2, h = n * 8 / rows.kHalf, i = n % (rows.kHalf / 8) * 4 + half * 2;
      if (d < p.kv.head_dim) *reinterpret_cast<uint32_t*>(to + d) = Pack<T>(rows.y[h][i] * scale, rows.y[h][i + 1] * scale);
    }
  }
}

#endif  // TENON_HOPPER

template <typename T, int kDim, bool kSoftCap>
__global__ void __launch_bounds__(kThreads, 1) WgmmaPrefillKernel(const __grid_constant__ Shape shape, const __grid_constant__ Maps maps) {
#ifdef TENON_HOPPER
  extern __shared__ uint8_t shared_bytes[];
  __shared__ __align__(8) Barriers barriers;
  uint8_t* q = shared_bytes + (1024 - SharedAddress(shared_bytes) % 1024) % 1024;
  uint8_t* k_tiles = q + kBlockRows * kDim * 2;
  uint8_t* v_tiles = k_tiles + kStages * kKeys<kDim> * kDim * 2;
  int* prefix = reinterpret_cast<int*>(v_tiles + kStages * kKeys<kDim> * kDim * 2);
  LetNextStart();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(barriers.k_full + i, 2);
      InitBarrier(barriers.v_full + i, 2);
      InitBarrier(barriers.k_empty + i, 4 * kGroups);
      InitBarrier(barriers.v_empty + i, 4 * kGroups);
    }
    FenceBarrierInit();
  }
  RunningSum<kThreads>(prefix, shape.p.step.num_seqs, [&](int i) {
    const int tokens = shape.p.step.cu_seqlens_q[i + 1] - shape.p.step.cu_seqlens_q[i];
    return tokens > 1 ? (tokens * shape.group + kBlockRows - 1) / kBlockRows : 0;
  });
  WaitForPrevious();
  Tile tile;
  Turn turn{0, 0};
  if (threadIdx.x < 128) {
    GiveRegisters<24>();
    const bool values = threadIdx.x >= 64;
    Copier<kDim> copier{values ? maps.v : maps.k, values ? v_tiles : k_tiles, values ? barriers.v_full : barriers.k_full,
                        values ? barriers.v_empty : barriers.k_empty};
#pragma unroll 1
    for (int round = 0; FindTile<kDim>(shape, prefix, round, &tile); ++round) copier.CopyTiles(shape, tile, &turn);
  } else {
    TakeRegisters<240>();
    // the first turn is the first group's
    if (threadIdx.x / 128 == kGroups) ArriveThreads(kTurnBarrier, 128 * kGroups);
    for (int round = 0; FindTile<kDim>(shape, prefix, round, &tile); ++round)
      AttendTiles<T, kDim, kSoftCap>(shape, tile, q, k_tiles, v_tiles, barriers, &turn);
  }
#else
  __trap();
#endif
}

// Rows of head_dim elements, all keys (or values) of the layer one after the other; boxes of box_keys rows of 64 elements.
Launch EncodeMap(const void* data, const KvLayer& kv, int box_keys, CUtensorMap* map) {
  static const auto encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry) : nullptr;
  }();
  if (encode == nullptr) return cudaErrorNotSupported;
  // the copies name rows that exist; how many there are is the pool's business
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(kv.head_dim), cuuint64_t{1} << 31};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(kv.head_dim) * 2};
  const cuuint32_t box[2] = {kPanel, static_cast<cuuint32_t>(box_keys)}, steps[2] = {1, 1};
  const CUresult result = encode(map, kv.type == Type::kBf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2,
                                 const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorNotSupported;
}

template <typename T, int kDim, bool kSoftCap>
Launch LaunchTiles(const Shape& shape, cudaStream_t stream) {
  const KvLayer& kv = shape.p.kv;
  const StepPointers& step = shape.p.step;
  if (kKeys<kDim> % kv.block_size != 0 && kv.block_size % kKeys<kDim> != 0) return cudaErrorNotSupported;
  const int shared_bytes = SharedBytes<kDim>() + (step.num_seqs + 1) * static_cast<int>(sizeof(int)), limit = Facts().shared_bytes - 1024;
  if (shared_bytes > limit) return cudaErrorNotSupported;
  static const Launch allowed = AllowShared(WgmmaPrefillKernel<T, kDim, kSoftCap>, limit);
  if (allowed != cudaSuccess) return allowed;
  Maps maps;
  const int box_keys = std::min(kv.block_size, kKeys<kDim>);
  for (const Launch error : {EncodeMap(kv.k, kv, box_keys, &maps.k), EncodeMap(kv.v, kv, box_keys, &maps.v)})
    if (error != cudaSuccess) return error;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(MaxTiles(step, shape.group, kBlockRows) * kv.num_kv_heads, Facts().num_sms));
  return LaunchEarly(WgmmaPrefillKernel<T, kDim, kSoftCap>, dim3(blocks), dim3(kThreads), static_cast<size_t>(shared_bytes), stream, shape, maps);
}

template <typename T, int kDim>
Launch LaunchHead(const Shape& shape, cudaStream_t stream) {
  return shape.p.soft_cap > 0 ? LaunchTiles<T, kDim, true>(shape, stream) : LaunchTiles<T, kDim, false>(shape, stream);
}

}  // namespace

template <typename T>
Launch LaunchWgmmaPrefill(const Shape& shape, cudaStream_t stream) {
  if (Facts().capability != 90) return cudaErrorNotSupported;
  const int head_dim = shape.p.kv.head_dim;
  if (head_dim <= 64) return LaunchHead<T, 64>(shape, stream);
  if (head_dim <= 128) return LaunchHead<T, 128>(shape, stream);
  return LaunchHead<T, 256>(shape, stream);
}
template Launch LaunchWgmmaPrefill<__nv_bfloat16>(const Shape&, cudaStream_t);
template Launch LaunchWgmmaPrefill<__half>(const Shape&, cudaStream_t);

}  // namespace tenon_cuda
