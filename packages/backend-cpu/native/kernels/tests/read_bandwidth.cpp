// What the memory gives to plain reads, the roof of a decode step: read_bandwidth [threads] [MiB] [runs].
// Each thread reads a part of one buffer, larger than the caches. Prints JSON: GB/s of the median run and of the best one.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "reference.h"

namespace tenon_cpu::testing {
namespace {

volatile uint64_t sink;

// Sixteen chains, so that no run waits for a sum.
void Read(const uint64_t* words, int64_t n) {
  uint64_t sum[16] = {};
  for (int64_t i = 0; i + 16 <= n; i += 16) {
    for (int j = 0; j < 16; j++) sum[j] ^= words[i + j];
  }
  for (const uint64_t s : sum) sink = s;
}

// Seconds from the moment all threads are there until the last one has read its part.
double SecondsToRead(const AlignedBytes& buffer, int num_threads) {
  const int64_t words = static_cast<int64_t>(buffer.size()) / 8 / num_threads;
  std::atomic<int> waiting{num_threads};
  std::vector<std::thread> threads;
  std::chrono::steady_clock::time_point start;
  for (int t = 0; t < num_threads; t++) {
    threads.emplace_back([&, t] {
      if (waiting.fetch_sub(1) == 1) start = std::chrono::steady_clock::now();
      while (waiting.load() > 0) std::this_thread::yield();
      Read(reinterpret_cast<const uint64_t*>(buffer.data()) + t * words, words);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Run(int num_threads, int64_t mebibytes, int runs) {
  const AlignedBytes buffer(static_cast<size_t>(mebibytes) << 20);
  std::vector<double> gbps;
  for (int i = 0; i < runs; i++) {
    gbps.push_back(static_cast<double>(buffer.size()) / SecondsToRead(buffer, num_threads) * 1e-9);
  }
  std::sort(gbps.begin(), gbps.end());
  std::printf("{\"threads\":%d,\"mebibytes\":%lld,\"median\":%.2f,\"best\":%.2f}\n", num_threads,
              static_cast<long long>(mebibytes), gbps[gbps.size() / 2], gbps.back());
}

}  // namespace
}  // namespace tenon_cpu::testing

int main(int argc, char** argv) {
  const auto number = [&](int i, int otherwise) { return argc > i ? std::max(1, std::atoi(argv[i])) : otherwise; };
  tenon_cpu::testing::Run(number(1, 2), number(2, 512), number(3, 15));
  return 0;
}
