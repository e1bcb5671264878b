// The encoded plan (core's src/backend/plan.ts): parsing, and every check that needs no step. What Plan::Parse accepts
// can be executed without reading or writing out of bounds, given steps that StepView::Parse accepts.
#pragma once

#include <array>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tenon/schema.gen.h"
#include "tenon/status.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

struct PlanLimits {
  int32_t max_tokens, max_seqs, max_logit_rows, max_model_len, block_size, num_blocks, vocab_size;
};

struct PlanTensor {
  TensorKind kind;
  Dtype dtype;
  int32_t rank;
  std::array<int32_t, 3> dims;  // ≥ 0, or -1 - SymbolicDim
  int64_t argument;             // weight number, step input number, or offset in the workspace

  bool symbolic_rows() const { return dims[0] < 0; }
  // Elements of one row: of all dimensions but the first.
  int64_t row_elements() const { return int64_t{dims[1]} * dims[2]; }
};

struct PlanKvLayer {
  int32_t num_kv_heads, head_dim;
  Dtype dtype;
};

struct PlanSegment {
  int32_t first_op, num_ops, tile;  // tile 0: run once, whole
};

inline constexpr int kMaxOpInputs = 6;
inline constexpr int kMaxOpOutputs = 2;

struct PlanOp {
  OpId id;
  std::array<int32_t, kMaxOpInputs> inputs;  // tensor numbers; -1: absent
  std::array<int32_t, kMaxOpOutputs> outputs;
  std::array<int32_t, kMaxOpAttrs> attr_words;

  // The attributes as the generated struct of this op.
  template <typename Attrs>
  const Attrs& attrs() const {
    static_assert(sizeof(Attrs) <= sizeof(attr_words) && alignof(Attrs) <= alignof(int32_t));
    return *reinterpret_cast<const Attrs*>(attr_words.data());
  }
  const char* name() const { return kOps[static_cast<int32_t>(id)].name; }
};

struct Plan {
  int32_t num_weights = 0;
  int64_t arena_bytes = 0;
  PlanLimits limits{};
  std::vector<PlanTensor> tensors;
  std::vector<PlanKvLayer> kv_layers;
  std::vector<PlanSegment> segments;
  std::vector<PlanOp> ops;

  // Reads the words; backend.load-failed where they are no plan of this version. Operand shapes are checked by the
  // executor, which knows what each op reads.
  static Status Parse(const int32_t* words, size_t num_words, Plan* plan);
};

// Walks the words with bounds checks; after the first failure every read gives 0 and ok() is false.
class PlanReader {
 public:
  PlanReader(const int32_t* words, size_t size) : words_(words), size_(size) {}
  bool ok() const { return ok_; }
  bool at_end() const { return position_ == size_; }
  size_t left() const { return size_ - position_; }
  int32_t Next() {
    if (position_ >= size_) {
      ok_ = false;
      return 0;
    }
    return words_[position_++];
  }
  int64_t NextWide() {
    const auto low = static_cast<uint32_t>(Next());
    return static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(Next())) << 32 | low);
  }
  // A count of entries that take `words_each` words or more: no allocation follows a count that cannot be true.
  bool CountFits(int32_t count, int32_t words_each) {
    ok_ = ok_ && count >= 0 && static_cast<size_t>(count) <= left() / static_cast<size_t>(words_each);
    return ok_;
  }

 private:
  const int32_t* words_;
  size_t size_;
  size_t position_ = 0;
  bool ok_ = true;
};

