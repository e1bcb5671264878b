// The SDK's memory pool over the device's memory: counts what each arena takes, and frees what is left at the end.
#pragma once

#include <array>
#include <atomic>
#include <map>

#include "memory.h"
#include "tenon/interfaces.h"

namespace tenon_backend_template {

class SimPool final : public tenon::MemoryPool {
 public:
  explicit SimPool(sim::Memory& memory) : memory_(memory) {}
  ~SimPool() override {
    while (!allocations_.empty()) Free(allocations_.begin()->first);
  }

  tenon::Status Allocate(tenon::Arena arena, size_t bytes, void** data) override {
    *data = memory_.Allocate(bytes);
    if (*data == nullptr)
      return tenon::Status::Error(tenon::StatusCode::kOutOfMemory, "no room for %zu bytes of %s: %zu of the device's %zu are free",
                                  bytes, tenon::kArenaNames[static_cast<int32_t>(arena)], memory_.free_bytes(), memory_.size_bytes());
    allocations_[*data] = {arena, bytes};
    used_[static_cast<size_t>(arena)] += bytes;
    ++num_allocations_;
    return tenon::Status::Ok();
  }
  void Free(void* data) override {
    const auto found = allocations_.find(data);
    used_[static_cast<size_t>(found->second.first)] -= found->second.second;
    allocations_.erase(found);
    memory_.Free(data);
  }
  size_t UsedBytes(tenon::Arena arena) const override { return used_[static_cast<size_t>(arena)]; }
  uint64_t num_allocations() const { return num_allocations_; }

 private:
  sim::Memory& memory_;
  std::map<void*, std::pair<tenon::Arena, size_t>> allocations_;
  std::array<std::atomic<size_t>, tenon::kNumArenas> used_{};
  std::atomic<uint64_t> num_allocations_{0};
};

}  // namespace tenon_backend_template
