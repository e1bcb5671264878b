// The sample op: a row of the step's sampling parameters per logit row, and what sequences' slots remember between steps.
#pragma once

#include <memory>
#include <vector>

#include "sample.h"
#include "tenon/interfaces.h"
#include "tenon/plan.h"
#include "thread_pool.h"

namespace tenon_cpu {

class Sampler {
 public:
  Sampler(const tenon::PlanLimits& limits, int num_threads);

  // Takes the histories that the step brings. Call once per step, before its first op.
  void BeginStep(const tenon::StepView& step);

  // Samples and scores rows [first_row, + num_rows), in parallel; a row's result depends on nothing but the row. logits must
  // be f32.
  tenon::Status Sample(const tenon::SampleOpParams& params, ThreadPool& threads);

  // The last token sampled for the slot; 0 before the first.
  int32_t last_token(int32_t slot) const { return last_tokens_[slot]; }

 private:
  // Tokens of a tracked sequence so far, prompt first: tokens_[slot * max_model_len_], lengths_[slot] of them.
  const int32_t* History(int32_t slot) const { return tokens_.get() + int64_t{slot} * max_model_len_; }
  SampleRowParams RowParams(const tenon::SampleOpParams& params, int64_t row) const;
  void SampleOne(const tenon::SampleOpParams& params, int64_t row, int thread);
  void Remember(const tenon::SampleOpParams& params, int64_t row);

  const int64_t max_model_len_;
  std::vector<int32_t> last_tokens_;    // [max_seqs]
  std::vector<int32_t> lengths_;        // [max_seqs]; 0: not tracked
  std::unique_ptr<int32_t[]> tokens_;   // [max_seqs, max_model_len], pages taken as sequences grow
  std::vector<SampleScratch> scratch_;  // per thread
};

}  // namespace tenon_cpu
