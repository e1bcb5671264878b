// Sixteen f32 lanes as two AVX2 registers. Meanings: simd_generic.h.
#pragma once

#include <immintrin.h>

#include "convert.h"

namespace tenon_cpu::TENON_ISA {

// 16 registers: 6 rows x 1 block = 12 accumulators, 2 of weights, 1 of x.
inline constexpr int kMaxTileRows = 6;
constexpr int TileBlocks(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
inline constexpr int kCachedTileRows = kMaxTileRows;
inline constexpr int kCachedTileBlocks = 1;
inline constexpr int kGroupedRows = 4;

struct V {
  __m256 low;
  __m256 high;
};

TENON_INLINE V Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
TENON_INLINE void Store(float* p, V v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}
TENON_INLINE V Broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
TENON_INLINE V Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }

TENON_INLINE __m256i LoadHalf(const uint16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
TENON_INLINE __m256 LoadBf16x8(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
TENON_INLINE V LoadBf16(const uint16_t* p) { return {LoadBf16x8(p), LoadBf16x8(p + 8)}; }
TENON_INLINE V LoadF16(const uint16_t* p) {
  const auto* half = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(half)), _mm256_cvtph_ps(_mm_loadu_si128(half + 1))};
}
TENON_INLINE __m256 Bf16Part(__m256i pairs, int part) {
  const __m256i odd = _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000)));
  return _mm256_castsi256_ps(part == 0 ? _mm256_slli_epi32(pairs, 16) : odd);
}
TENON_INLINE V LoadBf16Part(const uint16_t* p, int part) {
  return {Bf16Part(LoadHalf(p), part), Bf16Part(LoadHalf(p + 16), part)};
}

