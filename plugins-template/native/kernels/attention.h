// Causal attention over the cache, one token and head at a time: softmax(q · K · scale) · V over the positions that the token sees, in
// f32. A token's result does not depend on the other tokens of the step.
//
// `max_len`, the longest sequence, is a parameter of the launch, as on devices that size their work by it: a recorded launch must
// be given this step's before it is replayed.
#pragma once

#include <cmath>

#include "operands.h"

namespace tenon_backend_template::kernels {

class Attention {
 public:
  // scratch: [max_len + head_dim].
  Attention(const tenon::AttentionOpParams& params, const tenon::AttentionAttrs& attrs, const tenon::StepView& step,
            const KvLayer& kv, int32_t max_len, float* scratch)
      : q_(In(params.q, params.q_dtype)), y_{params.y, params.y_dtype}, attrs_(attrs), step_(step), kv_(kv), max_len_(max_len),
        scores_(scratch), sums_(scratch + max_len) {}

  void operator()() const {
    for (int32_t t = 0; t < step_.num_tokens; ++t) {
      const int32_t seq = SequenceOf(step_, t);
      for (int32_t head = 0; seq >= 0 && head < attrs_.num_heads; ++head) RunHead(t, seq, head);
    }
  }

 private:
  void RunHead(int32_t t, int32_t seq, int32_t head) const {
    const int64_t at = (int64_t{t} * attrs_.num_heads + head) * attrs_.head_dim;
    const int32_t kv_head = head / (attrs_.num_heads / attrs_.num_kv_heads);
    const int32_t position = step_.Ints(tenon::StepRegion::kPositions)[t];
    const int32_t begin = attrs_.sliding_window > 0 ? std::max(0, position - attrs_.sliding_window + 1) : 0;
    const int32_t end = std::min(position + 1, max_len_);
    float max = -INFINITY, total = 0;
    std::fill_n(sums_, attrs_.head_dim, 0.0f);
    for (int32_t j = begin; j < end; ++j) max = std::max(max, scores_[j] = Score(at, Cached(seq, j, kv_head)));
    for (int32_t j = begin; j < end; ++j) total += scores_[j] = std::exp(scores_[j] - max);
    for (int32_t j = begin; j < end; ++j) AddValues(scores_[j], Cached(seq, j, kv_head));
    for (int32_t i = 0; i < attrs_.head_dim; ++i) y_.Set(at + i, sums_[i] / total);
  }

  // Where K of a position of the sequence begins.
  int64_t Cached(int32_t seq, int32_t position, int32_t kv_head) const {
    const int64_t block = step_.block_table(seq)[position / kv_.block_size];
    return kv_.At(block * kv_.block_size + position % kv_.block_size, kv_head);
  }

  float Score(int64_t query, int64_t cached) const {
    float sum = 0;
    for (int32_t i = 0; i < attrs_.head_dim; i += KvLayer::kLanes, cached += kv_.stride())
      for (int64_t lane = 0; lane < KvLayer::kLanes; ++lane) sum += q_[query + i + lane] * kv_.data[cached + lane];
    const float score = sum * attrs_.scale;
    return attrs_.soft_cap > 0 ? attrs_.soft_cap * std::tanh(score / attrs_.soft_cap) : score;
  }

  void AddValues(float weight, int64_t cached) const {
    cached += KvLayer::kLanes;
    for (int32_t i = 0; i < attrs_.head_dim; i += KvLayer::kLanes, cached += kv_.stride())
      for (int64_t lane = 0; lane < KvLayer::kLanes; ++lane) sums_[i + lane] += weight * kv_.data[cached + lane];
  }

  Floats q_, y_;
  tenon::AttentionAttrs attrs_;
  tenon::StepView step_;
  KvLayer kv_;
  int32_t max_len_;
  float *scores_, *sums_;
};

}  // namespace tenon_backend_template::kernels
