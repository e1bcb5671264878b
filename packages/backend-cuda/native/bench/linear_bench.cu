// Checks and times the kernels behind Linear; needs nothing but a GPU. cuBLASLt, where it is installed, is timed beside them.
//   nvcc -std=c++20 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a -I native/kernels native/bench/linear_bench.cu
//     native/kernels/linear*.cu native/kernels/cublas_lt.cpp -o linear_bench -ldl
//   linear_bench check | check-tiles | time [8b|0.6b] [rows…] | plans <n> <k> <gated> [rows…] | tiles [8b|0.6b] [rows…] |
//     layers [8b|0.6b] [rows…]
// check: every case against f64 sums on the GPU; the worst element of a case that fails is named, and the exit status is 1.
// layers: what the model runs, with and without cuBLASLt, and the fastest that cuBLASLt proposes, in turns; and their sums.
// tiles: ways to cut the product for many rows, beside cuBLASLt writing bf16, and writing what the model needs (f32, added to y).
// time: microseconds a launch, recorded one behind the other and with more weights than caches hold; the share is of 4.25 TB/s of
// copy bandwidth for up to 64 rows, else of 790 TFLOP/s.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cublas_lt.h"
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
// What runs now, for whoever ends a kernel that never does.
char running[256];
void SayRunning(int) {
  const auto written = write(STDOUT_FILENO, running, std::strlen(running));
  _exit(written > 0 ? 3 : 4);
}

using Kernel = std::function<Launch(const LinearParams&, cudaStream_t)>;

const char* NameOf(Type type) { return type == Type::kF32 ? "f32" : type == Type::kBf16 ? "bf16" : "f16"; }

// A split below 0: of tiles of half the height.
constexpr std::pair<int, int> kSharesAndSplits[] = {{1, -1}, {1, -2}, {1, -4}, {1, 1}, {1, 2}, {1, 4},
                                                    {1, 8},  {2, 1},  {2, 2},  {2, 4}, {4, 1}, {4, 2}};

void* MakeScratch() {
  void* scratch = nullptr;
  CHECK(cudaMalloc(&scratch, LinearScratchBytes()));
  CHECK(cudaMemset(scratch, 0, LinearScratchBytes()));
  return scratch;
}

// Null where the library is not found.
std::unique_ptr<CublasLt> MakeCublasLt() {
  void* workspace = nullptr;
  CHECK(cudaMalloc(&workspace, CublasLt::kWorkspaceBytes));
  return CublasLt::Create(workspace);
}

constexpr int64_t kGuard = 4096;  // bytes behind y that must stay as they are

struct Checker {
  cudaStream_t stream;
  uint8_t *x, *w, *y;
  float *bias, *residual;
  void* scratch;
  double *expected, *bound;
  int cases = 0, failures = 0, refused = 0;
  std::vector<uint8_t> host;
  std::vector<double> host_expected, host_bound;

