// A session of a pretended device, for tests of the executor: memory of its own, a stream that runs what is enqueued some
// time later on a thread of its own, and recordings. What its ops touch is a TouchingSession's, on the stream's thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "touching_session.h"

namespace tenon {

// Runs what is enqueued in order, on a thread.
class FakeStream {
 public:
  using Work = std::function<void()>;

  FakeStream() : thread_([this] { Loop(); }) {}
  ~FakeStream() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }

  void Enqueue(Work work) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    changed_.notify_all();
  }
  // Whether the condition, over what the stream's work changes by Update, came true before `cancelled`.
  bool WaitFor(const std::function<bool()>& condition, const std::atomic<bool>& cancelled) {
    std::unique_lock lock(mutex_);
    while (!condition() && !cancelled) changed_.wait_for(lock, std::chrono::milliseconds(1));
    return condition();
  }
  void Update(const std::function<void()>& change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  // Nothing more is run until then.
  void Hang(bool hangs) {
    Update([&] { hangs_ = hangs; });
  }

 private:
  void Loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return ending_ || (!hangs_ && !queue_.empty()); });
      if (ending_) return;
      Work work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> queue_;
  bool ending_ = false;
  bool hangs_ = false;
  std::thread thread_;
};

// What the tests look at; it outlives the session.
struct StreamingLog {
  std::atomic<int> max_in_flight{0};
  std::atomic<int> stale_parameters{0};  // attention ran with values of another step
  std::atomic<bool> capture_fails{false};
  std::atomic<bool> records_afterwards{false};
  std::atomic<bool> hangs{false};
  std::atomic<bool> obeys_cancel{true};
  // What sessions say of memory and of the times of steps.
  std::optional<size_t> free_bytes;
  std::optional<StepTimes> times;
};

struct FakeGraph final : Graph {
  struct Node {
    bool rebinds;
    FakeStream::Work work;
  };
  std::vector<Node> nodes;
};

class StreamingSession final : public Session, public Gemm, public Attention, public Ops {
 public:
  static constexpr int kStepsInFlight = 2;

  StreamingSession(const Plan& plan, StreamingLog& log) : plan_(plan), log_(log), touching_(plan) {
    touching_.memory().free_bytes = log.free_bytes;
  }

  Status LoadWeights(const std::vector<WeightRequest>& requests, const ProgressFn& progress,
                     std::vector<const void*>* handles) override {
    return touching_.LoadWeights(requests, progress, handles);
  }
  Status CreateKvCache(std::vector<KvHandle>* handles) override { return touching_.CreateKvCache(handles); }
  MemoryPool& memory() override { return touching_.memory(); }
  Gemm& gemm() override { return *this; }
  Attention& attention() override { return *this; }
  Ops& ops() override { return *this; }

  Status BeginStep(const StepView& host_step, const ResultView& host_result, StepView* step, ResultView* result) override {
    Slot& slot = slots_[num_begun_ % kStepsInFlight];
    log_.max_in_flight = std::max<int>(log_.max_in_flight, num_begun_ - num_waited_ + 1);
    slot.staged_step.resize(host_step.packed_words());
    if (slot.step.empty()) slot.step.resize(StepView::MaxPlainWords(plan_.limits) + 4096);
    if (slot.result.empty()) slot.result.resize(4096);
    slot.host_result = host_result;
    const StepView staged = host_step.Pack(slot.staged_step.data());
    stream_.Enqueue([&slot] { std::copy(slot.staged_step.begin(), slot.staged_step.end(), slot.step.begin()); });
    *step = staged.Rebased(slot.step.data());
    *result = host_result.Rebased(slot.result.data());
    return Status::Ok();
  }
  Status EndStep() override {
    Slot& slot = slots_[num_begun_++ % kStepsInFlight];
    if (log_.hangs) stream_.Hang(true);
    stream_.Enqueue([this, &slot] {
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      slot.staged_result.assign(slot.result.begin(), slot.result.begin() + static_cast<int64_t>(slot.host_result.size_words()));
      stream_.Update([this] { num_done_++; });
    });
    return Status::Ok();
  }

