#include "cuda_ops.h"

#include <algorithm>

#include "cuda_status.h"

namespace tenon_cuda {
namespace {

using tenon::Arena;
using tenon::Dtype;
using tenon::Status;
using tenon::StatusCode;
using tenon::StepRegion;
using tenon::Stream;

Type TypeOf(Dtype dtype) { return static_cast<Type>(dtype); }
bool IsFloat(Dtype dtype) { return dtype == Dtype::kF32 || dtype == Dtype::kBf16 || dtype == Dtype::kF16; }
cudaStream_t Of(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

Status CheckFloats(const char* op, std::initializer_list<Dtype> dtypes) {
  for (const Dtype dtype : dtypes)
    if (!IsFloat(dtype))
      return Status::Error(StatusCode::kUnsupportedDtype, "%s takes f32, bf16 and f16, not %s", op,
                           tenon::kDtypeNames[static_cast<int32_t>(dtype)]);
  return Status::Ok();
}

}  // namespace

Status CudaOps::Allocate(Pool& pool, size_t attention_bytes, size_t sample_bytes) {
  const auto allocate = [&](size_t bytes, auto** data) {
    void* raw = nullptr;
    const Status status = pool.Allocate(Arena::kWorkspace, bytes, &raw);
    *data = static_cast<std::remove_reference_t<decltype(**data)>*>(raw);
    return status;
  };
  const auto seqs = static_cast<size_t>(limits_.max_seqs);
  sample_state_.max_model_len = limits_.max_model_len;
  TENON_RETURN_IF_ERROR(allocate(seqs * sizeof(int32_t), &sample_state_.last_tokens));
  TENON_RETURN_IF_ERROR(allocate(seqs * sizeof(int32_t), &sample_state_.history_lengths));
  TENON_RETURN_IF_ERROR(allocate(seqs * sizeof(int32_t), &sample_state_.prompt_lengths));
  TENON_RETURN_IF_ERROR(
      allocate(seqs * static_cast<size_t>(limits_.max_model_len) * sizeof(int32_t), &sample_state_.history));
  void* scratch = nullptr;
  if (attention_bytes > 0) TENON_RETURN_IF_ERROR(pool.Allocate(Arena::kWorkspace, attention_bytes, &scratch));
  attention_scratch_ = scratch;
  if (sample_bytes > 0) TENON_RETURN_IF_ERROR(pool.Allocate(Arena::kWorkspace, sample_bytes, &scratch));
  sample_scratch_ = scratch;
  return AllocateForLinear(pool);
}

Status CudaOps::AllocateForLinear(Pool& pool) {
  if (const size_t bytes = LinearScratchBytes(); bytes > 0) {
    TENON_RETURN_IF_ERROR(pool.Allocate(Arena::kWorkspace, bytes, &linear_scratch_));
    TENON_CUDA(cudaMemset(linear_scratch_, 0, bytes));
    TENON_CUDA(cudaStreamSynchronize(nullptr));
  }
  const CublasLtFound& found = FindCublasLt();
  if (found.named) return Status(StatusCode::kInvalidOption, found.reason + "; name the file, set it to 'off', or leave it out");
  if (!found.reason.empty()) return Status::Ok();
  void* workspace = nullptr;
  TENON_RETURN_IF_ERROR(pool.Allocate(Arena::kWorkspace, CublasLt::kWorkspaceBytes, &workspace));
  cublas_lt_ = CublasLt::Create(workspace);
  return Status::Ok();
}

Status CudaOps::BeginStep(const tenon::StepView& host, const tenon::StepView& step, cudaStream_t stream) {
  facts_ = {.any_random = false, .any_limits = false, .any_logprobs = false, .any_edits = false};
  const int32_t* seq_lens = host.HostInts(StepRegion::kSeqLens);
  const int32_t* cu_seqlens_q = host.HostInts(StepRegion::kCuSeqlensQ);
  for (int32_t s = 0; s < host.num_seqs; ++s) {
    facts_.max_seq_len = std::max(facts_.max_seq_len, seq_lens[s]);
    const int32_t query_len = cu_seqlens_q[s + 1] - cu_seqlens_q[s];
    facts_.max_query_len = std::max(facts_.max_query_len, query_len);
    facts_.num_single += query_len == 1 ? 1 : 0;
  }
  const auto floats = [&](StepRegion region) { return reinterpret_cast<const float*>(host.HostInts(region)); };
  const int32_t* modes = host.HostInts(StepRegion::kRowModes);
  const int32_t* num_logprobs = host.HostInts(StepRegion::kNumLogprobs);
  for (int32_t row = 0; row < host.num_logit_rows; ++row) {
    facts_.any_random |= (modes[row] & tenon::kRowSample) != 0 && (modes[row] & tenon::kRowGreedy) == 0;
    facts_.any_limits |= host.HostInts(StepRegion::kTopK)[row] > 0 || floats(StepRegion::kTopP)[row] < 1 || floats(StepRegion::kMinP)[row] > 0;
    facts_.any_logprobs |= num_logprobs[row] >= 0;
    facts_.any_edits |= floats(StepRegion::kPresencePenalty)[row] != 0 || floats(StepRegion::kFrequencyPenalty)[row] != 0 ||
                        floats(StepRegion::kRepetitionPenalty)[row] != 1;
  }
  for (StepRegion region : {StepRegion::kSuppressOffsets, StepRegion::kAllowedOffsets, StepRegion::kBiasOffsets,
                            StepRegion::kBadWordsOffsets})
    facts_.any_edits |= host.HostInts(region) != nullptr;
  if (host.num_history_seqs == 0) return Status::Ok();
  return FromCuda(TakeHistories(step.Ints(StepRegion::kHistorySeqs), step.Ints(StepRegion::kHistoryOffsets),
                                step.Ints(StepRegion::kHistoryTokens), host.num_history_seqs,
                                step.Ints(StepRegion::kSeqSlots), step.Ints(StepRegion::kPromptLens), sample_state_, stream),
                  "taking over histories");
}

Status CudaOps::Linear(const tenon::LinearParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("linear", {p.x_dtype, p.weight_dtype, p.y_dtype, p.residual_dtype}));
  if (p.x_dtype != p.weight_dtype || p.residual_dtype != Dtype::kF32)
    return Status(StatusCode::kUnsupportedDtype, "linear takes x and weight of one type, and a residual of f32");
  return FromCuda(tenon_cuda::Linear({.x = p.x,
                                      .w = p.weight,
                                      .bias = p.bias,
                                      .residual = static_cast<const float*>(p.residual),
                                      .y = p.y,
                                      .rows = p.rows,
                                      .n = p.n,
                                      .k = p.k,
                                      .type = TypeOf(p.x_dtype),
                                      .y_type = TypeOf(p.y_dtype),
                                      .gated = false,
                                      .activation = 0,
                                      .scratch = linear_scratch_,
                                      .cublas_lt = cublas_lt_.get()},
                                     Of(stream)),
                  "linear");
}

Status CudaOps::LinearGated(const tenon::GatedLinearParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("linear_gated", {p.x_dtype, p.weight_dtype, p.y_dtype}));
  if (p.x_dtype != p.weight_dtype)
    return Status(StatusCode::kUnsupportedDtype, "linear_gated takes x and weight of one type");
  return FromCuda(tenon_cuda::Linear({.x = p.x,
                                      .w = p.weight,
                                      .bias = p.bias,
                                      .residual = nullptr,
                                      .y = p.y,
                                      .rows = p.rows,
                                      .n = p.intermediate,
                                      .k = p.k,
                                      .type = TypeOf(p.x_dtype),
                                      .y_type = TypeOf(p.y_dtype),
                                      .gated = true,
                                      .activation = p.activation,
                                      .scratch = linear_scratch_,
                                      .cublas_lt = nullptr},
                                     Of(stream)),
                  "linear_gated");
}

