// KV-cache writes: the layout, slots of -1, odd neighbours, and the fused norm, rope and write.
#include "reference.h"

namespace tenon_cpu::testing {
namespace {

struct Cache {
  Cache(Dtype dtype, int num_kv_heads, int head_dim, int block_size, int num_blocks)
      : k(dtype, num_blocks * KvBlockElements(head_dim, block_size, dtype, num_kv_heads)),
        v(dtype, k.size()),
        layer{k.data(), v.data(), dtype, num_kv_heads, head_dim, block_size} {
    k.Poison();
    v.Poison();
  }
  int64_t KeyIndex(int slot, int head, int d) const {
    const int kr = PackFactor(layer.dtype);
    return HeadBegin(slot, head) + (int64_t{d / kr} * layer.block_size + slot % layer.block_size) * kr + d % kr;
  }
  int64_t ValueIndex(int slot, int head, int d) const {
    const int kr = PackFactor(layer.dtype), offset = slot % layer.block_size;
    return HeadBegin(slot, head) + (int64_t{offset / kr} * layer.head_dim + d) * kr + offset % kr;
  }
  int64_t HeadBegin(int slot, int head) const {
    return (int64_t{slot / layer.block_size} * layer.num_kv_heads + head) * layer.head_dim * layer.block_size;
  }

