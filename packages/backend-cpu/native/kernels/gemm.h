// y = x · wᵀ with packed weights. For a chunk of rows: for each group of column blocks, for each slice of K (so that the
// group's weights stay in L2), for each tile of rows: a register tile of f32 accumulators over the slice. Between slices
// accumulators rest in memory, which is exact, so slices do not show in the result.
//
// Few rows (one tile): every weight is read once from DRAM, prefetched a fixed distance ahead in each block's stream.
// More rows: while one group is computed, the row tiles prefetch the next group's weights, shared among them.
#pragma once

#include "dot.h"
#include "vector_math.h"

namespace tenon_cpu::TENON_ISA {

inline constexpr int64_t kRowChunk = 128;
inline constexpr int kGroupBlocks = 4;                 // column blocks of a group
inline constexpr int kMaxGroupBlocks = 8;              // where one tile holds all rows
inline constexpr int64_t kSliceBytes = 256 * 1024;     // of a group's weights
inline constexpr int64_t kPrefetchBytes = 1024;        // ahead in each block's stream

// One group of blocks and one slice of K.
struct GemmSlice {
  const char* w;           // first block, first step of the slice
  int64_t block_bytes;     // from block to block
  int64_t num_blocks;
  int64_t steps;           // whole steps of the slice
  bool odd;                // then one more step of a single K element
  bool resumes;            // accumulators continue an earlier slice
  const char* next;        // first block of the slice that comes next
};

// Rows of x, and where their accumulators rest.
template <class Dot>
struct GemmRows {
  const typename Dot::X* x;
  int64_t ldx;
  float* tile;  // [rows][ld_tile]
  int64_t ld_tile;
};

template <class Dot>
inline constexpr int64_t kStepBytes = kLanes * Dot::kFactor * BytesOf(Dot::kDtype);

template <class Dot, int MR, int NR, class Prefetch>
TENON_INLINE void RunSteps(const typename Dot::X* const (&x)[MR], const char* const (&w)[NR], int64_t begin,
                           int64_t end, const Prefetch& prefetch, V (&acc)[MR][NR]) {
  const typename Dot::X* x_at[MR];
  const char* w_at[NR];
  TENON_UNROLL
  for (int r = 0; r < MR; r++) x_at[r] = x[r] + begin * Dot::kFactor;
  TENON_UNROLL
  for (int j = 0; j < NR; j++) w_at[j] = w[j] + begin * kStepBytes<Dot>;
  DotSteps<Dot>(x_at, w_at, kStepBytes<Dot>, end - begin, prefetch, acc);
}

template <class Dot, int MR, int NR>
TENON_INLINE void OddStep(const typename Dot::X* const (&x)[MR], const char* const (&w)[NR], int64_t step,
                          V (&acc)[MR][NR]) {
  TENON_UNROLL
  for (int j = 0; j < NR; j++) {
    const typename Dot::W lanes = Dot::LoadW(w[j] + step * kStepBytes<Dot>, 0);
    TENON_UNROLL
    for (int r = 0; r < MR; r++) {
      acc[r][j] = Dot::Step(acc[r][j], lanes, Dot::LoadLastX(x[r] + step * Dot::kFactor, 0));
    }
  }
}

// Blocks [first, first + NR) of the slice for MR rows. `streams`: what to prefetch where rows share the weights; null
// where this is the only tile.
template <class Dot, int MR, int NR>
void GemmTile(const GemmSlice& slice, const GemmRows<Dot>& rows, int64_t first, const PrefetchStreams* streams) {
  const typename Dot::X* x[MR];
  const char* w[NR];
  for (int r = 0; r < MR; r++) x[r] = rows.x + r * rows.ldx;
  for (int j = 0; j < NR; j++) w[j] = slice.w + (first + j) * slice.block_bytes;
  float* tile = rows.tile + first * kLanes;

  V acc[MR][NR];
  if (slice.resumes) {
    LoadTile(tile, rows.ld_tile, acc);
  } else {
    ZeroTile(acc);
  }
  if (streams != nullptr) {
    RunSteps<Dot>(x, w, 0, slice.steps, *streams, acc);
  } else {
    const int64_t turn = Max(0, slice.steps - kPrefetchBytes / kStepBytes<Dot>);
    const int64_t to_next = slice.next - slice.w - turn * kStepBytes<Dot>;
    RunSteps<Dot>(x, w, 0, turn, PrefetchAhead{kPrefetchBytes}, acc);
    RunSteps<Dot>(x, w, turn, slice.steps, PrefetchAhead{to_next}, acc);
  }
  if (slice.odd) OddStep<Dot>(x, w, slice.steps, acc);
  StoreTile(tile, rows.ld_tile, acc);
}

// All blocks of the slice for MR rows, in the widest tiles that fit.
template <class Dot, int MR>
void GemmRowTile(const GemmSlice& slice, const GemmRows<Dot>& rows, const PrefetchStreams* streams) {
  constexpr int kWide = TileBlocks(MR);
  int64_t first = 0;
  if constexpr (kWide >= 8) {
    for (; first + 8 <= slice.num_blocks; first += 8) GemmTile<Dot, MR, 8>(slice, rows, first, streams);
  }
  if constexpr (kWide >= 4) {
    for (; first + 4 <= slice.num_blocks; first += 4) GemmTile<Dot, MR, 4>(slice, rows, first, streams);
  }
  if constexpr (kWide >= 2) {
    for (; first + 2 <= slice.num_blocks; first += 2) GemmTile<Dot, MR, 2>(slice, rows, first, streams);
  }
  for (; first < slice.num_blocks; first++) GemmTile<Dot, MR, 1>(slice, rows, first, streams);
}

// The part of the next slice that row tile `tile` of `count` prefetches.
inline PrefetchStreams ShareOfNext(const GemmSlice& slice, int64_t tile, int64_t count) {
  const int64_t share = CeilDiv(slice.num_blocks, count);
  PrefetchStreams streams = {{slice.w, slice.w}};
  for (int64_t i = 0; i < Min(share, 2); i++) {
    const int64_t block = tile * share + i;
    if (block < slice.num_blocks) streams.stream[i] = slice.next + block * slice.block_bytes;
  }
  return streams;
}

template <class Dot>
void GemmSliceRows(const GemmSlice& slice, const GemmRows<Dot>& rows, int64_t num_rows) {
  const RowTiles tiles(num_rows);
  for (int64_t t = 0; t < tiles.count; t++) {
    const int64_t begin = tiles.Begin(t);
    const PrefetchStreams share = ShareOfNext(slice, t, tiles.count);
    const PrefetchStreams* streams = tiles.count > 1 ? &share : nullptr;
    const GemmRows<Dot> part = {rows.x + begin * rows.ldx, rows.ldx, rows.tile + begin * rows.ld_tile, rows.ld_tile};
    WithRows(tiles.Begin(t + 1) - begin, [&]<int MR>() { GemmRowTile<Dot, MR>(slice, part, streams); });
  }
}

// Epilogues, on finished accumulators of rows [row, row + num_rows) and blocks [block, block + num_blocks).
struct FinishedTile {
  const float* tile;  // [num_rows][ld_tile]
  int64_t ld_tile;
  int64_t row, num_rows;
  int64_t block, num_blocks;
};

inline void FinishLinear(const GemmParams& p, const FinishedTile& t) {
  for (int64_t r = 0; r < t.num_rows; r++) {
    const int64_t row = t.row + r;
    for (int64_t j = 0; j < t.num_blocks; j++) {
      const int64_t column = (t.block + j) * kLanes;
      const int64_t n = Min(kLanes, p.weight.n - column);
      V sum = Load(t.tile + r * t.ld_tile + j * kLanes);
      if (p.bias != nullptr) sum = Add(sum, LoadElementsN<Dtype::kF32>(p.bias + column, n));
      if (p.epilogue == Epilogue::kAdd) {
        sum = Add(LoadElementsN<Dtype::kF32>(p.residual + row * p.ldr + column, n), sum);
      }
      StoreAny(p.y_dtype, p.y, row * p.ldy + column, sum, n);
    }
  }
}

inline void FinishGated(const GemmParams& p, const FinishedTile& t) {
  const int64_t size = p.weight.n / 2;
  for (int64_t r = 0; r < t.num_rows; r++) {
    for (int64_t j = 0; j < t.num_blocks; j += 2) {
      const int64_t column = (t.block + j) / 2 * kLanes;
      const int64_t n = Min(kLanes, size - column);
      V gate = Load(t.tile + r * t.ld_tile + j * kLanes);
      V up = Load(t.tile + r * t.ld_tile + (j + 1) * kLanes);
      if (p.bias != nullptr) {
        gate = Add(gate, LoadElementsN<Dtype::kF32>(p.bias + column, n));
        up = Add(up, LoadElementsN<Dtype::kF32>(p.bias + size + column, n));
      }
      StoreAny(p.y_dtype, p.y, (t.row + r) * p.ldy + column, Mul(Activate(gate, p.activation), up), n);
    }
  }
}

inline void FinishTile(const GemmParams& p, const FinishedTile& t) {
  if (p.epilogue == Epilogue::kGated) {
    FinishGated(p, t);
  } else {
    FinishLinear(p, t);
  }
}

// Scratch: accumulators [rows][kMaxGroupBlocks * 16] f32, then x as f32 [rows][ConvertedStride(k)].
inline int64_t ConvertedStride(int64_t k) { return RoundUp(k, kLanes) + kLanes; }
inline constexpr int64_t kTileStride = kMaxGroupBlocks * kLanes;

inline size_t GemmScratchBytes(int64_t max_rows, int64_t max_k) {
  const int64_t rows = Min(max_rows, kRowChunk);
  return static_cast<size_t>(rows * (kTileStride + ConvertedStride(max_k)) * 4 + 64);
}

// Rows as f32, padded with zeros.
template <Dtype D>
void ConvertRows(const Element<D>* x, int64_t ldx, int64_t rows, int64_t k, float* out, int64_t ld_out) {
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < ld_out; i += kLanes) {
      Store(out + r * ld_out + i, LoadElementsN<D>(x + r * ldx + Min(i, k), Max(0, Min(kLanes, k - i))));
    }
  }
}

