// y = x · wᵀ on sm_90; see kernels.h and linear.h. y is computed transposed: a tile is 128 rows of w (the M of the tensor cores) by 8 to
// 256 rows of x, so that one kernel serves decode, which is bound by reading w, and prefill. Where gated, of each 16 rows
// of a tile of w 8 are gate and 8 up, so that a thread holds both.
//   warp group 0: one thread has the copy engine fetch tiles of 64 of k, as many ahead as shared memory holds. Tiles of w are
//     asked for before the launch ahead has ended: w is no launch's result
//   warp groups 1, 2: 64 rows of the tile each, or, where tiles are of half the height, half of k each; f32 sums in registers
// Blocks of a cluster: `share` neighbouring tiles of w with the same tile of x, of which each fetches a part for all; times `split` parts
// of k, added up in the order of k through each other's shared memory. Grid: persistent, clusters take units in turn; where split, one
// unit each. The order in which products are added depends on n, k, split and half, not on rows, columns or share; up to 64 rows the plan
// has split and half from n and k alone.
// One SM fetches 55 to 80 bytes a ns, so that few rows of x want a block on nearly every SM: hence tiles of half the height.
#include <algorithm>

#include "linear_sm90.cuh"

// What only the sm_90a pass calls.
#pragma nv_diag_suppress 177

