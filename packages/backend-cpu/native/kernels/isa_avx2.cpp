// Kernels for AVX2, FMA and F16C.
#define TENON_ISA avx2
#include "simd_avx2.h"
#include "table.h"

namespace tenon_cpu::avx2 {
extern constinit const Kernels kTable = MakeKernels(Isa::kAvx2, "avx2");
}
