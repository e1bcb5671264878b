// What sdk_test and the fuzzers of plans and steps share: a plan with every op, a step for it, and a session that reads and
// writes all the memory its ops are given, so that the address sanitizer sees what any plan or step may reach.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tenon/executor.h"

namespace tenon {
constexpr int32_t kVocab = 20, kHidden = 8, kHeads = 2, kHeadDim = 4;
constexpr int32_t kMaxTokens = 12, kMaxSeqs = 3, kMaxRows = 5, kMaxLen = 32, kBlockSize = 4, kNumBlocks = 9, kTile = 2;

inline int32_t Dim(SymbolicDim dim) { return -1 - static_cast<int32_t>(dim); }
inline const int32_t T = Dim(SymbolicDim::kT), L = Dim(SymbolicDim::kL);

// Writes the words that core's encodePlan writes.
class PlanWriter {
 public:
  int32_t Tensor(TensorKind kind, Dtype dtype, std::vector<int32_t> dims, int32_t argument = 0) {
    const auto rank = static_cast<int32_t>(dims.size());
    dims.resize(3, 1);
    Append(tensors_, {static_cast<int32_t>(kind), static_cast<int32_t>(dtype), rank, dims[0], dims[1], dims[2], argument, 0, 0});
    return num_tensors_++;
  }
  int32_t Buffer(int32_t rows, int32_t columns) {
    const int32_t offset = arena_bytes;
    arena_bytes += (rows == T ? kMaxTokens : kTile) * columns * 4;
    return Tensor(TensorKind::kBuffer, Dtype::kF32, {rows, columns}, offset);
  }
  void Op(OpId id, const std::vector<int32_t>& inputs, const std::vector<int32_t>& outputs,
          const std::vector<int32_t>& attrs = {}) {
    const OpInfo& info = kOps[static_cast<int32_t>(id)];
    Append(ops_, {static_cast<int32_t>(id), info.version, static_cast<int32_t>(inputs.size()),
                  static_cast<int32_t>(outputs.size()), static_cast<int32_t>(attrs.size())});
    for (const auto& list : {inputs, outputs, attrs}) ops_.insert(ops_.end(), list.begin(), list.end());
    num_ops_++;
  }
  void Segment(int32_t first, int32_t count, int32_t tile) {
    Append(segments_, {first, count, tile});
    num_segments_++;
  }
  std::vector<int32_t> Words(int32_t num_weights, int32_t num_kv_layers) const {
    std::vector<int32_t> words = {kPlanMagic, kPlanVersion, num_weights, num_tensors_, num_ops_, num_segments_,
                                  num_kv_layers, arena_bytes, 0, kMaxTokens, kMaxSeqs, kMaxRows, kMaxLen, kBlockSize,
                                  kNumBlocks, kVocab, 0, 0, 0, 0};
    words.insert(words.end(), tensors_.begin(), tensors_.end());
    for (int32_t i = 0; i < num_kv_layers; ++i) Append(words, {kHeads, kHeadDim, 0});
    words.insert(words.end(), segments_.begin(), segments_.end());
    words.insert(words.end(), ops_.begin(), ops_.end());
    return words;
  }

  int32_t arena_bytes = 0;

