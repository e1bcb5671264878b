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

// v: [head_dim] f32 → V [block_size / kr][head_dim][kr]. next: of the token after it, where both halves of a pair are
// written at once; else null.
TENON_INLINE void StoreValue(const KvLayer& kv, const KvPlace& place, const float* v, const float* next) {
  if (kv.dtype != Dtype::kBf16) {
    StoreHead(v, kv.head_dim, kv.dtype, kv.v, place.head_offset + place.offset * kv.head_dim);
    return;
  }
  uint16_t value[kMaxHeadDim], second[kMaxHeadDim];
  StoreHead(v, kv.head_dim, kv.dtype, value, 0);
  auto* pairs = static_cast<uint16_t*>(kv.v) + place.head_offset + place.offset / 2 * 2 * kv.head_dim;
  if (next != nullptr || place.zeroes_odd) {
    if (next != nullptr) {
      StoreHead(next, kv.head_dim, kv.dtype, second, 0);
    } else {
      memset(second, 0, sizeof second);
    }
    for (int64_t d = 0; d < kv.head_dim; d++) {
      pairs[2 * d] = value[d];
      pairs[2 * d + 1] = second[d];
    }
    return;
  }
  const int64_t half = place.offset % 2;
  for (int64_t d = 0; d < kv.head_dim; d++) pairs[2 * d + half] = value[d];
}

// Rows of a step that are written to a layer.
struct KvRows {
  const KvLayer& kv;
  const int32_t* slots;  // [num_tokens]
  int64_t num_tokens;
  int64_t begin, end;

  // Whether rows `token` and `token + 1` are both halves of a pair of V.
  TENON_INLINE bool IsPair(int64_t token) const {
    return kv.dtype == Dtype::kBf16 && slots[token] % 2 == 0 && token + 1 < end && slots[token + 1] == slots[token] + 1;
  }
};

// load(token, head, buffer): [head_dim] f32, perhaps in `buffer`.
template <class Load>
TENON_INLINE void StoreValues(const KvRows& rows, const Load& load) {
  alignas(64) float first[kMaxHeadDim], second[kMaxHeadDim];
  for (int64_t token = rows.begin; token < rows.end; token++) {
    if (rows.slots[token] < 0) continue;
    const bool pair = rows.IsPair(token);
    KvPlace place = PlaceOf(rows.kv, rows.slots, rows.num_tokens, token);
    for (int64_t h = 0; h < rows.kv.num_kv_heads; h++) {
      StoreValue(rows.kv, place, load(token, h, first), pair ? load(token + 1, h, second) : nullptr);
      place.head_offset += int64_t{rows.kv.head_dim} * rows.kv.block_size;
    }
    if (pair) token++;
  }
}

template <class Load>
TENON_INLINE void StoreKeys(const KvRows& rows, const Load& load) {
  alignas(64) float head[kMaxHeadDim];
  for (int64_t token = rows.begin; token < rows.end; token++) {
    if (rows.slots[token] < 0) continue;
    KvPlace place = PlaceOf(rows.kv, rows.slots, rows.num_tokens, token);
    for (int64_t h = 0; h < rows.kv.num_kv_heads; h++) {
      StoreKey(rows.kv, place, load(token, h, head));
      place.head_offset += int64_t{rows.kv.head_dim} * rows.kv.block_size;
    }
  }
}

inline void KvWrite(const KvWriteParams& p) {
  const KvRows rows = {p.kv, p.slot_mapping, p.num_tokens, p.token_begin, p.token_end};
  const int64_t head_dim = p.kv.head_dim;
  StoreKeys(rows, [&](int64_t token, int64_t h, float* buffer) {
    LoadHead(p.k_dtype, p.k, token * p.ldk + h * head_dim, head_dim, buffer);
    return buffer;
  });
  StoreValues(rows, [&](int64_t token, int64_t h, float* buffer) {
    LoadHead(p.v_dtype, p.v, token * p.ldv + h * head_dim, head_dim, buffer);
    return buffer;
  });
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

inline void QkvRopeKvWrite(const QkvRopeKvWriteParams& p) {
  const int64_t head_dim = p.head_dim;
  const int64_t k_begin = p.num_heads * head_dim, v_begin = k_begin + p.num_kv_heads * head_dim;
  const auto rope_of = [&](int64_t token) {
    return RopeHead{p.cos_sin + token * p.rotary_dim, head_dim, p.rotary_dim, p.interleaved};
  };
  alignas(64) float head[kMaxHeadDim];
  for (int64_t token = p.token_begin; token < p.token_end; token++) {
    const RopeHead rope = rope_of(token);
    for (int64_t h = 0; h < p.num_heads; h++) {
      NormAndRotate(p.qkv + token * p.ld_qkv + h * head_dim, p.q_norm, p.eps, rope, head);
      StoreHead(head, head_dim, p.q_dtype, p.q, token * k_begin + h * head_dim);
    }
  }
  const KvRows rows = {p.kv, p.slot_mapping, p.num_tokens, p.token_begin, p.token_end};
  StoreKeys(rows, [&](int64_t token, int64_t h, float* buffer) {
    NormAndRotate(p.qkv + token * p.ld_qkv + k_begin + h * head_dim, p.k_norm, p.eps, rope_of(token), buffer);
    return buffer;
  });
  StoreValues(rows, [&](int64_t token, int64_t h, float*) { return p.qkv + token * p.ld_qkv + v_begin + h * head_dim; });
}

}  // namespace tenon_cpu::TENON_ISA
