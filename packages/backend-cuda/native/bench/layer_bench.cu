// A whole decode step (all layers, LM head, greedy sample), recorded with the calls that cuda_ops.cpp makes; what it takes beside its kernels alone
// and beside the bytes it reads.
//   nvcc -std=c++20 -O3 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a -I../kernels layer_bench.cu ../kernels/*.cu -o layer_bench
//   layer_bench check                      replays give the bits that the kernels give one by one, with a wait after each
//   layer_bench steps [8b|0.6b] [rows context]…   µs a step, the sum of its kernels alone, the share of 4.25 TB/s
//   layer_bench step …                      the first of these
//   layer_bench kinds 8b|0.6b rows context  for each kind of kernel: µs alone, and what the step takes less without it
#include <cstring>
#include <memory>
#include <string>

#include "bench.cuh"

namespace tenon_cuda {
namespace {

using Bf16 = __nv_bfloat16;

struct Model {
  const char* name;
  int layers, hidden, heads, kv_heads, intermediate, vocab;
  bool head_norms;
};
constexpr int kHeadDim = 128, kBlockSize = 16;
constexpr Model kModels[] = {{"8b", 32, 4096, 32, 8, 14336, 128256, false}, {"0.6b", 28, 1024, 16, 8, 3072, 151936, true}};

enum Kind { kEmbedding, kRopeCosSin, kRmsNorm, kQkv, kRope, kAttention, kO, kGateUp, kDown, kGather, kLmHead, kSample, kNumKinds };
constexpr const char* kNames[kNumKinds] = {"embedding", "rope_cos_sin", "rms_norm", "qkv", "qkv_rope_kv_write", "attention", "o", "gate_up", "down", "gather_rows", "lm_head", "sample"};
constexpr unsigned kAll = (1u << kNumKinds) - 1;

struct Weights {
  explicit Weights(const Model& m) : model(m) {
    const int64_t h = m.hidden, q = static_cast<int64_t>(m.heads) * kHeadDim, all = q + 2 * m.kv_heads * kHeadDim;
    qkv_size = all * h;
    o_size = h * q;
    gate_up_size = 2 * h * m.intermediate;
    down_size = h * m.intermediate;
    layer_size = qkv_size + o_size + gate_up_size + down_size;
    linear = std::make_unique<Device<Bf16>>(static_cast<size_t>(layer_size) * m.layers);
    table = std::make_unique<Device<Bf16>>(static_cast<size_t>(m.vocab) * h);
    norms = std::make_unique<Device<float>>(static_cast<size_t>(2 * m.layers + 1) * h);
    head_norms = std::make_unique<Device<float>>(2 * kHeadDim);
    freq = std::make_unique<Device<float>>(kHeadDim / 2);
    Randomize(*linear, 1, 0.02f);
    Randomize(*table, 2, 0.05f);
    Randomize(*norms, 3);
    Randomize(*head_norms, 4);
    Randomize(*freq, 5);
    Check(cudaDeviceSynchronize(), "weights");
  }
  const Bf16* Qkv(int layer) const { return linear->get() + layer * layer_size; }
  const Bf16* O(int layer) const { return Qkv(layer) + qkv_size; }
  const Bf16* GateUp(int layer) const { return O(layer) + o_size; }
  const Bf16* Down(int layer) const { return GateUp(layer) + gate_up_size; }
  double Bytes() const { return 2. * (static_cast<double>(layer_size) * model.layers + static_cast<double>(model.vocab) * model.hidden); }