 private:
  static void Append(std::vector<int32_t>& to, std::initializer_list<int32_t> words) { to.insert(to.end(), words); }
  std::vector<int32_t> tensors_, ops_, segments_;
  int32_t num_tensors_ = 0, num_ops_ = 0, num_segments_ = 0;
};

inline WeightRequest Weight(const char* name, std::vector<int64_t> shape, WeightUse use) {
  WeightRequest weight;
  weight.name = name;
  weight.shape = std::move(shape);
  weight.uses = UseBit(use);
  return weight;
}

struct TestPlan {
  std::vector<int32_t> words;
  std::vector<WeightRequest> weights;
};

// Every op once: a layer of a model, fused and unfused, and a head in tiles. The embedding is an output too.
inline TestPlan MakePlan() {
  const int32_t width = kHeads * kHeadDim;
  TestPlan plan;
  PlanWriter w;
  auto weight = [&](const char* name, std::vector<int32_t> dims, WeightUse use) {
    plan.weights.push_back(Weight(name, {dims.begin(), dims.end()}, use));
    return w.Tensor(TensorKind::kWeight, Dtype::kF32, dims, static_cast<int32_t>(plan.weights.size()) - 1);
  };
  auto input = [&](StepInput which, int32_t dim) {
    return w.Tensor(TensorKind::kInput, Dtype::kI32, {dim}, static_cast<int32_t>(which));
  };
  const int32_t eps = std::bit_cast<int32_t>(1e-5f), one = std::bit_cast<int32_t>(1.0f);
  const int32_t kv = w.Tensor(TensorKind::kState, Dtype::kState, {});
  const int32_t slots = input(StepInput::kSlotMapping, T);
  const int32_t norm = weight("norm", {kHidden}, WeightUse::kVector);

  const int32_t x = w.Tensor(TensorKind::kOutput, Dtype::kF32, {T, kHidden});
  w.Op(OpId::kEmbedding, {input(StepInput::kTokenIds, T), weight("embed", {kVocab, kHidden}, WeightUse::kEmbedding)}, {x});
  const int32_t normed = w.Buffer(T, kHidden);
  w.Op(OpId::kRmsNorm, {x, norm}, {normed}, {kHidden, eps});
  const int32_t cos_sin = w.Buffer(T, kHeadDim);
  w.Op(OpId::kRopeCosSin, {input(StepInput::kPositions, T), weight("freq", {kHeadDim / 2}, WeightUse::kVector)}, {cos_sin},
       {kHeadDim, one, 0, one, one, 0});
  const int32_t qkv = w.Buffer(T, 3 * width);
  w.Op(OpId::kLinear, {normed, weight("qkv", {3 * width, kHidden}, WeightUse::kLinear),
                       weight("bias", {3 * width}, WeightUse::kVector)}, {qkv});
  const int32_t q = w.Buffer(T, width), rotated = w.Buffer(T, width), attended = w.Buffer(T, width);
  w.Op(OpId::kQkvRopeKvWrite, {qkv, cos_sin, -1, -1, slots, kv}, {q, kv},
       {0, kHeads, kHeads, kHeadDim, kHeadDim, 0, eps});
  w.Op(OpId::kRope, {q, cos_sin}, {rotated}, {kHeads, kHeadDim, kHeadDim, 0});
  w.Op(OpId::kKvWrite, {rotated, q, slots, kv}, {kv}, {0, kHeads, kHeadDim});
  w.Op(OpId::kAttention, {rotated, kv}, {attended}, {0, kHeads, kHeads, kHeadDim, one, 0, 0});
  const int32_t residual = w.Buffer(T, kHidden), inner = w.Buffer(T, 6), gated = w.Buffer(T, 6), sum = w.Buffer(T, kHidden);
  w.Op(OpId::kLinearAdd, {attended, weight("out", {kHidden, width}, WeightUse::kLinear), x, -1}, {residual});
  w.Op(OpId::kLinearGated, {residual, weight("gate", {12, kHidden}, WeightUse::kLinearGated), -1}, {inner}, {0});
  w.Op(OpId::kGatedAct, {inner, inner}, {gated}, {1});
  w.Op(OpId::kAdd, {residual, normed}, {sum});
  const int32_t num_layer_ops = 12;
  const int32_t rows = w.Buffer(L, kHidden), logits = w.Buffer(L, kVocab);
  w.Op(OpId::kGatherRows, {sum, input(StepInput::kLogitRows, L)}, {rows});
  w.Op(OpId::kLinear, {rows, weight("head", {kVocab, kHidden}, WeightUse::kLinear), -1}, {logits});
  w.Op(OpId::kSample, {logits}, {w.Tensor(TensorKind::kOutput, Dtype::kI32, {L})});
  w.Segment(0, num_layer_ops, 0);
  w.Segment(num_layer_ops, 3, kTile);
  plan.words = w.Words(static_cast<int32_t>(plan.weights.size()), 1);
  return plan;
}

// Reads `bytes` and writes `bytes` somewhere, so that the sanitizer sees both.
inline thread_local uint64_t sink = 0;
inline void ReadAll(const void* data, int64_t bytes) {
  for (int64_t i = 0; i < bytes; ++i) sink += static_cast<const uint8_t*>(data)[i];
}
inline void WriteAll(void* data, int64_t bytes, int value = 0) {
  if (bytes > 0) std::memset(data, value, static_cast<size_t>(bytes));
}
inline int64_t Bytes(Dtype dtype) { return kDtypeBytes[static_cast<int32_t>(dtype)]; }

class HeapPool final : public MemoryPool {
 public:
  Status Allocate(Arena, size_t bytes, void** data) override {
    blocks_.push_back(std::make_unique<uint8_t[]>(bytes));
    *data = blocks_.back().get();
    return Status::Ok();
  }
  void Free(void* data) override {
    std::erase_if(blocks_, [&](const auto& block) { return block.get() == data; });
  }
  size_t UsedBytes(Arena) const override { return 0; }
  std::optional<size_t> FreeBytes() const override { return free_bytes; }
  std::optional<size_t> free_bytes;

