// add: y = a + b; gated_act: y = act(a) * b; embedding: rows of a table. In f32, any dtypes in and out.
#pragma once

#include "vector_math.h"

namespace tenon_cpu::TENON_ISA {

template <class Fn>
TENON_INLINE void MapElements(const ElementwiseParams& p, const Fn& fn) {
  for (int64_t i = p.begin; i < p.end; i += 16) {
    const int64_t n = Min(16, p.end - i);
    StoreAny(p.y_dtype, p.y, i, fn(LoadAny(p.a_dtype, p.a, i, n), LoadAny(p.b_dtype, p.b, i, n)), n);
  }
}

inline void AddElements(const ElementwiseParams& p) {
  MapElements(p, [](V a, V b) { return Add(a, b); });
}

inline void GatedAct(const ElementwiseParams& p, int32_t activation) {
  MapElements(p, [&](V a, V b) { return Mul(Activate(a, activation), b); });
}

// Row `token_id` of a packed [V, hidden] table (lane token_id % 16 of its block) as f32, 16 elements from `begin` on.
template <Dtype D>
TENON_INLINE V LoadPackedRow(const EmbeddingParams& p, int64_t token_id, int64_t begin, int64_t n) {
  constexpr int64_t kFactor = PackFactor(D);
  const auto* block = static_cast<const char*>(p.packed.data) + token_id / kLanes * PackedBlockBytes(D, p.hidden);
  const auto* lane = reinterpret_cast<const Element<D>*>(block) + token_id % kLanes * kFactor;
  Element<D> elements[16] = {};
  for (int64_t i = 0; i < n; i++) {
    const int64_t k = begin + i;
    elements[i] = lane[k / kFactor * kLanes * kFactor + k % kFactor];
  }
  return LoadElements<D>(elements);
}

inline V LoadEmbedding(const EmbeddingParams& p, int64_t token_id, int64_t begin, int64_t n) {
  if (p.packed.data == nullptr) return LoadAny(p.dtype, p.row_major, token_id * p.hidden + begin, n);
  V v;
  WithDtype(p.packed.dtype, [&](auto dtype) { v = LoadPackedRow<dtype.kDtype>(p, token_id, begin, n); });
  return v;
}

inline void Embedding(const EmbeddingParams& p) {
  for (int64_t token = p.token_begin; token < p.token_end; token++) {
    for (int64_t i = 0; i < p.hidden; i += 16) {
      const int64_t n = Min(16, p.hidden - i);
      StoreAny(p.y_dtype, p.y, token * p.hidden + i, LoadEmbedding(p, p.token_ids[token], i, n), n);
    }
  }
}

}  // namespace tenon_cpu::TENON_ISA
