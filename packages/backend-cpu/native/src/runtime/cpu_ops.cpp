#include "cpu_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "split.h"
#include "weights.h"

namespace tenon_cpu {
namespace {

using tenon::Status;
using tenon::StepRegion;
using tenon::Stream;

// Elements that one thread passes over in about two microseconds: less is not worth a fork-join.
constexpr int64_t kChunkElements = 8192;
// Tokens of a cache block whose K share cache lines: a chunk holds all of them, so that threads do not take the lines
// from each other.
constexpr int64_t kKvChunkTokens = 16;

// Cosines and sines of one token's angles; see rope_cos_sin in core's op table.
class RopeAngles {
 public:
  RopeAngles(const tenon::RopeCosSinOpParams& params) : p_(params), n_(params.attrs->rotary_dim / 2) {}

  void Write(int64_t token, int32_t prompt_len, float* y) const {
    const int32_t position = p_.positions[token];
    const int32_t length = std::max(position + 1, prompt_len);
    const bool scaled = p_.attrs->dynamic != 0 && length > p_.attrs->original_max_position;
    const double base = scaled ? ScaledBase(length) : 0;
    for (int32_t i = 0; i < n_; ++i) {
      const float frequency = scaled ? Frequency(base, i) : p_.inv_freq[i];
      const float angle = static_cast<float>(position) * frequency;
      y[i] = std::cos(angle) * p_.attrs->scale;
      y[n_ + i] = std::sin(angle) * p_.attrs->scale;
    }
  }

 private:
  double ScaledBase(int32_t length) const {
    const double factor = p_.attrs->factor, dim = p_.attrs->rotary_dim;
    const double stretch = factor * length / p_.attrs->original_max_position - (factor - 1);
    return p_.attrs->base * std::pow(stretch, dim / (dim - 2));
  }
  float Frequency(double base, int32_t i) const {
    return static_cast<float>(1 / std::pow(base, 2.0 * i / p_.attrs->rotary_dim));
  }

  const tenon::RopeCosSinOpParams& p_;
  const int32_t n_;
};

// Number of the sequence that a token belongs to, or -1 for padding.
int32_t SeqOfToken(const tenon::StepView& step, int64_t token) {
  const int32_t* cu_seqlens_q = step.Ints(StepRegion::kCuSeqlensQ);
  const int32_t num_seqs = step.num_seqs;
  if (num_seqs == 0 || token >= cu_seqlens_q[num_seqs]) return -1;
  return static_cast<int32_t>(std::upper_bound(cu_seqlens_q, cu_seqlens_q + num_seqs, token) - cu_seqlens_q) - 1;
}

}  // namespace

template <typename F>
void CpuOps::ForRows(int64_t rows, int64_t row_elements, F&& fn, int64_t multiple) {
  const int64_t length = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, row_elements));
  const EvenSplit split(rows, (length + multiple - 1) / multiple * multiple);
  context_.threads.ParallelFor(split.num_chunks(), [&](int64_t chunk, int) {
    const Range range = split[chunk];
    fn(range.begin, range.end);
  });
}

// Token ids with every -1 replaced by the last token that was sampled for the sequence's slot.
const int32_t* CpuOps::ResolveTokenIds(const tenon::EmbeddingOpParams& p) {
  const int32_t* end = p.token_ids + p.rows;
  if (std::find(p.token_ids, end, -1) == end) return p.token_ids;
  const int32_t* seq_slots = p.step->Ints(StepRegion::kSeqSlots);
  for (int64_t token = 0; token < p.rows; ++token) {
    int32_t id = p.token_ids[token];
    if (id < 0) {
      const int32_t seq = SeqOfToken(*p.step, token);
      id = seq < 0 ? 0 : sampler_.last_token(seq_slots[seq]);
    }
    token_ids_[static_cast<size_t>(token)] = id;
  }
  return token_ids_.data();
}

Status CpuOps::Embedding(const tenon::EmbeddingOpParams& p, Stream) {
  if (!IsFloat(p.weight_dtype) || !IsFloat(p.y_dtype)) return UnsupportedDtype("embedding", "weight and y must be floats");
  if (p.rows == 0) return Status::Ok();
  const auto& weight = *static_cast<const LoadedWeight*>(p.weight);
  EmbeddingParams params = {.token_ids = ResolveTokenIds(p),
                            .packed = weight.packed,
                            .row_major = weight.row_major,
                            .dtype = weight.dtype,
                            .hidden = p.hidden,
                            .y = p.y,
                            .y_dtype = p.y_dtype};
  ForRows(p.rows, p.hidden, [&](int64_t begin, int64_t end) {
    EmbeddingParams part = params;
    part.token_begin = begin;
    part.token_end = end;
    context_.kernels.embedding(part);
  });
  return Status::Ok();
}

Status CpuOps::RmsNorm(const tenon::RmsNormOpParams& p, Stream) {
  if (!IsFloat(p.x_dtype) || !IsFloat(p.y_dtype)) return UnsupportedDtype("rms_norm", "x and y must be floats");
  ForRows(p.rows, p.size, [&](int64_t begin, int64_t end) {
    context_.kernels.rms_norm({.x = p.x,
                               .x_dtype = p.x_dtype,
                               .weight = p.weight,
                               .y = p.y,
                               .y_dtype = p.y_dtype,
                               .size = p.size,
                               .eps = p.eps,
                               .row_begin = begin,
                               .row_end = end});
  });
  return Status::Ok();
}

