// y = act(gate) · up, act as in `activations` of @tenon/core/backend.
#pragma once

#include <cmath>

#include "operands.h"

namespace tenon_backend_template::kernels {

inline float Activate(int32_t activation, float x) {
  if (activation == 0) return x / (1 + std::exp(-x));                          // silu
  if (activation == 1) return 0.5f * x * (1 + std::erf(x * 0.70710678f));      // gelu
  return 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));  // gelu_tanh
}

inline void GatedAct(const tenon::GatedActOpParams& p) {
  const Floats gate = In(p.gate, p.gate_dtype), up = In(p.up, p.up_dtype), y{p.y, p.y_dtype};
  for (int64_t i = 0; i < p.elements; ++i) y.Set(i, Activate(p.activation, gate[i]) * up[i]);
}

}  // namespace tenon_backend_template::kernels