  Model model;
  int64_t qkv_size, o_size, gate_up_size, down_size, layer_size;
  std::unique_ptr<Device<Bf16>> linear, table;
  std::unique_ptr<Device<float>> norms, head_norms, freq;
};

// `rows` sequences with `context` cached tokens each, and one new one.
class Step {
 public:
  Step(const Weights& weights, int rows, int context)
      : w_(weights), m_(weights.model), rows_(rows), context_(context), blocks_per_seq_((context + 1 + kBlockSize - 1) / kBlockSize) {
    const int num_blocks = rows * blocks_per_seq_;
    std::vector<int32_t> order(num_blocks), cu, positions, lens, slots, seqs;
    for (int i = 0; i < num_blocks; ++i) order[i] = i;
    std::mt19937 random(7);
    std::shuffle(order.begin(), order.end(), random);
    for (int s = 0; s < rows; ++s) {
      cu.push_back(s);
      seqs.push_back(s);
      positions.push_back(context);
      lens.push_back(context + 1);
      slots.push_back(order[s * blocks_per_seq_ + context / kBlockSize] * kBlockSize + context % kBlockSize);
    }
    cu.push_back(rows);
    tokens_ = Ints(Tokens(0));
    tables_ = Ints(order);
    cu_ = Ints(cu);
    positions_ = Ints(positions);
    lens_ = Ints(lens);
    slots_ = Ints(slots);
    seqs_ = Ints(seqs);
    const auto same = [&](int32_t value) { return Ints(std::vector<int32_t>(rows, value)); };
    zeros_ = same(0);
    ones_ = same(0x3f800000);
    minus_ones_ = same(-1);
    modes_ = same(1 | 2);
    last_tokens_ = same(0);
    lengths_ = same(0);
    results_ = Ints(std::vector<int32_t>(static_cast<size_t>(rows) * 3, -7));
    history_ = Ints(std::vector<int32_t>(static_cast<size_t>(rows) * kMaxModelLen, 0));
    const size_t n = static_cast<size_t>(rows), cache = static_cast<size_t>(num_blocks) * kBlockSize * m_.kv_heads * kHeadDim;
    cache_size_ = cache;
    keys_ = std::make_unique<Device<Bf16>>(cache * m_.layers);
    values_ = std::make_unique<Device<Bf16>>(cache * m_.layers);
    Randomize(*keys_, 11);
    Randomize(*values_, 12);
    hidden_ = std::make_unique<Device<float>>(n * m_.hidden);
    gathered_ = std::make_unique<Device<float>>(n * m_.hidden);
    qkv_ = std::make_unique<Device<float>>(n * (m_.heads + 2 * m_.kv_heads) * kHeadDim);
    angles_ = std::make_unique<Device<float>>(n * kHeadDim);
    logits_ = std::make_unique<Device<float>>(n * m_.vocab);
    x_ = std::make_unique<Device<Bf16>>(n * m_.hidden);
    q_ = std::make_unique<Device<Bf16>>(n * m_.heads * kHeadDim);
    y_ = std::make_unique<Device<Bf16>>(n * m_.heads * kHeadDim);
    act_ = std::make_unique<Device<Bf16>>(n * m_.intermediate);
    for (Device<Bf16>* any : {x_.get(), q_.get(), y_.get(), act_.get()}) Randomize(*any, 13);
    for (Device<float>* any : {hidden_.get(), gathered_.get(), qkv_.get(), angles_.get(), logits_.get()}) Randomize(*any, 14);
    scratch_ = std::make_unique<Device<uint8_t>>(AttentionScratchBytes(rows, rows, kMaxModelLen, m_.heads, kHeadDim));
    sample_scratch_ = std::make_unique<Device<uint8_t>>(SampleScratchBytes(rows, m_.vocab));
    Check(cudaDeviceSynchronize(), "step");
  }

  void SetTokens(int seed) { *tokens_ = Tokens(seed); }
  // Whether the host knows that all rows are greedy.
  void SetAllGreedy(bool all_greedy) { all_greedy_ = all_greedy; }

