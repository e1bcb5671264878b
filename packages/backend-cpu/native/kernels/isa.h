// How one source serves every instruction set: each isa_*.cpp names its namespace in TENON_ISA, includes its simd_*.h and
// then the kernels, all of which live in tenon_cpu::TENON_ISA. So nothing compiled with wider instructions can be picked by
// the linker for a narrower path. For the same reason kernels instantiate no templates of std.
#pragma once

#ifndef TENON_ISA
#error "include through one of isa_*.cpp"
#endif

#include <math.h>
#include <string.h>

#include "kernels.h"

#if defined(__GNUC__)
#define TENON_INLINE inline __attribute__((always_inline))
#define TENON_UNROLL _Pragma("GCC unroll 16")
#define TENON_PREFETCH(address) __builtin_prefetch(address, 0, 2)  // into L2
#if defined(__AVX2__)
// Into L1, to be written. As assembly, since the flag for prefetchw is in no instruction set's; a machine with AVX2 that
// cannot do it does nothing.
#define TENON_PREFETCH_WRITE(address) __asm__ volatile("prefetchw %0" : : "m"(*(address)))
#else
#define TENON_PREFETCH_WRITE(address) __builtin_prefetch(address, 1, 3)
#endif
#else
#define TENON_PREFETCH_WRITE(address) ((void)(address))
#define TENON_INLINE __forceinline
#define TENON_UNROLL
#define TENON_PREFETCH(address) ((void)(address))
#endif

namespace tenon_cpu::TENON_ISA {

TENON_INLINE int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
TENON_INLINE int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }
TENON_INLINE int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
TENON_INLINE int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

TENON_INLINE char* AlignTo64(void* p) {
  return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(p) + 63) & ~uintptr_t{63});
}

// C++ element type of a dtype. 16-bit floats are their bits.
template <Dtype D>
struct ElementOf {
  using Type = uint16_t;
};
template <>
struct ElementOf<Dtype::kF32> {
  using Type = float;
};
template <Dtype D>
using Element = typename ElementOf<D>::Type;

constexpr int64_t BytesOf(Dtype dtype) { return dtype == Dtype::kF32 ? 4 : 2; }

template <Dtype D>
struct DtypeTag {
  static constexpr Dtype kDtype = D;
};

// Calls fn with the tag of a floating-point dtype.
template <class Fn>
TENON_INLINE void WithDtype(Dtype dtype, const Fn& fn) {
  if (dtype == Dtype::kF32) {
    fn(DtypeTag<Dtype::kF32>());
  } else if (dtype == Dtype::kBf16) {
    fn(DtypeTag<Dtype::kBf16>());
  } else {
    fn(DtypeTag<Dtype::kF16>());
  }
}

}  // namespace tenon_cpu::TENON_ISA
