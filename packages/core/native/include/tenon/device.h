// What a kernel backend is to the SDK: a static description of its devices, a group of opened devices, and one session
// per loaded plan. The addon glue (addon.h) turns a class of this shape into the contract of @tenon/core/backend.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tenon/interfaces.h"
#include "tenon/plan.h"
#include "tenon/status.h"
#include "tenon/weights.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// The structs below mirror the types of the same names in core's src/backend/contract.ts, which says what fields mean.
struct DeviceInfo {
  std::string id;
  std::string device_class;  // "cpu", "gpu", "npu", "tpu", "other"
  std::string name;
  bool usable = true;
  std::string reason;
  std::string remedy;
  uint64_t memory_bytes = 0;
  uint64_t free_bytes = 0;
  bool memory_is_shared = false;
  std::vector<Dtype> dtypes;
  Dtype preferred_dtype = Dtype::kF32;
};

struct OpenOptions {
  std::vector<std::string> device_ids;
  int num_threads = 0;  // 0: the backend's default
  // This group is one of `num_ranks` with the same `group_id`, in this process or others.
  int rank = 0, num_ranks = 1;
  std::string group_id;
};

enum class KvLayout : int32_t { kPaged, kSlots };
inline constexpr const char* kKvLayoutNames[] = {"paged", "slots"};

struct SchedulingConstraints {
  std::vector<int> block_sizes;
  KvLayout kv_layout = KvLayout::kPaged;
  std::vector<int> token_buckets;
  std::vector<int> decode_buckets;
  int max_tokens = 0;  // 0 here and below: no limit, or no preference
  int max_seqs = 0;
  bool mixed_prefill_decode = true;
  bool chunked_prefill = true;
  int steps_in_flight = 2;
  int preferred_batched_tokens = 2048;
  int preferred_seqs = 0;
  int preferred_prompt_tokens_beside_decodes = 0;
  double slowest_operations_per_second = 0;
  bool capture = false;
  bool warmup = false;
};

struct OpQuery {
  OpId op;
  std::array<int32_t, kMaxOpAttrs> attr_words{};
  std::vector<Dtype> dtypes;  // of the operands that are there, then of the outputs
  WeightScheme weight_scheme = WeightScheme::kNone;  // of the operand `weight`

  template <typename Attrs>
  const Attrs& attrs() const {
    return *reinterpret_cast<const Attrs*>(attr_words.data());
  }
};

enum class OpSupport : int32_t { kNative, kDecompose, kUnsupported };
inline constexpr const char* kOpSupportNames[] = {"native", "decompose", "unsupported"};

// What a recorded call of an op is worth for a later step of the same captureKey: it may be replayed as it is (all that
// differs is read from the step's buffer on the device); its parameters depend on values of the step and are set anew
// first; or it is never recorded.
enum class CaptureState : int32_t { kSafe, kNeedsRebind, kNever };
inline constexpr const char* kCaptureStateNames[] = {"safe", "needs-rebind", "never"};

struct OpAnswer {
  OpSupport support = OpSupport::kNative;
  std::string kernel;
  std::string reason;
  CaptureState capture = CaptureState::kSafe;
};

// What a session adds to the counters of contract.ts. `compiles` and `allocations` count from Freeze on, the others from
// the start. Memory that grows for a rare step (StepView::MaxPlainWords) counts as an allocation.
struct SessionCounters {
  uint64_t compiles = 0;
  uint64_t allocations = 0;
  uint64_t fallbacks = 0;
  uint64_t host_syncs = 0;
};

// When a step was on the device, by the device's own clock.
struct StepTimes {
  uint64_t compute_us = 0;  // from its begin to its end
  uint64_t idle_us = 0;     // from the end of the step before to its begin
};

// A recording of calls, which the session that made it can replay. Destroyed before its session, on the device thread,
// when no step is in flight.
class Graph {
 public:
  virtual ~Graph() = default;
};

// One loaded plan on the devices of a group. Methods are called on the group's device thread, one at a time, but for those
// that say otherwise.
//
// A step of a synchronous session has been computed when EndStep returns. Of an asynchronous one, BeginStep, the ops and
// EndStep only enqueue, and must not wait for the device (what cannot be helped is a host_sync of the counters); a second
// thread, the completion thread, calls WaitStep once for each step whose EndStep returned ok, in order. So the device
// thread enqueues step n + 1 while step n computes. At most Constraints().steps_in_flight steps have begun and have not been
// waited for, so that many buffers for steps and results, used in turn, are enough.
class Session {
 public:
  virtual ~Session() = default;

  // Called once each, in this order.
  // One handle per request: `const float*` (f32 values on the device) for vectors, else a MatrixHandle.
  virtual Status LoadWeights(const std::vector<WeightRequest>& requests, const ProgressFn& progress,
                             std::vector<const void*>* handles) = 0;
  // One handle per KV layer of the plan.
  virtual Status CreateKvCache(std::vector<KvHandle>* handles) = 0;

  virtual MemoryPool& memory() = 0;  // UsedBytes: from any thread
  virtual Gemm& gemm() = 0;
  virtual Attention& attention() = 0;
  virtual Ops& ops() = 0;
  virtual Stream stream() { return {}; }

