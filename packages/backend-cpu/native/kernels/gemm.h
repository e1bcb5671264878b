// y = x · wᵀ with packed weights. For a chunk of rows: for each group of column blocks, for each slice of K (so that the
// group's weights stay in L2), for each tile of rows: a register tile of f32 accumulators over the slice. Between slices
// accumulators rest in memory, which is exact, so slices do not show in the result.
//
// Where one tile holds all rows, it reads the weights from DRAM, prefetched a fixed distance ahead in each block's stream.
// Where there are more, the first one does so at the start of a run of groups; the others fetch the next group into L2 while
// they compute, so that memory and arithmetic overlap from end to end.
#pragma once

#include "dot.h"
#include "vector_math.h"

namespace tenon_cpu::TENON_ISA {

inline constexpr int64_t kRowChunk = 128;
inline constexpr int kGroupBlocks = 4;                 // column blocks of a group
inline constexpr int kMaxGroupBlocks = 8;              // where one tile holds all rows
inline constexpr int64_t kSliceBytes = 256 * 1024;     // of a group's weights
// Bytes to prefetch ahead, over all streams of a tile. Measured on Zen 4 against plain reads: one linear stream is fastest
// (102 % with one row, 90 % with two to six, against 75-80 % for two to eight streams); a single row leaves the processor
// room to look ahead by itself.
constexpr int64_t PrefetchBytes(int rows) { return rows == 1 ? 2048 : 8192; }

// One group of blocks and one slice of K.
struct GemmSlice {
  const char* w;           // first block, first step of the slice
  int64_t block_bytes;     // from block to block
  int64_t block, num_blocks;
  int64_t steps;
  bool resumes;            // accumulators continue an earlier slice
  bool finishes;           // this is the last slice
  bool is_first;           // nothing has prefetched its weights
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

// All steps, with the weights prefetched ahead; the last ones prefetch the start of `next`, which comes after w.
template <class Dot, int MR, int NR>
TENON_INLINE void StreamSteps(const typename Dot::X* const (&x)[MR], const char* const (&w)[NR], int64_t steps,
                              const char* next, V (&acc)[MR][NR]) {
  constexpr int64_t kAhead = PrefetchBytes(MR) / NR;
  const int64_t turn = Max(0, steps - kAhead / kStepBytes<Dot>);
  for (int part = 0; part < 2; part++) {
    const int64_t begin = part == 0 ? 0 : turn, end = part == 0 ? turn : steps;
    const PrefetchAhead prefetch = {part == 0 ? kAhead : next - w[0] - turn * kStepBytes<Dot>, kStepBytes<Dot>};
    const typename Dot::X* x_at[MR];
    const char* w_at[NR];
    for (int r = 0; r < MR; r++) x_at[r] = x[r] + begin * Dot::kFactor;
    for (int j = 0; j < NR; j++) w_at[j] = w[j] + begin * kStepBytes<Dot>;
    DotSteps<Dot>(x_at, w_at, kStepBytes<Dot>, end - begin, prefetch, acc);
  }
}

// Rows of x and blocks of w that meet in a tile.
template <class Dot, int MR, int NR>
struct TileOperands {
  const typename Dot::X* x[MR];
  const char* w[NR];
  float* tile;
  int64_t ld_tile;
  bool resumes;

