// Checks and times the kernels behind Linear; needs nothing but a GPU. cuBLASLt, where it is installed, is timed beside them.
//   nvcc -std=c++20 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a -I native/kernels native/bench/linear_bench.cu
//     native/kernels/linear.cu native/kernels/linear_wgmma.cu -o linear_bench
//   linear_bench check | time [8b|0.6b] [rows…] | plans <n> <k> <gated> [rows…]
// check: every case against f64 sums on the GPU; the worst element of a case that fails is named, and the exit status is 1.
// time: microseconds a launch, recorded one behind the other and with more weights than caches hold; the share is of 4.25 TB/s of
// copy bandwidth for up to 64 rows, else of 790 TFLOP/s.
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "linear.h"
#include "types.cuh"

namespace {

using namespace tenon_cuda;

constexpr double kCopyBytesPerSecond = 4.25e12, kFlopsPerSecond = 790e12;

#define CHECK(call)                                                                                                 \
  do {                                                                                                              \
    const cudaError_t error_ = (call);                                                                              \
    if (error_ != cudaSuccess) {                                                                                    \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_));                        \
      std::exit(2);                                                                                                 \
    }                                                                                                               \
  } while (false)

// ---- data ----

__device__ uint32_t Hash(uint64_t i, uint32_t seed) {
  uint64_t x = (i + 1) * 0x9E3779B97F4A7C15ull + seed * 0xD1B54A32D192ED03ull;
  x = (x ^ (x >> 31)) * 0xBF58476D1CE4E5B9ull;
  return static_cast<uint32_t>((x ^ (x >> 29)) >> 16);
}
template <typename T>
__global__ void Fill(T* data, int64_t count, float scale, uint32_t seed) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x)
    data[i] = FromFloat<T>((Hash(i, seed) * (2.f / 4294967296.f) - 1.f) * scale);
}
void FillRandom(void* data, Type type, int64_t count, float scale, uint32_t seed) {
  CHECK(WithType(type, [&](auto element) {
    using T = decltype(element);
    Fill<T><<<1024, 256>>>(static_cast<T*>(data), count, scale, seed);
    return cudaGetLastError();
  }));
}

// ---- reference ----

// What y should be, and how far it may be off: sums of k products in f32 are off by a few units of the last place of sum |x w|.
template <typename T>
__global__ void Reference(LinearParams p, const float* residual, double* y, double* bound) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= p.rows * p.n) return;
  const int64_t row = i / p.n, column = i % p.n;
  const T* x = static_cast<const T*>(p.x) + row * p.k;
  double sums[2] = {0, 0}, sizes[2] = {0, 0};
  for (int m = 0; m < (p.gated ? 2 : 1); ++m) {
    const T* w = static_cast<const T*>(p.w) + (m * p.n + column) * p.k;
    for (int64_t k = 0; k < p.k; ++k) {
      const double product = double{ToFloat(x[k])} * double{ToFloat(w[k])};
      sums[m] += product;
      sizes[m] += fabs(product);
    }
    if (p.bias != nullptr) sums[m] += p.bias[m * p.n + column];
  }
  const double eps = 6e-8 * (4 + sqrt(double(p.k)) / 2);
  double value = sums[0], allowed = eps * (sizes[0] + fabs(sums[0]));
  if (p.gated) {
    const double g = sums[0];
    const double act = p.activation == 0   ? g / (1 + exp(-g))
                       : p.activation == 1 ? 0.5 * g * (1 + erf(g * 0.70710678118654752))
                                           : 0.5 * g * (1 + tanh(0.79788456080286536 * (g + 0.044715 * g * g * g)));
    value = act * sums[1];
    allowed = 1.2 * allowed * fabs(sums[1]) + fabs(act) * eps * (sizes[1] + fabs(sums[1])) + 1e-5 * fabs(value) + 1e-6 * fabs(sums[1]);
  }
  if (residual != nullptr) value += residual[i];
  allowed += fabs(value) * (p.y_type == Type::kF32 ? 1e-6 : p.y_type == Type::kBf16 ? 0.00391 : 0.000489) + 1e-7;
  y[i] = value;
  bound[i] = allowed;
}

