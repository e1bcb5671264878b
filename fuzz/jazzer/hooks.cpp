// Jazzer.js brings a libFuzzer of its own whose hooks take the place of a comparison too; these pass the comparison on.
#include <cstdint>

extern "C" {
void __sanitizer_cov_trace_const_cmp8(uint64_t left, uint64_t right);
void __sanitizer_cov_trace_pc_indir(uintptr_t callee);

void __sanitizer_cov_trace_const_cmp8_with_pc(uintptr_t, uint64_t left, uint64_t right) {
  __sanitizer_cov_trace_const_cmp8(left, right);
}
void __sanitizer_cov_trace_pc_indir_with_pc(void*, uintptr_t callee) { __sanitizer_cov_trace_pc_indir(callee); }
}
