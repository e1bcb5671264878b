// One loaded plan on a GPU: its stream, the buffers of the steps in flight, weights, cache, and recorded steps.
//
// A step's way: BeginStep packs it into pinned memory and enqueues its upload; the ops enqueue kernels; EndStep enqueues the
// download of the results and an event; WaitStep, on the completion thread, waits for the event. Two lanes of pinned buffers take
// turns, so that the device always has the next step before it has ended this one. On the device, where one step follows the
// other, one buffer is enough; so a recorded step is recorded once.
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
  bool TimesOfStep(tenon::StepTimes* times) override;
  void Cancel() override { cancelled_.store(true); }

  bool CanCapture() const override { return true; }
  bool RecordsAfterwards() const override { return true; }
  tenon::Status BeginCapture() override;
  tenon::Status EndCapture(std::unique_ptr<tenon::Graph>* graph) override;
  tenon::Status Replay(tenon::Graph& graph) override;

  void Freeze() override {
    allocations_at_freeze_ = pool_.num_allocations();
    frozen_ = true;
  }
  tenon::SessionCounters counters() const override;

 private:
  // Words that the host and the device know, in pinned memory and on the device.
  struct Buffer {
    int32_t* data = nullptr;
    size_t words = 0;
  };
  // What one step in flight has on the host.
  struct Lane {
    Buffer step, result;
    cudaEvent_t done = nullptr;
    tenon::ResultView host_result;
  };
  // Of a step: recorded where the device's times are asked for.
  struct TimedStep {
    cudaEvent_t begin = nullptr, end = nullptr;
  };
  static constexpr size_t kNumLanes = 2;
  static constexpr size_t kNumTimed = kNumLanes + 1;  // the step that was waited for before, too

  explicit CudaSession(const tenon::Plan& plan) : plan_(plan), ops_(plan.limits) {}
  tenon::Status Init(int num_sms);
  tenon::Status CheckOps() const;
  // Waits for what is enqueued; false where that does not end, and the session was given up.
  bool ComesToRest() const;
  tenon::Status AllocateScratch(int num_sms);
  // Makes room for so many words; waits for the device where it has to grow.
  tenon::Status ReservePinned(Buffer& buffer, size_t words);
  tenon::Status ReserveOnDevice(Buffer& buffer, size_t words);
  tenon::Status AskForTimes();
  tenon::Status Reserve(size_t step_words, size_t result_words);

  const tenon::Plan& plan_;
  int num_sms_ = 0;
  int device_ = 0;
  Pool pool_;
  CudaOps ops_;
  cudaStream_t stream_ = nullptr;
  std::vector<LoadedWeight> weights_;
  std::vector<KvLayer> kv_layers_;
  Buffer device_step_, device_result_;
  std::array<Lane, kNumLanes> lanes_;
  std::array<TimedStep, kNumTimed> timed_;
  bool takes_times_ = false;
  size_t num_begun_ = 0;   // steps, of the device thread
  size_t num_waited_ = 0;  // of the completion thread
  Lane* lane_ = nullptr;   // of the step that is being enqueued
  std::atomic<bool> cancelled_{false};
  std::atomic<uint64_t> host_syncs_{0};
  std::atomic<bool> frozen_{false};
  std::atomic<uint64_t> allocations_at_freeze_{0};
};

}  // namespace tenon_cuda
