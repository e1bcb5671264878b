// y = x · wᵀ for many rows on sm_90; see kernels.h and linear.h. y is computed transposed: a tile is 128 or 256 rows of w (the M of the
// tensor cores) by up to 256 rows of x. Where gated, of each 16 rows of a tile of w 8 are gate and 8 up, so that a thread holds both.
//   warp group 0: one thread has the copy engine fetch tiles of 64 of k, as many ahead as shared memory holds. Tiles of w are asked for
//     before the launch ahead has ended: w is no launch's result
//   warp groups 1, 2: 64 rows of each 128 of w; f32 sums in registers, stored through shared memory by the copy engine, which also
//     adds a residual that y is written over: the next tile begins meanwhile
// Blocks of a cluster have neighbouring tiles of w and fetch a part of their common tile of x each for all: a unit of work is their
// tiles. Persistent: each cluster takes whole units, as long as there is one for each cluster; the rest of the units can be cut along k into
// equal shares, one for each cluster. Who has a part of a unit writes its sums to scratch memory and raises a flag; who finishes them adds
// up the parts in the order of k. A place waits for earlier clusters only; where all parts of a unit wait for each other, at most one unit of a
// launch has begun without all of its parts (blocks start in order), so that launches on other streams find SMs, and these their parts.
// The order in which products are added depends on where k is cut, and so on the number of rows, but for whole units; never on the row.
#include <algorithm>
#include <cmath>
#include <utility>

#include "linear_sm90.cuh"

// What only the sm_90a pass calls.
#pragma nv_diag_suppress 177

namespace tenon_cuda {
namespace {

constexpr int kThreads = 384, kConsumers = 256, kConsumerWarps = 8, kGroupThreads = 128;
constexpr int kChunk = 32;                         // rows of x that a warp stores at a time
constexpr int kGroupBytes = 2 * kChunk * 64 * 4;   // of staging memory, of a warp group: two chunks of f32, or more smaller ones
constexpr int kStagingBytes = 2 * kGroupBytes;
constexpr int kMaxStages = 8;
constexpr int kOtherBytes = kStagingBytes + 1024 + 2 * kMaxStages * 8;  // 1024 for alignment, and barriers
constexpr int kMaxParts = 8;                       // of a unit whose parts all finish some of it
constexpr int kSlotQuads = 128 * 256 / 4;          // float4s of a block in scratch memory

// kBlocks: times 128 rows of w.
template <int kBlocks, int kColumns>
struct Shape {
  static constexpr int kHeight = 128 * kBlocks, kWeightBytes = kHeight * kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kColumns * kRowBytes;
  static constexpr int kFitting = (kSharedBytes - kOtherBytes) / kStageBytes;
  static constexpr int kStages = kFitting < kMaxStages ? kFitting : kMaxStages;
  static constexpr int kChunks = kColumns / kChunk;
  static_assert(kStages >= 3 && kColumns % kChunk == 0 && kHeight * kColumns <= kSlotQuads * 4);
};

struct Schedule {
  int tiles_w, tiles_x, steps;  // steps: tiles of k
  int share, clusters;
  int whole, rest_steps;  // units that are not cut, and steps of all others
  bool distribute;        // each part of a unit finishes some of it, instead of the first all
  int group;              // tiles of x that share what the second-level cache holds of w
  int rotation;           // of the order of k, from one group of tiles of w to the next
};

// ---- work ----

// Steps first … first + count - 1 of k of a unit: part number `part` of `parts`, the first of which is at place `first_place`.
struct Work {
  int unit, first, count, part, parts, first_place;
};

// What a cluster does, in order. Shares of what is cut lie one behind the other by place; the last place is the first cluster's, so that
// who waits, waits for clusters that have started before it.
class WorkList {
 public:
  __device__ __forceinline__ WorkList(const Schedule& s, int cluster) : s_(s), unit_(cluster), place_(s.clusters - 1 - cluster) {
    at_ = place_ * s.rest_steps / s.clusters;
    end_ = (place_ + 1) * s.rest_steps / s.clusters;
  }
  __device__ __forceinline__ bool Next(Work* work) {
    if (unit_ < s_.whole) {
      *work = {unit_, 0, s_.steps, 0, 1, 0};
      unit_ += s_.clusters;
      return true;
    }
    if (at_ >= end_) return false;
    const int unit = at_ / s_.steps, begin = unit * s_.steps;
    const int count = min(begin + s_.steps, end_) - at_, first_place = PlaceOf(begin);
    *work = {s_.whole + unit, at_ - begin, count, place_ - first_place, PlaceOf(begin + s_.steps - 1) - first_place + 1, first_place};
    at_ += count;
    return true;
  }
  __device__ __forceinline__ bool HasNext() const { return unit_ < s_.whole || at_ < end_; }

