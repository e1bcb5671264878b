// The SDK's ops as launches of the kernels.
#pragma once

#include <memory>

#include "cublas_lt.h"
#include "kernels.h"
#include "pool.h"
#include "tenon/interfaces.h"
#include "tenon/plan.h"

namespace tenon_cuda {

class CudaOps final : public tenon::Gemm, public tenon::Attention, public tenon::Ops {
 public:
  explicit CudaOps(const tenon::PlanLimits& limits) : limits_(limits) {}

  // Scratch memory of the kernels, and the sampler's state.
  tenon::Status Allocate(Pool& pool, size_t attention_bytes, size_t sample_bytes);
  // Notes what the host knows of the step, and takes over the histories it brings.
  tenon::Status BeginStep(const tenon::StepView& host_step, const tenon::StepView& step, cudaStream_t stream);
  void set_recording(bool recording) { recording_ = recording; }

  tenon::Status Linear(const tenon::LinearParams& params, tenon::Stream stream) override;
  tenon::Status LinearGated(const tenon::GatedLinearParams& params, tenon::Stream stream) override;
  tenon::Status Run(const tenon::AttentionOpParams& params, tenon::Stream stream) override;
  tenon::Status Embedding(const tenon::EmbeddingOpParams& params, tenon::Stream stream) override;
  tenon::Status RmsNorm(const tenon::RmsNormOpParams& params, tenon::Stream stream) override;
  tenon::Status RopeCosSin(const tenon::RopeCosSinOpParams& params, tenon::Stream stream) override;
  tenon::Status Rope(const tenon::RopeOpParams& params, tenon::Stream stream) override;
  tenon::Status KvWrite(const tenon::KvWriteOpParams& params, tenon::Stream stream) override;
  tenon::Status QkvRopeKvWrite(const tenon::QkvRopeKvWriteOpParams& params, tenon::Stream stream) override;
  tenon::Status Add(const tenon::AddOpParams& params, tenon::Stream stream) override;
  tenon::Status GatedAct(const tenon::GatedActOpParams& params, tenon::Stream stream) override;
  tenon::Status GatherRows(const tenon::GatherRowsOpParams& params, tenon::Stream stream) override;
  tenon::Status Sample(const tenon::SampleOpParams& params, tenon::Stream stream) override;

 private:
  tenon::Status AllocateForLinear(Pool& pool);

  // What no region of the step on the device says.
  struct HostFacts {
    int32_t max_seq_len = 0, max_query_len = 0, num_single = 0;
    bool any_random = true, any_limits = true, any_logprobs = true, any_edits = true;
  };

  const tenon::PlanLimits limits_;
  HostFacts facts_;
  bool recording_ = false;
  SampleState sample_state_{};
  void* attention_scratch_ = nullptr;
  void* linear_scratch_ = nullptr;
  std::unique_ptr<CublasLt> cublas_lt_;  // or null
  void* sample_scratch_ = nullptr;
};

}  // namespace tenon_cuda
