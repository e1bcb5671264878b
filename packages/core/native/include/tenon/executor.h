// Runs a plan: a thin interpreter that calls one interface method per op, or replays what was recorded of a step of the
// same shape. It holds no policy, and allocates nothing per step.
//
// Create, Load, Enqueue and Freeze belong to the device thread, Finish to the completion thread where the session is
// asynchronous; UsedBytes, counters and Cancel may be called from any.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tenon/device.h"
#include "tenon/device_threads.h"
#include "tenon/op_caller.h"
#include "tenon/plan.h"
#include "tenon/plan_checks.h"
#include "tenon/recording.h"
#include "tenon/step.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// `Counters` of contract.ts.
struct ExecutorCounters {
  uint64_t steps = 0, captures = 0, replays = 0, rebinds = 0;
  SessionCounters session;  // with recordings that failed among its fallbacks
};

class Executor final : public Afterwork {
 public:
  using Clock = std::chrono::steady_clock;

  // A step that was enqueued: what Finish needs to know of it.
  struct Ticket {
    int32_t* header = nullptr;  // of the result
    int32_t step_id = 0, num_logit_rows = 0, max_top_logprobs = 0;
    Clock::time_point start;
    Status status;  // of its ops
  };

  // Checks the plan and creates the session. `group` outlives the executor.
  static Status Create(Plan plan, const std::vector<WeightRequest>& weights, DeviceGroup& group,
                       std::unique_ptr<Executor>* executor) {
    auto made = std::unique_ptr<Executor>(new Executor(std::move(plan), group));
    TENON_RETURN_IF_ERROR(PlanChecker(made->plan_, weights, group.collective().size()).Run());
    TENON_RETURN_IF_ERROR(group.CreateSession(made->plan_, &made->session_));
    made->caller_ = std::make_unique<OpCaller>(made->plan_, *made->session_, group.collective());
    *executor = std::move(made);
    return Status::Ok();
  }

  // After Cancel a device may still use the workspace: the session knows.
  ~Executor() override {
    if (workspace_ != nullptr && !cancelled_) session_->memory().Free(workspace_);
  }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Loads the weights, allocates the workspace and the cache, and runs a step of nothing so that every op has had its say. With
  // `spare_bytes`, the cache has as many of the plan's blocks as leave that much of the device's memory free.
  Status Load(const std::vector<WeightRequest>& weights, const ProgressFn& progress, std::optional<uint64_t> spare_bytes = {}) {
    std::vector<const void*> handles;
    std::vector<KvHandle> kv_layers;
    TENON_RETURN_IF_ERROR(session_->LoadWeights(weights, progress, &handles));
    if (plan_.arena_bytes > 0)
      TENON_RETURN_IF_ERROR(
          session_->memory().Allocate(Arena::kWorkspace, static_cast<size_t>(plan_.arena_bytes), &workspace_));
    if (spare_bytes.has_value()) TENON_RETURN_IF_ERROR(FitKvCache(*spare_bytes));
    TENON_RETURN_IF_ERROR(session_->CreateKvCache(&kv_layers));
    caller_->BindMemory(workspace_, handles, std::move(kv_layers));
    if (session_->CanCapture()) AskCaptureStates(weights);
    TENON_RETURN_IF_ERROR(RunEmptyStep());
    steps_ = 0;
    return Status::Ok();
  }

  // Whether a step may still be computing when Enqueue returns.
  bool is_asynchronous() const { return session_->IsAsynchronous(); }

  // Begins one step; see step.ts for both buffers. If it returns ok, Finish must follow, in the order of steps.
  Status Enqueue(const int32_t* step_words, size_t num_step_words, int32_t* result_words, size_t num_result_words,
                 Ticket* ticket) {
    const auto start = Clock::now();
    StepView host_step, step;
    ResultView host_result, result;
    unrecorded_ = nullptr;
    TENON_RETURN_IF_ERROR(StepView::Parse(step_words, num_step_words, plan_.limits, &host_step));
    const size_t output_bytes = caller_->OutputBytes(host_step);
    TENON_RETURN_IF_ERROR(ResultView::Parse(result_words, num_result_words, host_step, output_bytes, &host_result));
    TENON_RETURN_IF_ERROR(session_->BeginStep(host_step, host_result, &step, &result));
    caller_->BindStep(step, result);
    Status ran = RunOps(host_step, step, result);
    Status ended = session_->EndStep();
    if (!ran.ok() || !ended.ok()) unrecorded_ = nullptr;
    if (!ended.ok()) return ran.ok() ? ended : ran;
    *ticket = {host_result.header, host_step.step_id, host_step.num_logit_rows, host_step.max_top_logprobs, start, std::move(ran)};
    return Status::Ok();
  }

