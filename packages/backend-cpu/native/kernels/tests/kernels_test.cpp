// Runs the kernel tests on every instruction set of this machine: kernels_test [seed] [isa].
#include <chrono>
#include <cstdlib>

#include "reference.h"

namespace tenon_cpu::testing {
namespace {

using Test = void (*)(const Kernels&, Random&, Report&);
struct NamedTest {
  const char* name;
  Test run;
};
constexpr NamedTest kTests[] = {
    {"gemm", TestGemm},
    {"gemm_grouped", TestGroupedGemm},
    {"attention", TestAttention},
    {"kv_write", TestKvWrite},
    {"elementwise", TestElementwise},
    {"vocab", TestVocab},
};

int RunIsa(const Kernels& kernels, uint64_t seed) {
  int failures = 0;
  for (const NamedTest& test : kTests) {
    Random random(seed);
    Report report(kernels.name);
    const auto start = std::chrono::steady_clock::now();
    test.run(kernels, random, report);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%-12s %-12s %4d checks, %d failed, worst error %.2f of its tolerance, %.1f s\n", kernels.name,
                test.name, report.checks(), report.failures(), report.largest_ratio(), seconds.count());
    failures += report.failures();
  }
  return failures;
}

}  // namespace
}  // namespace tenon_cpu::testing

int main(int argc, char** argv) {
  using namespace tenon_cpu;
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  int failures = 0;
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    const Kernels* kernels = GetKernels(isa);
    if (kernels == nullptr || (argc > 2 && std::strcmp(kernels->name, argv[2]) != 0)) continue;
    if (!CanRun(isa)) {
      std::printf("%-12s not run: this machine lacks it\n", kernels->name);
      continue;
    }
    failures += testing::RunIsa(*kernels, seed);
  }
  return failures == 0 ? 0 : 1;
}
