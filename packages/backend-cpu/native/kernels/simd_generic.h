// Sixteen f32 lanes as four vectors of four, in the vector extensions of GCC and Clang: whatever the machine has (SSE2,
// NEON, VSX, scalars). The other simd_*.h give the same names with the same meaning.
#pragma once

#include "convert.h"

namespace tenon_cpu::TENON_ISA {

// Micro-tiles of the dot kernels, rows x column blocks: of weights that come from memory, at most kMaxTileRows x
// TileBlocks(rows); with all operands in caches, kCachedTileRows x kCachedTileBlocks. 3 rows = 12 accumulators of 4 lanes.
inline constexpr int kMaxTileRows = 3;
constexpr int TileBlocks(int /*rows*/) { return 1; }
inline constexpr int kCachedTileRows = kMaxTileRows;
inline constexpr int kCachedTileBlocks = 1;
inline constexpr int kGroupedRows = 2;  // of a tile with a grouped weight

typedef float Four __attribute__((vector_size(16)));
typedef uint32_t FourBits __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));
typedef uint16_t FourHalves __attribute__((vector_size(8)));

struct V {
  Four part[4];
};

// Applies an expression of Fours to each part: i is the part.
#define TENON_EACH_PART(expression)                          \
  V v;                                                       \
  TENON_UNROLL for (int i = 0; i < 4; i++) v.part[i] = (expression); \
  return v

template <class To, class From>
TENON_INLINE To Bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}
template <class T>
TENON_INLINE T LoadFrom(const void* p) {
  T value;
  memcpy(&value, p, sizeof(value));
  return value;
}
TENON_INLINE Four Splat(float x) { return Four{x, x, x, x}; }

TENON_INLINE V Load(const float* p) { TENON_EACH_PART(LoadFrom<Four>(p + 4 * i)); }
TENON_INLINE void Store(float* p, const V& v) { memcpy(p, v.part, sizeof(v.part)); }
TENON_INLINE V Broadcast(float x) { TENON_EACH_PART(Splat(x)); }
TENON_INLINE V Zero() { return Broadcast(0); }

TENON_INLINE V LoadBf16(const uint16_t* p) {
  TENON_EACH_PART(Bits<Four>(__builtin_convertvector(LoadFrom<FourHalves>(p + 4 * i), FourBits) << 16));
}
TENON_INLINE V LoadF16(const uint16_t* p) {
  TENON_EACH_PART((Four{F32FromF16(p[4 * i]), F32FromF16(p[4 * i + 1]), F32FromF16(p[4 * i + 2]),
                        F32FromF16(p[4 * i + 3])}));
}
TENON_INLINE void StoreBf16(uint16_t* p, const V& v) {
  for (int i = 0; i < 16; i++) p[i] = Bf16FromF32(v.part[i / 4][i % 4]);
}
TENON_INLINE void StoreF16(uint16_t* p, const V& v) {
  for (int i = 0; i < 16; i++) p[i] = F16FromF32(v.part[i / 4][i % 4]);
}

// Element `part` of each of 16 pairs of bf16.
TENON_INLINE V LoadBf16Part(const uint16_t* p, int part) {
  constexpr bool kLittleEndian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
  if ((part == 0) == kLittleEndian) {
    TENON_EACH_PART(Bits<Four>(LoadFrom<FourBits>(p + 8 * i) << 16));
  }
  TENON_EACH_PART(Bits<Four>(LoadFrom<FourBits>(p + 8 * i) & 0xffff0000u));
}

TENON_INLINE V Add(const V& a, const V& b) { TENON_EACH_PART(a.part[i] + b.part[i]); }
TENON_INLINE V Sub(const V& a, const V& b) { TENON_EACH_PART(a.part[i] - b.part[i]); }
TENON_INLINE V Mul(const V& a, const V& b) { TENON_EACH_PART(a.part[i] * b.part[i]); }
TENON_INLINE V Div(const V& a, const V& b) { TENON_EACH_PART(a.part[i] / b.part[i]); }
// a * b + c; fused where the instruction set can.
TENON_INLINE V Fma(const V& a, const V& b, const V& c) { TENON_EACH_PART(a.part[i] * b.part[i] + c.part[i]); }
// a > b ? a : b (b where one is NaN), and likewise the minimum.
TENON_INLINE V Max(const V& a, const V& b) { TENON_EACH_PART(a.part[i] > b.part[i] ? a.part[i] : b.part[i]); }
TENON_INLINE V Min(const V& a, const V& b) { TENON_EACH_PART(a.part[i] < b.part[i] ? a.part[i] : b.part[i]); }
TENON_INLINE V Abs(const V& a) { TENON_EACH_PART(Bits<Four>(Bits<FourBits>(a.part[i]) & 0x7fffffffu)); }
// Nearest integer, ties to even, for |a| < 2^22.
TENON_INLINE V Round(const V& a) { TENON_EACH_PART((a.part[i] + Splat(12582912.0f)) - Splat(12582912.0f)); }

