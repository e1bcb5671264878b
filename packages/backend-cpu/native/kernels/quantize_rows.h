// Rows of x to 16-bit whole numbers with a scale for every 32 elements: s = max |x| / kMaxQuantized, xq = round(x / s).
// A row that holds a NaN or an infinity gets a scale of NaN, and so NaN for an answer.
#pragma once

#include "grouped.h"

namespace tenon_cpu::TENON_ISA {

// What is smaller counts as zero: 1 / s would overflow.
inline constexpr float kLeastMaximum = 1e-30f;

// Elements [16 part, +16) of a unit.
TENON_INLINE void StoreDigits(QuantizedUnit& unit, int part, V quantized) {
#ifdef TENON_VNNI
  const __m512i whole = _mm512_cvtps_epi32(quantized);
  const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(128)), 8);
  auto* out = reinterpret_cast<__m128i*>(unit.digits);
  _mm_store_si128(out + part, _mm512_cvtepi32_epi8(high));
  _mm_store_si128(out + 4 + part, _mm512_cvtepi32_epi8(whole));
#else
  StoreSwappedWords(unit.digits + 32 * part, quantized);
#endif
}

TENON_INLINE V Quantize(V x, V inverse) {
  const V limit = Broadcast(kMaxQuantized);
  return Round(Min(Max(Mul(x, inverse), Sub(Zero(), limit)), limit));
}

// Elements [32 half, +32) of a unit. Σ xq is exact in f32, in any order.
template <int kGroup>
TENON_INLINE void QuantizeHalf(V first, V second, float zero, QuantizedUnit& unit, int half) {
  const float max = ReduceMax(Max(Abs(first), Abs(second)));
  const bool counts = max >= kLeastMaximum;
  const float scale = counts ? max / kMaxQuantized : 0;
  const V inverse = Broadcast(counts ? kMaxQuantized / max : 0);
  const V low = Quantize(first, inverse), high = Quantize(second, inverse);
  StoreDigits(unit, 2 * half, low);
  StoreDigits(unit, 2 * half + 1, high);
  unit.scale[half] = scale;
  const auto store_sum = [&](int group, float sum) {
    unit.start[group] = static_cast<int32_t>(-zero * sum);
    unit.sum[group] = scale * sum;
  };
  if constexpr (kGroup == 16) {
    store_sum(2 * half, ReduceAdd(low));
    store_sum(2 * half + 1, ReduceAdd(high));
  } else {
    store_sum(half, ReduceAdd(Add(low, high)));
  }
}

template <Dtype D, int kGroup>
void QuantizeRow(const Element<D>* x, int64_t k, float zero, QuantizedUnit* units) {
  V poison = Zero();  // 0 · x: NaN where x is not finite
  for (int64_t begin = 0; begin < k; begin += kScaleK) {
    V part[2];
    TENON_UNROLL
    for (int i = 0; i < 2; i++) {
      part[i] = LoadElementsN<D>(x + begin + 16 * i, Max(0, Min(16, k - begin - 16 * i)));
      poison = Add(poison, Mul(part[i], Zero()));
    }
    QuantizeHalf<kGroup>(part[0], part[1], zero, units[begin / kUnitK], static_cast<int>(begin / kScaleK % 2));
  }
  if (RoundUp(k, kScaleK) % kUnitK != 0) QuantizeHalf<kGroup>(Zero(), Zero(), zero, units[k / kUnitK], 1);
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
