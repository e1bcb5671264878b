// Kernels for AVX-512 with bf16, and bf16 GEMM on AMX tiles.
#define TENON_ISA amx
#define TENON_BF16_DOT
#include "simd_avx512.h"
#include "table.h"

namespace tenon_cpu::amx {
extern constinit const Kernels kTable = MakeKernels(Isa::kAmx, "amx");
}