// ---- check ----

struct Case {
  int64_t rows, n, k;
  Type type, y_type;
  bool gated, bias, residual;
  int32_t activation;
};
using Kernel = std::function<Launch(const LinearParams&, cudaStream_t)>;

const char* NameOf(Type type) { return type == Type::kF32 ? "f32" : type == Type::kBf16 ? "bf16" : "f16"; }

// A split below 0: of tiles of half the height.
constexpr std::pair<int, int> kSharesAndSplits[] = {{1, -1}, {1, -2}, {1, -4}, {1, 1}, {1, 2}, {1, 4},
                                                    {1, 8},  {2, 1},  {2, 2},  {2, 4}, {4, 1}, {4, 2}};

constexpr int64_t kGuard = 4096;  // bytes behind y that must stay as they are

struct Checker {
  cudaStream_t stream;
  uint8_t *x, *w, *y;
  float *bias, *residual;
  double *expected, *bound;
  int cases = 0, failures = 0;
  std::vector<uint8_t> host;
  std::vector<double> host_expected, host_bound;

  void Init() {
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaMalloc(&x, 64 << 20));
    CHECK(cudaMalloc(&w, 512 << 20));
    CHECK(cudaMalloc(&y, 64 << 20));
    CHECK(cudaMalloc(&bias, 1 << 20));
    CHECK(cudaMalloc(&residual, 64 << 20));
    CHECK(cudaMalloc(&expected, 128 << 20));
    CHECK(cudaMalloc(&bound, 128 << 20));
    FillRandom(bias, Type::kF32, (1 << 20) / 4, 1, 3);
    FillRandom(residual, Type::kF32, (64 << 20) / 4, 1, 4);
  }
  LinearParams Params(const Case& c) {
    FillRandom(x, c.type, c.rows * c.k, 1, 1 + static_cast<uint32_t>(cases));
    FillRandom(w, c.type, c.n * c.k * (c.gated ? 2 : 1), 0.1f, 2);
    return {.x = x, .w = w, .bias = c.bias ? bias : nullptr, .residual = c.residual ? residual : nullptr, .y = y, .rows = c.rows,
            .n = c.n, .k = c.k, .type = c.type, .y_type = c.y_type, .gated = c.gated, .activation = c.activation};
  }
  // Runs `kernel` with y in a place of its own, then over its residual.
  void Run(const char* name, const Case& c, const Kernel& kernel) {
    LinearParams p = Params(c);
    CHECK(WithType(c.type, [&](auto element) {
      Reference<decltype(element)><<<static_cast<unsigned>((c.rows * c.n + 127) / 128), 128>>>(p, p.residual, expected, bound);
      return cudaGetLastError();
    }));
    Compare(name, c, p, kernel, false);
    if (c.residual && c.y_type == Type::kF32) Compare(name, c, p, kernel, true);
  }
  void Compare(const char* name, const Case& c, LinearParams p, const Kernel& kernel, bool in_place) {
    ++cases;
    const int64_t count = c.rows * c.n, bytes = count * TypeBytes(c.y_type);
    CHECK(cudaMemset(y, 0xFF, static_cast<size_t>(bytes + kGuard)));
    if (in_place) {
      CHECK(cudaMemcpy(y, residual, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice));
      p.residual = reinterpret_cast<const float*>(y);
    }
    CHECK(cudaDeviceSynchronize());
    const Launch launch = kernel(p, stream);
    const cudaError_t ended = cudaStreamSynchronize(stream);
    if (launch != cudaSuccess || ended != cudaSuccess) {
      std::printf("FAIL %s: launch %s, end %s\n", Describe(name, c).c_str(), cudaGetErrorString(launch), cudaGetErrorString(ended));
      std::exit(2);
    }
    host.resize(static_cast<size_t>(bytes + kGuard));
    host_expected.resize(static_cast<size_t>(count));
    host_bound.resize(static_cast<size_t>(count));
    CHECK(cudaMemcpy(host.data(), y, host.size(), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(host_expected.data(), expected, host_expected.size() * 8, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(host_bound.data(), bound, host_bound.size() * 8, cudaMemcpyDeviceToHost));
    int64_t worst = -1, wrong = 0;
    double worst_ratio = 1;
    for (int64_t i = 0; i < count; ++i) {
      const double error = std::fabs(Value(c.y_type, i) - host_expected[i]), ratio = error / host_bound[i];
      if (ratio <= 1) continue;
      ++wrong;
      if (worst < 0 || !(ratio <= worst_ratio)) worst = i, worst_ratio = ratio;
    }
    const bool guard_broken = std::any_of(host.end() - kGuard, host.end(), [](uint8_t byte) { return byte != 0xFF; });
    if (wrong == 0 && !guard_broken) return;
    ++failures;
    std::printf("FAIL %s%s: %lld of %lld wrong%s", Describe(name, c).c_str(), in_place ? ", in place" : "",
                static_cast<long long>(wrong), static_cast<long long>(count), guard_broken ? ", writes behind y" : "");
    if (worst >= 0)
      std::printf("; worst at row %lld, column %lld: %g, expected %g, may be off by %g", static_cast<long long>(worst / c.n),
                  static_cast<long long>(worst % c.n), Value(c.y_type, worst), host_expected[worst], host_bound[worst]);
    std::printf("\n");
  }
  double Value(Type type, int64_t i) const {
    if (type == Type::kF32) return reinterpret_cast<const float*>(host.data())[i];
    if (type == Type::kF16) return __half2float(reinterpret_cast<const __half*>(host.data())[i]);
    return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(host.data())[i]);
  }
  static std::string Describe(const char* name, const Case& c) {
    char text[256];
    std::snprintf(text, sizeof(text), "%s %lld x [%lld, %lld] %s -> %s%s%s%s", name, static_cast<long long>(c.rows),
                  static_cast<long long>(c.n), static_cast<long long>(c.k), NameOf(c.type), NameOf(c.y_type),
                  c.gated ? ", gated" : "", c.bias ? ", bias" : "", c.residual ? ", residual" : "");
    return text;
  }
  // A row's result with 1 … 64 rows beside it is the same to the bit.
  void RowsAlone(const Case& c) {
    LinearParams p = Params(c);
    const auto bytes = static_cast<size_t>(c.n * TypeBytes(c.y_type));
    std::vector<uint8_t> first, row(bytes);
    for (int64_t rows : {1, 2, 9, 17, 33, 64}) {
      p.rows = rows;
      CHECK(cudaDeviceSynchronize());
      CHECK(Linear(p, stream));
      CHECK(cudaStreamSynchronize(stream));
      CHECK(cudaMemcpy(row.data(), y, bytes, cudaMemcpyDeviceToHost));
      if (first.empty()) first = row;
      ++cases;
      if (row == first) continue;
      ++failures;
      std::printf("FAIL %s: row 0 of %lld rows differs from row 0 alone\n", Describe("rows", c).c_str(), static_cast<long long>(rows));
    }
  }
  // Recorded behind a copy that brings x, and replayed with other values.
  void Recorded() {
    const Case c{.rows = 4, .n = 512, .k = 1024, .type = Type::kBf16, .y_type = Type::kF32};
    LinearParams p = Params(c);
    uint8_t* staged = nullptr;
    float* second = nullptr;
    CHECK(cudaMalloc(&staged, 1 << 20));
    CHECK(cudaMalloc(&second, 1 << 20));
    CHECK(cudaMemset(x, 0, static_cast<size_t>(c.rows * c.k * 2)));
    CHECK(cudaDeviceSynchronize());
    LinearParams next = p;  // reads what p writes
    next.residual = static_cast<const float*>(p.y);
    next.y = second;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    CHECK(cudaMemcpyAsync(x, staged, static_cast<size_t>(c.rows * c.k * 2), cudaMemcpyDeviceToDevice, stream));
    CHECK(Linear(p, stream));
    CHECK(Linear(next, stream));
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&executable, graph, 0));
    std::vector<float> sums(static_cast<size_t>(c.rows * c.n)), twice(sums.size());
    for (uint32_t seed = 50; seed < 54; ++seed) {
      FillRandom(staged, c.type, c.rows * c.k, 1, seed);
      CHECK(cudaDeviceSynchronize());
      CHECK(cudaGraphLaunch(executable, stream));
      CHECK(cudaStreamSynchronize(stream));
      Reference<__nv_bfloat16><<<static_cast<unsigned>((c.rows * c.n + 127) / 128), 128>>>(p, nullptr, expected, bound);
      host_expected.resize(sums.size());
      CHECK(cudaMemcpy(host_expected.data(), expected, sums.size() * 8, cudaMemcpyDeviceToHost));
      CHECK(cudaMemcpy(sums.data(), p.y, sums.size() * 4, cudaMemcpyDeviceToHost));
      CHECK(cudaMemcpy(twice.data(), second, sums.size() * 4, cudaMemcpyDeviceToHost));
      ++cases;
      for (size_t i = 0; i < sums.size(); ++i) {
        if (std::fabs(sums[i] - host_expected[i]) < 1e-3 && std::fabs(twice[i] - 2 * sums[i]) < 1e-3) continue;
        ++failures;
        std::printf("FAIL recorded: element %zu is %g, then %g, expected %g\n", i, sums[i], twice[i], host_expected[i]);
        break;
      }
    }
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    cudaFree(staged);
    cudaFree(second);
  }
};

