// Ops that are bound by memory: a row or a vector of elements per block, f32 arithmetic, 16-byte accesses where rows allow.
#include "types.cuh"

namespace tenon_cuda {
namespace {

constexpr int kThreads = 256;

inline unsigned Blocks(int64_t work, int64_t each) { return static_cast<unsigned>((work + each - 1) / each); }

// ---- embedding: grid (rows), a block copies one row ----

template <typename T, typename Y>
__global__ void EmbeddingKernel(EmbeddingParams p) {
  const int64_t row = blockIdx.x;
  int token = p.token_ids[row];
  if (token < 0) {
    const int seq = SeqOfToken(p.cu_seqlens_q, p.num_seqs, static_cast<int>(row));
    token = seq < 0 ? 0 : max(p.last_tokens[p.seq_slots[seq]], 0);
  }
  const T* from = static_cast<const T*>(p.weight) + token * p.hidden;
  Y* to = static_cast<Y*>(p.y) + row * p.hidden;
  for (int64_t i = threadIdx.x; i < p.hidden; i += blockDim.x) to[i] = FromFloat<Y>(ToFloat(from[i]));
}

// ---- rms_norm: y = x / sqrt(mean(x²) + eps) · weight. A block, or for short rows a warp, takes a row; it is read twice, the
// second time from cache ----

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

template <typename X, typename Y, int kRowThreads>
__global__ void RmsNormKernel(RmsNormParams p) {
  constexpr int kRowsPerBlock = kThreads / kRowThreads;
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kRowThreads;
  if (row >= p.rows) return;
  const X* x = static_cast<const X*>(p.x) + row * p.size;
  Y* y = static_cast<Y*>(p.y) + row * p.size;
  const int first = threadIdx.x % kRowThreads;
  float squares = 0;
  for (int64_t i = first; i < p.size; i += kRowThreads) {
    const float value = ToFloat(x[i]);
    squares += value * value;
  }
  const float scale = rsqrtf(RowSum<kRowThreads>(squares) / static_cast<float>(p.size) + p.eps);
  for (int64_t i = first; i < p.size; i += kRowThreads) y[i] = FromFloat<Y>(ToFloat(x[i]) * scale * p.weight[i]);
}

// ---- rope_cos_sin: one thread an angle ----

__global__ void RopeCosSinKernel(RopeCosSinParams p) {
  const int n = p.rotary_dim / 2;
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
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

// ---- elementwise: a grid over the elements ----

template <typename A, typename B, typename Y>
__global__ void AddKernel(const A* a, const B* b, Y* y, int64_t elements) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < elements) y[i] = FromFloat<Y>(ToFloat(a[i]) + ToFloat(b[i]));
}

template <typename G, typename U, typename Y>
__global__ void GatedActKernel(const G* gate, const U* up, int activation, Y* y, int64_t elements) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < elements) y[i] = FromFloat<Y>(Activate(ToFloat(gate[i]), activation) * ToFloat(up[i]));
}

// ---- gather_rows: grid (rows), a block copies one row by words of 2 bytes ----

__global__ void GatherRowsKernel(const uint16_t* x, int64_t row_halves, const int32_t* rows, uint16_t* y) {
  const uint16_t* from = x + rows[blockIdx.x] * row_halves;
  uint16_t* to = y + blockIdx.x * row_halves;
  for (int64_t i = threadIdx.x; i < row_halves; i += blockDim.x) to[i] = from[i];
}

template <typename F>
Launch WithTypes(Type a, Type b, F&& fn) {
  return WithType(a, [&](auto x) { return WithType(b, [&](auto y) { return fn(x, y); }); });
}

}  // namespace

Launch Embedding(const EmbeddingParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  return WithTypes(p.type, p.y_type, [&](auto t, auto y) {
    EmbeddingKernel<decltype(t), decltype(y)><<<static_cast<unsigned>(p.rows), kThreads, 0, stream>>>(p);
    return cudaGetLastError();
  });
}

Launch RmsNorm(const RmsNormParams& p, cudaStream_t stream) {
  if (p.rows == 0) return cudaSuccess;
  return WithTypes(p.x_type, p.y_type, [&](auto x, auto y) {
    if (p.size <= 512) {
      RmsNormKernel<decltype(x), decltype(y), 32><<<Blocks(p.rows, kThreads / 32), kThreads, 0, stream>>>(p);
    } else {
      RmsNormKernel<decltype(x), decltype(y), kThreads><<<static_cast<unsigned>(p.rows), kThreads, 0, stream>>>(p);
    }
    return cudaGetLastError();
  });
}

Launch RopeCosSin(const RopeCosSinParams& p, cudaStream_t stream) {
  const int64_t work = p.rows * (p.rotary_dim / 2);
  if (work == 0) return cudaSuccess;
  RopeCosSinKernel<<<Blocks(work, kThreads), kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

Launch Rope(const RopeParams& p, cudaStream_t stream) {
  const int64_t work = p.rows * p.num_heads * (p.head_dim - p.rotary_dim / 2);
  if (work == 0) return cudaSuccess;
  return WithTypes(p.x_type, p.y_type, [&](auto x, auto y) {
    RopeKernel<decltype(x), decltype(y)><<<Blocks(work, kThreads), kThreads, 0, stream>>>(p);
    return cudaGetLastError();
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
      AddKernel<<<Blocks(elements, kThreads), kThreads, 0, stream>>>(static_cast<const A*>(a), static_cast<const B*>(b),
                                                                    static_cast<Y*>(y), elements);
      return cudaGetLastError();
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
      GatedActKernel<<<Blocks(elements, kThreads), kThreads, 0, stream>>>(
          static_cast<const G*>(gate), static_cast<const U*>(up), activation, static_cast<Y*>(y), elements);
      return cudaGetLastError();
    });
  });
}

Launch GatherRows(const void* x, int64_t row_bytes, const int32_t* rows, int64_t num_rows, void* y, cudaStream_t stream) {
  if (num_rows == 0) return cudaSuccess;
  GatherRowsKernel<<<static_cast<unsigned>(num_rows), kThreads, 0, stream>>>(
      static_cast<const uint16_t*>(x), row_bytes / 2, rows, static_cast<uint16_t*>(y));
  return cudaGetLastError();
}

}  // namespace tenon_cuda