namespace tenon_cuda {
namespace {

constexpr int kTileRows = 128;  // of w
constexpr int kThreads = 384, kConsumerWarps = 8;
constexpr int kTileBytes = kTileRows * kRowBytes;
constexpr int kStagingStride = 20;              // floats: 16 rows of w, and four so that banks differ
constexpr int kPartialStride = kTileRows + 4;   // floats
constexpr int kGroupTiles = 8;                  // tiles of x that share what the second-level cache holds of w
constexpr int kMaxStages = 12, kMaxShare = 4;
constexpr int kRotation = 11;                   // has no factor in common with usual numbers of steps

template <int kColumns, bool kHalf>
struct Shape {
  static constexpr int kStageBytes = kTileBytes + kColumns * kRowBytes * (kHalf ? 2 : 1);
  static constexpr int kChunk = kColumns < 32 ? kColumns : 32;  // rows of x that a warp stores at a time
  static constexpr int kStagingBytes = kConsumerWarps * kChunk * kStagingStride * 4;
  static constexpr int kOtherBytes = kStagingBytes + 1024 + 2 * kMaxStages * 8;  // 1024 for alignment, and barriers
  static constexpr int kFitting = (kSharedBytes - kOtherBytes) / kStageBytes;
  static constexpr int kStages = kFitting < kMaxStages ? kFitting : kMaxStages;
  static constexpr int kMinStages = 3;
  // Few sums need few registers: where stages are few too, two blocks fit an SM.
  static constexpr int kBlocksPerSm = kColumns <= 64 ? 2 : 1;
  static_assert(kStages >= kMinStages && kColumns * kPartialStride * 4 <= kMinStages * kStageBytes);
};

struct Schedule {
  int tiles_w, tiles_x, steps;  // steps: tiles of k
  int stages;                   // tiles of k that shared memory holds
  int share, split, units;      // units: what a cluster takes at a time
  int rotation;                 // of the order of k, from one group of tiles of w to the next
};

// ---- epilogue ----

// Four columns of y from column on: sums + bias, gated with `up`, + residual.
struct Four {
  float4 sum, up;
};

__device__ __forceinline__ float4 AddFour(float4 a, float4 b) { return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w}; }

// Elsewhere than in StoreFour because it is rare: n is no multiple of 4.
template <typename T, bool kGated>
__device__ __noinline__ void StoreEach(LinearParams p, int64_t row, int64_t column, Four four) {
  const float sums[4] = {four.sum.x, four.sum.y, four.sum.z, four.sum.w}, ups[4] = {four.up.x, four.up.y, four.up.z, four.up.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (column + i >= p.n) return;
    float sum = sums[i] + (p.bias != nullptr ? p.bias[column + i] : 0.f);
    if constexpr (kGated)
      sum = Activate(sum, p.activation) * (ups[i] + (p.bias != nullptr ? p.bias[p.n + column + i] : 0.f));
    const int64_t at = row * p.n + column + i;
    if (p.residual != nullptr) sum += p.residual[at];
    if (p.y_type == Type::kF32) static_cast<float*>(p.y)[at] = sum;
    else static_cast<T*>(p.y)[at] = FromFloat<T>(sum);
  }
}

__device__ __forceinline__ float4 Gate(float4 gate, float4 up, int activation) {
  return {Act(gate.x, activation) * up.x, Act(gate.y, activation) * up.y, Act(gate.z, activation) * up.z, Act(gate.w, activation) * up.w};
}

// Of the residual, to be there when StoreFour needs it.
__device__ __forceinline__ float4 LoadResidual(const LinearParams& p, int64_t row, int64_t column) {
  if (p.residual == nullptr || row >= p.rows || column >= p.n || p.n % 4 != 0) return {0, 0, 0, 0};
  return *reinterpret_cast<const float4*>(p.residual + row * p.n + column);
}

template <typename T, bool kGated>
__device__ __forceinline__ void StoreFour(const LinearParams& p, int64_t row, int64_t column, Four four, float4 residual) {
  if (row >= p.rows || column >= p.n) return;
  if (p.n % 4 != 0) return StoreEach<T, kGated>(p, row, column, four);
  if (p.bias != nullptr) {
    four.sum = AddFour(four.sum, *reinterpret_cast<const float4*>(p.bias + column));
    if constexpr (kGated) four.up = AddFour(four.up, *reinterpret_cast<const float4*>(p.bias + p.n + column));
  }
  float4 y = four.sum;
  if constexpr (kGated) y = Gate(y, four.up, p.activation);
  y = AddFour(y, residual);
  const int64_t at = row * p.n + column;
  if (p.y_type == Type::kF32) *reinterpret_cast<float4*>(static_cast<float*>(p.y) + at) = y;
  else *reinterpret_cast<uint2*>(static_cast<T*>(p.y) + at) = {Pack<T>(y.x, y.y), Pack<T>(y.z, y.w)};
}

// Stores a warp's 16 rows of w × kColumns rows of x, kChunk at a time, turned in `staging` so that stores are whole sectors.
// first_column: of y; first_row: of x. Few warps do this while the tensor cores wait: what does not change from row to row is
// outside the loop, and the residual of the next chunk is on its way.
template <typename T, typename Y, int kColumns, bool kGated>
__device__ __forceinline__ void StoreSums(const LinearParams& p, const float (&c)[kColumns / 2], float* staging, int64_t first_row,
                                          int64_t first_column) {
  constexpr int kChunk = Shape<kColumns, false>::kChunk, kChunks = kColumns / kChunk;
  constexpr int kLanes = kGated ? 2 : 4, kRows = 32 / kLanes;  // lanes of a row, rows at a time
  constexpr int kTurns = (kChunk + kRows - 1) / kRows;
  const int lane = threadIdx.x % 32, in_turn = lane / kLanes;
  const int64_t column = first_column + lane % kLanes * 4;
  // Of this lane's rows 0, kRows, 2 kRows, …, those below `rows` are there.
  const int rows = column < p.n && in_turn < kChunk ? static_cast<int>(min(p.rows - first_row, int64_t{kColumns})) - in_turn : 0;
  const bool ragged = p.n % 4 != 0, has_residual = p.residual != nullptr && !ragged;
  const int64_t first = (first_row + in_turn) * p.n + column, stride = kRows * p.n;
  float4 bias{}, up_bias{};
  if (p.bias != nullptr && rows > 0 && !ragged) {
    bias = *reinterpret_cast<const float4*>(p.bias + column);
    if constexpr (kGated) up_bias = *reinterpret_cast<const float4*>(p.bias + p.n + column);
  }
  float4 residual[2][kTurns] = {};
  const auto load_residual = [&](int chunk) {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn)
      if (has_residual && chunk * kChunk + turn * kRows < rows)
        residual[chunk % 2][turn] = *reinterpret_cast<const float4*>(p.residual + first + (chunk * kTurns + turn) * stride);
  };
  load_residual(0);
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    if (chunk + 1 < kChunks) load_residual(chunk + 1);
#pragma unroll
    for (int j = 0; j < kChunk / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        staging[(j * 8 + lane % 4 * 2 + i % 2) * kStagingStride + lane / 4 + i / 2 * 8] = c[(chunk * (kChunk / 8) + j) * 4 + i];
    __syncwarp();
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      if (chunk * kChunk + turn * kRows >= rows) continue;
      const float* from = staging + (turn * kRows + in_turn) * kStagingStride + lane % kLanes * 4;
      Four four{*reinterpret_cast<const float4*>(from), {}};
      if constexpr (kGated) four.up = *reinterpret_cast<const float4*>(from + 8);
      if (ragged) {
        StoreEach<T, kGated>(p, first_row + chunk * kChunk + turn * kRows + in_turn, column, four);
        continue;
      }
      float4 y = AddFour(four.sum, bias);
      if constexpr (kGated) y = Gate(y, AddFour(four.up, up_bias), p.activation);
      y = AddFour(y, residual[chunk % 2][turn]);
      Y* to = static_cast<Y*>(p.y) + first + (chunk * kTurns + turn) * stride;
      if constexpr (sizeof(Y) == 4) *reinterpret_cast<float4*>(to) = y;
      else *reinterpret_cast<uint2*>(to) = {Pack<Y>(y.x, y.y), Pack<Y>(y.z, y.w)};
    }
    __syncwarp();
  }
}