namespace plan_internal {

[[gnu::format(printf, 1, 2)]] inline Status Bad(const char* format, ...) {
  va_list args;
  va_start(args, format);
  Status status = Status::ErrorV(StatusCode::kLoadFailed, format, args);
  va_end(args);
  return status;
}

inline Status CheckLimits(const PlanLimits& limits) {
  if (limits.max_tokens < 1 || limits.max_seqs < 1 || limits.max_logit_rows < 1 || limits.max_model_len < 1 ||
      limits.vocab_size < 1)
    return Bad("the plan's limits must be 1 or more");
  if (limits.block_size < 1 || limits.num_blocks < 0 ||
      int64_t{limits.block_size} * limits.num_blocks > INT32_MAX)
    return Bad("the plan has %d KV blocks of %d tokens; slot numbers must fit 31 bits", limits.num_blocks,
               limits.block_size);
  return Status::Ok();
}

inline constexpr int64_t kMaxOutputElements = int64_t{1} << 40;

inline int64_t MaxRows(const PlanTensor& tensor, const PlanLimits& limits) {
  switch (tensor.dims[0]) {
    case -1 - static_cast<int32_t>(SymbolicDim::kT): return limits.max_tokens;
    case -1 - static_cast<int32_t>(SymbolicDim::kS): return limits.max_seqs;
    case -1 - static_cast<int32_t>(SymbolicDim::kL): return limits.max_logit_rows;
    default: return tensor.dims[0];
  }
}

inline Status ParseTensor(PlanReader& reader, const Plan& plan, int32_t index, PlanTensor* tensor) {
  const int32_t kind = reader.Next(), dtype = reader.Next();
  tensor->rank = reader.Next();
  for (int32_t& dim : tensor->dims) dim = reader.Next();
  tensor->argument = reader.NextWide();
  reader.Next();
  if (!reader.ok()) return Bad("the plan ends within tensor %d", index);
  if (kind < 0 || kind > static_cast<int32_t>(TensorKind::kOutput)) return Bad("tensor %d: unknown kind %d", index, kind);
  if (dtype < 0 || dtype > static_cast<int32_t>(Dtype::kState)) return Bad("tensor %d: unknown dtype %d", index, dtype);
  tensor->kind = static_cast<TensorKind>(kind);
  tensor->dtype = static_cast<Dtype>(dtype);
  if (tensor->rank < 0 || tensor->rank > 3) return Bad("tensor %d: rank %d; 0 to 3 are possible", index, tensor->rank);
  if (tensor->dims[0] < -1 - static_cast<int32_t>(SymbolicDim::kL) || tensor->dims[1] < 0 || tensor->dims[2] < 0)
    return Bad("tensor %d: only the first dimension may be symbolic", index);
  if (tensor->row_elements() > INT32_MAX) return Bad("tensor %d: rows are too long", index);
  if (tensor->kind == TensorKind::kOutput && tensor->row_elements() > 0 &&
      MaxRows(*tensor, plan.limits) > kMaxOutputElements / tensor->row_elements())
    return Bad("tensor %d: an output of too many elements", index);
  if (tensor->kind == TensorKind::kBuffer && (tensor->argument < 0 || tensor->argument > plan.arena_bytes))
    return Bad("tensor %d: at byte %lld of a workspace of %lld", index, static_cast<long long>(tensor->argument),
               static_cast<long long>(plan.arena_bytes));
  if (tensor->kind == TensorKind::kWeight && (tensor->argument < 0 || tensor->argument >= plan.num_weights))
    return Bad("tensor %d: weight %lld of %d", index, static_cast<long long>(tensor->argument), plan.num_weights);
  if (tensor->kind == TensorKind::kInput &&
      (tensor->argument < 0 || tensor->argument > static_cast<int32_t>(StepInput::kLogitRows)))
    return Bad("tensor %d: unknown step input %lld", index, static_cast<long long>(tensor->argument));
  return Status::Ok();
}

inline Status ParseKvLayer(PlanReader& reader, int32_t index, PlanKvLayer* layer) {
  layer->num_kv_heads = reader.Next();
  layer->head_dim = reader.Next();
  const int32_t dtype = reader.Next();
  if (layer->num_kv_heads < 1 || layer->head_dim < 1 || int64_t{layer->num_kv_heads} * layer->head_dim > INT32_MAX)
    return Bad("KV layer %d: %d heads of %d", index, layer->num_kv_heads, layer->head_dim);
  if (dtype < 0 || dtype >= static_cast<int32_t>(Dtype::kI32)) return Bad("KV layer %d: dtype %d", index, dtype);
  layer->dtype = static_cast<Dtype>(dtype);
  return Status::Ok();
}

inline Status ParseOp(PlanReader& reader, const Plan& plan, int32_t index, PlanOp* op) {
  const int32_t id = reader.Next(), version = reader.Next();
  const int32_t num_inputs = reader.Next(), num_outputs = reader.Next(), num_attrs = reader.Next();
  if (!reader.ok()) return Bad("the plan ends within op %d", index);
  if (id < 0 || id >= kNumOps)
    return Status::Error(StatusCode::kUnsupportedOp, "op %d of the plan has number %d; this SDK knows %d ops", index, id,
                         kNumOps);
  const OpInfo& info = kOps[id];
  op->id = static_cast<OpId>(id);
  if (version != info.version)
    return Status::Error(StatusCode::kUnsupportedOp, "op %d is %s@%d; this SDK has %s@%d", index, info.name, version,
                         info.name, info.version);
  if (num_inputs != info.num_inputs || num_outputs != info.num_outputs || num_attrs != info.num_attrs)
    return Bad("op %d (%s) has %d inputs, %d outputs, %d attributes; expected %d, %d, %d", index, info.name, num_inputs,
               num_outputs, num_attrs, info.num_inputs, info.num_outputs, info.num_attrs);
  op->inputs.fill(-1);
  op->outputs.fill(-1);
  op->attr_words.fill(0);
  const auto num_tensors = static_cast<int32_t>(plan.tensors.size());
  for (int32_t i = 0; i < num_inputs; ++i) {
    op->inputs[i] = reader.Next();
    const bool required = (info.required_inputs >> i & 1) != 0;
    if (op->inputs[i] < (required ? 0 : -1) || op->inputs[i] >= num_tensors)
      return Bad("op %d (%s): input %d is tensor %d of %d", index, info.name, i, op->inputs[i], num_tensors);
  }
  for (int32_t i = 0; i < num_outputs; ++i) {
    op->outputs[i] = reader.Next();
    if (op->outputs[i] < 0 || op->outputs[i] >= num_tensors)
      return Bad("op %d (%s): output %d is tensor %d of %d", index, info.name, i, op->outputs[i], num_tensors);
  }
  for (int32_t i = 0; i < num_attrs; ++i) op->attr_words[i] = reader.Next();
  if (!reader.ok()) return Bad("the plan ends within op %d (%s)", index, info.name);
  return Status::Ok();
}

inline Status ParseSegment(PlanReader& reader, int32_t num_ops, int32_t index, PlanSegment* segment) {
  segment->first_op = reader.Next();
  segment->num_ops = reader.Next();
  segment->tile = reader.Next();
  if (segment->first_op < 0 || segment->num_ops < 0 || int64_t{segment->first_op} + segment->num_ops > num_ops)
    return Bad("segment %d: ops %d + %d of %d", index, segment->first_op, segment->num_ops, num_ops);
  if (segment->tile < 0) return Bad("segment %d: tile %d", index, segment->tile);
  return Status::Ok();
}

}  // namespace plan_internal

