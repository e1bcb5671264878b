// y = x · wᵀ with its epilogues; see kernels.h. f32 accumulation; which products are added in which order depends on k and on the kernel,
// never on the row. On sm_90, linear_wgmma.cu; else, and for sizes that it does not take, three kernels:
//   skinny  up to 32 rows of 16-bit types: bound by reading w. Eight warps share 16 rows of w, each a slice of k, and add up in order
//   tiled   more rows: 128 × 128 of y per block on tensor cores, tiles of 32 of k on their way to shared memory
//   plain   f32, or k that is no multiple of 8: a thread per element of y
#include "cublas_lt.h"
#include "linear.h"
#include "mma.cuh"

namespace tenon_cuda {
namespace {

// y[row, column] from the sums of one or, gated, two products.
template <typename Y>
__device__ __forceinline__ void Store(const LinearParams& p, int64_t row, int64_t column, float sum, float up) {
  if (p.bias != nullptr) {
    sum += p.bias[column];
    if (p.gated) up += p.bias[p.n + column];
  }
  if (p.gated) sum = Activate(sum, p.activation) * up;
  const int64_t i = row * p.n + column;
  if (p.residual != nullptr) sum += p.residual[i];
  static_cast<Y*>(p.y)[i] = FromFloat<Y>(sum);
}

// ---- skinny ----
// y is computed transposed: w is the 16 × 16 operand of the tensor cores and x the one of 8 columns. Both are read 16 bytes per lane, and
// of each 8 elements the pairs (0, 1), (2, 3) meet in one instruction, (4, 5), (6, 7) in the next: the order of k within
// 32 does not matter, as long as it is the same for w and x.

constexpr int kSkinnyWarps = 8;
constexpr int kSkinnyRows = 16;  // of w
constexpr int kChunk = 32;       // of k, per warp and turn
constexpr int kUnroll = 4;       // chunks that a warp has on their way

template <typename T>
__device__ __forceinline__ uint4 Load16(const T* pointer, bool valid) {
  return valid ? __ldcs(reinterpret_cast<const uint4*>(pointer)) : uint4{0, 0, 0, 0};
}

// kTiles: tiles of 8 rows of x; kMatrices: 2 where gated.
template <typename T, typename Y, int kTiles, int kMatrices>
__global__ void __launch_bounds__(32 * kSkinnyWarps) SkinnyKernel(LinearParams p) {
  __shared__ float sums[kSkinnyWarps][kMatrices][kTiles][kSkinnyRows][8 + 1];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first_column = int64_t{blockIdx.x} * kSkinnyRows;
  const T* x = static_cast<const T*>(p.x);
  const T* w = static_cast<const T*>(p.w);
  const int offset = lane % 4 * 8;  // of k within a chunk
  bool has_row[2];
  const T* rows[kMatrices][2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t column = first_column + lane / 4 + half * 8;
    has_row[half] = column < p.n;
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) rows[m][half] = w + (m * p.n + (has_row[half] ? column : 0)) * p.k;
  }
  float acc[kMatrices][kTiles][4] = {};
  const int64_t num_chunks = (p.k + kChunk - 1) / kChunk;
  for (int64_t chunk = warp; chunk < num_chunks; chunk += kSkinnyWarps * kUnroll) {
    uint4 a[kUnroll][kMatrices][2];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t k = (chunk + u * kSkinnyWarps) * kChunk + offset;
#pragma unroll
      for (int m = 0; m < kMatrices; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) a[u][m][half] = Load16(rows[m][half] + k, k < p.k && has_row[half]);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t k = (chunk + u * kSkinnyWarps) * kChunk + offset;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int64_t row = t * 8 + lane / 4;
        const bool valid = row < p.rows && k < p.k;
        const uint4 b = valid ? *reinterpret_cast<const uint4*>(x + row * p.k + k) : uint4{0, 0, 0, 0};
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
          const uint4 &low = a[u][m][0], &high = a[u][m][1];
          const uint32_t first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
          Mma<T>(acc[m][t], first, b.x, b.y);
          Mma<T>(acc[m][t], second, b.z, b.w);
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kMatrices; ++m)
#pragma unroll
    for (int t = 0; t < kTiles; ++t)
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[warp][m][t][lane / 4 + j / 2 * 8][lane % 4 * 2 + j % 2] = acc[m][t][j];
  __syncthreads();
  for (int i = threadIdx.x; i < kTiles * 8 * kSkinnyRows; i += 32 * kSkinnyWarps) {
    const int column = i % kSkinnyRows, row = i / kSkinnyRows;
    if (row >= p.rows || first_column + column >= p.n) continue;
    float total[2] = {0, 0};
#pragma unroll
    for (int m = 0; m < kMatrices; ++m)
#pragma unroll
      for (int v = 0; v < kSkinnyWarps; ++v) total[m] += sums[v][m][row / 8][column][row % 8];
    Store<Y>(p, row, first_column + column, total[0], total[1]);
  }
}

// ---- tiled ----
// Eight warps as 2 × 4, 64 × 32 of y each. Where gated, of the 128 rows of w that a block takes, blocks of 16 alternate: gate, up; so a
// warp has both for its 16 columns.

constexpr int kTileM = 128, kTileN = 128, kTileK = 32;
constexpr int kTiledThreads = 256;
constexpr int kTiledStages = 4;
constexpr int kStride = kTileK + 8;  // elements: rows start in different banks
constexpr int kTiledSharedBytes = kTiledStages * (kTileM + kTileN) * kStride * 2;

template <typename T, typename Y>
__global__ void __launch_bounds__(kTiledThreads) TiledKernel(LinearParams p) {
  extern __shared__ __align__(16) uint8_t shared_bytes[];
  T* tiles = reinterpret_cast<T*>(shared_bytes);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int columns_per_block = p.gated ? kTileN / 2 : kTileN;
  const int64_t first_row = int64_t{blockIdx.y} * kTileM, first_column = int64_t{blockIdx.x} * columns_per_block;
  // Row of w that row j of the tile is, or -1.
  const auto weight_row = [&](int j) -> int64_t {
    const int64_t column = first_column + (p.gated ? j / 32 * 16 + j % 16 : j);
    if (column >= p.n) return -1;
    return p.gated && j % 32 >= 16 ? p.n + column : column;
  };
  const auto start = [&](int64_t tile) {
    const int64_t k0 = tile * kTileK;
    if (k0 < p.k) {
      T* to = tiles + tile % kTiledStages * (kTileM + kTileN) * kStride;
#pragma unroll
      for (int i = threadIdx.x; i < (kTileM + kTileN) * (kTileK / 8); i += kTiledThreads) {
        const int j = i / (kTileK / 8), d = i % (kTileK / 8) * 8;
        const bool is_x = j < kTileM;
        const int64_t row = is_x ? first_row + j : weight_row(j - kTileM);
        const bool valid = (is_x ? row < p.rows : row >= 0) && k0 + d < p.k;
        const T* from = static_cast<const T*>(is_x ? p.x : p.w) + (valid ? row * p.k + k0 + d : 0);
        CopyAsync16(to + j * kStride + d, from, valid);
      }
    }
    CommitCopies();
  };
  const int64_t num_tiles = (p.k + kTileK - 1) / kTileK;
#pragma unroll
  for (int i = 0; i < kTiledStages - 1; ++i) start(i);
  float acc[4][4][4] = {};
  const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    WaitCopies<kTiledStages - 2>();
    __syncthreads();
    start(tile + kTiledStages - 1);
    const T* xs = tiles + tile % kTiledStages * (kTileM + kTileN) * kStride;
    const T* ws = xs + kTileM * kStride;
#pragma unroll
    for (int k = 0; k < kTileK; k += 16) {
      uint32_t a[4][4], b[2][4];
#pragma unroll
      for (int m = 0; m < 4; ++m) LoadMatrix4(a[m], xs + (warp_row + m * 16 + lane % 16) * kStride + k + lane / 16 * 8);
#pragma unroll
      for (int n = 0; n < 2; ++n)
        LoadMatrix4(b[n], ws + (warp_column + n * 16 + lane % 8 + lane / 16 * 8) * kStride + k + lane / 8 % 2 * 8);
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n) Mma<T>(acc[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
  }
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t row = first_row + warp_row + m * 16 + lane / 4 + j / 2 * 8;
        const int in_warp = n * 8 + lane % 4 * 2 + j % 2;
        if (p.gated && n >= 2) continue;
        const int64_t column = first_column + (p.gated ? warp_column / 2 : warp_column) + in_warp;
        if (row < p.rows && column < p.n) Store<Y>(p, row, column, acc[m][n][j], p.gated ? acc[m][n + 2 < 4 ? n + 2 : n][j] : 0);
      }
}

// ---- plain ----

template <typename T, typename Y>
__global__ void PlainKernel(LinearParams p) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= p.rows * p.n) return;
  const int64_t row = i / p.n, column = i % p.n;
  const T* x = static_cast<const T*>(p.x) + row * p.k;
  const T* w = static_cast<const T*>(p.w) + column * p.k;
  const T* up = w + p.n * p.k;
  float sum = 0, up_sum = 0;
  for (int64_t k = 0; k < p.k; ++k) {
    sum += ToFloat(x[k]) * ToFloat(w[k]);
    if (p.gated) up_sum += ToFloat(x[k]) * ToFloat(up[k]);
  }
  Store<Y>(p, row, column, sum, up_sum);
}

