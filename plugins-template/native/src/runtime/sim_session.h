// One loaded model. The thread that calls only enqueues: the step goes up to the device, kernels run, the results come down; WaitStep,
// on another thread, waits for that.
#pragma once

#include <set>

#include "settings.h"
#include "sim_ops.h"
#include "weights.h"

namespace tenon_backend_template {

class SimSession final : public tenon::Session {
 public:
  SimSession(const tenon::Plan& plan, sim::Memory& memory, const Settings& settings)
      : plan_(plan), constraints_(settings.mode->constraints), settings_(settings), pool_(memory),
        stream_(std::chrono::microseconds(settings.latency_us)), launcher_{memory, stream_, settings.faults},
        sampler_(plan.limits), ops_(launcher_, sampler_) {}
  // Before anything goes away that the device still uses.
  ~SimSession() override { stream_.Stop(); }

  Status LoadWeights(const std::vector<tenon::WeightRequest>& requests, const tenon::ProgressFn& progress,
                     std::vector<const void*>* handles) override {
    TENON_RETURN_IF_ERROR(settings_.faults.Strike("load", [this] { return stream_.cancelled(); }));
    stream_.EnqueueBegin();
    TENON_RETURN_IF_ERROR(WeightUploader(pool_, launcher_).UploadAll(requests, progress, &matrices_, handles));
    stream_.EnqueueEnd();
    TENON_RETURN_IF_ERROR(stream_.WaitEnd());
    return AllocateBuffers();
  }

  Status CreateKvCache(std::vector<tenon::KvHandle>* handles) override {
    for (const tenon::PlanKvLayer& layer : plan_.kv_layers) {
      if (layer.head_dim % KvLayer::kLanes != 0) return {tenon::StatusCode::kUnsupportedOp, "headDim is no multiple of 4"};
      KvLayer kv{{nullptr, layer.dtype}, layer.num_kv_heads, layer.head_dim, plan_.limits.block_size, plan_.limits.num_blocks};
      const int64_t bytes = kv.num_elements() * tenon::kDtypeBytes[static_cast<int32_t>(layer.dtype)];
      TENON_RETURN_IF_ERROR(pool_.Allocate(tenon::Arena::kKv, static_cast<size_t>(bytes), &kv.data.data));
      kv_layers_.push_back(kv);
    }
    for (const KvLayer& layer : kv_layers_) handles->push_back(&layer);
    return Status::Ok();
  }

  tenon::MemoryPool& memory() override { return pool_; }
  tenon::Gemm& gemm() override { return ops_; }
  tenon::Attention& attention() override { return ops_; }
  tenon::Ops& ops() override { return ops_; }
  tenon::Stream stream() override { return {&launcher_}; }

  // The host's words are copied at once, as they are its own again after EndStep; they arrive when the device comes to it.
  Status BeginStep(const tenon::StepView& host_step, const tenon::ResultView& host_result, tenon::StepView* step,
                   tenon::ResultView* result) override {
    TENON_RETURN_IF_ERROR(CheckShape(host_step));
    TENON_RETURN_IF_ERROR(step_.Fit(host_step.size_words(), pool_));
    TENON_RETURN_IF_ERROR(result_.Fit(host_result.size_words(), pool_));
    *step = host_step.Rebased(step_.data);
    *result = host_result.Rebased(result_.data);
    host_result_ = host_result;
    device_result_ = *result;

    stream_.EnqueueBegin();
    if (host_step.num_tokens > 0) EnqueueFaults();
    std::vector<int32_t> staged(host_step.words(), host_step.words() + host_step.size_words());
    Launch upload(launcher_, "upload");
    int32_t* words = step_.data;
    upload.In(words, static_cast<int64_t>(staged.size()));
    return upload.Run([this, staged = std::move(staged), words, on_device = upload.In(*step)] {
      std::copy(staged.begin(), staged.end(), words);
      sampler_.BeginStep(on_device);
    });
  }

  Status EndStep() override {
    Launch download(launcher_, "download");
    int32_t *words = device_result_.words(), *host = host_result_.words();
    const auto size = static_cast<int64_t>(device_result_.size_words());
    download.In(words, size);
    TENON_RETURN_IF_ERROR(download.Run([words, host, size] { std::copy_n(words, size, host); }));
    stream_.EnqueueEnd();
    return Status::Ok();
  }

  bool IsAsynchronous() const override { return true; }
  Status WaitStep() override { return stream_.WaitEnd(); }
  void Cancel() override { stream_.Cancel(); }

