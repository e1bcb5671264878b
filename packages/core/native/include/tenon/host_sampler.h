// The sample op on the host: a row of the step's sampling parameters per logit row, and what sequences' slots remember
// between steps. For backends that have no kernel for it: they bring the logits, and give it views of the step and the result
// that the host can read and write, in the order of steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "tenon/interfaces.h"
#include "tenon/plan.h"
#include "tenon/sampling/sample_row.h"
#include "tenon/status.h"
#include "tenon/step.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

class HostSampler {
 public:
  explicit HostSampler(const PlanLimits& limits, int num_threads = 1);

  // Takes the histories that the step brings. Call once per step, before its first op.
  void BeginStep(const StepView& step);

  // Samples and scores rows [first_row, + num_rows); a row's result depends on nothing but the row. logits must be f32.
  Status Sample(const SampleOpParams& params) {
    return Sample(params, [](int64_t num_rows, const auto& fn) {
      for (int64_t i = 0; i < num_rows; i++) fn(i, 0);
    });
  }
  // for_each(n, fn) calls fn(i, thread) for all i < n, on threads that are numbered from 0.
  template <typename ForEach>
  Status Sample(const SampleOpParams& params, ForEach&& for_each);

  // The last token sampled for the slot; 0 before the first.
  int32_t last_token(int32_t slot) const { return last_tokens_[slot]; }

 private:
  // Tokens of a tracked sequence so far, prompt first: tokens_[slot * max_model_len_], lengths_[slot] of them.
  const int32_t* History(int32_t slot) const { return tokens_.get() + int64_t{slot} * max_model_len_; }
  SampleRowParams RowParams(const SampleOpParams& params, int64_t row) const;
  void SampleOne(const SampleOpParams& params, int64_t row, int thread);
  void Remember(const SampleOpParams& params, int64_t row);

  const int64_t max_model_len_;
  std::vector<int32_t> last_tokens_;    // [max_seqs]
  std::vector<int32_t> lengths_;        // [max_seqs]; 0: not tracked
  std::unique_ptr<int32_t[]> tokens_;   // [max_seqs, max_model_len], pages taken as sequences grow
  std::vector<SampleScratch> scratch_;  // per thread
};

namespace sampling {

// Row `row` of a ragged list; empty where the step has none.
inline Span<int32_t> RaggedRow(const StepView& step, StepRegion offsets_region, StepRegion values_region, int64_t row) {
  const int32_t* offsets = step.Ints(offsets_region);
  if (offsets == nullptr || offsets[row] == offsets[row + 1]) return {};
  return {step.Ints(values_region) + offsets[row], offsets[row + 1] - offsets[row]};
}

}  // namespace sampling

inline HostSampler::HostSampler(const PlanLimits& limits, int num_threads)
    : max_model_len_(limits.max_model_len),
      last_tokens_(static_cast<size_t>(limits.max_seqs)),
      lengths_(static_cast<size_t>(limits.max_seqs)),
      tokens_(new int32_t[static_cast<size_t>(limits.max_seqs) * static_cast<size_t>(limits.max_model_len)]) {
  for (int thread = 0; thread < num_threads; thread++) scratch_.emplace_back(limits.vocab_size);
}

inline void HostSampler::BeginStep(const StepView& step) {
  for (int32_t i = 0; i < step.num_history_seqs; i++) {
    const int32_t seq = step.Ints(StepRegion::kHistorySeqs)[i];
    const int32_t slot = step.Ints(StepRegion::kSeqSlots)[seq];
    const Span<int32_t> history = sampling::RaggedRow(step, StepRegion::kHistoryOffsets, StepRegion::kHistoryTokens, i);
    lengths_[slot] = static_cast<int32_t>(std::min(history.size, max_model_len_));
    std::copy_n(history.data, lengths_[slot], tokens_.get() + slot * max_model_len_);
  }
}

template <typename ForEach>
Status HostSampler::Sample(const SampleOpParams& params, ForEach&& for_each) {
  if (params.logits_dtype != Dtype::kF32) {
    return Status::Error(StatusCode::kUnsupportedDtype, "sample takes f32 logits, not %s",
                         kDtypeNames[static_cast<int>(params.logits_dtype)]);
  }
  for_each(params.num_rows, [&](int64_t i, int thread) { SampleOne(params, params.first_row + i, thread); });
  for (int64_t i = 0; i < params.num_rows; i++) Remember(params, params.first_row + i);
  return Status::Ok();
}

