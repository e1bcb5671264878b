// A thread that runs jobs one after the other, in the order of their posts.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "tenon/version.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

template <typename Job>
class JobThread {
 public:
  using Clock = std::chrono::steady_clock;
  enum class AtEnd { kDropsQueue, kDrainsQueue };

  // `on_start` is called first on the thread, then `run` for each job; neither may throw. Jobs are not owned.
  JobThread(AtEnd at_end, std::function<void()> on_start, std::function<void(Job*)> run)
      : at_end_(at_end), run_(std::move(run)), thread_([this, start = std::move(on_start)] {
          start();
          Loop();
        }) {}
  ~JobThread() {
    RequestEnd();
    if (thread_.joinable()) thread_.join();
  }
  JobThread(const JobThread&) = delete;
  JobThread& operator=(const JobThread&) = delete;

  void Post(Job* job) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(job);
    num_posted_.fetch_add(1, std::memory_order_release);
    if (sleeping_) wake_.notify_one();
  }

  // Returns when all jobs that were posted have been run, or the thread has ended.
  void WaitUntilIdle() {
    std::unique_lock lock(mutex_);
    is_awaited_ = true;
    changed_.wait(lock, [this] { return (queue_.empty() && !running_) || ended_; });
    is_awaited_ = false;
  }

  // The thread is to end after the running job, or after those in the queue.
  void RequestEnd() {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    num_posted_.fetch_add(1, std::memory_order_release);
    wake_.notify_one();
  }
  // Whether it has ended by then.
  bool WaitForEnd(Clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline, [this] { return ended_; });
  }
  // The jobs that were never run, once the thread has ended.
  std::vector<Job*> TakeQueue() { return std::exchange(queue_, {}); }

  // Lets the thread run on without its owner, who must keep this object, all jobs, and this code in memory for ever.
  void Abandon() { thread_.detach(); }

 private:
  // The next step usually comes within this time; then it finds the thread awake.
  static constexpr auto kSpinTime = std::chrono::microseconds(50);

  void Loop() {
    for (;;) {
      const uint64_t seen = num_posted_.load(std::memory_order_acquire);
      while (Job* job = TakeJob()) run_(job);
      if (SpinFor(seen)) continue;
      std::unique_lock lock(mutex_);
      sleeping_ = true;
      wake_.wait(lock, [this] { return ending_ || !queue_.empty(); });
      sleeping_ = false;
      if (!ending_ || (at_end_ == AtEnd::kDrainsQueue && !queue_.empty())) continue;
      ended_ = true;
      changed_.notify_all();
      return;
    }
  }

  // The next job; null where there is none to be run. The one before has been run.
  Job* TakeJob() {
    const std::lock_guard lock(mutex_);
    running_ = !queue_.empty() && !(ending_ && at_end_ == AtEnd::kDropsQueue);
    if (!running_) {
      if (is_awaited_) changed_.notify_all();
      return nullptr;
    }
    Job* job = queue_.front();
    queue_.erase(queue_.begin());  // a handful at most
    return job;
  }

  // Whether something was posted after `seen` within the spin time.
  bool SpinFor(uint64_t seen) const {
    const auto start = Clock::now();
    do {
      for (int i = 0; i < 64; ++i) {
        if (num_posted_.load(std::memory_order_acquire) != seen) return true;
        Pause();
      }
    } while (Clock::now() - start < kSpinTime);
    return false;
  }

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  const AtEnd at_end_;
  std::function<void(Job*)> run_;
  std::mutex mutex_;
  std::condition_variable wake_;     // the thread: a post, or the end
  std::condition_variable changed_;  // others: the queue is empty, or the thread has ended
  std::vector<Job*> queue_;
  std::atomic<uint64_t> num_posted_{0};
  bool running_ = false;
  bool is_awaited_ = false;
  bool sleeping_ = false;
  bool ending_ = false;
  bool ended_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