  // Returns when the results of a step are in the host's buffer, or with the error that befell it.
  Status Finish(const Ticket& ticket) {
    if (is_asynchronous()) TENON_RETURN_IF_ERROR(session_->WaitStep());
    if (!ticket.status.ok()) return ticket.status;
    if (cancelled_) return Cancelled();
    const StepTimes times = TimesOf(ticket);
    const int32_t header[kResultHeaderWords] = {ticket.step_id,        0, ticket.num_logit_rows, ticket.max_top_logprobs,
                                                Word(times.compute_us), Word(times.idle_us)};
    std::copy(std::begin(header), std::end(header), ticket.header);
    return Status::Ok();
  }

  // Both.
  Status Run(const int32_t* step_words, size_t num_step_words, int32_t* result_words, size_t num_result_words) {
    Ticket ticket;
    TENON_RETURN_IF_ERROR(Enqueue(step_words, num_step_words, result_words, num_result_words, &ticket));
    Status status = Finish(ticket);
    if (HasAfterwork()) DoAfterwork();
    return status;
  }

  // After Enqueue, on the device thread: records the step that was enqueued, as one of its shape is seen for the first time.
  bool HasAfterwork() const { return unrecorded_ != nullptr; }
  void DoAfterwork() override {
    Recording* recording = std::exchange(unrecorded_, nullptr);
    if (cancelled_) return;
    try {
      Record(recording);
    } catch (const std::exception&) {  // of the standard library
      failed_captures_++;
    }
  }

  void Freeze() { session_->Freeze(); }

  // Gives the session up: what runs or waits ends soon, with backend.device-lost.
  void Cancel() {
    cancelled_ = true;
    session_->Cancel();
  }

  int32_t num_blocks() const { return plan_.limits.num_blocks; }
  size_t UsedBytes(Arena arena) const { return session_->memory().UsedBytes(arena); }
  ExecutorCounters counters() const {
    ExecutorCounters counters{steps_, captures_, replays_, rebinds_, session_->counters()};
    counters.session.fallbacks += failed_captures_;
    return counters;
  }

 private:
  Executor(Plan plan, DeviceGroup& group) : plan_(std::move(plan)), group_(group) {}