 private:
  __device__ __forceinline__ int PlaceOf(int step) const { return ((step + 1) * s_.clusters - 1) / s_.rest_steps; }

  const Schedule& s_;
  int unit_, at_, end_;
  const int place_;
};

// Tiles of w and x that unit `unit` is: within a group of tiles of x, those of one tile of w follow each other.
struct Tiles {
  int w, x;
};
__device__ __forceinline__ Tiles TilesOf(const Schedule& s, int unit, int sharer) {
  const int units_w = (s.tiles_w + s.share - 1) / s.share;
  const int group = unit / (s.group * units_w), in_group = unit % (s.group * units_w);
  const int first = group * s.group, width = min(s.group, s.tiles_x - first);
  return {in_group / width * s.share + sharer, first + in_group % width};
}

// ---- sums of parts ----
// Scratch: flags [block][warp group][reader], zero between launches, then sums [block][quad of registers][consumer thread] float4.

struct Scratch {
  uint32_t* flags;
  float4* sums;
};
constexpr size_t FlagBytes(int blocks) { return (static_cast<size_t>(blocks) * 2 * kMaxParts * 4 + 255) / 256 * 256; }

__device__ __forceinline__ void Raise(uint32_t* flag) { asm volatile("st.release.gpu.global.u32 [%0], 1;\n" ::"l"(flag) : "memory"); }
__device__ __forceinline__ void AwaitAndLower(uint32_t* flag) {
  uint32_t value = 0;
  while (value == 0) asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n" : "=r"(value) : "l"(flag) : "memory");
  asm volatile("st.relaxed.gpu.global.u32 [%0], 0;\n" ::"l"(flag) : "memory");
}

// v: this part's sums; becomes those of all parts, added in the order of parts. from: part 0's, `stride` to the next part's.
__device__ __forceinline__ void AddParts(float (&v)[16], const float4* from, int64_t stride, int part, int parts) {
  constexpr int kAtOnce = 3;  // parts whose sums are on their way
  float sum[16] = {};
  for (int first = 0; first < parts; first += kAtOnce) {
    float4 got[kAtOnce][4];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (first + i < parts && first + i != part)
#pragma unroll
        for (int q = 0; q < 4; ++q) got[i][q] = __ldcg(from + (first + i) * stride + q * kConsumers);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= parts) break;
      const bool mine = first + i == part;
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        sum[4 * q] += mine ? v[4 * q] : got[i][q].x;
        sum[4 * q + 1] += mine ? v[4 * q + 1] : got[i][q].y;
        sum[4 * q + 2] += mine ? v[4 * q + 2] : got[i][q].z;
        sum[4 * q + 3] += mine ? v[4 * q + 3] : got[i][q].w;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) v[i] = sum[i];
}

// ---- epilogue ----

__device__ __forceinline__ void StoreMatrix4(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared::cta.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

// Of a chunk, in a thread: sums v[4 j + i] of row of x 8 j + 2 (lane % 4) + i % 2, row of w lane / 4 + 8 (i / 2) of the warp's 16; of y as
// many, or, gated, half: y[2 j + i] for both rows of w.
template <bool kGated>
using ChunkOfY = float[kGated ? 8 : 16];

// How a warp group's chunk of y [kChunk rows of x][64 or, gated, 32 columns] lies in shared memory: in panels of up to 128 bytes a row,
// whose 16-byte pieces are swizzled as the copy engine does for that width.
template <typename Y, bool kGated>
struct Panels {
  static constexpr int kColumns = kGated ? 32 : 64;
  static constexpr int kBytes = kColumns * static_cast<int>(sizeof(Y)) < 128 ? kColumns * static_cast<int>(sizeof(Y)) : 128;  // of a row
  static constexpr int kPanelColumns = kBytes / static_cast<int>(sizeof(Y)), kPanels = kColumns / kPanelColumns;
  static constexpr int kPanelBytes = kChunk * kBytes, kTurns = kGroupBytes / (kPanels * kPanelBytes);
  // Where piece `piece` of row `row` is.
  static __device__ __forceinline__ int At(int row, int piece) {
    return row * kBytes + (kBytes == 128 ? piece ^ (row & 7) : piece ^ (row >> 1 & 3)) * 16;
  }
};

// The chunk of warp `warp` of the group.
template <typename Y, bool kGated>
__device__ __forceinline__ void StageChunk(const ChunkOfY<kGated>& y, uint8_t* buffer, int warp) {
  using P = Panels<Y, kGated>;
  const int lane = threadIdx.x % 32;
  if constexpr (sizeof(Y) == 4) {
    constexpr int kPieces = kGated ? 2 : 4;  // of a warp
    uint8_t* to = buffer + warp * kPieces / 8 * P::kPanelBytes + lane / 4 % 4 * 4;
    const int first = warp * kPieces % 8 + lane / 16;
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int i = 0; i < (kGated ? 2 : 4); ++i)
        *reinterpret_cast<float*>(to + P::At(j * 8 + lane % 4 * 2 + i % 2, first + i / 2 * 2)) = y[j * (kGated ? 2 : 4) + i];
  } else if constexpr (kGated) {
    StoreMatrix4(SharedAddress(buffer) + P::At(lane, warp), Pack<Y>(y[0], y[1]), Pack<Y>(y[2], y[3]), Pack<Y>(y[4], y[5]), Pack<Y>(y[6], y[7]));
  } else {
    const uint32_t to = SharedAddress(buffer) + P::At(lane / 16 * 8 + lane % 8, warp * 2 + lane / 8 % 2);
    StoreMatrix4(to, Pack<Y>(y[0], y[1]), Pack<Y>(y[2], y[3]), Pack<Y>(y[4], y[5]), Pack<Y>(y[6], y[7]));
    StoreMatrix4(to + 16 * P::kBytes, Pack<Y>(y[8], y[9]), Pack<Y>(y[10], y[11]), Pack<Y>(y[12], y[13]), Pack<Y>(y[14], y[15]));
  }
}

// A warp group's chunks on their way to y, of which half of its staging memory is filled, then stored (or added to y) by the copy engine
// while the other half is.
template <bool kGated>
struct Writer {
  uint8_t* const buffers;
  const CUtensorMap* const y_map;
  const int group, warp;  // warp: of the group
  const bool adds;
  int half = 0, staged = 0;  // chunks that wait in this half
  int column = 0, row = 0;   // of the first of them

