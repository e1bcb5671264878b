// sdk_async_test: the executor with an asynchronous session that records, the threads it runs on, packed steps, and
// collectives between two ranks. The thread sanitizer watches it in scripts/sanitize.sh.
#include <barrier>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>

#include "streaming_session.h"
#include "tenon/device_threads.h"

namespace tenon {
namespace {

int failures = 0;

#define EXPECT(condition, ...)                      \
  do {                                              \
    if (!(condition) && ++failures <= 20) {         \
      std::printf("%s:%d: ", __FILE__, __LINE__);   \
      std::printf(__VA_ARGS__);                     \
      std::printf("\n");                            \
    }                                               \
  } while (false)

constexpr int32_t kRows = 3;
constexpr size_t kResultWords = kResultHeaderWords + kRows * 7 + 8 * kHidden;

int32_t& Field(std::vector<int32_t>& step, StepField field) { return step[static_cast<size_t>(field)]; }

// MakeStep's step without lists, with values that are its number's own.
std::vector<int32_t> NumberedStep(int32_t number, int32_t capture_key = 0) {
  std::vector<int32_t> step = MakeStep(kRows);
  for (int32_t i = 0; i < kNumStepRegions; ++i)
    if (step_internal::IsRagged(static_cast<StepRegion>(i))) step[static_cast<size_t>(kStepHeaderFields + i)] = 0;
  Field(step, StepField::kNumHistorySeqs) = 0;
  Field(step, StepField::kStepId) = number;
  Field(step, StepField::kCaptureKey) = capture_key;
  for (size_t token = 0; token < 8; ++token) WordOf(step, StepRegion::kTokenIds, token) = (number + static_cast<int32_t>(token)) % kVocab;
  for (size_t row = 0; row < kRows; ++row) WordOf(step, StepRegion::kSeedLow, row) = 100 * number + static_cast<int32_t>(row);
  WordOf(step, StepRegion::kSeqLens, 1) = 10 + number % 3;
  return step;
}

bool IsResultOf(int32_t number, const std::vector<int32_t>& result) {
  bool same = result[0] == number && result[1] == 0 && result[2] == kRows && result[3] == 2;
  for (int32_t row = 0; row < kRows; ++row) same = same && result[static_cast<size_t>(8 + row)] == 100 * number + row;
  const auto* x = reinterpret_cast<const float*>(&result[kResultHeaderWords + kRows * 7]);
  for (int32_t i = 0; i < 8 * kHidden; ++i) same = same && x[i] == static_cast<float>((number + i / kHidden) % kVocab);
  return same;
}

template <typename Group>
std::unique_ptr<Executor> LoadPlan(const TestPlan& test, Group& group) {
  Plan plan;
  std::unique_ptr<Executor> executor;
  Status status = Plan::Parse(test.words.data(), test.words.size(), &plan);
  if (status.ok()) status = Executor::Create(std::move(plan), test.weights, group, &executor);
  if (status.ok()) status = executor->Load(test.weights, [](uint64_t, uint64_t) {});
  EXPECT(status.ok(), "load: %s", status.message().c_str());
  return executor;
}

Status RunStep(Executor& executor, const std::vector<int32_t>& step, std::vector<int32_t>* result) {
  result->assign(kResultWords, -7);
  return executor.Run(step.data(), step.size(), result->data(), result->size());
}

// A packed step has the same values, tightly, wherever its words are.
void TestPacking() {
  Plan plan;
  const TestPlan test = MakePlan();
  EXPECT(Plan::Parse(test.words.data(), test.words.size(), &plan).ok(), "plan");
  for (const std::vector<int32_t>& words : {MakeStep(kRows), NumberedStep(5)}) {
    StepView step;
    const Status parsed = StepView::Parse(words.data(), words.size(), plan.limits, &step);
    EXPECT(parsed.ok(), "%s", parsed.message().c_str());
    std::vector<int32_t> staging(step.packed_words()), device(step.packed_words());
    const StepView packed = step.Pack(staging.data());
    EXPECT(packed.size_words() == staging.size() && packed.words() == staging.data(), "%zu words", packed.size_words());
    const StepView rebased = packed.Rebased(device.data());
    device = staging;
    for (int32_t i = 0; i < kNumStepRegions; ++i) {
      const auto region = static_cast<StepRegion>(i);
      const int64_t size = step.Size(region);
      EXPECT(rebased.Size(region) == size, "region %d: %lld", i, static_cast<long long>(rebased.Size(region)));
      if (size == 0) continue;
      EXPECT(std::equal(step.Ints(region), step.Ints(region) + size, rebased.Ints(region)), "region %d", i);
      EXPECT(rebased.HostInts(region) == packed.Ints(region), "region %d on the host", i);
      EXPECT((rebased.Ints(region) - device.data()) % 4 == 0, "region %d is not aligned", i);
    }
    // The words alone say the same.
    StepView again;
    EXPECT(StepView::Parse(device.data(), device.size(), plan.limits, &again).ok(), "packed words");
    EXPECT(again.Size(StepRegion::kBlockTables) == 6 && again.block_table(1)[1] == step.block_table(1)[1], "tables");
    if (step.num_history_seqs == 0)
      EXPECT(step.packed_words() <= StepView::MaxPlainWords(plan.limits), "%zu words", step.packed_words());
  }
}

void TestCapture() {
  StreamingGroup group;
  group.states = {{OpId::kAttention, CaptureState::kNeedsRebind}, {OpId::kSample, CaptureState::kNever}};
  const auto executor = LoadPlan(MakePlan(), group);
  if (executor == nullptr) return;
  std::vector<int32_t> result;
  // Keys 1 and 2 come in turns, each over both buffers; a step without a key in between.
  for (int32_t number = 1; number <= 40; ++number) {
    const Status ran = RunStep(*executor, NumberedStep(number, number / 2 % 3), &result);
    EXPECT(ran.ok() && IsResultOf(number, result), "step %d: %s", number, ran.message().c_str());
  }
  const ExecutorCounters counters = executor->counters();
  EXPECT(counters.steps == 40 && counters.captures == 4, "%zu steps, %zu captures", size_t{counters.steps}, size_t{counters.captures});
  EXPECT(counters.replays == 27 && counters.rebinds == 23, "%zu replays, %zu rebinds", size_t{counters.replays}, size_t{counters.rebinds});
  EXPECT(group.log.stale_parameters == 0, "%d calls with stale parameters", group.log.stale_parameters.load());

  std::vector<int32_t> other = NumberedStep(41, 1);
  Field(other, StepField::kMaxTopLogprobs) = 1;
  const Status refused = RunStep(*executor, other, &result);
  EXPECT(refused.message().find("another shape") != std::string::npos, "%s", refused.message().c_str());
  other = MakeStep(kRows);
  Field(other, StepField::kCaptureKey) = 9;
  EXPECT(RunStep(*executor, other, &result).message().find("which is a list") != std::string::npos, "lists with a key");
  EXPECT(RunStep(*executor, NumberedStep(42, 2), &result).ok() && IsResultOf(42, result), "a good step after bad ones");

  executor->Freeze();
  EXPECT(executor->counters().session.compiles == 7, "freeze");
}

// Without the rebinding that attention needs, its parameters are those of the recorded step: the test would see it.
void TestStaleParametersShow() {
  StreamingGroup group;
  const auto executor = LoadPlan(MakePlan(), group);
  if (executor == nullptr) return;
  std::vector<int32_t> result;
  for (int32_t number = 1; number <= 6; ++number) EXPECT(RunStep(*executor, NumberedStep(number, 1), &result).ok(), "run");
  EXPECT(group.log.stale_parameters > 0, "replays have read the step's values on the host");
}

// The first step of a key runs eagerly, and is recorded behind it; the host's values are no longer there then.
void TestRecordingAfterwards() {
  StreamingGroup group;
  group.log.records_afterwards = true;
  group.states = {{OpId::kAttention, CaptureState::kNever}, {OpId::kSample, CaptureState::kNever}};
  const auto executor = LoadPlan(MakePlan(), group);
  if (executor == nullptr) return;
  std::vector<int32_t> result;
  for (int32_t number = 1; number <= 40; ++number) {
    const Status ran = RunStep(*executor, NumberedStep(number, number / 2 % 3), &result);
    EXPECT(ran.ok() && IsResultOf(number, result), "step %d: %s", number, ran.message().c_str());
    EXPECT(!executor->HasAfterwork(), "step %d", number);
  }
  const ExecutorCounters counters = executor->counters();
  EXPECT(counters.captures == 4 && counters.replays == 23, "%zu captures, %zu replays", size_t{counters.captures}, size_t{counters.replays});
  std::vector<int32_t> other = NumberedStep(41, 1);
  Field(other, StepField::kMaxTopLogprobs) = 1;
  EXPECT(RunStep(*executor, other, &result).message().find("another shape") != std::string::npos, "a key of another shape");
  Field(other, StepField::kCaptureKey) = 7;
  Field(other, StepField::kMaxTopLogprobs) = 0;
  group.log.capture_fails = true;
  EXPECT(RunStep(*executor, other, &result).ok() && executor->counters().session.fallbacks == 1, "a recording that fails");
}

void TestCaptureThatFails() {
  StreamingGroup group;
  group.log.capture_fails = true;
  const auto executor = LoadPlan(MakePlan(), group);
  if (executor == nullptr) return;
  std::vector<int32_t> result;
  for (int32_t number = 1; number <= 6; ++number) {
    EXPECT(RunStep(*executor, NumberedStep(number, 1), &result).ok() && IsResultOf(number, result), "step %d", number);
    group.log.capture_fails = false;  // it is not tried again for buffers for which it has failed
  }
  const ExecutorCounters counters = executor->counters();
  EXPECT(counters.session.fallbacks == 1 && counters.captures == 1, "%zu fallbacks", size_t{counters.session.fallbacks});
  EXPECT(counters.replays == 3, "%zu replays", size_t{counters.replays});
}

// A result's header says how long the device took and waited: by its own clock, else by the host's.
void TestStepTimes() {
  StreamingGroup group;
  const auto executor = LoadPlan(MakePlan(), group);
  if (executor == nullptr) return;
  std::vector<int32_t> result;
  constexpr size_t kComputeTime = 4, kIdleTime = 5;
  EXPECT(RunStep(*executor, NumberedStep(1), &result).ok(), "run");
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT(RunStep(*executor, NumberedStep(2), &result).ok(), "run");
  EXPECT(result[kIdleTime] >= 20'000, "idle for %d us", result[kIdleTime]);
  EXPECT(result[kComputeTime] >= 0 && result[kComputeTime] < 10'000'000, "%d us", result[kComputeTime]);
  group.log.times = StepTimes{.compute_us = 123, .idle_us = uint64_t{1} << 40};
  EXPECT(RunStep(*executor, NumberedStep(3), &result).ok(), "run");
  EXPECT(result[kComputeTime] == 123 && result[kIdleTime] == INT32_MAX, "%d and %d us", result[kComputeTime], result[kIdleTime]);
}

// The cache gets what is left, at most what the plan has.
void TestKvCacheOfWhatIsLeft() {
  const TestPlan test = MakePlan();
  const auto num_blocks = [&](std::optional<size_t> free_bytes, std::optional<uint64_t> spare_bytes) {
    StreamingGroup group;
    group.log.free_bytes = free_bytes;
    Plan plan;
    std::unique_ptr<Executor> executor;
    Status status = Plan::Parse(test.words.data(), test.words.size(), &plan);
    const auto layer_bytes = static_cast<size_t>(100) * plan.kv_layers.size();
    if (free_bytes.has_value()) group.log.free_bytes = *free_bytes * layer_bytes + 50;
    if (spare_bytes.has_value()) *spare_bytes *= layer_bytes;
    if (status.ok()) status = Executor::Create(std::move(plan), test.weights, group, &executor);
    if (status.ok()) status = executor->Load(test.weights, [](uint64_t, uint64_t) {}, spare_bytes);
    return status.ok() ? executor->num_blocks() : -1;
  };
  const int32_t all = num_blocks({}, {});
  EXPECT(all > 2, "%d blocks", all);
  EXPECT(num_blocks(2, {}) == all, "a size that was given");
  EXPECT(num_blocks({}, 1) == all, "nobody knows what is free");
  EXPECT(num_blocks(1000, 1) == all, "there is room for all");
  EXPECT(num_blocks(7, 5) == 2, "%d blocks", num_blocks(7, 5));
  EXPECT(num_blocks(5, 5) == -1 && num_blocks(4, 5) == -1, "no room");
}

// A step on the threads of a group, as addon/group.h runs it.
class StepJob final : public DeviceJob {
 public:
  StepJob(Executor& executor, std::vector<int32_t> step) : executor_(executor), step_(std::move(step)) {}
  void Run() override {
    status = executor_.Enqueue(step_.data(), step_.size(), result.data(), result.size(), &ticket_);
  }
  bool IsUnderWay() const override { return true; }
  void Wait() override {
    if (status.ok()) status = executor_.Finish(ticket_);
  }
  int32_t number() const { return step_[static_cast<size_t>(StepField::kStepId)]; }

  Status status;
  std::vector<int32_t> result = std::vector<int32_t>(kResultWords, -7);

 private:
  Executor& executor_;
  std::vector<int32_t> step_;
  Executor::Ticket ticket_;
};

class FunctionJob final : public DeviceJob {
 public:
  explicit FunctionJob(std::function<void()> fn) : fn_(std::move(fn)) {}
  void Run() override { fn_(); }

 private:
  std::function<void()> fn_;
};

// What is done, in order, and a way to wait for it.
class DoneList {
 public:
  void Add(DeviceJob* job) {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(job);
    changed_.notify_all();
  }
  std::vector<DeviceJob*> WaitFor(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return jobs_.size() >= count; });
    return jobs_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<DeviceJob*> jobs_;
};

// Steps overlap, end in order (bad ones too), and closing comes after all of them.
void TestStepsInFlight() {
  StreamingGroup group;
  group.states = {{OpId::kAttention, CaptureState::kNeedsRebind}};
  std::unique_ptr<Executor> executor;
  DoneList done;
  DeviceThreads threads([] {}, [&](DeviceJob* job) { done.Add(job); });
  FunctionJob load([&] {
    executor = LoadPlan(MakePlan(), group);
    threads.StartCompletions();
  });
  threads.Post(&load);
  done.WaitFor(1);
  std::vector<std::unique_ptr<StepJob>> steps;
  for (int32_t number = 1; number <= 60; ++number) {
    std::vector<int32_t> step = NumberedStep(number, number % 2);
    if (number % 10 == 5) WordOf(step, StepRegion::kTokenIds, 0) = kVocab;
    steps.push_back(std::make_unique<StepJob>(*executor, std::move(step)));
    threads.Post(steps.back().get());
    done.WaitFor(steps.size());  // the loading, and all steps but this one
  }
  FunctionJob close([&] {
    threads.WaitForCompletions();
    executor.reset();
  });
  threads.Post(&close);
  const std::vector<DeviceJob*> jobs = done.WaitFor(62);
  EXPECT(jobs.size() == 62 && executor == nullptr, "%zu jobs ended", jobs.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    const StepJob& step = *steps[i];
    EXPECT(jobs[i + 1] == &step, "step %d is out of order", step.number());
    const bool bad = step.number() % 10 == 5;
    EXPECT(bad ? step.status.code() == StatusCode::kStepFailed : step.status.ok() && IsResultOf(step.number(), step.result),
           "step %d: %s", step.number(), step.status.message().c_str());
  }
  EXPECT(group.log.max_in_flight == 2 && group.log.stale_parameters == 0, "%d in flight", group.log.max_in_flight.load());
  std::vector<DeviceJob*> waiting;
  EXPECT(threads.End([] {}, &waiting) && waiting.empty(), "the end");
}

// A device that hangs: a session that obeys Cancel lets the threads end, another is left behind.
void TestHang(bool obeys_cancel) {
  using std::chrono::milliseconds;
  StreamingGroup group;
  group.log.obeys_cancel = obeys_cancel;
  DoneList done;
  auto* threads = new DeviceThreads([] {}, [&](DeviceJob* job) { done.Add(job); });
  std::unique_ptr<Executor> executor;
  FunctionJob load([&] {
    executor = LoadPlan(MakePlan(), group);
    threads->StartCompletions();
  });
  threads->Post(&load);
  done.WaitFor(1);
  group.log.hangs = true;
  StepJob first(*executor, NumberedStep(1)), second(*executor, NumberedStep(2));
  std::atomic<bool> is_closing{false};
  FunctionJob close([&] {
    is_closing = true;
    threads->WaitForCompletions();
  });
  FunctionJob never([] {});
  for (DeviceJob* job : std::initializer_list<DeviceJob*>{&first, &second, &close, &never}) threads->Post(job);
  while (!is_closing) std::this_thread::sleep_for(milliseconds(1));
  std::vector<DeviceJob*> waiting;
  const bool ended = threads->End([&] { executor->Cancel(); }, &waiting, milliseconds(20), milliseconds(100));
  EXPECT(ended == obeys_cancel, "ended: %d", ended);
  if (!ended) {
    group.session->StopHanging();
    done.WaitFor(4);
    static std::vector<DeviceThreads*> left_behind;  // abandoned threads need them for ever
    left_behind.push_back(threads);
    std::this_thread::sleep_for(milliseconds(20));
  } else {
    EXPECT(first.status.code() == StatusCode::kDeviceLost && second.status.code() == StatusCode::kDeviceLost, "%s",
           first.status.message().c_str());
    EXPECT(first.result[8] == -7, "a result was written after Cancel");
    EXPECT(waiting == std::vector<DeviceJob*>{&never}, "%zu jobs were left", waiting.size());
    delete threads;
    group.session->StopHanging();
  }
}

// Two ranks in one process, whose streams meet at every call.
struct Meeting {
  std::barrier<> barrier{2};
  CollectiveParams params[2];
};

class MeetingRank final : public Collective {
 public:
  MeetingRank(Meeting& meeting, int rank) : meeting_(meeting), rank_(rank) {}
  StreamingSession* session = nullptr;
  int rank() const override { return rank_; }
  int size() const override { return 2; }
  Status AllReduce(const CollectiveParams& p, Stream) override {
    return Meet(p, p.cols, [this](int64_t r, int64_t c) { return Src(0, r, c) + Src(1, r, c); });
  }
  Status AllGather(const CollectiveParams& p, Stream) override {
    return Meet(p, 2 * p.cols, [this, n = p.cols](int64_t r, int64_t c) { return Src(static_cast<int>(c / n), r, c % n); });
  }
  Status ReduceScatter(const CollectiveParams& p, Stream) override {
    const int64_t n = p.cols / 2;
    return Meet(p, n, [this, n](int64_t r, int64_t c) { return Src(0, r, rank_ * n + c) + Src(1, r, rank_ * n + c); });
  }

