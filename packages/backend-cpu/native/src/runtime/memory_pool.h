// Host memory in named arenas: 64-byte aligned, on huge pages where the system gives them, paid for when allocated.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <unordered_map>

#include "tenon/interfaces.h"
#include "thread_pool.h"

namespace tenon_cpu {

class CpuMemoryPool final : public tenon::MemoryPool {
 public:
  // `threads` touch fresh memory in parallel. `free_bytes`: what may still be taken.
  CpuMemoryPool(ThreadPool& threads, uint64_t free_bytes) : threads_(threads), free_bytes_(free_bytes) {}
  ~CpuMemoryPool() override;

  // Pages of the kv and workspace arenas are touched here. Those of weights are first touched by the loader's threads as
  // they fill them, which is as parallel; the check against free memory has been made all the same.
  tenon::Status Allocate(tenon::Arena arena, size_t bytes, void** data) override;
  void Free(void* data) override;
  size_t UsedBytes(tenon::Arena arena) const override {
    return used_[static_cast<size_t>(arena)].load(std::memory_order_relaxed);
  }

 private:
  struct Mapping {
    void* base;
    size_t size;
    tenon::Arena arena;
    size_t bytes;
  };

  void Prefault(uint8_t* data, size_t bytes);

  ThreadPool& threads_;
  const uint64_t free_bytes_;
  std::array<std::atomic<size_t>, tenon::kNumArenas> used_{};
  std::unordered_map<void*, Mapping> mappings_;
};

}  // namespace tenon_cpu