  // y: at this column (the group's first) and row, the row behind the chunk before where any waits.
  template <typename Y>
  __device__ __forceinline__ void Put(const ChunkOfY<kGated>& y, int at_column, int at_row) {
    using P = Panels<Y, kGated>;
    constexpr int kChunkBytes = P::kPanels * P::kPanelBytes, kBatch = P::kTurns / 2;
    if (staged == 0) {
      column = at_column;
      row = at_row;
      if (threadIdx.x % kGroupThreads == 0) WaitStoresRead<1>();
      NamedBarrier(1 + group, kGroupThreads);
    }
    StageChunk<Y, kGated>(y, buffers + half * kGroupBytes / 2 + staged * kChunkBytes, warp);
    if (++staged == kBatch) Send<Y>();
  }
  template <typename Y>
  __device__ __forceinline__ void Send() {
    using P = Panels<Y, kGated>;
    if (staged == 0) return;
    FenceStores();
    NamedBarrier(1 + group, kGroupThreads);
    if (threadIdx.x % kGroupThreads == 0) {
      const uint8_t* from = buffers + half * kGroupBytes / 2;
      for (int chunk = 0; chunk < staged; ++chunk)
#pragma unroll
        for (int panel = 0; panel < P::kPanels; ++panel, from += P::kPanelBytes) {
          if (adds) AddTile2(y_map, from, column + panel * P::kPanelColumns, row + chunk * kChunk);
          else StoreTile2(y_map, from, column + panel * P::kPanelColumns, row + chunk * kChunk);
        }
      CommitStores();
    }
    half ^= 1;
    staged = 0;
  }
};

// Of the warp's rows of w lane / 4 and lane / 4 + 8: where gated, the gate's and up's of column lane / 4.
template <bool kGated>
__device__ __forceinline__ float2 LoadBias(const LinearParams& p, int64_t first_column) {
  if (p.bias == nullptr) return {0, 0};
  const int64_t column = first_column + threadIdx.x % 32 / 4, other = kGated ? p.n + column : column + 8;
  return {column < p.n ? p.bias[column] : 0.f, column < p.n && (kGated || other < p.n) ? p.bias[other] : 0.f};
}

// ---- kernel ----

template <typename T, int kBlocks, int kColumns, bool kGated>
__global__ void __launch_bounds__(kThreads, 1)
    TilesKernel(const LinearParams p, const __grid_constant__ CUtensorMap w_map, const __grid_constant__ CUtensorMap x_map,
                const __grid_constant__ CUtensorMap y_map, const __grid_constant__ Schedule s, const Scratch scratch) {
#ifdef TENON_SM90A
  using S = Shape<kBlocks, kColumns>;
  extern __shared__ uint8_t shared_bytes[];
  uint8_t* stages = shared_bytes + (1024 - SharedAddress(shared_bytes) % 1024) % 1024;
  uint8_t* staging = stages + S::kStages * S::kStageBytes;
  uint64_t* full = reinterpret_cast<uint64_t*>(staging + kStagingBytes);
  uint64_t* empty = full + S::kStages;
  const int sharer = s.share > 1 ? ClusterRank() : 0, cluster = static_cast<int>(blockIdx.x) / s.share;
  // Blocks that read the same tiles of x begin at different ones of k.
  const auto rotation_of = [&](int tile_w, int count) { return tile_w * kBlocks / 4 * s.rotation % count; };

  if (threadIdx.x == 0) {
    PrefetchMap(&w_map);
    PrefetchMap(&x_map);
    PrefetchMap(&y_map);
    for (int i = 0; i < S::kStages; ++i) {
      BarrierInit(full + i, 1);
      BarrierInit(empty + i, kConsumerWarps * s.share);
    }
    BarrierInitFence();
  }
  if (s.share > 1) ClusterMeet();
  else __syncthreads();

  WorkList list(s, cluster);
  Work work;
  if (threadIdx.x < kThreads - kConsumers) {
    GiveRegisters<40>();
    if (threadIdx.x == 0 && list.Next(&work)) {
      const uint64_t x_policy = s.tiles_x == 1 ? EvictLast() : EvictNormal(), w_policy = s.tiles_x > 1 ? EvictNormal() : EvictFirst();
      const uint16_t sharers = static_cast<uint16_t>((1 << s.share) - 1);
      const int share_rows = kColumns / s.share;
      constexpr int kTileUnits = kGated ? S::kHeight / 16 : S::kHeight;  // of the map of w: rows, or groups of 8 of gate and up
      const auto load_w = [&](int stage, int k, int row) {
        BarrierExpect(full + stage, S::kStageBytes);
        uint8_t* to = stages + stage * S::kStageBytes;
        if constexpr (kGated) LoadTile4(to, &w_map, k, 0, 0, row, full + stage, w_policy);
        else LoadTile2(to, &w_map, k, row, full + stage, w_policy);
      };
      const auto step_of = [&](int i) { return (work.first + (i < work.count ? i : i - work.count)) * kTileK; };
      Tiles tiles = TilesOf(s, work.unit, sharer);
      int rotation = rotation_of(tiles.w, work.count);
      int asked = min(S::kStages, work.count);  // stages whose tile of w is on its way
      for (int i = 0; i < asked; ++i) load_w(i, step_of(rotation + i), tiles.w * kTileUnits);
      // Here or below: when the last tile of w is asked for. Earlier, the next launch would take its bandwidth from this one.
      const bool has_all = asked == work.count && !list.HasNext();
      if (has_all) LetNextStart();
      WaitForPrevious();
      int stage = 0;
      uint32_t parity = 1;  // so that the first wait for a stage is none
      do {
        tiles = TilesOf(s, work.unit, sharer);
        rotation = rotation_of(tiles.w, work.count);
        const int w_row = tiles.w * kTileUnits, x_row = tiles.x * kColumns + sharer * share_rows;
        for (int i = rotation; i < rotation + work.count; ++i) {
          const int k = step_of(i);
          if (asked > 0) {
            --asked;
          } else {
            BarrierWait(empty + stage, parity);
            load_w(stage, k, w_row);
          }
          uint8_t* to = stages + stage * S::kStageBytes + S::kWeightBytes + sharer * share_rows * kRowBytes;
          if (s.share > 1) LoadTile2To(sharers, to, &x_map, k, x_row, full + stage, x_policy);
          else LoadTile2(to, &x_map, k, x_row, full + stage, x_policy);
          if (++stage == S::kStages) {
            stage = 0;
            parity ^= 1;
          }
        }
      } while (list.Next(&work));
      if (!has_all) LetNextStart();
    }
    __syncwarp();
  } else {
    TakeRegisters<232>();
    const int thread = static_cast<int>(threadIdx.x) - (kThreads - kConsumers), lane = thread % 32;
    const int warp = __shfl_sync(0xffffffffu, thread / 32, 0), group = warp / 4;
    Writer<kGated> writer{.buffers = staging + group * kGroupBytes, .y_map = &y_map, .group = group, .warp = warp % 4, .adds = p.residual != nullptr};
    const auto release = [&](int stage) {
      if (s.share > 1) {
        if (lane < s.share) BarrierArriveAt(empty + stage, lane);
      } else if (lane == 0) {
        BarrierArrive(empty + stage);
      }
    };
    float c[kBlocks][kColumns / 2];
    int stage = 0, parity = 0;
    while (list.Next(&work)) {
#pragma unroll
      for (int b = 0; b < kBlocks; ++b)
#pragma unroll
        for (int i = 0; i < kColumns / 2; ++i) c[b][i] = 0;
      int before = -1;  // the stage that the tensor cores may still read
      for (int step = 0; step < work.count; ++step) {
        BarrierWait(full + stage, parity);
        const uint64_t w_tile = SwizzledTile(stages + stage * S::kStageBytes + group * 64 * kRowBytes);
        const uint64_t x_tile = SwizzledTile(stages + stage * S::kStageBytes + S::kWeightBytes);
        WgmmaFence();
#pragma unroll
        for (int k = 0; k < kTileK / 16; ++k)
#pragma unroll
          for (int b = 0; b < kBlocks; ++b) Wgmma<T, kColumns>(c[b], w_tile + b * (128 * kRowBytes >> 4) + k * 2, x_tile + k * 2);
        WgmmaCommit();
        WgmmaWait<1>();
        if (before >= 0) release(before);
        before = stage;
        if (++stage == S::kStages) {
          stage = 0;
          parity ^= 1;
        }
      }
      WgmmaWait<0>();
      release(before);
      WaitForPrevious();

      const Tiles tiles = TilesOf(s, work.unit, sharer);
      const int64_t first_row = int64_t{tiles.x} * kColumns;
      const auto finisher = [&](int chunk) { return s.distribute ? chunk * work.parts / (kBlocks * S::kChunks) : 0; };
      const auto block_of = [&](int part) { return (s.clusters - 1 - work.first_place - part) * s.share + sharer; };
      const auto flag = [&](int writer, int reader) {
        return scratch.flags + (block_of(writer) * 2 + group) * kMaxParts + (s.distribute ? reader : 0);
      };
      if (work.parts > 1 && (s.distribute || work.part > 0)) {
        float4* to = scratch.sums + int64_t{blockIdx.x} * kSlotQuads + thread;
#pragma unroll
        for (int b = 0; b < kBlocks; ++b)
#pragma unroll
          for (int chunk = 0; chunk < S::kChunks; ++chunk) {
            if (finisher(b * S::kChunks + chunk) == work.part || first_row + chunk * kChunk >= p.rows) continue;
#pragma unroll
            for (int q = 0; q < 4; ++q) {
              const float* sums = c[b] + (chunk * 4 + q) * 4;
              __stcg(to + ((b * S::kChunks + chunk) * 4 + q) * kConsumers, float4{sums[0], sums[1], sums[2], sums[3]});
            }
          }
        NamedBarrier(1 + group, kGroupThreads);
        const int reader = thread % kGroupThreads;
        if (reader < (s.distribute ? work.parts : 1) && reader != work.part) Raise(flag(work.part, reader));
        if (!s.distribute) continue;
      }
      if (work.parts > 1) {
        for (int writer = thread % kGroupThreads; writer < work.parts; writer += kGroupThreads)
          if (writer != work.part) AwaitAndLower(flag(writer, work.part));
        NamedBarrier(1 + group, kGroupThreads);
      }
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int64_t column = int64_t{tiles.w} * (S::kHeight / (kGated ? 2 : 1)) + (b * 128 + group * 64) / (kGated ? 2 : 1);
        const float2 bias = LoadBias<kGated>(p, column + warp % 4 * (kGated ? 8 : 16));
#pragma unroll
        for (int chunk = 0; chunk < S::kChunks; ++chunk) {
          if (finisher(b * S::kChunks + chunk) != work.part || first_row + chunk * kChunk >= p.rows) continue;
          float v[16];
#pragma unroll
          for (int i = 0; i < 16; ++i) v[i] = c[b][chunk * 16 + i];
          if (work.parts > 1)
            AddParts(v, scratch.sums + int64_t{block_of(0)} * kSlotQuads + (b * S::kChunks + chunk) * 4 * kConsumers + thread,
                     -int64_t{s.share} * kSlotQuads, work.part, work.parts);
          ChunkOfY<kGated> y;
          if (p.bias != nullptr)
#pragma unroll
            for (int i = 0; i < 16; ++i) v[i] += i / 2 % 2 == 0 ? bias.x : bias.y;
#pragma unroll
          for (int i = 0; i < (kGated ? 8 : 16); ++i)
            if constexpr (kGated) y[i] = Act(v[i / 2 * 4 + i % 2], p.activation) * v[i / 2 * 4 + i % 2 + 2];
            else y[i] = v[i];
          const int y_row = static_cast<int>(first_row) + chunk * kChunk;
          if (p.y_type == Type::kF32) writer.template Put<float>(y, static_cast<int>(column), y_row);
          else writer.template Put<T>(y, static_cast<int>(column), y_row);
        }
        if (p.y_type == Type::kF32) writer.template Send<float>();
        else writer.template Send<T>();
      }
    }
    if (thread % kGroupThreads == 0) WaitStores();
    __syncwarp();
  }
  if (s.share > 1) ClusterMeet();  // no block ends while another may still signal its barriers
#else
  __trap();
#endif
}