int Check() {
  Checker checker;
  checker.Init();
  const Kernel chosen = [](const LinearParams& p, cudaStream_t s) { return Linear(p, s); };
  const Kernel mma = [](const LinearParams& p, cudaStream_t s) { return LinearMma(p, s); };
  const int64_t rows[] = {1, 7, 8, 9, 16, 17, 31, 32, 33, 64, 65, 127, 128, 129, 255, 256, 257, 515};
  int turn = 0;
  for (const int64_t r : rows)
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{256, 512}, {200, 264}, {1000, 72}, {333, 1160}, {16, 2048}, {3080, 40}}) {
      // Every row count and shape once with each of four epilogues, types in turn.
      for (int epilogue = 0; epilogue < 4; ++epilogue, ++turn) {
        const Type type = turn % 3 == 0 ? Type::kF16 : Type::kBf16;
        const Case c{.rows = r, .n = n, .k = k, .type = type, .y_type = epilogue == 2 || turn % 2 ? Type::kF32 : type,
                     .gated = epilogue == 1, .bias = turn % 4 < 2, .residual = epilogue >= 2, .activation = turn % 3};
        checker.Run("linear", c, chosen);
        if (turn % 2 == 0) checker.Run("mma", c, mma);
      }
    }
  // Plans that the choice would not make of such sizes.
  for (const int64_t r : {5, 33, 100, 300, 700})
    for (const bool gated : {false, true})
      for (const int columns : {8, 16, 32, 64, 128, 256})
        for (const auto& [share, split] : kSharesAndSplits) {
          if (columns / share < 8 || (split < 0 && columns > 64)) continue;
          const Case c{.rows = r, .n = 648, .k = 1096, .type = turn++ % 3 ? Type::kBf16 : Type::kF16,
                       .y_type = Type::kF32, .gated = gated, .bias = true, .residual = !gated, .activation = 0};
          const WgmmaPlan plan{.columns = columns, .share = share, .split = std::abs(split), .half = split < 0};
          char name[64];
          std::snprintf(name, sizeof(name), "plan %d/%d/%d", columns, share, split);
          checker.Run(name, c, [&](const LinearParams& p, cudaStream_t s) {
            return WgmmaTakes(p) ? LinearWgmma(p, plan, s) : LinearMma(p, s);
          });
        }
  // f32, and k that is no multiple of 8.
  for (const int64_t r : {1, 9, 40}) {
    checker.Run("linear", {.rows = r, .n = 70, .k = 100, .type = Type::kF32, .y_type = Type::kF32, .residual = true}, chosen);
    checker.Run("linear", {.rows = r, .n = 70, .k = 101, .type = Type::kBf16, .y_type = Type::kBf16, .gated = true}, chosen);
    checker.Run("linear", {.rows = r, .n = 70, .k = 104, .type = Type::kBf16, .y_type = Type::kBf16, .gated = true}, chosen);
  }
  // Real shapes.
  for (const int64_t r : {1, 32, 256, 1030}) {
    checker.Run("8b o", {.rows = r, .n = 4096, .k = 4096, .type = Type::kBf16, .y_type = Type::kF32, .residual = true}, chosen);
    if (r < 1000)
      checker.Run("8b gate_up", {.rows = r, .n = 14336, .k = 4096, .type = Type::kBf16, .y_type = Type::kBf16, .gated = true}, chosen);
    const int64_t rows_down = std::min<int64_t>(r, 600);
    checker.Run("8b down", {.rows = rows_down, .n = 4096, .k = 14336, .type = Type::kBf16, .y_type = Type::kF32, .residual = true}, chosen);
  }
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{4096, 4096}, {1024, 3072}, {4096, 1024}})
    for (const bool gated : {false, true})
      checker.RowsAlone({.rows = 64, .n = n, .k = k, .type = Type::kBf16, .y_type = Type::kF32, .gated = gated});
  checker.Recorded();
  std::printf("check: %d cases, %d failed\n", checker.cases, checker.failures);
  return checker.failures == 0 ? 0 : 1;
}

