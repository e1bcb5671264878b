// The session of the timed device: a timeline in place of a GPU.
#pragma once

#include <sys/prctl.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tenon/device.h"

namespace tenon_timed {

using tenon::Status;
using Clock = std::chrono::steady_clock;

// Microseconds. TENON_TIMED_COSTS has others than these, of a 0.6B model on an H200: `step=900,launch=2.5`.
struct Costs {
  double step = 850;         // of any step, on the device
  double row = 6;            // a sequence's next token
  double prompt_token = 4;   // a token of a prompt
  double kv_token = 0.027;   // a token in the cache that a step reads
  double launch = 2.5;       // a call of an op, on the CPU
  double record = 2;         // the same while it is recorded
  double instantiate = 6;    // a recorded call, when the recording is made
  double replay = 12;        // a recording, on the CPU

  static Status Read(Costs* costs) {
    const char* text = std::getenv("TENON_TIMED_COSTS");
    for (std::string rest = text == nullptr ? "" : text; !rest.empty();) {
      const size_t comma = rest.find(','), equals = rest.find('=');
      double* cost = costs->Named(rest.substr(0, equals));
      if (cost == nullptr || equals == std::string::npos)
        return Status::Error(tenon::StatusCode::kInvalidOption, "TENON_TIMED_COSTS: %s is no cost", rest.c_str());
      *cost = std::strtod(rest.c_str() + equals + 1, nullptr);
      rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    }
    return Status::Ok();
  }