// ---- launch ----

template <typename Y, bool kGated>
bool EncodeOutputAs(CUtensorMap* map, const LinearParams& p) {
  using P = Panels<Y, kGated>;
  const auto n = static_cast<cuuint64_t>(p.n);
  return Encode<2>(map, p.y_type, p.y, {n, static_cast<cuuint64_t>(p.rows)}, {n * sizeof(Y)}, {static_cast<cuuint32_t>(P::kPanelColumns), kChunk},
                   P::kBytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B);
}
template <typename T, bool kGated>
bool EncodeOutput(CUtensorMap* map, const LinearParams& p) {
  return p.y_type == Type::kF32 ? EncodeOutputAs<float, kGated>(map, p) : EncodeOutputAs<T, kGated>(map, p);
}

// Units that each cluster takes whole, and what is cut.
Schedule ScheduleOf(const LinearParams& p, const TilesPlan& plan) {
  const int64_t per_tile = 128 * plan.blocks / (p.gated ? 2 : 1);
  Schedule s{.tiles_w = static_cast<int>((p.n + per_tile - 1) / per_tile),
             .tiles_x = static_cast<int>((p.rows + plan.columns - 1) / plan.columns),
             .steps = static_cast<int>((p.k + kTileK - 1) / kTileK),
             .share = plan.share,
             .clusters = Facts().num_sms / plan.share,
             .whole = 0,
             .rest_steps = 0,
             .distribute = plan.split > 1,
             .group = plan.group,
             .rotation = plan.rotation};
  const int units = (s.tiles_w + s.share - 1) / s.share * s.tiles_x;
  if (plan.split == 1) {
    s.whole = units;
    s.clusters = std::min(units, s.clusters);
  } else if (plan.split > 1) {
    s.clusters = units * plan.split;
  } else {
    constexpr int kFewSteps = 8;
    s.whole = units / s.clusters * s.clusters;
    if (s.whole > 0 && units > s.whole && (units - s.whole) * s.steps < kFewSteps * s.clusters) s.whole -= s.clusters;
  }
  s.rest_steps = (units - s.whole) * s.steps;
  return s;
}