inline Status Plan::Parse(const int32_t* words, size_t num_words, Plan* plan) {
  using namespace plan_internal;
  static_assert(sizeof(QkvRopeKvWriteAttrs) <= kMaxOpAttrs * sizeof(int32_t));
  *plan = Plan();
  PlanReader reader(words, num_words);
  if (const int32_t magic = reader.Next(); magic != kPlanMagic) return Bad("not a plan: magic 0x%x", magic);
  if (const int32_t version = reader.Next(); version != kPlanVersion)
    return Bad("the plan has version %d; this backend reads version %d: install matching versions of @tenon/core and the "
               "backend", version, kPlanVersion);
  plan->num_weights = reader.Next();
  const int32_t num_tensors = reader.Next(), num_ops = reader.Next(), num_segments = reader.Next(),
                num_kv_layers = reader.Next();
  plan->arena_bytes = reader.NextWide();
  PlanLimits& limits = plan->limits;
  for (int32_t* limit : {&limits.max_tokens, &limits.max_seqs, &limits.max_logit_rows, &limits.max_model_len,
                         &limits.block_size, &limits.num_blocks, &limits.vocab_size})
    *limit = reader.Next();
  for (int reserved = 0; reserved < 4; ++reserved) reader.Next();
  if (!reader.ok() || plan->num_weights < 0 || plan->arena_bytes < 0) return Bad("the plan's header is cut off or bad");
  TENON_RETURN_IF_ERROR(CheckLimits(limits));

  if (!reader.CountFits(num_tensors, kPlanTensorWords)) return Bad("the plan cannot hold %d tensors", num_tensors);
  plan->tensors.resize(static_cast<size_t>(num_tensors));
  for (int32_t i = 0; i < num_tensors; ++i) TENON_RETURN_IF_ERROR(ParseTensor(reader, *plan, i, &plan->tensors[i]));
  if (!reader.CountFits(num_kv_layers, 3)) return Bad("the plan cannot hold %d KV layers", num_kv_layers);
  plan->kv_layers.resize(static_cast<size_t>(num_kv_layers));
  for (int32_t i = 0; i < num_kv_layers; ++i) TENON_RETURN_IF_ERROR(ParseKvLayer(reader, i, &plan->kv_layers[i]));
  if (!reader.CountFits(num_segments, 3)) return Bad("the plan cannot hold %d segments", num_segments);
  plan->segments.resize(static_cast<size_t>(num_segments));
  for (int32_t i = 0; i < num_segments; ++i)
    TENON_RETURN_IF_ERROR(ParseSegment(reader, num_ops, i, &plan->segments[i]));
  if (!reader.CountFits(num_ops, 5)) return Bad("the plan cannot hold %d ops", num_ops);
  plan->ops.resize(static_cast<size_t>(num_ops));
  for (int32_t i = 0; i < num_ops; ++i) TENON_RETURN_IF_ERROR(ParseOp(reader, *plan, i, &plan->ops[i]));
  if (!reader.at_end()) return Bad("the plan has %zu words too many", reader.left());
  return Status::Ok();
}

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
