// One loaded plan: its weights, KV cache, scratch and sampler, and the ops over them.
#pragma once

#include <atomic>
#include <vector>

#include "cpu_attention.h"
#include "cpu_gemm.h"
#include "cpu_ops.h"
#include "memory_pool.h"
#include "tenon/device.h"
#include "weights.h"

namespace tenon_cpu {

class CpuSession final : public tenon::Session {
 public:
  CpuSession(const tenon::Plan& plan, const Kernels& kernels, ThreadPool& threads, uint64_t free_bytes)
      : plan_(plan),
        context_{kernels, threads},
        pool_(threads, free_bytes),
        gemm_(context_),
        attention_(context_),
        ops_(context_, plan.limits) {}

  tenon::Status LoadWeights(const std::vector<WeightRequest>& requests, const ProgressFn& progress,
                            std::vector<const void*>* handles) override;
  tenon::Status CreateKvCache(std::vector<tenon::KvHandle>* handles) override;

  tenon::MemoryPool& memory() override { return pool_; }
  tenon::Gemm& gemm() override { return gemm_; }
  tenon::Attention& attention() override { return attention_; }
  tenon::Ops& ops() override { return ops_; }

  tenon::Status BeginStep(const tenon::StepView& host_step, const tenon::ResultView& host_result, tenon::StepView* step,
                          tenon::ResultView* result) override;
  tenon::Status EndStep() override { return tenon::Status::Ok(); }
  void Cancel() override { cancelled_ = true; }

 private:
  tenon::Status CheckOps() const;
  tenon::Status AllocateScratch();
  tenon::Status AllocateQuantizedRows();
  void PrepareGemm();

  std::atomic<bool> cancelled_{false};
  const tenon::Plan& plan_;
  OpContext context_;
  CpuMemoryPool pool_;
  CpuGemm gemm_;
  CpuAttention attention_;
  CpuOps ops_;
  std::vector<LoadedWeight> weights_;
  void* weights_memory_ = nullptr;  // all of them; freed with the pool
  std::vector<KvLayer> kv_layers_;
};

// Bytes of one block of K, and of V.
int64_t KvBlockBytes(const tenon::PlanKvLayer& layer, int block_size);

// Whether the kernels can run an op with these attributes and operand types, and the name of the kernel.
tenon::OpAnswer AnswerFor(const tenon::OpQuery& query, const Kernels& kernels);

}  // namespace tenon_cpu
