// What each op asks of its operands: ranks, shapes, index ranges, memory bounds. A plan that passes can be executed with
// any step that StepView::Parse accepts without an access out of bounds. Dtypes are left to the backend, except where a
// pointer's type fixes them.
#pragma once

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <vector>

#include "tenon/plan.h"
#include "tenon/status.h"
#include "tenon/weights.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

inline constexpr int32_t kDimT = -1 - static_cast<int32_t>(SymbolicDim::kT);
inline constexpr int32_t kDimL = -1 - static_cast<int32_t>(SymbolicDim::kL);

class PlanChecker {
 public:
  PlanChecker(const Plan& plan, const std::vector<WeightRequest>& weights, int32_t num_ranks)
      : plan_(plan), weights_(weights), num_ranks_(num_ranks) {}

  Status Run() {
    if (weights_.size() != static_cast<size_t>(plan_.num_weights))
      return Status::Error(StatusCode::kLoadFailed, "the plan has %d weights; %zu were given", plan_.num_weights,
                           weights_.size());
    for (const PlanTensor& tensor : plan_.tensors) TENON_RETURN_IF_ERROR(CheckWeightTensor(tensor));
    for (const PlanSegment& segment : plan_.segments) {
      max_logit_rows_ = segment.tile > 0 ? std::min(segment.tile, plan_.limits.max_logit_rows)
                                         : plan_.limits.max_logit_rows;
      for (int32_t i = 0; i < segment.num_ops; ++i) TENON_RETURN_IF_ERROR(CheckOp(segment.first_op + i));
    }
    return Status::Ok();
  }

 private:
  // One tensor among the operands of the op under check.
  struct Operand {
    const PlanTensor* tensor;
    int64_t rows_dim() const { return tensor->dims[0]; }
    int64_t row_elements() const { return tensor->row_elements(); }
  };

  [[gnu::format(printf, 2, 3)]] Status Bad(const char* format, ...) const {
    va_list args;
    va_start(args, format);
    Status status = Status::ErrorV(StatusCode::kLoadFailed, format, args);
    va_end(args);
    return Status::Error(StatusCode::kLoadFailed, "op %d of the plan (%s): %s", op_index_, op_->name(),
                         status.message().c_str());
  }
#define TENON_PLAN_CHECK(condition, ...) \
  do {                                   \
    if (!(condition)) return Bad(__VA_ARGS__); \
  } while (false)

  Status CheckWeightTensor(const PlanTensor& tensor) const {
    if (tensor.kind != TensorKind::kWeight) return Status::Ok();
    const WeightRequest& weight = weights_[static_cast<size_t>(tensor.argument)];
    bool same = weight.dtype == tensor.dtype && weight.shape.size() == static_cast<size_t>(tensor.rank) &&
                (tensor.rank == 1 || tensor.rank == 2);
    for (int32_t i = 0; same && i < tensor.rank; ++i) same = weight.shape[i] == tensor.dims[i] && tensor.dims[i] > 0;
    if (same) return Status::Ok();
    return Status::Error(StatusCode::kLoadFailed, "weight '%s': its shape or dtype is not that of the plan's tensor",
                         weight.name.c_str());
  }

