// Lifetimes: a group of devices, its thread, and the executables on it, as seen from one JavaScript environment.
//
//   JavaScript thread                                  device thread        completion thread
//   Group.load, Executable.run, close ──── Post ────▶  Task::Run ────────▶  Task::Wait (steps of asynchronous sessions)
//   GroupState::Drain ◀── one ThreadSafeFunction ────  finished tasks (several per wake-up)
//   Task::Finish: promises, onStepDone
//
// GroupState and ExecutableState belong to the JavaScript thread; an Executor belongs to the threads of the group from the
// moment it is made until they have ended. The function keeps the event loop alive only while tasks are under way.
//
// When an environment ends (a worker is terminated, the process exits), steps in flight may end by themselves; then sessions
// are cancelled; then, should a device hang for good, threads and all they use are left behind.
#pragma once

#include <dlfcn.h>
#include <napi.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "tenon/addon/values.h"
#include "tenon/device.h"
#include "tenon/device_threads.h"
#include "tenon/executor.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {
namespace addon {

// Work of a group: Run on the device thread, Wait on the completion thread where that is needed, then Finish on the
// JavaScript thread.
class Task : public DeviceJob {
 public:
  // Owns itself: may delete the task.
  virtual void Finish(Napi::Env env) = 0;
  // Instead of Finish, where the group ended first.
  virtual void Drop() = 0;
  // Whether Finish ends what a Post began; progress reports do not.
  virtual bool IsPosted() const { return true; }
};

// What the ThreadSafeFunction may still touch after its group has gone.
struct Channel {
  class GroupState* group;
};

void DrainChannel(Napi::Env env, Napi::Function, Channel* channel, void*);

// fn() with what a standard library may throw made a Status.
template <typename F>
Status Guarded(F&& fn) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    return Status::Error(StatusCode::kOutOfMemory, "the process has no memory left");
  } catch (const std::exception& error) {
    return Status::Error(StatusCode::kInternal, "%s", error.what());
  }
}

// Promises that all settle when something is closed; further calls of close join them.
class CloseState {
 public:
  bool started() const { return started_; }
  bool finished() const { return finished_; }
  void Start() { started_ = true; }
  Napi::Promise Wait(Napi::Env env) {
    auto deferred = Napi::Promise::Deferred::New(env);
    const Napi::Promise promise = deferred.Promise();
    if (finished_) {
      deferred.Resolve(env.Undefined());
    } else {
      waiting_.push_back(deferred);
    }
    return promise;
  }
  void Finish(Napi::Env env) {
    finished_ = true;
    for (Napi::Promise::Deferred& deferred : std::exchange(waiting_, {})) deferred.Resolve(env.Undefined());
  }

 private:
  bool started_ = false;
  bool finished_ = false;
  std::vector<Napi::Promise::Deferred> waiting_;
};

class ExecutableState;

class GroupState : public std::enable_shared_from_this<GroupState> {
 public:
  using DoneFunction = Napi::TypedThreadSafeFunction<Channel, void, DrainChannel>;

  GroupState(Napi::Env env, std::unique_ptr<DeviceGroup> device)
      : env_(env), device_(std::move(device)), channel_(new Channel{this}) {
    threads_ = std::make_unique<DeviceThreads>([this] { device_->OnDeviceThread(); },
                                               [this](DeviceJob* job) { Complete(static_cast<Task*>(job)); });
    done_function_ = DoneFunction::New(
        env, "tenon device", 0, 1, channel_, [](Napi::Env, void*, Channel* channel) { delete channel; },
        static_cast<void*>(nullptr));
    done_function_.Unref(env);
    // After the function's own hook, so before it when hooks run: the thread ends while the function still exists.
    napi_add_env_cleanup_hook(env, OnEnvironmentEnd, this);
  }
  ~GroupState() { Shutdown(); }
  GroupState(const GroupState&) = delete;
  GroupState& operator=(const GroupState&) = delete;

