#include "memory_pool.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tenon_cpu {
namespace {

using tenon::Arena;
using tenon::Status;
using tenon::StatusCode;

constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;
// Left to the rest of the process: the JavaScript heap grows while serving.
constexpr uint64_t kReserveBytes = uint64_t{32} << 20;

// KV caches from this size on are touched in the background.
constexpr size_t kBackgroundBytes = size_t{64} << 20;
// Lower than the compute threads' priority.
constexpr int kBackgroundNice = 10;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

CpuMemoryPool::~CpuMemoryPool() {
  StopBackground();
  for (const auto& [data, mapping] : mappings_) munmap(mapping.base, mapping.size);
}

Status CpuMemoryPool::Allocate(Arena arena, size_t bytes, void** data) {
  const char* name = tenon::kArenaNames[static_cast<size_t>(arena)];
  uint64_t taken = kReserveBytes;
  for (const auto& used : used_) taken += used.load(std::memory_order_relaxed);
  const uint64_t left = free_bytes_ - std::min(free_bytes_, taken);
  if (bytes > left)
    return Status::Error(StatusCode::kOutOfMemory,
                         "%s need %.1f MiB; %.1f MiB of memory are left to this process (limits of its container included)",
                         name, static_cast<double>(bytes) / 1048576, static_cast<double>(left) / 1048576);
  // A huge page more, so that the start can be aligned to one.
  const size_t size = RoundUp(bytes, kPageBytes) + (bytes >= kHugePageBytes ? kHugePageBytes : 0);
  void* base = mmap(nullptr, std::max(size, kPageBytes), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED)
    return Status::Error(StatusCode::kOutOfMemory, "%s: cannot map %zu bytes: %s", name, size, std::strerror(errno));
  uint8_t* aligned = static_cast<uint8_t*>(base);
  if (bytes >= kHugePageBytes) {
    aligned = reinterpret_cast<uint8_t*>(RoundUp(reinterpret_cast<size_t>(base), kHugePageBytes));
    madvise(aligned, RoundUp(bytes, kPageBytes), MADV_HUGEPAGE);
  }
  if (arena == Arena::kKv && bytes >= kBackgroundBytes)
    PrefaultInBackground(aligned, bytes);
  else if (arena != Arena::kWeights)
    Prefault(aligned, bytes);
  mappings_[aligned] = {base, std::max(size, kPageBytes), arena, bytes};
  used_[static_cast<size_t>(arena)].fetch_add(bytes, std::memory_order_relaxed);
  *data = aligned;
  return Status::Ok();
}

void CpuMemoryPool::Free(void* data) {
  const auto found = mappings_.find(data);
  if (found == mappings_.end()) return;
  const Mapping mapping = found->second;
  if (mapping.arena == Arena::kKv) StopBackground();
  mappings_.erase(found);
  munmap(mapping.base, mapping.size);
  used_[static_cast<size_t>(mapping.arena)].fetch_sub(mapping.bytes, std::memory_order_relaxed);
}

// Touches every page, in parallel by huge pages.
void CpuMemoryPool::Prefault(uint8_t* data, size_t bytes) {
  const auto num_chunks = static_cast<int64_t>(RoundUp(bytes, kHugePageBytes) / kHugePageBytes);
  threads_.ParallelFor(num_chunks, [&](int64_t chunk, int) {
    const size_t begin = static_cast<size_t>(chunk) * kHugePageBytes;
    const size_t end = std::min(begin + kHugePageBytes, bytes);
    for (size_t at = begin; at < end; at += kPageBytes) *static_cast<volatile uint8_t*>(data + at) = 0;
  });
}

// A read-modify-write that changes nothing makes a page present, and is safe beside steps that write to it.
void CpuMemoryPool::PrefaultInBackground(uint8_t* data, size_t bytes) {
  background_.emplace_back([this, data, bytes] {
    setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kBackgroundNice);
    for (size_t at = 0; at < bytes && !stop_.load(std::memory_order_relaxed); at += kPageBytes)
      __atomic_fetch_or(data + at, 0, __ATOMIC_RELAXED);
  });
}

void CpuMemoryPool::StopBackground() {
  stop_.store(true, std::memory_order_relaxed);
  for (std::thread& thread : background_) thread.join();
  background_.clear();
  stop_.store(false, std::memory_order_relaxed);
}

}  // namespace tenon_cpu
