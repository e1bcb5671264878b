// The ops that are neither GEMM nor attention. Each runs on the calling thread where the work is smaller than a fork-join,
// and is cut by rows or elements otherwise.
#pragma once

#include <vector>

#include "context.h"
#include "tenon/host_sampler.h"
#include "tenon/plan.h"

namespace tenon_cpu {

class CpuOps final : public tenon::Ops {
 public:
  CpuOps(const OpContext& context, const tenon::PlanLimits& limits)
      : context_(context), sampler_(limits, context.threads.size()), token_ids_(static_cast<size_t>(limits.max_tokens)) {}

  void BeginStep(const tenon::StepView& step) { sampler_.BeginStep(step); }

  tenon::Status Embedding(const tenon::EmbeddingOpParams& params, tenon::Stream stream) override;
  tenon::Status RmsNorm(const tenon::RmsNormOpParams& params, tenon::Stream stream) override;
  tenon::Status RopeCosSin(const tenon::RopeCosSinOpParams& params, tenon::Stream stream) override;
  tenon::Status Rope(const tenon::RopeOpParams& params, tenon::Stream stream) override;
  tenon::Status KvWrite(const tenon::KvWriteOpParams& params, tenon::Stream stream) override;
  tenon::Status QkvRopeKvWrite(const tenon::QkvRopeKvWriteOpParams& params, tenon::Stream stream) override;
  tenon::Status Add(const tenon::AddOpParams& params, tenon::Stream stream) override;
  tenon::Status GatedAct(const tenon::GatedActOpParams& params, tenon::Stream stream) override;
  tenon::Status GatherRows(const tenon::GatherRowsOpParams& params, tenon::Stream stream) override;
  tenon::Status Sample(const tenon::SampleOpParams& params, tenon::Stream stream) override;

 private:
  // fn(begin, end) over rows of `row_elements` elements each, in chunks of a multiple of `multiple` rows.
  template <typename F>
  void ForRows(int64_t rows, int64_t row_elements, F&& fn, int64_t multiple = 1);
  const int32_t* ResolveTokenIds(const tenon::EmbeddingOpParams& params);

  const OpContext& context_;
  tenon::HostSampler sampler_;
  std::vector<int32_t> token_ids_;  // [max_tokens] with every -1 replaced
};

}  // namespace tenon_cpu
