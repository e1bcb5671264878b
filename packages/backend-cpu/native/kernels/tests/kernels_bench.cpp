// Speeds of the kernels as fractions of what the machine does in the same run: kernels_bench [isa] [seconds a case].
//
// Peak: a register loop of the dot instruction. Bandwidth: one thread reading a buffer larger than the caches. Every figure
// is the best of many runs, and every answer is checked against a slow sum.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "reference.h"

#if defined(TENON_KERNELS_X86)
#include <immintrin.h>
#endif

namespace tenon_cpu::testing {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Time of this thread alone, where the system tells it: neighbours that take the core do not count.
double ThreadSeconds() {
#if defined(__linux__)
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
#else
  return Now();
#endif
}

double seconds_per_case = 0.3;

// The shortest of the runs that fit in seconds_per_case.
template <class Fn>
double BestSeconds(const Fn& fn) {
  double best = 1e30;
  for (double end = Now() + seconds_per_case; Now() < end;) {
    const double start = ThreadSeconds();
    fn();
    const double seconds = ThreadSeconds() - start;
    if (seconds < best) best = seconds;
  }
  return best;
}

#if defined(TENON_KERNELS_X86)
__attribute__((target("avx512f,avx512bf16"), noinline)) float Bf16Loop(int64_t steps) {
  __m512 acc[12];
  const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(steps)));
  for (__m512& a : acc) a = _mm512_setzero_ps();
  for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) acc[j] = _mm512_dpbf16_ps(acc[j], x, x);
  }
  float sum = 0;
  for (const __m512 a : acc) sum += _mm512_reduce_add_ps(a);
  return sum;
}
__attribute__((target("avx2,fma"), noinline)) float FmaLoop(int64_t steps) {
  __m256 acc[12];
  const __m256 x = _mm256_set1_ps(static_cast<float>(steps) * 1e-9f);
  for (__m256& a : acc) a = _mm256_setzero_ps();
  for (int64_t i = 0; i < steps; i++) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) acc[j] = _mm256_fmadd_ps(x, x, acc[j]);
  }
  float sum = 0;
  for (const __m256 a : acc) sum += _mm256_cvtss_f32(a);
  return sum;
}
#endif

volatile float sink;

// GFLOP/s of one core: bf16 dots where the instruction set has them and `bf16` asks for them, else f32 (AVX2's rate, which
// is that of AVX-512 on machines with two 256-bit units).
double PeakGflops([[maybe_unused]] Isa isa, [[maybe_unused]] bool bf16) {
#if defined(TENON_KERNELS_X86)
  constexpr int64_t kSteps = 200000;
  const bool dots = bf16 && isa >= Isa::kAvx512Bf16;
  if (isa == Isa::kGeneric) return NAN;
  const double seconds = BestSeconds([&] { sink = dots ? Bf16Loop(kSteps) : FmaLoop(kSteps); });
  return kSteps * 12 * (dots ? 64 : 16) / seconds * 1e-9;
#else
  return NAN;
#endif
}

double ReadGbps(const AlignedBytes& buffer) {
  const auto* words = reinterpret_cast<const uint64_t*>(buffer.data());
  const int64_t n = static_cast<int64_t>(buffer.size() / 8);
  const double seconds = BestSeconds([&] {
    uint64_t sum[16] = {};
    for (int64_t i = 0; i + 16 <= n; i += 16) {
      for (int j = 0; j < 16; j++) sum[j] ^= words[i + j];
    }
    for (const uint64_t s : sum) sink = static_cast<float>(s);
  });
  return static_cast<double>(n) * 8 / seconds * 1e-9;
}

// Fills `out` with copies of `values`.
void Repeat(const Array& values, AlignedBytes& out) {
  const size_t chunk = static_cast<size_t>(values.size_bytes());
  for (size_t at = 0; at < out.size(); at += chunk) {
    std::memcpy(out.data() + at, values.data(), std::min(chunk, out.size() - at));
  }
}

