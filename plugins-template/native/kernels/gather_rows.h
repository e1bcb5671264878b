// y[i, :] = x[rows[i], :], whatever rows are made of.
#pragma once

#include "operands.h"

namespace tenon_backend_template::kernels {

inline void GatherRows(const tenon::GatherRowsOpParams& p) {
  const auto* x = static_cast<const uint8_t*>(p.x);
  for (int64_t i = 0; i < p.num_rows; ++i)
    std::copy_n(x + p.rows[i] * p.row_bytes, p.row_bytes, static_cast<uint8_t*>(p.y) + i * p.row_bytes);
}

}  // namespace tenon_backend_template::kernels