  DeviceGroup& device() { return *device_; }
  Napi::Env env() const { return env_; }
  CloseState& close_state() { return close_; }
  bool closed() const { return threads_ == nullptr; }
  DeviceThreads& threads() { return *threads_; }

  void Post(Task* task) {
    if (num_pending_++ == 0) done_function_.Ref(env_);
    threads_->Post(task);
  }

  // From any thread: Finish is to be called soon. Several tasks share one wake-up of the event loop.
  void Complete(Task* task) {
    const std::lock_guard lock(done_mutex_);
    if (is_abandoned_) return;
    done_.push_back(task);
    if (!notified_.exchange(true)) done_function_.NonBlockingCall();
  }
  // From any thread: the environment has gone, and with it the buffers of steps.
  bool is_abandoned() const { return is_abandoned_; }

  void Drain() {
    notified_.store(false);
    {
      const std::lock_guard lock(done_mutex_);
      draining_.swap(done_);
    }
    for (Task* task : draining_) {
      const Napi::HandleScope scope(env_);
      if (task->IsPosted() && --num_pending_ == 0) done_function_.Unref(env_);
      task->Finish(env_);
      ReportException();
    }
    draining_.clear();
  }

  void Add(const std::shared_ptr<ExecutableState>& executable) { executables_.push_back(executable); }
  std::vector<std::shared_ptr<ExecutableState>> executables() const {
    std::vector<std::shared_ptr<ExecutableState>> alive;
    for (const auto& executable : executables_)
      if (auto state = executable.lock()) alive.push_back(std::move(state));
    return alive;
  }

  // Ends the threads after what they run, drops tasks that wait, and frees what executables hold. Idempotent.
  void Shutdown();

 private:
  void Abandon();

  static void OnEnvironmentEnd(void* group) {
    auto* state = static_cast<GroupState*>(group);
    state->environment_ended_ = true;
    state->Shutdown();
  }

  // A callback that throws is the program's 'uncaughtException', and keeps no other callback from being called. Statuses
  // are of no interest: an environment that is being terminated refuses everything.
  void ReportException() {
    bool pending = false;
    napi_value error = nullptr;
    if (napi_is_exception_pending(env_, &pending) != napi_ok || !pending) return;
    if (napi_get_and_clear_last_exception(env_, &error) == napi_ok) napi_fatal_exception(env_, error);
  }

  Napi::Env env_;
  std::unique_ptr<DeviceGroup> device_;
  Channel* channel_;  // owned by done_function_
  DoneFunction done_function_;
  std::atomic<bool> notified_{false};
  std::mutex done_mutex_;
  std::vector<Task*> done_;
  std::vector<Task*> draining_;
  int num_pending_ = 0;
  CloseState close_;
  bool environment_ended_ = false;
  std::atomic<bool> is_abandoned_{false};
  std::vector<std::weak_ptr<ExecutableState>> executables_;
  std::unique_ptr<DeviceThreads> threads_;
};

inline void DrainChannel(Napi::Env env, Napi::Function, Channel* channel, void*) {
  if (env != nullptr && channel->group != nullptr) channel->group->Drain();
}

class ExecutableState {
 public:
  // One step under way. Its buffers are kept alive by the references.
  class StepTask final : public Task {
   public:
    void Run() override {
      Executor& executor = *owner_->executor_;
      status_ = Guarded([&] { return executor.Enqueue(step_, step_words_, result_, result_words_, &ticket_); });
      // Also where enqueueing has failed: steps end in the order of their begin.
      is_under_way_ = executor.is_asynchronous();
      if (!is_under_way_) Wait();
    }
    bool IsUnderWay() const override { return is_under_way_; }
    Afterwork* AfterRun() override { return owner_->executor_->HasAfterwork() ? owner_->executor_.get() : nullptr; }
    void Wait() override {
      if (status_.ok()) status_ = Guarded([&] { return owner_->executor_->Finish(ticket_); });
      if (status_.ok() || result_words_ < 2 || owner_->group_->is_abandoned()) return;
      result_[0] = step_id_;
      result_[1] = 1;
    }
    void Finish(Napi::Env env) override {
      const Status status = std::exchange(status_, Status::Ok());
      const std::shared_ptr<ExecutableState> owner = Release();
      // May start the next step in this very slot.
      owner->on_step_done_.Call({Napi::Number::New(env, step_id_), FailureValue(env, status)});
    }
    void Drop() override { Release(); }