  // The kernels of the kinds in `kinds`; waits: one by one.
  Launch Enqueue(cudaStream_t stream, unsigned kinds = kAll, bool waits = false) const {
    const auto run = [&](Kind kind, const auto& launch) {
      if ((kinds >> kind & 1) == 0) return;
      Check(launch(), kNames[kind]);
      if (waits) Check(cudaStreamSynchronize(stream), kNames[kind]);
    };
    const int64_t h = m_.hidden, rows = rows_;
    const int q = m_.heads * kHeadDim, all = q + 2 * m_.kv_heads * kHeadDim;
    const auto norm = [&](int index, const float* x) {
      run(kRmsNorm, [&] { return RmsNorm({x, w_.norms->get() + index * h, x_->get(), rows, h, 1e-5f, Type::kF32, Type::kBf16}, stream); });
    };
    const auto linear = [&](Kind kind, const void* x, const Bf16* w, void* y, int64_t n, int64_t k, const float* residual, bool gated) {
      run(kind, [&] {
        return Linear({.x = x, .w = w, .residual = residual, .y = y, .rows = rows, .n = n, .k = k, .type = Type::kBf16, .y_type = gated ? Type::kBf16 : Type::kF32, .gated = gated}, stream);
      });
    };
    run(kEmbedding, [&] {
      return Embedding({tokens_->get(), cu_->get(), seqs_->get(), last_tokens_->get(), rows_, w_.table->get(), Type::kBf16, Type::kF32, rows, h, hidden_->get()}, stream);
    });
    run(kRopeCosSin, [&] {
      RopeCosSinParams p{};
      p.positions = positions_->get();
      p.inv_freq = w_.freq->get();
      p.y = angles_->get();
      p.rows = rows;
      p.rotary_dim = kHeadDim;
      p.scale = 1;
      return RopeCosSin(p, stream);
    });
    for (int layer = 0; layer < m_.layers; ++layer) {
      const KvLayer kv{keys_->get() + layer * cache_size_, values_->get() + layer * cache_size_, m_.kv_heads, kHeadDim, kBlockSize, Type::kBf16};
      norm(2 * layer, hidden_->get());
      linear(kQkv, x_->get(), w_.Qkv(layer), qkv_->get(), all, h, nullptr, false);
      run(kRope, [&] {
        const float* head_norms = m_.head_norms ? w_.head_norms->get() : nullptr;
        return QkvRopeKvWrite({qkv_->get(), angles_->get(), head_norms, head_norms == nullptr ? nullptr : head_norms + kHeadDim, slots_->get(), kv, rows, m_.heads,
                               kHeadDim, 0, 1e-6f, q_->get(), Type::kBf16},
                              stream);
      });
      run(kAttention, [&] { return Attention(AttentionOf(kv), stream); });
      linear(kO, y_->get(), w_.O(layer), hidden_->get(), h, q, hidden_->get(), false);
      norm(2 * layer + 1, hidden_->get());
      linear(kGateUp, x_->get(), w_.GateUp(layer), act_->get(), m_.intermediate, h, nullptr, true);
      linear(kDown, act_->get(), w_.Down(layer), hidden_->get(), h, m_.intermediate, hidden_->get(), false);
    }
    run(kGather, [&] { return GatherRows(hidden_->get(), h * 4, seqs_->get(), rows, gathered_->get(), stream); });
    norm(2 * m_.layers, gathered_->get());
    linear(kLmHead, x_->get(), w_.table->get(), logits_->get(), m_.vocab, h, nullptr, false);
    run(kSample, [&] { return Sample(SampleOf(), stream); });
    return cudaSuccess;
  }

  // In microseconds.
  double Time(unsigned kinds = kAll) const {
    return Microseconds([&](int, cudaStream_t stream) { return Enqueue(stream, kinds); }, 1, 7);
  }
  // Bytes that a step cannot do without, of one kind of kernel.
  double Bytes(Kind kind) const {
    const double h = m_.hidden, q = m_.heads * kHeadDim, kv = m_.kv_heads * kHeadDim, r = rows_;
    switch (kind) {
      case kRmsNorm: return (2 * m_.layers + 1) * r * h * 6;
      case kQkv: return m_.layers * (2. * w_.qkv_size + r * (h * 2 + (q + 2 * kv) * 4));
      case kRope: return m_.layers * r * (q + 2 * kv) * 6;
      case kAttention: return m_.layers * r * (4. * (context_ + 1) * kv + 4 * q);
      case kO: return m_.layers * (2. * w_.o_size + r * (q * 2 + h * 8));
      case kGateUp: return m_.layers * (2. * w_.gate_up_size + r * (h * 2 + m_.intermediate * 2));
      case kDown: return m_.layers * (2. * w_.down_size + r * (m_.intermediate * 2 + h * 8));
      case kLmHead: return m_.vocab * (2 * h + r * 4) + r * h * 2;
      case kSample: return r * m_.vocab * 4;
      default: return r * h * 8;
    }
  }
  // What the whole step reads from memory: weights and caches.
  double FloorMicroseconds() const { return (w_.Bytes() + m_.layers * 4. * rows_ * (context_ + 1) * m_.kv_heads * kHeadDim) / kCopyBytesPerSecond * 1e6; }

