// Reductions over one row of logits, f32 [n]. NaN is never the largest.
#pragma once

#include "vector_math.h"

namespace tenon_cpu::TENON_ISA {

// Four running maxima hide the latency.
inline float MaxOf(const float* x, int64_t n) {
  const V lowest = Broadcast(-INFINITY);
  V max[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    TENON_UNROLL
    for (int j = 0; j < 4; j++) max[j] = Max(Load(x + i + 16 * j), max[j]);
  }
  for (; i < n; i += 16) {
    const int64_t rest = Min(16, n - i);
    max[0] = Max(SelectRange(LoadElementsN<Dtype::kF32>(x + i, rest), 0, rest, -INFINITY), max[0]);
  }
  return ReduceMax(Max(Max(max[0], max[1]), Max(max[2], max[3])));
}

// The lowest index of the largest element (0 where all are NaN).
inline int64_t ArgMaxOf(const float* x, int64_t n) {
  constexpr int64_t kChunk = 4096;
  float best = -INFINITY;
  int64_t best_begin = 0;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const float max = MaxOf(x + begin, Min(kChunk, n - begin));
    if (max > best) {
      best = max;
      best_begin = begin;
    }
  }
  for (int64_t i = best_begin; i < n; i++) {
    if (x[i] == best) return i;
  }
  return 0;
}

// Σ e^((x - max) scale): lanes in f32 within 1024 elements, then in f64, in order.
inline double ExpSum(const float* x, int64_t n, float max, float scale, float* y) {
  constexpr int64_t kChunk = 1024;
  const V vmax = Broadcast(max), vscale = Broadcast(scale);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = Min(n, begin + kChunk);
    V sum = Zero();
    for (int64_t i = begin; i < end; i += 16) {
      const int64_t count = Min(16, end - i);
      V e = Exp(Mul(Sub(LoadElementsN<Dtype::kF32>(x + i, count), vmax), vscale));
      if (count < 16) e = SelectRange(e, 0, count, 0);
      sum = Add(sum, e);
      if (y != nullptr) StoreElementsN<Dtype::kF32>(y + i, e, count);
    }
    total += ReduceAdd(sum);
  }
  return total;
}

}  // namespace tenon_cpu::TENON_ISA
