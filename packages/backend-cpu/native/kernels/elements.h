// Sixteen elements of any dtype to and from f32 lanes, whole or the first n.
#pragma once

#include "convert.h"

namespace tenon_cpu::TENON_ISA {

template <Dtype D>
TENON_INLINE V LoadElements(const Element<D>* p) {
  if constexpr (D == Dtype::kF32) return Load(p);
  if constexpr (D == Dtype::kBf16) return LoadBf16(p);
  if constexpr (D == Dtype::kF16) return LoadF16(p);
}

template <Dtype D>
TENON_INLINE void StoreElements(Element<D>* p, V v) {
  if constexpr (D == Dtype::kF32) Store(p, v);
  if constexpr (D == Dtype::kBf16) StoreBf16(p, v);
  if constexpr (D == Dtype::kF16) StoreF16(p, v);
}

// n ≤ 16 elements; the other lanes are zero.
template <Dtype D>
TENON_INLINE V LoadElementsN(const Element<D>* p, int64_t n) {
  if (n >= 16) return LoadElements<D>(p);
  if constexpr (D == Dtype::kF32) {
    return LoadN(p, n);
  } else {
    Element<D> lanes[16] = {};
    for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
    return LoadElements<D>(lanes);
  }
}

template <Dtype D>
TENON_INLINE void StoreElementsN(Element<D>* p, V v, int64_t n) {
  if (n >= 16) return StoreElements<D>(p, v);
  if constexpr (D == Dtype::kF32) {
    StoreN(p, v, n);
  } else {
    Element<D> lanes[16];
    StoreElements<D>(lanes, v);
    for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
  }
}

// Elements [i, i + n) of an array whose dtype is known at run time: one predictable branch per 16 elements.
inline V LoadAny(Dtype dtype, const void* p, int64_t i, int64_t n) {
  if (dtype == Dtype::kF32) return LoadElementsN<Dtype::kF32>(static_cast<const float*>(p) + i, n);
  const auto* half = static_cast<const uint16_t*>(p) + i;
  return dtype == Dtype::kBf16 ? LoadElementsN<Dtype::kBf16>(half, n) : LoadElementsN<Dtype::kF16>(half, n);
}

inline void StoreAny(Dtype dtype, void* p, int64_t i, V v, int64_t n) {
  if (dtype == Dtype::kF32) return StoreElementsN<Dtype::kF32>(static_cast<float*>(p) + i, v, n);
  auto* half = static_cast<uint16_t*>(p) + i;
  if (dtype == Dtype::kBf16) return StoreElementsN<Dtype::kBf16>(half, v, n);
  StoreElementsN<Dtype::kF16>(half, v, n);
}

}  // namespace tenon_cpu::TENON_ISA
