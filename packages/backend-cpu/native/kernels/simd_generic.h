// Sixteen f32 lanes in plain C++. The other simd_*.h give the same names with the same meaning.
#pragma once

#include "convert.h"

namespace tenon_cpu::TENON_ISA {

// Micro-tile of the dot kernels: rows, and column blocks for a number of rows.
inline constexpr int kMaxTileRows = 4;
constexpr int TileBlocks(int /*rows*/) { return 1; }
inline constexpr int kAttentionTileRows = kMaxTileRows;
inline constexpr int kAttentionTileBlocks = 1;

struct V {
  float lane[16];
};

#define TENON_LANES for (int i = 0; i < 16; i++)

TENON_INLINE V Load(const float* p) {
  V v;
  memcpy(v.lane, p, sizeof(v.lane));
  return v;
}
TENON_INLINE void Store(float* p, const V& v) { memcpy(p, v.lane, sizeof(v.lane)); }
TENON_INLINE V Broadcast(float x) {
  V v;
  TENON_LANES v.lane[i] = x;
  return v;
}
TENON_INLINE V Zero() { return Broadcast(0); }

TENON_INLINE V LoadBf16(const uint16_t* p) {
  V v;
  TENON_LANES v.lane[i] = F32FromBf16(p[i]);
  return v;
}
TENON_INLINE V LoadF16(const uint16_t* p) {
  V v;
  TENON_LANES v.lane[i] = F32FromF16(p[i]);
  return v;
}
TENON_INLINE void StoreBf16(uint16_t* p, const V& v) { TENON_LANES p[i] = Bf16FromF32(v.lane[i]); }
TENON_INLINE void StoreF16(uint16_t* p, const V& v) { TENON_LANES p[i] = F16FromF32(v.lane[i]); }

// Element `part` of each of 16 pairs of bf16.
TENON_INLINE V LoadBf16Part(const uint16_t* p, int part) {
  V v;
  TENON_LANES v.lane[i] = F32FromBf16(p[2 * i + part]);
  return v;
}

TENON_INLINE V Add(const V& a, const V& b) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] + b.lane[i];
  return v;
}
TENON_INLINE V Sub(const V& a, const V& b) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] - b.lane[i];
  return v;
}
TENON_INLINE V Mul(const V& a, const V& b) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] * b.lane[i];
  return v;
}
TENON_INLINE V Div(const V& a, const V& b) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] / b.lane[i];
  return v;
}
// a * b + c; fused where the instruction set can.
TENON_INLINE V Fma(const V& a, const V& b, const V& c) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] * b.lane[i] + c.lane[i];
  return v;
}
// a > b ? a : b (b where one is NaN), and likewise the minimum.
TENON_INLINE V Max(const V& a, const V& b) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
  return v;
}
TENON_INLINE V Min(const V& a, const V& b) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
  return v;
}
TENON_INLINE V Abs(const V& a) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] < 0 ? -a.lane[i] : a.lane[i];
  return v;
}
// Nearest integer, ties to even, for |a| < 2^22.
TENON_INLINE V Round(const V& a) {
  V v;
  TENON_LANES v.lane[i] = (a.lane[i] + 12582912.0f) - 12582912.0f;
  return v;
}
// a * 2^n for an integer n in [-180, 180]; in two steps, so that results under- and overflow as they should.
TENON_INLINE V Ldexp(const V& a, const V& n) {
  V v;
  TENON_LANES {
    const int32_t whole = static_cast<int32_t>(n.lane[i]);
    const int32_t half = whole >> 1;
    v.lane[i] = a.lane[i] * FloatOf(static_cast<uint32_t>(half + 127) << 23) *
                FloatOf(static_cast<uint32_t>(whole - half + 127) << 23);
  }
  return v;
}
TENON_INLINE V Floor(const V& a) {
  const V rounded = Round(a);
  V v;
  TENON_LANES v.lane[i] = rounded.lane[i] > a.lane[i] ? rounded.lane[i] - 1.0f : rounded.lane[i];
  return v;
}
// For 2^x: x within what the two below can take, x - floor(x) (0 at infinity), and a * 2^floor(x).
TENON_INLINE V ClampExponent(const V& x) { return Min(Broadcast(160.0f), Max(Broadcast(-160.0f), x)); }
TENON_INLINE V FractionOf(const V& x) { return Sub(x, Floor(x)); }
TENON_INLINE V ScaleByFloor(const V& a, const V& x) { return Ldexp(a, Floor(x)); }
// a < b ? x : y.
TENON_INLINE V SelectLess(const V& a, const V& b, const V& x, const V& y) {
  V v;
  TENON_LANES v.lane[i] = a.lane[i] < b.lane[i] ? x.lane[i] : y.lane[i];
  return v;
}
// Lanes [begin, end) of a, `other` elsewhere.
TENON_INLINE V SelectRange(const V& a, int64_t begin, int64_t end, float other) {
  V v;
  TENON_LANES v.lane[i] = i >= begin && i < end ? a.lane[i] : other;
  return v;
}
// Sum by halves: lanes i and i + 8, then i + 4, i + 2, i + 1. The same tree on every instruction set.
TENON_INLINE float ReduceAdd(const V& a) {
  V v = a;
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; i++) v.lane[i] += v.lane[i + width];
  }
  return v.lane[0];
}
TENON_INLINE float ReduceMax(const V& a) {
  float max = a.lane[0];
  TENON_LANES max = max > a.lane[i] ? max : a.lane[i];
  return max;
}

#undef TENON_LANES

// The first n lanes (n ≤ 16); the others read as zero and are not written.
TENON_INLINE V LoadN(const float* p, int64_t n) {
  float lane[16] = {};
  for (int64_t i = 0; i < n; i++) lane[i] = p[i];
  return Load(lane);
}
TENON_INLINE void StoreN(float* p, const V& v, int64_t n) {
  for (int64_t i = 0; i < n; i++) p[i] = v.lane[i];
}

}  // namespace tenon_cpu::TENON_ISA