  // Brackets the ops of a step. BeginStep gives the views that the ops are to use (on the device; StepView::Rebased); EndStep
  // ends what is enqueued for it, the download of the results included. EndStep follows each BeginStep that returned ok, also
  // where an op failed in between (then the results are not looked at). `host_step` may be read until EndStep returns,
  // `host_result` written until WaitStep does.
  virtual Status BeginStep(const StepView& host_step, const ResultView& host_result, StepView* step,
                           ResultView* result) = 0;
  virtual Status EndStep() = 0;

  virtual bool IsAsynchronous() const { return false; }
  // On the completion thread (while loading: on the device thread): returns when the oldest step that was ended and not yet waited for has its results in the
  // host's buffer, or with the error that befell it on the device.
  virtual Status WaitStep() { return Status::Ok(); }
  // On the thread of WaitStep, right after it: the times of that step, where the session measures them; else they are taken on the host.
  virtual bool TimesOfStep(StepTimes* /*times*/) { return false; }
  // From any thread, at any time: the session is given up, because its environment ends and it has not come to rest within
  // a second. Whatever waits for the device, in any method, returns backend.device-lost soon, now and from now on, and writes
  // no results. The destructor, which follows, may wait for the device for a second or two, and then rather leaves memory
  // behind. A session that does not obey is abandoned after a while, with its threads (device_threads.h).
  virtual void Cancel() {}

  // Recording, for steps with a captureKey. Ops that are called between BeginCapture and EndCapture are recorded, not run.
  // EndCapture follows each BeginCapture that returned ok, also where an op failed in between; then its graph is not used.
  // A recording holds calls for one pair of buffers that BeginStep gave.
  virtual bool CanCapture() const { return false; }
  // Whether a step is recorded after it has been enqueued, while the device computes: it then runs eagerly, and waits for no recording. Ops
  // are called once more for that, right after EndStep, with the same views, whose values on the host are gone.
  virtual bool RecordsAfterwards() const { return false; }
  virtual Status BeginCapture() { return NoCapture(); }
  virtual Status EndCapture(std::unique_ptr<Graph>* /*graph*/) { return NoCapture(); }
  // Enqueues the recorded calls.
  virtual Status Replay(Graph& /*graph*/) { return NoCapture(); }
  // Ops that are called in between, those that negotiation said need it, in the order in which they were recorded, only
  // set the parameters of their recorded calls for the step that has begun. Replay of the same graph follows.
  virtual Status BeginRebind(Graph& /*graph*/) { return NoCapture(); }
  virtual Status EndRebind() { return NoCapture(); }

  // Warm-up has ended.
  virtual void Freeze() {}
  // From any thread.
  virtual SessionCounters counters() const { return {}; }

 private:
  static Status NoCapture() { return Status(StatusCode::kInternal, "this session records nothing"); }
};

// Opened devices. Methods are called on the JavaScript thread, but for CreateSession, OnDeviceThread and collective (on the
// device thread) and Negotiate, Constraints and KvBlockBytes (on both, at any time).
class DeviceGroup {
 public:
  virtual ~DeviceGroup() = default;
  virtual SchedulingConstraints Constraints() const = 0;
  // Bytes of KV cache per block of one layer.
  virtual int64_t KvBlockBytes(const PlanKvLayer& layer, int block_size) const = 0;
  virtual OpAnswer Negotiate(const OpQuery& query) const = 0;
  virtual bool BatchInvariant() const = 0;
  virtual Collective& collective() = 0;
  // `plan` outlives the session.
  virtual Status CreateSession(const Plan& plan, std::unique_ptr<Session>* session) = 0;
  // Called once on the device thread before anything else runs there.
  virtual void OnDeviceThread() {}
};

// The collective of a group that is alone: each op copies. `copy` enqueues a copy of bytes on the device.
class SingleRank final : public Collective {
 public:
  using CopyFn = std::function<Status(void* dst, const void* src, size_t bytes, Stream stream)>;
  explicit SingleRank(CopyFn copy = CopyOnHost) : copy_(std::move(copy)) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  Status AllReduce(const CollectiveParams& params, Stream stream) override { return Copy(params, stream); }
  Status AllGather(const CollectiveParams& params, Stream stream) override { return Copy(params, stream); }
  Status ReduceScatter(const CollectiveParams& params, Stream stream) override { return Copy(params, stream); }

 private:
  static Status CopyOnHost(void* dst, const void* src, size_t bytes, Stream) {
    std::memcpy(dst, src, bytes);
    return Status::Ok();
  }
  Status Copy(const CollectiveParams& p, Stream stream) const {
    const int64_t bytes = p.rows * p.cols * kDtypeBytes[static_cast<int32_t>(p.dtype)];
    return bytes == 0 ? Status::Ok() : copy_(p.dst, p.src, static_cast<size_t>(bytes), stream);
  }

  CopyFn copy_;
};

// What addon.h needs of a backend class:
//   static std::vector<std::pair<std::string, std::string>> Runtime();          // BackendInfo.runtime
//   static Status Devices(std::vector<DeviceInfo>* devices);
//   static Status Open(const OpenOptions& options, std::unique_ptr<DeviceGroup>* group);
template <typename B>
concept KernelBackend = requires(std::vector<DeviceInfo>* devices, const OpenOptions& options,
                                 std::unique_ptr<DeviceGroup>* group) {
  { B::Runtime() } -> std::same_as<std::vector<std::pair<std::string, std::string>>>;
  { B::Devices(devices) } -> std::same_as<Status>;
  { B::Open(options, group) } -> std::same_as<Status>;
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