template <typename T, int kBlocks, int kColumns, bool kGated>
Launch LaunchShape(const LinearParams& p, const TilesPlan& plan, cudaStream_t stream) {
  using S = Shape<kBlocks, kColumns>;
  constexpr int kBytes = S::kStages * S::kStageBytes + kOtherBytes;
  const auto kernel = TilesKernel<T, kBlocks, kColumns, kGated>;
  static const Launch allowed = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (allowed != cudaSuccess) return allowed;
  CUtensorMap w_map, x_map, y_map;
  if (!EncodeWeight(&w_map, p, S::kHeight) || !EncodeInput(&x_map, p, static_cast<cuuint32_t>(kColumns / plan.share)) || !EncodeOutput<T, kGated>(&y_map, p))
    return cudaErrorInvalidValue;
  const Schedule s = ScheduleOf(p, plan);
  const int blocks = s.clusters * s.share;
  // No place without a step: a part that never comes would be waited for.
  if (s.rest_steps > 0 && (p.scratch == nullptr || blocks > Facts().num_sms || plan.split > kMaxParts || s.rest_steps < s.clusters))
    return cudaErrorNotSupported;
  const Scratch scratch{static_cast<uint32_t*>(p.scratch),
                        reinterpret_cast<float4*>(static_cast<uint8_t*>(p.scratch) + FlagBytes(Facts().num_sms))};
  if (p.residual != nullptr && p.residual != p.y) {
    const auto bytes = static_cast<size_t>(p.rows * p.n) * sizeof(float);
    const Launch copied = cudaMemcpyAsync(p.y, p.residual, bytes, cudaMemcpyDeviceToDevice, stream);
    if (copied != cudaSuccess) return copied;
  }
  return LaunchClusters(s.share, kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), kBytes, stream, p, w_map, x_map, y_map, s, scratch);
}

