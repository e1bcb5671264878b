// A device that computes nothing and takes its time: an asynchronous session on the SDK whose steps end when those of a GPU would.
// What a step costs the GPU and what a launch costs the CPU are given, so that all that lies between two steps on the device is the
// engine's doing: JavaScript, threads, the executor.
#include "timed_session.h"

#include "tenon/addon.h"

namespace tenon_timed {

class TimedGroup final : public tenon::DeviceGroup {
 public:
  explicit TimedGroup(const Costs& costs) : costs_(costs) {}
  tenon::SchedulingConstraints Constraints() const override {
    std::vector<int> buckets = {1, 2, 4, 8, 12};
    for (int bucket = 16; bucket <= 1024; bucket += bucket < 64 ? 8 : bucket < 256 ? 16 : bucket < 512 ? 32 : 64) buckets.push_back(bucket);
    return {.block_sizes = {16}, .decode_buckets = buckets, .preferred_batched_tokens = 8192, .preferred_seqs = 256, .capture = true};
  }
  int64_t KvBlockBytes(const tenon::PlanKvLayer& layer, int block_size) const override {
    return int64_t{4} * layer.num_kv_heads * layer.head_dim * block_size;
  }
  tenon::OpAnswer Negotiate(const tenon::OpQuery&) const override { return {.kernel = "timed"}; }
  bool BatchInvariant() const override { return false; }
  tenon::Collective& collective() override { return collective_; }
  tenon::Status CreateSession(const tenon::Plan& plan, std::unique_ptr<tenon::Session>* session) override {
    *session = std::make_unique<TimedSession>(plan, costs_);
    return tenon::Status::Ok();
  }

 private:
  const Costs costs_;
  tenon::SingleRank collective_{[](void*, const void*, size_t, tenon::Stream) { return tenon::Status::Ok(); }};
};

struct TimedBackend {
  static std::vector<std::pair<std::string, std::string>> Runtime() { return {}; }
  static tenon::Status Devices(std::vector<tenon::DeviceInfo>* devices) {
    constexpr uint64_t kBytes = 120ull << 30;
    devices->push_back({.id = "timed:0",
                        .device_class = "other",
                        .name = "a device that computes nothing",
                        .memory_bytes = kBytes,
                        .free_bytes = kBytes,
                        .dtypes = {tenon::Dtype::kBf16},
                        .preferred_dtype = tenon::Dtype::kBf16});
    return tenon::Status::Ok();
  }
  static tenon::Status Open(const tenon::OpenOptions&, std::unique_ptr<tenon::DeviceGroup>* group) {
    Costs costs;
    TENON_RETURN_IF_ERROR(Costs::Read(&costs));
    *group = std::make_unique<TimedGroup>(costs);
    return tenon::Status::Ok();
  }
};

}  // namespace tenon_timed

TENON_ADDON(tenon_timed::TimedBackend)