 private:
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
};

class TouchingSession final : public Session, public Gemm, public Attention, public Ops {
 public:
  explicit TouchingSession(const Plan& plan) : plan_(plan) {}

  std::vector<std::string> calls;

  Status LoadWeights(const std::vector<WeightRequest>& requests, const ProgressFn&,
                     std::vector<const void*>* handles) override {
    for (const WeightRequest& request : requests) {
      int64_t size = 1;
      for (int64_t dim : request.shape) size *= dim;
      weights_.push_back(std::vector<float>(static_cast<size_t>(size), 0.5f));
      handles->push_back(weights_.back().data());
    }
    return Status::Ok();
  }
  Status CreateKvCache(std::vector<KvHandle>* handles) override {
    for (const PlanKvLayer& layer : plan_.kv_layers) {
      const int64_t size = int64_t{layer.num_kv_heads} * layer.head_dim * plan_.limits.num_blocks * plan_.limits.block_size;
      caches_.push_back(std::vector<float>(static_cast<size_t>(size)));
      handles->push_back(&caches_.back());
    }
    return Status::Ok();
  }
  HeapPool& memory() override { return pool_; }
  Gemm& gemm() override { return *this; }
  Attention& attention() override { return *this; }
  Ops& ops() override { return *this; }
  Status BeginStep(const StepView& host_step, const ResultView& host_result, StepView* step, ResultView* result) override {
    *step = host_step;
    *result = host_result;
    return Status::Ok();
  }
  Status EndStep() override { return Status::Ok(); }