  void Init() {
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaMalloc(&x, 64 << 20));
    CHECK(cudaMalloc(&w, 512 << 20));
    CHECK(cudaMalloc(&y, 64 << 20));
    CHECK(cudaMalloc(&bias, 1 << 20));
    CHECK(cudaMalloc(&residual, 64 << 20));
    scratch = MakeScratch();
    CHECK(cudaMalloc(&expected, 128 << 20));
    CHECK(cudaMalloc(&bound, 128 << 20));
    FillRandom(bias, Type::kF32, (1 << 20) / 4, 1, 3);
    FillRandom(residual, Type::kF32, (64 << 20) / 4, 1, 4);
  }
  LinearParams Params(const Case& c) {
    FillRandom(x, c.type, c.rows * c.k, 1, 1 + static_cast<uint32_t>(cases));
    FillRandom(w, c.type, c.n * c.k * (c.gated ? 2 : 1), 0.1f, 2);
    return {.x = x, .w = w, .bias = c.bias ? bias : nullptr, .residual = c.residual ? residual : nullptr, .y = y, .rows = c.rows,
            .n = c.n, .k = c.k, .type = c.type, .y_type = c.y_type, .gated = c.gated, .activation = c.activation, .scratch = scratch};
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
    std::snprintf(running, sizeof(running), "ended in %s\n", Describe(name, c).c_str());
    const int64_t count = c.rows * c.n, bytes = count * TypeBytes(c.y_type);
    CHECK(cudaMemset(y, 0xFF, static_cast<size_t>(bytes + kGuard)));
    if (in_place) {
      CHECK(cudaMemcpy(y, residual, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice));
      p.residual = reinterpret_cast<const float*>(y);
    }
    CHECK(cudaDeviceSynchronize());
    const Launch launch = kernel(p, stream);
    if (launch == cudaErrorNotSupported) {
      ++refused;
      return;
    }
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
  // One behind the other, each allowed to start early: all write the same.
  void Same(const char* name, const Case& c, const Kernel& kernel) {
    constexpr int kTimes = 24;
    LinearParams p = Params(c);
    const auto bytes = static_cast<size_t>(c.rows * c.n * TypeBytes(c.y_type));
    CHECK(cudaDeviceSynchronize());
    std::vector<uint8_t> first(bytes), again(bytes);
    Run(name, c, kernel);
    CHECK(cudaMemcpy(first.data(), y, bytes, cudaMemcpyDeviceToHost));
    for (int round = 0; round < 3; ++round) {
      CHECK(cudaMemset(y, 0xFF, bytes));
      CHECK(cudaDeviceSynchronize());
      for (int i = 0; i < kTimes; ++i)
        if (kernel(p, stream) != cudaSuccess) return;
      CHECK(cudaStreamSynchronize(stream));
      CHECK(cudaMemcpy(again.data(), y, bytes, cudaMemcpyDeviceToHost));
      ++cases;
      if (again == first) continue;
      ++failures;
      std::printf("FAIL %s: other bits when repeated\n", Describe(name, c).c_str());
    }
  }
  // Recorded behind a copy that brings x, and replayed with other values.
  void Recorded(CublasLt* lt) {
    const Case c{.rows = lt != nullptr ? 96 : 4, .n = 512, .k = 1024, .type = Type::kBf16, .y_type = Type::kF32};
    LinearParams p = Params(c);
    p.cublas_lt = lt;
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

struct TilesShape {
  int blocks, columns;
};
constexpr TilesShape kTilesShapes[] = {{1, 128}, {1, 160}, {1, 192}, {1, 224}, {1, 256}, {2, 128}};
constexpr int kTilesSplits[] = {1, 0, 2, 3, 4, 5, 6, 8};

Kernel TilesKernelOf(const TilesPlan& plan) {
  return [plan](const LinearParams& p, cudaStream_t s) { return TilesTake(p) ? LinearTiles(p, plan, s) : LinearMma(p, s); };
}
std::string TilesText(const TilesPlan& plan) {
  return std::to_string(128 * plan.blocks) + "x" + std::to_string(plan.columns) + (plan.share == 1 ? "'" : "") + "/" +
         (plan.split == 0 ? "~" : std::to_string(plan.split));
}

void CheckTiles(Checker& checker) {
  const int64_t rows[] = {65, 300, 128, 700, 129, 257, 96, 515, 200};
  int turn = 0;
  for (const TilesShape& shape : kTilesShapes)
    for (const int share : {1, 2})
      for (const int split : {1, 0, 2, 3, 6})
        for (const bool gated : {false, true})
          for (const bool f32 : {false, true}) {
            const Type type = turn % 3 == 0 ? Type::kF16 : Type::kBf16;
            const Case c{.rows = rows[turn % 9], .n = turn % 4 == 3 ? 1640 : 648, .k = turn % 5 == 0 ? 72 : 1096, .type = type,
                         .y_type = f32 ? Type::kF32 : type, .gated = gated, .bias = turn % 2 == 0, .residual = f32 && !gated, .activation = turn % 3};
            ++turn;
            const TilesPlan plan{.blocks = shape.blocks, .columns = shape.columns, .share = share, .split = split};
            checker.Run(("tiles " + TilesText(plan)).c_str(), c, TilesKernelOf(plan));
          }
  // The shapes of 8b as they will be cut, and the same to the bit each time.
  for (const auto& [rows8, plan] : {std::pair<int64_t, TilesPlan>{256, {1, 256, 2, 0}}, {256, {1, 256, 2, 4}}, {128, {2, 128, 2, 8}}, {128, {1, 128, 2, 0}},
                                    {512, {1, 256, 2, 0}}, {300, {1, 160, 2, 2}}, {300, {1, 160, 2, 0}}, {1030, {1, 256, 2, 0}}}) {
    checker.Run(("8b o " + TilesText(plan)).c_str(), {.rows = rows8, .n = 4096, .k = 4096, .type = Type::kBf16, .y_type = Type::kF32, .residual = true},
                TilesKernelOf(plan));
    if (rows8 < 1000)
      checker.Run(("8b gate_up " + TilesText(plan)).c_str(), {.rows = rows8, .n = 14336, .k = 4096, .type = Type::kBf16, .y_type = Type::kBf16, .gated = true},
                  TilesKernelOf(plan));
    checker.Same(("8b qkv " + TilesText(plan)).c_str(), {.rows = rows8, .n = 6144, .k = 4096, .type = Type::kBf16, .y_type = Type::kF32}, TilesKernelOf(plan));
  }
}

void CheckCublasLt(Checker& checker) {
  const std::unique_ptr<CublasLt> lt = MakeCublasLt();
  const CublasLtFound& found = FindCublasLt();
  std::printf("cublasLt: %s\n", lt == nullptr ? found.reason.c_str() : (std::to_string(found.version) + " " + found.path).c_str());
  if (lt == nullptr) return;
  const Kernel kernel = [&](const LinearParams& p, cudaStream_t s) {
    LinearParams q = p;
    q.cublas_lt = lt.get();
    return Linear(q, s);
  };
  int turn = 0;
  for (const int64_t rows : {65, 80, 128, 200, 256, 515, 1030})
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1024, 2048}, {648, 1096}, {4096, 264}, {3072, 8200}, {16, 64}})
      for (int kind = 0; kind < 4; ++kind, ++turn) {
        const Type type = turn % 3 == 0 ? Type::kF16 : Type::kBf16;
        checker.Run("cublasLt", {.rows = rows, .n = n, .k = k, .type = type, .y_type = kind == 3 ? type : Type::kF32, .bias = kind == 2, .residual = kind == 1}, kernel);
      }
  for (const int64_t rows : {96, 256, 700}) {
    checker.Same("cublasLt", {.rows = rows, .n = 4096, .k = 4096, .type = Type::kBf16, .y_type = Type::kF32}, kernel);
    checker.Same("cublasLt", {.rows = rows, .n = 1024, .k = 3072, .type = Type::kBf16, .y_type = Type::kF32}, kernel);
  }
  checker.Recorded(lt.get());
}

