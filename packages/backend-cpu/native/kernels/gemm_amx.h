// bf16 GEMM on AMX tiles. A packed block is a stack of B tiles as it is: 16 pairs of K x 16 columns, 1 KiB each. x is read
// in A tiles of up to 16 rows x 32 elements of K; tiles have as many rows as there are, so nothing is padded but the end
// of K. Within 32 elements of K, tdpbf16ps sums even and odd elements apart, then adds both to the accumulator; it does so
// for a single row too, so a row's result is the same in any batch (and not that of vdpbf16ps).
//
// Two row tiles by two blocks share every load; up to 16 rows take four blocks, with one row tile.
#pragma once

#include "gemm_grouped.h"

namespace tenon_cpu::TENON_ISA {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileK = 32;           // K elements of a tile
inline constexpr int64_t kTileBytes = 1024;     // of a whole tile
inline constexpr int64_t kTileRowBytes = 64;
inline constexpr int64_t kAmxSliceSteps = 16;   // two blocks of 16 tiles: 32 KiB, of L1

// g++ 12's tile intrinsics do not tell that they read memory: whatever was stored before must be there.
TENON_INLINE void CompilerBarrier(const void* p) { __asm__ volatile("" : : "r"(p) : "memory"); }

// Tiles 0-3 accumulate, 4 and 5 are of x (low and high rows), 6 and 7 of weights. high = 0: one row tile, and tiles 2 and 3
// accumulate its third and fourth block.
class TileShape {
 public:
  void Set(int64_t low, int64_t high) {
    if (low == low_ && high == high_) return;
    low_ = low;
    high_ = high;
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    const int64_t second = high > 0 ? high : low;
    const int64_t rows[8] = {low, low, second, second, low, second, kTileRows, kTileRows};
    for (int i = 0; i < 8; i++) {
      config.rows[i] = static_cast<uint8_t>(rows[i]);
      config.row_bytes[i] = kTileRowBytes;
    }
    CompilerBarrier(&config);
    _tile_loadconfig(&config);
  }

 private:
  int64_t low_ = 0, high_ = 0;
};

// Up to four blocks and one slice of K.
struct AmxSlice {
  const char* w;        // first block, first tile of the slice
  int64_t block_bytes;  // from block to block
  int64_t num_blocks;
  int64_t steps;        // whole tiles of K
  bool resumes;         // accumulators continue an earlier slice
  const char* w_tail;   // [num_blocks] tiles of what is left of K, padded with zeros; null where nothing is
};

// Up to 32 rows.
struct AmxRows {
  const char* x;       // at the slice's first element
  int64_t ldx_bytes;
  const char* x_tail;  // [rows][kTileK], padded with zeros
  float* tile;         // accumulators, [rows][kTileStride]
};

struct AmxOperands {
  const char *low, *high;  // A tiles
  int64_t lda;
  const char* b[4];  // B tiles
};

template <bool kHigh, int NB>
TENON_INLINE void AmxStep(const AmxOperands& o, int64_t a_offset, int64_t b_offset) {
  _tile_loadd(4, o.low + a_offset, o.lda);
  if constexpr (kHigh) _tile_loadd(5, o.high + a_offset, o.lda);
  _tile_loadd(6, o.b[0] + b_offset, kTileRowBytes);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kHigh) _tile_dpbf16ps(2, 5, 6);
  if constexpr (NB >= 2) {
    _tile_loadd(7, o.b[1] + b_offset, kTileRowBytes);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kHigh) _tile_dpbf16ps(3, 5, 7);
  }
  if constexpr (NB >= 3) {
    _tile_loadd(6, o.b[2] + b_offset, kTileRowBytes);
    _tile_dpbf16ps(2, 4, 6);
  }
  if constexpr (NB >= 4) {
    _tile_loadd(7, o.b[3] + b_offset, kTileRowBytes);
    _tile_dpbf16ps(3, 4, 7);
  }
}

template <bool kHigh, int NB>
TENON_INLINE void LoadAccumulators(const float* tile) {
  constexpr int64_t kStride = kTileStride * 4;
  const float* high = tile + kTileRows * kTileStride;
  _tile_loadd(0, tile, kStride);
  if constexpr (NB >= 2) _tile_loadd(1, tile + kLanes, kStride);
  if constexpr (kHigh) _tile_loadd(2, high, kStride);
  if constexpr (kHigh && NB >= 2) _tile_loadd(3, high + kLanes, kStride);
  if constexpr (NB >= 3) _tile_loadd(2, tile + 2 * kLanes, kStride);
  if constexpr (NB >= 4) _tile_loadd(3, tile + 3 * kLanes, kStride);
}

template <bool kHigh, int NB>
TENON_INLINE void StoreAccumulators(float* tile) {
  constexpr int64_t kStride = kTileStride * 4;
  float* high = tile + kTileRows * kTileStride;
  _tile_stored(0, tile, kStride);
  if constexpr (NB >= 2) _tile_stored(1, tile + kLanes, kStride);
  if constexpr (kHigh) _tile_stored(2, high, kStride);
  if constexpr (kHigh && NB >= 2) _tile_stored(3, high + kLanes, kStride);
  if constexpr (NB >= 3) _tile_stored(2, tile + 2 * kLanes, kStride);
  if constexpr (NB >= 4) _tile_stored(3, tile + 3 * kLanes, kStride);
}