  Status Linear(const LinearParams& p, Stream) override {
    ReadAll(p.x, p.rows * p.k * Bytes(p.x_dtype));
    ReadAll(p.weight, p.n * p.k * 4);
    if (p.bias != nullptr) ReadAll(p.bias, p.n * 4);
    if (p.residual != nullptr) ReadAll(p.residual, p.rows * p.n * Bytes(p.residual_dtype));
    WriteAll(p.y, p.rows * p.n * Bytes(p.y_dtype));
    return Called("linear", p.rows);
  }
  Status LinearGated(const GatedLinearParams& p, Stream) override {
    ReadAll(p.x, p.rows * p.k * Bytes(p.x_dtype));
    ReadAll(p.weight, 2 * p.intermediate * p.k * 4);
    WriteAll(p.y, p.rows * p.intermediate * Bytes(p.y_dtype));
    return Called("linear_gated", p.rows);
  }
  Status Run(const AttentionOpParams& p, Stream) override {
    const StepView& step = *p.step;
    const auto& cache = *static_cast<const std::vector<float>*>(p.kv);
    const int64_t row = int64_t{p.attrs->num_heads} * p.attrs->head_dim;
    const int64_t token_floats = int64_t{p.attrs->num_kv_heads} * p.attrs->head_dim;
    for (int32_t s = 0; s < step.num_seqs; ++s) {
      const int32_t* cu = step.Ints(StepRegion::kCuSeqlensQ) + s;
      ReadAll(static_cast<const uint8_t*>(p.q) + cu[0] * row * Bytes(p.q_dtype), (cu[1] - cu[0]) * row * Bytes(p.q_dtype));
      WriteAll(static_cast<uint8_t*>(p.y) + cu[0] * row * Bytes(p.y_dtype), (cu[1] - cu[0]) * row * Bytes(p.y_dtype));
      for (int32_t t = 0; t < step.Ints(StepRegion::kSeqLens)[s]; ++t) {
        const int64_t slot = int64_t{step.block_table(s)[t / plan_.limits.block_size]} * plan_.limits.block_size +
                             t % plan_.limits.block_size;
        ReadAll(cache.data() + slot * token_floats, token_floats * 4);
      }
    }
    return Called("attention", step.num_tokens);
  }
  Status Embedding(const EmbeddingOpParams& p, Stream) override {
    for (int64_t i = 0; i < p.rows; ++i)
      ReadAll(static_cast<const float*>(p.weight) + std::max(0, p.token_ids[i]) * p.hidden, p.hidden * 4);
    WriteAll(p.y, p.rows * p.hidden * Bytes(p.y_dtype), 1);
    return Called("embedding", p.rows);
  }
  Status RmsNorm(const RmsNormOpParams& p, Stream) override {
    ReadAll(p.weight, p.size * 4);
    ReadAll(p.x, p.rows * p.size * Bytes(p.x_dtype));
    WriteAll(p.y, p.rows * p.size * Bytes(p.y_dtype));
    return Called("rms_norm", p.rows);
  }
  Status RopeCosSin(const RopeCosSinOpParams& p, Stream) override {
    ReadAll(p.positions, p.rows * 4);
    ReadAll(p.inv_freq, p.attrs->rotary_dim / 2 * 4);
    WriteAll(p.y, p.rows * p.attrs->rotary_dim * 4);
    return Called("rope_cos_sin", p.rows);
  }
  Status Rope(const RopeOpParams& p, Stream) override {
    const int64_t row = int64_t{p.attrs->num_heads} * p.attrs->head_dim;
    ReadAll(p.x, p.rows * row * Bytes(p.x_dtype));
    ReadAll(p.cos_sin, p.rows * p.attrs->rotary_dim * 4);
    WriteAll(p.y, p.rows * row * Bytes(p.y_dtype));
    return Called("rope", p.rows);
  }
  Status KvWrite(const KvWriteOpParams& p, Stream) override {
    const int64_t row = int64_t{p.attrs->num_kv_heads} * p.attrs->head_dim;
    ReadAll(p.k, p.rows * row * Bytes(p.k_dtype));
    ReadAll(p.v, p.rows * row * Bytes(p.v_dtype));
    WriteCache(p.kv, p.slot_mapping, p.rows, row);
    return Called("kv_write", p.rows);
  }
  Status QkvRopeKvWrite(const QkvRopeKvWriteOpParams& p, Stream) override {
    const int64_t kv_row = int64_t{p.attrs->num_kv_heads} * p.attrs->head_dim;
    const int64_t q_row = int64_t{p.attrs->num_heads} * p.attrs->head_dim;
    ReadAll(p.qkv, p.rows * (q_row + 2 * kv_row) * Bytes(p.qkv_dtype));
    ReadAll(p.cos_sin, p.rows * p.attrs->rotary_dim * 4);
    for (const float* norm : {p.q_norm, p.k_norm})
      if (norm != nullptr) ReadAll(norm, p.attrs->head_dim * 4);
    WriteAll(p.q, p.rows * q_row * Bytes(p.q_dtype));
    WriteCache(p.kv, p.slot_mapping, p.rows, kv_row);
    return Called("qkv_rope_kv_write", p.rows);
  }
  Status Add(const AddOpParams& p, Stream) override {
    ReadAll(p.a, p.elements * Bytes(p.a_dtype));
    ReadAll(p.b, p.elements * Bytes(p.b_dtype));
    WriteAll(p.y, p.elements * Bytes(p.y_dtype));
    return Called("add", p.elements);
  }
  Status GatedAct(const GatedActOpParams& p, Stream) override {
    ReadAll(p.gate, p.elements * Bytes(p.gate_dtype));
    ReadAll(p.up, p.elements * Bytes(p.up_dtype));
    WriteAll(p.y, p.elements * Bytes(p.y_dtype));
    return Called("gated_act", p.elements);
  }
  Status GatherRows(const GatherRowsOpParams& p, Stream) override {
    for (int64_t i = 0; i < p.num_rows; ++i)
      ReadAll(static_cast<const uint8_t*>(p.x) + p.rows[i] * p.row_bytes, p.row_bytes);
    WriteAll(p.y, p.num_rows * p.row_bytes);
    return Called("gather_rows", p.num_rows);
  }
  Status Sample(const SampleOpParams& p, Stream) override {
    ReadAll(p.logits, p.num_rows * p.vocab * Bytes(p.logits_dtype));
    ReadRowRegions(*p.step, p.first_row, p.num_rows);
    for (int64_t i = 0; i < p.num_rows; ++i) p.result->tokens[p.first_row + i] = static_cast<int32_t>(p.first_row + i);
    const int64_t k = p.step->max_top_logprobs;
    WriteAll(p.result->top_ids + p.first_row * k, p.num_rows * k * 4);
    WriteAll(p.result->top_logprobs + p.first_row * k, p.num_rows * k * 4);
    return Called("sample " + std::to_string(p.first_row), p.num_rows);
  }

