// y[t, 0:n] = cos(position · invFreq[i]) · scale, y[t, n:2n] the sines, n = rotaryDim / 2. With `dynamic`, the frequencies are those of
// a base that grows with the sequence (rope_cos_sin in @tenon/core's op table).
#pragma once

#include <cmath>

#include "operands.h"

namespace tenon_backend_template::kernels {

// 0 where the sequence is within the length that the model was trained for.
inline double DynamicBase(const tenon::RopeCosSinAttrs& attrs, const tenon::StepView& step, int64_t t, int32_t position) {
  const int32_t seq = SequenceOf(step, t);
  const double length = std::max(position + 1, seq < 0 ? 0 : step.Ints(tenon::StepRegion::kPromptLens)[seq]);
  if (attrs.dynamic == 0 || length <= attrs.original_max_position) return 0;
  const double growth = attrs.factor * length / attrs.original_max_position - (attrs.factor - 1);
  return attrs.base * std::pow(growth, attrs.rotary_dim / (attrs.rotary_dim - 2.0));
}

inline void RopeCosSin(const tenon::RopeCosSinOpParams& p, const tenon::RopeCosSinAttrs& attrs, const tenon::StepView& step) {
  const int32_t dim = attrs.rotary_dim;
  for (int64_t t = 0; t < p.rows; ++t) {
    const double base = DynamicBase(attrs, step, t, p.positions[t]);
    for (int32_t i = 0; i < dim / 2; ++i) {
      const float frequency = base > 0 ? static_cast<float>(std::pow(base, -2.0 * i / dim)) : p.inv_freq[i];
      const float angle = static_cast<float>(p.positions[t]) * frequency;
      p.y[t * dim + i] = std::cos(angle) * attrs.scale;
      p.y[t * dim + dim / 2 + i] = std::sin(angle) * attrs.scale;
    }
  }
}

}  // namespace tenon_backend_template::kernels
