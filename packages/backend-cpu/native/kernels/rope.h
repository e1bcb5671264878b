// Rotary position embedding of the first rotary_dim elements of each head; the rest is copied. Pairs (a, b) become
// (a cos - b sin, b cos + a sin): (i, i + n) for half-split heads, (2i, 2i + 1) for interleaved ones, n = rotary_dim / 2.
#pragma once

#include "elements.h"

namespace tenon_cpu::TENON_ISA {

inline constexpr int64_t kMaxHeadDim = 256;

struct RopeHead {
  const float* cos_sin;  // [rotary_dim]: cos, then sin
  int64_t head_dim, rotary_dim;
  bool interleaved;
};

// One head in f32, in place.
TENON_INLINE void RotateHead(const RopeHead& rope, float* x) {
  const int64_t n = rope.rotary_dim / 2;
  const float* cos = rope.cos_sin;
  const float* sin = cos + n;
  if (rope.interleaved) {
    for (int64_t i = 0; i < n; i++) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cos[i] - b * sin[i];
      x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
    return;
  }
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const V a = Load(x + i), b = Load(x + i + n), c = Load(cos + i), s = Load(sin + i);
    Store(x + i, Sub(Mul(a, c), Mul(b, s)));
    Store(x + i + n, Add(Mul(b, c), Mul(a, s)));
  }
  for (; i < n; i++) {
    const float a = x[i], b = x[i + n];
    x[i] = a * cos[i] - b * sin[i];
    x[i + n] = b * cos[i] + a * sin[i];
  }
}

// head_dim elements from x[begin] on, as f32.
TENON_INLINE void LoadHead(Dtype dtype, const void* x, int64_t begin, int64_t head_dim, float* out) {
  for (int64_t i = 0; i < head_dim; i += 16) {
    const int64_t n = Min(16, head_dim - i);
    StoreElementsN<Dtype::kF32>(out + i, LoadAny(dtype, x, begin + i, n), n);
  }
}

TENON_INLINE void StoreHead(const float* x, int64_t head_dim, Dtype dtype, void* y, int64_t begin) {
  for (int64_t i = 0; i < head_dim; i += 16) {
    const int64_t n = Min(16, head_dim - i);
    StoreAny(dtype, y, begin + i, LoadElementsN<Dtype::kF32>(x + i, n), n);
  }
}

inline void Rope(const RopeParams& p) {
  alignas(64) float head[kMaxHeadDim];
  for (int64_t token = p.token_begin; token < p.token_end; token++) {
    const RopeHead rope = {p.cos_sin + token * p.rotary_dim, p.head_dim, p.rotary_dim, p.interleaved};
    for (int64_t h = 0; h < p.num_heads; h++) {
      LoadHead(p.x_dtype, p.x, token * p.ldx + h * p.head_dim, p.head_dim, head);
      RotateHead(rope, head);
      StoreHead(head, p.head_dim, p.y_dtype, p.y, token * p.ldy + h * p.head_dim);
    }
  }
}

}  // namespace tenon_cpu::TENON_ISA
