// Ops that are bound by memory: a row or a vector of elements per block, f32 arithmetic, 16-byte accesses where rows allow.
#include <algorithm>

#include "types.cuh"

namespace tenon_cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kEach = 8;  // elements of a thread at a time

inline unsigned Blocks(int64_t work, int64_t each) { return static_cast<unsigned>((work + each - 1) / each); }

// ---- embedding: grid (rows), a block copies one row ----

template <typename T, typename Y>
__global__ void EmbeddingKernel(EmbeddingParams p) {
  const int64_t row = blockIdx.x;
  LetNextStart();
  WaitForPrevious();
  int token = p.token_ids[row];
  if (token < 0) {
    const int seq = SeqOfToken(p.cu_seqlens_q, p.num_seqs, static_cast<int>(row));
    token = seq < 0 ? 0 : max(p.last_tokens[p.seq_slots[seq]], 0);
  }
  const T* from = static_cast<const T*>(p.weight) + token * p.hidden;
  Y* to = static_cast<Y*>(p.y) + row * p.hidden;
  if (p.hidden % kEach != 0) {
    for (int64_t i = threadIdx.x; i < p.hidden; i += blockDim.x) to[i] = FromFloat<Y>(ToFloat(from[i]));
    return;
  }
  for (int64_t i = threadIdx.x * kEach; i < p.hidden; i += blockDim.x * kEach) {
    float x[kEach];
    LoadFloats(x, from + i);
    StoreFloats(to + i, x);
  }
}

// ---- rms_norm: y = x / sqrt(mean(x²) + eps) · weight. kRowThreads threads take a row, and keep up to kKept chunks of it each ----

template <int kRowThreads>
__device__ float RowSum(float x) {
  x = WarpSum(x);
  if constexpr (kRowThreads == 32) return x;
  __shared__ float sums[kRowThreads / 32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) sums[warp] = x;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < kRowThreads / 32; ++i) total += sums[i];
  return total;
}

template <typename X, typename Y, int kRowThreads, int kKept>
__global__ void __launch_bounds__(kRowThreads == 32 ? kThreads : kRowThreads) RmsNormKernel(RmsNormParams p) {
  const int64_t row = kRowThreads == 32 ? int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32 : blockIdx.x;
  LetNextStart();
  if (row >= p.rows) return;  // other rows wait
  const X* x = static_cast<const X*>(p.x) + row * p.size;
  Y* y = static_cast<Y*>(p.y) + row * p.size;
  const int first = threadIdx.x % kRowThreads * kEach, size = static_cast<int>(p.size);
  float kept[kKept][kEach], weight[kKept][kEach];
  const auto load_weight = [&](int i) {
    const int at = first + i * kRowThreads * kEach;
    if (at < size) LoadFloats(weight[i], p.weight + at);
  };
  // no launch's result: read while the one ahead ends
#pragma unroll
  for (int i = 0; i < kKept; ++i)
    if (kKept <= 2) load_weight(i);
  WaitForPrevious();
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = first + i * kRowThreads * kEach;
    if (at >= size) continue;
    LoadFloats(kept[i], x + at);
#pragma unroll
    for (int j = 0; j < kEach; ++j) squares += kept[i][j] * kept[i][j];
  }
  const float scale = rsqrtf(RowSum<kRowThreads>(squares) / static_cast<float>(p.size) + p.eps);
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = first + i * kRowThreads * kEach;
    if (at >= size) continue;
    if (kKept > 2) load_weight(i);
#pragma unroll
    for (int j = 0; j < kEach; ++j) kept[i][j] *= scale * weight[i][j];
    StoreFloats(y + at, kept[i]);
  }
}

// Rows of any size: read twice, the second time from cache.
template <typename X, typename Y>
__global__ void __launch_bounds__(kThreads) AnyRmsNormKernel(RmsNormParams p) {
  const int64_t row = blockIdx.x;
  const X* x = static_cast<const X*>(p.x) + row * p.size;
  Y* y = static_cast<Y*>(p.y) + row * p.size;
  LetNextStart();
  WaitForPrevious();
  float squares = 0;
  for (int64_t i = threadIdx.x; i < p.size; i += kThreads) squares += ToFloat(x[i]) * ToFloat(x[i]);
  const float scale = rsqrtf(RowSum<kThreads>(squares) / static_cast<float>(p.size) + p.eps);
  for (int64_t i = threadIdx.x; i < p.size; i += kThreads) y[i] = FromFloat<Y>(ToFloat(x[i]) * (scale * p.weight[i]));
}

// ---- rope_cos_sin: one thread an angle ----

