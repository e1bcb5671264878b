// The thread on which a device group works: loads, steps and disposals, one after the other, off the JavaScript thread.
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

// Something to do on the device thread.
class DeviceJob {
 public:
  virtual ~DeviceJob() = default;
  virtual void Run() = 0;  // must not throw
};

class DeviceThread {
 public:
  // `on_done` is called on the device thread after each job.
  DeviceThread(std::function<void()> on_start, std::function<void(DeviceJob*)> on_done)
      : on_done_(std::move(on_done)), thread_([this, start = std::move(on_start)] {
          start();
          Loop();
        }) {}
  ~DeviceThread() { Stop(); }
  DeviceThread(const DeviceThread&) = delete;
  DeviceThread& operator=(const DeviceThread&) = delete;

  // Does not take ownership. Jobs run in the order of their posts.
  void Post(DeviceJob* job) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(job);
    num_posted_.fetch_add(1, std::memory_order_release);
    if (sleeping_) wake_.notify_one();
  }

  // Ends after the running job; returns the jobs that were never run.
  std::vector<DeviceJob*> Stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      num_posted_.fetch_add(1, std::memory_order_release);
      wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
    return std::exchange(queue_, {});
  }

 private:
  // The next step usually comes within this time; then it finds the thread awake.
  static constexpr auto kSpinTime = std::chrono::microseconds(50);

  void Loop() {
    for (;;) {
      const uint64_t seen = num_posted_.load(std::memory_order_acquire);
      while (DeviceJob* job = TakeJob()) {
        job->Run();
        on_done_(job);
      }
      if (SpinFor(seen)) continue;
      std::unique_lock lock(mutex_);
      sleeping_ = true;
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      sleeping_ = false;
      if (stopping_) return;
    }
  }

  DeviceJob* TakeJob() {
    const std::lock_guard lock(mutex_);
    if (stopping_ || queue_.empty()) return nullptr;
    DeviceJob* job = queue_.front();
    queue_.erase(queue_.begin());  // a handful at most
    return job;
  }

  // Whether something was posted after `seen` within the spin time.
  bool SpinFor(uint64_t seen) const {
    const auto start = std::chrono::steady_clock::now();
    do {
      for (int i = 0; i < 64; ++i) {
        if (num_posted_.load(std::memory_order_acquire) != seen) return true;
        Pause();
      }
    } while (std::chrono::steady_clock::now() - start < kSpinTime);
    return false;
  }

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::function<void(DeviceJob*)> on_done_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<DeviceJob*> queue_;
  std::atomic<uint64_t> num_posted_{0};
  bool sleeping_ = false;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
