// y[r, n] = Σk x[r, k] · weight[n, k] (+ bias[n]) (+ residual[r, n]); one f32 accumulator per element, k ascending, so that a row's
// result does not depend on the other rows.
#pragma once

#include "operands.h"

namespace tenon_backend_template::kernels {

// sums[i] += x[k] · row i of the panel, for all k. `W`: how values are held; `Value` makes a float of one.
template <typename W, typename Value>
void AccumulatePanel(const Floats& x, int64_t first, const Matrix& weight, int64_t panel, Value value, float* sums) {
  const W* column = static_cast<const W*>(weight.values) + weight.ValueAt(panel * Matrix::kPanelRows, 0);
  for (int64_t k = 0; k < weight.k; ++k, column += Matrix::kPanelRows) {
    const float factor = x[first + k];
    for (int64_t i = 0; i < Matrix::kPanelRows; ++i) sums[i] += factor * value(column[i], k, i);
  }
}

inline void Linear(const tenon::LinearParams& p, const Matrix& weight) {
  const Floats x = In(p.x, p.x_dtype), y{p.y, p.y_dtype};
  const auto* residual = static_cast<const float*>(p.residual);
  for (int64_t panel = 0; panel < weight.num_panels(); ++panel) {
    const int64_t first = panel * Matrix::kPanelRows;
    const float* scales = weight.scales == nullptr ? nullptr : weight.scales + weight.ScaleAt(first, 0);
    for (int64_t row = 0; row < p.rows; ++row) {
      float sums[Matrix::kPanelRows] = {};
      if (scales != nullptr)
        AccumulatePanel<int8_t>(x, row * p.k, weight, panel, [&](int8_t value, int64_t k, int64_t i) {
          return scales[k / Matrix::kGroupSize * Matrix::kPanelRows + i] * static_cast<float>(value);
        }, sums);
      else if (weight.dtype == Dtype::kF32)
        AccumulatePanel<float>(x, row * p.k, weight, panel, [](float value, int64_t, int64_t) { return value; }, sums);
      else
        AccumulatePanel<uint16_t>(x, row * p.k, weight, panel, [](uint16_t bits, int64_t, int64_t) {
          return std::bit_cast<float>(uint32_t{bits} << 16);
        }, sums);
      for (int64_t i = 0; i < Matrix::kPanelRows && first + i < p.n; ++i) {
        const int64_t at = row * p.n + first + i;
        y.Set(at, sums[i] + (p.bias == nullptr ? 0 : p.bias[first + i]) + (residual == nullptr ? 0 : residual[at]));
      }
    }
  }
}

}  // namespace tenon_backend_template::kernels
