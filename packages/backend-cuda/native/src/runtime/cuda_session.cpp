#include "cuda_session.h"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstring>

#include "cuda_status.h"
#include "negotiate.h"

namespace tenon_cuda {
namespace {

using tenon::Arena;
using tenon::Status;
using tenon::StatusCode;
using tenon::StepRegion;

constexpr size_t kAlignment = 256;
// While a step computes, its results are looked for this often; a CPU core that spins would buy nothing.
constexpr long kPollNanoseconds = 5'000;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

class CudaGraph final : public tenon::Graph {
 public:
  explicit CudaGraph(cudaGraphExec_t executable) : executable_(executable) {}
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  cudaGraphExec_t executable() const { return executable_; }

 private:
  const cudaGraphExec_t executable_;
};

}  // namespace

Status CudaSession::Create(const tenon::Plan& plan, int num_sms, std::unique_ptr<tenon::Session>* session) {
  auto made = std::unique_ptr<CudaSession>(new CudaSession(plan));
  TENON_RETURN_IF_ERROR(made->Init(num_sms));
  *session = std::move(made);
  return Status::Ok();
}

Status CudaSession::Init(int num_sms) {
  num_sms_ = num_sms;
  TENON_RETURN_IF_ERROR(CheckOps());
  TENON_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  for (Lane& lane : lanes_) TENON_CUDA(cudaEventCreateWithFlags(&lane.done, cudaEventDisableTiming));
  return Status::Ok();
}

CudaSession::~CudaSession() {
  if (stream_ != nullptr && !cancelled_.load()) cudaStreamSynchronize(stream_);
  for (Lane& lane : lanes_) Release(lane);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

// Limits that negotiation has said; a plan that ignores them is refused.
Status CudaSession::CheckOps() const {
  for (const tenon::PlanOp& op : plan_.ops) {
    const tenon::OpAnswer answer = AnswerFor({.op = op.id, .attr_words = op.attr_words});
    if (answer.support != tenon::OpSupport::kNative)
      return Status::Error(StatusCode::kUnsupportedOp, "%s on the GPU: %s", op.name(), answer.reason.c_str());
  }
  return Status::Ok();
}

Status CudaSession::LoadWeights(const std::vector<tenon::WeightRequest>& requests, const tenon::ProgressFn& progress,
                                std::vector<const void*>* handles) {
  TENON_RETURN_IF_ERROR(tenon_cuda::LoadWeights(requests, pool_, cancelled_, progress, &weights_));
  for (size_t i = 0; i < requests.size(); ++i) handles->push_back(weights_[i].data);
  return AllocateScratch(num_sms_);
}

// What the kernels need besides the plan's own buffers, for the largest step there may be.
Status CudaSession::AllocateScratch(int /*num_sms*/) {
  const tenon::PlanLimits& limits = plan_.limits;
  size_t attention = 0;
  for (const tenon::PlanOp& op : plan_.ops) {
    if (op.id != tenon::OpId::kAttention) continue;
    const auto& attrs = op.attrs<tenon::AttentionAttrs>();
    attention = std::max(attention, AttentionScratchBytes(limits.max_tokens, limits.max_seqs, limits.max_model_len,
                                                          attrs.num_heads, attrs.head_dim));
  }
  int64_t sampled_rows = 0;
  for (const tenon::PlanSegment& segment : plan_.segments)
    sampled_rows = std::max<int64_t>(sampled_rows, segment.tile > 0 ? segment.tile : limits.max_logit_rows);
  TENON_RETURN_IF_ERROR(ops_.Allocate(pool_, attention, SampleScratchBytes(sampled_rows, limits.vocab_size)));
  for (Lane& lane : lanes_) TENON_RETURN_IF_ERROR(Reserve(lane, tenon::StepView::MaxPlainWords(limits), 1024));
  return Status::Ok();
}

Status CudaSession::CreateKvCache(std::vector<tenon::KvHandle>* handles) {
  const auto half_bytes = [&](const tenon::PlanKvLayer& layer) {
    const int64_t elements = int64_t{layer.num_kv_heads} * layer.head_dim * plan_.limits.block_size * plan_.limits.num_blocks;
    return RoundUp(static_cast<size_t>(elements * tenon::kDtypeBytes[static_cast<int32_t>(layer.dtype)]), kAlignment);
  };
  size_t total = 0;
  for (const tenon::PlanKvLayer& layer : plan_.kv_layers) total += 2 * half_bytes(layer);
  if (total == 0) return Status::Ok();
  void* data = nullptr;
  TENON_RETURN_IF_ERROR(pool_.Allocate(Arena::kKv, total, &data));
  auto* next = static_cast<uint8_t*>(data);
  for (const tenon::PlanKvLayer& layer : plan_.kv_layers) {
    const size_t half = half_bytes(layer);
    kv_layers_.push_back(
        {next, next + half, layer.num_kv_heads, layer.head_dim, plan_.limits.block_size, static_cast<Type>(layer.dtype)});
    next += 2 * half;
  }
  for (const KvLayer& layer : kv_layers_) handles->push_back(&layer);
  return Status::Ok();
}

Status CudaSession::Reserve(Lane& lane, size_t step_words, size_t result_words) {
  void* device = nullptr;
  if (step_words > lane.step_words) {
    if (lane.pinned_step != nullptr) cudaFreeHost(lane.pinned_step);
    if (lane.device_step != nullptr) pool_.Free(lane.device_step);
    lane.step_words = 0;
    TENON_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&lane.pinned_step), step_words * sizeof(int32_t), cudaHostAllocDefault));
    TENON_RETURN_IF_ERROR(pool_.Allocate(Arena::kWorkspace, step_words * sizeof(int32_t), &device));
    lane.device_step = static_cast<int32_t*>(device);
    lane.step_words = step_words;
  }
  if (result_words > lane.result_words) {
    if (lane.pinned_result != nullptr) cudaFreeHost(lane.pinned_result);
    if (lane.device_result != nullptr) pool_.Free(lane.device_result);
    lane.result_words = 0;
    TENON_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&lane.pinned_result), result_words * sizeof(int32_t), cudaHostAllocDefault));
    TENON_RETURN_IF_ERROR(pool_.Allocate(Arena::kWorkspace, result_words * sizeof(int32_t), &device));
    lane.device_result = static_cast<int32_t*>(device);
    lane.result_words = result_words;
  }
  return Status::Ok();
}