  bool CanCapture() const override { return constraints_.capture; }
  Status BeginCapture() override {
    launcher_.recording = std::make_unique<SimGraph>();
    return Status::Ok();
  }
  Status EndCapture(std::unique_ptr<tenon::Graph>* graph) override {
    *graph = std::move(launcher_.recording);
    return Status::Ok();
  }
  Status Replay(tenon::Graph& graph) override {
    for (const auto& kernel : static_cast<SimGraph&>(graph).kernels) stream_.Enqueue([kernel] { return (*kernel)(); });
    return Status::Ok();
  }
  Status BeginRebind(tenon::Graph& graph) override {
    launcher_.rebinding = &static_cast<SimGraph&>(graph);
    launcher_.num_rebound = 0;
    return Status::Ok();
  }
  Status EndRebind() override {
    launcher_.rebinding = nullptr;
    return Status::Ok();
  }

  void Freeze() override {
    allocations_at_freeze_ = pool_.num_allocations();
    frozen_ = true;
  }
  tenon::SessionCounters counters() const override {
    return {.compiles = num_compiles_, .allocations = frozen_ ? pool_.num_allocations() - allocations_at_freeze_ : 0};
  }

 private:
  // A place on the device for steps or results. One is enough for each, as work is done in order. It grows for rare steps with lists
  // of tokens; what it was before stays for work that is under way.
  struct Buffer {
    int32_t* data = nullptr;
    size_t size = 0;
    Status Fit(size_t words, SimPool& pool) {
      if (words <= size) return Status::Ok();
      void* larger = nullptr;
      TENON_RETURN_IF_ERROR(pool.Allocate(tenon::Arena::kWorkspace, std::max(words, 2 * size) * sizeof(int32_t), &larger));
      data = static_cast<int32_t*>(larger);
      size = std::max(words, 2 * size);
      return Status::Ok();
    }
  };
  static constexpr size_t kPlainLogprobs = 20;  // per row; more are rare

  Status AllocateBuffers() {
    const tenon::PlanLimits& limits = plan_.limits;
    int32_t head_dim = 0;
    for (const tenon::PlanKvLayer& layer : plan_.kv_layers) head_dim = std::max(head_dim, layer.head_dim);
    void* scratch = nullptr;
    const auto scratch_bytes = static_cast<size_t>(limits.max_model_len + head_dim) * sizeof(float);
    TENON_RETURN_IF_ERROR(pool_.Allocate(tenon::Arena::kWorkspace, scratch_bytes, &scratch));
    ops_.set_scratch(scratch);
    TENON_RETURN_IF_ERROR(step_.Fit(tenon::StepView::MaxPlainWords(limits), pool_));
    return result_.Fit(tenon::kResultHeaderWords + static_cast<size_t>(limits.max_logit_rows) * (3 + 2 * kPlainLogprobs), pool_);
  }

  // Steps are of the shapes that the device has kernels for; core pads them. A new shape is compiled.
  Status CheckShape(const tenon::StepView& step) {
    const auto has = [&](const std::vector<int>& sizes) { return std::find(sizes.begin(), sizes.end(), step.num_tokens) != sizes.end(); };
    if (step.num_tokens == 0 || constraints_.token_buckets.empty()) return Status::Ok();
    if (!has(constraints_.token_buckets) && !(step.num_tokens == step.num_seqs && has(constraints_.decode_buckets)))
      return Status::Error(tenon::StatusCode::kStepFailed, "there are no kernels for a step of %d tokens and %d sequences, which is none of the buckets",
                           step.num_tokens, step.num_seqs);
    if (compiled_.insert(step.num_tokens).second && frozen_) ++num_compiles_;
    return Status::Ok();
  }

  void EnqueueFaults() {
    const bool is_warmup = constraints_.warmup && !frozen_;
    const int64_t number = is_warmup ? 0 : ++num_steps_;
    stream_.Enqueue([this, is_warmup, number] {
      return settings_.faults.Strike(is_warmup ? "warmup" : "step", [this] { return stream_.cancelled(); }, number);
    });
  }

  const tenon::Plan& plan_;
  const tenon::SchedulingConstraints& constraints_;
  const Settings& settings_;
  SimPool pool_;
  sim::Stream stream_;
  Launcher launcher_;
  tenon::HostSampler sampler_;  // the device's: what it remembers of sequences
  SimOps ops_;
  std::vector<Matrix> matrices_;
  std::vector<KvLayer> kv_layers_;
  Buffer step_, result_;
  tenon::ResultView host_result_, device_result_;  // of the step being enqueued
  std::set<int32_t> compiled_;                     // token counts of steps so far
  int64_t num_steps_ = 0;                          // after the warm-up
  std::atomic<bool> frozen_{false};
  std::atomic<uint64_t> num_compiles_{0}, allocations_at_freeze_{0};
};

}  // namespace tenon_backend_template