   private:
    friend class ExecutableState;
    std::shared_ptr<ExecutableState> Release() {
      busy_ = false;
      step_reference_.Reset();
      result_reference_.Reset();
      return std::move(owner_);
    }
    // A `BackendFailure`, or undefined.
    static Napi::Value FailureValue(Napi::Env env, const Status& status) {
      if (status.ok()) return env.Undefined();
      const bool known = status.code() == StatusCode::kDeviceLost || status.code() == StatusCode::kOutOfMemory;
      auto failure = Napi::Object::New(env);
      failure.Set("code", StatusCodeName(known ? status.code() : StatusCode::kStepFailed));
      failure.Set("message", status.message());
      return failure;
    }

    std::shared_ptr<ExecutableState> owner_;
    bool busy_ = false;
    Napi::Reference<Napi::Int32Array> step_reference_, result_reference_;
    const int32_t* step_ = nullptr;
    size_t step_words_ = 0;
    int32_t* result_ = nullptr;
    size_t result_words_ = 0;
    int32_t step_id_ = 0;
    Executor::Ticket ticket_;
    bool is_under_way_ = false;
    Status status_;
  };

  ExecutableState(std::shared_ptr<GroupState> group, Napi::FunctionReference on_step_done)
      : group_(std::move(group)),
        on_step_done_(std::move(on_step_done)),
        steps_(static_cast<size_t>(group_->device().Constraints().steps_in_flight)) {}

  GroupState& group() { return *group_; }
  CloseState& close_state() { return close_; }

  // Called on the device thread, or after it has ended.
  void set_executor(std::unique_ptr<Executor> executor) {
    const std::lock_guard lock(executor_mutex_);
    executor_ = std::move(executor);
  }
  void FreeExecutor() {
    std::unique_ptr<Executor> executor;
    {
      const std::lock_guard lock(executor_mutex_);
      executor = std::move(executor_);
    }
  }
  // Null once freed.
  Executor* executor() { return executor_.get(); }
  // From any thread.
  void Cancel() {
    const std::lock_guard lock(executor_mutex_);
    if (executor_ != nullptr) executor_->Cancel();
  }

  // Tells the garbage collector of memory that it cannot see; 0 when it has been freed.
  void ReportMemory(Napi::Env env) {
    int64_t bytes = 0;
    for (int arena = 0; executor_ != nullptr && arena < kNumArenas; ++arena)
      bytes += static_cast<int64_t>(executor_->UsedBytes(static_cast<Arena>(arena)));
    Napi::MemoryManagement::AdjustExternalMemory(env, bytes - std::exchange(reported_bytes_, bytes));
  }

  // Lets go of JavaScript, so that a callback that knows the executable is no cycle.
  void FinishClose(Napi::Env env) {
    on_step_done_.Reset();
    close_.Finish(env);
  }

  // backend.step-failed where no step can be taken now.
  static Status RunStep(const std::shared_ptr<ExecutableState>& self, Napi::Int32Array step, Napi::Int32Array result) {
    if (self->close_.started() || self->group_->closed())
      return Status::Error(StatusCode::kStepFailed, "the executable is closed");
    const auto slot = std::find_if(self->steps_.begin(), self->steps_.end(), [](const StepTask& t) { return !t.busy_; });
    if (slot == self->steps_.end())
      return Status::Error(StatusCode::kStepFailed, "%zu steps are in flight already", self->steps_.size());
    slot->busy_ = true;
    slot->owner_ = self;
    slot->step_reference_ = Napi::Persistent(step);
    slot->result_reference_ = Napi::Persistent(result);
    slot->step_ = step.Data();
    slot->step_words_ = step.ElementLength();
    slot->result_ = result.Data();
    slot->result_words_ = result.ElementLength();
    constexpr auto kStepId = static_cast<size_t>(StepField::kStepId);
    slot->step_id_ = slot->step_words_ > kStepId ? slot->step_[kStepId] : 0;
    self->group_->Post(&*slot);
    return Status::Ok();
  }