// Where the two warp groups have halves of k for the same rows of w: adds those of group 1 to those of group 0.
template <int kColumns>
__device__ __forceinline__ void AddHalves(float (&c)[kColumns / 2], float* staging, int group) {
  constexpr int kGroup = 128;
  static_assert(kColumns / 2 * kGroup * 4 <= Shape<kColumns, true>::kStagingBytes);
  float* mine = staging + threadIdx.x % kGroup;
  NamedBarrier(1, 2 * kGroup);  // the tile before is stored
  if (group == 1) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) mine[i * kGroup] = c[i];
  }
  NamedBarrier(2, 2 * kGroup);
  if (group == 1) return;
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) c[i] += mine[i * kGroup];
  NamedBarrier(3, kGroup);
}

// Adds up what the blocks that have parts of this tile's k have in `partial` [kColumns][kPartialStride], and stores this one's part of
// its rows of w. Many loads from the other blocks are on their way at once: each takes as long as one from the second-level cache.
template <typename T, int kColumns, int kHeight, bool kGated, int kSplit>
__device__ __forceinline__ void StoreShare(const LinearParams& p, const float* partial, int share, int rank, int64_t first_row,
                                           int64_t tile_w) {
  constexpr int kShare = kHeight / kSplit;                 // rows of w
  constexpr int kFours = kGated ? kShare / 8 : kShare / 4;  // per row of x
  constexpr int kLoads = (kColumns >= 128 ? 16 : 8) / (kGated ? 2 : 1);
  constexpr int kItems = kLoads > kSplit ? kLoads / kSplit : 1;
  constexpr int kConsumers = kConsumerWarps * 32;
  const int count = static_cast<int>(min(p.rows - first_row, int64_t{kColumns})) * kFours;
  for (int begin = static_cast<int>(threadIdx.x) - (kThreads - kConsumers); begin < count; begin += kConsumers * kItems) {
    float4 sums[kItems][kSplit], ups[kItems][kSplit], residual[kItems];
    int64_t columns[kItems];
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      const int i = min(begin + item * kConsumers, count - 1), row = i / kFours, four = i % kFours;
      const int at = rank / share * kShare + (kGated ? four / 2 * 16 + four % 2 * 4 : four * 4);  // row of the tile
      columns[item] = kGated ? tile_w * (kHeight / 2) + at / 16 * 8 + at % 8 : tile_w * kHeight + at;
      residual[item] = LoadResidual(p, first_row + row, columns[item]);
      const float* from = partial + row * kPartialStride + at;
#pragma unroll
      for (int r = 0; r < kSplit; ++r) {
        sums[item][r] = LoadFrom(from, r * share + rank % share);
        if constexpr (kGated) ups[item][r] = LoadFrom(from + 8, r * share + rank % share);
      }
    }
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      const int i = begin + item * kConsumers;
      if (i >= count) break;
      Four four{sums[item][0], {}};
      if constexpr (kGated) four.up = ups[item][0];
#pragma unroll
      for (int r = 1; r < kSplit; ++r) {
        four.sum = AddFour(four.sum, sums[item][r]);
        if constexpr (kGated) four.up = AddFour(four.up, ups[item][r]);
      }
      StoreFour<T, kGated>(p, first_row + i / kFours, columns[item], four, residual[item]);
    }
  }
}

