// Kernels in plain C++, for any machine.
#define TENON_ISA generic
#include "simd_generic.h"
#include "table.h"

namespace tenon_cpu::generic {
extern constinit const Kernels kTable = MakeKernels(Isa::kGeneric, "generic");
}