__global__ void RopeCosSinKernel(RopeCosSinParams p) {
  const int n = p.rotary_dim / 2;
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  LetNextStart();
  WaitForPrevious();
  if (i >= p.rows * n) return;
  const int64_t token = i / n;
  const int d = static_cast<int>(i % n);
  const int position = p.positions[token];
  float frequency = p.inv_freq[d];
  if (p.dynamic != 0) {
    const int seq = SeqOfToken(p.cu_seqlens_q, p.num_seqs, static_cast<int>(token));
    const int length = max(position + 1, seq < 0 ? 0 : p.prompt_lens[seq]);
    if (length > p.original_max_position) {
      const double factor = p.factor, dim = p.rotary_dim;
      const double growth = factor * length / p.original_max_position - (factor - 1);
      frequency = static_cast<float>(pow(p.base * pow(growth, dim / (dim - 2)), -2.0 * d / dim));
    }
  }
  // a product in f32, as the reference has it; then the exact functions: angles are large
  const float angle = static_cast<float>(position) * frequency;
  p.y[token * p.rotary_dim + d] = cosf(angle) * p.scale;
  p.y[token * p.rotary_dim + n + d] = sinf(angle) * p.scale;
}

// ---- rope: one thread an element pair, or one of the elements that stay ----

template <typename X, typename Y>
__global__ void RopeKernel(RopeParams p) {
  const int n = p.rotary_dim / 2, per_head = n + (p.head_dim - p.rotary_dim);
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  LetNextStart();
  WaitForPrevious();
  if (i >= p.rows * p.num_heads * per_head) return;
  const int64_t head = i / per_head, token = head / p.num_heads;
  const int d = static_cast<int>(i % per_head);
  const X* x = static_cast<const X*>(p.x) + head * p.head_dim;
  Y* y = static_cast<Y*>(p.y) + head * p.head_dim;
  if (d >= n) {
    const int rest = p.rotary_dim + d - n;
    y[rest] = FromFloat<Y>(ToFloat(x[rest]));
    return;
  }
  const float cos = p.cos_sin[token * p.rotary_dim + d], sin = p.cos_sin[token * p.rotary_dim + n + d];
  const int first = p.interleaved != 0 ? 2 * d : d, second = p.interleaved != 0 ? 2 * d + 1 : d + n;
  const float a = ToFloat(x[first]), b = ToFloat(x[second]);
  y[first] = FromFloat<Y>(a * cos - b * sin);
  y[second] = FromFloat<Y>(b * cos + a * sin);
}

// ---- elementwise: a thread takes kEach elements; the last ones one by one ----

template <typename A, typename B, typename Y, typename F>
__device__ __forceinline__ void Combine(const A* a, const B* b, Y* y, int64_t elements, F&& fn) {
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kEach;
  LetNextStart();
  WaitForPrevious();
  if (i + kEach <= elements) {
    float left[kEach], right[kEach];
    LoadFloats(left, a + i);
    LoadFloats(right, b + i);
#pragma unroll
    for (int j = 0; j < kEach; ++j) left[j] = fn(left[j], right[j]);
    StoreFloats(y + i, left);
  } else {
    for (int64_t at = i; at < elements; ++at) y[at] = FromFloat<Y>(fn(ToFloat(a[at]), ToFloat(b[at])));
  }
}

template <typename A, typename B, typename Y>
__global__ void __launch_bounds__(kThreads) AddKernel(const A* a, const B* b, Y* y, int64_t elements) {
  Combine(a, b, y, elements, [](float left, float right) { return left + right; });
}

template <typename G, typename U, typename Y>
__global__ void __launch_bounds__(kThreads) GatedActKernel(const G* gate, const U* up, int activation, Y* y, int64_t elements) {
  Combine(gate, up, y, elements, [activation](float left, float right) { return Activate(left, activation) * right; });
}

// ---- gather_rows: grid (rows), a block copies one row by words of W ----

template <typename W>
__global__ void __launch_bounds__(kThreads) GatherRowsKernel(const W* x, int64_t row_words, const int32_t* rows, W* y) {
  LetNextStart();
  WaitForPrevious();
  const W* from = x + rows[blockIdx.x] * row_words;
  W* to = y + blockIdx.x * row_words;
  for (int64_t i = threadIdx.x; i < row_words; i += kThreads) to[i] = from[i];
}

template <typename F>
Launch WithTypes(Type a, Type b, F&& fn) {
  return WithType(a, [&](auto x) { return WithType(b, [&](auto y) { return fn(x, y); }); });
}

}  // namespace