// ---- kernel ----

// Tiles of w and x that unit `unit` is: within a group of tiles of x, those of one tile of w follow each other.
struct Tiles {
  int w, x;
};
__device__ __forceinline__ Tiles TilesOf(int unit, int units_w, int tiles_x) {
  const int group = unit / (kGroupTiles * units_w), in_group = unit % (kGroupTiles * units_w);
  const int first = group * kGroupTiles, width = min(kGroupTiles, tiles_x - first);
  return {in_group / width, first + in_group % width};
}

template <typename T, int kColumns, bool kGated, bool kSplit, bool kHalf>
__global__ void __launch_bounds__(kThreads, Shape<kColumns, kHalf>::kBlocksPerSm)
    WgmmaKernel(const LinearParams p, const __grid_constant__ CUtensorMap w_map, const __grid_constant__ CUtensorMap x_map,
                const Schedule s) {
#ifdef TENON_SM90A
  using S = Shape<kColumns, kHalf>;
  constexpr int kHeight = kHalf ? kTileRows / 2 : kTileRows, kDepth = kHalf ? 2 * kTileK : kTileK;  // of a tile of w
  extern __shared__ uint8_t shared_bytes[];
  uint8_t* stages = shared_bytes + (1024 - SharedAddress(shared_bytes) % 1024) % 1024;
  float* staging = reinterpret_cast<float*>(stages + s.stages * S::kStageBytes);
  uint64_t* full = reinterpret_cast<uint64_t*>(stages + s.stages * S::kStageBytes + S::kStagingBytes);
  uint64_t* empty = full + s.stages;

  const int blocks = s.share * s.split;  // of a cluster
  const int rank = blocks > 1 ? ClusterRank() : 0;
  const int sharer = rank % s.share, part = rank / s.share;
  const int first_unit = static_cast<int>(blockIdx.x) / blocks, unit_stride = static_cast<int>(gridDim.x) / blocks;
  const int units_w = (s.tiles_w + s.share - 1) / s.share;
  const int first_step = s.steps * part / s.split, steps = s.steps * (part + 1) / s.split - first_step;
  const auto tiles_of = [&](int unit) {
    Tiles tiles = TilesOf(unit, units_w, s.tiles_x);
    tiles.w = tiles.w * s.share + sharer;
    return tiles;
  };

  // What starts early behind few rows of x is a small kernel, or finds no shared memory before this one's blocks end.
  constexpr bool kLetsNextStartAtOnce = kColumns <= 16;
  // Of the thread that copies. No other block's memory is needed for w, so its first tiles are asked for before the cluster has met.
  const int first_k = first_step * kDepth;
  const uint64_t w_policy = s.tiles_x > 1 ? EvictNormal() : EvictFirst();
  const auto load_w = [&](int stage, int k, int row) {
    BarrierExpect(full + stage, S::kStageBytes);
    uint8_t* to = stages + stage * S::kStageBytes;
#pragma unroll
    for (int part_k = 0; part_k < kDepth; part_k += kTileK, to += kTileBytes / 2)
      if constexpr (kGated) LoadTile4(to, &w_map, k + part_k, 0, 0, row, full + stage, w_policy);
      else LoadTile2(to, &w_map, k + part_k, row, full + stage, w_policy);
  };
  // In units of the map of w: rows, or groups of 8 of gate and up.
  constexpr int kTileUnits = kGated ? kHeight / 16 : kHeight;
  int asked = min(s.stages, steps);  // stages whose tile of w is on its way
  // Blocks that read the same tiles of x begin at different ones.
  const auto first_of = [&](int tile_w) { return tile_w / kMaxShare * s.rotation % steps; };
  const auto k_of = [&](int step) { return first_k + (step < steps ? step : step - steps) * kDepth; };
  if (threadIdx.x == 0) {
    if (kLetsNextStartAtOnce) LetNextStart();
    PrefetchMap(&w_map);
    PrefetchMap(&x_map);
    for (int i = 0; i < s.stages; ++i) {
      BarrierInit(full + i, 1);
      BarrierInit(empty + i, kConsumerWarps * s.share);
    }
    BarrierInitFence();
    const int tile_w = tiles_of(first_unit).w, first = first_of(tile_w);
    for (int i = 0; i < asked; ++i) load_w(i, k_of(first + i), tile_w * kTileUnits);
  }
  if (blocks > 1) ClusterMeet();
  else __syncthreads();

  if (threadIdx.x < 128) {
    if constexpr (S::kBlocksPerSm == 1) GiveRegisters<40>();
    if (threadIdx.x == 0) {
      const uint64_t x_policy = s.tiles_x == 1 ? EvictLast() : EvictNormal();
      const uint16_t sharers = static_cast<uint16_t>(((1 << s.share) - 1) << (part * s.share));
      const int share_rows = kColumns / s.share;
      // Above, here or below: when the last tile of w is asked for. Earlier, the next launch would take its bandwidth from this one.
      const bool has_all = asked == steps && first_unit + unit_stride >= s.units;
      if (!kLetsNextStartAtOnce && has_all) LetNextStart();
      WaitForPrevious();
      int stage = 0;
      uint32_t parity = 1;  // so that the first wait for a stage is none
      for (int unit = first_unit; unit < s.units; unit += unit_stride) {
        const Tiles tiles = tiles_of(unit);
        const int w_row = tiles.w * kTileUnits, x_row = tiles.x * kColumns + sharer * share_rows;
        const int begin = first_of(tiles.w);
        for (int step = begin; step < begin + steps; ++step) {
          const int k = k_of(step);
          if (asked > 0) {
            --asked;
          } else {
            BarrierWait(empty + stage, parity);
            load_w(stage, k, w_row);
          }
          uint8_t* to = stages + stage * S::kStageBytes + kTileBytes + sharer * share_rows * kRowBytes;
          if (s.share > 1) LoadTile2To(sharers, to, &x_map, k, x_row, full + stage, x_policy);
          else LoadTile2(to, &x_map, k, x_row, full + stage, x_policy);
          if constexpr (kHalf) LoadTile2(to + kColumns * kRowBytes, &x_map, k + kTileK, x_row, full + stage, x_policy);
          if (++stage == s.stages) {
            stage = 0;
            parity ^= 1;
          }
        }
      }
      if (!kLetsNextStartAtOnce && !has_all) LetNextStart();
    }
    __syncwarp();
    if constexpr (kSplit) ClusterSync();
    if (blocks > 1) ClusterMeet();
  } else {
    if constexpr (S::kBlocksPerSm == 1) TakeRegisters<232>();
    const int group = static_cast<int>(threadIdx.x) / 128 - 1, warp = static_cast<int>(threadIdx.x) / 32 - 4, lane = threadIdx.x % 32;
    const auto release = [&](int stage) {
      if (s.share > 1) {
        if (lane < s.share) BarrierArriveAt(empty + stage, part * s.share + lane);
      } else if (lane == 0) {
        BarrierArrive(empty + stage);
      }
    };
    float c[kColumns / 2];
    int stage = 0, parity = 0;
    for (int unit = first_unit; unit < s.units; unit += unit_stride) {
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) c[i] = 0;
      int before = -1;  // the stage that the tensor cores may still read
      for (int step = 0; step < steps; ++step) {
        BarrierWait(full + stage, parity);
        const uint64_t a = SwizzledTile(stages + stage * S::kStageBytes + group * (kTileBytes / 2));
        const uint64_t b = SwizzledTile(stages + stage * S::kStageBytes + kTileBytes + (kHalf ? group * kColumns * kRowBytes : 0));
        WgmmaFence();
#pragma unroll
        for (int k = 0; k < kTileK / 16; ++k) Wgmma<T, kColumns>(c, a + k * 2, b + k * 2);
        WgmmaCommit();
        WgmmaWait<1>();
        if (before >= 0) release(before);
        before = stage;
        if (++stage == s.stages) {
          stage = 0;
          parity ^= 1;
        }
      }
      WgmmaWait<0>();
      if (before >= 0) release(before);
      WaitForPrevious();
      const Tiles tiles = tiles_of(unit);
      const int64_t first_row = int64_t{tiles.x} * kColumns;
      if constexpr (kHalf) AddHalves<kColumns>(c, staging, group);
      if constexpr (!kSplit) {
        if (kHalf && group == 1) continue;
        const int64_t first_column = int64_t{tiles.w} * (kGated ? kHeight / 2 : kHeight) + warp * (kGated ? 8 : 16);
        float* mine = staging + warp * S::kChunk * kStagingStride;
        if (p.y_type == Type::kF32) StoreSums<T, float, kColumns, kGated>(p, c, mine, first_row, first_column);
        else StoreSums<T, T, kColumns, kGated>(p, c, mine, first_row, first_column);
      } else {
        float* partial = reinterpret_cast<float*>(stages);
        NamedBarrier(1, kConsumerWarps * 32);
        if (!kHalf || group == 0) {
#pragma unroll
          for (int j = 0; j < kColumns / 8; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i)
              partial[(j * 8 + lane % 4 * 2 + i % 2) * kPartialStride + warp * 16 + lane / 4 + i / 2 * 8] = c[j * 4 + i];
        }
        ClusterSync();
        if (s.split == 2) StoreShare<T, kColumns, kHeight, kGated, 2>(p, partial, s.share, rank, first_row, tiles.w);
        else if (s.split == 4) StoreShare<T, kColumns, kHeight, kGated, 4>(p, partial, s.share, rank, first_row, tiles.w);
        else if constexpr (!kHalf) StoreShare<T, kColumns, kHeight, kGated, 8>(p, partial, s.share, rank, first_row, tiles.w);
      }
    }
    if (blocks > 1) ClusterMeet();
  }
