// Packs 16 rows of a row-major f32 matrix into one block [ceil(k / kr)][16][kr], rounding to nearest even. f32 is moved bit
// by bit, so the loader also packs pairs of bf16 as f32 words.
#pragma once

#include "elements.h"

namespace tenon_cpu::TENON_ISA {

// Columns [k_begin, k) of `rows` ≤ 16 rows, element by element; the rest of the block from k_begin on is zeroed.
template <Dtype D>
void PackColumns(const PackBlockParams& p, int64_t k_begin) {
  constexpr int64_t kFactor = PackFactor(D);
  auto* out = static_cast<Element<D>*>(p.dst);
  const size_t begin_bytes = static_cast<size_t>(k_begin * kLanes) * sizeof(Element<D>);
  memset(static_cast<char*>(p.dst) + begin_bytes, 0, static_cast<size_t>(PackedBlockBytes(D, p.k)) - begin_bytes);
  for (int64_t lane = 0; lane < p.rows; lane++) {
    const float* row = p.src[lane];
    for (int64_t begin = k_begin; begin < p.k; begin += 16) {
      const int64_t n = Min(16, p.k - begin);
      Element<D> elements[16];
      StoreElementsN<D>(elements, LoadElementsN<Dtype::kF32>(row + begin, n), n);
      for (int64_t i = 0; i < n; i++) {
        const int64_t k = begin + i;
        out[k / kFactor * kLanes * kFactor + lane * kFactor + k % kFactor] = elements[i];
      }
    }
  }
}

#if defined(__AVX2__) && defined(__GNUC__)
typedef uint32_t Words __attribute__((vector_size(32)));   // 8
typedef uint16_t Halves __attribute__((vector_size(32)));  // 16

// Transposes the 8x8 words of r in place: interleaves words, pairs of words, then halves.
TENON_INLINE void TransposeWords(Words (&r)[8]) {
  Words t[8];
  TENON_UNROLL
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  TENON_UNROLL
  for (int i = 0; i < 8; i += 4) {
    r[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    r[i + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    r[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    r[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  TENON_UNROLL
  for (int i = 0; i < 4; i++) {
    t[i] = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    t[i + 4] = __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  memcpy(r, t, sizeof t);
}

// Eight words of the held type: 8 elements of f32, 16 of a 16-bit type.
template <Dtype D>
TENON_INLINE void LoadWords(const float* row, Words* words) {
  if constexpr (D == Dtype::kF32) {
    memcpy(words, row, sizeof *words);
  } else {
    uint16_t halves[16];
    StoreElements<D>(halves, Load(row));
    memcpy(words, halves, sizeof *words);
  }
}

// The columns of 16 whole rows, in groups of eight words; returns the number of columns done.
template <Dtype D>
int64_t PackWholeGroups(const PackBlockParams& p) {
  constexpr int64_t kColumns = 32 / sizeof(Element<D>);
  auto* out = static_cast<Words*>(p.dst);
  int64_t k = 0;
  for (; k + kColumns <= p.k; k += kColumns, out += 16) {
    Words low[8], high[8];
    TENON_UNROLL
    for (int i = 0; i < 8; i++) LoadWords<D>(p.src[i] + k, &low[i]);
    TENON_UNROLL
    for (int i = 0; i < 8; i++) LoadWords<D>(p.src[8 + i] + k, &high[i]);
    TransposeWords(low);
    TransposeWords(high);
    TENON_UNROLL
    for (int i = 0; i < 8; i++) {
      if constexpr (D == Dtype::kF16) {  // two columns of single elements, not one of pairs
        const Halves a = (Halves)low[i], b = (Halves)high[i];
        low[i] = (Words)__builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        high[i] = (Words)__builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
      }
      memcpy(out + 2 * i, &low[i], sizeof(Words));
      memcpy(out + 2 * i + 1, &high[i], sizeof(Words));
    }
  }
  return k;
}
#else
template <Dtype D>
int64_t PackWholeGroups(const PackBlockParams&) {
  return 0;
}
#endif

template <Dtype D>
void PackBlockAs(const PackBlockParams& p) {
  PackColumns<D>(p, p.rows == kLanes ? PackWholeGroups<D>(p) : 0);
}

inline void PackBlock(const PackBlockParams& p) {
  WithDtype(p.dtype, [&](auto dtype) { PackBlockAs<dtype.kDtype>(p); });
}

}  // namespace tenon_cpu::TENON_ISA