  Status CheckOp(int32_t index) {
    op_index_ = index;
    op_ = &plan_.ops[static_cast<size_t>(index)];
    for (int32_t input : op_->inputs)
      if (input >= 0) TENON_RETURN_IF_ERROR(CheckBounds(plan_.tensors[static_cast<size_t>(input)]));
    for (int32_t output : op_->outputs) {
      if (output < 0) continue;
      const PlanTensor& tensor = plan_.tensors[static_cast<size_t>(output)];
      TENON_PLAN_CHECK(tensor.kind != TensorKind::kWeight && tensor.kind != TensorKind::kInput,
                       "writes to a weight or a step input");
      TENON_RETURN_IF_ERROR(CheckBounds(tensor));
    }
    switch (op_->id) {
      case OpId::kEmbedding: return CheckEmbedding();
      case OpId::kRmsNorm: return CheckRmsNorm();
      case OpId::kLinear: return CheckLinear();
      case OpId::kLinearAdd: return CheckLinearAdd();
      case OpId::kLinearGated: return CheckLinearGated();
      case OpId::kAdd:
      case OpId::kGatedAct: return CheckElementwise();
      case OpId::kRopeCosSin: return CheckRopeCosSin();
      case OpId::kRope: return CheckRope();
      case OpId::kKvWrite: return CheckKvWrite();
      case OpId::kQkvRopeKvWrite: return CheckQkvRopeKvWrite();
      case OpId::kAttention: return CheckAttention();
      case OpId::kGatherRows: return CheckGatherRows();
      case OpId::kSample: return CheckSample();
      case OpId::kAllReduce: return CheckCollective(In(0).row_elements());
      case OpId::kAllGather: return CheckCollective(In(0).row_elements() * num_ranks_, op_->attrs<AllGatherAttrs>().size);
      case OpId::kReduceScatter:
        TENON_PLAN_CHECK(In(0).row_elements() % num_ranks_ == 0, "%d ranks do not divide %lld columns", num_ranks_,
                         static_cast<long long>(In(0).row_elements()));
        return CheckCollective(In(0).row_elements() / num_ranks_, op_->attrs<ReduceScatterAttrs>().size);
    }
    return Bad("no check for this op");
  }

  Status CheckBounds(const PlanTensor& tensor) const {
    if (tensor.kind != TensorKind::kBuffer) return Status::Ok();
    const int64_t rows = tensor.dims[0] == kDimL ? max_logit_rows_ : plan_internal::MaxRows(tensor, plan_.limits);
    const int64_t size = rows * tensor.row_elements() * kDtypeBytes[static_cast<int32_t>(tensor.dtype)];
    TENON_PLAN_CHECK(tensor.argument >= 0 && tensor.argument % 4 == 0 && size <= plan_.arena_bytes - tensor.argument,
                     "a buffer of %lld bytes at %lld does not fit the workspace of %lld", static_cast<long long>(size),
                     static_cast<long long>(tensor.argument), static_cast<long long>(plan_.arena_bytes));
    return Status::Ok();
  }

  bool HasInput(int i) const { return op_->inputs[i] >= 0; }
  Operand In(int i) const { return {&plan_.tensors[static_cast<size_t>(op_->inputs[i])]}; }
  Operand Out(int i) const { return {&plan_.tensors[static_cast<size_t>(op_->outputs[i])]}; }

  // An activation: [rows, …] in memory that an op may read.
  static bool IsData(const Operand& x) {
    return (x.tensor->kind == TensorKind::kBuffer || x.tensor->kind == TensorKind::kOutput) &&
           x.tensor->dtype != Dtype::kState && x.tensor->dtype != Dtype::kI32;
  }
  static bool IsData(const Operand& x, const Operand& like, int64_t row_elements) {
    return IsData(x) && x.rows_dim() == like.rows_dim() && x.row_elements() == row_elements;
  }
  // A step region: values are in range because StepView::Parse has seen them.
  static bool IsInput(const Operand& x, StepInput input, int32_t dim) {
    return x.tensor->kind == TensorKind::kInput && x.tensor->argument == static_cast<int64_t>(input) &&
           x.tensor->dtype == Dtype::kI32 && x.rows_dim() == dim && x.row_elements() == 1;
  }
  bool IsMatrix(const Operand& x, WeightUse use) const {
    return x.tensor->kind == TensorKind::kWeight && x.tensor->rank == 2 &&
           weights_[static_cast<size_t>(x.tensor->argument)].Has(use);
  }
  bool IsVector(int input, int64_t size) const {
    if (!HasInput(input)) return true;  // Plan::Parse has seen that required operands are there
    const PlanTensor& tensor = *In(input).tensor;
    return tensor.kind == TensorKind::kWeight && tensor.rank == 1 && tensor.dims[0] == size &&
           tensor.dtype == Dtype::kF32 && weights_[static_cast<size_t>(tensor.argument)].Has(WeightUse::kVector);
  }
  bool IsCosSin(const Operand& x, int64_t rows_dim, int32_t rotary_dim) const {
    return IsData(x) && x.tensor->dtype == Dtype::kF32 && x.rows_dim() == rows_dim && x.row_elements() == rotary_dim;
  }

