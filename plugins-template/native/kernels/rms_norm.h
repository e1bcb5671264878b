// Rows of `size` elements: y = x / sqrt(mean(x²) + eps) · weight.
#pragma once

#include <cmath>

#include "operands.h"

namespace tenon_backend_template::kernels {

inline void RmsNorm(const tenon::RmsNormOpParams& p) {
  const Floats x = In(p.x, p.x_dtype), y{p.y, p.y_dtype};
  for (int64_t first = 0; first < p.rows * p.size; first += p.size) {
    float sum = 0;
    for (int64_t i = 0; i < p.size; ++i) sum += x[first + i] * x[first + i];
    const float scale = 1 / std::sqrt(sum / static_cast<float>(p.size) + p.eps);
    for (int64_t i = 0; i < p.size; ++i) y.Set(first + i, x[first + i] * scale * p.weight[i]);
  }
}

}  // namespace tenon_backend_template::kernels