// Element [n, k] of a packed weight.
double PackedAt(const PackedMatrix& weight, int64_t n, int64_t k) {
  const int64_t kr = PackFactor(weight.dtype);
  const int64_t width = weight.dtype == Dtype::kF32 ? 4 : 2;
  const int64_t in_block = (k / kr * kLanes + n % kLanes) * kr + k % kr;
  Array one(weight.dtype, 1);
  const char* block = static_cast<const char*>(weight.data) + n / kLanes * PackedBlockBytes(weight.dtype, weight.k);
  std::memcpy(one.data(), block + in_block * width, width);
  return one.At(0);
}

struct Roofs {
  double gflops, gbps;
};

// From DRAM: many weights are used in turn, one after the other in memory.
void BenchGemm(const Kernels& kernels, Dtype dtype, int64_t m, int64_t n, int64_t k, bool from_dram, const Roofs& roofs) {
  const int64_t bytes = (n + 15) / 16 * PackedBlockBytes(dtype, k);
  const int64_t copies = from_dram ? 1 + 160'000'000 / bytes : 1;
  Random random(3);
  Array values(dtype, 1024), x(dtype, m * k), y(Dtype::kF32, m * n);
  values.Fill(random);
  x.Fill(random);
  AlignedBytes weights(static_cast<size_t>(bytes * copies));
  Repeat(values, weights);
  AlignedBytes scratch(kernels.gemm_scratch_bytes(m, k));
  GemmParams p = {};
  p.x = x.data();
  p.ldx = k;
  p.epilogue = Epilogue::kStore;
  p.y = y.data();
  p.y_dtype = Dtype::kF32;
  p.ldy = n;
  p.m_end = m;
  p.block_end = (n + 15) / 16;
  p.scratch = scratch.data();
  const double seconds = BestSeconds([&] {
    for (int64_t i = 0; i < copies; i++) {
      p.weight = {weights.data() + i * bytes, dtype, n, k};
      kernels.gemm(p);
    }
  }) / static_cast<double>(copies);
  const int64_t row = m - 1, column = n - 1;
  double want = 0;
  for (int64_t i = 0; i < k; i++) want += x.At(row * k + i) * PackedAt(p.weight, column, i);
  const bool right = std::fabs(y.At(row * n + column) - want) < 1e-3 * std::sqrt(static_cast<double>(k));
  const double gflops = 2.0 * m * n * k / seconds * 1e-9, gbps = static_cast<double>(bytes) / seconds * 1e-9;
  std::printf("gemm %-4s m=%-4lld n=%-6lld k=%-5lld %-6s %8.1f us %7.1f GFLOP/s (%3.0f %%) %6.1f GB/s (%3.0f %%)%s\n",
              NameOf(dtype), static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(k),
              from_dram ? "dram" : "cached", seconds * 1e6, gflops, 100 * gflops / roofs.gflops, gbps,
              100 * gbps / roofs.gbps, right ? "" : "  WRONG");
  std::fflush(stdout);
}

