#include "thread_pool.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <utility>

namespace tenon_cpu {
namespace {

// A step's serial stretches are shorter than this; a parked thread needs about as long to come back.
constexpr auto kSpinTime = std::chrono::microseconds(50);
constexpr int kPausesPerClockRead = 64;
// A part of the second-level cache, so that what the step still needs stays there; and what a thread fetches before it looks
// for work again.
constexpr int64_t kFetchedBytes = 256 * 1024;
constexpr int64_t kFetchedAtOnce = 512;
constexpr int kPausesBeforeYield = 2000;

constexpr uint64_t NextChunk(uint64_t ticket) { return ticket & 0xffffffff; }
constexpr uint64_t NumChunks(uint64_t ticket) { return ticket >> 32; }

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void FutexWait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void FutexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// Best effort: a CPU that has left the process's set since it was read is no reason to fail.
void BindThisThread(const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu : cpus) CPU_SET(cpu, &set);
  if (CPU_COUNT(&set) > 0) sched_setaffinity(0, sizeof(set), &set);
}

}  // namespace

ThreadPool::ThreadPool(int num_threads, std::vector<std::vector<int>> cpus)
    : stretches_(static_cast<size_t>(num_threads)), cpus_(std::move(cpus)) {
  try {
    for (int thread = 1; thread < num_threads; ++thread) workers_.emplace_back([this, thread] { WorkerLoop(thread); });
  } catch (...) {
    JoinWorkers();
    throw;
  }
}

ThreadPool::~ThreadPool() { JoinWorkers(); }

void ThreadPool::JoinWorkers() {
  stop_.store(true);
  parked_.store(1);
  Wake();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::BindCaller() const {
  if (!cpus_.empty()) BindThisThread(cpus_[0]);
}

void ThreadPool::Wake() {
  if (parked_.load() == 0) return;
  parked_.store(0);
  wake_.fetch_add(1);
  FutexWakeAll(wake_);
}

// Chunk c of the job starts with stretch c, and thread 0 takes chunk 0 in most cases.
void ThreadPool::ShareOut(int64_t size) {
  const auto count = static_cast<int64_t>(stretches_.size());
  for (int64_t i = 0; i < count; ++i) stretches_[static_cast<size_t>(i)].Reset({size * i / count, size * (i + 1) / count});
}

void ThreadPool::Run(int64_t num_chunks, ChunkFn fn, void* context) {
  fn_ = fn;
  context_ = context;
  chunks_done_.store(0, std::memory_order_relaxed);
  // Sequentially consistent with Park: either this thread sees `parked_`, or the parking thread sees the ticket.
  ticket_.store(static_cast<uint64_t>(num_chunks) << 32);
  Wake();

  TakeChunks(0);
  for (int spins = 0; chunks_done_.load(std::memory_order_acquire) < num_chunks; ++spins) {
    Idle(fetching_, 0);
    // The thread that holds the last chunk may be waiting for this CPU.
    if (spins >= kPausesBeforeYield) sched_yield();
  }
  if (failed_.load(std::memory_order_relaxed)) Rethrow();
}

// A moment without work. Two reads that do not belong together do no harm: prefetching cannot fail.
void ThreadPool::Idle(Fetching& fetching, int thread) const {
  const char* data = next_data_.load(std::memory_order_relaxed);
  if (data != fetching.data) {
    const int64_t bytes = next_bytes_.load(std::memory_order_relaxed), stretch = bytes / size();
    fetching = {data, data + stretch * thread, data + stretch * thread + std::min(stretch, kFetchedBytes)};
  }
  if (fetching.at >= fetching.end) return Pause();
  for (int64_t line = 0; line < kFetchedAtOnce; line += 64) __builtin_prefetch(fetching.at + line, 0, 2);
  fetching.at += kFetchedAtOnce;
}

// Runs chunks until none is left. The job cannot end, and so the next one not begin, before `done` is added.
void ThreadPool::TakeChunks(int thread) {
  int64_t done = 0;
  while (HasWork()) {
    const uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
    if (NextChunk(ticket) >= NumChunks(ticket)) break;
    try {
      fn_(context_, static_cast<int64_t>(NextChunk(ticket)), thread);
    } catch (...) {
      KeepFailure();
    }
    ++done;
  }
  if (done > 0) chunks_done_.fetch_add(done, std::memory_order_release);
}

// The first one counts. The job's other chunks still run: it cannot end before they do.
void ThreadPool::KeepFailure() {
  if (!failed_.exchange(true)) failure_ = std::current_exception();
}

void ThreadPool::Rethrow() {
  failed_.store(false, std::memory_order_relaxed);
  std::rethrow_exception(std::exchange(failure_, nullptr));
}

bool ThreadPool::HasWork() const {
  const uint64_t ticket = ticket_.load();
  return NextChunk(ticket) < NumChunks(ticket);
}

void ThreadPool::WorkerLoop(int thread) {
  if (!cpus_.empty()) BindThisThread(cpus_[static_cast<size_t>(thread) % cpus_.size()]);
  auto idle_since = std::chrono::steady_clock::now();
  Fetching fetching;
  for (int spins = 1; !stop_.load(std::memory_order_relaxed); ++spins) {
    if (HasWork()) {
      TakeChunks(thread);
      idle_since = std::chrono::steady_clock::now();
      spins = 0;
    } else if (spins % kPausesPerClockRead == 0 && std::chrono::steady_clock::now() - idle_since > kSpinTime) {
      Park();
      idle_since = std::chrono::steady_clock::now();
    } else {
      Idle(fetching, thread);
    }
  }
}

void ThreadPool::Park() {
  const uint32_t expected = wake_.load();
  parked_.store(1);
  if (HasWork() || stop_.load()) return;
  FutexWait(wake_, expected);
}

}  // namespace tenon_cpu
