// y = a + b, elementwise; y may be a or b.
#pragma once

#include "operands.h"

namespace tenon_backend_template::kernels {

inline void Add(const tenon::AddOpParams& p) {
  const Floats a = In(p.a, p.a_dtype), b = In(p.b, p.b_dtype), y{p.y, p.y_dtype};
  for (int64_t i = 0; i < p.elements; ++i) y.Set(i, a[i] + b[i]);
}

}  // namespace tenon_backend_template::kernels