 private:
  Status Called(const std::string& name, int64_t rows) {
    calls.push_back(name + " " + std::to_string(rows));
    return Status::Ok();
  }
  static void WriteCache(KvHandle kv, const int32_t* slots, int64_t rows, int64_t row) {
    auto& cache = *const_cast<std::vector<float>*>(static_cast<const std::vector<float>*>(kv));
    for (int64_t i = 0; i < rows; ++i)
      if (slots[i] >= 0) WriteAll(cache.data() + slots[i] * row, row * 4);
  }
  static void ReadRowRegions(const StepView& step, int64_t first, int64_t rows) {
    using R = StepRegion;
    for (R region : {R::kRowSeqs, R::kRowModes, R::kTargets, R::kNumLogprobs, R::kSeedLow, R::kTemperature,
                     R::kRepetitionPenalty})
      if (rows > 0) ReadAll(step.Ints(region) + first, rows * 4);
    for (const auto& [offsets, values] : {std::pair{R::kSuppressOffsets, R::kSuppressTokens},
                                         std::pair{R::kAllowedOffsets, R::kAllowedTokens},
                                         std::pair{R::kBiasOffsets, R::kBiasValues},
                                         std::pair{R::kBadWordsOffsets, R::kBadWords}}) {
      const int32_t* begin = step.Ints(offsets);
      if (begin == nullptr) continue;
      for (int64_t row = first; row < first + rows; ++row)
        if (begin[row + 1] > begin[row]) ReadAll(step.Ints(values) + begin[row], (begin[row + 1] - begin[row]) * 4);
    }
  }

  const Plan& plan_;
  HeapPool pool_;
  std::vector<std::vector<float>> weights_;
  std::deque<std::vector<float>> caches_;
};

class TestGroup final : public DeviceGroup {
 public:
  TouchingSession* session = nullptr;
  SchedulingConstraints Constraints() const override { return {}; }
  int64_t KvBlockBytes(const PlanKvLayer&, int) const override { return 0; }
  OpAnswer Negotiate(const OpQuery&) const override { return {}; }
  bool BatchInvariant() const override { return true; }
  Collective& collective() override { return collective_; }
  Status CreateSession(const Plan& plan, std::unique_ptr<Session>* out) override {
    // A mutated plan may ask for more than a test should take.
    const int64_t num_slots = int64_t{plan.limits.num_blocks} * plan.limits.block_size;
    bool fits = plan.arena_bytes <= 1 << 20 && num_slots <= 4096;
    for (const PlanKvLayer& layer : plan.kv_layers)
      fits = fits && int64_t{layer.num_kv_heads} * layer.head_dim <= 4096;
    if (!fits) return Status::Error(StatusCode::kOutOfMemory, "too large for this test");
    auto made = std::make_unique<TouchingSession>(plan);
    session = made.get();
    *out = std::move(made);
    return Status::Ok();
  }