 private:
  const std::shared_ptr<GroupState> group_;
  Napi::FunctionReference on_step_done_;
  std::mutex executor_mutex_;  // between Cancel and the device thread
  std::unique_ptr<Executor> executor_;
  CloseState close_;
  int64_t reported_bytes_ = 0;
  std::vector<StepTask> steps_;
};

inline void GroupState::Shutdown() {
  if (threads_ == nullptr) return;
  std::vector<DeviceJob*> waiting;
  const auto cancel = [this] {
    for (const auto& executable : executables()) executable->Cancel();
  };
  if (!threads_->End(cancel, &waiting)) return Abandon();
  threads_.reset();
  for (const auto& executable : executables()) executable->FreeExecutor();
  for (DeviceJob* job : waiting) static_cast<Task*>(job)->Drop();
  for (Task* task : std::exchange(done_, {})) task->Drop();
  device_.reset();
  channel_->group = nullptr;
  done_function_.Release();
  if (!environment_ended_) napi_remove_env_cleanup_hook(env_, OnEnvironmentEnd, this);
}

// The threads may still use all that they know, and this code: it stays for ever.
inline void GroupState::Abandon() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&DrainChannel), &info) != 0)
    static_cast<void>(dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE));
  static_cast<void>(new auto(shared_from_this()));
  static_cast<void>(new auto(executables()));
  static_cast<void>(threads_.release());
  {
    const std::lock_guard lock(done_mutex_);
    is_abandoned_ = true;
  }
  channel_->group = nullptr;
  done_function_.Release();
  if (!environment_ended_) napi_remove_env_cleanup_hook(env_, OnEnvironmentEnd, this);
}

// Loads a plan and makes its executable; `make_object` wraps that for JavaScript.
class LoadTask final : public Task {
 public:
  using MakeObject = std::function<Napi::Value(Napi::Env, std::shared_ptr<ExecutableState>)>;

