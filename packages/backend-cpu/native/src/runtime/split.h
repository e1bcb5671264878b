// How a range of work is cut into chunks for the thread pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tenon_cpu {

struct Range {
  int64_t begin;
  int64_t end;
};

// A stretch of work that its owner takes from the front and others from the back: each time about half of what is left,
// down to single units. Long runs keep streams of memory long; the small ones at the end let all threads finish together,
// also when one of them was disturbed. Units are below 2^32.
class alignas(64) Stretch {
 public:
  // Before the threads know of the work.
  void Reset(Range range) { ends_.store(Pack(range), std::memory_order_relaxed); }

  bool TakeFront(Range* taken) {
    return Take([&](Range left, int64_t length) {
      *taken = {left.begin, left.begin + length};
      return Range{taken->end, left.end};
    });
  }
  bool TakeBack(Range* taken) {
    return Take([&](Range left, int64_t length) {
      *taken = {left.end - length, left.end};
      return Range{left.begin, taken->begin};
    });
  }

 private:
  static uint64_t Pack(Range range) {
    return static_cast<uint64_t>(range.end) << 32 | static_cast<uint64_t>(range.begin);
  }
  // Multiples of 4 suit the tiles of GEMM.
  static int64_t RoundLength(int64_t length) {
    if (length >= 4) return length / 4 * 4;
    return length >= 2 ? 2 : 1;
  }

  // split(left, length) takes `length` of what is left, and returns the rest. Whoever resets the stretch has published the
  // work itself, so the counter orders nothing.
  template <typename SplitFn>
  bool Take(const SplitFn& split) {
    uint64_t ends = ends_.load(std::memory_order_relaxed);
    while (true) {
      const Range left = {static_cast<int64_t>(ends & 0xffffffff), static_cast<int64_t>(ends >> 32)};
      if (left.begin >= left.end) return false;
      const Range rest = split(left, RoundLength((left.end - left.begin) / 2));
      if (ends_.compare_exchange_weak(ends, Pack(rest), std::memory_order_relaxed)) return true;
    }
  }

  std::atomic<uint64_t> ends_{0};  // [63:32] end, [31:0] begin
};

// Equal chunks of `length`.
class EvenSplit {
 public:
  EvenSplit(int64_t size, int64_t length) : size_(size), length_(std::max<int64_t>(1, length)) {}
  int64_t num_chunks() const { return (size_ + length_ - 1) / length_; }
  Range operator[](int64_t chunk) const { return {chunk * length_, std::min((chunk + 1) * length_, size_)}; }

 private:
  int64_t size_;
  int64_t length_;
};

}  // namespace tenon_cpu