Status CudaOps::Run(const tenon::AttentionOpParams& p, Stream stream) {
  const auto& kv = *static_cast<const KvLayer*>(p.kv);
  TENON_RETURN_IF_ERROR(CheckFloats("attention", {p.q_dtype, p.y_dtype}));
  if (TypeOf(p.q_dtype) != kv.type || p.y_dtype != p.q_dtype)
    return Status(StatusCode::kUnsupportedDtype, "attention takes q and y of the cache's type");
  const tenon::StepView& step = *p.step;
  return FromCuda(
      tenon_cuda::Attention({.q = p.q,
                 .kv = kv,
                 .step = {.positions = step.Ints(StepRegion::kPositions),
                          .cu_seqlens_q = step.Ints(StepRegion::kCuSeqlensQ),
                          .seq_lens = step.Ints(StepRegion::kSeqLens),
                          .block_tables = step.Ints(StepRegion::kBlockTables),
                          .num_tokens = step.num_tokens,
                          .num_seqs = step.num_seqs,
                          .block_table_stride = step.block_table_stride,
                          .max_seq_len = recording_ ? limits_.max_model_len : facts_.max_seq_len,
                          .max_query_len = facts_.max_query_len,
                          .num_single = facts_.num_single,
                          .recording = recording_},
                 .num_heads = p.attrs->num_heads,
                 .scale = p.attrs->scale,
                 .soft_cap = p.attrs->soft_cap,
                 .sliding_window = p.attrs->sliding_window,
                 .max_model_len = limits_.max_model_len,
                 .y = p.y,
                 .scratch = attention_scratch_},
                Of(stream)),
      "attention");
}