Status CpuOps::RopeCosSin(const tenon::RopeCosSinOpParams& p, Stream) {
  const RopeAngles angles(p);
  const int32_t* prompt_lens = p.step->Ints(StepRegion::kPromptLens);
  const bool dynamic = p.attrs->dynamic != 0;
  // A cosine takes some ten times as long as what kChunkElements counts.
  ForRows(p.rows, int64_t{p.attrs->rotary_dim} * 10, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int32_t seq = dynamic ? SeqOfToken(*p.step, token) : -1;
      angles.Write(token, seq < 0 ? 0 : prompt_lens[seq], p.y + token * p.attrs->rotary_dim);
    }
  });
  return Status::Ok();
}

Status CpuOps::Rope(const tenon::RopeOpParams& p, Stream) {
  if (!IsFloat(p.x_dtype) || !IsFloat(p.y_dtype)) return UnsupportedDtype("rope", "x and y must be floats");
  const int64_t row = int64_t{p.attrs->num_heads} * p.attrs->head_dim;
  ForRows(p.rows, row, [&](int64_t begin, int64_t end) {
    context_.kernels.rope({.x = p.x,
                           .x_dtype = p.x_dtype,
                           .ldx = row,
                           .cos_sin = p.cos_sin,
                           .y = p.y,
                           .y_dtype = p.y_dtype,
                           .ldy = row,
                           .num_heads = p.attrs->num_heads,
                           .head_dim = p.attrs->head_dim,
                           .rotary_dim = p.attrs->rotary_dim,
                           .interleaved = p.attrs->interleaved != 0,
                           .token_begin = begin,
                           .token_end = end});
  });
  return Status::Ok();
}

Status CpuOps::KvWrite(const tenon::KvWriteOpParams& p, Stream) {
  const auto& kv = *static_cast<const KvLayer*>(p.kv);
  if (!IsFloat(p.k_dtype) || !IsFloat(p.v_dtype)) return UnsupportedDtype("kv_write", "k and v must be floats");
  const int64_t row = int64_t{kv.num_kv_heads} * kv.head_dim;
  ForRows(p.rows, 2 * row, [&](int64_t begin, int64_t end) {
    context_.kernels.kv_write({.k = p.k,
                               .v = p.v,
                               .k_dtype = p.k_dtype,
                               .v_dtype = p.v_dtype,
                               .ldk = row,
                               .ldv = row,
                               .slot_mapping = p.slot_mapping,
                               .num_tokens = p.rows,
                               .kv = kv,
                               .token_begin = begin,
                               .token_end = end});
  }, kKvChunkTokens);
  return Status::Ok();
}

Status CpuOps::QkvRopeKvWrite(const tenon::QkvRopeKvWriteOpParams& p, Stream) {
  if (p.qkv_dtype != Dtype::kF32 || !IsFloat(p.q_dtype)) return UnsupportedDtype("qkv_rope_kv_write", "qkv must be f32");
  const tenon::QkvRopeKvWriteAttrs& attrs = *p.attrs;
  const int64_t row = (int64_t{attrs.num_heads} + 2 * attrs.num_kv_heads) * attrs.head_dim;
  ForRows(p.rows, row, [&](int64_t begin, int64_t end) {
    context_.kernels.qkv_rope_kv_write({.qkv = static_cast<const float*>(p.qkv),
                                        .ld_qkv = row,
                                        .cos_sin = p.cos_sin,
                                        .q_norm = p.q_norm,
                                        .k_norm = p.k_norm,
                                        .eps = attrs.eps,
                                        .num_heads = attrs.num_heads,
                                        .num_kv_heads = attrs.num_kv_heads,
                                        .head_dim = attrs.head_dim,
                                        .rotary_dim = attrs.rotary_dim,
                                        .interleaved = attrs.interleaved != 0,
                                        .q = p.q,
                                        .q_dtype = p.q_dtype,
                                        .slot_mapping = p.slot_mapping,
                                        .num_tokens = p.rows,
                                        .kv = *static_cast<const KvLayer*>(p.kv),
                                        .token_begin = begin,
                                        .token_end = end});
  }, kKvChunkTokens);
  return Status::Ok();
}

Status CpuOps::Add(const tenon::AddOpParams& p, Stream) {
  if (!IsFloat(p.a_dtype) || !IsFloat(p.b_dtype) || !IsFloat(p.y_dtype))
    return UnsupportedDtype("add", "operands must be floats");
  ForRows(p.elements, 1, [&](int64_t begin, int64_t end) {
    context_.kernels.add({p.a, p.a_dtype, p.b, p.b_dtype, p.y, p.y_dtype, begin, end});
  });
  return Status::Ok();
}

Status CpuOps::GatedAct(const tenon::GatedActOpParams& p, Stream) {
  if (!IsFloat(p.gate_dtype) || !IsFloat(p.up_dtype) || !IsFloat(p.y_dtype))
    return UnsupportedDtype("gated_act", "operands must be floats");
  ForRows(p.elements, 4, [&](int64_t begin, int64_t end) {
    context_.kernels.gated_act({p.gate, p.gate_dtype, p.up, p.up_dtype, p.y, p.y_dtype, begin, end}, p.activation);
  });
  return Status::Ok();
}

Status CpuOps::GatherRows(const tenon::GatherRowsOpParams& p, Stream) {
  ForRows(p.num_rows, p.row_bytes / 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      std::memcpy(static_cast<uint8_t*>(p.y) + row * p.row_bytes,
                  static_cast<const uint8_t*>(p.x) + p.rows[row] * p.row_bytes, static_cast<size_t>(p.row_bytes));
  });
  return Status::Ok();
}

Status CpuOps::Sample(const tenon::SampleOpParams& p, Stream) {
  if (p.logits_dtype != Dtype::kF32) return UnsupportedDtype("sample", "logits must be f32");
  return p.num_rows == 0 ? Status::Ok() : sampler_.Sample(p, [&](int64_t num_rows, const auto& fn) {
    context_.threads.ParallelFor(num_rows, fn);
  });
}

}  // namespace tenon_cpu
