// Sixteen f32 lanes in one AVX-512 register. Meanings: simd_generic.h.
#pragma once

#include <immintrin.h>

#include "convert.h"

namespace tenon_cpu::TENON_ISA {

// 32 registers: 24 accumulators; the rest for weights and x. Tiles that wait for memory are tall, as it is fastest as one
// stream; with all in caches 6 rows x 4 blocks need the fewest loads (Zen 4: 98 % of peak, against 94 % for 12 x 2).
inline constexpr int kMaxTileRows = 12;
constexpr int TileBlocks(int rows) { return rows <= 6 ? 1 : 2; }
inline constexpr int kCachedTileRows = 6;
inline constexpr int kCachedTileBlocks = 4;
inline constexpr int kGroupedRows = 8;  // x one block, with a group's weights in registers

using V = __m512;

TENON_INLINE V Load(const float* p) { return _mm512_loadu_ps(p); }
TENON_INLINE void Store(float* p, V v) { _mm512_storeu_ps(p, v); }
TENON_INLINE V Broadcast(float x) { return _mm512_set1_ps(x); }
TENON_INLINE V Zero() { return _mm512_setzero_ps(); }

TENON_INLINE __m256i LoadHalf(const uint16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
TENON_INLINE V LoadBf16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(LoadHalf(p)), 16));
}
TENON_INLINE V LoadF16(const uint16_t* p) { return _mm512_cvtph_ps(LoadHalf(p)); }
TENON_INLINE V LoadBf16Part(const uint16_t* p, int part) {
  const __m512i pairs = _mm512_loadu_si512(p);
  const __m512i odd = _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
  return _mm512_castsi512_ps(part == 0 ? _mm512_slli_epi32(pairs, 16) : odd);
}

// bf16 bits of 16 lanes.
TENON_INLINE __m256i RoundToBf16(V x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i high = _mm512_srli_epi32(bits, 16);
  const __m512i even = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)));
}
TENON_INLINE void StoreBf16(uint16_t* p, V v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), RoundToBf16(v));
}
TENON_INLINE void StoreF16(uint16_t* p, V v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

TENON_INLINE V Add(V a, V b) { return _mm512_add_ps(a, b); }
TENON_INLINE V Sub(V a, V b) { return _mm512_sub_ps(a, b); }
TENON_INLINE V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
TENON_INLINE V Div(V a, V b) { return _mm512_div_ps(a, b); }
TENON_INLINE V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
TENON_INLINE V Max(V a, V b) { return _mm512_max_ps(a, b); }
TENON_INLINE V Min(V a, V b) { return _mm512_min_ps(a, b); }
TENON_INLINE V Abs(V a) { return _mm512_abs_ps(a); }
TENON_INLINE V Round(V a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
TENON_INLINE V Ldexp(V a, V n) { return _mm512_scalef_ps(a, n); }
TENON_INLINE V ClampExponent(V x) { return x; }
TENON_INLINE V FractionOf(V x) { return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
TENON_INLINE V ScaleByFloor(V a, V x) { return _mm512_scalef_ps(a, x); }
TENON_INLINE bool AnyGreater(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
TENON_INLINE V SelectLess(V a, V b, V x, V y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
// Mask of the lanes below n.
TENON_INLINE __mmask16 LanesBelow(int64_t n) {
  return static_cast<__mmask16>(n <= 0 ? 0 : n >= 16 ? 0xffff : (1u << n) - 1);
}
TENON_INLINE V SelectRange(V a, int64_t begin, int64_t end, float other) {
  const __mmask16 inside = static_cast<__mmask16>(LanesBelow(end) & ~LanesBelow(begin));
  return _mm512_mask_blend_ps(inside, _mm512_set1_ps(other), a);
}
TENON_INLINE float ReduceAdd(V a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
TENON_INLINE float ReduceMax(V a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

TENON_INLINE V FusedFma(V a, V b, V c) { return Fma(a, b, c); }
// Folds all of a into lanes 0-7, all of b into lanes 8-15.
template <class Fn>
TENON_INLINE V FoldPair(V a, V b, const Fn& fn) {
  V v = fn(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  v = fn(v, _mm512_shuffle_f32x4(v, v, 0xb1));
  v = fn(v, _mm512_shuffle_ps(v, v, 0x4e));
  return fn(v, _mm512_shuffle_ps(v, v, 0xb1));
}
TENON_INLINE V PairMax(V a, V b) {
  return FoldPair(a, b, [](V x, V y) { return _mm512_max_ps(x, y); });
}
TENON_INLINE V PairSum(V a, V b) {
  return FoldPair(a, b, [](V x, V y) { return _mm512_add_ps(x, y); });
}
TENON_INLINE V SpreadLow(V a) { return _mm512_broadcastss_ps(_mm512_castps512_ps128(a)); }
TENON_INLINE V SpreadHigh(V a) { return _mm512_broadcastss_ps(_mm512_extractf32x4_ps(a, 2)); }

// Sixteen 32-bit whole numbers.
using Ints = __m512i;

TENON_INLINE Ints LoadInts(const void* p) { return _mm512_loadu_si512(p); }
TENON_INLINE Ints BroadcastInts(const void* p) {
  int32_t x;
  memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}
TENON_INLINE V FloatOfInts(Ints a) { return _mm512_cvtepi32_ps(a); }
template <int kMask>
TENON_INLINE Ints ShiftWords(Ints a, int bits) {
  return _mm512_and_si512(_mm512_srli_epi16(a, static_cast<unsigned>(bits)), _mm512_set1_epi16(kMask));
}
TENON_INLINE Ints DotWords(Ints acc, Ints a, Ints b) { return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b)); }
TENON_INLINE void StoreSwappedWords(void* p, V v) {
  const __m256i words = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v));
  const __m256i order = _mm256_set1_epi64x(0x0706030205040100);
  const __m256i upper = _mm256_add_epi8(order, _mm256_set1_epi64x(0x0808080808080808));
  const __m256i swapped = _mm256_shuffle_epi8(words, _mm256_unpacklo_epi64(order, upper));
  _mm256_storeu_si256(static_cast<__m256i*>(p), swapped);
}

TENON_INLINE V LoadN(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(LanesBelow(n), p); }
TENON_INLINE void StoreN(float* p, V v, int64_t n) { _mm512_mask_storeu_ps(p, LanesBelow(n), v); }

}  // namespace tenon_cpu::TENON_ISA