Status CudaOps::Embedding(const tenon::EmbeddingOpParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("embedding", {p.weight_dtype, p.y_dtype}));
  return FromCuda(tenon_cuda::Embedding({.token_ids = p.token_ids,
                                         .cu_seqlens_q = p.step->Ints(StepRegion::kCuSeqlensQ),
                                         .seq_slots = p.step->Ints(StepRegion::kSeqSlots),
                                         .last_tokens = sample_state_.last_tokens,
                                         .num_seqs = p.step->num_seqs,
                                         .weight = p.weight,
                                         .type = TypeOf(p.weight_dtype),
                                         .y_type = TypeOf(p.y_dtype),
                                         .rows = p.rows,
                                         .hidden = p.hidden,
                                         .y = p.y},
                                        Of(stream)),
                  "embedding");
}

Status CudaOps::RmsNorm(const tenon::RmsNormOpParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("rms_norm", {p.x_dtype, p.y_dtype}));
  return FromCuda(
      tenon_cuda::RmsNorm({p.x, p.weight, p.y, p.rows, p.size, p.eps, TypeOf(p.x_dtype), TypeOf(p.y_dtype)}, Of(stream)),
      "rms_norm");
}

Status CudaOps::RopeCosSin(const tenon::RopeCosSinOpParams& p, Stream stream) {
  return FromCuda(tenon_cuda::RopeCosSin({.positions = p.positions,
                                          .inv_freq = p.inv_freq,
                                          .y = p.y,
                                          .rows = p.rows,
                                          .rotary_dim = p.attrs->rotary_dim,
                                          .scale = p.attrs->scale,
                                          .dynamic = p.attrs->dynamic,
                                          .base = p.attrs->base,
                                          .factor = p.attrs->factor,
                                          .original_max_position = p.attrs->original_max_position,
                                          .cu_seqlens_q = p.step->Ints(StepRegion::kCuSeqlensQ),
                                          .prompt_lens = p.step->Ints(StepRegion::kPromptLens),
                                          .num_seqs = p.step->num_seqs},
                                         Of(stream)),
                  "rope_cos_sin");
}

Status CudaOps::Rope(const tenon::RopeOpParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("rope", {p.x_dtype, p.y_dtype}));
  const tenon::RopeAttrs& attrs = *p.attrs;
  return FromCuda(tenon_cuda::Rope({p.x, p.cos_sin, p.y, p.rows, attrs.num_heads, attrs.head_dim, attrs.rotary_dim,
                                    attrs.interleaved, TypeOf(p.x_dtype), TypeOf(p.y_dtype)},
                                   Of(stream)),
                  "rope");
}

Status CudaOps::KvWrite(const tenon::KvWriteOpParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("kv_write", {p.k_dtype, p.v_dtype}));
  const auto& kv = *static_cast<const KvLayer*>(p.kv);
  return FromCuda(
      tenon_cuda::KvWrite({p.k, p.v, TypeOf(p.k_dtype), TypeOf(p.v_dtype), p.slot_mapping, kv, p.rows}, Of(stream)),
      "kv_write");
}

Status CudaOps::QkvRopeKvWrite(const tenon::QkvRopeKvWriteOpParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("qkv_rope_kv_write", {p.qkv_dtype, p.q_dtype}));
  if (p.qkv_dtype != Dtype::kF32) return Status(StatusCode::kUnsupportedDtype, "qkv_rope_kv_write takes qkv of f32");
  return FromCuda(tenon_cuda::QkvRopeKvWrite({.qkv = static_cast<const float*>(p.qkv),
                                              .cos_sin = p.cos_sin,
                                              .q_norm = p.q_norm,
                                              .k_norm = p.k_norm,
                                              .slot_mapping = p.slot_mapping,
                                              .kv = *static_cast<const KvLayer*>(p.kv),
                                              .rows = p.rows,
                                              .num_heads = p.attrs->num_heads,
                                              .rotary_dim = p.attrs->rotary_dim,
                                              .interleaved = p.attrs->interleaved,
                                              .eps = p.attrs->eps,
                                              .q = p.q,
                                              .q_type = TypeOf(p.q_dtype)},
                                             Of(stream)),
                  "qkv_rope_kv_write");
}

