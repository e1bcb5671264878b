// The simulated accelerator's memory: an address space of its own. Addresses lie in a range that the host may not touch (a host
// access ends the process, as it does with real devices); device code reaches the bytes behind an address by `Access`, which knows
// no host pointer, and nothing outside of an allocation.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <new>

namespace sim {

class Memory {
 public:
  explicit Memory(size_t bytes) : size_(RoundUp(bytes)), addresses_(Map(PROT_NONE)), bytes_(Map(PROT_READ | PROT_WRITE)) {}
  ~Memory() {
    munmap(addresses_, size_);
    munmap(bytes_, size_);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  size_t size_bytes() const { return size_; }
  size_t free_bytes() const {
    const std::lock_guard lock(mutex_);
    size_t used = 0;
    for (const auto& [offset, bytes] : allocations_) used += RoundUp(bytes) + kPage;
    return size_ - used;
  }

  // A device address with zeros behind it; null where no free piece is large enough. First fit, with a free page behind each
  // allocation, so that running over its end never hits the next one.
  void* Allocate(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const size_t needed = RoundUp(bytes) + kPage;
    size_t begin = 0;
    for (const auto& [offset, size] : allocations_) {
      if (offset - begin >= needed) break;
      begin = offset + RoundUp(size) + kPage;
    }
    if (begin > size_ || size_ - begin < needed) return nullptr;
    allocations_[begin] = bytes;
    return addresses_ + begin;
  }

  void Free(void* address) {
    const std::lock_guard lock(mutex_);
    const auto found = allocations_.find(static_cast<size_t>(static_cast<uint8_t*>(address) - addresses_));
    madvise(bytes_ + found->first, RoundUp(found->second), MADV_DONTNEED);  // come back as zeros
    allocations_.erase(found);
  }

  // Device side: the bytes at [address, + bytes); null where they are not all of one allocation.
  uint8_t* Access(const void* address, size_t bytes) const {
    const auto* at = static_cast<const uint8_t*>(address);
    if (at < addresses_ || at >= addresses_ + size_) return nullptr;
    const auto offset = static_cast<size_t>(at - addresses_);
    const std::lock_guard lock(mutex_);
    auto next = allocations_.upper_bound(offset);
    if (next == allocations_.begin()) return nullptr;
    const auto& [begin, size] = *--next;
    return offset + bytes <= begin + size ? bytes_ + offset : nullptr;
  }

 private:
  static constexpr size_t kPage = 4096;
  static constexpr size_t RoundUp(size_t value) { return (value + kPage - 1) / kPage * kPage; }
  uint8_t* Map(int access) const {
    void* data = mmap(nullptr, size_, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    return static_cast<uint8_t*>(data);
  }

  const size_t size_;
  uint8_t* const addresses_;  // [size_] reserved, without access
  uint8_t* const bytes_;      // [size_] what is behind them
  mutable std::mutex mutex_;
  std::map<size_t, size_t> allocations_;  // offset → bytes
};

}  // namespace sim
