// y = x / sqrt(mean(x²) + eps) * weight, row by row, in f32.
#pragma once

#include "elements.h"

namespace tenon_cpu::TENON_ISA {

// 1 / sqrt(mean(x²) + eps) of x[begin, begin + size). Four lane accumulators in a fixed order.
TENON_INLINE float InverseRms(Dtype dtype, const void* x, int64_t begin, int64_t size, float eps) {
  V sum[4] = {Zero(), Zero(), Zero(), Zero()};
  for (int64_t i = 0; i < size; i += 16) {
    const V v = LoadAny(dtype, x, begin + i, Min(16, size - i));
    V& lanes = sum[i / 16 % 4];
    lanes = Fma(v, v, lanes);
  }
  const float total = ReduceAdd(Add(Add(sum[0], sum[1]), Add(sum[2], sum[3])));
  return 1.0f / sqrtf(total / static_cast<float>(size) + eps);
}

// A row at element `begin` of x and y.
TENON_INLINE void RmsNormRow(const RmsNormParams& p, int64_t begin) {
  const V inverse = Broadcast(InverseRms(p.x_dtype, p.x, begin, p.size, p.eps));
  for (int64_t i = 0; i < p.size; i += 16) {
    const int64_t n = Min(16, p.size - i);
    const V v = Mul(LoadAny(p.x_dtype, p.x, begin + i, n), inverse);
    StoreAny(p.y_dtype, p.y, begin + i, Mul(v, LoadElementsN<Dtype::kF32>(p.weight + i, n)), n);
  }
}

inline void RmsNorm(const RmsNormParams& p) {
  for (int64_t row = p.row_begin; row < p.row_end; row++) RmsNormRow(p, row * p.size);
}

}  // namespace tenon_cpu::TENON_ISA