TENON_INLINE Four PowerOfTwo(FourInts n) { return Bits<Four>((n + 127) << 23); }
TENON_INLINE Four ScaleByPower(Four a, FourInts n) { return a * PowerOfTwo(n >> 1) * PowerOfTwo(n - (n >> 1)); }
// a * 2^n for an integer n in [-180, 180]; in two steps, so that results under- and overflow as they should.
TENON_INLINE V Ldexp(const V& a, const V& n) {
  TENON_EACH_PART(ScaleByPower(a.part[i], __builtin_convertvector(n.part[i], FourInts)));
}
TENON_INLINE V Floor(const V& a) {
  const V rounded = Round(a);
  TENON_EACH_PART(rounded.part[i] > a.part[i] ? rounded.part[i] - Splat(1) : rounded.part[i]);
}
// For 2^x: x within what the two below can take, x - floor(x) (0 at infinity), and a * 2^floor(x).
TENON_INLINE V ClampExponent(const V& x) { return Min(Broadcast(160.0f), Max(Broadcast(-160.0f), x)); }
TENON_INLINE V FractionOf(const V& x) { return Sub(x, Floor(x)); }
TENON_INLINE V ScaleByFloor(const V& a, const V& x) { return Ldexp(a, Floor(x)); }
// Whether a > b in some lane.
TENON_INLINE bool AnyGreater(const V& a, const V& b) {
  bool any = false;
  for (int i = 0; i < 16; i++) any |= a.part[i / 4][i % 4] > b.part[i / 4][i % 4];
  return any;
}
// a < b ? x : y.
TENON_INLINE V SelectLess(const V& a, const V& b, const V& x, const V& y) {
  TENON_EACH_PART(a.part[i] < b.part[i] ? x.part[i] : y.part[i]);
}
// Lanes [begin, end) of a, `other` elsewhere.
TENON_INLINE V SelectRange(const V& a, int64_t begin, int64_t end, float other) {
  V v;
  for (int i = 0; i < 16; i++) v.part[i / 4][i % 4] = i >= begin && i < end ? a.part[i / 4][i % 4] : other;
  return v;
}
// Sum by halves: lanes i and i + 8, then i + 4, i + 2, i + 1. The same tree on every instruction set.
TENON_INLINE float ReduceAdd(const V& a) {
  const Four four = (a.part[0] + a.part[2]) + (a.part[1] + a.part[3]);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
TENON_INLINE float ReduceMax(const V& a) {
  float max = a.part[0][0];
  for (int i = 1; i < 16; i++) max = max > a.part[i / 4][i % 4] ? max : a.part[i / 4][i % 4];
  return max;
}

// Sixteen 32-bit whole numbers, and as many pairs of 16-bit words.
struct Ints {
  FourInts part[4];
};
#define TENON_EACH_INTS(expression)                          \
  Ints v;                                                    \
  TENON_UNROLL for (int i = 0; i < 4; i++) v.part[i] = (expression); \
  return v

TENON_INLINE Ints LoadInts(const char* p) { TENON_EACH_INTS(LoadFrom<FourInts>(p + 16 * i)); }
// The number at p in all lanes.
TENON_INLINE Ints BroadcastInts(const void* p) {
  const auto x = LoadFrom<int32_t>(p);
  TENON_EACH_INTS((FourInts{x, x, x, x}));
}
TENON_INLINE V FloatOfInts(const Ints& a) { TENON_EACH_PART(__builtin_convertvector(a.part[i], Four)); }
// Every word shifted right, and masked.
template <int kMask>
TENON_INLINE Ints ShiftWords(const Ints& a, int bits) {
  TENON_EACH_INTS((a.part[i] >> bits) & (kMask << 16 | kMask));
}
// acc + a0 b0 + a1 b1, of the words of every lane; a is not negative.
TENON_INLINE FourInts LowWords(FourInts a) { return (a << 16) >> 16; }
TENON_INLINE Ints DotWords(const Ints& acc, const Ints& a, const Ints& b) {
  TENON_EACH_INTS(acc.part[i] + LowWords(a.part[i]) * LowWords(b.part[i]) + (a.part[i] >> 16) * (b.part[i] >> 16));
}
// Sixteen whole numbers as words, the second and third of every four swapped.
TENON_INLINE void StoreSwappedWords(void* p, const V& v) {
  int16_t words[16];
  for (int i = 0; i < 16; i++) {
    const int from = i % 4 == 1 ? i + 1 : i % 4 == 2 ? i - 1 : i;
    words[i] = static_cast<int16_t>(v.part[from / 4][from % 4]);
  }
  memcpy(p, words, sizeof(words));
}

// a * b + c, rounded once.
TENON_INLINE V FusedFma(const V& a, const V& b, const V& c) {
  V v;
  for (int i = 0; i < 16; i++) v.part[i / 4][i % 4] = fmaf(a.part[i / 4][i % 4], b.part[i / 4][i % 4], c.part[i / 4][i % 4]);
  return v;
}
// Lanes 0-7 of one, lanes 8-15 of the other.
TENON_INLINE V SpreadPair(float low, float high) { TENON_EACH_PART(i < 2 ? Splat(low) : Splat(high)); }
// The largest lane (the sum) of a in lanes 0-7, of b in lanes 8-15.
TENON_INLINE V PairMax(const V& a, const V& b) { return SpreadPair(ReduceMax(a), ReduceMax(b)); }
TENON_INLINE V PairSum(const V& a, const V& b) { return SpreadPair(ReduceAdd(a), ReduceAdd(b)); }
// Lane 0, and lane 8, in all lanes.
TENON_INLINE V SpreadLow(const V& a) { return Broadcast(a.part[0][0]); }
TENON_INLINE V SpreadHigh(const V& a) { return Broadcast(a.part[2][0]); }

#undef TENON_EACH_INTS
#undef TENON_EACH_PART

// The first n lanes (n ≤ 16); the others read as zero and are not written.
TENON_INLINE V LoadN(const float* p, int64_t n) {
  float lane[16] = {};
  for (int64_t i = 0; i < n; i++) lane[i] = p[i];
  return Load(lane);
}
TENON_INLINE void StoreN(float* p, const V& v, int64_t n) {
  float lane[16];
  Store(lane, v);
  for (int64_t i = 0; i < n; i++) p[i] = lane[i];
}

}  // namespace tenon_cpu::TENON_ISA