// ---- cuBLASLt ----
// Declared here so that the bench builds where the library is not installed.

struct Lt {
  using Handle = void*;
  struct Result {
    uint64_t algo[8];
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
  };
  int (*create)(Handle*) = nullptr;
  int (*desc_create)(void**, int compute_type, int scale_type);
  int (*desc_set)(void*, int attribute, const void*, size_t);
  int (*layout_create)(void**, int type, uint64_t rows, uint64_t columns, int64_t stride);
  int (*preference_create)(void**);
  int (*preference_set)(void*, int attribute, const void*, size_t);
  int (*heuristic)(Handle, void* desc, void* a, void* b, void* c, void* d, void* preference, int wanted, Result*, int* found);
  int (*matmul)(Handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b, void* b_layout, const void* beta,
                const void* c, void* c_layout, void* d, void* d_layout, const void* algo, void* workspace, size_t bytes, cudaStream_t);
  Handle handle = nullptr;
  void* workspace = nullptr;
  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;

  bool Open() {
    void* library = nullptr;
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so", "/usr/local/cuda/lib64/libcublasLt.so.13"})
      if (library == nullptr) library = dlopen(name, RTLD_NOW);
    if (library == nullptr) return false;
    const auto find = [&](auto* function, const char* name) {
      *reinterpret_cast<void**>(function) = dlsym(library, name);
      return *function != nullptr;
    };
    if (!find(&create, "cublasLtCreate") || !find(&desc_create, "cublasLtMatmulDescCreate") ||
        !find(&desc_set, "cublasLtMatmulDescSetAttribute") || !find(&layout_create, "cublasLtMatrixLayoutCreate") ||
        !find(&preference_create, "cublasLtMatmulPreferenceCreate") ||
        !find(&preference_set, "cublasLtMatmulPreferenceSetAttribute") ||
        !find(&heuristic, "cublasLtMatmulAlgoGetHeuristic") || !find(&matmul, "cublasLtMatmul"))
      return false;
    CHECK(cudaMalloc(&workspace, kWorkspaceBytes));
    return create(&handle) == 0;
  }
};

