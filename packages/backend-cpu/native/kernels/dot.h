// The one inner loop of GEMM and attention: acc[r][j] += Σ_s x[r][s] · w[j][s], where w[j] is a column of blocks of 16
// lanes (weights: output columns; K: tokens; V: head dimensions) and x[r] a row whose elements are broadcast. K ascends, one
// accumulator per output lane, the same instructions for every tile size: a row's sum does not depend on its tile.
#pragma once

#include "elements.h"

namespace tenon_cpu::TENON_ISA {

// Multiply-add in f32 for every weight type; x is f32 (converted beforehand). K is padded with zeros to whole steps.
template <Dtype D>
struct FmaDot {
  using X = float;
  static constexpr Dtype kDtype = D;
  static constexpr int kFactor = PackFactor(D);  // K elements per step
  static constexpr int kParts = kFactor;         // loads of w per step
  static constexpr bool kConvertsX = D != Dtype::kF32;

  using W = V;
  using XLanes = V;
  TENON_INLINE static W LoadW(const char* w, int part) {
    const auto* elements = reinterpret_cast<const Element<D>*>(w);
    if constexpr (D == Dtype::kBf16) return LoadBf16Part(elements, part);
    return LoadElements<D>(elements);
  }
  TENON_INLINE static XLanes LoadX(const X* x, int part) { return Broadcast(x[part]); }
  TENON_INLINE static V Step(V acc, W w, XLanes x) { return Fma(x, w, acc); }

  // Attention weights 2^s of 2 x 16 tokens to x, in its type; returns sum + what was stored.
  static constexpr bool kCoarse = false;
  TENON_INLINE static V StoreWeights(X* x, V first, V second, V sum) {
    Store(x, first);
    Store(x + kLanes, second);
    return Add(Add(sum, first), second);
  }
};

// The dot of a dtype on this instruction set.
template <Dtype D>
struct DotOf {
  using Type = FmaDot<D>;
};

#ifdef TENON_BF16_DOT
// vdpbf16ps: pairs of bf16 with f32 accumulation; x stays bf16.
struct PairDot {
  using X = uint16_t;
  static constexpr Dtype kDtype = Dtype::kBf16;
  static constexpr int kFactor = 2;
  static constexpr int kParts = 1;
  static constexpr bool kConvertsX = false;

  using W = __m512i;
  using XLanes = __m512i;
  TENON_INLINE static W LoadW(const char* w, int) {
    W lanes = _mm512_loadu_si512(w);
#if defined(__GNUC__)
    __asm__("" : "+v"(lanes));  // stays in its register; g++ 12 would load it again for every row
#endif
    return lanes;
  }
  TENON_INLINE static XLanes LoadX(const X* x, int) {
    int32_t pair;
    memcpy(&pair, x, 4);
    return _mm512_set1_epi32(pair);
  }
  TENON_INLINE static V Step(V acc, W w, XLanes x) {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
  }
  static constexpr bool kCoarse = true;
  TENON_INLINE static V StoreWeights(X* x, V first, V second, V sum) {
    const __m512bh both = _mm512_cvtne2ps_pbh(second, first);
    _mm512_storeu_si512(x, reinterpret_cast<__m512i>(both));
    return _mm512_dpbf16_ps(sum, both, reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80)));  // ones
  }
};

template <>
struct DotOf<Dtype::kBf16> {
  using Type = PairDot;
};
#endif

// What to prefetch at step s of the loop.
struct NoPrefetch {
  template <int NR>
  TENON_INLINE void Step(const char* const (&)[NR], int64_t) const {}
};
// The same streams, `distance` bytes ahead. Into L2, as all prefetches here: many more may be under way than into L1,
// and L1's own prefetcher does the rest.
struct PrefetchAhead {
  int64_t distance;
  int64_t stride;  // of the streams
  template <int NR>
  TENON_INLINE void Step(const char* const (&w)[NR], int64_t s) const {
    TENON_UNROLL
    for (int j = 0; j < NR; j++) TENON_PREFETCH(w[j] + distance + s * stride);
  }
};
// N other streams.
template <int N>
struct PrefetchEach {
  const char* stream[N];
  int64_t stride;
  template <int NR>
  TENON_INLINE void Step(const char* const (&)[NR], int64_t s) const {
    TENON_UNROLL
    for (int i = 0; i < N; i++) TENON_PREFETCH(stream[i] + s * stride);
  }
};

// x[r]: row r at its first step; w[j]: block j at its first step; step s of a block lies w_stride bytes after step s - 1.
template <class Dot, int MR, int NR, class Prefetch>
TENON_INLINE void DotSteps(const typename Dot::X* const (&x)[MR], const char* const (&w)[NR], int64_t w_stride,
                           int64_t steps, const Prefetch& prefetch, V (&acc)[MR][NR]) {
  for (int64_t s = 0; s < steps; s++) {
    prefetch.Step(w, s);
    TENON_UNROLL
    for (int part = 0; part < Dot::kParts; part++) {
      typename Dot::W lanes[NR];
      TENON_UNROLL
      for (int j = 0; j < NR; j++) {
        lanes[j] = Dot::LoadW(w[j] + s * w_stride, part);
      }
      TENON_UNROLL
      for (int r = 0; r < MR; r++) {
        const typename Dot::XLanes row = Dot::LoadX(x[r] + s * Dot::kFactor, part);
        TENON_UNROLL
        for (int j = 0; j < NR; j++) acc[r][j] = Dot::Step(acc[r][j], lanes[j], row);
      }
    }
  }
}

// Accumulators to and from memory: rows ld apart, blocks of 16 lanes side by side.
template <int MR, int NR>
TENON_INLINE void LoadTile(const float* tile, int64_t ld, V (&acc)[MR][NR]) {
  TENON_UNROLL
  for (int r = 0; r < MR; r++) {
    TENON_UNROLL
    for (int j = 0; j < NR; j++) acc[r][j] = Load(tile + r * ld + 16 * j);
  }
}
template <int MR, int NR>
TENON_INLINE void StoreTile(float* tile, int64_t ld, const V (&acc)[MR][NR]) {
  TENON_UNROLL
  for (int r = 0; r < MR; r++) {
    TENON_UNROLL
    for (int j = 0; j < NR; j++) Store(tile + r * ld + 16 * j, acc[r][j]);
  }
}
template <int MR, int NR>
TENON_INLINE void ZeroTile(V (&acc)[MR][NR]) {
  TENON_UNROLL
  for (int r = 0; r < MR; r++) {
    TENON_UNROLL
    for (int j = 0; j < NR; j++) acc[r][j] = Zero();
  }
}

// Calls fn<rows>() for kMin ≤ rows ≤ kMax.
template <int kMax, int kMin = 1, class Fn>
TENON_INLINE void WithRows(int64_t rows, const Fn& fn) {
  if constexpr (kMax > kMin) {
    if (rows < kMax) return WithRows<kMax - 1, kMin>(rows, fn);
  }
  fn.template operator()<kMax>();
}

// Splits n rows into the fewest tiles of at most max_rows, of sizes that differ by at most one.
struct RowTiles {
  int64_t n;
  int64_t count;
  RowTiles(int64_t rows, int64_t max_rows) : n(rows), count(CeilDiv(rows, max_rows)) {}
  TENON_INLINE int64_t Begin(int64_t tile) const { return tile * (n / count) + Min(tile, n % count); }
};

}  // namespace tenon_cpu::TENON_ISA