// All items of one layer and step: `queries` new tokens of a sequence of `context`.
void BenchAttention(const Kernels& kernels, Dtype dtype, int group, int kv_heads, int head_dim, int context, int queries,
                    const Roofs& roofs, int block_size = 32) {
  const int num_blocks = (context + block_size - 1) / block_size;
  const int64_t block_elements = KvBlockElements(head_dim, block_size, dtype, kv_heads);
  Random random(5);
  Array values(dtype, 1024);
  values.Fill(random);
  const size_t width = dtype == Dtype::kF32 ? 4 : 2;
  AlignedBytes k(static_cast<size_t>(num_blocks * block_elements) * width), v(k.size());
  Repeat(values, k);
  Repeat(values, v);
  std::vector<int32_t> table;
  for (int i = 0; i < num_blocks; i++) table.push_back(i);
  for (int i = num_blocks - 1; i > 0; i--) std::swap(table[i], table[random.Below(i + 1)]);
  const int64_t ldq = int64_t{group} * kv_heads * head_dim;
  Array q(dtype, queries * ldq), y(dtype, queries * ldq);
  q.Fill(random);
  AlignedBytes scratch(kernels.attention_scratch_bytes(kMaxQueryRows, group, head_dim));
  AttentionParams p = {};
  p.q = q.data();
  p.ldq = ldq;
  p.kv = {k.data(), v.data(), dtype, kv_heads, head_dim, block_size};
  p.block_table = table.data();
  p.num_heads = group * kv_heads;
  p.scale = 1 / std::sqrt(static_cast<float>(head_dim));
  p.split_end = INT32_MAX;
  p.y = y.data();
  p.ldy = ldq;
  p.scratch = scratch.data();
  const double seconds = BestSeconds([&] {
    for (int head = 0; head < kv_heads; head++) {
      for (int begin = 0; begin < queries; begin += kMaxQueryRows) {
        p.kv_head = head;
        p.query_begin = begin;
        p.query_end = std::min(begin + kMaxQueryRows, queries);
        p.first_position = context - queries + begin;
        kernels.attention(p);
      }
    }
  });
  const double pairs = (context - queries + (queries + 1) / 2.0) * queries;
  const double gflops = 4.0 * pairs * static_cast<double>(ldq) / seconds * 1e-9;
  const double gbps = 2.0 * context * kv_heads * head_dim * static_cast<double>(width) / seconds * 1e-9;
  std::printf("attention %-4s group=%d kv_heads=%d head_dim=%-3d block_size=%-3d context=%-6d queries=%-4d "
              "%8.1f us %7.1f GFLOP/s (%3.0f %%) %6.1f GB/s (%3.0f %%)\n",
              NameOf(dtype), group, kv_heads, head_dim, block_size, context, queries, seconds * 1e6, gflops,
              100 * gflops / roofs.gflops, gbps, 100 * gbps / roofs.gbps);
  std::fflush(stdout);
}

template <class Fn>
void BenchCall(const char* name, double bytes, const Roofs& roofs, const Fn& fn) {
  const double seconds = BestSeconds(fn);
  std::printf("%-38s %8.1f us %6.1f GB/s (%3.0f %%)\n", name, seconds * 1e6, bytes / seconds * 1e-9,
              100 * bytes / seconds * 1e-9 / roofs.gbps);
}

void BenchRest(const Kernels& kernels, const Roofs& roofs) {
  constexpr int64_t kRows = 512, kSize = 576, kVocab = 49152;
  Random random(9);
  Array a(Dtype::kF32, kRows * 1536), b(Dtype::kF32, kRows * 1536), y(Dtype::kBf16, kRows * 1536), z(Dtype::kF32, kVocab);
  a.Fill(random);
  b.Fill(random);
  const float* x = static_cast<const float*>(a.data());
  BenchCall("rms_norm 512 x 576, f32 to bf16", kRows * kSize * 6.0, roofs, [&] {
    kernels.rms_norm({a.data(), Dtype::kF32, static_cast<const float*>(b.data()), y.data(), Dtype::kBf16, kSize, 1e-5f, 0, kRows});
  });
  BenchCall("silu gated_act 512 x 1536, f32 to bf16", kRows * 1536 * 10.0, roofs, [&] {
    kernels.gated_act({a.data(), Dtype::kF32, b.data(), Dtype::kF32, y.data(), Dtype::kBf16, 0, kRows * 1536}, 0);
  });
  BenchCall("argmax 49152", kVocab * 4.0, roofs, [&] { sink = static_cast<float>(kernels.argmax(x, kVocab)); });
  BenchCall("exp_sum 49152", kVocab * 8.0, roofs, [&] {
    sink = static_cast<float>(kernels.exp_sum(x, kVocab, 1, 1, static_cast<float*>(z.data())));
  });
  Array cache(Dtype::kBf16, 2 * 32 * KvBlockElements(64, 16, Dtype::kBf16, 3)), q(Dtype::kBf16, kRows * kSize);
  std::vector<int32_t> slots;
  for (int i = 0; i < kRows; i++) slots.push_back(i);
  Array qkv(Dtype::kF32, kRows * 960), cos_sin(Dtype::kF32, kRows * 64);
  qkv.Fill(random);
  cos_sin.Fill(random);
  for (const bool interleaved : {false, true}) {
    QkvRopeKvWriteParams p = {};
    p.qkv = static_cast<const float*>(qkv.data());
    p.ld_qkv = 960;
    p.cos_sin = static_cast<const float*>(cos_sin.data());
    p.num_heads = 9;
    p.num_kv_heads = 3;
    p.head_dim = p.rotary_dim = 64;
    p.interleaved = interleaved;
    p.q = q.data();
    p.q_dtype = Dtype::kBf16;
    p.slot_mapping = slots.data();
    p.num_tokens = p.token_end = kRows;
    char* v = static_cast<char*>(cache.data()) + cache.size_bytes() / 2;
    p.kv = {cache.data(), v, Dtype::kBf16, 3, 64, 16};
    BenchCall(interleaved ? "qkv_rope_kv_write 512 x 960, pairs" : "qkv_rope_kv_write 512 x 960, halves", kRows * 960 * 6.0,
              roofs, [&] { kernels.qkv_rope_kv_write(p); });
  }
}