// ---- launches ----

template <typename T, typename Y>
Launch LaunchPlain(const LinearParams& p, cudaStream_t stream) {
  constexpr int kThreads = 128;
  PlainKernel<T, Y><<<static_cast<unsigned>((p.rows * p.n + kThreads - 1) / kThreads), kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

template <typename T, typename Y, int kTiles>
Launch LaunchSkinny(const LinearParams& p, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((p.n + kSkinnyRows - 1) / kSkinnyRows);
  if (p.gated) SkinnyKernel<T, Y, kTiles, 2><<<blocks, 32 * kSkinnyWarps, 0, stream>>>(p);
  else SkinnyKernel<T, Y, kTiles, 1><<<blocks, 32 * kSkinnyWarps, 0, stream>>>(p);
  return cudaGetLastError();
}

template <typename T, typename Y>
Launch LaunchTiled(const LinearParams& p, cudaStream_t stream) {
  static const Launch allowed = cudaFuncSetAttribute(TiledKernel<T, Y>, cudaFuncAttributeMaxDynamicSharedMemorySize, kTiledSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  const int columns = p.gated ? kTileN / 2 : kTileN;
  const dim3 grid(static_cast<unsigned>((p.n + columns - 1) / columns), static_cast<unsigned>((p.rows + kTileM - 1) / kTileM));
  TiledKernel<T, Y><<<grid, kTiledThreads, kTiledSharedBytes, stream>>>(p);
  return cudaGetLastError();
}

template <typename T, typename Y>
Launch LaunchFor16Bits(const LinearParams& p, cudaStream_t stream) {
  if (p.k % 8 != 0 || (reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(p.w)) % 16 != 0) return LaunchPlain<T, Y>(p, stream);
  if (p.rows <= 8) return LaunchSkinny<T, Y, 1>(p, stream);
  if (p.rows <= 16) return LaunchSkinny<T, Y, 2>(p, stream);
  if (p.rows <= 32) return LaunchSkinny<T, Y, 4>(p, stream);
  return LaunchTiled<T, Y>(p, stream);
}

template <typename T>
Launch LaunchForOutput(const LinearParams& p, cudaStream_t stream) {
  if (p.y_type == p.type) return LaunchFor16Bits<T, T>(p, stream);
  return p.y_type == Type::kF32 ? LaunchFor16Bits<T, float>(p, stream) : cudaErrorNotSupported;
}

// bench/lab/linear. Up to 64 rows on sm_90 (32 elsewhere), our kernels are as fast or faster, and a row's result is the same with any number
// of rows beside it; with long k they are faster up to 128.
bool PrefersCublasLt(const LinearParams& p) {
  constexpr int64_t kFewRows = 64, kRows = 128, kLongK = 8192;
  if (!WgmmaTakes(p)) return p.rows > 32 && p.cublas_lt->Takes(p);
  return p.rows > (p.k >= kLongK ? kRows : kFewRows) && p.cublas_lt->Takes(p);
}

}  // namespace

Launch LinearMma(const LinearParams& p, cudaStream_t stream) {
  if (p.type == Type::kF32) return LaunchPlain<float, float>(p, stream);
  if (p.type == Type::kBf16) return LaunchForOutput<__nv_bfloat16>(p, stream);
  return LaunchForOutput<__half>(p, stream);
}

Launch Linear(const LinearParams& p, cudaStream_t stream) {
  if (p.y_type != p.type && p.y_type != Type::kF32) return cudaErrorNotSupported;
  if (p.rows == 0) return cudaSuccess;
  if (p.cublas_lt != nullptr && PrefersCublasLt(p)) {
    const Launch launch = p.cublas_lt->Linear(p, stream);
    if (launch != cudaErrorNotSupported) return launch;
  }
  if (TilesTake(p)) return LinearTiles(p, PlanTiles(p), stream);
  if (WgmmaTakes(p)) return LinearWgmma(p, PlanWgmma(p), stream);
  return LinearMma(p, stream);
}

}  // namespace tenon_cuda
