// The threads on which a device group works, off the JavaScript thread:
//
//   device thread      loads, steps and disposals, one after the other
//   completion thread  waits for steps that the device thread has only enqueued; there while a session is asynchronous
//
// Ending them cannot wait for ever: a device may hang.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "tenon/job_thread.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// What is left to do on the device thread once a job has been passed on, by something that the thread itself ends.
class Afterwork {
 public:
  virtual ~Afterwork() = default;
  // May not throw.
  virtual void DoAfterwork() = 0;
};

// Something to do on the device thread.
class DeviceJob {
 public:
  virtual ~DeviceJob() = default;
  // Neither may throw.
  virtual void Run() = 0;
  // Whether Run has begun something that is to be waited for; then Wait is called on the completion thread.
  virtual bool IsUnderWay() const { return false; }
  virtual void Wait() {}
  // Null where nothing is left to do. Asked after Run; the job itself may be gone when it is done.
  virtual Afterwork* AfterRun() { return nullptr; }
};

class DeviceThreads {
 public:
  // How long steps that are under way may take to end by themselves, and how long after they have been cancelled.
  static constexpr auto kGrace = std::chrono::seconds(1);
  static constexpr auto kPatience = std::chrono::seconds(10);

  // `on_start` is called on the device thread before anything else; `on_done` on either thread, after each job, in the order
  // of posts among jobs that are waited for and among those that are not.
  DeviceThreads(std::function<void()> on_start, std::function<void(DeviceJob*)> on_done)
      : on_done_(std::move(on_done)),
        device_(std::make_unique<Thread>(Thread::AtEnd::kDropsQueue, std::move(on_start),
                                         [this](DeviceJob* job) { RunOnDevice(job); })) {}
  ~DeviceThreads() {
    device_.reset();
    delete completion_.load();
  }
  DeviceThreads(const DeviceThreads&) = delete;
  DeviceThreads& operator=(const DeviceThreads&) = delete;

  // On the device thread, before the first job that is to be waited for.
  void StartCompletions() {
    if (completion_.load() != nullptr) return;
    completion_.store(new Thread(
        Thread::AtEnd::kDrainsQueue, [] {},
        [this](DeviceJob* job) {
          job->Wait();
          on_done_(job);
        }));
  }

  void Post(DeviceJob* job) { device_->Post(job); }

  // On the device thread: all jobs before this one have been waited for.
  void WaitForCompletions() {
    if (Thread* completion = completion_.load()) completion->WaitUntilIdle();
  }

  // Ends both threads after what runs; `waiting` gets the jobs that were never run. What does not end within `grace` is
  // cancelled. False where that does not help within `patience` either: the threads have been abandoned (JobThread::Abandon).
  bool End(const std::function<void()>& cancel, std::vector<DeviceJob*>* waiting,
           std::chrono::milliseconds grace = kGrace, std::chrono::milliseconds patience = kPatience) {
    const auto start = Thread::Clock::now();
    bool ended = WaitForEnd(start + grace);
    if (!ended) {
      cancel();
      ended = WaitForEnd(start + grace + patience);
    }
    if (ended) {
      *waiting = device_->TakeQueue();
    } else {
      device_->Abandon();
      if (Thread* completion = completion_.load()) completion->Abandon();
    }
    return ended;
  }

 private:
  using Thread = JobThread<DeviceJob>;

  void RunOnDevice(DeviceJob* job) {
    job->Run();
    Afterwork* after = job->AfterRun();
    if (job->IsUnderWay()) {
      completion_.load()->Post(job);
    } else {
      on_done_(job);
    }
    if (after != nullptr) after->DoAfterwork();
  }

  bool WaitForEnd(Thread::Clock::time_point deadline) {
    device_->RequestEnd();
    if (!device_->WaitForEnd(deadline)) return false;
    Thread* completion = completion_.load();
    if (completion == nullptr) return true;
    completion->RequestEnd();  // only now: a job on the device thread may wait for it
    return completion->WaitForEnd(deadline);
  }

  const std::function<void(DeviceJob*)> on_done_;
  std::atomic<Thread*> completion_{nullptr};  // owned
  std::unique_ptr<Thread> device_;
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