template <class Dot>
GemmRows<Dot> PrepareRows(const GemmParams& p, int64_t row, int64_t num_rows) {
  float* tile = reinterpret_cast<float*>(AlignTo64(p.scratch));
  const auto* x = static_cast<const Element<Dot::kDtype>*>(p.x) + row * p.ldx;
  if constexpr (Dot::kConvertsX) {
    const int64_t stride = ConvertedStride(p.weight.k);
    float* converted = tile + num_rows * kTileStride;
    ConvertRows<Dot::kDtype>(x, p.ldx, num_rows, p.weight.k, converted, stride);
    return {converted, stride, tile, kTileStride};
  } else {
    return {x, p.ldx, tile, kTileStride};
  }
}

// Rows [row, row + num_rows) of all columns asked for.
template <class Dot>
void GemmChunk(const GemmParams& p, int64_t row, int64_t num_rows) {
  const GemmRows<Dot> rows = PrepareRows<Dot>(p, row, num_rows);
  const int64_t per_output = p.epilogue == Epilogue::kGated ? 2 : 1;
  const int64_t begin = p.block_begin * per_output, end = p.block_end * per_output;
  const bool one_tile = num_rows <= kMaxTileRows;
  const int64_t group = one_tile ? kMaxGroupBlocks : kGroupBlocks;
  const int64_t steps = CeilDiv(p.weight.k, Dot::kFactor);
  const bool odd = !Dot::kConvertsX && p.weight.k % Dot::kFactor != 0;
  const int64_t slice_steps = one_tile ? steps : Max(1, kSliceBytes / (kGroupBlocks * kStepBytes<Dot>));
  const char* data = static_cast<const char*>(p.weight.data);
  const int64_t block_bytes = steps * kStepBytes<Dot>;

  for (int64_t block = begin; block < end; block += group) {
    const int64_t num_blocks = Min(group, end - block);
    for (int64_t step = 0; step < steps; step += slice_steps) {
      const bool last = step + slice_steps >= steps;
      GemmSlice slice;
      slice.w = data + block * block_bytes + step * kStepBytes<Dot>;
      slice.block_bytes = block_bytes;
      slice.num_blocks = num_blocks;
      slice.odd = last && odd;
      slice.steps = Min(slice_steps, steps - step) - slice.odd;
      slice.resumes = step > 0;
      slice.next = last ? data + (block + num_blocks) * block_bytes : slice.w + slice_steps * kStepBytes<Dot>;
      GemmRows<Dot> slice_rows = rows;
      slice_rows.x += step * Dot::kFactor;
      GemmSliceRows(slice, slice_rows, num_rows);
    }
    FinishTile(p, {rows.tile, rows.ld_tile, row, num_rows, block, num_blocks});
  }
}

template <class Dot>
void GemmWith(const GemmParams& p) {
  for (int64_t row = p.m_begin; row < p.m_end; row += kRowChunk) {
    GemmChunk<Dot>(p, row, Min(kRowChunk, p.m_end - row));
  }
}

inline void Gemm(const GemmParams& p) {
  WithDtype(p.weight.dtype, [&](auto dtype) { GemmWith<typename DotOf<dtype.kDtype>::Type>(p); });
}

}  // namespace tenon_cpu::TENON_ISA