  Array k, v;
  KvLayer layer;
};

void CheckLayout(const Kernels& kernels, Random& random, Report& report, Dtype k_dtype, Dtype v_dtype, Dtype dtype) {
  const int heads = 2, head_dim = 2 * static_cast<int>(random.Between(1, 40)), block_size = 32;
  Cache cache(dtype, heads, head_dim, block_size, 3);
  // The third token fills the pair of the first, which comes before it; 40 has no neighbour; -1 is not stored.
  const std::vector<int32_t> slots = {64, 33, 65, -1, 40, 5, 32};
  const int n = static_cast<int>(slots.size()), ld = heads * head_dim + 3;
  Array k(k_dtype, n * ld, 1), v(v_dtype, n * ld, 1);
  k.Fill(random);
  v.Fill(random);
  kernels.kv_write({k.data(), v.data(), k_dtype, v_dtype, ld, ld, slots.data(), n, cache.layer, 3, n});
  kernels.kv_write({k.data(), v.data(), k_dtype, v_dtype, ld, ld, slots.data(), n, cache.layer, 0, 3});

  const std::string name = std::string("kv_write ") + NameOf(k_dtype) + ", " + NameOf(v_dtype) + " to " + NameOf(dtype);
  Array want_k(dtype, cache.k.size()), want_v(dtype, cache.v.size());
  want_k.Poison();
  want_v.Poison();
  for (int t = 0; t < n; t++) {
    if (slots[t] < 0) continue;
    for (int i = 0; i < heads * head_dim; i++) {
      want_k.Set(cache.KeyIndex(slots[t], i / head_dim, i % head_dim), k.At(t * ld + i));
      want_v.Set(cache.ValueIndex(slots[t], i / head_dim, i % head_dim), v.At(t * ld + i));
      if (slots[t] == 40 && dtype == Dtype::kBf16) want_v.Set(cache.ValueIndex(41, i / head_dim, i % head_dim), 0);
    }
  }
  report.Same(name + " K", want_k, cache.k);
  report.Same(name + " V", want_v, cache.v);
}

// float64 norm (where weight is given) and rope of one head.
std::vector<double> NormAndRotate(const std::vector<double>& x, const float* weight, const float* cos_sin,
                                  int rotary_dim, bool interleaved) {
  std::vector<double> y = x;
  if (weight != nullptr) {
    double sum = 0;
    for (const double value : x) sum += value * value;
    const double inverse = 1 / std::sqrt(sum / static_cast<double>(x.size()) + 1e-5);
    for (size_t i = 0; i < x.size(); i++) y[i] = x[i] * inverse * weight[i];
  }
  const int n = rotary_dim / 2;
  for (int i = 0; i < n; i++) {
    const int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + n;
    const double a = y[first], b = y[second], cos = cos_sin[i], sin = cos_sin[n + i];
    y[first] = a * cos - b * sin;
    y[second] = b * cos + a * sin;
  }
  return y;
}

struct RopeCase {
  int head_dim, rotary_dim;
  bool interleaved, norm;
  Dtype dtype;
};

void CheckRope(const Kernels& kernels, Random& random, Report& report, const RopeCase& c) {
  const int heads = 3, kv_heads = 2, tokens = 5, all = heads + 2 * kv_heads, ld = all * c.head_dim;
  Array qkv(Dtype::kF32, tokens * ld, 1), cos_sin(Dtype::kF32, tokens * c.rotary_dim, 1);
  Array q_norm(Dtype::kF32, c.head_dim), k_norm(Dtype::kF32, c.head_dim);
  for (Array* array : {&qkv, &cos_sin, &q_norm, &k_norm}) array->Fill(random);
  Cache cache(c.dtype, kv_heads, c.head_dim, 16, 2);
  const std::vector<int32_t> slots = {3, 4, 5, -1, 17};
  Array q(c.dtype, tokens * heads * c.head_dim, 1);
  QkvRopeKvWriteParams p = {};
  p.qkv = static_cast<const float*>(qkv.data());
  p.ld_qkv = ld;
  p.cos_sin = static_cast<const float*>(cos_sin.data());
  p.q_norm = c.norm ? static_cast<const float*>(q_norm.data()) : nullptr;
  p.k_norm = c.norm ? static_cast<const float*>(k_norm.data()) : nullptr;
  p.eps = 1e-5f;
  p.num_heads = heads;
  p.num_kv_heads = kv_heads;
  p.head_dim = c.head_dim;
  p.rotary_dim = c.rotary_dim;
  p.interleaved = c.interleaved;
  p.q = q.data();
  p.q_dtype = c.dtype;
  p.slot_mapping = slots.data();
  p.num_tokens = tokens;
  p.kv = cache.layer;
  p.token_begin = 0;
  p.token_end = tokens;
  kernels.qkv_rope_kv_write(p);

  Array rotated(c.dtype, tokens * heads * c.head_dim, 1);
  if (!c.norm) {
    kernels.rope({p.qkv, Dtype::kF32, ld, p.cos_sin, rotated.data(), c.dtype, heads * c.head_dim, heads, c.head_dim,
                  c.rotary_dim, c.interleaved, 0, tokens});
    report.Same("rope, alone and fused", rotated, q);
  }

  std::vector<double> got, want, tolerance;
  for (int t = 0; t < tokens; t++) {
    for (int h = 0; h < all; h++) {
      const bool is_q = h < heads, is_v = h >= heads + kv_heads;
      if (!is_q && slots[t] < 0) continue;
      std::vector<double> x;
      for (int d = 0; d < c.head_dim; d++) x.push_back(qkv.At(t * ld + h * c.head_dim + d));
      const float* weight = is_q ? p.q_norm : p.k_norm;
      const std::vector<double> y =
          is_v ? x : NormAndRotate(x, weight, p.cos_sin + t * c.rotary_dim, c.rotary_dim, c.interleaved);
      for (int d = 0; d < c.head_dim; d++) {
        want.push_back(y[d]);
        tolerance.push_back(EpsOf(c.dtype) * std::fabs(y[d]) + 16 * 0x1p-24 * 4 + MinStep(c.dtype));
        if (is_q) got.push_back(q.At((t * heads + h) * c.head_dim + d));
        if (is_v) got.push_back(cache.v.At(cache.ValueIndex(slots[t], h - heads - kv_heads, d)));
        if (!is_q && !is_v) got.push_back(cache.k.At(cache.KeyIndex(slots[t], h - heads, d)));
      }
    }
  }
  const std::string name = std::string("qkv_rope_kv_write ") + NameOf(c.dtype) + " head_dim=" +
                           std::to_string(c.head_dim) + " rotary=" + std::to_string(c.rotary_dim);
  report.Close(name, [&](int64_t i) { return got[i]; }, want, tolerance);
}

}  // namespace

void TestKvWrite(const Kernels& kernels, Random& random, Report& report) {
  for (const Dtype k_dtype : kFloats) {
    for (const Dtype dtype : kFloats) {
      CheckLayout(kernels, random, report, k_dtype, k_dtype, dtype);
      CheckLayout(kernels, random, report, k_dtype, Dtype::kF32, dtype);
    }
  }
  for (const Dtype dtype : kFloats) {
    for (const bool interleaved : {false, true}) {
      for (const bool norm : {false, true}) {
        for (const int head_dim : {8, 24, 64, 80, 128, 256}) {
          CheckRope(kernels, random, report, {head_dim, head_dim, interleaved, norm, dtype});
          CheckRope(kernels, random, report, {head_dim, head_dim / 4 * 2, interleaved, norm, dtype});
        }
      }
    }
  }
}

}  // namespace tenon_cpu::testing