  // `on_progress` may be empty. `spare_bytes`: see Executor::Load.
  LoadTask(std::shared_ptr<GroupState> group, std::vector<int32_t> plan_words, std::vector<WeightRequest> weights,
           std::optional<uint64_t> spare_bytes, Napi::FunctionReference on_progress, Napi::FunctionReference on_step_done,
           MakeObject make_object)
      : group_(std::move(group)),
        plan_words_(std::move(plan_words)),
        weights_(std::move(weights)),
        spare_bytes_(spare_bytes),
        progress_(*group_, std::move(on_progress)),
        executable_(std::make_shared<ExecutableState>(group_, std::move(on_step_done))),
        make_object_(std::move(make_object)),
        deferred_(Napi::Promise::Deferred::New(group_->env())) {
    group_->Add(executable_);
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Run() override {
    status_ = Guarded([&] { return Load(); });
    if (!status_.ok()) executable_->FreeExecutor();
  }

  void Finish(Napi::Env env) override {
    const std::unique_ptr<LoadTask> self(this);
    if (!status_.ok()) {
      deferred_.Reject(ErrorValue(env, status_));
      return;
    }
    // Once closing has started, the device thread may free it at any time.
    if (!executable_->close_state().started()) executable_->ReportMemory(env);
    deferred_.Resolve(make_object_(env, executable_));
  }
  void Drop() override { delete this; }

 private:
  // Reports that pool threads make, passed on at the pace of the event loop.
  class Progress final : public Task {
   public:
    Progress(GroupState& group, Napi::FunctionReference callback) : group_(group), callback_(std::move(callback)) {}
    void Report(uint64_t loaded_bytes, uint64_t total_bytes) {
      if (callback_.IsEmpty()) return;
      total_bytes_.store(total_bytes);
      loaded_bytes_.store(loaded_bytes);
      if (!queued_.exchange(true)) group_.Complete(this);
    }
    void Run() override {}
    void Finish(Napi::Env env) override {
      queued_.store(false);
      callback_.Call({Napi::Number::New(env, static_cast<double>(loaded_bytes_.load())),
                      Napi::Number::New(env, static_cast<double>(total_bytes_.load()))});
    }
    void Drop() override {}
    bool IsPosted() const override { return false; }

   private:
    GroupState& group_;
    Napi::FunctionReference callback_;
    std::atomic<uint64_t> loaded_bytes_{0}, total_bytes_{0};
    std::atomic<bool> queued_{false};
  };

  Status Load() {
    Plan plan;
    std::unique_ptr<Executor> executor;
    TENON_RETURN_IF_ERROR(Plan::Parse(plan_words_.data(), plan_words_.size(), &plan));
    const auto report = [this](uint64_t loaded, uint64_t total) { progress_.Report(loaded, total); };
    TENON_RETURN_IF_ERROR(Executor::Create(std::move(plan), weights_, group_->device(), &executor));
    executable_->set_executor(std::move(executor));  // from now on it can be cancelled
    TENON_RETURN_IF_ERROR(executable_->executor()->Load(weights_, report, spare_bytes_));
    if (executable_->executor()->is_asynchronous()) group_->threads().StartCompletions();
    return Status::Ok();
  }

  const std::shared_ptr<GroupState> group_;
  const std::vector<int32_t> plan_words_;
  const std::vector<WeightRequest> weights_;
  const std::optional<uint64_t> spare_bytes_;
  Progress progress_;
  const std::shared_ptr<ExecutableState> executable_;
  const MakeObject make_object_;
  Napi::Promise::Deferred deferred_;
  Status status_;
};

// Frees an executable after the steps before it.
class CloseExecutableTask final : public Task {
 public:
  explicit CloseExecutableTask(std::shared_ptr<ExecutableState> executable) : executable_(std::move(executable)) {}
  void Run() override {
    executable_->group().threads().WaitForCompletions();
    executable_->FreeExecutor();
  }
  void Finish(Napi::Env env) override {
    const std::unique_ptr<CloseExecutableTask> self(this);
    executable_->ReportMemory(env);
    executable_->FinishClose(env);
  }
  void Drop() override { delete this; }

  // Unless it is under way or done.
  static void Start(const std::shared_ptr<ExecutableState>& executable) {
    if (executable->close_state().started() || executable->group().closed()) return;
    executable->close_state().Start();
    executable->group().Post(new CloseExecutableTask(executable));
  }

 private:
  const std::shared_ptr<ExecutableState> executable_;
};

// Tells an executable that warm-up has ended.
class FreezeTask final : public Task {
 public:
  explicit FreezeTask(std::shared_ptr<ExecutableState> executable) : executable_(std::move(executable)) {}
  void Run() override { executable_->executor()->Freeze(); }
  void Finish(Napi::Env) override { delete this; }
  void Drop() override { delete this; }

 private:
  const std::shared_ptr<ExecutableState> executable_;
};

// Ends the group's threads after all that was posted before.
class CloseGroupTask final : public Task {
 public:
  explicit CloseGroupTask(std::shared_ptr<GroupState> group) : group_(std::move(group)) {}
  void Run() override {}
  void Finish(Napi::Env env) override {
    const std::unique_ptr<CloseGroupTask> self(this);
    group_->Shutdown();
    group_->close_state().Finish(env);
  }
  void Drop() override { delete this; }

 private:
  const std::shared_ptr<GroupState> group_;
};

}  // namespace addon
}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