inline SampleRowParams HostSampler::RowParams(const SampleOpParams& params, int64_t row) const {
  const StepView& step = *params.step;
  const auto i32 = [&](StepRegion region) { return step.Ints(region)[row]; };
  const auto f32 = [&](StepRegion region) { return step.Floats(region)[row]; };
  const int32_t seq = i32(StepRegion::kRowSeqs);
  const int32_t slot = step.Ints(StepRegion::kSeqSlots)[seq];
  const int32_t prompt_len = std::min(step.Ints(StepRegion::kPromptLens)[seq], lengths_[slot]);
  const uint64_t seed_low = static_cast<uint32_t>(i32(StepRegion::kSeedLow));
  const uint64_t seed_high = static_cast<uint32_t>(i32(StepRegion::kSeedHigh));
  const Span<int32_t> bias = sampling::RaggedRow(step, StepRegion::kBiasOffsets, StepRegion::kBiasTokens, row);
  return {
      .logits = static_cast<const float*>(params.logits) + (row - params.first_row) * params.vocab,
      .vocab = params.vocab,
      .mode = i32(StepRegion::kRowModes),
      .seed = seed_high << 32 | seed_low,
      .position = step.Ints(StepRegion::kPositions)[i32(StepRegion::kLogitRows)],
      .temperature = f32(StepRegion::kTemperature),
      .top_k = i32(StepRegion::kTopK),
      .top_p = f32(StepRegion::kTopP),
      .min_p = f32(StepRegion::kMinP),
      .presence_penalty = f32(StepRegion::kPresencePenalty),
      .frequency_penalty = f32(StepRegion::kFrequencyPenalty),
      .repetition_penalty = f32(StepRegion::kRepetitionPenalty),
      .suppress_tokens = sampling::RaggedRow(step, StepRegion::kSuppressOffsets, StepRegion::kSuppressTokens, row),
      .allowed_tokens = sampling::RaggedRow(step, StepRegion::kAllowedOffsets, StepRegion::kAllowedTokens, row),
      .bias_tokens = bias,
      .bias_values = bias.size == 0 ? nullptr : step.Floats(StepRegion::kBiasValues) + step.Ints(StepRegion::kBiasOffsets)[row],
      .bad_words = sampling::RaggedRow(step, StepRegion::kBadWordsOffsets, StepRegion::kBadWords, row),
      .prompt_tokens = {History(slot), prompt_len},
      .output_tokens = {History(slot) + prompt_len, lengths_[slot] - prompt_len},
      .target = i32(StepRegion::kTargets),
      .num_logprobs = i32(StepRegion::kNumLogprobs),
  };
}

inline void HostSampler::SampleOne(const SampleOpParams& params, int64_t row, int thread) {
  const ResultView& result = *params.result;
  const int64_t max_top = params.step->max_top_logprobs;
  int32_t* top_ids = result.top_ids + row * max_top;
  float* top_logprobs = result.top_logprobs + row * max_top;
  const SampleRowResult sampled = SampleRow(RowParams(params, row), scratch_[thread], top_ids, top_logprobs);
  result.tokens[row] = sampled.token;
  result.logprobs[row] = sampled.logprob;
  result.ranks[row] = sampled.rank;
  std::fill(top_ids + sampled.num_top, top_ids + max_top, -1);
  std::fill(top_logprobs + sampled.num_top, top_logprobs + max_top, -1.0f);
}

inline void HostSampler::Remember(const SampleOpParams& params, int64_t row) {
  const int32_t token = params.result->tokens[row];
  if (token < 0) return;
  const int32_t seq = params.step->Ints(StepRegion::kRowSeqs)[row];
  const int32_t slot = params.step->Ints(StepRegion::kSeqSlots)[seq];
  last_tokens_[slot] = token;
  if (lengths_[slot] == 0 || lengths_[slot] == max_model_len_) return;
  tokens_[slot * max_model_len_ + lengths_[slot]++] = token;
}

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
