// Host memory in named arenas: 64-byte aligned, on huge pages where the system gives them, checked against what is free when
// allocated.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <unordered_map>
#include <vector>

#include "tenon/interfaces.h"
#include "thread_pool.h"

namespace tenon_cpu {

class CpuMemoryPool final : public tenon::MemoryPool {
 public:
  // `threads` touch fresh memory in parallel. `free_bytes`: what may still be taken.
  CpuMemoryPool(ThreadPool& threads, uint64_t free_bytes) : threads_(threads), free_bytes_(free_bytes) {}
  ~CpuMemoryPool() override;

  // Pages are touched before they are needed, since fresh memory comes at 1-2 GB/s: those of the workspace here, those of
  // weights by the loader's threads as they fill them, those of a large KV cache in the background, so that a server is ready
  // seconds earlier. A step that meets an untouched page pays for it itself.
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
  void PrefaultInBackground(uint8_t* data, size_t bytes);
  // Ends what runs in the background; no page may go away under it.
  void StopBackground();

  ThreadPool& threads_;
  std::vector<std::thread> background_;
  std::atomic<bool> stop_{false};
  const uint64_t free_bytes_;
  std::array<std::atomic<size_t>, tenon::kNumArenas> used_{};
  std::unordered_map<void*, Mapping> mappings_;
};

}  // namespace tenon_cpu
