// What the device can run: the answers to core's questions about the ops of a model.
#pragma once

#include "operands.h"
#include "tenon/device.h"

namespace tenon_backend_template {

inline bool HasMatrix(tenon::OpId op) {
  return op == tenon::OpId::kEmbedding || op == tenon::OpId::kLinear || op == tenon::OpId::kLinearAdd;
}

inline int32_t HeadDim(const tenon::OpQuery& query) {
  if (query.op == tenon::OpId::kAttention) return query.attrs<tenon::AttentionAttrs>().head_dim;
  return query.op == tenon::OpId::kKvWrite ? query.attrs<tenon::KvWriteAttrs>().head_dim : 0;
}

// Empty where the device has a kernel.
inline std::string WhyNot(const tenon::OpQuery& query, bool int8_only) {
  for (const Dtype dtype : query.dtypes)
    if (dtype == Dtype::kF16) return "it computes in f32 and bf16, not in f16";
  if (HeadDim(query) % KvLayer::kLanes != 0)
    return "headDim is " + std::to_string(HeadDim(query)) + "; multiples of " + std::to_string(KvLayer::kLanes) + " are possible";
  if (!HasMatrix(query.op) || query.weight_scheme == tenon::WeightScheme::kInt8G32) return "";
  const char* scheme = tenon::kWeightSchemes[static_cast<int32_t>(query.weight_scheme)].name;
  if (query.weight_scheme != tenon::WeightScheme::kNone) return std::string("it holds quantized weights as int8:g32, not as ") + scheme;
  return int8_only ? "it multiplies int8:g32 weights alone; take a checkpoint in Q8_0" : "";
}

inline tenon::OpAnswer AnswerFor(const tenon::OpQuery& query, bool int8_only) {
  tenon::OpAnswer answer;
  answer.kernel = std::string("sim ") + tenon::kOps[static_cast<int32_t>(query.op)].name;
  if (query.op == tenon::OpId::kLinearGated || query.op == tenon::OpId::kQkvRopeKvWrite) {
    answer.support = tenon::OpSupport::kDecompose;
    answer.reason = "it has no kernel for this; the parts run instead";
    return answer;
  }
  if (query.op == tenon::OpId::kAttention) answer.capture = tenon::CaptureState::kNeedsRebind;
  answer.reason = WhyNot(query, int8_only);
  if (!answer.reason.empty()) answer.support = tenon::OpSupport::kUnsupported;
  return answer;
}

}  // namespace tenon_backend_template
