// Kernels for AVX-512 F, BW, VL and DQ.
#define TENON_ISA avx512
#include "simd_avx512.h"
#include "table.h"

namespace tenon_cpu::avx512 {
extern constinit const Kernels kTable = MakeKernels(Isa::kAvx512, "avx512");
}