#else
  __trap();
#endif
}

// ---- launch ----

template <typename T, int kColumns, bool kGated, bool kSplit, bool kHalf>
Launch LaunchKernel(const LinearParams& p, const WgmmaPlan& plan, cudaStream_t stream) {
  using S = Shape<kColumns, kHalf>;
  constexpr int kHeight = kHalf ? kTileRows / 2 : kTileRows, kDepth = kHalf ? 2 * kTileK : kTileK;
  const auto kernel = WgmmaKernel<T, kColumns, kGated, kSplit, kHalf>;
  static const Launch allowed = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  CUtensorMap w_map, x_map;
  const auto box_rows = static_cast<cuuint32_t>(kColumns / plan.share);
  if (!EncodeWeight(&w_map, p, kHeight) || !EncodeInput(&x_map, p, box_rows))
    return cudaErrorInvalidValue;
  const int64_t per_tile = kGated ? kHeight / 2 : kHeight;
  Schedule s{.tiles_w = static_cast<int>((p.n + per_tile - 1) / per_tile),
             .tiles_x = static_cast<int>((p.rows + kColumns - 1) / kColumns),
             .steps = static_cast<int>((p.k + kDepth - 1) / kDepth),
             .stages = S::kMinStages,
             .share = plan.share,
             .split = plan.split,
             .units = 0,
             .rotation = kRotation};
  s.units = (s.tiles_w + s.share - 1) / s.share * s.tiles_x;
  const int cluster = s.share * s.split;
  const int clusters = s.split > 1 ? s.units : std::min(s.units, Facts().num_sms / cluster);
  const int most_steps = (s.steps + s.split - 1) / s.split * ((s.units + clusters - 1) / clusters);
  s.stages = std::clamp(most_steps, S::kMinStages, S::kStages);
  // The linears around attention: its blocks fit an SM beside one of theirs.
  constexpr int kStagesBesideAttention = 8;
  if (kColumns <= 8 && !kGated && p.n <= 8192 && p.k <= 8192) s.stages = std::min(s.stages, kStagesBesideAttention);

  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(clusters * cluster));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(s.stages * S::kStageBytes + S::kOtherBytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, p, w_map, x_map, s);
}

