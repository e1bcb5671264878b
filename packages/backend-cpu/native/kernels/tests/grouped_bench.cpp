// Speeds of GEMM with grouped weights beside bf16's, by several threads at once: grouped_bench [threads] [seconds a case].
//
// Weights come from DRAM: copies are used in turn, larger than the caches together, and each thread takes its share of the
// columns, as the runtime does. Up to 16 rows every thread quantizes x itself, within the measured time. Bandwidth is that
// of the same threads reading a large buffer, measured again for every number of rows.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <thread>
#include <utility>

#include "reference.h"

namespace tenon_cpu::testing {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Threads that start together; the caller is thread 0.
class Team {
 public:
  explicit Team(int size) : size_(size) {
    for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { Serve(i); });
  }
  ~Team() {
    work_ = nullptr;
    turn_++;
    for (std::thread& thread : threads_) thread.join();
  }
  int size() const { return size_; }

  void Run(const std::function<void(int)>& work) {
    work_ = &work;
    running_ = size_;
    turn_++;
    work(0);
    running_--;
    while (running_ > 0) {
    }
  }

 private:
  void Serve(int thread) {
    for (int seen = 0;; seen++) {
      while (turn_ == seen) {
      }
      if (work_ == nullptr) return;
      (*work_)(thread);
      running_--;
    }
  }

  int size_;
  std::atomic<int> turn_ = 0, running_ = 0;
  const std::function<void(int)>* work_ = nullptr;
  std::vector<std::thread> threads_;
};

// The shortest of the runs that fit in `seconds`.
double BestSeconds(Team& team, double seconds, const std::function<void(int)>& work) {
  double best = 1e30;
  for (double end = Now() + seconds; Now() < end;) {
    const double start = Now();
    team.Run(work);
    best = std::min(best, Now() - start);
  }
  return best;
}

volatile uint64_t sink;

double ReadGbps(Team& team, double seconds, const AlignedBytes& buffer) {
  const auto* words = reinterpret_cast<const uint64_t*>(buffer.data());
  const int64_t share = static_cast<int64_t>(buffer.size()) / 8 / team.size() / 16 * 16;
  const double best = BestSeconds(team, seconds, [&](int thread) {
    uint64_t sum[16] = {};
    for (int64_t i = thread * share; i < (thread + 1) * share; i += 16) {
      for (int j = 0; j < 16; j++) sum[j] ^= words[i + j];
    }
    for (const uint64_t s : sum) sink = s;
  });
  return static_cast<double>(share * team.size()) * 8 / best * 1e-9;
}

struct Format {
  const char* name;
  Grouping grouping;
};
constexpr Format kFormats[] = {
    {"bf16", {}},
    {"int8:g32", {8, 32, false}},
    {"int8:g32:min", {8, 32, true}},
    {"int8:g16", {8, 16, false}},
    {"int4:g32", {4, 32, false}},
    {"int4:g32:min", {4, 32, true}},
};

struct Speed {
  double gmacs, gbps;
};

Speed BenchGemm(const Kernels& kernels, Team& team, double seconds, const AlignedBytes& buffer, const Grouping& grouping,
                int64_t m, int64_t n, int64_t k) {
  constexpr int64_t kFewRows = 16;
  const bool grouped = grouping.bits != 0;
  const int64_t num_blocks = n / kLanes, bytes = num_blocks * PackedBlockBytes(Dtype::kBf16, k, grouping);
  const int64_t copies = static_cast<int64_t>(buffer.size()) / bytes;
  Random random(3);
  Array x(Dtype::kBf16, m * k), y(Dtype::kF32, m * n);
  x.Fill(random);
  std::vector<AlignedBytes> scratch, rows;
  QuantizeRowsParams q = {x.data(), Dtype::kBf16, k, k, grouping, nullptr, 0, m};
  for (int i = 0; i < team.size(); i++) {
    scratch.emplace_back(kernels.gemm_scratch_bytes(m, k));
    rows.emplace_back(static_cast<size_t>(m * QuantizedRowBytes(k)));
    q.y = rows.back().data();
    if (grouped) kernels.quantize_rows(q);
  }
  const double best = BestSeconds(team, seconds, [&](int thread) {
    QuantizeRowsParams own = q;
    own.y = rows[static_cast<size_t>(thread)].data();
    GemmParams p = {};
    p.x = grouped ? own.y : x.data();
    p.ldx = k;
    p.y = y.data();
    p.ldy = n;
    p.m_end = m;
    p.block_begin = num_blocks * thread / team.size();
    p.block_end = num_blocks * (thread + 1) / team.size();
    p.scratch = scratch[static_cast<size_t>(thread)].data();
    for (int64_t i = 0; i < copies; i++) {
      if (grouped && m <= kFewRows) kernels.quantize_rows(own);
      p.weight = {buffer.data() + i * bytes, Dtype::kBf16, n, k, grouping};
      kernels.gemm(p);
    }
  }) / static_cast<double>(copies);
  return {static_cast<double>(m * n * k) / best * 1e-9, static_cast<double>(bytes) / best * 1e-9};
}

void BenchRows(const Kernels& kernels) {
  Team one(1);
  for (const int64_t k : {576, 4096}) {
    const int64_t m = 128;
    Array x(Dtype::kBf16, m * k);
    AlignedBytes y(static_cast<size_t>(m * QuantizedRowBytes(k)));
    Random random(3);
    x.Fill(random);
    const double best = BestSeconds(one, 0.1, [&](int) {
      kernels.quantize_rows({x.data(), Dtype::kBf16, k, k, {8, 32, false}, y.data(), 0, m});
    });
    std::printf("quantize_rows of %lld: %.3f us a row\n", static_cast<long long>(k), best / m * 1e6);
  }
}

void BenchAll(const Kernels& kernels, int num_threads, double seconds) {
  AlignedBytes buffer(size_t{160} << 20);
  Random random(1);
  auto* words = reinterpret_cast<uint64_t*>(buffer.data());
  for (size_t i = 0; i < buffer.size() / 8; i++) words[i] = random.Next() & 0xbbffbbffbbffbbff;  // finite as f16, bf16
  Team team(num_threads);
  std::printf("== %s, %d threads\n", kernels.name, num_threads);
  BenchRows(kernels);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{3072, 576}, {4096, 4096}}) {
    for (const int64_t m : {1, 2, 4, 8, 16, 32, 128, 512}) {
      const double read = ReadGbps(team, seconds, buffer);
      double bf16 = 0;
      for (const Format& format : kFormats) {
        const Speed speed = BenchGemm(kernels, team, seconds, buffer, format.grouping, m, n, k);
        if (format.grouping.bits == 0) bf16 = speed.gmacs;
        std::printf("%-12s m=%-3lld n=%lld k=%-4lld %7.1f GMAC/s (%.2f of bf16) %6.1f GB/s (%3.0f %% of %.1f read)\n",
                    format.name, static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(k),
                    speed.gmacs, speed.gmacs / bf16, speed.gbps, 100 * speed.gbps / read, read);
        std::fflush(stdout);
      }
    }
  }
}

}  // namespace
}  // namespace tenon_cpu::testing

int main(int argc, char** argv) {
  using namespace tenon_cpu;
  const int num_threads = argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  testing::BenchAll(*GetKernels(BestIsa()), num_threads, argc > 2 ? std::atof(argv[2]) : 0.2);
  return 0;
}