int End(const Checker& checker) {
  std::printf("check: %d cases, %d failed, %d refused\n", checker.cases, checker.failures, checker.refused);
  return checker.failures == 0 ? 0 : 1;
}

int Check() {
  Checker checker;
  checker.Init();
  CheckTiles(checker);
  CheckCublasLt(checker);
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
  checker.Recorded(nullptr);
  return End(checker);
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

// The clock of multiprocessor 0, and the time, when it ran.
__global__ void ReadClock(uint64_t* out) {
  uint32_t sm;
  asm volatile("mov.u32 %0, %%smid;\n" : "=r"(sm));
  if (sm != 0) return;
  uint64_t cycles, nanoseconds;
  asm volatile("mov.u64 %0, %%clock64;\n" : "=l"(cycles));
  asm volatile("mov.u64 %0, %%globaltimer;\n" : "=l"(nanoseconds));
  out[0] = cycles;
  out[1] = nanoseconds;
}

struct Timer {
  // Launches recorded in one graph.
  struct Recorded {
    cudaGraphExec_t executable = nullptr;
    int count = 0;
  };
  struct Measured {
    double time = 0;  // microseconds of a launch; 0 where it fails
    double mhz = 0;
  };
  cudaStream_t stream;
  cudaEvent_t begin, end;
  uint8_t *x, *w, *y;
  float* residual;
  void* scratch;
  uint64_t* clocks;  // of the host
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
    CHECK(cudaMallocHost(&clocks, 4 * sizeof(uint64_t)));
    scratch = MakeScratch();
    FillRandom(x, Type::kBf16, int64_t{16384} * 14336, 1, 1);
    FillRandom(w, Type::kBf16, kWeightBytes / 2, 0.05f, 2);
    FillRandom(residual, Type::kF32, int64_t{16384} * 6144, 1, 3);
    CHECK(cudaDeviceSynchronize());
    has_lt = std::getenv("NO_LT") == nullptr && lt.Open();
  }
  Recorded Make(int count, const std::function<bool(int)>& launch) {
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    bool ok = true;
    for (int i = 0; i < count && ok; ++i) ok = launch(i);
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    cudaGetLastError();
    Recorded recorded{.executable = nullptr, .count = count};
    if (ok && ended == cudaSuccess) CHECK(cudaGraphInstantiate(&recorded.executable, graph, 0));
    if (graph != nullptr) cudaGraphDestroy(graph);
    return recorded;
  }
  // Replays for `least` ms, so that the clock is what the kernel leaves it: the median of the later half.
  Measured Replay(const Recorded& recorded, double least) {
    if (recorded.executable == nullptr) return {};
    std::vector<double> times;
    double total = 0;
    ReadClock<<<1024, 32, 0, stream>>>(clocks);
    while (total < least || times.size() < 4) {
      CHECK(cudaEventRecord(begin, stream));
      CHECK(cudaGraphLaunch(recorded.executable, stream));
      CHECK(cudaEventRecord(end, stream));
      CHECK(cudaEventSynchronize(end));
      float ms = 0;
      CHECK(cudaEventElapsedTime(&ms, begin, end));
      total += ms;
      times.push_back(ms * 1e3 / recorded.count);
    }
    ReadClock<<<1024, 32, 0, stream>>>(clocks + 2);
    CHECK(cudaStreamSynchronize(stream));
    times.erase(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
    std::sort(times.begin(), times.end());
    return {.time = times[times.size() / 2], .mhz = 1e3 * static_cast<double>(clocks[2] - clocks[0]) / static_cast<double>(clocks[3] - clocks[1])};
  }
  static void Drop(const Recorded& recorded) {
    if (recorded.executable != nullptr) cudaGraphExecDestroy(recorded.executable);
  }
  double Record(int count, const std::function<bool(int)>& launch) {
    const Recorded recorded = Make(count, launch);
    const double time = Replay(recorded, 25).time;
    Drop(recorded);
    return time;
  }
  Recorded MakeFor(LinearParams p, const Kernel& kernel) {
    const size_t bytes = static_cast<size_t>(p.n * p.k * 2 * (p.gated ? 2 : 1));
    const size_t copies = std::max<size_t>(kWeightBytes / bytes, 1);
    const int count = p.rows <= 64 ? static_cast<int>(std::clamp<size_t>(copies, 6, 60)) : p.rows <= 1024 ? 10 : 4;
    return Make(count, [=, this](int i) {
      LinearParams q = p;
      q.w = w + static_cast<size_t>(i) % copies * bytes;
      return kernel(q, stream) == cudaSuccess;
    });
  }
  double Time(const LinearParams& p, const Kernel& kernel, double least = 25) {
    const Recorded recorded = MakeFor(p, kernel);
    const double time = Replay(recorded, least).time;
    Drop(recorded);
    return time;
  }
  // Of up to six algorithms that the library proposes the fastest. needed: y as the model wants it (f32, or added to y), but for the
  // activation; else y in bf16. Gate and up lie one behind the other.
  std::pair<Kernel, double> BestLt(const LinearParams& p, bool needed, double least) {
    const std::pair<Kernel, double> none{[](const LinearParams&, cudaStream_t) { return cudaErrorNotSupported; }, 0};
    const int64_t n = p.n * (p.gated ? 2 : 1);
    void *desc, *w_layout, *x_layout, *y_layout, *preference;
    constexpr int kCompute32F = 68, kR32F = 0, kR16BF = 14, kTransA = 3, kWorkspaceAttribute = 1;
    const int32_t transposed = 1;
    if (lt.desc_create(&desc, kCompute32F, kR32F) != 0 || lt.desc_set(desc, kTransA, &transposed, 4) != 0) return none;
    lt.layout_create(&w_layout, kR16BF, p.k, n, p.k);
    lt.layout_create(&x_layout, kR16BF, p.k, p.rows, p.k);
    lt.layout_create(&y_layout, needed && p.y_type == Type::kF32 ? kR32F : kR16BF, n, p.rows, n);
    lt.preference_create(&preference);
    const size_t workspace_bytes = Lt::kWorkspaceBytes;
    lt.preference_set(preference, kWorkspaceAttribute, &workspace_bytes, 8);
    Lt::Result results[6];
    int found = 0;
    if (lt.heuristic(lt.handle, desc, w_layout, x_layout, y_layout, y_layout, preference, 6, results, &found) != 0) return none;
    std::pair<Kernel, double> best = none;
    const float beta = needed && p.residual != nullptr ? 1.f : 0.f;
    for (int i = 0; i < found; ++i) {
      const Lt::Result result = results[i];
      const Kernel kernel = [=, this](const LinearParams& q, cudaStream_t s) {
        const float one = 1, scale = beta;
        return lt.matmul(lt.handle, desc, &one, q.w, w_layout, q.x, x_layout, &scale, q.y, y_layout, q.y, y_layout, result.algo,
                         lt.workspace, Lt::kWorkspaceBytes, s) == 0
                   ? cudaSuccess
                   : cudaErrorUnknown;
      };
      const double time = Time(p, kernel, least);
      if (time > 0 && (best.second == 0 || time < best.second)) best = {kernel, time};
    }
    return best;
  }
  double TimeLt(const LinearParams& p) { return BestLt(p, false, 25).second; }
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

LinearParams ParamsOf(const Timer& timer, const Layer& layer, int64_t rows) {
  return {.x = timer.x, .w = timer.w, .bias = nullptr, .residual = layer.residual ? reinterpret_cast<const float*>(timer.y) : nullptr,
          .y = timer.y, .rows = rows, .n = layer.n, .k = layer.k, .type = Type::kBf16, .y_type = layer.y_type, .gated = layer.gated,
          .activation = 0, .scratch = timer.scratch};
}

void TimeModel(Timer& timer, const Model& model, const std::vector<int64_t>& rows, bool with_mma) {
  const auto params = [&](const Layer& layer, int64_t r) { return ParamsOf(timer, layer, r); };
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
                         .n = n, .k = k, .type = Type::kBf16, .y_type = gated ? Type::kBf16 : Type::kF32, .gated = gated, .activation = 0,
                         .scratch = timer.scratch};
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

// Ways to cut the product of `p` that may be worth a try.
std::vector<TilesPlan> TilesPlansFor(const LinearParams& p) {
  std::vector<TilesPlan> plans;
  const int64_t clusters = Facts().num_sms / 2;
  for (const TilesShape& shape : kTilesShapes) {
    const int64_t tiles_x = (p.rows + shape.columns - 1) / shape.columns;
    if (tiles_x * shape.columns * 5 > p.rows * 6 && tiles_x > 1) continue;
    if (tiles_x == 1 && shape.columns > p.rows + 31) continue;
    if (p.rows > 1024 && shape.blocks * shape.columns != 256) continue;
    const int64_t height = 256 * shape.blocks / (p.gated ? 2 : 1), units = (p.n + height - 1) / height * tiles_x;
    for (const int split : kTilesSplits) {
      if (split > 1 && (units * split > clusters || units * split * 3 < clusters)) continue;
      if (split == 0 && (units % clusters == 0 || units > 8 * clusters)) continue;
      plans.push_back({.blocks = shape.blocks, .columns = shape.columns, .share = 2, .split = split});
    }
  }
  return plans;
}

// Every way, then for the best one other orders; then the best beside cuBLASLt, in turns.
void TimeTiles(Timer& timer, const Model& model, const std::vector<int64_t>& rows) {
  constexpr double kLeast = 10;
  for (const int64_t r : rows) {
    double layer_ours = 0, layer_lt = 0, layer_needed = 0;
    for (const Layer& layer : model.layers) {
      const bool repeats = layer.n < 100000;
      if (r > 512 && !repeats) continue;
      const LinearParams p = ParamsOf(timer, layer, r);
      const double before = repeats || r <= 512 ? timer.Time(p, [](const LinearParams& q, cudaStream_t s) { return LinearWgmma(q, PlanWgmma(q), s); }, kLeast) : 0;
      std::string tried;
      TilesPlan best{};
      double best_time = 0;
      const auto attempt = [&](const TilesPlan& plan, const std::string& name) {
        std::snprintf(running, sizeof(running), "ended in %s\n", name.c_str());
        const double time = timer.Time(p, [&](const LinearParams& q, cudaStream_t s) { return LinearTiles(q, plan, s); }, kLeast);
        char text[64];
        std::snprintf(text, sizeof(text), " %s=%.1f", name.c_str(), time);
        tried += text;
        if (time > 0 && (best_time == 0 || time < best_time)) best = plan, best_time = time;
      };
      for (const TilesPlan& plan : TilesPlansFor(p)) attempt(plan, TilesText(plan));
      if (best_time == 0) continue;
      const TilesPlan found = best;
      TilesPlan other = found;
      other.rotation = 0;
      attempt(other, "rotation0");
      other = found;
      other.share = 1;
      if (other.split != 1) other.split = 0;
      attempt(other, TilesText(other));
      if ((r + found.columns - 1) / found.columns > 4)
        for (const int group : {4, 16}) {
          other = found;
          other.group = group;
          attempt(other, "group" + std::to_string(group));
        }
      const TilesPlan chosen = best;
      const auto [lt, lt_time] = timer.BestLt(p, false, kLeast);
      const auto [needed, needed_time] = timer.BestLt(p, true, kLeast);
      const Timer::Recorded recorded[] = {timer.MakeFor(p, [&](const LinearParams& q, cudaStream_t s) { return LinearTiles(q, chosen, s); }),
                                          timer.MakeFor(p, lt), timer.MakeFor(p, needed)};
      std::vector<Timer::Measured> measured[3];
      for (int round = 0; round < 3; ++round)
        for (int i = 0; i < 3; ++i) measured[i].push_back(timer.Replay(recorded[i], kLeast));
      std::printf("%-5s %5lld x %-8s | before %8.1f |", model.name, static_cast<long long>(r), layer.name, before);
      double times[3];
      for (int i = 0; i < 3; ++i) {
        std::sort(measured[i].begin(), measured[i].end(), [](const auto& a, const auto& b) { return a.time < b.time; });
        const Timer::Measured middle = measured[i][1];
        times[i] = middle.time;
        const double tflops = BytesOf(p) * static_cast<double>(r) / middle.time * 1e-6;
        std::printf(" %s %8.1f us %4.0f TF %4.0f MHz |", i == 0 ? TilesText(chosen).c_str() : i == 1 ? "Lt" : "Lt needed", middle.time, tflops, middle.mhz);
        Timer::Drop(recorded[i]);
      }
      std::printf(" %.2f of Lt, %.2f of needed\n      rotation %d group %d;%s\n", times[0] / times[1], times[0] / times[2], chosen.rotation, chosen.group,
                  tried.c_str());
      std::fflush(stdout);
      if (repeats) layer_ours += times[0], layer_lt += times[1], layer_needed += times[2];
    }
    std::printf("%-5s %5lld x one layer: %.1f us, cublasLt %.1f (bf16), %.1f (as needed)\n", model.name, static_cast<long long>(r), layer_ours, layer_lt,
                layer_needed);
  }
}

// What the model runs (with cuBLASLt where production prefers it), our kernels alone, and the fastest that cuBLASLt proposes, in turns.
void TimeLayers(Timer& timer, const Model& model, const std::vector<int64_t>& rows) {
  constexpr double kLeast = 8;
  constexpr int kWays = 3, kRounds = 3;
  const std::unique_ptr<CublasLt> cublas_lt = MakeCublasLt();
  for (const int64_t r : rows) {
    double sums[kWays] = {};
    for (const Layer& layer : model.layers) {
      const bool repeats = layer.n < 100000;
      if (r > 1024 && !repeats) continue;
      const LinearParams p = ParamsOf(timer, layer, r);
      std::snprintf(running, sizeof(running), "ended in %lld x %s\n", static_cast<long long>(r), layer.name);
      const Kernel fastest = timer.has_lt ? timer.BestLt(p, true, kLeast / 2).first : Kernel{};
      const auto linear = [](CublasLt* lt) {
        return [lt](const LinearParams& q, cudaStream_t s) {
          LinearParams with = q;
          with.cublas_lt = lt;
          return Linear(with, s);
        };
      };
      const Timer::Recorded recorded[kWays] = {timer.MakeFor(p, linear(cublas_lt.get())), timer.MakeFor(p, linear(nullptr)),
                                               fastest ? timer.MakeFor(p, fastest) : Timer::Recorded{}};
      std::vector<Timer::Measured> measured[kWays];
      for (int round = 0; round < kRounds; ++round)
        for (int i = 0; i < kWays; ++i) measured[i].push_back(timer.Replay(recorded[i], kLeast));
      const std::string plan = TilesTake(p) ? TilesText(PlanTiles(p)) : PlanText(p);
      std::printf("%-5s %5lld x %-8s", model.name, static_cast<long long>(r), layer.name);
      for (int i = 0; i < kWays; ++i) {
        std::sort(measured[i].begin(), measured[i].end(), [](const auto& a, const auto& b) { return a.time < b.time; });
        const Timer::Measured middle = measured[i][kRounds / 2];
        Timer::Drop(recorded[i]);
        if (repeats) sums[i] += middle.time;
        const double tflops = middle.time > 0 ? BytesOf(p) * static_cast<double>(r) / middle.time * 1e-6 : 0;
        std::printf(" | %s %8.1f us %4.0f TF %4.0f MHz", i == 0 ? "used" : i == 1 ? plan.c_str() : "best Lt", middle.time, tflops, middle.mhz);
      }
      std::printf("\n");
    }
    std::printf("%-5s %5lld x one layer: %.1f us, our kernels %.1f, best Lt %.1f (without activation)\n", model.name, static_cast<long long>(r), sums[0],
                sums[1], sums[2]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::signal(SIGTERM, SayRunning);
  const std::string command = argc > 1 ? argv[1] : "check";
  if (command == "check") return Check();
  if (command == "check-tiles") {
    Checker checker;
    checker.Init();
    CheckTiles(checker);
    CheckCublasLt(checker);
    return End(checker);
  }
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
    if (m.name == model && command == "tiles") TimeTiles(timer, m, rows);
    else if (m.name == model && command == "layers") TimeLayers(timer, m, rows);
    else if (m.name == model) TimeModel(timer, m, rows, with_mma);
  return 0;
}