template <typename T, bool kGated, bool kSplit>
Launch LaunchColumns(const LinearParams& p, const WgmmaPlan& plan, cudaStream_t stream) {
  if (plan.half && plan.columns == 8) return LaunchKernel<T, 8, kGated, kSplit, true>(p, plan, stream);
  if (plan.half && plan.columns == 16) return LaunchKernel<T, 16, kGated, kSplit, true>(p, plan, stream);
  if (plan.half && plan.columns == 32) return LaunchKernel<T, 32, kGated, kSplit, true>(p, plan, stream);
  if (plan.half && plan.columns == 64) return LaunchKernel<T, 64, kGated, kSplit, true>(p, plan, stream);
  switch (plan.columns) {
    case 8: return LaunchKernel<T, 8, kGated, kSplit, false>(p, plan, stream);
    case 16: return LaunchKernel<T, 16, kGated, kSplit, false>(p, plan, stream);
    case 32: return LaunchKernel<T, 32, kGated, kSplit, false>(p, plan, stream);
    case 64: return LaunchKernel<T, 64, kGated, kSplit, false>(p, plan, stream);
    case 128: return LaunchKernel<T, 128, kGated, kSplit, false>(p, plan, stream);
    default: return LaunchKernel<T, 256, kGated, kSplit, false>(p, plan, stream);
  }
}