  std::vector<float> Logits() const { return logits_->Host(); }
  std::vector<int32_t> Results() const { return results_->Host(); }

 private:
  static constexpr int kMaxModelLen = 9216;
  using IntsOf = std::unique_ptr<Device<int32_t>>;

  static IntsOf Ints(const std::vector<int32_t>& values) { return std::make_unique<Device<int32_t>>(values); }
  std::vector<int32_t> Tokens(int seed) const {
    std::vector<int32_t> tokens;
    for (int s = 0; s < rows_; ++s) tokens.push_back((s * 7919 + seed * 104729 + 17) % m_.vocab);
    return tokens;
  }
  AttentionParams AttentionOf(const KvLayer& kv) const {
    return {.q = q_->get(),
            .kv = kv,
            .step = {positions_->get(), cu_->get(), lens_->get(), tables_->get(), rows_, rows_, blocks_per_seq_, kMaxModelLen, 1, rows_, true},
            .num_heads = m_.heads,
            .scale = 0.08838834764f,
            .soft_cap = 0,
            .sliding_window = 0,
            .max_model_len = kMaxModelLen,
            .y = y_->get(),
            .scratch = scratch_->get()};
  }
  SampleParams SampleOf() const {
    const auto floats = [](const IntsOf& ints) { return reinterpret_cast<float*>(ints->get()); };
    SampleStep s{};
    s.positions = positions_->get();
    s.seq_slots = s.logit_rows = s.row_seqs = seqs_->get();
    s.row_modes = modes_->get();
    s.targets = s.num_logprobs = minus_ones_->get();
    s.seed_low = s.seed_high = s.top_k = zeros_->get();
    s.temperature = s.top_p = s.repetition_penalty = floats(ones_);
    s.min_p = s.presence_penalty = s.frequency_penalty = floats(zeros_);
    s.tokens = results_->get();
    s.ranks = results_->get() + rows_;
    s.logprobs = floats(results_) + 2 * rows_;
    s.any_random = s.any_limits = s.any_logprobs = s.any_edits = !all_greedy_;
    return {logits_->get(), m_.vocab, 0, rows_, s, {last_tokens_->get(), history_->get(), lengths_->get(), lengths_->get(), kMaxModelLen}, sample_scratch_->get()};
  }

