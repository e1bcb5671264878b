#include "cpu_session.h"

#include <algorithm>
#include <optional>
#include <string>

namespace tenon_cpu {
namespace {

using tenon::OpAnswer;
using tenon::OpId;
using tenon::OpSupport;
using tenon::Status;
using tenon::StatusCode;

// What the attention, rope and cache kernels take.
constexpr int32_t kMaxHeadDim = 256;
constexpr int32_t kBlockSizeUnit = 16;
constexpr size_t kAlignment = 64;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// None for ops that know no heads.
std::optional<int32_t> HeadDimOf(const tenon::OpQuery& query) {
  switch (query.op) {
    case OpId::kRope: return query.attrs<tenon::RopeAttrs>().head_dim;
    case OpId::kKvWrite: return query.attrs<tenon::KvWriteAttrs>().head_dim;
    case OpId::kAttention: return query.attrs<tenon::AttentionAttrs>().head_dim;
    case OpId::kQkvRopeKvWrite: return query.attrs<tenon::QkvRopeKvWriteAttrs>().head_dim;
    default: return std::nullopt;
  }
}

bool IsHeadDimSupported(int32_t head_dim) {
  return head_dim >= 1 && head_dim <= kMaxHeadDim && head_dim % 2 == 0;
}

}  // namespace

int64_t KvBlockBytes(const tenon::PlanKvLayer& layer, int block_size) {
  return KvBlockElements(layer.head_dim, block_size, layer.dtype, layer.num_kv_heads) *
         tenon::kDtypeBytes[static_cast<int32_t>(layer.dtype)];
}

OpAnswer AnswerFor(const tenon::OpQuery& query, const Kernels& kernels) {
  OpAnswer answer;
  const bool grouped = query.weight_scheme != tenon::WeightScheme::kNone;
  answer.kernel = std::string(tenon::kOps[static_cast<int32_t>(query.op)].name) + (grouped ? " grouped " : " ") + kernels.name;
  const std::optional<int32_t> head_dim = HeadDimOf(query);
  if (head_dim && !IsHeadDimSupported(*head_dim)) {
    answer.support = OpSupport::kUnsupported;
    answer.reason = "headDim " + std::to_string(*head_dim) + "; even numbers up to " + std::to_string(kMaxHeadDim) +
                    " are supported";
  }
  return answer;
}

// Limits that negotiation has said; a plan that ignores them is refused.
Status CpuSession::CheckOps() const {
  for (const tenon::PlanOp& op : plan_.ops) {
    const OpAnswer answer = AnswerFor({.op = op.id, .attr_words = op.attr_words}, context_.kernels);
    if (answer.support != OpSupport::kNative)
      return Status::Error(StatusCode::kUnsupportedOp, "%s on the CPU: %s", op.name(), answer.reason.c_str());
  }
  if (!plan_.kv_layers.empty() && plan_.limits.block_size % kBlockSizeUnit != 0)
    return Status::Error(StatusCode::kLoadFailed, "KV blocks of %d tokens; the CPU backend takes multiples of %d",
                         plan_.limits.block_size, kBlockSizeUnit);
  return Status::Ok();
}

Status CpuSession::LoadWeights(const std::vector<WeightRequest>& requests, const ProgressFn& progress,
                               std::vector<const void*>* handles) {
  TENON_RETURN_IF_ERROR(CheckOps());
  TENON_RETURN_IF_ERROR(tenon_cpu::LoadWeights(requests, context_.kernels, context_.threads, pool_, progress, cancelled_,
                                               &weights_, &weights_memory_));
  for (size_t i = 0; i < requests.size(); ++i) {
    const bool vector = requests[i].Has(tenon::WeightUse::kVector);
    handles->push_back(vector ? static_cast<const void*>(weights_[i].vector) : &weights_[i]);
  }
  TENON_RETURN_IF_ERROR(AllocateScratch());
  TENON_RETURN_IF_ERROR(AllocateQuantizedRows());
  PrepareGemm();
  return attention_.Prepare(plan_, pool_);
}

void CpuSession::PrepareGemm() {
  std::vector<PackedMatrix> order;
  for (const tenon::PlanOp& op : plan_.ops) {
    if (op.id != OpId::kLinear && op.id != OpId::kLinearAdd && op.id != OpId::kLinearGated) continue;
    const tenon::PlanTensor& weight = plan_.tensors[static_cast<size_t>(op.inputs[1])];
    order.push_back(weights_[static_cast<size_t>(weight.argument)].packed);
  }
  gemm_.Prepare(order);
}

// All layers lie in one allocation: K of layer 0, V of layer 0, K of layer 1, ...
Status CpuSession::CreateKvCache(std::vector<tenon::KvHandle>* handles) {
  const auto size_of = [&](const tenon::PlanKvLayer& layer) {
    const int64_t block_bytes = KvBlockBytes(layer, plan_.limits.block_size);
    return RoundUp(static_cast<size_t>(block_bytes) * static_cast<size_t>(plan_.limits.num_blocks), kAlignment);
  };
  size_t total = 0;
  for (const tenon::PlanKvLayer& layer : plan_.kv_layers) total += 2 * size_of(layer);
  if (total == 0) return Status::Ok();
  void* data = nullptr;
  TENON_RETURN_IF_ERROR(pool_.Allocate(tenon::Arena::kKv, total + kKvSlackBytes, &data));
  auto* next = static_cast<uint8_t*>(data);
  for (const tenon::PlanKvLayer& layer : plan_.kv_layers) {
    const size_t size = size_of(layer);
    kv_layers_.push_back({next, next + size, layer.dtype, layer.num_kv_heads, layer.head_dim, plan_.limits.block_size});
    next += 2 * size;
  }
  for (const KvLayer& layer : kv_layers_) handles->push_back(&layer);
  return Status::Ok();
}

Status CpuSession::AllocateScratch() {
  const Kernels& kernels = context_.kernels;
  size_t bytes = 0;
  for (const tenon::PlanTensor& tensor : plan_.tensors) {
    if (tensor.kind == tenon::TensorKind::kWeight && tensor.rank == 2)
      bytes = std::max(bytes, kernels.gemm_scratch_bytes(plan_.limits.max_tokens, tensor.dims[1]));
  }
  for (const tenon::PlanOp& op : plan_.ops) {
    if (op.id != OpId::kAttention) continue;
    const auto& attrs = op.attrs<tenon::AttentionAttrs>();
    const int32_t group = attrs.num_heads / attrs.num_kv_heads;
    bytes = std::max(bytes, kernels.attention_scratch_bytes(kMaxQueryRows, group, attrs.head_dim));
  }
  if (bytes == 0) return Status::Ok();
  context_.scratch_stride = RoundUp(bytes, kAlignment);
  void* data = nullptr;
  TENON_RETURN_IF_ERROR(pool_.Allocate(tenon::Arena::kWorkspace,
                                       context_.scratch_stride * static_cast<size_t>(context_.threads.size()), &data));
  context_.scratch = static_cast<uint8_t*>(data);
  return Status::Ok();
}

Status CpuSession::AllocateQuantizedRows() {
  int64_t row_bytes = 0;
  for (const LoadedWeight& weight : weights_) {
    if (weight.packed.grouping.bits != 0) row_bytes = std::max(row_bytes, QuantizedRowBytes(weight.cols));
  }
  if (row_bytes == 0) return Status::Ok();
  const int64_t rows = std::min<int64_t>(kPanelRows, std::max(plan_.limits.max_tokens, plan_.limits.max_logit_rows));
  void* data = nullptr;
  TENON_RETURN_IF_ERROR(pool_.Allocate(tenon::Arena::kWorkspace, static_cast<size_t>(rows * row_bytes), &data));
  context_.quantized_rows = static_cast<uint8_t*>(data);
  return Status::Ok();
}

Status CpuSession::BeginStep(const tenon::StepView& host_step, const tenon::ResultView& host_result,
                             tenon::StepView* step, tenon::ResultView* result) {
  *step = host_step;
  *result = host_result;
  context_.threads.Wake();
  ops_.BeginStep(host_step);
  attention_.BeginStep(host_step);
  return Status::Ok();
}

}  // namespace tenon_cpu