  // Of a step that has just ended. As the host sees it, a step that was enqueued while another ran has computed since that one ended.
  StepTimes TimesOf(const Ticket& ticket) {
    const auto now = Clock::now(), before = last_finish_ == Clock::time_point{} ? ticket.start : last_finish_;
    const auto begin = std::max(ticket.start, before);
    last_finish_ = now;
    StepTimes times;
    if (is_asynchronous() && session_->TimesOfStep(&times)) return times;
    return {.compute_us = Micros(now - begin), .idle_us = Micros(begin - before)};
  }
  static uint64_t Micros(Clock::duration time) {
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(time).count());
  }
  static int32_t Word(uint64_t value) { return static_cast<int32_t>(std::min<uint64_t>(value, INT32_MAX)); }

  static Status Cancelled() { return Status(StatusCode::kDeviceLost, "the session was given up"); }

  // All else has been allocated.
  Status FitKvCache(uint64_t spare_bytes) {
    const std::optional<size_t> free_bytes = session_->memory().FreeBytes();
    int64_t block_bytes = 0;
    for (const PlanKvLayer& layer : plan_.kv_layers) block_bytes += group_.KvBlockBytes(layer, plan_.limits.block_size);
    if (!free_bytes.has_value() || block_bytes == 0) return Status::Ok();
    const uint64_t room = *free_bytes > spare_bytes ? *free_bytes - spare_bytes : 0;
    const uint64_t num_fitting = room / static_cast<uint64_t>(block_bytes);
    if (num_fitting == 0)
      return Status::Error(StatusCode::kOutOfMemory,
                           "no block of the KV cache (%lld bytes) fits: %zu bytes are free once weights and workspace are there, and %llu are to stay "
                           "free (gpuMemoryUtilization)",
                           static_cast<long long>(block_bytes), *free_bytes, static_cast<unsigned long long>(spare_bytes));
    plan_.limits.num_blocks = static_cast<int32_t>(std::min<uint64_t>(static_cast<uint64_t>(plan_.limits.num_blocks), num_fitting));
    return Status::Ok();
  }

  void AskCaptureStates(const std::vector<WeightRequest>& weights) {
    for (const PlanOp& op : plan_.ops) {
      OpQuery query{.op = op.id, .attr_words = op.attr_words};
      for (const auto& operands : {op.inputs, std::array<int32_t, kMaxOpInputs>{op.outputs[0], op.outputs[1], -1, -1, -1, -1}})
        for (const int32_t index : operands) {
          if (index < 0) continue;
          const PlanTensor& tensor = plan_.tensors[static_cast<size_t>(index)];
          query.dtypes.push_back(tensor.dtype);
          if (tensor.kind == TensorKind::kWeight && tensor.rank == 2)
            query.weight_scheme = weights[static_cast<size_t>(tensor.argument)].scheme;
        }
      capture_states_.push_back(group_.Negotiate(query).capture);
    }
  }

  Status RunEmptyStep() {
    std::array<int32_t, kStepHeaderWords> step{};
    std::array<int32_t, kResultHeaderWords> result{};
    step[static_cast<size_t>(StepField::kMagic)] = kStepMagic;
    step[static_cast<size_t>(StepField::kVersion)] = kStepVersion;
    step[static_cast<size_t>(StepField::kSizeWords)] = kStepHeaderWords;
    return Run(step.data(), step.size(), result.data(), result.size());
  }

  // fn(call) for every call of a step, in order, up to the first error.
  template <typename F>
  Status ForEachCall(int32_t num_logit_rows, F&& fn) const {
    for (const PlanSegment& segment : plan_.segments) {
      const int32_t tile = segment.tile > 0 ? segment.tile : num_logit_rows;
      int32_t first_row = 0;
      do {
        const int32_t num_rows = std::min(tile, num_logit_rows - first_row);
        for (int32_t i = 0; i < segment.num_ops; ++i)
          TENON_RETURN_IF_ERROR(fn(OpCall{segment.first_op + i, first_row, num_rows}));
        first_row += num_rows;
      } while (first_row < num_logit_rows);
    }
    return Status::Ok();
  }

  Status RunOps(const StepView& host_step, const StepView& step, const ResultView& result) {
    steps_++;
    if (step.capture_key == 0 || capture_states_.empty()) return RunEagerly(step);
    Recording* recording = recordings_.Find(step, result);
    const bool is_fresh = recording == nullptr;
    if (is_fresh) {
      if (recordings_.is_full()) return RunEagerly(step);
      recording = recordings_.Add(step, result, Recording(host_step));
      num_logit_rows_ = step.num_logit_rows;
      if (session_->RecordsAfterwards()) {
        unrecorded_ = recording;
      } else {
        Record(recording);
      }
    }
    if (!recording->Fits(host_step))
      return Status::Error(StatusCode::kStepFailed, "captureKey %d was that of a step of another shape", step.capture_key);
    if (!recording->is_playable()) return RunEagerly(step);
    replays_++;
    uint64_t num_rebound = 0;
    Status status = recording->Play(*session_, *caller_, is_fresh, &num_rebound);
    rebinds_ += num_rebound;
    return status;
  }

  Status RunEagerly(const StepView& step) {
    return ForEachCall(step.num_logit_rows, [this](const OpCall& call) {
      if (cancelled_.load(std::memory_order_relaxed)) [[unlikely]] return Cancelled();
      return caller_->Call(call.op, call.first_row, call.num_rows);
    });
  }

  // Records the step that is bound; runs nothing. A step that cannot be recorded is not tried again.
  void Record(Recording* recording) {
    StepRecorder recorder(*session_, *caller_);
    std::vector<RecordedPiece> pieces;
    Status status = ForEachCall(num_logit_rows_, [&](const OpCall& call) {
      return recorder.Add(call, capture_states_[static_cast<size_t>(call.op)]);
    });
    if (!recorder.Finish(std::move(status), &pieces).ok()) {
      failed_captures_++;
      return;
    }
    captures_++;
    recording->set_pieces(std::move(pieces));
  }

  Plan plan_;
  DeviceGroup& group_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<OpCaller> caller_;
  void* workspace_ = nullptr;
  std::vector<CaptureState> capture_states_;  // by op; empty where the session records nothing
  Recordings recordings_;
  Recording* unrecorded_ = nullptr;  // of the step that was enqueued last
  int32_t num_logit_rows_ = 0;       // of the step that is to be recorded
  Clock::time_point last_finish_{};  // the completion thread's
  std::atomic<bool> cancelled_{false};
  std::atomic<uint64_t> steps_{0}, captures_{0}, replays_{0}, rebinds_{0}, failed_captures_{0};
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