  Status CheckEmbedding() const {
    TENON_PLAN_CHECK(IsInput(In(0), StepInput::kTokenIds, kDimT), "tokenIds must be the step's token ids");
    TENON_PLAN_CHECK(IsMatrix(In(1), WeightUse::kEmbedding), "the weight must be a matrix of use 'embedding'");
    TENON_PLAN_CHECK(In(1).rows_dim() >= plan_.limits.vocab_size, "the weight has %lld rows; the vocabulary has %d",
                     static_cast<long long>(In(1).rows_dim()), plan_.limits.vocab_size);
    TENON_PLAN_CHECK(IsData(Out(0), In(0), In(1).row_elements()), "y must be [T, hidden]");
    return Status::Ok();
  }

  Status CheckRmsNorm() const {
    const auto& attrs = op_->attrs<RmsNormAttrs>();
    TENON_PLAN_CHECK(IsData(In(0)), "x must be an activation");
    TENON_PLAN_CHECK(attrs.size > 0 && In(0).row_elements() % attrs.size == 0, "rows of %lld are not whole norms of %d",
                     static_cast<long long>(In(0).row_elements()), attrs.size);
    TENON_PLAN_CHECK(IsVector(1, attrs.size), "weight must be an f32 vector of %d", attrs.size);
    TENON_PLAN_CHECK(IsData(Out(0), In(0), In(0).row_elements()), "y must have the shape of x");
    return Status::Ok();
  }

  Status CheckLinear() const {
    const Operand x = In(0), weight = In(1);
    TENON_PLAN_CHECK(IsMatrix(weight, WeightUse::kLinear), "the weight must be a matrix of use 'linear'");
    TENON_PLAN_CHECK(IsData(x) && x.row_elements() == weight.row_elements(), "x has rows of %lld; the weight takes %lld",
                     static_cast<long long>(x.row_elements()), static_cast<long long>(weight.row_elements()));
    TENON_PLAN_CHECK(IsData(Out(0), x, weight.rows_dim()), "y must be [rows, %lld]",
                     static_cast<long long>(weight.rows_dim()));
    const int bias = op_->id == OpId::kLinear ? 2 : 3;
    TENON_PLAN_CHECK(IsVector(bias, weight.rows_dim()), "bias must be an f32 vector of the weight's rows");
    return Status::Ok();
  }

  Status CheckLinearAdd() const {
    TENON_RETURN_IF_ERROR(CheckLinear());
    TENON_PLAN_CHECK(IsData(In(2), In(0), In(1).rows_dim()), "residual must have the shape of y");
    return Status::Ok();
  }

  Status CheckLinearGated() const {
    const Operand x = In(0), weight = In(1);
    TENON_PLAN_CHECK(IsMatrix(weight, WeightUse::kLinearGated), "the weight must be a matrix of use 'linear_gated'");
    TENON_PLAN_CHECK(weight.rows_dim() % 2 == 0, "the weight must have an even number of rows");
    TENON_PLAN_CHECK(IsData(x) && x.row_elements() == weight.row_elements(), "x has rows of %lld; the weight takes %lld",
                     static_cast<long long>(x.row_elements()), static_cast<long long>(weight.row_elements()));
    TENON_PLAN_CHECK(IsData(Out(0), x, weight.rows_dim() / 2), "y must be [rows, %lld]",
                     static_cast<long long>(weight.rows_dim() / 2));
    TENON_PLAN_CHECK(IsVector(2, weight.rows_dim()), "bias must be an f32 vector of the weight's rows");
    return CheckActivation(op_->attrs<LinearGatedAttrs>().activation);
  }

  Status CheckElementwise() const {
    const Operand a = In(0);
    TENON_PLAN_CHECK(IsData(a) && IsData(In(1), a, a.row_elements()) && IsData(Out(0), a, a.row_elements()),
                     "operands must have the same shape");
    return op_->id == OpId::kGatedAct ? CheckActivation(op_->attrs<GatedActAttrs>().activation) : Status::Ok();
  }

  Status CheckActivation(int32_t activation) const {
    TENON_PLAN_CHECK(activation >= 0 && activation <= 2, "unknown activation %d", activation);
    return Status::Ok();
  }

