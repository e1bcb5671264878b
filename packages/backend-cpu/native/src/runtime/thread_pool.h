// Fork-join over numbered chunks of work.
//
// The calling thread is thread 0; the other threads spin for a short while after their last chunk, then park on a futex.
// Chunks are handed out by one atomic counter, and a job waits only for chunks that were taken: a thread that the system
// has descheduled before it took one delays nobody.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <type_traits>
#include <vector>

#include "split.h"

namespace tenon_cpu {

class ThreadPool {
 public:
  // `cpus[i]`: logical CPUs that thread i is bound to; empty: threads are not bound. The calling thread is bound by
  // BindCaller, since the pool does not own it. Throws std::system_error where the system gives no more threads.
  explicit ThreadPool(int num_threads, std::vector<std::vector<int>> cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Binds the calling thread to the CPUs of thread 0.
  void BindCaller() const;

  // What the next ParallelRanges will read, each thread its stretch of it: threads without work fetch the beginning of theirs
  // into their caches meanwhile, so that the memory does not rest between jobs. A hint, from the thread that calls the jobs.
  void ReadNext(const void* data, int64_t bytes) {
    next_bytes_.store(bytes, std::memory_order_relaxed);
    next_data_.store(static_cast<const char*>(data), std::memory_order_relaxed);
  }

  // Wakes parked threads ahead of work to come.
  void Wake();

  // Runs f(chunk, thread) for every chunk in [0, num_chunks), and returns when all have ended; 0 ≤ thread < size(),
  // num_chunks < 2^31. One caller at a time. f must not call ParallelFor. What a chunk throws, in any thread, is
  // thrown here when all have ended.
  template <typename F>
  void ParallelFor(int64_t num_chunks, F&& f) {
    if (num_chunks <= 0) return;
    if (workers_.empty() || num_chunks == 1) {
      for (int64_t chunk = 0; chunk < num_chunks; ++chunk) f(chunk, 0);
      return;
    }
    using Fn = std::remove_reference_t<F>;
    Run(
        num_chunks, [](void* context, int64_t chunk, int thread) { (*static_cast<Fn*>(context))(chunk, thread); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

  // Runs f(range, thread) over ranges that make up [0, size), size < 2^32: each thread goes through a stretch of its own,
  // so that streams of memory are long, and the same from job to job; who is done takes from the ends of the others.
  template <typename F>
  void ParallelRanges(int64_t size, F&& f) {
    ShareOut(size);
    ParallelFor(std::min<int64_t>(size, this->size()), [&](int64_t chunk, int thread) {
      const auto first = static_cast<size_t>(chunk);
      Range range;
      while (stretches_[first].TakeFront(&range)) f(range, thread);
      for (size_t other = 1; other < stretches_.size(); ++other) {
        while (stretches_[(first + other) % stretches_.size()].TakeBack(&range)) f(range, thread);
      }
    });
  }

 private:
  using ChunkFn = void (*)(void* context, int64_t chunk, int thread);

  void ShareOut(int64_t size);
  // How far a thread has fetched what comes next.
  struct Fetching {
    const char* data = nullptr;
    const char* at = nullptr;
    const char* end = nullptr;
  };
  void Idle(Fetching& fetching, int thread) const;
  void Run(int64_t num_chunks, ChunkFn fn, void* context);
  void TakeChunks(int thread);
  void WorkerLoop(int thread);
  void JoinWorkers();
  void KeepFailure();
  void Rethrow();
  bool HasWork() const;
  void Park();

  // Each on its own cache line: the counters are written by all threads.
  // ticket_: [63:32] chunks of the job, [31:0] next chunk, which runs past the end by at most one per thread.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> chunks_done_{0};
  // The running job; does not change while one of its chunks is being run.
  alignas(64) ChunkFn fn_ = nullptr;
  void* context_ = nullptr;
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;
  std::atomic<const char*> next_data_{nullptr};
  std::atomic<int64_t> next_bytes_{0};
  // Parking: `wake_` is the futex word; `parked_` says that some thread may be asleep.
  alignas(64) std::atomic<uint32_t> wake_{0};
  std::atomic<uint32_t> parked_{0};
  std::atomic<bool> stop_{false};

  Fetching fetching_;  // of thread 0
  std::vector<Stretch> stretches_;  // one per thread
  std::vector<std::vector<int>> cpus_;
  std::vector<std::thread> workers_;
};

}  // namespace tenon_cpu
