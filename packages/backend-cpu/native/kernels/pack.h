// Packs 16 rows of a row-major f32 matrix into one block [ceil(k / kr)][16][kr], rounding to nearest even.
#pragma once

#include "elements.h"

namespace tenon_cpu::TENON_ISA {

template <Dtype D>
void PackBlockAs(const PackBlockParams& p) {
  constexpr int64_t kFactor = PackFactor(D);
  auto* out = static_cast<Element<D>*>(p.dst);
  memset(out, 0, static_cast<size_t>(PackedBlockBytes(D, p.k)));
  for (int64_t lane = 0; lane < p.rows; lane++) {
    const float* row = p.src[lane];
    for (int64_t begin = 0; begin < p.k; begin += 16) {
      const int64_t n = Min(16, p.k - begin);
      Element<D> elements[16];
      StoreElementsN<D>(elements, LoadElementsN<Dtype::kF32>(row + begin, n), n);
      for (int64_t i = 0; i < n; i++) {
        const int64_t k = begin + i;
        out[k / kFactor * kLanes * kFactor + lane * kFactor + k % kFactor] = elements[i];
      }
    }
  }
}

inline void PackBlock(const PackBlockParams& p) {
  WithDtype(p.dtype, [&](auto dtype) { PackBlockAs<dtype.kDtype>(p); });
}

}  // namespace tenon_cpu::TENON_ISA
