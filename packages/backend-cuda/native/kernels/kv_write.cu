// Rotation and the cache: q, k and v of one token's head per warp.
#include "types.cuh"

namespace tenon_cuda {
namespace {

constexpr int kWarpsPerBlock = 8;

// Where k or v of a token's head lies in the cache.
template <typename C>
__device__ C* CacheRow(void* cache, const KvLayer& kv, int slot, int head) {
  const int64_t block = slot / kv.block_size, offset = slot % kv.block_size;
  return static_cast<C*>(cache) + ((block * kv.num_kv_heads + head) * kv.block_size + offset) * kv.head_dim;
}

// One warp per (token, head of q, k and v). The head is read into registers, two elements that rotate together in one lane;
// scaled by its norm, rotated, and written to q or to the cache.
template <typename Q, typename C>
__global__ void QkvKernel(QkvParams p) {
  const KvLayer& kv = p.kv;
  const int heads = p.num_heads + 2 * kv.num_kv_heads, head_dim = kv.head_dim;
  const int64_t item = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / 32;
  if (item >= p.rows * heads) return;
  const int lane = threadIdx.x % 32, head = static_cast<int>(item % heads);
  const int64_t token = item / heads;
  const float* x = p.qkv + item * head_dim;

  if (head >= p.num_heads + kv.num_kv_heads) {
    const int slot = p.slot_mapping[token];
    if (slot < 0) return;
    C* v = CacheRow<C>(kv.v, kv, slot, head - p.num_heads - kv.num_kv_heads);
    for (int d = lane; d < head_dim; d += 32) v[d] = FromFloat<C>(x[d]);
    return;
  }

  const bool is_query = head < p.num_heads;
  const float* norm = is_query ? p.q_norm : p.k_norm;
  float scale = 1;
  if (norm != nullptr) {
    float squares = 0;
    for (int d = lane; d < head_dim; d += 32) squares += x[d] * x[d];
    scale = rsqrtf(WarpSum(squares) / static_cast<float>(head_dim) + p.eps);
  }
  const auto value = [&](int d) { return norm == nullptr ? x[d] : x[d] * scale * norm[d]; };

  Q* q = is_query ? static_cast<Q*>(p.q) + (token * p.num_heads + head) * head_dim : nullptr;
  const int slot = is_query ? 0 : p.slot_mapping[token];
  if (slot < 0) return;
  C* k = is_query ? nullptr : CacheRow<C>(kv.k, kv, slot, head - p.num_heads);
  const auto store = [&](int d, float result) {
    if (is_query) q[d] = FromFloat<Q>(result);
    else k[d] = FromFloat<C>(result);
  };
  const int n = p.rotary_dim / 2;
  const float* angles = p.cos_sin + token * p.rotary_dim;
  for (int i = lane; i < n; i += 32) {
    const int first = p.interleaved != 0 ? 2 * i : i, second = p.interleaved != 0 ? 2 * i + 1 : i + n;
    const float a = value(first), b = value(second), cos = angles[i], sin = angles[n + i];
    store(first, a * cos - b * sin);
    store(second, b * cos + a * sin);
  }
  for (int d = p.rotary_dim + lane; d < head_dim; d += 32) store(d, value(d));
}

// One warp per (token, KV head) copies k and v.
template <typename K, typename V, typename C>
__global__ void KvWriteKernel(KvWriteParams p) {
  const KvLayer& kv = p.kv;
  const int64_t item = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / 32;
  if (item >= p.rows * kv.num_kv_heads) return;
  const int slot = p.slot_mapping[item / kv.num_kv_heads], head = static_cast<int>(item % kv.num_kv_heads);
  if (slot < 0) return;
  const K* k = static_cast<const K*>(p.k) + item * kv.head_dim;
  const V* v = static_cast<const V*>(p.v) + item * kv.head_dim;
  C* to_k = CacheRow<C>(kv.k, kv, slot, head);
  C* to_v = CacheRow<C>(kv.v, kv, slot, head);
  for (int d = threadIdx.x % 32; d < kv.head_dim; d += 32) {
    to_k[d] = FromFloat<C>(ToFloat(k[d]));
    to_v[d] = FromFloat<C>(ToFloat(v[d]));
  }
}

inline unsigned Blocks(int64_t warps) { return static_cast<unsigned>((warps + kWarpsPerBlock - 1) / kWarpsPerBlock); }

}  // namespace

Launch QkvRopeKvWrite(const QkvParams& p, cudaStream_t stream) {
  const int64_t warps = p.rows * (p.num_heads + 2 * p.kv.num_kv_heads);
  if (warps == 0) return cudaSuccess;
  return WithType(p.q_type, [&](auto q) {
    return WithType(p.kv.type, [&](auto c) {
      QkvKernel<decltype(q), decltype(c)><<<Blocks(warps), 32 * kWarpsPerBlock, 0, stream>>>(p);
      return cudaGetLastError();
    });
  });
}

Launch KvWrite(const KvWriteParams& p, cudaStream_t stream) {
  const int64_t warps = p.rows * p.kv.num_kv_heads;
  if (warps == 0) return cudaSuccess;
  return WithType(p.k_type, [&](auto k) {
    return WithType(p.v_type, [&](auto v) {
      return WithType(p.kv.type, [&](auto c) {
        KvWriteKernel<decltype(k), decltype(v), decltype(c)><<<Blocks(warps), 32 * kWarpsPerBlock, 0, stream>>>(p);
        return cudaGetLastError();
      });
    });
  });
}

}  // namespace tenon_cuda
