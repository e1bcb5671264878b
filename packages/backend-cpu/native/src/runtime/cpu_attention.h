// attention: a step's work as items of one sequence's query rows and one KV head, in descending cost.
#pragma once

#include <cstdint>
#include <vector>

#include "context.h"
#include "tenon/plan.h"

namespace tenon_cpu {

class CpuAttention final : public tenon::Attention {
 public:
  explicit CpuAttention(const OpContext& context) : context_(context) {}

  // Reserves the list of items and the space for partial results. Call before the first step.
  tenon::Status Prepare(const tenon::Plan& plan, tenon::MemoryPool& pool);

  // Lists the items of a step; all its attention ops share them.
  void BeginStep(const tenon::StepView& step);

  tenon::Status Run(const tenon::AttentionOpParams& params, tenon::Stream stream) override;

 private:
  struct Item {
    int32_t seq;
    int32_t query_begin, query_end;  // rows of q
    int32_t first_position;
    int32_t last_position() const { return first_position + (query_end - query_begin) - 1; }
    int32_t num_splits() const { return last_position() / kKvSplit + 1; }
    int64_t Cost() const { return int64_t{query_end - query_begin} * (last_position() + 1); }
  };

  AttentionParams ParamsOf(const tenon::AttentionOpParams& params, const Item& item, int32_t kv_head) const;
  // Floats of the partial results of one item and KV head.
  int64_t PartialStride(const tenon::AttentionAttrs& attrs) const;
  bool ShouldSplit(const tenon::AttentionAttrs& attrs) const;
  void RunWhole(const tenon::AttentionOpParams& params);
  void RunSplit(const tenon::AttentionOpParams& params);

  const OpContext& context_;
  std::vector<Item> items_;
  int32_t max_splits_ = 0;  // of the step's items
  int32_t max_rows_ = 0;
  float* partials_ = nullptr;
  int64_t partials_size_ = 0;
};

}  // namespace tenon_cpu
