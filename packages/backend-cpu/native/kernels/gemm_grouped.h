// y = x · wᵀ with a grouped weight and rows of x from quantize_rows.h; the arithmetic: grouped.h.
//
// A tile is up to kGroupedRows rows by one block of 16 columns, so a block is one linear stream whatever the batch. A
// group's weights are loaded and unpacked once and stay in registers while the rows pass over them.
#pragma once

#include "gemm.h"
#include "quantize_rows.h"

namespace tenon_cpu::TENON_ISA {

inline constexpr int64_t kGroupedSliceUnits = 16;  // of a row tile's x, in L1

#ifdef TENON_VNNI
// The `group` elements of K of 16 lanes as bytes, four elements to a register.
template <Grouping G>
TENON_INLINE void LoadQuads(const char* w, __m512i (&quads)[G.group / 4]) {
  constexpr int kLoads = G.group * G.bits / 32;
  TENON_UNROLL
  for (int i = 0; i < kLoads; i++) {
    __m512i lanes = _mm512_loadu_si512(w + 64 * i);
    if constexpr (G.bits == 8) {
      quads[i] = lanes;
    } else {
      const __m512i mask = _mm512_set1_epi8(15);
      quads[2 * i] = _mm512_and_si512(lanes, mask);
      quads[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(lanes, 4), mask);
    }
  }
#if defined(__GNUC__)
  TENON_UNROLL
  for (__m512i& quad : quads) __asm__("" : "+v"(quad));  // stays in its register
#endif
}

TENON_INLINE __m512i BroadcastQuad(const int8_t* digits) {
  int32_t quad;
  memcpy(&quad, digits, 4);
  return _mm512_set1_epi32(quad);
}

// Calls finish(r, Σ u·xq - zero·Σ xq) for group g of the unit, whose weights lie at w. Two chains for each row: of high
// bytes and of low bytes.
template <Grouping G, int MR, class Fn>
TENON_INLINE void GroupSums(const char* w, int g, const QuantizedUnit* const (&x)[MR], const Fn& finish) {
  constexpr int kQuads = G.group / 4;
  __m512i quads[kQuads];
  LoadQuads<G>(w, quads);
  TENON_UNROLL
  for (int r = 0; r < MR; r++) {
    const int8_t* digits = x[r]->digits + g * G.group;
    __m512i high = _mm512_setzero_si512();
    __m512i low = G.Zero() == 0 ? _mm512_setzero_si512() : _mm512_set1_epi32(x[r]->start[g]);
    TENON_UNROLL
    for (int i = 0; i < kQuads; i++) {
      high = _mm512_dpbusd_epi32(high, quads[i], BroadcastQuad(digits + 4 * i));
      low = _mm512_dpbusd_epi32(low, quads[i], BroadcastQuad(digits + kUnitK + 4 * i));
    }
    finish(r, _mm512_add_epi32(_mm512_slli_epi32(high, 8), low));
  }
}
#else
// Weights as words of 16 bits, in pairs, times pairs of x. The same meaning.
template <Grouping G, int MR, class Fn>
TENON_INLINE void GroupSums(const char* w, int g, const QuantizedUnit* const (&x)[MR], const Fn& finish) {
  constexpr int kLoads = G.group * G.bits / 32, kParts = 16 / G.bits;
  Ints sum[MR];
  TENON_UNROLL
  for (int r = 0; r < MR; r++) sum[r] = BroadcastInts(&x[r]->start[g]);
  for (int i = 0; i < kLoads; i++) {
    const Ints lanes = LoadInts(w + 64 * i);
    TENON_UNROLL
    for (int part = 0; part < kParts; part++) {
      // Words of a quad: elements 0 and 2 (low bytes or halves), then 1 and 3; with 4 bits, those of the next quad between.
      const int shift = G.bits == 8 ? 8 * part : 4 * (part / 2) + 8 * (part % 2);
      const Ints words = ShiftWords<(1 << G.bits) - 1>(lanes, shift);
      TENON_UNROLL
      for (int r = 0; r < MR; r++) {
        sum[r] = DotWords(sum[r], words, BroadcastInts(x[r]->digits + 2 * g * G.group + 4 * (kParts * i + part)));
      }
    }
  }
  TENON_UNROLL
  for (int r = 0; r < MR; r++) finish(r, sum[r]);
}
#endif

// One block and one slice of K.
struct GroupedSlice {
  const char* w;
  int64_t num_units;
  bool resumes;   // accumulators continue an earlier slice
  int64_t ahead;  // bytes to prefetch ahead; 0: the weights are in L2
};

// MR rows, x at the slice's first unit, ldx bytes apart; accumulators [MR][kTileStride].
template <Grouping G, int MR>
void GroupedTile(const GroupedSlice& slice, const char* x, int64_t ldx, float* tile) {
  constexpr int64_t kBytes = GroupedUnitBytes(G);
  constexpr GroupedUnitLayout kLayout = LayoutOf(G);
  V acc[MR];
  TENON_UNROLL
  for (int r = 0; r < MR; r++) acc[r] = slice.resumes ? Load(tile + r * kTileStride) : Zero();

  const char* w = slice.w;
  for (int64_t u = 0; u < slice.num_units; u++, w += kBytes, x += sizeof(QuantizedUnit)) {
    if (slice.ahead != 0) {
      TENON_UNROLL
      for (int64_t line = 0; line < kBytes; line += 64) TENON_PREFETCH(w + slice.ahead + line);
    }
    const QuantizedUnit* unit[MR];
    TENON_UNROLL
    for (int r = 0; r < MR; r++) unit[r] = reinterpret_cast<const QuantizedUnit*>(x + r * ldx);
    for (int g = 0; g < kUnitK / G.group; g++) {
      const V scale = LoadF16(reinterpret_cast<const uint16_t*>(w) + g * kLanes);
      [[maybe_unused]] V min;
      if constexpr (G.has_min) min = LoadF16(reinterpret_cast<const uint16_t*>(w + kLayout.mins) + g * kLanes);
      GroupSums<G>(w + kLayout.quants + g * (G.group * kLanes * G.bits / 8), g, unit, [&](int r, auto sum) {
        const V both = Mul(scale, Broadcast(unit[r]->scale[g * G.group / kScaleK]));
        acc[r] = FusedFma(both, FloatOfInts(sum), acc[r]);
        if constexpr (G.has_min) acc[r] = FusedFma(min, Broadcast(unit[r]->sum[g]), acc[r]);
      });
    }
  }
  TENON_UNROLL
  for (int r = 0; r < MR; r++) Store(tile + r * kTileStride, acc[r]);
}

// Up to kRowChunk rows.
struct GroupedRows {
  const char* x;  // row 0, unit 0
  int64_t ldx;    // bytes
  int64_t num_rows;
  float* tile;    // accumulators [num_rows][kTileStride]
};

// Blocks [block, block + num_blocks) of the weight for all rows, with their output. The first tile of rows streams the
// weights in.
template <Grouping G>
void GroupedBlocks(const GemmParams& p, const GroupedRows& rows, int64_t row, int64_t block, int64_t num_blocks) {
  const RowTiles tiles(rows.num_rows, kGroupedRows);
  const int64_t units = CeilDiv(p.weight.k, kUnitK);
  const int64_t slice_units = tiles.count == 1 ? units : kGroupedSliceUnits;
  const char* first = static_cast<const char*>(p.weight.data) + block * units * GroupedUnitBytes(G);
  for (int64_t unit = 0; unit < units; unit += slice_units) {
    const char* w = first + unit * GroupedUnitBytes(G);
    for (int64_t t = 0; t < tiles.count; t++) {
      const int64_t begin = tiles.Begin(t), tile_rows = tiles.Begin(t + 1) - begin;
      const char* x = rows.x + begin * rows.ldx + unit * static_cast<int64_t>(sizeof(QuantizedUnit));
      WithRows<kGroupedRows>(tile_rows, [&]<int MR>() {
        for (int64_t j = 0; j < num_blocks; j++) {
          const GroupedSlice slice = {w + j * units * GroupedUnitBytes(G), Min(slice_units, units - unit), unit > 0,
                                      t == 0 ? PrefetchBytes(MR) : 0};
          GroupedTile<G, MR>(slice, x, rows.ldx, rows.tile + begin * kTileStride + j * kLanes);
        }
      });
    }
  }
  FinishTile(p, {rows.tile, kTileStride, row, rows.num_rows, block, num_blocks});
}

template <Grouping G>
void GroupedGemmAs(const GemmParams& p) {
  const int64_t per_output = p.epilogue == Epilogue::kGated ? 2 : 1;
  const int64_t end = p.block_end * per_output, ldx = QuantizedRowBytes(p.weight.k);
  for (int64_t row = p.m_begin; row < p.m_end; row += kRowChunk) {
    const int64_t num_rows = Min(kRowChunk, p.m_end - row);
    const GroupedRows rows = {static_cast<const char*>(p.x) + row * ldx, ldx, num_rows,
                              reinterpret_cast<float*>(AlignTo64(p.scratch))};
    const int64_t group = num_rows <= kGroupedRows ? kMaxGroupBlocks : kGroupBlocks;
    for (int64_t block = p.block_begin * per_output; block < end; block += group) {
      GroupedBlocks<G>(p, rows, row, block, Min(group, end - block));
    }
  }
}

inline void GroupedGemm(const GemmParams& p) {
  WithGrouping(p.weight.grouping, [&]<Grouping G>() { GroupedGemmAs<G>(p); });
}

// The GEMM of any weight.
inline void AnyGemm(const GemmParams& p) { p.weight.grouping.bits != 0 ? GroupedGemm(p) : Gemm(p); }

}  // namespace tenon_cpu::TENON_ISA
