// TENON_CLONES before a function compiles it once per x86 level; the dynamic linker picks the best that the machine runs.
// For plain loops that the compiler vectorizes; only glibc's linker does this, elsewhere there is one function. Wants
// -ffp-contract=off: with fused multiply-adds the clones would round differently.
#pragma once

#include <cstddef>  // __GLIBC__

// The linker asks for a clone before the thread sanitizer is up.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TENON_CLONES
#endif
#endif

#if defined(TENON_CLONES)
#elif defined(__x86_64__) && defined(__GLIBC__) && defined(__clang__)
#define TENON_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#elif defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define TENON_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TENON_CLONES
#endif
