// The simulated accelerator's queue: work is run in order, on a thread that stands for the device, `latency` after it was
// enqueued at the soonest. Nothing waits for it but WaitEnd.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "tenon/status.h"

namespace sim {

// A kernel or a copy. What it answers other than ok fails the step it is part of; device-lost, all that follows too.
using Work = std::function<tenon::Status()>;

class Stream {
 public:
  explicit Stream(std::chrono::microseconds latency) : latency_(latency), thread_([this] { Run(); }) {}
  ~Stream() { Stop(); }

  void Enqueue(Work work) {
    Push([this, work = std::move(work)] {
      if (failure_.ok()) failure_ = work();
    });
  }
  // Around the work of a step, or any other. WaitEnd waits for the oldest end that was not waited for, and gives the first failure
  // since its beginning.
  void EnqueueBegin() {
    Push([this] {
      if (failure_.code() != tenon::StatusCode::kDeviceLost) failure_ = tenon::Status::Ok();
    });
  }
  void EnqueueEnd() {
    Push([this] {
      const std::lock_guard lock(mutex_);
      ends_.push_back(failure_);
      changed_.notify_all();
    });
  }
  tenon::Status WaitEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !ends_.empty() || cancelled_; });
    if (ends_.empty()) return {tenon::StatusCode::kDeviceLost, "the work of the simulated device was cancelled"};
    const tenon::Status status = std::move(ends_.front());
    ends_.pop_front();
    return status;
  }

  // From any thread: what runs is asked to stop, what waits is dropped, and every end is device-lost.
  void Cancel() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }
  bool cancelled() const { return cancelled_; }
  // Cancels, and returns when the thread has ended.
  void Stop() {
    Cancel();
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Item {
    std::function<void()> run;
    std::chrono::steady_clock::time_point ready;
  };

  void Push(std::function<void()> run) {
    const std::lock_guard lock(mutex_);
    queue_.push_back({std::move(run), std::chrono::steady_clock::now() + latency_});
    changed_.notify_all();
  }

  void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return !queue_.empty() || cancelled_; });
      if (cancelled_) return;
      const Item item = std::move(queue_.front());
      queue_.pop_front();
      if (changed_.wait_until(lock, item.ready, [this] { return cancelled_.load(); })) return;
      lock.unlock();
      item.run();
      lock.lock();
    }
  }

  const std::chrono::microseconds latency_;
  std::atomic<bool> cancelled_{false};
  tenon::Status failure_;  // of the running step; only the device's thread uses it
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  std::deque<tenon::Status> ends_;  // that nobody has waited for
  std::thread thread_;              // last: it uses all of the above
};

}  // namespace sim