 private:
  double* Named(const std::string& name) {
    if (name == "step") return &step;
    if (name == "row") return &row;
    if (name == "prompt_token") return &prompt_token;
    if (name == "kv_token") return &kv_token;
    if (name == "launch") return &launch;
    if (name == "record") return &record;
    if (name == "instantiate") return &instantiate;
    return name == "replay" ? &replay : nullptr;
  }
};

inline Clock::duration Micros(double micros) { return std::chrono::nanoseconds(static_cast<int64_t>(micros * 1e3)); }
inline double MicrosOf(Clock::duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

// What a driver's call costs the thread that makes it.
inline void Spend(double micros) {
  const auto end = Clock::now() + Micros(micros);
  while (Clock::now() < end);
}

struct TimedGraph final : tenon::Graph {};

// Memory that nobody touches.
class NoMemory final : public tenon::MemoryPool {
 public:
  Status Allocate(tenon::Arena arena, size_t bytes, void** data) override {
    *data = reinterpret_cast<void*>(next_);
    next_ += (bytes + 4095) / 4096 * 4096;
    used_[static_cast<size_t>(arena)] += bytes;
    return Status::Ok();
  }
  void Free(void*) override {}
  size_t UsedBytes(tenon::Arena arena) const override { return used_[static_cast<size_t>(arena)]; }

 private:
  uintptr_t next_ = uintptr_t{1} << 40;
  std::array<std::atomic<size_t>, tenon::kNumArenas> used_{};
};

// Ops that are launches.
class TimedOps final : public tenon::Gemm, public tenon::Attention, public tenon::Ops {
 public:
  explicit TimedOps(const Costs& costs) : costs_(costs) {}
  void BeginRecording() { num_recorded_ = 0, is_recording_ = true; }
  int EndRecording() { return is_recording_ = false, num_recorded_; }

  Status Linear(const tenon::LinearParams&, tenon::Stream) override { return Launch(); }
  Status LinearGated(const tenon::GatedLinearParams&, tenon::Stream) override { return Launch(); }
  Status Run(const tenon::AttentionOpParams&, tenon::Stream) override { return Launch(); }
  Status Embedding(const tenon::EmbeddingOpParams&, tenon::Stream) override { return Launch(); }
  Status RmsNorm(const tenon::RmsNormOpParams&, tenon::Stream) override { return Launch(); }
  Status RopeCosSin(const tenon::RopeCosSinOpParams&, tenon::Stream) override { return Launch(); }
  Status Rope(const tenon::RopeOpParams&, tenon::Stream) override { return Launch(); }
  Status KvWrite(const tenon::KvWriteOpParams&, tenon::Stream) override { return Launch(); }
  Status QkvRopeKvWrite(const tenon::QkvRopeKvWriteOpParams&, tenon::Stream) override { return Launch(); }
  Status Add(const tenon::AddOpParams&, tenon::Stream) override { return Launch(); }
  Status GatedAct(const tenon::GatedActOpParams&, tenon::Stream) override { return Launch(); }
  Status GatherRows(const tenon::GatherRowsOpParams&, tenon::Stream) override { return Launch(); }
  Status Sample(const tenon::SampleOpParams&, tenon::Stream) override { return Launch(); }

 private:
  Status Launch() {
    if (is_recording_) ++num_recorded_;
    Spend(is_recording_ ? costs_.record : costs_.launch);
    return Status::Ok();
  }

  const Costs costs_;
  bool is_recording_ = false;
  int num_recorded_ = 0;
};

class TimedSession final : public tenon::Session {
 public:
  TimedSession(const tenon::Plan& plan, const Costs& costs) : plan_(plan), costs_(costs), ops_(costs) {}

  Status LoadWeights(const std::vector<tenon::WeightRequest>& requests, const tenon::ProgressFn&,
                     std::vector<const void*>* handles) override {
    for (size_t i = 0; i < requests.size(); ++i) handles->push_back(this);
    for (Lane& lane : lanes_) lane.staged.resize(tenon::StepView::MaxPlainWords(plan_.limits));
    void* data = nullptr;
    TENON_RETURN_IF_ERROR(memory_.Allocate(tenon::Arena::kWorkspace, 1 << 20, &data));
    device_step_ = static_cast<int32_t*>(data);
    TENON_RETURN_IF_ERROR(memory_.Allocate(tenon::Arena::kWorkspace, 1 << 20, &data));
    device_result_ = static_cast<int32_t*>(data);
    return Status::Ok();
  }
  Status CreateKvCache(std::vector<tenon::KvHandle>* handles) override {
    for (size_t i = 0; i < plan_.kv_layers.size(); ++i) handles->push_back(this);
    return Status::Ok();
  }

  tenon::MemoryPool& memory() override { return memory_; }
  tenon::Gemm& gemm() override { return ops_; }
  tenon::Attention& attention() override { return ops_; }
  tenon::Ops& ops() override { return ops_; }
  tenon::Stream stream() override { return {}; }

  Status BeginStep(const tenon::StepView& host_step, const tenon::ResultView& host_result, tenon::StepView* step,
                   tenon::ResultView* result) override {
    Lane& lane = lanes_[num_begun_ % lanes_.size()];
    lane.staged.resize(std::max(lane.staged.size(), host_step.packed_words()));
    *step = host_step.Pack(lane.staged.data()).Rebased(device_step_);
    *result = host_result.Rebased(device_result_);
    lane.result = host_result;
    lane.modes.assign(host_step.HostInts(tenon::StepRegion::kRowModes), host_step.HostInts(tenon::StepRegion::kRowModes) + host_step.num_logit_rows);
    lane.work = Micros(WorkOf(host_step));
    lane.begin = Clock::now();
    return Status::Ok();
  }
  // The device has the step from its upload on, and does not end it before its last launch.
  Status EndStep() override {
    Lane& lane = lanes_[num_begun_++ % lanes_.size()];
    const auto begin = std::max(lane.begin, device_end_);
    lane.end = std::max(begin + lane.work, Clock::now());
    lane.idle = device_end_ == Clock::time_point{} ? Clock::duration{} : lane.end - device_end_ - lane.work;
    device_end_ = lane.end;
    return Status::Ok();
  }
  bool IsAsynchronous() const override { return true; }
  Status WaitStep() override {
    thread_local const int punctual = prctl(PR_SET_TIMERSLACK, 1'000UL);
    static_cast<void>(punctual);
    Lane& lane = lanes_[num_waited_++ % lanes_.size()];
    std::this_thread::sleep_until(lane.end);
    const size_t rows = lane.modes.size();
    for (size_t row = 0; row < rows; ++row) {
      lane.result.tokens[row] = (lane.modes[row] & tenon::kRowSample) != 0 ? 1000 : -1;
      lane.result.logprobs[row] = 0;
      lane.result.ranks[row] = 0;
    }
    return Status::Ok();
  }
  bool TimesOfStep(tenon::StepTimes* times) override {
    const Lane& lane = lanes_[(num_waited_ + lanes_.size() - 1) % lanes_.size()];
    *times = {.compute_us = static_cast<uint64_t>(MicrosOf(lane.work)), .idle_us = static_cast<uint64_t>(MicrosOf(lane.idle))};
    return true;
  }

  bool CanCapture() const override { return true; }
  bool RecordsAfterwards() const override { return true; }
  Status BeginCapture() override {
    ops_.BeginRecording();
    return Status::Ok();
  }
  Status EndCapture(std::unique_ptr<tenon::Graph>* graph) override {
    Spend(costs_.instantiate * ops_.EndRecording());
    *graph = std::make_unique<TimedGraph>();
    return Status::Ok();
  }
  Status Replay(tenon::Graph&) override {
    Spend(costs_.replay);
    return Status::Ok();
  }

 private:
  // A step in flight.
  struct Lane {
    std::vector<int32_t> staged, modes;
    tenon::ResultView result;
    Clock::time_point begin, end;
    Clock::duration work{}, idle{};
  };

  double WorkOf(const tenon::StepView& step) const {
    const int32_t* seq_lens = step.HostInts(tenon::StepRegion::kSeqLens);
    double kv_tokens = 0;
    for (int32_t s = 0; s < step.num_seqs; ++s) kv_tokens += seq_lens[s];
    const int32_t prompt_tokens = step.num_tokens - step.num_seqs;
    return costs_.step + costs_.row * step.num_seqs + costs_.prompt_token * prompt_tokens + costs_.kv_token * kv_tokens;
  }

  const tenon::Plan& plan_;
  const Costs costs_;
  NoMemory memory_;
  TimedOps ops_;
  std::array<Lane, 2> lanes_;
  int32_t* device_step_ = nullptr;
  int32_t* device_result_ = nullptr;
  size_t num_begun_ = 0, num_waited_ = 0;
  Clock::time_point device_end_{};
};

}  // namespace tenon_timed