 private:
  float Src(int rank, int64_t row, int64_t col) const {
    const CollectiveParams& p = meeting_.params[rank];
    return static_cast<const float*>(p.src)[row * p.cols + col];
  }
  template <typename F>
  Status Meet(const CollectiveParams& params, int64_t cols, F value) {
    if (params.rows == 0) return Status::Ok();
    return session->Enqueue([this, params, cols, value] {
      meeting_.params[rank_] = params;
      meeting_.barrier.arrive_and_wait();
      for (int64_t r = 0; r < params.rows; ++r)
        for (int64_t c = 0; c < cols; ++c) static_cast<float*>(params.dst)[r * cols + c] = value(r, c);
      meeting_.barrier.arrive_and_wait();
    });
  }

  Meeting& meeting_;
  const int rank_;
};

class RankGroup final : public DeviceGroup {
 public:
  RankGroup(Meeting& meeting, int rank) : collective_(meeting, rank) {}
  SchedulingConstraints Constraints() const override { return {}; }
  int64_t KvBlockBytes(const PlanKvLayer&, int) const override { return 0; }
  OpAnswer Negotiate(const OpQuery&) const override { return {}; }
  bool BatchInvariant() const override { return true; }
  Collective& collective() override { return collective_; }
  Status CreateSession(const Plan& plan, std::unique_ptr<Session>* out) override {
    auto made = std::make_unique<StreamingSession>(plan, log_);
    collective_.session = made.get();
    *out = std::move(made);
    return Status::Ok();
  }

