// Kernels for AVX-512 with bf16 dot products, and bf16 GEMM on AMX tiles.
#define TENON_ISA amx
#define TENON_BF16_DOT
#define TENON_VNNI
#include "simd_avx512.h"
#include "table.h"
#include "gemm_amx.h"

namespace tenon_cpu::amx {
namespace {
constexpr Kernels MakeAmxKernels() {
  Kernels kernels = MakeKernels(Isa::kAmx, "amx");
  kernels.gemm = AmxGemm;
  return kernels;
}
}  // namespace
extern constinit const Kernels kTable = MakeAmxKernels();
}  // namespace tenon_cpu::amx
