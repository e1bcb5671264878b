// The SDK's ops: each puts one kernel of kernels/ on the stream. What the device cannot run is said in negotiate.h alone; the session
// refuses plans with such ops.
//
// Params are copied into the work, with addresses that device code may follow: what they point to (step, attrs) is the caller's.
#pragma once

#include "add.h"
#include "attention.h"
#include "embedding.h"
#include "gated_act.h"
#include "gather_rows.h"
#include "kv_write.h"
#include "launch.h"
#include "linear.h"
#include "rms_norm.h"
#include "rope.h"
#include "rope_cos_sin.h"
#include "tenon/host_sampler.h"

namespace tenon_backend_template {

using tenon::Status;

class SimOps final : public tenon::Ops, public tenon::Gemm, public tenon::Attention {
 public:
  SimOps(Launcher& launcher, tenon::HostSampler& sampler) : launcher_(launcher), sampler_(sampler) {}
  // Device memory of [max_model_len + largest head_dim] f32, for attention.
  void set_scratch(void* scratch) { scratch_ = static_cast<float*>(scratch); }

  Status Embedding(const tenon::EmbeddingOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "embedding");
    tenon::EmbeddingOpParams p = params;
    launch.In(p.token_ids, p.rows);
    launch.Out(p.y, p.rows * p.hidden, p.y_dtype);
    return launch.Run([p, step = launch.In(*p.step), weight = launch.In(p.weight), &sampler = sampler_] {
      kernels::Embedding(p, step, weight, sampler);
    });
  }

  Status Linear(const tenon::LinearParams& params, tenon::Stream) override {
    Launch launch(launcher_, params.residual == nullptr ? "linear" : "linear_add");
    tenon::LinearParams p = params;
    launch.In(p.x, p.rows * p.k, p.x_dtype);
    launch.In(p.bias, p.n);
    launch.In(p.residual, p.rows * p.n, p.residual_dtype);
    launch.Out(p.y, p.rows * p.n, p.y_dtype);
    return launch.Run([p, weight = launch.In(p.weight)] { kernels::Linear(p, weight); });
  }

  Status RmsNorm(const tenon::RmsNormOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "rms_norm");
    tenon::RmsNormOpParams p = params;
    launch.In(p.x, p.rows * p.size, p.x_dtype);
    launch.In(p.weight, p.size);
    launch.Out(p.y, p.rows * p.size, p.y_dtype);
    return launch.Run([p] { kernels::RmsNorm(p); });
  }

  Status RopeCosSin(const tenon::RopeCosSinOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "rope_cos_sin");
    tenon::RopeCosSinOpParams p = params;
    launch.In(p.positions, p.rows);
    launch.In(p.inv_freq, p.attrs->rotary_dim / 2);
    launch.Out(p.y, p.rows * p.attrs->rotary_dim);
    return launch.Run([p, attrs = *p.attrs, step = launch.In(*p.step)] { kernels::RopeCosSin(p, attrs, step); });
  }

  Status Rope(const tenon::RopeOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "rope");
    tenon::RopeOpParams p = params;
    const int64_t elements = p.rows * p.attrs->num_heads * p.attrs->head_dim;
    launch.In(p.x, elements, p.x_dtype);
    launch.In(p.cos_sin, p.rows * p.attrs->rotary_dim);
    launch.Out(p.y, elements, p.y_dtype);
    return launch.Run([p, attrs = *p.attrs] { kernels::Rope(p, attrs); });
  }

  Status KvWrite(const tenon::KvWriteOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "kv_write");
    tenon::KvWriteOpParams p = params;
    const KvLayer kv = launch.OutKv(p.kv);
    launch.In(p.k, p.rows * kv.num_heads * kv.head_dim, p.k_dtype);
    launch.In(p.v, p.rows * kv.num_heads * kv.head_dim, p.v_dtype);
    launch.In(p.slot_mapping, p.rows);
    return launch.Run([p, kv] { kernels::KvWrite(p, kv); });
  }

  // The longest sequence is known to the host alone, so a recorded launch has to be rebound.
  Status Run(const tenon::AttentionOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "attention");
    tenon::AttentionOpParams p = params;
    const int32_t* seq_lens = p.step->HostInts(tenon::StepRegion::kSeqLens);
    const int32_t max_len = p.step->num_seqs == 0 ? 0 : *std::max_element(seq_lens, seq_lens + p.step->num_seqs);
    const int64_t elements = int64_t{p.step->num_tokens} * p.attrs->num_heads * p.attrs->head_dim;
    float* scratch = scratch_;
    launch.In(p.q, elements, p.q_dtype);
    launch.In(scratch, max_len + p.attrs->head_dim);
    launch.Out(p.y, elements, p.y_dtype);
    return launch.Run(kernels::Attention(p, *p.attrs, launch.In(*p.step), launch.InKv(p.kv), max_len, scratch),
                      /*needs_rebind=*/true);
  }

  Status Add(const tenon::AddOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "add");
    tenon::AddOpParams p = params;
    launch.In(p.a, p.elements, p.a_dtype);
    launch.In(p.b, p.elements, p.b_dtype);
    launch.Out(p.y, p.elements, p.y_dtype);
    return launch.Run([p] { kernels::Add(p); });
  }

  Status GatedAct(const tenon::GatedActOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "gated_act");
    tenon::GatedActOpParams p = params;
    launch.In(p.gate, p.elements, p.gate_dtype);
    launch.In(p.up, p.elements, p.up_dtype);
    launch.Out(p.y, p.elements, p.y_dtype);
    return launch.Run([p] { kernels::GatedAct(p); });
  }

  Status GatherRows(const tenon::GatherRowsOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "gather_rows");
    tenon::GatherRowsOpParams p = params;
    const Dtype dtype = p.row_bytes % 4 == 0 ? Dtype::kF32 : Dtype::kBf16;
    const int64_t row = p.row_bytes / tenon::kDtypeBytes[static_cast<int32_t>(dtype)];
    launch.In(p.x, p.num_rows == 0 ? 0 : row, dtype);
    launch.In(p.rows, p.num_rows);
    launch.Out(p.y, p.num_rows * row, dtype);
    return launch.Run([p] { kernels::GatherRows(p); });
  }

  // The SDK's plain C++, run on the device: one with kernels for it would sort and draw there.
  Status Sample(const tenon::SampleOpParams& params, tenon::Stream) override {
    Launch launch(launcher_, "sample");
    tenon::SampleOpParams p = params;
    int32_t* words = p.result->words();
    float* logprobs = p.result->logprobs;
    launch.In(words, static_cast<int64_t>(p.result->size_words()));
    launch.In(p.logits, p.num_rows * p.vocab, p.logits_dtype);
    launch.Out(logprobs, p.num_rows);
    return launch.Run([p, step = launch.In(*p.step), result = p.result->Rebased(words), &sampler = sampler_] {
      tenon::SampleOpParams own = p;
      own.step = &step;
      own.result = &result;
      return sampler.Sample(own);
    });
  }

  Status LinearGated(const tenon::GatedLinearParams&, tenon::Stream) override { return Missing("linear_gated"); }
  Status QkvRopeKvWrite(const tenon::QkvRopeKvWriteOpParams&, tenon::Stream) override { return Missing("qkv_rope_kv_write"); }

 private:
  static Status Missing(const char* op) {
    return Status::Error(tenon::StatusCode::kUnsupportedOp, "the device has no kernel for %s", op);
  }

  Launcher& launcher_;
  tenon::HostSampler& sampler_;
  float* scratch_ = nullptr;
};

}  // namespace tenon_backend_template
