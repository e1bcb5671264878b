// Ops bound by memory: checked against plain loops on the host, then timed. elementwise_bench [check|time]
//   nvcc -std=c++20 -O3 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a -I../kernels elementwise_bench.cu ../kernels/{elementwise,kv_write}.cu -o elementwise_bench
#include <memory>
#include <string>

#include "bench.cuh"

namespace tenon_cuda {
namespace {

using Bf16 = __nv_bfloat16;
int failures = 0;

void Expect(const std::string& name, const std::vector<double>& wanted, const std::vector<float>& got, double limit) {
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double error = std::fabs(wanted[i] - got[i]) / (1 + std::fabs(wanted[i]));
    if (!(error <= worst)) worst = error, at = i;
  }
  if (worst <= limit) return;
  ++failures;
  std::printf("FAILED %s: element %zu is %g, not %g\n", name.c_str(), at, got[at], wanted[at]);
}
template <typename T>
std::vector<float> Floats(const Device<T>& x) {
  std::vector<float> floats;
  for (const T value : x.Host()) floats.push_back(static_cast<float>(value));
  return floats;
}

void CheckRmsNorm(int rows, int size) {
  Device<float> x(static_cast<size_t>(rows) * size), w(size);
  Device<Bf16> y(x.size());
  Randomize(x, 1);
  Randomize(w, 2);
  y.Fill(0xff);
  Check(RmsNorm({x.get(), w.get(), y.get(), rows, size, 1e-5f, Type::kF32, Type::kBf16}, nullptr), "rms_norm");
  const auto hx = Floats(x), hw = Floats(w);
  std::vector<double> wanted;
  for (int r = 0; r < rows; ++r) {
    double sum = 0;
    for (int i = 0; i < size; ++i) sum += static_cast<double>(hx[r * size + i]) * hx[r * size + i];
    for (int i = 0; i < size; ++i) wanted.push_back(hx[r * size + i] / std::sqrt(sum / size + 1e-5) * hw[i]);
  }
  Expect("rms_norm of " + std::to_string(size), wanted, Floats(y), 5e-3);
}

void CheckElements(int64_t n) {
  Device<float> a(n), y(n);
  Device<Bf16> b(n);
  Randomize(a, 1);
  Randomize(b, 2);
  const auto ha = Floats(a), hb = Floats(b);
  std::vector<double> sum, gated;
  for (int64_t i = 0; i < n; ++i) {
    sum.push_back(static_cast<double>(ha[i]) + hb[i]);
    gated.push_back(ha[i] / (1 + std::exp(-static_cast<double>(ha[i]))) * hb[i]);
  }
  y.Fill(0xff);
  Check(Add(a.get(), Type::kF32, b.get(), Type::kBf16, y.get(), Type::kF32, n, nullptr), "add");
  Expect("add of " + std::to_string(n), sum, Floats(y), 1e-6);
  y.Fill(0xff);
  Check(GatedAct(a.get(), Type::kF32, b.get(), Type::kBf16, 0, y.get(), Type::kF32, n, nullptr), "gated_act");
  Expect("gated_act of " + std::to_string(n), gated, Floats(y), 1e-5);
}

void CheckEmbedding(int hidden) {
  const std::vector<int32_t> tokens{5, -1, 0, 99}, cu{0, 1, 2, 4}, slots{2, 1, 0}, last{7, 42, 9};
  const Device<int32_t> d_tokens(tokens), d_cu(cu), d_slots(slots), d_last(last);
  Device<Bf16> w(100 * static_cast<size_t>(hidden));
  Device<float> y(4 * static_cast<size_t>(hidden));
  Randomize(w, 3);
  y.Fill(0xff);
  Check(Embedding({d_tokens.get(), d_cu.get(), d_slots.get(), d_last.get(), 3, w.get(), Type::kBf16, Type::kF32, 4, hidden, y.get()}, nullptr), "embedding");
  const auto hw = Floats(w);
  std::vector<double> wanted;
  for (const int token : {5, 42, 0, 99})
    for (int i = 0; i < hidden; ++i) wanted.push_back(hw[token * hidden + i]);
  Expect("embedding of " + std::to_string(hidden), wanted, Floats(y), 0);
  const Device<int32_t> rows(std::vector<int32_t>{3, 0});
  Device<float> gathered(2 * static_cast<size_t>(hidden));
  Check(GatherRows(y.get(), hidden * 4, rows.get(), 2, gathered.get(), nullptr), "gather_rows");
  std::vector<double> picked(wanted.begin() + 3 * hidden, wanted.end());
  picked.insert(picked.end(), wanted.begin(), wanted.begin() + hidden);
  Expect("gather_rows of " + std::to_string(hidden), picked, Floats(gathered), 0);
}

void CheckQkv(int heads, int kv_heads, int dim, int rotary, bool interleaved, bool norms) {
  constexpr int kRows = 5, kBlock = 16;
  const int all = heads + 2 * kv_heads;
  Device<float> qkv(static_cast<size_t>(kRows) * all * dim), angles(static_cast<size_t>(kRows) * rotary), q_norm(dim), k_norm(dim);
  Device<Bf16> q(static_cast<size_t>(kRows) * heads * dim), k(static_cast<size_t>(3) * kv_heads * kBlock * dim), v(k.size());
  Randomize(qkv, 1);
  Randomize(angles, 2);
  Randomize(q_norm, 3);
  Randomize(k_norm, 4);
  k.Fill(0);
  v.Fill(0);
  q.Fill(0xff);
  const std::vector<int32_t> slots{40, -1, 3, 17, 0};
  const Device<int32_t> d_slots(slots);
  Check(QkvRopeKvWrite({qkv.get(), angles.get(), norms ? q_norm.get() : nullptr, norms ? k_norm.get() : nullptr, d_slots.get(),
                        {k.get(), v.get(), kv_heads, dim, kBlock, Type::kBf16}, kRows, heads, rotary, interleaved, 1e-6f, q.get(), Type::kBf16},
                       nullptr),
        "qkv_rope_kv_write");
  const auto x = Floats(qkv), cs = Floats(angles), hq = Floats(q_norm), hk = Floats(k_norm);
  std::vector<double> wq(q.size()), wk(k.size()), wv(k.size());
  for (int r = 0; r < kRows; ++r)
    for (int h = 0; h < all; ++h) {
      const float* from = &x[(static_cast<size_t>(r) * all + h) * dim];
      std::vector<double> head(from, from + dim);
      const bool is_query = h < heads, is_value = h >= heads + kv_heads;
      if (!is_value) {
        double squares = 0;
        for (const double d : head) squares += d * d;
        if (norms)
          for (int d = 0; d < dim; ++d) head[d] *= (is_query ? hq : hk)[d] / std::sqrt(squares / dim + 1e-6);
        for (int i = 0; i < rotary / 2; ++i) {
          const int first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + rotary / 2;
          const double a = head[first], b = head[second], cos = cs[r * rotary + i], sin = cs[r * rotary + rotary / 2 + i];
          head[first] = a * cos - b * sin;
          head[second] = b * cos + a * sin;
        }
      }
      if (is_query) {
        std::copy(head.begin(), head.end(), wq.begin() + (static_cast<size_t>(r) * heads + h) * dim);
      } else if (slots[r] >= 0) {
        const int kv_head = (h - heads) % kv_heads;
        const size_t at = ((static_cast<size_t>(slots[r] / kBlock) * kv_heads + kv_head) * kBlock + slots[r] % kBlock) * dim;
        std::copy(head.begin(), head.end(), (is_value ? wv : wk).begin() + at);
      }
    }
  const std::string name = "qkv of dim " + std::to_string(dim) + " rotary " + std::to_string(rotary);
  Expect(name + " q", wq, Floats(q), 5e-3);
  Expect(name + " k", wk, Floats(k), 5e-3);
  Expect(name + " v", wv, Floats(v), 5e-3);
}

void CheckAll() {
  for (const int size : {12, 64, 128, 512, 576, 1000, 1024, 2048, 4096, 5120, 8192, 16384, 16392, 20000}) CheckRmsNorm(5, size);
  for (const int64_t n : {1, 7, 8, 4096, 100003}) CheckElements(n);
  for (const int hidden : {12, 64, 1000, 1024, 4096, 8192}) CheckEmbedding(hidden);
  for (const int dim : {12, 64, 96, 128, 256})
    for (const bool norms : {false, true})
      for (const bool interleaved : {false, true}) CheckQkv(6, 2, dim, dim, interleaved, norms);
  CheckQkv(4, 1, 128, 64, false, true);
  std::printf("%d checks failed\n", failures);
}

void Print(const char* name, int64_t rows, double us, double bytes) {
  std::printf("  %-28s %5ld rows: %8.2f us %6.0f GB/s %5.1f %%\n", name, static_cast<long>(rows), us, bytes / us / 1e3, 100 * bytes / us * 1e6 / kCopyBytesPerSecond);
}

void TimeRows(int64_t rows, int hidden, int heads, int kv_heads) {
  constexpr int kDim = 128;
  const int copies = static_cast<int>(std::clamp<int64_t>(400'000'000 / (rows * hidden * 4), 1, 16));
  const size_t n = static_cast<size_t>(rows) * hidden;
  Device<float> x(n * copies), z(n * copies), w(hidden), angles(static_cast<size_t>(rows) * kDim);
  Device<Bf16> y(n * copies), table(static_cast<size_t>(32768) * hidden), q(static_cast<size_t>(rows) * heads * kDim);
  Randomize(x, 1);
  Randomize(z, 2);
  Randomize(w, 3);
  Randomize(table, 4);
  Randomize(angles, 5);
  std::vector<int32_t> tokens, slots, positions;
  for (int64_t r = 0; r < rows; ++r) {
    tokens.push_back(static_cast<int32_t>(r * 7919 % 32768));
    slots.push_back(static_cast<int32_t>(r));
    positions.push_back(static_cast<int32_t>(r));
  }
  const Device<int32_t> d_tokens(tokens), d_slots(slots), d_positions(positions);
  const auto at = [&](int i) { return static_cast<size_t>(i % copies) * n; };
  Print("rms_norm f32 to bf16", rows, Microseconds([&](int i, cudaStream_t s) {
          return RmsNorm({x.get() + at(i), w.get(), y.get() + at(i), rows, hidden, 1e-5f, Type::kF32, Type::kBf16}, s);
        }), n * 6.);
  Print("add f32", rows, Microseconds([&](int i, cudaStream_t s) {
          return Add(x.get() + at(i), Type::kF32, z.get() + at(i), Type::kF32, z.get() + at(i), Type::kF32, static_cast<int64_t>(n), s);
        }), n * 12.);
  Print("embedding bf16 to f32", rows, Microseconds([&](int i, cudaStream_t s) {
          return Embedding({d_tokens.get(), nullptr, nullptr, nullptr, 0, table.get(), Type::kBf16, Type::kF32, rows, hidden, x.get() + at(i)}, s);
        }), n * 6.);
  const int all = heads + 2 * kv_heads;
  const size_t row_size = static_cast<size_t>(all) * kDim;
  const int qkv_copies = static_cast<int>(std::clamp<int64_t>(400'000'000 / static_cast<int64_t>(rows * row_size * 4), 1, 16));
  Device<float> qkv(rows * row_size * qkv_copies);
  Randomize(qkv, 6);
  Device<Bf16> k((rows + 16) * kv_heads * kDim), v(k.size());
  Print("qkv_rope_kv_write", rows, Microseconds([&](int i, cudaStream_t s) {
          return QkvRopeKvWrite({qkv.get() + i % qkv_copies * rows * row_size, angles.get(), w.get(), w.get(), d_slots.get(), {k.get(), v.get(), kv_heads, kDim, 16, Type::kBf16},
                                 rows, heads, kDim, 0, 1e-6f, q.get(), Type::kBf16}, s);
        }), rows * (row_size * 6. + kDim * 4));
  Device<float> freq(64);
  Randomize(freq, 8);
  RopeCosSinParams rope{};
  rope.positions = d_positions.get();
  rope.inv_freq = freq.get();
  rope.y = angles.get();
  rope.rows = rows;
  rope.rotary_dim = kDim;
  rope.scale = 1;
  Print("rope_cos_sin", rows, Microseconds([&](int, cudaStream_t s) { return RopeCosSin(rope, s); }), rows * (kDim * 4. + 4));
}

}  // namespace
}  // namespace tenon_cuda

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "all";
  if (mode != "time") tenon_cuda::CheckAll();
  if (mode != "check")
    for (const int64_t rows : {1, 32, 256, 2048, 8192}) {
      std::printf("hidden 4096, 32 + 8 + 8 heads\n");
      tenon_cuda::TimeRows(rows, 4096, 32, 8);
      if (rows > 256) continue;
      std::printf("hidden 1024, 16 + 8 + 8 heads\n");
      tenon_cuda::TimeRows(rows, 1024, 16, 8);
    }
  return tenon_cuda::failures == 0 ? 0 : 1;
}