// ---- time ----

struct Timer {
  cudaStream_t stream;
  cudaEvent_t begin, end;
  uint8_t *x, *w, *y;
  float* residual;
  Lt lt;
  bool has_lt;
  static constexpr size_t kWeightBytes = size_t{3} << 30;

  void Init() {
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    CHECK(cudaMalloc(&x, size_t{16384} * 14336 * 2));
    CHECK(cudaMalloc(&w, kWeightBytes));
    CHECK(cudaMalloc(&y, size_t{16384} * 28672 * 4));
    CHECK(cudaMalloc(&residual, size_t{16384} * 6144 * 4));
    FillRandom(x, Type::kBf16, int64_t{16384} * 14336, 1, 1);
    FillRandom(w, Type::kBf16, kWeightBytes / 2, 0.05f, 2);
    FillRandom(residual, Type::kF32, int64_t{16384} * 6144, 1, 3);
    CHECK(cudaDeviceSynchronize());
    has_lt = std::getenv("NO_LT") == nullptr && lt.Open();
  }
  // Microseconds of one of `count` launches, recorded in one graph and replayed for 25 ms, so that the clock is what the kernel leaves it:
  // the median of the later half of the replays; 0 where a launch fails.
  double Record(int count, const std::function<bool(int)>& launch) {
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    bool ok = true;
    for (int i = 0; i < count && ok; ++i) ok = launch(i);
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    if (!ok || ended != cudaSuccess) {
      cudaGetLastError();
      return 0;
    }
    cudaGraphExec_t executable;
    CHECK(cudaGraphInstantiate(&executable, graph, 0));
    std::vector<double> times;
    double total = 0;
    while (total < 25 || times.size() < 6) {
      CHECK(cudaEventRecord(begin, stream));
      CHECK(cudaGraphLaunch(executable, stream));
      CHECK(cudaEventRecord(end, stream));
      CHECK(cudaEventSynchronize(end));
      float ms = 0;
      CHECK(cudaEventElapsedTime(&ms, begin, end));
      total += ms;
      times.push_back(ms * 1e3 / count);
    }
    times.erase(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }
  double Time(LinearParams p, const Kernel& kernel) {
    const size_t bytes = static_cast<size_t>(p.n * p.k * 2 * (p.gated ? 2 : 1));
    const size_t copies = std::max<size_t>(kWeightBytes / bytes, 1);
    const int count = p.rows <= 64 ? static_cast<int>(std::clamp<size_t>(copies, 6, 60)) : p.rows <= 1024 ? 10 : 4;
    return Record(count, [&](int i) {
      p.w = w + static_cast<size_t>(i) % copies * bytes;
      return kernel(p, stream) == cudaSuccess;
    });
  }
  // Of up to six algorithms that the library proposes the fastest; y in bf16, no epilogue, gate and up one behind the other.
  double TimeLt(const LinearParams& p) {
    const int64_t n = p.n * (p.gated ? 2 : 1);
    void *desc, *w_layout, *x_layout, *y_layout, *preference;
    constexpr int kCompute32F = 68, kR32F = 0, kR16BF = 14, kTransA = 3, kWorkspaceAttribute = 1;
    const int32_t transposed = 1;
    if (lt.desc_create(&desc, kCompute32F, kR32F) != 0 || lt.desc_set(desc, kTransA, &transposed, 4) != 0) return 0;
    lt.layout_create(&w_layout, kR16BF, p.k, n, p.k);
    lt.layout_create(&x_layout, kR16BF, p.k, p.rows, p.k);
    lt.layout_create(&y_layout, kR16BF, n, p.rows, n);
    lt.preference_create(&preference);
    const size_t workspace_bytes = Lt::kWorkspaceBytes;
    lt.preference_set(preference, kWorkspaceAttribute, &workspace_bytes, 8);
    Lt::Result results[6];
    int found = 0;
    if (lt.heuristic(lt.handle, desc, w_layout, x_layout, y_layout, y_layout, preference, 6, results, &found) != 0) return 0;
    double best = 0;
    const float one = 1, zero = 0;
    for (int i = 0; i < found; ++i) {
      const double time = Time(p, [&](const LinearParams& q, cudaStream_t s) {
        return lt.matmul(lt.handle, desc, &one, q.w, w_layout, q.x, x_layout, &zero, q.y, y_layout, q.y, y_layout, results[i].algo,
                         lt.workspace, Lt::kWorkspaceBytes, s) == 0
                   ? cudaSuccess
                   : cudaErrorUnknown;
      });
      if (time > 0 && (best == 0 || time < best)) best = time;
    }
    return best;
  }
};

struct Layer {
  const char* name;
  int64_t n, k;
  bool gated, residual;
  Type y_type;
};
struct Model {
  const char* name;
  std::vector<Layer> layers;  // the last one is no part of what repeats
};
const Model kModels[] = {
    {"8b", {{"qkv", 6144, 4096, false, false, Type::kF32}, {"o", 4096, 4096, false, true, Type::kF32},
            {"gate_up", 14336, 4096, true, false, Type::kBf16}, {"down", 4096, 14336, false, true, Type::kF32},
            {"lm_head", 128256, 4096, false, false, Type::kF32}}},
    {"0.6b", {{"qkv", 4096, 1024, false, false, Type::kF32}, {"o", 1024, 2048, false, true, Type::kF32},
              {"gate_up", 3072, 1024, true, false, Type::kBf16}, {"down", 1024, 3072, false, true, Type::kF32},
              {"lm_head", 151936, 1024, false, false, Type::kF32}}}};

double BytesOf(const LinearParams& p) { return static_cast<double>(p.n * p.k) * 2 * (p.gated ? 2 : 1); }
void Print(const char* name, const LinearParams& p, double time) {
  const double flops = BytesOf(p) * static_cast<double>(p.rows), rate = flops / time * 1e-6, speed = BytesOf(p) / time * 1e-6;
  const double share = p.rows <= 64 ? speed * 1e12 / kCopyBytesPerSecond : rate * 1e12 / kFlopsPerSecond;
  if (time == 0) std::printf(" | %s -", name);
  else if (p.rows <= 64) std::printf(" | %s %8.2f us %5.2f TB/s %3.0f %%", name, time, speed, share * 100);
  else std::printf(" | %s %8.2f us %4.0f TFLOP/s %3.0f %%", name, time, rate, share * 100);
}
std::string PlanText(const LinearParams& p) {
  const WgmmaPlan plan = PlanWgmma(p);
  return std::to_string(plan.columns) + "/" + std::to_string(plan.share) + (plan.half ? "/-" : "/") + std::to_string(plan.split);
}

void TimeModel(Timer& timer, const Model& model, const std::vector<int64_t>& rows, bool with_mma) {
  const auto params = [&](const Layer& layer, int64_t r) {
    return LinearParams{.x = timer.x, .w = timer.w, .bias = nullptr, .residual = layer.residual ? timer.residual : nullptr,
                        .y = timer.y, .rows = r, .n = layer.n, .k = layer.k, .type = Type::kBf16, .y_type = layer.y_type,
                        .gated = layer.gated, .activation = 0};
  };
  for (const int64_t r : rows) {
    for (const Layer& layer : model.layers) {
      if (r > 512 && layer.n > 100000) continue;
      const LinearParams p = params(layer, r);
      std::printf("%-5s %5lld x %-8s", model.name, static_cast<long long>(r), layer.name);
      Print(PlanText(p).c_str(), p, timer.Time(p, [](const LinearParams& q, cudaStream_t s) { return Linear(q, s); }));
      if (with_mma && r <= 2048) Print("mma", p, timer.Time(p, [](const LinearParams& q, cudaStream_t s) { return LinearMma(q, s); }));
      if (timer.has_lt) Print("cublasLt", p, timer.TimeLt(p));
      std::printf("\n");
    }
    if (r > 64) continue;
    // As a step runs them: the four of a layer one behind the other, other weights each time.
    double bytes = 0;
    for (size_t i = 0; i + 1 < model.layers.size(); ++i) bytes += BytesOf(params(model.layers[i], r));
    const int repeats = static_cast<int>(std::min(Timer::kWeightBytes / bytes, 28.0));
    const double time = timer.Record(repeats, [&](int i) {
      uint8_t* w = timer.w + static_cast<size_t>(i) * static_cast<size_t>(bytes);
      for (size_t l = 0; l + 1 < model.layers.size(); ++l) {
        LinearParams p = params(model.layers[l], r);
        p.w = w;
        w += static_cast<size_t>(BytesOf(p));
        if (Linear(p, timer.stream) != cudaSuccess) return false;
      }
      return true;
    });
    std::printf("%-5s %5lld x one layer | %8.2f us %5.2f TB/s %3.0f %%\n", model.name, static_cast<long long>(r), time, bytes / time * 1e-6,
                bytes / time * 1e6 / kCopyBytesPerSecond * 100);
  }
}

// Every plan for a size: columns / share / split, split below 0 for tiles of half the height.
void TimePlans(Timer& timer, int64_t n, int64_t k, bool gated, const std::vector<int64_t>& rows) {
  for (const int64_t r : rows) {
    const LinearParams p{.x = timer.x, .w = timer.w, .bias = nullptr, .residual = gated ? nullptr : timer.residual, .y = timer.y, .rows = r,
                         .n = n, .k = k, .type = Type::kBf16, .y_type = gated ? Type::kBf16 : Type::kF32, .gated = gated, .activation = 0};
    std::printf("%lld x [%lld, %lld]%s, chosen %s\n", static_cast<long long>(r), static_cast<long long>(n), static_cast<long long>(k),
                gated ? " gated" : "", PlanText(p).c_str());
    for (const int columns : {8, 16, 32, 64, 128, 256})
      for (const auto& [share, split] : kSharesAndSplits) {
        if (split < 0 && columns > 64) continue;
        if (columns < 256 && columns < r / 2) continue;
        if (columns >= 2 * r && columns > 8) continue;
        if (columns / share < 8) continue;
        const WgmmaPlan plan{.columns = columns, .share = share, .split = std::abs(split), .half = split < 0};
        std::printf("  %3d/%d/%d", columns, share, split);
        Print("", p, timer.Time(p, [&](const LinearParams& q, cudaStream_t s) { return LinearWgmma(q, plan, s); }));
        std::printf("\n");
      }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "check";
  if (command == "check") return Check();
  Timer timer;
  timer.Init();
  std::vector<int64_t> rows;
  if (command == "plans" && argc > 4) {
    for (int i = 5; i < argc; ++i) rows.push_back(std::atoll(argv[i]));
    TimePlans(timer, std::atoll(argv[2]), std::atoll(argv[3]), std::atoi(argv[4]) != 0, rows);
    return 0;
  }
  const std::string model = argc > 2 ? argv[2] : "8b";
  const bool with_mma = argc > 3 && std::strcmp(argv[3], "mma") == 0;
  for (int i = with_mma ? 4 : 3; i < argc; ++i) rows.push_back(std::atoll(argv[i]));
  for (const Model& m : kModels)
    if (m.name == model) TimeModel(timer, m, rows, with_mma);
  return 0;
}
