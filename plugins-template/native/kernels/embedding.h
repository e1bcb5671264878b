// y[t, :] = weight[tokenIds[t], :]. A token of -1 is the last one that the device sampled for the slot of the token's sequence: the
// step that samples it may still be running when this one is enqueued.
#pragma once

#include "operands.h"
#include "tenon/host_sampler.h"

namespace tenon_backend_template::kernels {

inline void Embedding(const tenon::EmbeddingOpParams& p, const tenon::StepView& step, const Matrix& weight,
                      const tenon::HostSampler& sampler) {
  const Floats y{p.y, p.y_dtype}, values{weight.values, weight.dtype};
  for (int64_t t = 0; t < p.rows; ++t) {
    int64_t id = p.token_ids[t];
    const int32_t seq = id < 0 ? SequenceOf(step, t) : -1;
    if (id < 0) id = seq < 0 ? 0 : sampler.last_token(step.Ints(tenon::StepRegion::kSeqSlots)[seq]);
    for (int64_t k = 0; k < weight.k; ++k) {
      const int64_t at = weight.ValueAt(id, k);
      const float value = weight.scales == nullptr ? values[at] : weight.scales[weight.ScaleAt(id, k)] * static_cast<int8_t*>(weight.values)[at];
      y.Set(t * weight.k + k, value);
    }
  }
}

}  // namespace tenon_backend_template::kernels