void CudaSession::Release(Lane& lane) {
  if (lane.pinned_step != nullptr) cudaFreeHost(lane.pinned_step);
  if (lane.pinned_result != nullptr) cudaFreeHost(lane.pinned_result);
  if (lane.done != nullptr) cudaEventDestroy(lane.done);
}

Status CudaSession::BeginStep(const tenon::StepView& host_step, const tenon::ResultView& host_result, tenon::StepView* step,
                              tenon::ResultView* result) {
  lane_ = &lanes_[next_lane_];
  const size_t step_words = host_step.packed_words(), result_words = host_result.size_words();
  if (step_words > lane_->step_words || result_words > lane_->result_words) {
    // cudaFree waits for the device
    ++host_syncs_;
    const auto grown = [](size_t wanted, size_t have) { return wanted > have ? wanted + wanted / 2 : have; };
    TENON_RETURN_IF_ERROR(Reserve(*lane_, grown(step_words, lane_->step_words), grown(result_words, lane_->result_words)));
  }
  const tenon::StepView staged = host_step.Pack(lane_->pinned_step);
  TENON_CUDA(cudaMemcpyAsync(lane_->device_step, lane_->pinned_step, staged.size_words() * sizeof(int32_t),
                             cudaMemcpyHostToDevice, stream_));
  *step = staged.Rebased(lane_->device_step);
  *result = host_result.Rebased(lane_->device_result);
  lane_->host_result = host_result;
  return ops_.BeginStep(host_step, *step, stream_);
}

Status CudaSession::EndStep() {
  TENON_CUDA(cudaMemcpyAsync(lane_->pinned_result, lane_->device_result, lane_->host_result.size_words() * sizeof(int32_t),
                             cudaMemcpyDeviceToHost, stream_));
  TENON_CUDA(cudaEventRecord(lane_->done, stream_));
  next_lane_ = (next_lane_ + 1) % kNumLanes;
  return Status::Ok();
}

Status CudaSession::WaitStep() {
  Lane& lane = lanes_[oldest_lane_];
  oldest_lane_ = (oldest_lane_ + 1) % kNumLanes;
  for (;;) {
    const cudaError_t state = cudaEventQuery(lane.done);
    if (state == cudaSuccess) break;
    if (state != cudaErrorNotReady) return FromCuda(state, "a step on the GPU");
    if (cancelled_.load()) return Status(StatusCode::kDeviceLost, "the step was given up");
    const timespec pause{0, kPollNanoseconds};
    nanosleep(&pause, nullptr);
  }
  std::memcpy(lane.host_result.words(), lane.pinned_result, lane.host_result.size_words() * sizeof(int32_t));
  return Status::Ok();
}

Status CudaSession::BeginCapture() {
  TENON_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  ops_.set_recording(true);
  return Status::Ok();
}

Status CudaSession::EndCapture(std::unique_ptr<tenon::Graph>* graph) {
  ops_.set_recording(false);
  cudaGraph_t recorded = nullptr;
  TENON_CUDA(cudaStreamEndCapture(stream_, &recorded));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, recorded, 0);
  cudaGraphDestroy(recorded);
  TENON_CUDA(error);
  *graph = std::make_unique<CudaGraph>(executable);
  return Status::Ok();
}

Status CudaSession::Replay(tenon::Graph& graph) {
  TENON_CUDA(cudaGraphLaunch(static_cast<CudaGraph&>(graph).executable(), stream_));
  return Status::Ok();
}

tenon::SessionCounters CudaSession::counters() const {
  return {.allocations = frozen_ ? pool_.num_allocations() - allocations_at_freeze_ : 0, .host_syncs = host_syncs_.load()};
}

}  // namespace tenon_cuda