  Status CheckRotary(int32_t rotary_dim, int32_t head_dim) const {
    TENON_PLAN_CHECK(rotary_dim > 0 && rotary_dim % 2 == 0 && rotary_dim <= head_dim,
                     "rotaryDim %d must be even and at most headDim %d", rotary_dim, head_dim);
    return Status::Ok();
  }

  Status CheckRopeCosSin() const {
    const auto& attrs = op_->attrs<RopeCosSinAttrs>();
    TENON_RETURN_IF_ERROR(CheckRotary(attrs.rotary_dim, attrs.rotary_dim));
    TENON_PLAN_CHECK(IsInput(In(0), StepInput::kPositions, kDimT), "positions must be the step's positions");
    TENON_PLAN_CHECK(IsVector(1, attrs.rotary_dim / 2), "invFreq must be an f32 vector of %d", attrs.rotary_dim / 2);
    TENON_PLAN_CHECK(IsCosSin(Out(0), kDimT, attrs.rotary_dim), "y must be f32 [T, rotaryDim]");
    TENON_PLAN_CHECK(attrs.dynamic == 0 || attrs.original_max_position > 0, "dynamic needs originalMaxPosition");
    return Status::Ok();
  }

  Status CheckHeads(const Operand& x, int64_t num_heads, int64_t head_dim) const {
    TENON_PLAN_CHECK(num_heads > 0 && head_dim > 0 && IsData(x) && x.row_elements() == num_heads * head_dim,
                     "rows of %lld are not %lld heads of %lld", static_cast<long long>(x.row_elements()),
                     static_cast<long long>(num_heads), static_cast<long long>(head_dim));
    return Status::Ok();
  }

  Status CheckRope() const {
    const auto& attrs = op_->attrs<RopeAttrs>();
    TENON_RETURN_IF_ERROR(CheckHeads(In(0), attrs.num_heads, attrs.head_dim));
    TENON_RETURN_IF_ERROR(CheckRotary(attrs.rotary_dim, attrs.head_dim));
    TENON_PLAN_CHECK(IsCosSin(In(1), In(0).rows_dim(), attrs.rotary_dim), "cosSin must be f32 [rows, rotaryDim]");
    TENON_PLAN_CHECK(IsData(Out(0), In(0), In(0).row_elements()), "y must have the shape of x");
    return Status::Ok();
  }

  Status CheckLayer(int32_t layer, int32_t num_kv_heads, int32_t head_dim) const {
    TENON_PLAN_CHECK(layer >= 0 && static_cast<size_t>(layer) < plan_.kv_layers.size(), "KV layer %d of %zu", layer,
                     plan_.kv_layers.size());
    const PlanKvLayer& kv = plan_.kv_layers[static_cast<size_t>(layer)];
    TENON_PLAN_CHECK(kv.num_kv_heads == num_kv_heads && kv.head_dim == head_dim,
                     "KV layer %d has %d heads of %d; the op has %d of %d", layer, kv.num_kv_heads, kv.head_dim,
                     num_kv_heads, head_dim);
    TENON_PLAN_CHECK(plan_.limits.num_blocks > 0, "the plan has no KV blocks");
    return Status::Ok();
  }

  Status CheckKvWrite() const {
    const auto& attrs = op_->attrs<KvWriteAttrs>();
    TENON_RETURN_IF_ERROR(CheckLayer(attrs.layer, attrs.num_kv_heads, attrs.head_dim));
    TENON_RETURN_IF_ERROR(CheckHeads(In(0), attrs.num_kv_heads, attrs.head_dim));
    TENON_RETURN_IF_ERROR(CheckHeads(In(1), attrs.num_kv_heads, attrs.head_dim));
    TENON_PLAN_CHECK(In(0).rows_dim() == kDimT && In(1).rows_dim() == kDimT, "k and v must have T rows");
    TENON_PLAN_CHECK(IsInput(In(2), StepInput::kSlotMapping, kDimT), "slotMapping must be the step's");
    return Status::Ok();
  }

