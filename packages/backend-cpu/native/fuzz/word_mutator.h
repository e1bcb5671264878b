// Mutates buffers of 32-bit words: half of the time libFuzzer's own way, else a few whole words, with values at the edges.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <random>
#include <vector>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace tenon {

inline std::vector<int32_t> WordsOf(const uint8_t* data, size_t size) {
  std::vector<int32_t> words(size / sizeof(int32_t));
  if (!words.empty()) std::memcpy(words.data(), data, words.size() * sizeof(int32_t));
  return words;
}

// Cases start from a copy of `first` where they have less than a third of its words.
inline size_t MutateWords(uint8_t* data, size_t size, size_t max_size, unsigned seed, const std::vector<int32_t>& first) {
  static constexpr int32_t kValues[] = {0,  1,   2,    3,       5,         8,         64,       -1,
                                        -2, -3, -4, 1 << 16, 1 << 20, 1 << 30, INT32_MAX, INT32_MIN};
  std::mt19937 random(seed);
  if (size < first.size() * sizeof(int32_t) / 3) {
    size = std::min(max_size, first.size() * sizeof(int32_t));
    std::memcpy(data, first.data(), size);
  }
  if (random() % 2 == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::vector<int32_t> words = WordsOf(data, size);
  for (uint32_t count = random() % 4 + 1; count > 0 && !words.empty(); --count) {
    int32_t& word = words[random() % words.size()];
    switch (random() % 4) {
      case 0: word = kValues[random() % std::size(kValues)]; break;
      case 1: word = static_cast<int32_t>(static_cast<uint32_t>(word) + random() % 9 - 4); break;
      case 2: word = words[random() % words.size()]; break;
      default: word = static_cast<int32_t>(random() % 64); break;
    }
  }
  std::memcpy(data, words.data(), words.size() * sizeof(int32_t));
  return words.size() * sizeof(int32_t);
}

}  // namespace tenon
