// Attention: checked against an f64 reference on the device, then timed. attention_bench [check|time|decode|few|mixed|prefill|tiny]
//   nvcc -std=c++20 -O3 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a -I../kernels attention_bench.cu ../kernels/attention*.cu -o attention_bench
#include <memory>
#include <string>

#include "bench.cuh"

namespace tenon_cuda {
namespace {

struct Seq {
  int query_len, seq_len;
};
struct Case {
  int heads, kv_heads, head_dim, block_size;
  std::vector<Seq> seqs;
  int window = 0;
  float soft_cap = 0;
  int padding = 0;  // sequences of padding behind the others
};

__global__ void ReferenceKernel(AttentionParams p, Type type, double* y) {
  const int token = blockIdx.x, head = blockIdx.y, head_dim = p.kv.head_dim;
  const int seq = SeqOfToken(p.step.cu_seqlens_q, p.step.num_seqs, token);
  const int position = p.step.positions[token], kv_head = head / (p.num_heads / p.kv.num_kv_heads);
  const auto load = [&](const void* x, int64_t i) -> double {
    return type == Type::kBf16 ? __bfloat162float(static_cast<const __nv_bfloat16*>(x)[i]) : __half2float(static_cast<const __half*>(x)[i]);
  };
  const auto row = [&](int key) {
    const int64_t block = p.step.block_tables[static_cast<int64_t>(seq) * p.step.block_table_stride + key / p.kv.block_size];
    return ((block * p.kv.num_kv_heads + kv_head) * p.kv.block_size + key % p.kv.block_size) * head_dim;
  };
  const int first = p.sliding_window > 0 ? max(0, position - p.sliding_window + 1) : 0;
  __shared__ double scores[8192];
  __shared__ double sum;
  const int64_t own = (static_cast<int64_t>(token) * p.num_heads + head) * head_dim;
  for (int key = first + threadIdx.x; key <= position; key += blockDim.x) {
    double s = 0;
    const int64_t at = row(key);
    for (int d = 0; d < head_dim; ++d) s += load(p.q, own + d) * load(p.kv.k, at + d);
    s *= p.scale;
    scores[key - first] = p.soft_cap > 0 ? p.soft_cap * tanh(s / p.soft_cap) : s;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double max = -1e300;
    for (int i = 0; i <= position - first; ++i) max = fmax(max, scores[i]);
    sum = 0;
    for (int i = 0; i <= position - first; ++i) sum += scores[i] = exp(scores[i] - max);
  }
  __syncthreads();
  for (int d = threadIdx.x; d < head_dim; d += blockDim.x) {
    double total = 0;
    for (int key = first; key <= position; ++key) total += scores[key - first] * load(p.kv.v, row(key) + d);
    y[own + d] = total / sum;
  }
}

// Cache rows that no sequence has become NaN. grid: blocks of all sequences
template <typename T>
__global__ void SpoilKernel(T* cache, const int32_t* rows_of_block, int kv_heads, int block_size, int head_dim) {
  const int64_t block = blockIdx.x;
  for (int i = threadIdx.x; i < kv_heads * block_size * head_dim; i += blockDim.x)
    if (i / head_dim % block_size >= rows_of_block[block]) cache[block * kv_heads * block_size * head_dim + i] = FromFloat<T>(NAN);
}

template <typename T>
constexpr Type kTypeOf = sizeof(T) == 4 ? Type::kF32 : Type::kBf16;
template <>
constexpr Type kTypeOf<__half> = Type::kF16;

// One step over `layers` caches that hold different random numbers.
template <typename T>
class Step {
 public:
  Step(const Case& c, int layers, int max_model_len, bool spoil)
      : c_(c), num_seqs_(static_cast<int>(c.seqs.size()) + c.padding), layers_(layers), max_model_len_(max_model_len) {
    std::vector<int32_t> cu{0}, lens, positions;
    std::vector<Seq> seqs = c.seqs;
    for (int i = 0; i < c.padding; ++i) seqs.push_back({1, 1});
    for (const Seq& s : seqs) {
      cu.push_back(cu.back() + s.query_len);
      lens.push_back(s.seq_len);
      for (int i = 0; i < s.query_len; ++i) positions.push_back(s.seq_len - s.query_len + i);
      max_seq_len_ = std::max(max_seq_len_, s.seq_len);
      max_query_len_ = std::max(max_query_len_, s.query_len);
      num_single_ += s.query_len == 1 ? 1 : 0;
    }
    num_tokens_ = cu.back();
    stride_ = (max_seq_len_ + c.block_size - 1) / c.block_size + 3;
    int num_blocks = 1;  // block 0 is padding's
    for (const Seq& s : c.seqs) num_blocks += (s.seq_len + c.block_size - 1) / c.block_size;
    std::vector<int32_t> order(num_blocks - 1), rows(num_blocks, c.block_size), tables(static_cast<size_t>(num_seqs_) * stride_, 0);
    for (int i = 0; i < num_blocks - 1; ++i) order[i] = i + 1;
    std::mt19937 random(7);
    std::shuffle(order.begin(), order.end(), random);
    int next = 0;
    for (size_t s = 0; s < c.seqs.size(); ++s)
      for (int at = 0; at < c.seqs[s].seq_len; at += c.block_size) {
        tables[s * stride_ + at / c.block_size] = order[next];
        rows[order[next++]] = std::min(c.block_size, c.seqs[s].seq_len - at);
      }
    cu_ = std::make_unique<Device<int32_t>>(cu);
    lens_ = std::make_unique<Device<int32_t>>(lens);
    positions_ = std::make_unique<Device<int32_t>>(positions);
    tables_ = std::make_unique<Device<int32_t>>(tables);
    q_ = std::make_unique<Device<T>>(static_cast<size_t>(num_tokens_) * c.heads * c.head_dim);
    y_ = std::make_unique<Device<T>>(q_->size());
    const size_t cache = static_cast<size_t>(num_blocks) * c.kv_heads * c.block_size * c.head_dim;
    layer_size_ = cache;
    k_ = std::make_unique<Device<T>>(cache * layers);
    v_ = std::make_unique<Device<T>>(cache * layers);
    Randomize(*q_, 1);
    Randomize(*k_, 2);
    Randomize(*v_, 3);
    if (spoil) {
      const Device<int32_t> d_rows(rows);
      SpoilKernel<<<num_blocks, 256>>>(k_->get(), d_rows.get(), c.kv_heads, c.block_size, c.head_dim);
      SpoilKernel<<<num_blocks, 256>>>(v_->get(), d_rows.get(), c.kv_heads, c.block_size, c.head_dim);
      Check(cudaDeviceSynchronize(), "spoiling the cache");
    }
    scratch_ = std::make_unique<Device<uint8_t>>(AttentionScratchBytes(num_tokens_, num_seqs_, max_model_len, c.heads, c.head_dim));
    scratch_->Fill(0);
    y_->Fill(0xff);
  }
  AttentionParams Params(int layer, bool recording) const {
    const size_t at = static_cast<size_t>(layer % layers_) * layer_size_;
    return {.q = q_->get(),
            .kv = {k_->get() + at, v_->get() + at, c_.kv_heads, c_.head_dim, c_.block_size, kTypeOf<T>},
            .step = {positions_->get(), cu_->get(), lens_->get(), tables_->get(), num_tokens_, num_seqs_, stride_,
                     recording ? max_model_len_ : max_seq_len_, max_query_len_, num_single_, recording},
            .num_heads = c_.heads,
            .scale = 1.f / std::sqrt(static_cast<float>(c_.head_dim)),
            .soft_cap = c_.soft_cap,
            .sliding_window = c_.window,
            .max_model_len = max_model_len_,
            .y = y_->get(),
            .scratch = scratch_->get()};
  }
  // Worst ‖y - reference‖ / ‖reference‖ of a head, over all tokens but padding.
  double WorstError(bool recording) {
    const AttentionParams p = Params(0, recording);
    Device<double> reference(q_->size());
    ReferenceKernel<<<dim3(num_tokens_, c_.heads), 128>>>(p, kTypeOf<T>, reference.get());
    Check(cudaDeviceSynchronize(), "reference");
    for (int run = 0; run < 2; ++run) {  // the second finds what the first has left in scratch
      y_->Fill(0xff);
      Check(Attention(p, nullptr), "attention");
      Check(cudaDeviceSynchronize(), "attention");
    }
    const std::vector<double> wanted = reference.Host();
    const std::vector<T> y = y_->Host();
    double worst = 0;
    for (size_t row = 0; row < static_cast<size_t>(num_tokens_ - c_.padding) * c_.heads; ++row) {
      double error = 0, norm = 0;
      for (int d = 0; d < c_.head_dim; ++d) {
        const double a = wanted[row * c_.head_dim + d], b = static_cast<float>(y[row * c_.head_dim + d]);
        error += (a - b) * (a - b);
        norm += a * a;
      }
      const double relative = std::sqrt(error / norm);
      if (!(relative <= worst)) worst = relative, worst_row_ = row;
    }
    return worst;
  }
  size_t worst_row() const { return worst_row_; }