template <typename T>
Launch LaunchFor(const LinearParams& p, const WgmmaPlan& plan, cudaStream_t stream) {
  if (p.gated) return plan.split > 1 ? LaunchColumns<T, true, true>(p, plan, stream) : LaunchColumns<T, true, false>(p, plan, stream);
  return plan.split > 1 ? LaunchColumns<T, false, true>(p, plan, stream) : LaunchColumns<T, false, false>(p, plan, stream);
}

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

bool WgmmaTakes(const LinearParams& p) {
  if (p.type == Type::kF32 || p.k % 8 != 0 || (p.gated && p.n % 8 != 0)) return false;
  if (!IsAligned(p.x) || !IsAligned(p.w) || !IsAligned(p.bias) || !IsAligned(p.residual) || !IsAligned(p.y)) return false;
  return Facts().capability == 90 && Encoder() != nullptr;
}

WgmmaPlan PlanWgmma(const LinearParams& p) {
  const int num_sms = Facts().num_sms;
  const int64_t per_tile = p.gated ? kTileRows / 2 : kTileRows;
  const int64_t tiles_w = (p.n + per_tile - 1) / per_tile, steps = (p.k + kTileK - 1) / kTileK;
  WgmmaPlan plan{.columns = 8, .share = 1, .split = 1};
  while (plan.columns < 256 && plan.columns < p.rows) plan.columns *= 2;
  if (plan.columns == 256 && p.rows <= 256 && tiles_w * (steps <= 32 ? 2 : 4) <= num_sms) plan.columns = 128;
  // Clusters of four and more leave some SMs of a cluster of SMs over.
  const int num_in_fours = num_sms * 9 / 10;
  // Few rows of x: blocks enough that none has to fetch faster than one SM can, and not more than there are SMs.
  const int64_t half_tiles = tiles_w * 2;
  if (plan.columns <= 64 && half_tiles <= num_sms) {
    plan.half = true;
    if (half_tiles * 4 <= num_in_fours && steps >= 16) plan.split = 4;
    else if (half_tiles * 2 <= num_sms && steps >= 8) plan.split = 2;
    return plan;
  }
  const int64_t tiles = tiles_w * ((p.rows + plan.columns - 1) / plan.columns);
  while (plan.split < 8 && tiles * plan.split * 2 <= (plan.split == 1 ? num_sms : num_in_fours) && steps >= plan.split * 4)
    plan.split *= 2;
  if (plan.columns >= 32 && plan.split == 1 && tiles_w > 1) plan.share = 2;
  return plan;
}

Launch LinearWgmma(const LinearParams& p, const WgmmaPlan& plan, cudaStream_t stream) {
  return p.type == Type::kBf16 ? LaunchFor<__nv_bfloat16>(p, plan, stream) : LaunchFor<__half>(p, plan, stream);
}

}  // namespace tenon_cuda
