#include "cuda_session.h"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "cuda_status.h"
#include "negotiate.h"

namespace tenon_cuda {
namespace {

using tenon::Arena;
using tenon::Status;
using tenon::StatusCode;
using tenon::StepRegion;

constexpr size_t kAlignment = 256;
// 1: steps are timed on the device.
constexpr const char* kTimesVariable = "TENON_CUDA_STEP_TIMES";
// While a step computes, its results are looked for this often; a CPU core that spins would buy nothing. The kernel's own slack for
// timers is ten times that.
constexpr long kPollNanoseconds = 5'000;
thread_local const int poll_is_punctual = prctl(PR_SET_TIMERSLACK, 1'000UL);
// How long a GPU may take to end what a session that was given up has enqueued.
constexpr auto kPatience = std::chrono::seconds(2);

// Of the largest step whose rows want up to twenty top logprobs; results with more grow.
size_t PlainResultWords(const tenon::PlanLimits& limits) {
  constexpr size_t kTopLogprobs = 20;
  return tenon::kResultHeaderWords + static_cast<size_t>(limits.max_logit_rows) * (3 + 2 * kTopLogprobs);
}

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
  TENON_CUDA(cudaGetDevice(&device_));
  TENON_RETURN_IF_ERROR(CheckOps());
  TENON_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  for (Lane& lane : lanes_) TENON_CUDA(cudaEventCreateWithFlags(&lane.done, cudaEventDisableTiming));
  return AskForTimes();
}

CudaSession::~CudaSession() {
  if (!ComesToRest()) {  // a GPU that hangs: whatever frees its memory would wait for it
    pool_.Abandon();
    return;
  }
  for (Lane& lane : lanes_) {
    for (const Buffer& buffer : {lane.step, lane.result})
      if (buffer.data != nullptr) cudaFreeHost(buffer.data);
    if (lane.done != nullptr) cudaEventDestroy(lane.done);
  }
  for (const TimedStep& timed : timed_)
    for (cudaEvent_t event : {timed.begin, timed.end})
      if (event != nullptr) cudaEventDestroy(event);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

// Asks again and again: what waits in the driver cannot be told that the session was given up.
bool CudaSession::ComesToRest() const {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (stream_ != nullptr && cudaStreamQuery(stream_) == cudaErrorNotReady) {
    if (cancelled_.load() && std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
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
  const size_t step_words = tenon::StepView::MaxPlainWords(limits), result_words = PlainResultWords(limits);
  for (Lane& lane : lanes_) {
    TENON_RETURN_IF_ERROR(ReservePinned(lane.step, step_words));
    TENON_RETURN_IF_ERROR(ReservePinned(lane.result, result_words));
  }
  TENON_RETURN_IF_ERROR(ReserveOnDevice(device_step_, step_words));
  return ReserveOnDevice(device_result_, result_words);
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

// Times cost two events a step, so they are for benchmarks.
Status CudaSession::AskForTimes() {
  const char* asked = std::getenv(kTimesVariable);
  if (asked == nullptr || std::strcmp(asked, "0") == 0) return Status::Ok();
  if (std::strcmp(asked, "1") != 0)
    return Status::Error(StatusCode::kInvalidOption, "%s is '%s'; expected 0 or 1", kTimesVariable, asked);
  for (TimedStep& timed : timed_) {
    TENON_CUDA(cudaEventCreate(&timed.begin));
    TENON_CUDA(cudaEventCreate(&timed.end));
  }
  takes_times_ = true;
  return Status::Ok();
}

Status CudaSession::ReservePinned(Buffer& buffer, size_t words) {
  if (words <= buffer.words) return Status::Ok();
  if (buffer.data != nullptr) cudaFreeHost(buffer.data);
  buffer = {};
  void* data = nullptr;
  TENON_CUDA(cudaHostAlloc(&data, words * sizeof(int32_t), cudaHostAllocDefault));
  buffer = {static_cast<int32_t*>(data), words};
  return Status::Ok();
}

Status CudaSession::ReserveOnDevice(Buffer& buffer, size_t words) {
  if (words <= buffer.words) return Status::Ok();
  if (buffer.data != nullptr) pool_.Free(buffer.data);  // cudaFree waits for the device
  buffer = {};
  void* data = nullptr;
  TENON_RETURN_IF_ERROR(pool_.Allocate(Arena::kWorkspace, words * sizeof(int32_t), &data));
  buffer = {static_cast<int32_t*>(data), words};
  return Status::Ok();
}

Status CudaSession::BeginStep(const tenon::StepView& host_step, const tenon::ResultView& host_result, tenon::StepView* step,
                              tenon::ResultView* result) {
  lane_ = &lanes_[num_begun_ % kNumLanes];
  TENON_RETURN_IF_ERROR(Reserve(host_step.packed_words(), host_result.size_words()));
  const tenon::StepView staged = host_step.Pack(lane_->step.data);
  if (takes_times_) TENON_CUDA(cudaEventRecord(timed_[num_begun_ % kNumTimed].begin, stream_));
  TENON_CUDA(cudaMemcpyAsync(device_step_.data, lane_->step.data, staged.size_words() * sizeof(int32_t), cudaMemcpyHostToDevice,
                             stream_));
  *step = staged.Rebased(device_step_.data);
  *result = host_result.Rebased(device_result_.data);
  lane_->host_result = host_result;
  return ops_.BeginStep(host_step, *step, stream_);
}

// Room for a step, where it has longer lists than any before.
Status CudaSession::Reserve(size_t step_words, size_t result_words) {
  const auto grown = [](size_t wanted, size_t have) { return wanted > have ? wanted + wanted / 2 : have; };
  if (step_words <= std::min(lane_->step.words, device_step_.words) &&
      result_words <= std::min(lane_->result.words, device_result_.words))
    return Status::Ok();
  ++host_syncs_;
  TENON_RETURN_IF_ERROR(ReservePinned(lane_->step, grown(step_words, lane_->step.words)));
  TENON_RETURN_IF_ERROR(ReservePinned(lane_->result, grown(result_words, lane_->result.words)));
  TENON_RETURN_IF_ERROR(ReserveOnDevice(device_step_, grown(step_words, device_step_.words)));
  return ReserveOnDevice(device_result_, grown(result_words, device_result_.words));
}

Status CudaSession::EndStep() {
  TENON_CUDA(cudaMemcpyAsync(lane_->result.data, device_result_.data, lane_->host_result.size_words() * sizeof(int32_t),
                             cudaMemcpyDeviceToHost, stream_));
  if (takes_times_) TENON_CUDA(cudaEventRecord(timed_[num_begun_ % kNumTimed].end, stream_));
  TENON_CUDA(cudaEventRecord(lane_->done, stream_));
  ++num_begun_;
  return Status::Ok();
}

Status CudaSession::WaitStep() {
  Lane& lane = lanes_[num_waited_++ % kNumLanes];
  static_cast<void>(poll_is_punctual);
  thread_local const cudaError_t on_device = cudaSetDevice(device_);  // else the thread would make a context on the first GPU
  TENON_CUDA(on_device);
  for (;;) {
    const cudaError_t state = cudaEventQuery(lane.done);
    if (state == cudaSuccess) break;
    if (state != cudaErrorNotReady) return FromCuda(state, "a step on the GPU");
    if (cancelled_.load()) return Status(StatusCode::kDeviceLost, "the step was given up");
    const timespec pause{0, kPollNanoseconds};
    nanosleep(&pause, nullptr);
  }
  std::memcpy(lane.host_result.words(), lane.result.data, lane.host_result.size_words() * sizeof(int32_t));
  return Status::Ok();
}

bool CudaSession::TimesOfStep(tenon::StepTimes* times) {
  if (!takes_times_) return false;
  const TimedStep &before = timed_[(num_waited_ + kNumTimed - 2) % kNumTimed], &step = timed_[(num_waited_ - 1) % kNumTimed];
  const auto micros = [](cudaEvent_t from, cudaEvent_t to) {
    float milliseconds = 0;
    return cudaEventElapsedTime(&milliseconds, from, to) == cudaSuccess ? static_cast<uint64_t>(milliseconds * 1e3f + 0.5f) : 0;
  };
  *times = {.compute_us = micros(step.begin, step.end), .idle_us = num_waited_ > 1 ? micros(before.end, step.begin) : 0};
  return true;
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
  return FromCuda(cudaGraphUpload(executable, stream_), "cudaGraphUpload");  // else the first launch would wait for it
}

Status CudaSession::Replay(tenon::Graph& graph) {
  TENON_CUDA(cudaGraphLaunch(static_cast<CudaGraph&>(graph).executable(), stream_));
  return Status::Ok();
}

tenon::SessionCounters CudaSession::counters() const {
  return {.allocations = frozen_ ? pool_.num_allocations() - allocations_at_freeze_ : 0, .host_syncs = host_syncs_.load()};
}

}  // namespace tenon_cuda
