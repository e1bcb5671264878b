#include "negotiate.h"

#include <optional>
#include <string>

#include "cuda_device.h"
#include "kernels.h"

namespace tenon_cuda {
namespace {

using tenon::OpId;
using tenon::OpSupport;

constexpr int32_t kMaxHeadDim = 256;
constexpr int32_t kHeadDimUnit = 2;

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

tenon::OpAnswer Unsupported(std::string reason) {
  return {.support = OpSupport::kUnsupported, .kernel = "", .reason = std::move(reason)};
}

}  // namespace

tenon::OpAnswer AnswerFor(const tenon::OpQuery& query) {
  if (query.weight_scheme != tenon::WeightScheme::kNone) return Unsupported("quantized weights are unpacked");
  const std::optional<int32_t> head_dim = HeadDimOf(query);
  if (head_dim && (*head_dim < kHeadDimUnit || *head_dim > kMaxHeadDim || *head_dim % kHeadDimUnit != 0))
    return Unsupported("headDim " + std::to_string(*head_dim) + "; multiples of " + std::to_string(kHeadDimUnit) +
                       " up to " + std::to_string(kMaxHeadDim) + " are supported");
  return {.support = OpSupport::kNative, .kernel = std::string("cuda ") + tenon::kOps[static_cast<int32_t>(query.op)].name};
}

tenon::OpAnswer CudaGroup::Negotiate(const tenon::OpQuery& query) const { return AnswerFor(query); }

int64_t CudaGroup::KvBlockBytes(const tenon::PlanKvLayer& layer, int block_size) const {
  return 2 * int64_t{layer.num_kv_heads} * layer.head_dim * block_size *
         tenon::kDtypeBytes[static_cast<int32_t>(layer.dtype)];
}

}  // namespace tenon_cuda