// bf16 bits of 8 lanes, each in the low half of 32 bits.
TENON_INLINE __m256i RoundToBf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), even), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, quiet, nan);
}
TENON_INLINE void StoreBf16(uint16_t* p, V v) {
  const __m256i packed = _mm256_packus_epi32(RoundToBf16(v.low), RoundToBf16(v.high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
TENON_INLINE void StoreF16(uint16_t* p, V v) {
  auto* half = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(half, _mm256_cvtps_ph(v.low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(half + 1, _mm256_cvtps_ph(v.high, _MM_FROUND_TO_NEAREST_INT));
}

TENON_INLINE V Add(V a, V b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
TENON_INLINE V Sub(V a, V b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
TENON_INLINE V Mul(V a, V b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
TENON_INLINE V Div(V a, V b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
TENON_INLINE V Fma(V a, V b, V c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
TENON_INLINE V Max(V a, V b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
TENON_INLINE V Min(V a, V b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
TENON_INLINE V Abs(V a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
TENON_INLINE V Round(V a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, kNearest), _mm256_round_ps(a.high, kNearest)};
}
TENON_INLINE __m256 PowerOfTwo(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
TENON_INLINE __m256 Ldexp8(__m256 a, __m256 n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return _mm256_mul_ps(_mm256_mul_ps(a, PowerOfTwo(half)), PowerOfTwo(_mm256_sub_epi32(whole, half)));
}
TENON_INLINE V Ldexp(V a, V n) { return {Ldexp8(a.low, n.low), Ldexp8(a.high, n.high)}; }
TENON_INLINE V Floor(V a) { return {_mm256_floor_ps(a.low), _mm256_floor_ps(a.high)}; }
TENON_INLINE V ClampExponent(V x) { return Min(Broadcast(160.0f), Max(Broadcast(-160.0f), x)); }
TENON_INLINE V FractionOf(V x) { return Sub(x, Floor(x)); }
TENON_INLINE V ScaleByFloor(V a, V x) { return Ldexp(a, Floor(x)); }
TENON_INLINE bool AnyGreater(V a, V b) {
  const __m256 low = _mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ), high = _mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ);
  return _mm256_movemask_ps(_mm256_or_ps(low, high)) != 0;
}
TENON_INLINE V SelectLess(V a, V b, V x, V y) {
  return {_mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}
TENON_INLINE V SelectRange(V a, int64_t begin, int64_t end, float other) {
  alignas(32) static constexpr int32_t kLane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const __m256i first = _mm256_set1_epi32(static_cast<int32_t>(begin < 0 ? 0 : begin > 16 ? 16 : begin) - 1);
  const __m256i last = _mm256_set1_epi32(static_cast<int32_t>(end < 0 ? 0 : end > 16 ? 16 : end));
  const auto select = [&](__m256 half, const int32_t* lane) {
    const __m256i index = _mm256_load_si256(reinterpret_cast<const __m256i*>(lane));
    const __m256i inside = _mm256_and_si256(_mm256_cmpgt_epi32(index, first), _mm256_cmpgt_epi32(last, index));
    return _mm256_blendv_ps(_mm256_set1_ps(other), half, _mm256_castsi256_ps(inside));
  };
  return {select(a.low, kLane), select(a.high, kLane + 8)};
}
TENON_INLINE float ReduceAdd(V a) {
  const __m256 eight = _mm256_add_ps(a.low, a.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
TENON_INLINE float ReduceMax(V a) {
  const __m256 eight = _mm256_max_ps(a.low, a.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

TENON_INLINE V FusedFma(V a, V b, V c) { return Fma(a, b, c); }
// Folds eight lanes into one result in all of them.
template <class Fn>
TENON_INLINE __m256 FoldEight(__m256 a, const Fn& fn) {
  a = fn(a, _mm256_permute2f128_ps(a, a, 1));
  a = fn(a, _mm256_shuffle_ps(a, a, 0x4e));
  return fn(a, _mm256_shuffle_ps(a, a, 0xb1));
}
TENON_INLINE V PairMax(V a, V b) {
  const auto max = [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); };
  return {FoldEight(max(a.low, a.high), max), FoldEight(max(b.low, b.high), max)};
}
TENON_INLINE V PairSum(V a, V b) {
  const auto add = [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); };
  return {FoldEight(add(a.low, a.high), add), FoldEight(add(b.low, b.high), add)};
}
TENON_INLINE V SpreadLow(V a) {
  const __m256 lane = _mm256_broadcastss_ps(_mm256_castps256_ps128(a.low));
  return {lane, lane};
}
TENON_INLINE V SpreadHigh(V a) {
  const __m256 lane = _mm256_broadcastss_ps(_mm256_castps256_ps128(a.high));
  return {lane, lane};
}

// Sixteen 32-bit whole numbers.
struct Ints {
  __m256i low;
  __m256i high;
};

TENON_INLINE Ints LoadInts(const char* p) {
  const auto* half = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(half), _mm256_loadu_si256(half + 1)};
}
TENON_INLINE Ints BroadcastInts(const void* p) {
  int32_t x;
  memcpy(&x, p, 4);
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
TENON_INLINE V FloatOfInts(Ints a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
template <int kMask>
TENON_INLINE Ints ShiftWords(Ints a, int bits) {
  const __m256i mask = _mm256_set1_epi16(kMask);
  return {_mm256_and_si256(_mm256_srli_epi16(a.low, bits), mask), _mm256_and_si256(_mm256_srli_epi16(a.high, bits), mask)};
}
TENON_INLINE Ints DotWords(Ints acc, Ints a, Ints b) {
  return {_mm256_add_epi32(acc.low, _mm256_madd_epi16(a.low, b.low)),
          _mm256_add_epi32(acc.high, _mm256_madd_epi16(a.high, b.high))};
}
TENON_INLINE void StoreSwappedWords(void* p, V v) {
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v.low), _mm256_cvtps_epi32(v.high));
  const __m256i words = _mm256_permute4x64_epi64(packed, 0xd8);
  const __m256i order = _mm256_setr_epi64x(0x0706030205040100, 0x0f0e0b0a0d0c0908, 0x0706030205040100, 0x0f0e0b0a0d0c0908);
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm256_shuffle_epi8(words, order));
}

TENON_INLINE V LoadN(const float* p, int64_t n) {
  float lane[16] = {};
  for (int64_t i = 0; i < n; i++) lane[i] = p[i];
  return Load(lane);
}
TENON_INLINE void StoreN(float* p, V v, int64_t n) {
  float lane[16];
  Store(lane, v);
  for (int64_t i = 0; i < n; i++) p[i] = lane[i];
}

}  // namespace tenon_cpu::TENON_ISA
