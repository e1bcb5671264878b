// Kernels for AVX-512 with bf16 and 8-bit dot products.
#define TENON_ISA avx512_bf16
#define TENON_BF16_DOT
#define TENON_VNNI
#include "simd_avx512.h"
#include "table.h"

namespace tenon_cpu::avx512_bf16 {
extern constinit const Kernels kTable = MakeKernels(Isa::kAvx512Bf16, "avx512-bf16");
}