  const Weights& w_;
  const Model m_;
  const int rows_, context_;
  const int blocks_per_seq_;
  bool all_greedy_ = false;
  size_t cache_size_ = 0;
  IntsOf tokens_, tables_, cu_, positions_, lens_, slots_, seqs_, zeros_, ones_, minus_ones_, modes_, last_tokens_, lengths_, results_, history_;
  std::unique_ptr<Device<Bf16>> keys_, values_, x_, q_, y_, act_;
  std::unique_ptr<Device<float>> hidden_, gathered_, qkv_, angles_, logits_;
  std::unique_ptr<Device<uint8_t>> scratch_, sample_scratch_;
};

// Replays of two steps in turn against the same kernels one by one: what is read too early shows as the other step's bits.
int CheckModel(const Weights& weights, int rows, int context, bool all_greedy) {
  Step step(weights, rows, context);
  step.SetAllGreedy(all_greedy);
  cudaStream_t stream;
  Check(cudaStreamCreate(&stream), "stream");
  std::vector<float> logits[2];
  std::vector<int32_t> results[2];
  for (int seed : {0, 1}) {
    step.SetTokens(seed);
    Check(step.Enqueue(stream, kAll, true), "step");
    logits[seed] = step.Logits();
    results[seed] = step.Results();
  }
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  Check(step.Enqueue(stream), "captured step");
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  Check(cudaStreamEndCapture(stream, &graph), "end of capture");
  Check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  int failed = 0;
  bool differ = false;
  for (int replay = 0; replay < 8; ++replay) {
    const int seed = replay % 2;
    step.SetTokens(seed);
    if (replay < 6) Check(cudaGraphLaunch(executable, stream), "replay");
    else Check(step.Enqueue(stream), "step");
    Check(cudaStreamSynchronize(stream), "replay");
    const std::vector<float> got = step.Logits();
    size_t wrong = 0, first = got.size();
    for (size_t i = 0; i < got.size(); ++i)
      if (std::memcmp(&got[i], &logits[seed][i], 4) != 0 && wrong++ == 0) first = i;
    if (wrong > 0) std::printf("FAILED %s rows %d context %d replay %d: %zu logits differ, first %zu: %g, not %g\n", weights.model.name, rows, context, replay, wrong, first, got[first], logits[seed][first]);
    const bool other_results = step.Results() != results[seed];
    if (other_results) std::printf("FAILED %s rows %d context %d replay %d: results differ\n", weights.model.name, rows, context, replay);
    failed += wrong > 0 || other_results ? 1 : 0;
  }
  for (size_t i = 0; i < logits[0].size(); ++i) differ |= logits[0][i] != logits[1][i];
  if (!differ || !std::isfinite(logits[0][0])) {
    std::printf("FAILED %s: the two steps are no test\n", weights.model.name);
    ++failed;
  }
  // the token is the largest logit
  for (int row = 0; row < rows; ++row) {
    const float* of = &logits[0][static_cast<size_t>(row) * weights.model.vocab];
    const int best = static_cast<int>(std::max_element(of, of + weights.model.vocab) - of);
    if (results[0][row] == best) continue;
    std::printf("FAILED %s rows %d: token %d of row %d, not %d\n", weights.model.name, rows, results[0][row], row, best);
    ++failed;
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  return failed;
}

// alone: the sum of its kernels alone, too.
void TimeStep(const Weights& weights, int rows, int context, bool alone) {
  Step step(weights, rows, context);
  step.SetAllGreedy(true);
  const double all = step.Time(), floor = step.FloorMicroseconds();
  std::printf("%5s %3d rows, context %4d: %8.1f us a step, bytes %8.1f (%.1f %%)", weights.model.name, rows, context, all, floor, 100 * floor / all);
  double sum = 0;
  for (int kind = 0; alone && kind < kNumKinds; ++kind) sum += step.Time(1u << kind);
  if (alone) std::printf(", kernels alone %8.1f", sum);
  std::printf("\n");
}

void TimeKinds(const Weights& weights, int rows, int context) {
  Step step(weights, rows, context);
  step.SetAllGreedy(true);
  const double all = step.Time();
  std::printf("%s rows %d context %d: %.1f us (again: %.1f); us a step of each kind: alone, less without it, floor\n", weights.model.name, rows, context, all, step.Time());
  for (int kind = 0; kind < kNumKinds; ++kind)
    std::printf("  %-18s %8.1f %8.1f %8.1f\n", kNames[kind], step.Time(1u << kind), all - step.Time(kAll & ~(1u << kind)), step.Bytes(static_cast<Kind>(kind)) / kCopyBytesPerSecond * 1e6);
  const unsigned small = 1u << kRmsNorm | 1u << kRope | 1u << kAttention;
  std::printf("  %-18s          %8.1f\n", "without the small", step.Time(kAll & ~small));
}

int Main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "steps";
  int failed = 0;
  for (const Model& model : kModels) {
    const bool named = argc > 2 && model.name == std::string(argv[2]);
    if (argc > 2 && !named) continue;
    const Weights weights(model);
    if (mode == "check") {
      for (const auto& [rows, context] : std::vector<std::pair<int, int>>{{1, 100}, {1, 1030}, {3, 300}, {8, 17}, {33, 129}})
        for (const bool all_greedy : {false, true}) failed += CheckModel(weights, rows, context, all_greedy);
      std::printf("%s: %d failed\n", model.name, failed);
      continue;
    }
    std::vector<std::pair<int, int>> sizes;
    for (int i = 3; i + 1 < argc; i += 2) sizes.push_back({std::atoi(argv[i]), std::atoi(argv[i + 1])});
    if (sizes.empty())
      for (const int rows : {1, 8, 32, 64, 256})
        for (const int context : {128, 1024}) sizes.push_back({rows, context});
    for (const auto& [rows, context] : sizes) {
      if (mode == "kinds") TimeKinds(weights, rows, context);
      else TimeStep(weights, rows, context, mode == "steps");
    }
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace tenon_cuda

int main(int argc, char** argv) { return tenon_cuda::Main(argc, argv); }
