// Device memory in named arenas.
#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <unordered_map>

#include "tenon/interfaces.h"

namespace tenon_cuda {

class Pool final : public tenon::MemoryPool {
 public:
  ~Pool() override;
  tenon::Status Allocate(tenon::Arena arena, size_t bytes, void** data) override;
  void Free(void* data) override;
  // Leaves all of it behind.
  void Abandon() { allocations_.clear(); }
  std::optional<size_t> FreeBytes() const override;
  size_t UsedBytes(tenon::Arena arena) const override { return used_[static_cast<size_t>(arena)].load(); }
  uint64_t num_allocations() const { return num_allocations_; }

 private:
  struct Allocation {
    tenon::Arena arena;
    size_t bytes;
  };
  std::unordered_map<void*, Allocation> allocations_;
  std::array<std::atomic<size_t>, tenon::kNumArenas> used_{};
  std::atomic<uint64_t> num_allocations_{0};
};

}  // namespace tenon_cuda
