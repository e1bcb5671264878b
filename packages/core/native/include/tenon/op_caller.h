// Calls the interface method of an op, with the pointers and row counts of the running step.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "tenon/device.h"
#include "tenon/plan.h"
#include "tenon/plan_checks.h"
#include "tenon/step.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

class OpCaller {
 public:
  OpCaller(const Plan& plan, Session& session, Collective& collective)
      : plan_(plan), session_(session), collective_(collective), base_(plan.tensors.size(), nullptr) {
    for (const PlanOp& op : plan_.ops)
      if (op.id == OpId::kSample) sampled_.push_back(op.outputs[0]);
  }

  // Points buffers into the workspace, and weights and KV layers at the session's handles.
  void BindMemory(void* workspace, const std::vector<const void*>& weights, std::vector<KvHandle> kv_layers) {
    kv_layers_ = std::move(kv_layers);
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      const PlanTensor& tensor = plan_.tensors[i];
      if (tensor.kind == TensorKind::kBuffer) base_[i] = static_cast<uint8_t*>(workspace) + tensor.argument;
      if (tensor.kind == TensorKind::kWeight)
        base_[i] = static_cast<uint8_t*>(const_cast<void*>(weights[static_cast<size_t>(tensor.argument)]));
    }
  }

  // Bytes of the plan's outputs, but for those that sample ops write.
  size_t OutputBytes(const StepView& step) {
    SetRows(step);
    size_t bytes = 0;
    for (size_t i = 0; i < plan_.tensors.size(); ++i)
      if (IsOutput(i)) bytes += OutputBytes(plan_.tensors[i]);
    return bytes;
  }

  // Points inputs at the step's regions and outputs at the result.
  void BindStep(const StepView& step, const ResultView& result) {
    static constexpr StepRegion kRegions[] = {StepRegion::kTokenIds, StepRegion::kPositions, StepRegion::kSlotMapping,
                                              StepRegion::kLogitRows};
    step_ = step;
    result_ = result;
    SetRows(step);
    size_t outputs_used = 0;
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      const PlanTensor& tensor = plan_.tensors[i];
      if (tensor.kind == TensorKind::kInput) {
        const int32_t* region = step_.Ints(kRegions[tensor.argument]);
        base_[i] = reinterpret_cast<uint8_t*>(const_cast<int32_t*>(region));
      } else if (IsOutput(i)) {
        base_[i] = result_.outputs + outputs_used;
        outputs_used += OutputBytes(tensor);
      }
    }
  }

  // Calls an op of the plan; where it works on logit rows, on `num_rows` of them from `first_row` on.
  Status Call(int32_t op, int32_t first_row, int32_t num_rows) {
    first_row_ = first_row;
    rows_[static_cast<size_t>(SymbolicDim::kL)] = num_rows;
    return RunOp(plan_.ops[static_cast<size_t>(op)]);
  }

 private:
  void SetRows(const StepView& step) {
    rows_[static_cast<size_t>(SymbolicDim::kT)] = step.num_tokens;
    rows_[static_cast<size_t>(SymbolicDim::kS)] = step.num_seqs;
    rows_[static_cast<size_t>(SymbolicDim::kL)] = step.num_logit_rows;
  }

  bool IsOutput(size_t tensor) const {
    return plan_.tensors[tensor].kind == TensorKind::kOutput &&
           std::find(sampled_.begin(), sampled_.end(), static_cast<int32_t>(tensor)) == sampled_.end();
  }
  // Of whole words.
  size_t OutputBytes(const PlanTensor& tensor) const {
    return (static_cast<size_t>(Rows(tensor) * RowBytes(tensor)) + 3) / 4 * 4;
  }

  static int64_t RowBytes(const PlanTensor& tensor) {
    return tensor.row_elements() * kDtypeBytes[static_cast<int32_t>(tensor.dtype)];
  }
  int64_t Rows(const PlanTensor& tensor) const {
    return tensor.dims[0] >= 0 ? tensor.dims[0] : rows_[static_cast<size_t>(-1 - tensor.dims[0])];
  }

  // An operand of the op being run. Inputs and outputs over logit rows start at the tile's first row.
  struct Operand {
    const PlanTensor* tensor;
    uint8_t* data;
    int64_t rows;
    Dtype dtype() const { return tensor->dtype; }
    int64_t cols() const { return tensor->row_elements(); }
    template <typename T>
    const T* as() const {
      return reinterpret_cast<const T*>(data);
    }
  };
  Operand At(int32_t index) const {
    if (index < 0) return {nullptr, nullptr, 0};
    const PlanTensor& tensor = plan_.tensors[static_cast<size_t>(index)];
    uint8_t* data = base_[static_cast<size_t>(index)];
    const bool by_row = tensor.kind == TensorKind::kInput || tensor.kind == TensorKind::kOutput;
    if (by_row && data != nullptr && tensor.dims[0] == kDimL) data += first_row_ * RowBytes(tensor);
    return {&tensor, data, Rows(tensor)};
  }

  Status RunOp(const PlanOp& op) {
    const auto in = [&](int i) { return At(op.inputs[i]); };
    const Operand y = At(op.outputs[0]);
    switch (op.id) {
      case OpId::kEmbedding: return RunEmbedding(in(0), in(1), y);
      case OpId::kRmsNorm: return RunRmsNorm(op.attrs<RmsNormAttrs>(), in(0), in(1), y);
      case OpId::kLinear: return RunLinear(in(0), in(1), in(2), At(-1), y);
      case OpId::kLinearAdd: return RunLinear(in(0), in(1), in(3), in(2), y);
      case OpId::kLinearGated: return RunLinearGated(op.attrs<LinearGatedAttrs>(), in(0), in(1), in(2), y);
      case OpId::kAdd: return RunAdd(in(0), in(1), y);
      case OpId::kGatedAct: return RunGatedAct(op.attrs<GatedActAttrs>(), in(0), in(1), y);
      case OpId::kRopeCosSin: return RunRopeCosSin(op.attrs<RopeCosSinAttrs>(), in(0), in(1), y);
      case OpId::kRope: return RunRope(op.attrs<RopeAttrs>(), in(0), in(1), y);
      case OpId::kKvWrite: return RunKvWrite(op.attrs<KvWriteAttrs>(), in(0), in(1), in(2));
      case OpId::kQkvRopeKvWrite: return RunQkvRopeKvWrite(op, y);
      case OpId::kAttention: return RunAttention(op.attrs<AttentionAttrs>(), in(0), y);
      case OpId::kGatherRows: return RunGatherRows(in(0), in(1), y);
      case OpId::kSample: return RunSample(in(0));
      case OpId::kAllReduce: return collective_.AllReduce(CollectiveOf(in(0), y), session_.stream());
      case OpId::kAllGather: return collective_.AllGather(CollectiveOf(in(0), y), session_.stream());
      case OpId::kReduceScatter: return collective_.ReduceScatter(CollectiveOf(in(0), y), session_.stream());
    }
    return Status::Error(StatusCode::kUnsupportedOp, "op number %d is unknown", static_cast<int32_t>(op.id));
  }

  Status RunEmbedding(const Operand& token_ids, const Operand& weight, const Operand& y) {
    return session_.ops().Embedding({.token_ids = token_ids.as<int32_t>(),
                                     .rows = token_ids.rows,
                                     .step = &step_,
                                     .weight = weight.data,
                                     .weight_dtype = weight.dtype(),
                                     .hidden = weight.cols(),
                                     .y = y.data,
                                     .y_dtype = y.dtype()},
                                    session_.stream());
  }

  Status RunRmsNorm(const RmsNormAttrs& attrs, const Operand& x, const Operand& weight, const Operand& y) {
    return session_.ops().RmsNorm({.x = x.data,
                                   .x_dtype = x.dtype(),
                                   .rows = x.rows * (x.cols() / attrs.size),
                                   .size = attrs.size,
                                   .weight = weight.as<float>(),
                                   .eps = attrs.eps,
                                   .y = y.data,
                                   .y_dtype = y.dtype()},
                                  session_.stream());
  }

  Status RunLinear(const Operand& x, const Operand& weight, const Operand& bias, const Operand& residual,
                   const Operand& y) {
    return session_.gemm().Linear({.x = x.data,
                                   .x_dtype = x.dtype(),
                                   .rows = x.rows,
                                   .weight = weight.data,
                                   .weight_dtype = weight.dtype(),
                                   .n = weight.rows,
                                   .k = weight.cols(),
                                   .bias = bias.as<float>(),
                                   .residual = residual.data,
                                   .residual_dtype = residual.tensor != nullptr ? residual.dtype() : Dtype::kF32,
                                   .y = y.data,
                                   .y_dtype = y.dtype()},
                                  session_.stream());
  }

  Status RunLinearGated(const LinearGatedAttrs& attrs, const Operand& x, const Operand& weight, const Operand& bias,
                        const Operand& y) {
    return session_.gemm().LinearGated({.x = x.data,
                                        .x_dtype = x.dtype(),
                                        .rows = x.rows,
                                        .weight = weight.data,
                                        .weight_dtype = weight.dtype(),
                                        .intermediate = weight.rows / 2,
                                        .k = weight.cols(),
                                        .bias = bias.as<float>(),
                                        .activation = attrs.activation,
                                        .y = y.data,
                                        .y_dtype = y.dtype()},
                                       session_.stream());
  }

  Status RunAdd(const Operand& a, const Operand& b, const Operand& y) {
    return session_.ops().Add({.a = a.data,
                               .a_dtype = a.dtype(),
                               .b = b.data,
                               .b_dtype = b.dtype(),
                               .y = y.data,
                               .y_dtype = y.dtype(),
                               .elements = y.rows * y.cols()},
                              session_.stream());
  }

  Status RunGatedAct(const GatedActAttrs& attrs, const Operand& gate, const Operand& up, const Operand& y) {
    return session_.ops().GatedAct({.gate = gate.data,
                                    .gate_dtype = gate.dtype(),
                                    .up = up.data,
                                    .up_dtype = up.dtype(),
                                    .activation = attrs.activation,
                                    .y = y.data,
                                    .y_dtype = y.dtype(),
                                    .elements = y.rows * y.cols()},
                                   session_.stream());
  }

  Status RunRopeCosSin(const RopeCosSinAttrs& attrs, const Operand& positions, const Operand& inv_freq,
                       const Operand& y) {
    return session_.ops().RopeCosSin({.positions = positions.as<int32_t>(),
                                      .rows = positions.rows,
                                      .inv_freq = inv_freq.as<float>(),
                                      .step = &step_,
                                      .attrs = &attrs,
                                      .y = reinterpret_cast<float*>(y.data)},
                                     session_.stream());
  }

  Status RunRope(const RopeAttrs& attrs, const Operand& x, const Operand& cos_sin, const Operand& y) {
    return session_.ops().Rope({.x = x.data,
                                .x_dtype = x.dtype(),
                                .rows = x.rows,
                                .cos_sin = cos_sin.as<float>(),
                                .attrs = &attrs,
                                .y = y.data,
                                .y_dtype = y.dtype()},
                               session_.stream());
  }

  Status RunKvWrite(const KvWriteAttrs& attrs, const Operand& k, const Operand& v, const Operand& slot_mapping) {
    return session_.ops().KvWrite({.k = k.data,
                                   .k_dtype = k.dtype(),
                                   .v = v.data,
                                   .v_dtype = v.dtype(),
                                   .rows = k.rows,
                                   .slot_mapping = slot_mapping.as<int32_t>(),
                                   .kv = kv_layers_[static_cast<size_t>(attrs.layer)],
                                   .attrs = &attrs},
                                  session_.stream());
  }

  Status RunQkvRopeKvWrite(const PlanOp& op, const Operand& q) {
    const auto& attrs = op.attrs<QkvRopeKvWriteAttrs>();
    const Operand qkv = At(op.inputs[0]);
    return session_.ops().QkvRopeKvWrite({.qkv = qkv.data,
                                          .qkv_dtype = qkv.dtype(),
                                          .rows = qkv.rows,
                                          .cos_sin = At(op.inputs[1]).as<float>(),
                                          .q_norm = At(op.inputs[2]).as<float>(),
                                          .k_norm = At(op.inputs[3]).as<float>(),
                                          .slot_mapping = At(op.inputs[4]).as<int32_t>(),
                                          .kv = kv_layers_[static_cast<size_t>(attrs.layer)],
                                          .attrs = &attrs,
                                          .q = q.data,
                                          .q_dtype = q.dtype()},
                                         session_.stream());
  }

  Status RunAttention(const AttentionAttrs& attrs, const Operand& q, const Operand& y) {
    return session_.attention().Run({.q = q.data,
                                     .q_dtype = q.dtype(),
                                     .kv = kv_layers_[static_cast<size_t>(attrs.layer)],
                                     .step = &step_,
                                     .attrs = &attrs,
                                     .y = y.data,
                                     .y_dtype = y.dtype()},
                                    session_.stream());
  }

  Status RunGatherRows(const Operand& x, const Operand& rows, const Operand& y) {
    return session_.ops().GatherRows({.x = x.data,
                                      .row_bytes = RowBytes(*x.tensor),
                                      .rows = rows.as<int32_t>(),
                                      .num_rows = rows.rows,
                                      .y = y.data},
                                     session_.stream());
  }

  Status RunSample(const Operand& logits) {
    return session_.ops().Sample({.logits = logits.data,
                                  .logits_dtype = logits.dtype(),
                                  .vocab = logits.cols(),
                                  .first_row = first_row_,
                                  .num_rows = logits.rows,
                                  .step = &step_,
                                  .result = &result_},
                                 session_.stream());
  }

  static CollectiveParams CollectiveOf(const Operand& x, const Operand& y) {
    return {.src = x.data, .dst = y.data, .rows = x.rows, .cols = x.cols(), .dtype = x.dtype()};
  }

  const Plan& plan_;
  Session& session_;
  Collective& collective_;
  std::vector<KvHandle> kv_layers_;
  std::vector<int32_t> sampled_;  // tensors that sample ops write; their place is the result's `tokens`

  // Of the running step.
  StepView step_;
  ResultView result_;
  std::vector<uint8_t*> base_;  // by tensor number
  std::array<int32_t, 3> rows_{};  // T, S, and L of the tile
  int32_t first_row_ = 0;
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
