// add: y = a + b; gated_act: y = act(a) * b; embedding: rows of a table. In f32, any dtypes in and out.
#pragma once

#include "grouped.h"
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

// The same of a grouped table.
template <Grouping G>
TENON_INLINE V LoadGroupedRow(const EmbeddingParams& p, int64_t token_id, int64_t begin, int64_t n) {
  const int64_t lane = token_id % kLanes, g = begin % kUnitK / G.group;
  const char* block = static_cast<const char*>(p.packed.data) + token_id / kLanes * PackedBlockBytes(p.dtype, p.hidden, G);
  const char* unit = block + begin / kUnitK * GroupedUnitBytes(G);
  const auto half_at = [&](int64_t offset) {
    return F32FromF16(reinterpret_cast<const uint16_t*>(unit + offset)[g * kLanes + lane]);
  };
  float elements[16] = {};
  for (int64_t i = 0; i < n; i++) {
    const int64_t k = begin % kUnitK + i;
    const auto* quads = reinterpret_cast<const uint8_t*>(unit + LayoutOf(G).quants) + lane * 4 + k % 4;
    const int32_t u = G.bits == 8 ? quads[k / 4 * 64] : quads[k / 8 * 64] >> (k % 8 / 4 * 4) & 15;
    elements[i] = static_cast<float>(u - G.Zero());
  }
  const V v = Mul(Load(elements), Broadcast(half_at(0)));
  return G.has_min ? Add(v, Broadcast(half_at(LayoutOf(G).mins))) : v;
}

inline V LoadEmbedding(const EmbeddingParams& p, int64_t token_id, int64_t begin, int64_t n) {
  if (p.packed.data == nullptr) return LoadAny(p.dtype, p.row_major, token_id * p.hidden + begin, n);
  V v;
  if (p.packed.grouping.bits != 0) {
    WithGrouping(p.packed.grouping, [&]<Grouping G>() { v = LoadGroupedRow<G>(p, token_id, begin, n); });
    return v;
  }
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
