// What the kernels of grouped weights share: the form of quantized rows of x, and the way from a grouping to a constant.
//
// Arithmetic, the same bits on every instruction set, for any tile and any batch. Rows of x become 16-bit whole numbers
// with a scale s for every 32 elements: xq = round(x / s), |xq| ≤ kMaxQuantized, finer than bf16's rounding. For each group
// g of a weight's row, K ascending:
//   y = fma(scale[g]·s, float(Σ u·xq - zero·Σ xq), y)      the sums exact in 32-bit integers
//   y = fma(min[g], s·float(Σ xq), y)                      where there are minimums
#pragma once

#include "elements.h"

namespace tenon_cpu::TENON_ISA {

// 127·256 + 127: the largest number whose two signed bytes (VNNI takes them apart) both fit.
inline constexpr float kMaxQuantized = 32639;
inline constexpr int kScaleK = 32;  // elements of x with one scale

// 64 elements of a row of x.
struct alignas(64) QuantizedUnit {
  // With VNNI: [64] high bytes, then [64] low bytes, xq = 256 high + low. Else: xq as 16-bit words, the second and third of
  // every four swapped (the order in which masks and shifts take bytes of weights to words).
  int8_t digits[2 * kUnitK];
  float scale[kUnitK / kScaleK];
  int32_t start[4];  // of each group of the weight: -zero·Σ xq
  float sum[4];      // likewise: s·float(Σ xq)
};
static_assert(sizeof(QuantizedUnit) == 192 && QuantizedRowBytes(kUnitK) == 192);

// Calls fn<grouping>() with a constant.
template <class Fn>
TENON_INLINE void WithGrouping(const Grouping& grouping, const Fn& fn) {
  const auto with_min = [&]<int kBits, int kGroup>() {
    if (grouping.has_min) {
      fn.template operator()<Grouping{kBits, kGroup, true}>();
    } else {
      fn.template operator()<Grouping{kBits, kGroup, false}>();
    }
  };
  if (grouping.bits == 8) {
    grouping.group == 16 ? with_min.template operator()<8, 16>() : with_min.template operator()<8, 32>();
  } else {
    grouping.group == 16 ? with_min.template operator()<4, 16>() : with_min.template operator()<4, 32>();
  }
}

// Bytes of a packed unit before its scales, minimums and whole numbers.
struct GroupedUnitLayout {
  int64_t mins, quants;
};
constexpr GroupedUnitLayout LayoutOf(const Grouping& g) {
  const int64_t scale_bytes = kUnitK / g.group * kLanes * 2;
  return {scale_bytes, g.has_min ? 2 * scale_bytes : scale_bytes};
}

}  // namespace tenon_cpu::TENON_ISA