Status CudaOps::Add(const tenon::AddOpParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("add", {p.a_dtype, p.b_dtype, p.y_dtype}));
  return FromCuda(tenon_cuda::Add(p.a, TypeOf(p.a_dtype), p.b, TypeOf(p.b_dtype), p.y, TypeOf(p.y_dtype), p.elements,
                                  Of(stream)),
                  "add");
}

Status CudaOps::GatedAct(const tenon::GatedActOpParams& p, Stream stream) {
  TENON_RETURN_IF_ERROR(CheckFloats("gated_act", {p.gate_dtype, p.up_dtype, p.y_dtype}));
  return FromCuda(tenon_cuda::GatedAct(p.gate, TypeOf(p.gate_dtype), p.up, TypeOf(p.up_dtype), p.activation, p.y,
                                       TypeOf(p.y_dtype), p.elements, Of(stream)),
                  "gated_act");
}

Status CudaOps::GatherRows(const tenon::GatherRowsOpParams& p, Stream stream) {
  return FromCuda(tenon_cuda::GatherRows(p.x, p.row_bytes, p.rows, p.num_rows, p.y, Of(stream)), "gather_rows");
}

Status CudaOps::Sample(const tenon::SampleOpParams& p, Stream stream) {
  if (p.logits_dtype != Dtype::kF32) return Status(StatusCode::kUnsupportedDtype, "sample takes logits of f32");
  const tenon::StepView& step = *p.step;
  const auto ints = [&](StepRegion region) { return step.Ints(region); };
  const auto floats = [&](StepRegion region) { return reinterpret_cast<const float*>(step.Ints(region)); };
  const SampleStep sample_step{.positions = ints(StepRegion::kPositions),
                               .seq_slots = ints(StepRegion::kSeqSlots),
                               .logit_rows = ints(StepRegion::kLogitRows),
                               .row_seqs = ints(StepRegion::kRowSeqs),
                               .row_modes = ints(StepRegion::kRowModes),
                               .targets = ints(StepRegion::kTargets),
                               .num_logprobs = ints(StepRegion::kNumLogprobs),
                               .seed_low = ints(StepRegion::kSeedLow),
                               .seed_high = ints(StepRegion::kSeedHigh),
                               .top_k = ints(StepRegion::kTopK),
                               .temperature = floats(StepRegion::kTemperature),
                               .top_p = floats(StepRegion::kTopP),
                               .min_p = floats(StepRegion::kMinP),
                               .presence_penalty = floats(StepRegion::kPresencePenalty),
                               .frequency_penalty = floats(StepRegion::kFrequencyPenalty),
                               .repetition_penalty = floats(StepRegion::kRepetitionPenalty),
                               .bias_values = floats(StepRegion::kBiasValues),
                               .suppress_offsets = ints(StepRegion::kSuppressOffsets),
                               .suppress_tokens = ints(StepRegion::kSuppressTokens),
                               .allowed_offsets = ints(StepRegion::kAllowedOffsets),
                               .allowed_tokens = ints(StepRegion::kAllowedTokens),
                               .bias_offsets = ints(StepRegion::kBiasOffsets),
                               .bias_tokens = ints(StepRegion::kBiasTokens),
                               .bad_words_offsets = ints(StepRegion::kBadWordsOffsets),
                               .bad_words = ints(StepRegion::kBadWords),
                               .max_top_logprobs = step.max_top_logprobs,
                               .tokens = p.result->tokens,
                               .ranks = p.result->ranks,
                               .top_ids = p.result->top_ids,
                               .logprobs = p.result->logprobs,
                               .top_logprobs = p.result->top_logprobs,
                               .any_random = facts_.any_random,
                               .any_limits = facts_.any_random && (recording_ || facts_.any_limits),
                               .any_logprobs = facts_.any_logprobs,
                               .any_edits = facts_.any_edits};
  return FromCuda(tenon_cuda::Sample({.logits = static_cast<float*>(const_cast<void*>(p.logits)),
                                      .vocab = p.vocab,
                                      .first_row = p.first_row,
                                      .num_rows = p.num_rows,
                                      .step = sample_step,
                                      .state = sample_state_,
                                      .scratch = sample_scratch_},
                                     Of(stream)),
                  "sample");
}

}  // namespace tenon_cuda
