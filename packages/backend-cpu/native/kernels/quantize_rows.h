// Rows of x to 16-bit whole numbers with a scale for every 32 elements: s = max |x| / kMaxQuantized, xq = round(x / s).
// A row that holds a NaN or an infinity gets a scale of NaN, and so NaN for an answer.
#pragma once

#include "grouped.h"

namespace tenon_cpu::TENON_ISA {

// What is smaller counts as zero: 1 / s would overflow.
inline constexpr float kLeastMaximum = 1e-30f;

#ifdef TENON_VNNI
// Words to bytes. Packing works within 128-bit lanes, here and before: quads of one vector lie four quads apart.
TENON_INLINE __m512i BytesOfWords(__m512i low, __m512i high) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
}

TENON_INLINE void StoreDigits(QuantizedUnit& unit, const V (&quantized)[4]) {
  __m512i high[2], low[2];
  TENON_UNROLL
  for (int i = 0; i < 2; i++) {
    const __m512i first = _mm512_cvtps_epi32(quantized[2 * i]), second = _mm512_cvtps_epi32(quantized[2 * i + 1]);
    const __m512i words = _mm512_packs_epi32(first, second);
    high[i] = _mm512_srai_epi16(_mm512_add_epi16(words, _mm512_set1_epi16(128)), 8);
    low[i] = _mm512_sub_epi16(words, _mm512_slli_epi16(high[i], 8));
  }
  _mm512_store_si512(unit.digits, BytesOfWords(high[0], high[1]));
  _mm512_store_si512(unit.digits + kUnitK, BytesOfWords(low[0], low[1]));
}
#else
TENON_INLINE void StoreDigits(QuantizedUnit& unit, const V (&quantized)[4]) {
  for (int i = 0; i < 4; i++) StoreSwappedWords(unit.digits + 32 * i, quantized[i]);
}
#endif

TENON_INLINE V Quantize(V x, V inverse) {
  const V limit = Broadcast(kMaxQuantized);
  return Round(Min(Max(Mul(x, inverse), Sub(Zero(), limit)), limit));
}

// What 64 elements are multiplied with to become whole numbers, and back. Lanes 0-7 are of the first 32, 8-15 of the others.
struct Scales {
  V inverse, scale;
};
TENON_INLINE Scales ScalesOf(const V (&x)[4]) {
  const V max = PairMax(Max(Abs(x[0]), Abs(x[1])), Max(Abs(x[2]), Abs(x[3])));
  const V least = Broadcast(kLeastMaximum);
  return {SelectLess(max, least, Zero(), Div(Broadcast(kMaxQuantized), max)),
          SelectLess(max, least, Zero(), Mul(max, Broadcast(1 / kMaxQuantized)))};
}

template <int kGroup>
TENON_INLINE void QuantizeUnit(const V (&x)[4], const Scales& scales, float zero, QuantizedUnit& unit) {
  V quantized[4];
  TENON_UNROLL
  for (int i = 0; i < 4; i++) {
    quantized[i] = Quantize(x[i], i < 2 ? SpreadLow(scales.inverse) : SpreadHigh(scales.inverse));
  }
  StoreDigits(unit, quantized);
  alignas(64) float lanes[16];
  Store(lanes, scales.scale);
  for (int half = 0; half < 2; half++) unit.scale[half] = lanes[8 * half];
  // Σ xq is exact in f32, in any order.
  const auto store_sums = [&](int group, V pair, V scale) {
    Store(lanes, pair);
    for (int i = 0; i < 2; i++) unit.start[group + i] = static_cast<int32_t>(-zero * lanes[8 * i]);
    Store(lanes, Mul(pair, scale));
    for (int i = 0; i < 2; i++) unit.sum[group + i] = lanes[8 * i];
  };
  if constexpr (kGroup == 16) {
    store_sums(0, PairSum(quantized[0], quantized[1]), SpreadLow(scales.scale));
    store_sums(2, PairSum(quantized[2], quantized[3]), SpreadHigh(scales.scale));
  } else {
    store_sums(0, PairSum(Add(quantized[0], quantized[1]), Add(quantized[2], quantized[3])), scales.scale);
  }
}

// Elements [begin, begin + 64), zeros beyond the end.
template <Dtype D>
TENON_INLINE void LoadUnit(const Element<D>* x, int64_t begin, int64_t k, V (&part)[4]) {
  TENON_UNROLL
  for (int i = 0; i < 4; i++) {
    const int64_t at = begin + 16 * i;
    part[i] = at < k ? LoadElementsN<D>(x + at, Min(16, k - at)) : Zero();
  }
}

// Four units at a time: their maxima, whose latency is long, are found beside each other.
template <Dtype D, int kGroup>
void QuantizeRow(const Element<D>* x, int64_t k, float zero, QuantizedUnit* units) {
  constexpr int kUnits = 4;
  V poison = Zero();  // 0 · x: NaN where x is not finite
  for (int64_t begin = 0; begin < k; begin += kUnits * kUnitK) {
    const int64_t count = Min(kUnits, CeilDiv(k - begin, kUnitK));
    Scales scales[kUnits];
    for (int64_t u = 0; u < count; u++) {
      V part[4];
      LoadUnit<D>(x, begin + u * kUnitK, k, part);
      scales[u] = ScalesOf(part);
      TENON_UNROLL
      for (int i = 0; i < 4; i++) poison = Fma(part[i], Zero(), poison);
    }
    for (int64_t u = 0; u < count; u++) {
      V part[4];
      LoadUnit<D>(x, begin + u * kUnitK, k, part);
      QuantizeUnit<kGroup>(part, scales[u], zero, units[begin / kUnitK + u]);
    }
  }
  const float any = ReduceAdd(poison);
  if (any != any) units[0].scale[0] = any;
}

template <Dtype D>
void QuantizeRowsAs(const QuantizeRowsParams& p) {
  for (int64_t row = p.row_begin; row < p.row_end; row++) {
    const auto* x = static_cast<const Element<D>*>(p.x) + row * p.ldx;
    auto* units = reinterpret_cast<QuantizedUnit*>(static_cast<char*>(p.y) + row * QuantizedRowBytes(p.k));
    const auto zero = static_cast<float>(p.grouping.Zero());
    if (p.grouping.group == 16) {
      QuantizeRow<D, 16>(x, p.k, zero, units);
    } else {
      QuantizeRow<D, 32>(x, p.k, zero, units);
    }
  }
}

inline void QuantizeRows(const QuantizeRowsParams& p) {
  WithDtype(p.x_dtype, [&](auto dtype) { QuantizeRowsAs<dtype.kDtype>(p); });
}

}  // namespace tenon_cpu::TENON_ISA