  bool IsAsynchronous() const override { return true; }
  Status WaitStep() override {
    const bool done = stream_.WaitFor([this] { return num_done_ > num_waited_; }, cancelled_);
    if (!done) return Status::Error(StatusCode::kDeviceLost, "given up");
    const Slot& slot = slots_[num_waited_ % kStepsInFlight];
    std::copy(slot.staged_result.begin(), slot.staged_result.end(), slot.host_result.words());
    num_waited_++;
    return Status::Ok();
  }
  bool TimesOfStep(StepTimes* times) override {
    if (log_.times.has_value()) *times = *log_.times;
    return log_.times.has_value();
  }
  void Cancel() override { cancelled_ = log_.obeys_cancel.load(); }
  void StopHanging() { stream_.Hang(false); }

  bool CanCapture() const override { return true; }
  bool RecordsAfterwards() const override { return log_.records_afterwards; }
  Status BeginCapture() override {
    if (log_.capture_fails) return Status::Error(StatusCode::kStepFailed, "no capture today");
    recording_ = std::make_unique<FakeGraph>();
    return Status::Ok();
  }
  Status EndCapture(std::unique_ptr<Graph>* graph) override {
    *graph = std::move(recording_);
    return Status::Ok();
  }
  Status Replay(Graph& graph) override {
    for (const FakeGraph::Node& node : static_cast<FakeGraph&>(graph).nodes) stream_.Enqueue(node.work);
    return Status::Ok();
  }
  Status BeginRebind(Graph& graph) override {
    rebinding_ = &static_cast<FakeGraph&>(graph);
    next_node_ = 0;
    return Status::Ok();
  }
  Status EndRebind() override {
    rebinding_ = nullptr;
    return Status::Ok();
  }
  void Freeze() override { frozen_ = true; }
  SessionCounters counters() const override { return {.compiles = frozen_ ? 7u : 1u}; }

  // y[r, :] = the token's id; what a step computes differs from that of others.
  Status Embedding(const EmbeddingOpParams& p, Stream) override {
    return Op(p, [](TouchingSession&, const EmbeddingOpParams& q) {
      for (int64_t i = 0; i < q.rows * q.hidden; ++i)
        static_cast<float*>(q.y)[i] = static_cast<float>(q.token_ids[i / q.hidden]);
    });
  }
  // Its launch needs the longest sequence, which only the host knows in time.
  Status Run(const AttentionOpParams& p, Stream stream) override {
    const int32_t longest = Longest(*p.step, p.step->HostInts(StepRegion::kSeqLens));
    const auto work = [this, longest, stream](TouchingSession& device, const AttentionOpParams& q) {
      if (Longest(*q.step, q.step->Ints(StepRegion::kSeqLens)) != longest) log_.stale_parameters++;
      static_cast<void>(device.attention().Run(q, stream));
    };
    return Op(p, work, true);
  }
  // tokens[row] = the low word of its seed.
  Status Sample(const SampleOpParams& p, Stream stream) override {
    return Op(p, [stream](TouchingSession& device, const SampleOpParams& q) {
      static_cast<void>(device.ops().Sample(q, stream));
      for (int64_t row = q.first_row; row < q.first_row + q.num_rows; ++row)
        q.result->tokens[row] = q.step->Ints(StepRegion::kSeedLow)[row];
    });
  }
  Status Linear(const LinearParams& p, Stream) override { return Forward<&Gemm::Linear>(p); }
  Status LinearGated(const GatedLinearParams& p, Stream) override { return Forward<&Gemm::LinearGated>(p); }
  Status RmsNorm(const RmsNormOpParams& p, Stream) override { return Forward<&Ops::RmsNorm>(p); }
  Status RopeCosSin(const RopeCosSinOpParams& p, Stream) override { return Forward<&Ops::RopeCosSin>(p); }
  Status Rope(const RopeOpParams& p, Stream) override { return Forward<&Ops::Rope>(p); }
  Status KvWrite(const KvWriteOpParams& p, Stream) override { return Forward<&Ops::KvWrite>(p); }
  Status QkvRopeKvWrite(const QkvRopeKvWriteOpParams& p, Stream) override { return Forward<&Ops::QkvRopeKvWrite>(p); }
  Status Add(const AddOpParams& p, Stream) override { return Forward<&Ops::Add>(p); }
  Status GatedAct(const GatedActOpParams& p, Stream) override { return Forward<&Ops::GatedAct>(p); }
  Status GatherRows(const GatherRowsOpParams& p, Stream) override { return Forward<&Ops::GatherRows>(p); }

