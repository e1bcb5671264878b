// One loaded plan on a GPU: its stream, the buffers of the steps in flight, weights, cache, and recorded steps.
//
// A step's way: BeginStep packs it into pinned memory and enqueues its upload; the ops enqueue kernels; EndStep enqueues the
// download of the results and an event; WaitStep, on the completion thread, waits for the event. Two lanes of buffers take turns,
// so that the device always has the next step before it has ended this one.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "cuda_ops.h"
#include "pool.h"
#include "tenon/device.h"
#include "weights.h"

namespace tenon_cuda {

class CudaSession final : public tenon::Session {
 public:
  static tenon::Status Create(const tenon::Plan& plan, int num_sms, std::unique_ptr<tenon::Session>* session);
  ~CudaSession() override;

  tenon::Status LoadWeights(const std::vector<tenon::WeightRequest>& requests, const tenon::ProgressFn& progress,
                            std::vector<const void*>* handles) override;
  tenon::Status CreateKvCache(std::vector<tenon::KvHandle>* handles) override;

  tenon::MemoryPool& memory() override { return pool_; }
  tenon::Gemm& gemm() override { return ops_; }
  tenon::Attention& attention() override { return ops_; }
  tenon::Ops& ops() override { return ops_; }
  tenon::Stream stream() override { return {stream_}; }

  tenon::Status BeginStep(const tenon::StepView& host_step, const tenon::ResultView& host_result, tenon::StepView* step,
                          tenon::ResultView* result) override;
  tenon::Status EndStep() override;
  bool IsAsynchronous() const override { return true; }
  tenon::Status WaitStep() override;
  void Cancel() override { cancelled_.store(true); }

  bool CanCapture() const override { return true; }
  tenon::Status BeginCapture() override;
  tenon::Status EndCapture(std::unique_ptr<tenon::Graph>* graph) override;
  tenon::Status Replay(tenon::Graph& graph) override;

  void Freeze() override {
    allocations_at_freeze_ = pool_.num_allocations();
    frozen_ = true;
  }
  tenon::SessionCounters counters() const override;

 private:
  // Buffers of one step in flight.
  struct Lane {
    int32_t* pinned_step = nullptr;
    int32_t* device_step = nullptr;
    size_t step_words = 0;
    int32_t* pinned_result = nullptr;
    int32_t* device_result = nullptr;
    size_t result_words = 0;
    cudaEvent_t done = nullptr;
    tenon::ResultView host_result;
  };
  static constexpr size_t kNumLanes = 2;

  explicit CudaSession(const tenon::Plan& plan) : plan_(plan), ops_(plan.limits) {}
  tenon::Status Init(int num_sms);
  tenon::Status CheckOps() const;
  tenon::Status AllocateScratch(int num_sms);
  // Makes the lane's buffers at least so large; nothing of the lane is in use.
  tenon::Status Reserve(Lane& lane, size_t step_words, size_t result_words);
  void Release(Lane& lane);

  const tenon::Plan& plan_;
  int num_sms_ = 0;
  Pool pool_;
  CudaOps ops_;
  cudaStream_t stream_ = nullptr;
  std::vector<LoadedWeight> weights_;
  std::vector<KvLayer> kv_layers_;
  std::array<Lane, kNumLanes> lanes_;
  size_t next_lane_ = 0;    // of the device thread
  size_t oldest_lane_ = 0;  // of the completion thread
  Lane* lane_ = nullptr;    // of the step that is being enqueued
  std::atomic<bool> cancelled_{false};
  std::atomic<uint64_t> host_syncs_{0};
  std::atomic<bool> frozen_{false};
  std::atomic<uint64_t> allocations_at_freeze_{0};
};

}  // namespace tenon_cuda
