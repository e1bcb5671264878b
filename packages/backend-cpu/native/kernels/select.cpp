// Which instruction sets this build has, which this machine runs, and which one to use.
#include "kernels.h"

#include <cstdlib>
#include <cstring>

#if defined(TENON_KERNELS_X86)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace tenon_cpu {

namespace generic {
extern const Kernels kTable;
}
#if defined(TENON_KERNELS_X86)
namespace avx2 {
extern const Kernels kTable;
}
namespace avx512 {
extern const Kernels kTable;
}
namespace avx512_bf16 {
extern const Kernels kTable;
}
namespace amx {
extern const Kernels kTable;
}
#endif

namespace {

// Best first.
constexpr Isa kIsas[] = {Isa::kAmx, Isa::kAvx512Bf16, Isa::kAvx512, Isa::kAvx2, Isa::kGeneric};

#if defined(TENON_KERNELS_X86)

struct CpuFeatures {
  bool avx2 = false;  // with FMA and F16C
  bool avx512 = false;
  bool avx512_bf16 = false;  // with VNNI
  bool amx_bf16 = false;
};

constexpr bool HasBits(uint32_t word, uint32_t bits) { return (word & bits) == bits; }
constexpr uint32_t Bit(int n) { return uint32_t{1} << n; }

// Registers that the operating system saves (XCR0).
uint32_t SavedStates() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Linux hands out the tile registers on request, for the whole process.
bool RequestTiles() {
#if defined(__linux__)
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
#else
  return false;
#endif
}

CpuFeatures DetectFeatures() {
  CpuFeatures features;
  uint32_t a, b, c, d;
  constexpr uint32_t kFma = Bit(12), kOsxsave = Bit(27), kF16c = Bit(29);
  if (!__get_cpuid(1, &a, &b, &c, &d) || !HasBits(c, kFma | kOsxsave | kF16c)) return features;
  const uint32_t saved = SavedStates();
  constexpr uint32_t kYmmState = 0x6, kZmmState = 0xe6, kTileState = 0x60000;
  if (!HasBits(saved, kYmmState)) return features;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return features;
  const uint32_t leaf7_b = b, leaf7_c = c, leaf7_d = d;
  constexpr uint32_t kAvx2 = Bit(5), kAvx512 = Bit(16) | Bit(17) | Bit(30) | Bit(31);  // F, DQ, BW, VL
  features.avx2 = HasBits(leaf7_b, kAvx2);
  features.avx512 = features.avx2 && HasBits(leaf7_b, kAvx512) && HasBits(saved, kZmmState);
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return features;
  constexpr uint32_t kAvx512Bf16 = Bit(5), kVnni = Bit(11), kAmxBf16Tile = Bit(22) | Bit(24);
  features.avx512_bf16 = features.avx512 && HasBits(a, kAvx512Bf16) && HasBits(leaf7_c, kVnni);
  features.amx_bf16 = features.avx512_bf16 && HasBits(leaf7_d, kAmxBf16Tile) &&
                      HasBits(saved, kTileState) && RequestTiles();
  return features;
}

const CpuFeatures& Features() {
  static const CpuFeatures features = DetectFeatures();
  return features;
}

#endif

}  // namespace

const Kernels* GetKernels(Isa isa) {
  switch (isa) {
    case Isa::kGeneric: return &generic::kTable;
#if defined(TENON_KERNELS_X86)
    case Isa::kAvx2: return &avx2::kTable;
    case Isa::kAvx512: return &avx512::kTable;
    case Isa::kAvx512Bf16: return &avx512_bf16::kTable;
    case Isa::kAmx: return &amx::kTable;
#endif
    default: return nullptr;
  }
}

bool CanRun(Isa isa) {
  if (GetKernels(isa) == nullptr) return false;
#if defined(TENON_KERNELS_X86)
  switch (isa) {
    case Isa::kAvx2: return Features().avx2;
    case Isa::kAvx512: return Features().avx512;
    case Isa::kAvx512Bf16: return Features().avx512_bf16;
    case Isa::kAmx: return Features().amx_bf16;
    default: break;
  }
#endif
  return isa == Isa::kGeneric;
}

bool IsaByName(const char* name, Isa* isa) {
  for (const Isa candidate : kIsas) {
    const Kernels* kernels = GetKernels(candidate);
    if (kernels == nullptr || std::strcmp(kernels->name, name) != 0) continue;
    *isa = candidate;
    return true;
  }
  return false;
}

Isa BestIsa() {
  Isa wanted;
  const char* name = std::getenv("TENON_CPU_ISA");
  if (name != nullptr && IsaByName(name, &wanted) && CanRun(wanted)) return wanted;
  for (const Isa isa : kIsas) {
    if (CanRun(isa)) return isa;
  }
  return Isa::kGeneric;
}

}  // namespace tenon_cpu