template <typename T, bool kGated>
Launch LaunchFor(const LinearParams& p, const TilesPlan& plan, cudaStream_t stream) {
  switch (plan.blocks * 1000 + plan.columns) {
    case 1128: return LaunchShape<T, 1, 128, kGated>(p, plan, stream);
    case 1160: return LaunchShape<T, 1, 160, kGated>(p, plan, stream);
    case 1192: return LaunchShape<T, 1, 192, kGated>(p, plan, stream);
    case 1224: return LaunchShape<T, 1, 224, kGated>(p, plan, stream);
    case 1256: return LaunchShape<T, 1, 256, kGated>(p, plan, stream);
    case 2128: return LaunchShape<T, 2, 128, kGated>(p, plan, stream);
    default: return cudaErrorNotSupported;
  }
}

// What a plan takes on an H200, in microseconds, within a tenth or two (bench/lab/linear; what it picks is 2 % slower than the best of all,
// 0.3 % where gated): a tile's step of k is bound by products or by fetching, all of them by reading w, and each unit's end and each cut costs
// something.
double CostOf(const LinearParams& p, const TilesPlan& plan) {
  constexpr double kStart = 0.6, kStep = 0.04, kProducts = 0.76, kFetch = 0.49, kStore = 3.8, kCut = 3, kWritePart = 8, kReadPart = 0.9;
  constexpr double kWeightBytesPerMicrosecond = 3.8e6;
  const Schedule s = ScheduleOf(p, plan);
  const double height = 128 * plan.blocks, tile = height * plan.columns / (128 * 256);
  const double step = kStep + std::max(kProducts * tile, kFetch * (height + plan.columns / plan.share) / 256);
  const int waves = (s.whole + s.clusters - 1) / s.clusters, cut_steps = (s.rest_steps + s.clusters - 1) / s.clusters;
  const double weight_bytes = static_cast<double>(p.n * p.k) * 2 * (p.gated ? 2 : 1);
  double cost = kStart + std::max((waves * s.steps + cut_steps) * step, weight_bytes / kWeightBytesPerMicrosecond);
  cost += (waves + (cut_steps > 0 ? 1 : 0)) * kStore * tile;
  if (cut_steps == 0) return cost;
  const double parts = std::max(1., static_cast<double>(s.steps) * s.clusters / s.rest_steps);
  if (s.distribute) return cost + kCut + kReadPart * tile * (parts - 1) / parts;
  return cost + kCut + (kWritePart + kReadPart * (std::ceil(parts + 0.5) - 1)) * tile;
}