// NB blocks for up to 16 rows, or 32 with kHigh. streams: these rows are the first to read the weights.
template <bool kHigh, int NB>
void AmxTile(const AmxSlice& slice, const AmxRows& rows, bool streams) {
  static_assert(!kHigh || NB <= 2);
  if (slice.resumes) {
    LoadAccumulators<kHigh, NB>(rows.tile);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  AmxOperands o = {rows.x, rows.x + kTileRows * rows.ldx_bytes, rows.ldx_bytes, {}};
  for (int j = 0; j < NB; j++) o.b[j] = slice.w + j * slice.block_bytes;
  for (int64_t s = 0; s < slice.steps; s++) {
    if (streams) {
      for (int j = 0; j < NB; j++) {
        const char* ahead = o.b[j] + s * kTileBytes + PrefetchBytes(kMaxTileRows) / NB;
        for (int64_t line = 0; line < kTileBytes; line += 64) TENON_PREFETCH(ahead + line);
      }
    }
    AmxStep<kHigh, NB>(o, s * kTileRowBytes, s * kTileBytes);
  }
  if (slice.w_tail != nullptr) {
    o = {rows.x_tail, rows.x_tail + kTileRows * kTileRowBytes, kTileRowBytes, {}};
    for (int j = 0; j < NB; j++) o.b[j] = slice.w_tail + j * kTileBytes;
    AmxStep<kHigh, NB>(o, 0, 0);
  }
  StoreAccumulators<kHigh, NB>(rows.tile);
}

inline void AmxTileOf(bool high, const AmxSlice& slice, const AmxRows& rows, bool streams) {
  if (high) return slice.num_blocks == 2 ? AmxTile<true, 2>(slice, rows, streams) : AmxTile<true, 1>(slice, rows, streams);
  switch (slice.num_blocks) {
    case 1: return AmxTile<false, 1>(slice, rows, streams);
    case 2: return AmxTile<false, 2>(slice, rows, streams);
    case 3: return AmxTile<false, 3>(slice, rows, streams);
    default: return AmxTile<false, 4>(slice, rows, streams);
  }
}

inline void AmxSliceRows(const AmxSlice& slice, AmxRows rows, int64_t num_rows, TileShape& shape) {
  for (int64_t row = 0; row < num_rows; row += 2 * kTileRows) {
    const int64_t low = Min(kTileRows, num_rows - row), high = Min(kTileRows, num_rows - row - low);
    shape.Set(low, high);
    AmxTileOf(high > 0, slice, rows, row == 0);
    rows.x += 2 * kTileRows * rows.ldx_bytes;
    rows.x_tail += 2 * kTileRows * kTileRowBytes;
    rows.tile += 2 * kTileRows * kTileStride;
  }
}

// Elements [k / 32 * 32, k) of every row, padded with zeros to whole A tiles.
inline void CopyTails(const char* x, int64_t ldx_bytes, int64_t num_rows, int64_t k, char* out) {
  const int64_t rest = k % kTileK;
  memset(out, 0, static_cast<size_t>(num_rows * kTileRowBytes));
  for (int64_t r = 0; r < num_rows; r++) {
    memcpy(out + r * kTileRowBytes, x + r * ldx_bytes + (k - rest) * 2, static_cast<size_t>(rest) * 2);
  }
}

// Rows [row, row + num_rows) of all columns asked for.
inline void AmxChunk(const GemmParams& p, int64_t row, int64_t num_rows, TileShape& shape) {
  const int64_t k = p.weight.k, steps = k / kTileK, block_bytes = PackedBlockBytes(Dtype::kBf16, k);
  const int64_t tail_bytes = block_bytes - steps * kTileBytes;
  const int64_t per_output = p.epilogue == Epilogue::kGated ? 2 : 1;
  const int64_t group = num_rows <= kTileRows ? 4 : 2;
  const int64_t slice_steps = num_rows <= 2 * kTileRows ? Max(1, steps) : kAmxSliceSteps;
  const char* x = static_cast<const char*>(p.x) + row * p.ldx * 2;
  const char* data = static_cast<const char*>(p.weight.data);
  float* tile = reinterpret_cast<float*>(AlignTo64(p.scratch));
  char* x_tail = reinterpret_cast<char*>(tile + num_rows * kTileStride);
  alignas(64) char w_tail[4 * kTileBytes] = {};
  if (tail_bytes > 0) CopyTails(x, p.ldx * 2, num_rows, k, x_tail);

  const int64_t end = p.block_end * per_output;
  for (int64_t block = p.block_begin * per_output; block < end; block += group) {
    const int64_t num_blocks = Min(group, end - block);
    for (int64_t j = 0; j < num_blocks && tail_bytes > 0; j++) {
      const char* from = data + (block + j) * block_bytes + steps * kTileBytes;
      memcpy(w_tail + j * kTileBytes, from, static_cast<size_t>(tail_bytes));
    }
    CompilerBarrier(w_tail);
    for (int64_t step = 0; step == 0 || step < steps; step += slice_steps) {
      const bool last = step + slice_steps >= steps;
      const AmxSlice slice = {data + block * block_bytes + step * kTileBytes,
                              block_bytes,
                              num_blocks,
                              Min(slice_steps, steps - step),
                              step > 0,
                              last && tail_bytes > 0 ? w_tail : nullptr};
      AmxSliceRows(slice, {x + step * kTileRowBytes, p.ldx * 2, x_tail, tile}, num_rows, shape);
    }
    FinishTile(p, {tile, kTileStride, row, num_rows, block, num_blocks});
  }
}

inline void AmxGemm(const GemmParams& p) {
  if (p.weight.dtype != Dtype::kBf16 || p.weight.grouping.bits != 0) return AnyGemm(p);
  TileShape shape;
  for (int64_t row = p.m_begin; row < p.m_end; row += kRowChunk) {
    AmxChunk(p, row, Min(kRowChunk, p.m_end - row), shape);
  }
  _tile_release();
}

}  // namespace tenon_cpu::TENON_ISA
