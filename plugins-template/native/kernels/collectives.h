// Each rank takes its part of what all ranks brought, x [rows, cols] each. Sums are accumulated in f32, in the order of ranks.
#pragma once

#include <vector>

#include "operands.h"

namespace tenon_backend_template::kernels {

// Columns [first, first + y_cols) of the sum.
inline void SumOfRanks(const std::vector<Floats>& x, int64_t rows, int64_t cols, int64_t first, int64_t y_cols, const Floats& y) {
  for (int64_t i = 0; i < rows * y_cols; ++i) {
    float sum = 0;
    for (const Floats& rank : x) sum += rank[i / y_cols * cols + first + i % y_cols];
    y.Set(i, sum);
  }
}

// The ranks' columns side by side.
inline void ConcatRanks(const std::vector<Floats>& x, int64_t rows, int64_t cols, const Floats& y) {
  const auto size = static_cast<int64_t>(x.size());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < size * cols; ++col)
      y.Set(row * size * cols + col, x[static_cast<size_t>(col / cols)][row * cols + col % cols]);
}

}  // namespace tenon_backend_template::kernels