bool CanCut(const LinearParams& p, const TilesPlan& plan) {
  const Schedule s = ScheduleOf(p, plan);
  return p.scratch != nullptr && s.clusters * s.share <= Facts().num_sms && s.rest_steps >= s.clusters;
}

}  // namespace

// As few columns more than there are rows as tiles allow.
TilesPlan PlanTiles(const LinearParams& p) {
  constexpr int kMostColumns = 256, kLeastColumns = 128;
  const int64_t tiles_x = (p.rows + kMostColumns - 1) / kMostColumns, rows = (p.rows + tiles_x - 1) / tiles_x;
  const int fitting = std::max(kLeastColumns, static_cast<int>((rows + kChunk - 1) / kChunk * kChunk));
  TilesPlan best{.blocks = 1, .columns = fitting, .share = 2, .split = 1};
  double best_cost = CostOf(p, best);
  for (const auto& [blocks, columns] : {std::pair{1, fitting}, {1, kLeastColumns}, {2, kLeastColumns}})
    for (int split = 0; split <= kMaxParts; ++split) {
      const TilesPlan plan{.blocks = blocks, .columns = columns, .share = 2, .split = split};
      if (split != 1 && !CanCut(p, plan)) continue;
      const double cost = CostOf(p, plan);
      if (cost < best_cost) best = plan, best_cost = cost;
    }
  return best;
}

size_t LinearScratchBytes() {
  const int blocks = Facts().num_sms;
  return Facts().capability == 90 ? FlagBytes(blocks) + static_cast<size_t>(blocks) * kSlotQuads * sizeof(float4) : 0;
}

bool TilesTake(const LinearParams& p) {
  if (!WgmmaTakes(p) || p.rows <= 64 || p.n * TypeBytes(p.y_type) % 16 != 0) return false;
  return p.residual == nullptr || p.y_type == Type::kF32;
}

Launch LinearTiles(const LinearParams& p, const TilesPlan& plan, cudaStream_t stream) {
  if (p.type == Type::kBf16) return p.gated ? LaunchFor<__nv_bfloat16, true>(p, plan, stream) : LaunchFor<__nv_bfloat16, false>(p, plan, stream);
  return p.gated ? LaunchFor<__half, true>(p, plan, stream) : LaunchFor<__half, false>(p, plan, stream);
}

}  // namespace tenon_cuda