  TENON_INLINE TileOperands(const GemmSlice& slice, const GemmRows<Dot>& rows, int64_t first)
      : tile(rows.tile + first * kLanes), ld_tile(rows.ld_tile), resumes(slice.resumes) {
    for (int r = 0; r < MR; r++) x[r] = rows.x + r * rows.ldx;
    for (int j = 0; j < NR; j++) w[j] = slice.w + (first + j) * slice.block_bytes;
  }
  TENON_INLINE void Begin(V (&acc)[MR][NR]) const {
    if (resumes) {
      LoadTile(tile, ld_tile, acc);
    } else {
      ZeroTile(acc);
    }
  }
};

// What a tile of rows does about the weights beside computing: its own ones are prefetched ahead, or they lie in L2 and it
// prefetches N blocks of the next group, from block `first` on.
struct OwnWeights {
  static constexpr bool kStreams = true;
};
template <int N>
struct NextWeights {
  static constexpr bool kStreams = false;
  int64_t first;
};

// Blocks [first, first + NR) of the slice for MR rows.
template <class Dot, int MR, int NR>
void GemmTile(const GemmSlice& slice, const GemmRows<Dot>& rows, int64_t first, OwnWeights) {
  TileOperands<Dot, MR, NR> operands(slice, rows, first);
  V acc[MR][NR];
  operands.Begin(acc);
  const bool last = first + NR == slice.num_blocks;
  StreamSteps<Dot>(operands.x, operands.w, slice.steps, last ? slice.next : operands.w[0] + NR * slice.block_bytes, acc);
  StoreTile(operands.tile, rows.ld_tile, acc);
}

template <class Dot, int MR, int NR, int N>
void GemmTile(const GemmSlice& slice, const GemmRows<Dot>& rows, int64_t first, NextWeights<N> weights) {
  TileOperands<Dot, MR, NR> operands(slice, rows, first);
  V acc[MR][NR];
  operands.Begin(acc);
  if constexpr (N > 0) {
    PrefetchEach<N> next;
    next.stride = kStepBytes<Dot>;
    for (int i = 0; i < N; i++) next.stream[i] = slice.next + (weights.first + i) * slice.block_bytes;
    DotSteps<Dot>(operands.x, operands.w, kStepBytes<Dot>, slice.steps, next, acc);
  } else {
    DotSteps<Dot>(operands.x, operands.w, kStepBytes<Dot>, slice.steps, NoPrefetch(), acc);
  }
  StoreTile(operands.tile, rows.ld_tile, acc);
}

// The same; of a row tile's calls, the first one prefetches.
template <class Dot, int MR, int NR, class Weights>
void GemmBlocks(const GemmSlice& slice, const GemmRows<Dot>& rows, int64_t first, Weights weights) {
  if (Weights::kStreams || first == 0) {
    GemmTile<Dot, MR, NR>(slice, rows, first, weights);
  } else {
    GemmTile<Dot, MR, NR>(slice, rows, first, NextWeights<0>());
  }
}

// All blocks of the slice for MR rows, in tiles of up to kWide.
template <class Dot, int MR, int kWide, class Weights>
void GemmRowTile(const GemmSlice& slice, const GemmRows<Dot>& rows, Weights weights) {
  int64_t first = 0;
  if constexpr (kWide >= 8) {
    for (; first + 8 <= slice.num_blocks; first += 8) GemmBlocks<Dot, MR, 8>(slice, rows, first, weights);
  }
  if constexpr (kWide >= 4) {
    for (; first + 4 <= slice.num_blocks; first += 4) GemmBlocks<Dot, MR, 4>(slice, rows, first, weights);
  }
  if constexpr (kWide >= 2) {
    for (; first + 2 <= slice.num_blocks; first += 2) GemmBlocks<Dot, MR, 2>(slice, rows, first, weights);
  }
  for (; first < slice.num_blocks; first++) GemmBlocks<Dot, MR, 1>(slice, rows, first, weights);
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

// Takes the output's cache lines while the tile computes.
TENON_INLINE void PrefetchOutput(const GemmParams& p, const FinishedTile& t) {
  const int64_t per_output = p.epilogue == Epilogue::kGated ? 2 : 1, width = BytesOf(p.y_dtype);
  const char* y = static_cast<const char*>(p.y) + (t.row * p.ldy + t.block / per_output * kLanes) * width;
  for (int64_t r = 0; r < t.num_rows; r++, y += p.ldy * width) {
    for (int64_t i = 0; i < t.num_blocks / per_output * kLanes * width; i += 64) TENON_PREFETCH_WRITE(y + i);
  }
}

inline void FinishTile(const GemmParams& p, const FinishedTile& t) {
  if (p.epilogue == Epilogue::kGated) {
    FinishGated(p, t);
  } else {
    FinishLinear(p, t);
  }
}

// One tile of rows: its dots and, with the last slice, its output, while the accumulators are in L1.
template <class Dot, int MR, int kWide, class Weights>
void RunRowTile(const GemmParams& p, const GemmSlice& slice, const GemmRows<Dot>& rows, int64_t row, Weights weights) {
  const FinishedTile finished = {rows.tile, rows.ld_tile, row, MR, slice.block, slice.num_blocks};
  if (slice.finishes && !Weights::kStreams) PrefetchOutput(p, finished);
  GemmRowTile<Dot, MR, kWide>(slice, rows, weights);
  if (slice.finishes) FinishTile(p, finished);
}

// Rows [row, row + num_rows) of the output, whose x and accumulators are `rows`.
template <class Dot>
void GemmSliceRows(const GemmParams& p, const GemmSlice& slice, const GemmRows<Dot>& rows, int64_t row, int64_t num_rows) {
  if (num_rows <= kMaxTileRows) {
    WithRows<kMaxTileRows>(num_rows, [&]<int MR>() {
      RunRowTile<Dot, MR, TileBlocks(MR)>(p, slice, rows, row, OwnWeights());
    });
    return;
  }
  const RowTiles tiles(num_rows, kCachedTileRows);
  const int64_t begin = slice.is_first ? 1 : 0;  // of the tiles that look ahead
  const int64_t share = Min(2, CeilDiv(kGroupBlocks, tiles.count - begin));
  for (int64_t t = 0; t < tiles.count; t++) {
    const int64_t first = tiles.Begin(t), next = (t - begin) * share;
    const GemmRows<Dot> part = {rows.x + first * rows.ldx, rows.ldx, rows.tile + first * rows.ld_tile, rows.ld_tile};
    WithRows<kCachedTileRows, kCachedTileRows / 2>(tiles.Begin(t + 1) - first, [&]<int MR>() {
      constexpr int kWide = kCachedTileBlocks;
      if (t < begin) {
        RunRowTile<Dot, MR, kWide>(p, slice, part, row + first, OwnWeights());
      } else if (next >= kGroupBlocks) {
        RunRowTile<Dot, MR, kWide>(p, slice, part, row + first, NextWeights<0>());
      } else if (share == 1) {
        RunRowTile<Dot, MR, kWide>(p, slice, part, row + first, NextWeights<1>{next});
      } else {
        RunRowTile<Dot, MR, kWide>(p, slice, part, row + first, NextWeights<2>{next});
      }
    });
  }
}

// Scratch: accumulators [rows][kTileStride] f32, then x [rows][PaddedStride(k)] where it is converted to f32 or padded.
inline constexpr int64_t kTileStride = kMaxGroupBlocks * kLanes;
inline int64_t PaddedStride(int64_t k) { return RoundUp(k, kLanes) + kLanes; }

inline size_t GemmScratchBytes(int64_t max_rows, int64_t max_k) {
  const int64_t rows = Min(max_rows, kRowChunk);
  return static_cast<size_t>(rows * (kTileStride + PaddedStride(max_k)) * 4 + 64);
}

// Rows in the dot's type of x, padded with zeros.
template <class Dot>
void CopyRows(const Element<Dot::kDtype>* x, int64_t ldx, int64_t rows, int64_t k, typename Dot::X* out) {
  const int64_t stride = PaddedStride(k);
  for (int64_t r = 0; r < rows; r++, x += ldx, out += stride) {
    if constexpr (Dot::kConvertsX) {
      for (int64_t i = 0; i < k; i += kLanes) Store(out + i, LoadElementsN<Dot::kDtype>(x + i, Min(kLanes, k - i)));
    } else {
      memcpy(out, x, static_cast<size_t>(k) * sizeof(*x));
    }
    out[k] = 0;
  }
}

template <class Dot>
GemmRows<Dot> PrepareRows(const GemmParams& p, int64_t row, int64_t num_rows) {
  float* tile = reinterpret_cast<float*>(AlignTo64(p.scratch));
  const auto* x = static_cast<const Element<Dot::kDtype>*>(p.x) + row * p.ldx;
  // Rows a multiple of 2 KiB apart would push each other out of L1.
  const bool conflicts = num_rows > 4 && p.ldx * BytesOf(Dot::kDtype) % 2048 == 0;
  if (Dot::kConvertsX || p.weight.k % Dot::kFactor != 0 || conflicts) {
    auto* copy = reinterpret_cast<typename Dot::X*>(tile + num_rows * kTileStride);
    CopyRows<Dot>(x, p.ldx, num_rows, p.weight.k, copy);
    return {copy, PaddedStride(p.weight.k), tile, kTileStride};
  }
  return {reinterpret_cast<const typename Dot::X*>(x), p.ldx, tile, kTileStride};
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
      slice.block = block;
      slice.num_blocks = num_blocks;
      slice.steps = Min(slice_steps, steps - step);
      slice.resumes = step > 0;
      slice.finishes = last;
      slice.is_first = block == begin && step == 0;
      slice.next = last ? data + (block + num_blocks) * block_bytes : slice.w + slice_steps * kStepBytes<Dot>;
      GemmRows<Dot> slice_rows = rows;
      slice_rows.x += step * Dot::kFactor;
      GemmSliceRows(p, slice, slice_rows, row, num_rows);
    }
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
