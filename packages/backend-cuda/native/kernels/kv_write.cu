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
  LetNextStart();
  WaitForPrevious();
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

// The same for heads whose halves rotate as a whole: kLanes = head_dim / 8 lanes per (token, head), four elements of each half in a lane.
template <typename Q, typename C, int kLanes>
__global__ void __launch_bounds__(32 * kWarpsPerBlock) WholeQkvKernel(QkvParams p) {
  constexpr int kDim = kLanes * 8, kHalf = kDim / 2;
  LetNextStart();
  const KvLayer& kv = p.kv;
  const int heads = p.num_heads + 2 * kv.num_kv_heads;
  const int64_t item = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kLanes;
  const int head = static_cast<int>(item % heads), d = static_cast<int>(threadIdx.x) % kLanes * 4;
  const int64_t token = item / heads;
  const bool exists = item < p.rows * heads, is_query = head < p.num_heads, is_key = !is_query && head < p.num_heads + kv.num_kv_heads;
  const bool rotates = exists && (is_query || is_key);
  const float* norm = is_query ? p.q_norm : is_key ? p.k_norm : nullptr;
  // no launch's result: read while the one ahead ends
  const int slot = exists && !is_query ? p.slot_mapping[token] : 0;
  float low[4], high[4];
  if (norm != nullptr) {
    LoadFloats(low, norm + d);
    LoadFloats(high, norm + kHalf + d);
  }
  WaitForPrevious();
  float a[4] = {}, b[4] = {}, cos[4], sin[4];
  if (exists) {
    LoadFloats(a, p.qkv + item * kDim + d);
    LoadFloats(b, p.qkv + item * kDim + kHalf + d);
  }
  if (rotates) {
    LoadFloats(cos, p.cos_sin + token * kDim + d);
    LoadFloats(sin, p.cos_sin + token * kDim + kHalf + d);
  }
  if (p.q_norm != nullptr || p.k_norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) squares += a[i] * a[i] + b[i] * b[i];
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, offset);
    if (norm != nullptr) {
      const float scale = rsqrtf(squares / static_cast<float>(kDim) + p.eps);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] *= scale * low[i];
        b[i] *= scale * high[i];
      }
    }
  }
  if (!exists || slot < 0) return;
  if (rotates) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float first = a[i] * cos[i] - b[i] * sin[i];
      b[i] = b[i] * cos[i] + a[i] * sin[i];
      a[i] = first;
    }
  }
  if (is_query) {
    Q* q = static_cast<Q*>(p.q) + (token * p.num_heads + head) * kDim + d;
    StoreFloats(q, a);
    StoreFloats(q + kHalf, b);
    return;
  }
  const int kv_head = head - p.num_heads - (is_key ? 0 : kv.num_kv_heads);
  C* to = CacheRow<C>(is_key ? kv.k : kv.v, kv, slot, kv_head) + d;
  StoreFloats(to, a);
  StoreFloats(to + kHalf, b);
}

// One warp per (token, KV head) copies k and v.
template <typename K, typename V, typename C>
__global__ void KvWriteKernel(KvWriteParams p) {
  const KvLayer& kv = p.kv;
  const int64_t item = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / 32;
  LetNextStart();
  WaitForPrevious();
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
      using Q = decltype(q);
      using C = decltype(c);
      const bool whole = p.interleaved == 0 && p.rotary_dim == p.kv.head_dim;
      const auto launch = [&](auto* kernel, int lanes) {
        return LaunchEarly(kernel, dim3(Blocks((warps * lanes + 31) / 32)), dim3(32 * kWarpsPerBlock), 0, stream, p);
      };
      if (whole && p.kv.head_dim == 64) return launch(WholeQkvKernel<Q, C, 8>, 8);
      if (whole && p.kv.head_dim == 128) return launch(WholeQkvKernel<Q, C, 16>, 16);
      if (whole && p.kv.head_dim == 256) return launch(WholeQkvKernel<Q, C, 32>, 32);
      return launch(QkvKernel<Q, C>, 32);
    });
  });
}

Launch KvWrite(const KvWriteParams& p, cudaStream_t stream) {
  const int64_t warps = p.rows * p.kv.num_kv_heads;
  if (warps == 0) return cudaSuccess;
  return WithType(p.k_type, [&](auto k) {
    return WithType(p.v_type, [&](auto v) {
      return WithType(p.kv.type, [&](auto c) {
        return LaunchEarly(KvWriteKernel<decltype(k), decltype(v), decltype(c)>, dim3(Blocks(warps)), dim3(32 * kWarpsPerBlock), 0, stream, p);
      });
    });
  });
}

}  // namespace tenon_cuda
