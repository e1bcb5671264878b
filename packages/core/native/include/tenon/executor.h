// Runs a plan: a thin interpreter that resolves pointers and row counts and calls one interface method per op. It holds
// no policy, and allocates nothing per step.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "tenon/device.h"
#include "tenon/op_caller.h"
#include "tenon/plan.h"
#include "tenon/plan_checks.h"
#include "tenon/step.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

class Executor {
 public:
  // Checks the plan, loads the weights, allocates the cache and the workspace, and runs a step of nothing so that every
  // op has had its say.
  static Status Create(Plan plan, const std::vector<WeightRequest>& weights, DeviceGroup& group,
                       const ProgressFn& progress, std::unique_ptr<Executor>* executor) {
    auto made = std::unique_ptr<Executor>(new Executor(std::move(plan)));
    TENON_RETURN_IF_ERROR(PlanChecker(made->plan_, weights, group.collective().size()).Run());
    TENON_RETURN_IF_ERROR(group.CreateSession(made->plan_, &made->session_));
    std::vector<const void*> handles;
    std::vector<KvHandle> kv_layers;
    TENON_RETURN_IF_ERROR(made->session_->LoadWeights(weights, progress, &handles));
    TENON_RETURN_IF_ERROR(made->session_->CreateKvCache(&kv_layers));
    TENON_RETURN_IF_ERROR(made->AllocateWorkspace());
    made->caller_ = std::make_unique<OpCaller>(made->plan_, *made->session_, group.collective());
    made->caller_->BindMemory(made->workspace_, handles, std::move(kv_layers));
    TENON_RETURN_IF_ERROR(made->RunEmptyStep());
    *executor = std::move(made);
    return Status::Ok();
  }

  ~Executor() {
    if (workspace_ != nullptr) session_->memory().Free(workspace_);
  }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs one step; see step.ts for both buffers.
  Status Run(const int32_t* step_words, size_t num_step_words, int32_t* result_words, size_t num_result_words) {
    const auto start = std::chrono::steady_clock::now();
    StepView host_step, step;
    ResultView host_result, result;
    TENON_RETURN_IF_ERROR(StepView::Parse(step_words, num_step_words, plan_.limits, &host_step));
    const size_t output_bytes = caller_->OutputBytes(host_step);
    TENON_RETURN_IF_ERROR(ResultView::Parse(result_words, num_result_words, host_step, output_bytes, &host_result));
    TENON_RETURN_IF_ERROR(session_->BeginStep(host_step, host_result, &step, &result));
    caller_->BindStep(step, result);
    TENON_RETURN_IF_ERROR(RunSegments(step));
    TENON_RETURN_IF_ERROR(session_->EndStep());
    const auto elapsed = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
    const int32_t header[kResultHeaderWords] = {
        host_step.step_id,          0, host_step.num_logit_rows,
        host_step.max_top_logprobs, static_cast<int32_t>(elapsed.count())};
    std::copy(std::begin(header), std::end(header), host_result.header);
    return Status::Ok();
  }

  // May be called from any thread.
  size_t UsedBytes(Arena arena) const { return session_->memory().UsedBytes(arena); }

 private:
  explicit Executor(Plan plan) : plan_(std::move(plan)) {}

  Status AllocateWorkspace() {
    if (plan_.arena_bytes > 0)
      TENON_RETURN_IF_ERROR(
          session_->memory().Allocate(Arena::kWorkspace, static_cast<size_t>(plan_.arena_bytes), &workspace_));
    return Status::Ok();
  }

  Status RunEmptyStep() {
    std::array<int32_t, kStepHeaderWords> step{};
    std::array<int32_t, kResultHeaderWords> result{};
    step[static_cast<size_t>(StepField::kMagic)] = kStepMagic;
    step[static_cast<size_t>(StepField::kVersion)] = kStepVersion;
    step[static_cast<size_t>(StepField::kSizeWords)] = kStepHeaderWords;
    return Run(step.data(), step.size(), result.data(), result.size());
  }

  Status RunSegments(const StepView& step) {
    for (const PlanSegment& segment : plan_.segments) {
      const int32_t tile = segment.tile > 0 ? segment.tile : step.num_logit_rows;
      int32_t first_row = 0;
      do {
        const int32_t num_rows = std::min(tile, step.num_logit_rows - first_row);
        for (int32_t i = 0; i < segment.num_ops; ++i)
          TENON_RETURN_IF_ERROR(caller_->Call(segment.first_op + i, first_row, num_rows));
        first_row += num_rows;
      } while (first_row < step.num_logit_rows);
    }
    return Status::Ok();
  }

  const Plan plan_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<OpCaller> caller_;
  void* workspace_ = nullptr;
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
