// What a kernel backend is to the SDK: a static description of its devices, a group of opened devices, and one session
// per loaded plan. The addon glue (addon.h) turns a class of this shape into the contract of @tenon/core/backend.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
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

// The structs below mirror the types of the same names in core's src/backend/contract.ts.
struct DeviceInfo {
  std::string id;
  std::string device_class;  // "cpu", "gpu", "npu", "tpu", "other"
  std::string name;
  bool usable = true;
  std::string reason;
  std::string remedy;
  uint64_t memory_bytes = 0;
  uint64_t free_bytes = 0;
  std::vector<Dtype> dtypes;
  Dtype preferred_dtype = Dtype::kF32;
};

struct OpenOptions {
  std::vector<std::string> device_ids;
  int num_threads = 0;  // 0: the backend's default
};

struct SchedulingConstraints {
  std::vector<int> block_sizes;
  std::vector<int> token_buckets;
  int max_tokens = 0;  // 0: no limit
  int max_seqs = 0;
  bool mixed_prefill_decode = true;
  int steps_in_flight = 2;
  int preferred_batched_tokens = 2048;
};

struct OpQuery {
  OpId op;
  std::array<int32_t, kMaxOpAttrs> attr_words{};
  std::vector<Dtype> dtypes;  // of the operands, in no particular order
  WeightScheme weight_scheme = WeightScheme::kNone;  // of the operand `weight`

  template <typename Attrs>
  const Attrs& attrs() const {
    return *reinterpret_cast<const Attrs*>(attr_words.data());
  }
};

enum class OpSupport : int32_t { kNative, kDecompose, kUnsupported };
inline constexpr const char* kOpSupportNames[] = {"native", "decompose", "unsupported"};

struct OpAnswer {
  OpSupport support = OpSupport::kNative;
  std::string kernel;
  std::string reason;
};

// One loaded plan on the devices of a group. All methods are called on the group's device thread, one at a time, but for
// memory().UsedBytes.
class Session {
 public:
  virtual ~Session() = default;

  // Called once each, in this order.
  // One handle per request: `const float*` (f32 values on the device) for vectors, else a MatrixHandle.
  virtual Status LoadWeights(const std::vector<WeightRequest>& requests, const ProgressFn& progress,
                             std::vector<const void*>* handles) = 0;
  // One handle per KV layer of the plan.
  virtual Status CreateKvCache(std::vector<KvHandle>* handles) = 0;

  virtual MemoryPool& memory() = 0;
  virtual Gemm& gemm() = 0;
  virtual Attention& attention() = 0;
  virtual Ops& ops() = 0;
  virtual Stream stream() { return {}; }

  // Brackets the ops of a step. BeginStep gives the views that the ops are to use (on the device); EndStep returns when
  // the results are in the host's buffer.
  virtual Status BeginStep(const StepView& host_step, const ResultView& host_result, StepView* step,
                           ResultView* result) = 0;
  virtual Status EndStep() = 0;
};

// Opened devices. Methods but CreateSession and OnDeviceThread are called on the JavaScript thread.
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

// The collective of a group that has one rank: nothing to do in place, and nothing else is possible.
class SingleRank final : public Collective {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  Status AllReduce(const CollectiveParams& params, Stream) override { return InPlace(params); }
  Status AllGather(const CollectiveParams& params, Stream) override { return InPlace(params); }
  Status ReduceScatter(const CollectiveParams& params, Stream) override { return InPlace(params); }

 private:
  static Status InPlace(const CollectiveParams& params) {
    if (params.src == params.dst) return Status::Ok();
    return Status::Error(StatusCode::kUnsupportedOp, "this backend has a single rank; collectives of one rank work in place");
  }
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