  Status CheckQkvRopeKvWrite() const {
    const auto& attrs = op_->attrs<QkvRopeKvWriteAttrs>();
    TENON_RETURN_IF_ERROR(CheckLayer(attrs.layer, attrs.num_kv_heads, attrs.head_dim));
    TENON_RETURN_IF_ERROR(CheckRotary(attrs.rotary_dim, attrs.head_dim));
    TENON_RETURN_IF_ERROR(
        CheckHeads(In(0), int64_t{attrs.num_heads} + 2 * int64_t{attrs.num_kv_heads}, attrs.head_dim));
    TENON_RETURN_IF_ERROR(CheckHeads(Out(0), attrs.num_heads, attrs.head_dim));
    TENON_PLAN_CHECK(In(0).rows_dim() == kDimT && Out(0).rows_dim() == kDimT, "qkv and q must have T rows");
    TENON_PLAN_CHECK(IsCosSin(In(1), kDimT, attrs.rotary_dim), "cosSin must be f32 [T, rotaryDim]");
    TENON_PLAN_CHECK(IsVector(2, attrs.head_dim) && IsVector(3, attrs.head_dim), "norms must be f32 vectors of %d",
                     attrs.head_dim);
    TENON_PLAN_CHECK(IsInput(In(4), StepInput::kSlotMapping, kDimT), "slotMapping must be the step's");
    return Status::Ok();
  }

  Status CheckAttention() const {
    const auto& attrs = op_->attrs<AttentionAttrs>();
    TENON_RETURN_IF_ERROR(CheckLayer(attrs.layer, attrs.num_kv_heads, attrs.head_dim));
    TENON_RETURN_IF_ERROR(CheckHeads(In(0), attrs.num_heads, attrs.head_dim));
    TENON_PLAN_CHECK(attrs.num_heads % attrs.num_kv_heads == 0, "%d heads over %d KV heads", attrs.num_heads,
                     attrs.num_kv_heads);
    TENON_PLAN_CHECK(attrs.sliding_window >= 0, "slidingWindow %d", attrs.sliding_window);
    TENON_PLAN_CHECK(In(0).rows_dim() == kDimT && IsData(Out(0), In(0), In(0).row_elements()),
                     "q and y must be [T, numHeads headDim]");
    return Status::Ok();
  }

  Status CheckGatherRows() const {
    TENON_PLAN_CHECK(IsInput(In(1), StepInput::kLogitRows, kDimL), "rows must be the step's logit rows");
    TENON_PLAN_CHECK(IsData(In(0)) && In(0).rows_dim() == kDimT, "x must have T rows");
    TENON_PLAN_CHECK(IsData(Out(0), In(1), In(0).row_elements()) && Out(0).tensor->dtype == In(0).tensor->dtype,
                     "y must be [L, …] of the dtype of x");
    return Status::Ok();
  }

  Status CheckSample() const {
    const int32_t vocab_size = plan_.limits.vocab_size;
    TENON_PLAN_CHECK(IsData(In(0)) && In(0).rows_dim() == kDimL && In(0).row_elements() == vocab_size,
                     "logits must be [L, %d]", vocab_size);
    const PlanTensor& tokens = *Out(0).tensor;
    TENON_PLAN_CHECK(tokens.kind == TensorKind::kOutput && tokens.dtype == Dtype::kI32 && tokens.dims[0] == kDimL &&
                         tokens.row_elements() == 1,
                     "tokens must be an i32 output [L]");
    return Status::Ok();
  }

  // y has the rows of x, and `columns` of each; `size` is the attribute, where the op has it.
  Status CheckCollective(int64_t columns) const {
    TENON_PLAN_CHECK(IsData(In(0)) && IsData(Out(0), In(0), columns) && Out(0).tensor->dtype == In(0).tensor->dtype,
                     "y must be [rows, %lld] of the dtype of x", static_cast<long long>(columns));
    return Status::Ok();
  }
  Status CheckCollective(int64_t columns, int32_t size) const {
    TENON_PLAN_CHECK(size == num_ranks_, "the plan is for %d ranks; the group has %d", size, num_ranks_);
    return CheckCollective(columns);
  }
#undef TENON_PLAN_CHECK

  const Plan& plan_;
  const std::vector<WeightRequest>& weights_;
  const int32_t num_ranks_;
  int64_t max_logit_rows_ = 0;
  int32_t op_index_ = 0;
  const PlanOp* op_ = nullptr;
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