 private:
  Case c_;
  int num_seqs_, layers_, max_model_len_, num_tokens_ = 0, stride_ = 0, max_seq_len_ = 0, max_query_len_ = 0, num_single_ = 0;
  size_t layer_size_ = 0, worst_row_ = 0;
  std::unique_ptr<Device<int32_t>> cu_, lens_, positions_, tables_;
  std::unique_ptr<Device<T>> q_, k_, v_, y_;
  std::unique_ptr<Device<uint8_t>> scratch_;
};

int failures = 0, checks = 0;
template <typename T>
void CheckCase(const char* name, const Case& c) {
  const double limit = kTypeOf<T> == Type::kBf16 ? 1.2e-2 : 1.5e-3;
  bool decode_only = true;
  for (const Seq& s : c.seqs) decode_only &= s.query_len == 1;
  for (const bool recording : {false, true}) {
    if (recording && !decode_only) continue;
    Step<T> step(c, 1, 9216, true);
    const double error = step.WorstError(recording);
    ++checks;
    if (error <= limit) continue;
    ++failures;
    std::printf("FAILED %s %s heads %d/%d dim %d block %d window %d cap %g%s: relative error %.3g at token %zu head %zu\n", name,
                kTypeOf<T> == Type::kBf16 ? "bf16" : "f16", c.heads, c.kv_heads, c.head_dim, c.block_size, c.window, c.soft_cap,
                recording ? " recorded" : "", error, step.worst_row() / c.heads, step.worst_row() % c.heads);
  }
}
void CheckBoth(const char* name, const Case& c) {
  CheckCase<__nv_bfloat16>(name, c);
  CheckCase<__half>(name, c);
}

void CheckAll() {
  const std::vector<Seq> decode{{1, 1}, {1, 17}, {1, 256}, {1, 257}, {1, 700}, {1, 2000}, {1, 16}, {1, 1025}};
  const std::vector<Seq> mixed{{1, 300}, {7, 7}, {130, 130}, {1, 1}, {64, 600}, {2, 1025}, {200, 1500}, {1, 999}};
  for (const int group : {1, 2, 4, 7, 8, 16, 32})
    for (const auto& seqs : {decode, mixed}) CheckBoth("groups", {group * 2, 2, 128, 16, seqs});
  for (const int dim : {8, 12, 64, 80, 96, 128, 192, 256})
    for (const auto& seqs : {decode, mixed}) {
      CheckBoth("head_dim", {8, 2, dim, 16, seqs});
      CheckBoth("window", {8, 2, dim, 16, seqs, 100, 0, 3});
      CheckBoth("soft cap", {8, 2, dim, 16, seqs, 0, 20});
    }
  for (const int block : {16, 32, 64, 256, 48})
    for (const auto& seqs : {decode, mixed}) CheckBoth("block_size", {8, 2, 128, block, seqs, 0, 0, 2});
  for (const int window : {1, 16, 333}) CheckBoth("window", {4, 4, 128, 16, mixed, window});
  CheckBoth("group 16 of 256", {32, 2, 256, 16, mixed});
  std::vector<Seq> many;
  for (int i = 0; i < 300; ++i) many.push_back({i % 50 == 49 ? 33 : 1, 40 + i * 7 % 900});
  CheckBoth("many", {8, 4, 128, 16, many});
  CheckBoth("long", {4, 2, 128, 16, {{1, 8190}, {1, 8192}, {3, 8000}}});
  std::printf("%d checks, %d failed\n", checks, failures);
}

// A short check, for sanitizers.
void CheckFew() {
  const std::vector<Seq> mixed{{1, 70}, {5, 5}, {40, 90}, {1, 1}};
  for (const int dim : {64, 128}) {
    CheckBoth("few", {4, 2, dim, 16, mixed, 0, 0, 2});
    CheckBoth("few", {4, 2, dim, 16, {{1, 300}, {1, 17}}});
  }
  std::printf("%d checks, %d failed\n", checks, failures);
}

void TimeDecode(const char* name, int heads, int kv_heads) {
  std::printf("decode %s: batch, keys, us, GB/s, %% of copy\n", name);
  for (const auto& [batch, keys] : std::vector<std::pair<int, int>>{{1, 128}, {1, 512}, {1, 2048}, {1, 8192}, {8, 128}, {8, 2048}, {8, 8192}, {32, 256}, {32, 2048}, {33, 2048}, {64, 2048}, {256, 256}, {256, 1024}, {256, 2048}}) {
    const Case c{heads, kv_heads, 128, 16, std::vector<Seq>(batch, Seq{1, keys})};
    const double bytes = 2. * 2 * batch * keys * kv_heads * 128 + 2. * 2 * batch * heads * 128;
    const int layers = std::clamp(static_cast<int>(1e9 / bytes), 1, 20);
    Step<__nv_bfloat16> step(c, layers, 9216, false);
    const double us = Microseconds([&](int i, cudaStream_t stream) { return Attention(step.Params(i, true), stream); });
    std::printf("  %4d %5d %8.2f %7.0f %5.1f\n", batch, keys, us, bytes / us / 1e3, 100 * bytes / us * 1e6 / kCopyBytesPerSecond);
  }
  // lengths as in serving
  std::vector<Seq> ragged;
  double keys = 0;
  for (int i = 0; i < 256; ++i) {
    ragged.push_back({1, 100 + i * 37 % 1900});
    keys += ragged.back().seq_len;
  }
  Step<__nv_bfloat16> step({heads, kv_heads, 128, 16, ragged}, 2, 9216, false);
  const double us = Microseconds([&](int i, cudaStream_t stream) { return Attention(step.Params(i, true), stream); });
  const double bytes = 2. * 2 * keys * kv_heads * 128;
  std::printf("  256 ragged 100...2000 %8.2f %7.0f %5.1f\n", us, bytes / us / 1e3, 100 * bytes / us * 1e6 / kCopyBytesPerSecond);
}

void TimeFew(const char* name, int heads, int kv_heads) {
  std::printf("decode of few rows, %s: rows x keys: us\n ", name);
  for (const auto& [batch, keys] : std::vector<std::pair<int, int>>{{1, 16}, {1, 128}, {1, 256}, {1, 512}, {1, 1024}, {1, 2048}, {1, 8192}, {2, 128}, {4, 128}, {4, 1024}, {8, 128}, {8, 1024}, {8, 2048}}) {
    const double bytes = 4. * batch * keys * kv_heads * 128;
    Step<__nv_bfloat16> step({heads, kv_heads, 128, 16, std::vector<Seq>(batch, Seq{1, keys})}, std::clamp(static_cast<int>(2e8 / bytes), 1, 40), 9216, false);
    std::printf(" %dx%d %.2f", batch, keys, Microseconds([&](int i, cudaStream_t stream) { return Attention(step.Params(i, true), stream); }, 40, 5));
  }
  std::printf("\n");
}

void TimePrefill(const char* name, int heads, int kv_heads, int head_dim) {
  std::printf("prefill %s: tokens, context, us, TFLOP/s, %% of peak\n", name);
  for (const auto& [tokens, context] : std::vector<std::pair<int, int>>{{128, 0}, {512, 0}, {2048, 0}, {8192, 0}, {2048, 6144}, {16, 2032}}) {
    Step<__nv_bfloat16> step({heads, kv_heads, head_dim, 16, {{tokens, tokens + context}}}, 2, 9216, false);
    const double us = Microseconds([&](int i, cudaStream_t stream) { return Attention(step.Params(i, false), stream); }, 4, 5);
    const double flops = 4. * heads * head_dim * (static_cast<double>(tokens) * context + tokens * (tokens + 1.) / 2);
    std::printf("  %5d %5d %8.1f %6.0f %5.1f\n", tokens, context, us, flops / us / 1e6, 100 * flops / us * 1e6 / kPeakFlops);
  }
}

// How much the cache's block size costs.
void TimeBlockSizes() {
  for (const int block_size : {16, 32, 64, 128}) {
    Step<__nv_bfloat16> step({32, 8, 128, block_size, {{8192, 8192}}}, 2, 9216, false);
    const double us = Microseconds([&](int i, cudaStream_t stream) { return Attention(step.Params(i, false), stream); }, 4, 5);
    std::printf("prefill of 8192, blocks of %3d: %8.1f us %6.0f TFLOP/s\n", block_size, us, 4. * 32 * 128 * 8192. * 8193 / 2 / us / 1e6);
  }
}

void TimeMixed() {
  std::printf("mixed, Llama-3.1-8B: rows, a prompt of tokens: us (its parts alone)\n");
  for (const auto& [rows, tokens] : std::vector<std::pair<int, int>>{{127, 1024}, {255, 128}, {255, 512}, {255, 2048}, {32, 512}}) {
    std::vector<Seq> seqs;
    for (int i = 0; i < rows; ++i) seqs.push_back({1, 100 + i * 37 % 900});
    const auto time = [&](const std::vector<Seq>& of) {
      Step<__nv_bfloat16> step({32, 8, 128, 16, of}, 4, 9216, false);
      return Microseconds([&](int i, cudaStream_t stream) { return Attention(step.Params(i, false), stream); });
    };
    const double decode = time(seqs), prefill = time({{tokens, tokens}});
    seqs.push_back({tokens, tokens});
    std::printf("  %3d %4d: %8.1f (%.1f + %.1f)\n", rows, tokens, time(seqs), decode, prefill);
  }
}

}  // namespace
}  // namespace tenon_cuda

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "all";
  if (mode == "tiny") tenon_cuda::CheckFew();
  if (mode == "all" || mode == "check") tenon_cuda::CheckAll();
  if (mode == "all" || mode == "time" || mode == "decode") tenon_cuda::TimeDecode("Llama-3.1-8B", 32, 8);
  if (mode == "mixed") tenon_cuda::TimeMixed();
  if (mode == "few") {
    tenon_cuda::TimeFew("Llama-3.1-8B", 32, 8);
    tenon_cuda::TimeFew("Qwen3-0.6B", 16, 8);
  }
  if (mode == "prefill" || mode == "all") tenon_cuda::TimeBlockSizes();
  if (mode == "all" || mode == "time") {
    tenon_cuda::TimeDecode("Qwen3-0.6B", 16, 8);
    tenon_cuda::TimePrefill("Llama-3.1-8B", 32, 8, 128);
    tenon_cuda::TimePrefill("Qwen3-0.6B", 16, 8, 128);
    tenon_cuda::TimePrefill("head_dim 64", 32, 8, 64);
    tenon_cuda::TimeMixed();
  }
  return tenon_cuda::failures == 0 ? 0 : 1;
}
