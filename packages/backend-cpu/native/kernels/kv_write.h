// Writes K and V of tokens into the paged cache (layouts: KvLayer), alone or at the end of norm and rope.
#pragma once

#include "rms_norm.h"
#include "rope.h"

namespace tenon_cpu::TENON_ISA {

// Whether some token of this step is stored at `slot`. The likely place, the next token, is looked at first.
inline bool IsWritten(const int32_t* slots, int64_t num_tokens, int64_t token, int32_t slot) {
  if (token + 1 < num_tokens && slots[token + 1] == slot) return true;
  bool found = false;
  for (int64_t i = 0; i < num_tokens; i++) found |= slots[i] == slot;
  return found;
}

// Where one token's K and V of one head go.
struct KvPlace {
  int64_t head_offset;  // elements from the layer's start to the head's block, of K and of V
  int64_t offset;       // of the token in the block
  bool zeroes_odd;      // the token is the first of a pair, and the second is not written in this step
};

// The place in head 0. slots, num_tokens: of the whole step; token: the row that goes to slots[token] ≥ 0.
inline KvPlace PlaceOf(const KvLayer& kv, const int32_t* slots, int64_t num_tokens, int64_t token) {
  const int64_t block = slots[token] / kv.block_size;
  KvPlace place;
  place.head_offset = block * kv.num_kv_heads * kv.head_dim * kv.block_size;
  place.offset = slots[token] % kv.block_size;
  place.zeroes_odd = kv.dtype == Dtype::kBf16 && place.offset % 2 == 0 &&
                     !IsWritten(slots, num_tokens, token, slots[token] + 1);
  return place;
}

// k: [head_dim] f32 → K [head_dim / kr][block_size][kr].
TENON_INLINE void StoreKey(const KvLayer& kv, const KvPlace& place, const float* k) {
  const int64_t factor = PackFactor(kv.dtype);
  const int64_t element_bytes = BytesOf(kv.dtype);
  char key[kMaxHeadDim * 4];
  StoreHead(k, kv.head_dim, kv.dtype, key, 0);
  // A step of the dot is 4 bytes in f32 and bf16 (a pair), 2 in f16.
  auto* out = static_cast<char*>(kv.k) + (place.head_offset + place.offset * factor) * element_bytes;
  const int64_t step_bytes = factor * element_bytes;
  const int64_t steps = kv.head_dim / factor, stride = kv.block_size * step_bytes;
  if (step_bytes == 4) {
    for (int64_t s = 0; s < steps; s++) memcpy(out + s * stride, key + 4 * s, 4);
  } else {
    for (int64_t s = 0; s < steps; s++) memcpy(out + s * stride, key + 2 * s, 2);
  }
}

// v: [head_dim] f32 → V [block_size / kr][head_dim][kr].
TENON_INLINE void StoreValue(const KvLayer& kv, const KvPlace& place, const float* v) {
  if (kv.dtype != Dtype::kBf16) {
    StoreHead(v, kv.head_dim, kv.dtype, kv.v, place.head_offset + place.offset * kv.head_dim);
    return;
  }
  uint16_t value[kMaxHeadDim];
  StoreHead(v, kv.head_dim, kv.dtype, value, 0);
  auto* pairs = static_cast<uint16_t*>(kv.v) + place.head_offset + place.offset / 2 * 2 * kv.head_dim;
  const int64_t half = place.offset % 2;
  for (int64_t d = 0; d < kv.head_dim; d++) pairs[2 * d + half] = value[d];
  if (!place.zeroes_odd) return;
  for (int64_t d = 0; d < kv.head_dim; d++) pairs[2 * d + 1] = 0;
}

inline void KvWrite(const KvWriteParams& p) {
  alignas(64) float head[kMaxHeadDim];
  const int64_t head_dim = p.kv.head_dim;
  for (int64_t token = p.token_begin; token < p.token_end; token++) {
    if (p.slot_mapping[token] < 0) continue;
    KvPlace place = PlaceOf(p.kv, p.slot_mapping, p.num_tokens, token);
    for (int64_t h = 0; h < p.kv.num_kv_heads; h++) {
      LoadHead(p.k_dtype, p.k, token * p.ldk + h * head_dim, head_dim, head);
      StoreKey(p.kv, place, head);
      LoadHead(p.v_dtype, p.v, token * p.ldv + h * head_dim, head_dim, head);
      StoreValue(p.kv, place, head);
      place.head_offset += head_dim * p.kv.block_size;
    }
  }
}

// A head of q or k: RMS norm where weight is given, then rope, into out [head_dim].
TENON_INLINE void NormAndRotate(const float* x, const float* weight, float eps, const RopeHead& rope, float* out) {
  if (weight != nullptr) {
    RmsNormRow({x, Dtype::kF32, weight, out, Dtype::kF32, rope.head_dim, eps, 0, 1}, 0);
  } else {
    LoadHead(Dtype::kF32, x, 0, rope.head_dim, out);
  }
  RotateHead(rope, out);
}

inline void WriteQueries(const QkvRopeKvWriteParams& p, int64_t token, const RopeHead& rope) {
  alignas(64) float head[kMaxHeadDim];
  const float* q = p.qkv + token * p.ld_qkv;
  for (int64_t h = 0; h < p.num_heads; h++) {
    NormAndRotate(q + h * p.head_dim, p.q_norm, p.eps, rope, head);
    StoreHead(head, p.head_dim, p.q_dtype, p.q, (token * p.num_heads + h) * p.head_dim);
  }
}

inline void WriteKeysAndValues(const QkvRopeKvWriteParams& p, int64_t token, const RopeHead& rope) {
  if (p.slot_mapping[token] < 0) return;
  alignas(64) float head[kMaxHeadDim];
  const int64_t head_dim = p.head_dim;
  const float* k = p.qkv + token * p.ld_qkv + p.num_heads * head_dim;
  const float* v = k + p.num_kv_heads * head_dim;
  KvPlace place = PlaceOf(p.kv, p.slot_mapping, p.num_tokens, token);
  for (int64_t h = 0; h < p.num_kv_heads; h++) {
    NormAndRotate(k + h * head_dim, p.k_norm, p.eps, rope, head);
    StoreKey(p.kv, place, head);
    StoreValue(p.kv, place, v + h * head_dim);
    place.head_offset += head_dim * p.kv.block_size;
  }
}

inline void QkvRopeKvWrite(const QkvRopeKvWriteParams& p) {
  for (int64_t token = p.token_begin; token < p.token_end; token++) {
    const RopeHead rope = {p.cos_sin + token * p.rotary_dim, p.head_dim, p.rotary_dim, p.interleaved};
    WriteQueries(p, token, rope);
    WriteKeysAndValues(p, token, rope);
  }
}

}  // namespace tenon_cpu::TENON_ISA