  // Work in its place among the ops.
  Status Enqueue(FakeStream::Work work, bool rebinds = false) {
    if (rebinding_ != nullptr) {
      while (!rebinding_->nodes[next_node_].rebinds) next_node_++;
      rebinding_->nodes[next_node_++].work = std::move(work);
    } else if (recording_ != nullptr) {
      recording_->nodes.push_back({rebinds, std::move(work)});
    } else {
      stream_.Enqueue(std::move(work));
    }
    return Status::Ok();
  }

 private:
  struct Slot {
    std::vector<int32_t> staged_step, step, result, staged_result;
    ResultView host_result;
  };

  static int32_t Longest(const StepView& step, const int32_t* seq_lens) {
    return step.num_seqs == 0 ? 0 : *std::max_element(seq_lens, seq_lens + step.num_seqs);
  }

  // Copies the parameters with the views they point to: they are gone when the stream comes to the work.
  template <typename Params, typename Work>
  Status Op(const Params& params, Work work, bool rebinds = false) {
    if constexpr (requires { params.result; }) {
      return Enqueue([this, q = params, step = *params.step, result = *params.result, work]() mutable {
        q.step = &step;
        q.result = &result;
        work(touching_, q);
      });
    } else if constexpr (requires { params.step; }) {
      return Enqueue([this, q = params, step = *params.step, work]() mutable {
        q.step = &step;
        work(touching_, q);
      }, rebinds);
    } else {
      return Enqueue([this, q = params, work] { work(touching_, q); });
    }
  }
  template <auto method, typename Params>
  Status Forward(const Params& params) {
    return Op(params, [](TouchingSession& device, const Params& q) { static_cast<void>((device.*method)(q, Stream{})); });
  }

  const Plan& plan_;
  StreamingLog& log_;
  TouchingSession touching_;
  Slot slots_[kStepsInFlight];
  std::atomic<int> num_begun_{0}, num_waited_{0};
  int num_done_ = 0;  // the stream's lock
  std::atomic<bool> cancelled_{false}, frozen_{false};
  std::unique_ptr<FakeGraph> recording_;
  FakeGraph* rebinding_ = nullptr;
  size_t next_node_ = 0;
  FakeStream stream_;  // last: its work uses all of the above
};

class StreamingGroup final : public DeviceGroup {
 public:
  StreamingLog log;
  StreamingSession* session = nullptr;
  std::map<OpId, CaptureState> states;

  SchedulingConstraints Constraints() const override { return {.steps_in_flight = StreamingSession::kStepsInFlight}; }
  int64_t KvBlockBytes(const PlanKvLayer&, int) const override { return 100; }
  OpAnswer Negotiate(const OpQuery& query) const override {
    const auto state = states.find(query.op);
    return {.capture = state == states.end() ? CaptureState::kSafe : state->second};
  }
  bool BatchInvariant() const override { return true; }
  Collective& collective() override { return collective_; }
  Status CreateSession(const Plan& plan, std::unique_ptr<Session>* out) override {
    auto made = std::make_unique<StreamingSession>(plan, log);
    session = made.get();
    *out = std::move(made);
    return Status::Ok();
  }

 private:
  SingleRank collective_;
};

}  // namespace tenon
