// Scalar conversions between f32 and the 16-bit floats: round to nearest even, subnormals kept, NaN stays NaN. Every
// instruction set rounds exactly so (the bf16 instructions of AVX-512 flush subnormals and are not used for storing).
#pragma once

#include "isa.h"

namespace tenon_cpu::TENON_ISA {

TENON_INLINE uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

TENON_INLINE float FloatOf(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

TENON_INLINE float F32FromBf16(uint16_t h) { return FloatOf(uint32_t{h} << 16); }

TENON_INLINE uint16_t Bf16FromF32(float x) {
  const uint32_t bits = BitsOf(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

TENON_INLINE float F32FromF16(uint16_t h) {
  const uint32_t sign = uint32_t{h} << 16 & 0x80000000u;
  const uint32_t exponent = h >> 10 & 0x1f;
  const uint32_t mantissa = h & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact
    const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
    return FloatOf(BitsOf(magnitude) | sign);
  }
  if (exponent == 31) return FloatOf(sign | 0x7f800000u | mantissa << 13 | (mantissa != 0 ? 0x400000u : 0));
  return FloatOf(sign | (exponent + 112) << 23 | mantissa << 13);
}

TENON_INLINE uint16_t F16FromF32(float x) {
  const uint32_t bits = BitsOf(x);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
    const uint32_t rounded = BitsOf(FloatOf(magnitude) + 0.5f);
    return static_cast<uint16_t>(sign | (rounded - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((magnitude + 0xfffu + (magnitude >> 13 & 1)) - (112u << 23)) >> 13);
}

// One element of a dtype, as f32.
template <Dtype D>
TENON_INLINE float LoadScalar(const void* p, int64_t i) {
  const auto value = static_cast<const Element<D>*>(p)[i];
  if constexpr (D == Dtype::kBf16) return F32FromBf16(value);
  if constexpr (D == Dtype::kF16) return F32FromF16(value);
  return value;
}

template <Dtype D>
TENON_INLINE Element<D> ConvertScalar(float x) {
  if constexpr (D == Dtype::kBf16) return Bf16FromF32(x);
  if constexpr (D == Dtype::kF16) return F16FromF32(x);
  return x;
}

}  // namespace tenon_cpu::TENON_ISA
