// How a range of work is cut into chunks for the thread pool.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace tenon_cpu {

struct Range {
  int64_t begin;
  int64_t end;
};

// Guided self-scheduling: rounds of `num_threads` equal chunks, each round about half of what is left, down to single
// units. Long runs keep streams of memory long; the small ones at the end let all threads finish together, also when one
// of them was disturbed.
class GuidedSplit {
 public:
  GuidedSplit(int64_t size, int num_threads) : size_(size) {
    int64_t begin = 0;
    while (begin < size && num_rounds_ < kMaxRounds) {
      const int64_t length = RoundLength((size - begin) / (2 * num_threads));
      const bool last = length == 1 || num_rounds_ == kMaxRounds - 1;
      const int64_t chunks = last ? (size - begin + length - 1) / length : num_threads;
      rounds_[num_rounds_++] = {num_chunks_, begin, length};
      num_chunks_ += chunks;
      begin += chunks * length;
    }
  }

  int64_t num_chunks() const { return num_chunks_; }

  Range operator[](int64_t chunk) const {
    int round = num_rounds_ - 1;
    while (rounds_[round].first_chunk > chunk) --round;
    const Round& r = rounds_[round];
    const int64_t begin = r.begin + (chunk - r.first_chunk) * r.length;
    return {begin, std::min(begin + r.length, size_)};
  }

 private:
  struct Round {
    int64_t first_chunk, begin, length;
  };
  static constexpr int kMaxRounds = 40;

  // Multiples of 8 suit the widest GEMM tile.
  static int64_t RoundLength(int64_t length) {
    if (length >= 8) return length / 8 * 8;
    return length >= 4 ? 4 : length >= 2 ? 2 : 1;
  }

  int64_t size_;
  int64_t num_chunks_ = 0;
  int num_rounds_ = 0;
  std::array<Round, kMaxRounds> rounds_;
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