 private:
  StreamingLog log_;
  MeetingRank collective_;
};

// The embedding, and each collective of it, as outputs.
TestPlan CollectivePlan(int32_t size) {
  TestPlan plan;
  PlanWriter w;
  plan.weights.push_back(Weight("embed", {kVocab, kHidden}, WeightUse::kEmbedding));
  const auto output = [&](int32_t columns) { return w.Tensor(TensorKind::kOutput, Dtype::kF32, {T, columns}); };
  const int32_t x = output(kHidden);
  w.Op(OpId::kEmbedding, {w.Tensor(TensorKind::kInput, Dtype::kI32, {T}, static_cast<int32_t>(StepInput::kTokenIds)),
                          w.Tensor(TensorKind::kWeight, Dtype::kF32, {kVocab, kHidden})}, {x});
  w.Op(OpId::kAllReduce, {x}, {output(kHidden)});
  w.Op(OpId::kAllGather, {x}, {output(size * kHidden)}, {size});
  w.Op(OpId::kReduceScatter, {x}, {output(kHidden / size)}, {size});
  w.Segment(0, 4, 0);
  plan.words = w.Words(1, 0);
  return plan;
}

// MakeStep's tokens are 1 to 6, -1 and 0; the embedding of rank 1 is of other tokens.
void TestCollectives() {
  Meeting meeting;
  std::vector<int32_t> results[2];
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 2; ++rank)
    ranks.emplace_back([&, rank] {
      RankGroup group(meeting, rank);
      const auto executor = LoadPlan(CollectivePlan(2), group);
      std::vector<int32_t> step = NumberedStep(1);
      for (size_t token = 0; token < 8; ++token) WordOf(step, StepRegion::kTokenIds, token) = static_cast<int32_t>(token) + 10 * rank;
      results[rank].assign(kResultHeaderWords + kRows * 7 + 8 * (kHidden * 4 + kHidden / 2), 0);
      const Status status = executor->Run(step.data(), step.size(), results[rank].data(), results[rank].size());
      EXPECT(status.ok(), "rank %d: %s", rank, status.message().c_str());
    });
  for (std::thread& rank : ranks) rank.join();
  Meeting lonely;
  RankGroup group(lonely, 0);
  Plan plan;
  std::unique_ptr<Executor> executor;
  const TestPlan wrong = CollectivePlan(4);
  EXPECT(Plan::Parse(wrong.words.data(), wrong.words.size(), &plan).ok(), "parse");
  const Status refused = Executor::Create(std::move(plan), wrong.weights, group, &executor);
  EXPECT(refused.message().find("the plan is for 4 ranks; the group has 2") != std::string::npos, "%s", refused.message().c_str());
  for (int rank = 0; rank < 2; ++rank) {
    const auto* reduced = reinterpret_cast<const float*>(&results[rank][kResultHeaderWords + kRows * 7]) + 8 * kHidden;
    const float* gathered = reduced + 8 * kHidden;
    const float* scattered = gathered + 8 * 2 * kHidden;
    for (int token = 0; token < 8; ++token) {
      const auto sum = static_cast<float>(2 * token + 10);
      EXPECT(reduced[token * kHidden] == sum && reduced[token * kHidden + kHidden - 1] == sum, "all_reduce: %g", static_cast<double>(reduced[token * kHidden]));
      EXPECT(gathered[2 * token * kHidden] == static_cast<float>(token), "all_gather of rank 0");
      EXPECT(gathered[(2 * token + 1) * kHidden] == static_cast<float>(token + 10), "all_gather of rank 1");
      EXPECT(scattered[token * kHidden / 2] == sum, "reduce_scatter: %g", static_cast<double>(scattered[token * kHidden / 2]));
    }
  }
}

}  // namespace
}  // namespace tenon

int main() {
  tenon::TestPacking();
  tenon::TestCapture();
  tenon::TestStaleParametersShow();
  tenon::TestRecordingAfterwards();
  tenon::TestCaptureThatFails();
  tenon::TestStepTimes();
  tenon::TestKvCacheOfWhatIsLeft();
  tenon::TestStepsInFlight();
  tenon::TestHang(true);
  tenon::TestHang(false);
  tenon::TestCollectives();
  if (tenon::failures > 0) return std::printf("%d failures\n", tenon::failures), 1;
  std::printf("ok\n");
  return 0;
}