Launch Embedding(const EmbeddingParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  return WithTypes(p.type, p.y_type, [&](auto t, auto y) {
    const int threads = static_cast<int>(std::min<int64_t>((p.hidden + kEach * 32 - 1) / (kEach * 32) * 32, 512));
    return LaunchEarly(EmbeddingKernel<decltype(t), decltype(y)>, dim3(static_cast<unsigned>(p.rows)), dim3(threads), 0, stream, p);
  });
}

Launch RmsNorm(const RmsNormParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  return WithTypes(p.x_type, p.y_type, [&](auto x, auto y) {
    using X = decltype(x);
    using Y = decltype(y);
    const dim3 rows(static_cast<unsigned>(p.rows));
    if (p.size % kEach != 0 || p.size > 512 * kEach * 4) return LaunchEarly(AnyRmsNormKernel<X, Y>, rows, dim3(kThreads), 0, stream, p);
    if (p.size <= 32 * kEach * 2) return LaunchEarly(RmsNormKernel<X, Y, 32, 2>, dim3(Blocks(p.rows, kThreads / 32)), dim3(kThreads), 0, stream, p);
    if (p.size <= 128 * kEach * 2) return LaunchEarly(RmsNormKernel<X, Y, 128, 2>, rows, dim3(128), 0, stream, p);
    if (p.size <= 512 * kEach) return LaunchEarly(RmsNormKernel<X, Y, 512, 1>, rows, dim3(512), 0, stream, p);
    return LaunchEarly(RmsNormKernel<X, Y, 512, 4>, rows, dim3(512), 0, stream, p);
  });
}

Launch RopeCosSin(const RopeCosSinParams& p, cudaStream_t stream) {
  const int64_t work = p.rows * (p.rotary_dim / 2);
  if (work == 0) return cudaSuccess;
  return LaunchEarly(RopeCosSinKernel, dim3(Blocks(work, kThreads)), dim3(kThreads), 0, stream, p);
}

Launch Rope(const RopeParams& p, cudaStream_t stream) {
  const int64_t work = p.rows * p.num_heads * (p.head_dim - p.rotary_dim / 2);
  if (work == 0) return cudaSuccess;
  return WithTypes(p.x_type, p.y_type, [&](auto x, auto y) {
    return LaunchEarly(RopeKernel<decltype(x), decltype(y)>, dim3(Blocks(work, kThreads)), dim3(kThreads), 0, stream, p);
  });
}

Launch Add(const void* a, Type a_type, const void* b, Type b_type, void* y, Type y_type, int64_t elements,
           cudaStream_t stream) {
  if (elements == 0) return cudaSuccess;
  return WithTypes(a_type, b_type, [&](auto ta, auto tb) {
    return WithType(y_type, [&](auto ty) {
      using A = decltype(ta);
      using B = decltype(tb);
      using Y = decltype(ty);
      return LaunchEarly(AddKernel<A, B, Y>, dim3(Blocks(elements, kThreads * kEach)), dim3(kThreads), 0, stream, static_cast<const A*>(a),
                         static_cast<const B*>(b), static_cast<Y*>(y), elements);
    });
  });
}

Launch GatedAct(const void* gate, Type gate_type, const void* up, Type up_type, int32_t activation, void* y, Type y_type,
                int64_t elements, cudaStream_t stream) {
  if (elements == 0) return cudaSuccess;
  return WithTypes(gate_type, up_type, [&](auto tg, auto tu) {
    return WithType(y_type, [&](auto ty) {
      using G = decltype(tg);
      using U = decltype(tu);
      using Y = decltype(ty);
      return LaunchEarly(GatedActKernel<G, U, Y>, dim3(Blocks(elements, kThreads * kEach)), dim3(kThreads), 0, stream, static_cast<const G*>(gate),
                         static_cast<const U*>(up), activation, static_cast<Y*>(y), elements);
    });
  });
}

Launch GatherRows(const void* x, int64_t row_bytes, const int32_t* rows, int64_t num_rows, void* y, cudaStream_t stream) {
  if (num_rows == 0) return cudaSuccess;
  const auto gather = [&]<typename W>(W) {
    return LaunchEarly(GatherRowsKernel<W>, dim3(static_cast<unsigned>(num_rows)), dim3(kThreads), 0, stream, static_cast<const W*>(x),
                       row_bytes / static_cast<int64_t>(sizeof(W)), rows, static_cast<W*>(y));
  };
  const bool aligned = row_bytes % 16 == 0 && (reinterpret_cast<uintptr_t>(x) | reinterpret_cast<uintptr_t>(y)) % 16 == 0;
  return aligned ? gather(uint4()) : gather(uint16_t());
}

}  // namespace tenon_cuda