void BenchIsa(const Kernels& kernels) {
  const AlignedBytes buffer(256 << 20);
  const double gbps = ReadGbps(buffer);
  const Roofs bf16 = {PeakGflops(kernels.isa, true), gbps}, f32 = {PeakGflops(kernels.isa, false), gbps};
  std::printf("== %s: peak %.0f GFLOP/s bf16, %.0f f32; one thread reads %.1f GB/s\n", kernels.name, bf16.gflops,
              f32.gflops, gbps);
  for (const int64_t m : {1, 2, 4}) {
    for (const auto& [n, k] : {std::pair{960, 576}, {576, 576}, {3072, 576}, {576, 1536}, {49152, 576}, {4096, 4096}}) {
      BenchGemm(kernels, Dtype::kBf16, m, n, k, true, bf16);
    }
  }
  for (const int64_t m : {8, 13, 16, 18, 32}) {
    for (const auto& [n, k] : {std::pair{3072, 576}, {576, 1536}, {49152, 576}, {4096, 4096}}) {
      BenchGemm(kernels, Dtype::kBf16, m, n, k, true, bf16);
    }
  }
  for (const auto& [n, k] : {std::pair{1536, 576}, {576, 1536}, {49152, 576}, {4096, 4096}}) {
    BenchGemm(kernels, Dtype::kBf16, 512, n, k, false, bf16);
  }
  for (const Dtype dtype : {Dtype::kF16, Dtype::kF32}) {
    BenchGemm(kernels, dtype, 1, 4096, 4096, true, f32);
    BenchGemm(kernels, dtype, 512, 1536, 576, false, f32);
  }
  for (const int block_size : {16, 32, 64, 128}) {
    BenchAttention(kernels, Dtype::kBf16, 3, 3, 64, 100000, 1, bf16, block_size);
  }
  BenchAttention(kernels, Dtype::kBf16, 4, 8, 128, 50000, 1, bf16);
  BenchAttention(kernels, Dtype::kBf16, 1, 8, 64, 50000, 1, bf16);
  BenchAttention(kernels, Dtype::kBf16, 3, 3, 64, 512, 1, bf16);
  BenchAttention(kernels, Dtype::kBf16, 3, 3, 64, 512, 512, bf16);
  BenchAttention(kernels, Dtype::kBf16, 3, 3, 64, 4096, 512, bf16);
  BenchAttention(kernels, Dtype::kBf16, 4, 2, 128, 2048, 512, bf16);
  BenchRest(kernels, bf16);
}

}  // namespace
}  // namespace tenon_cpu::testing

int main(int argc, char** argv) {
  using namespace tenon_cpu;
  Isa isa = BestIsa();
  if (argc > 1 && (!IsaByName(argv[1], &isa) || !CanRun(isa))) {
    std::printf("cannot run '%s' here\n", argv[1]);
    return 2;
  }
  if (argc > 2) testing::seconds_per_case = std::atof(argv[2]);
  testing::BenchIsa(*GetKernels(isa));
  return 0;
}