 private:
  SingleRank collective_;
};

// Two sequences: one of 6 tokens from the start, one of a single token at position 9; three logit rows.
inline std::vector<int32_t> MakeStep(int32_t num_rows = 3) {
  std::vector<std::vector<int32_t>> regions(kNumStepRegions);
  const auto set = [&](StepRegion region, std::vector<int32_t> values) { regions[static_cast<size_t>(region)] = std::move(values); };
  using R = StepRegion;
  set(R::kTokenIds, {1, 2, 3, 4, 5, 6, -1, 0});
  set(R::kPositions, {0, 1, 2, 3, 4, 5, 9, 0});
  set(R::kSlotMapping, {32, 33, 34, 35, 8, 9, 1, -1});
  set(R::kCuSeqlensQ, {0, 6, 7});
  set(R::kSeqLens, {6, 10});
  set(R::kPromptLens, {6, 8});
  set(R::kSeqSlots, {2, 0});
  set(R::kBlockTables, {8, 2, 0, 3, 5, 0});
  set(R::kHistorySeqs, {1});
  set(R::kHistoryOffsets, {0, 2});
  set(R::kHistoryTokens, {3, 19});
  std::vector<int32_t> per_row(static_cast<size_t>(num_rows));
  for (R region : {R::kLogitRows, R::kRowSeqs, R::kTargets, R::kNumLogprobs, R::kSeedLow, R::kSeedHigh, R::kTemperature,
                   R::kTopK, R::kTopP, R::kMinP, R::kPresencePenalty, R::kFrequencyPenalty, R::kRepetitionPenalty})
    set(region, per_row);
  set(R::kRowModes, std::vector<int32_t>(static_cast<size_t>(num_rows), kRowSample | kRowTarget));
  std::vector<int32_t> offsets(static_cast<size_t>(num_rows) + 1, 2);
  offsets[0] = 0;
  set(R::kSuppressOffsets, offsets);
  set(R::kSuppressTokens, {4, 7});
  offsets.assign(offsets.size(), 5);
  offsets[0] = 0;
  set(R::kBadWordsOffsets, offsets);
  set(R::kBadWords, {2, 3, 4, 1, 9});

  std::vector<int32_t> words(static_cast<size_t>(kStepHeaderWords));
  const auto field = [&](StepField name) -> int32_t& { return words[static_cast<size_t>(name)]; };
  for (size_t i = 0; i < regions.size(); ++i) {
    if (regions[i].empty()) continue;
    words[static_cast<size_t>(kStepHeaderFields) + i] = static_cast<int32_t>(words.size());
    words.insert(words.end(), regions[i].begin(), regions[i].end());
  }
  field(StepField::kMagic) = kStepMagic;
  field(StepField::kVersion) = kStepVersion;
  field(StepField::kStepId) = 77;
  field(StepField::kNumTokens) = 8;
  field(StepField::kNumSeqs) = 2;
  field(StepField::kNumLogitRows) = num_rows;
  field(StepField::kBlockTableStride) = 3;
  field(StepField::kMaxTopLogprobs) = 2;
  field(StepField::kNumHistorySeqs) = 1;
  field(StepField::kSizeWords) = static_cast<int32_t>(words.size());
  return words;
}

inline int32_t& WordOf(std::vector<int32_t>& step, StepRegion region, size_t index) {
  return step[static_cast<size_t>(step[static_cast<size_t>(kStepHeaderFields) + static_cast<size_t>(region)]) + index];
}

inline Status Load(const TestPlan& test, TestGroup& group, std::unique_ptr<Executor>* executor) {
  Plan plan;
  TENON_RETURN_IF_ERROR(Plan::Parse(test.words.data(), test.words.size(), &plan));
  TENON_RETURN_IF_ERROR(Executor::Create(std::move(plan), test.weights, group, executor));
  return (*executor)->Load(test.weights, [](uint64_t, uint64_t) {});
}

}  // namespace tenon
