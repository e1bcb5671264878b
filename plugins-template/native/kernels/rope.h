// Rotates the first rotaryDim elements of each head: pairs (i, i + rotaryDim / 2), or (2i, 2i + 1) where interleaved. y may be x.
#pragma once

#include "operands.h"

namespace tenon_backend_template::kernels {

inline void Rope(const tenon::RopeOpParams& p, const tenon::RopeAttrs& attrs) {
  const Floats x = In(p.x, p.x_dtype), y{p.y, p.y_dtype};
  const int32_t n = attrs.rotary_dim / 2;
  for (int64_t head = 0; head < p.rows * attrs.num_heads; ++head) {
    const int64_t at = head * attrs.head_dim;
    const float* cos = p.cos_sin + head / attrs.num_heads * attrs.rotary_dim;
    for (int32_t i = 0; i < n; ++i) {
      const int64_t first = at + (attrs.interleaved != 0 ? 2 * i : i);
      const int64_t second = attrs.interleaved != 0 ? first + 1 : first + n;
      const float a = x[first], b = x[second], sin = cos[n + i];
      y.Set(first, a * cos[i] - b * sin);
      y.Set(second, b * cos[i] + a * sin);
    }
    for (int64_t i = at + attrs.rotary_dim; i < at + attrs.head_dim; ++i) y.Set(i, x[i]);
  }
}

}  // namespace tenon_backend_template::kernels
