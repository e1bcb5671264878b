// Stores k[t] and v[t] at slotMapping[t]; a slot of -1 stores nothing.
#pragma once

#include "operands.h"

namespace tenon_backend_template::kernels {

inline void KvWrite(const tenon::KvWriteOpParams& p, const KvLayer& kv) {
  const Floats k = In(p.k, p.k_dtype), v = In(p.v, p.v_dtype);
  for (int64_t t = 0; t < p.rows; ++t) {
    if (p.slot_mapping[t] < 0) continue;
    for (int64_t i = 0; i < kv.num_heads * kv.head_dim; ++i) {
      const int64_t from = t * kv.num_heads * kv.head_dim + i, lane = i % kv.head_dim;
      const int64_t to = kv.At(p.slot_mapping[t], i / kv.head_dim) + lane / KvLayer::kLanes * kv.stride() + lane % KvLayer::kLanes;
      kv.data.Set(to, k[from]);
      kv.data.Set(to + KvLayer::kLanes, v[from]);
    }
  }
}

}  // namespace tenon_backend_template::kernels
