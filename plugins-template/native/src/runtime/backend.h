// The backend as the SDK sees it: which devices there are, and groups of opened ones.
#pragma once

#include <array>

#include "collective.h"
#include "negotiate.h"
#include "sim_session.h"

namespace tenon_backend_template {

// An opened device, which may compute together with those of other groups.
class SimGroup final : public tenon::DeviceGroup {
 public:
  SimGroup(const Settings& settings, std::shared_ptr<sim::Memory> memory, std::unique_ptr<SimCollective> collective)
      : settings_(settings), memory_(std::move(memory)), collective_(std::move(collective)) {}

  tenon::SchedulingConstraints Constraints() const override { return settings_.mode->constraints; }
  int64_t KvBlockBytes(const tenon::PlanKvLayer& layer, int block_size) const override {
    const KvLayer block{{nullptr, layer.dtype}, layer.num_kv_heads, layer.head_dim, block_size, 1};
    return block.num_elements() * tenon::kDtypeBytes[static_cast<int32_t>(layer.dtype)];
  }
  tenon::OpAnswer Negotiate(const tenon::OpQuery& query) const override { return AnswerFor(query, settings_.mode->int8_only); }
  bool BatchInvariant() const override { return true; }
  tenon::Collective& collective() override { return *collective_; }
  Status CreateSession(const tenon::Plan& plan, std::unique_ptr<tenon::Session>* session) override {
    *session = std::make_unique<SimSession>(plan, *memory_, settings_);
    return Status::Ok();
  }

 private:
  const Settings settings_;
  const std::shared_ptr<sim::Memory> memory_;
  const std::unique_ptr<SimCollective> collective_;
};

class Backend {
 public:
  static std::vector<std::pair<std::string, std::string>> Runtime() { return {{"simulator", "1"}}; }

  // An environment that cannot be followed makes the devices unusable, with the reason.
  static Status Devices(std::vector<tenon::DeviceInfo>* devices) {
    Settings settings;
    const Status status = Settings::Read(&settings);
    TENON_RETURN_IF_ERROR(settings.faults.Strike("probe", [] { return false; }));
    for (size_t device = 0; device < kNumDevices; ++device) {
      const std::shared_ptr<sim::Memory> memory = MemoryOf(device, settings);
      devices->push_back({.id = DeviceId(device),
                          .device_class = "npu",
                          .name = "simulated accelerator",
                          .usable = status.ok(),
                          .reason = status.message(),
                          .remedy = status.ok() ? "" : "correct or unset the environment variable",
                          .memory_bytes = memory->size_bytes(),
                          .free_bytes = memory->free_bytes(),
                          .dtypes = {Dtype::kBf16, Dtype::kF32},
                          .preferred_dtype = Dtype::kBf16});
    }
    return Status::Ok();
  }

  static Status Open(const tenon::OpenOptions& options, std::unique_ptr<tenon::DeviceGroup>* group) {
    Settings settings;
    size_t device = 0;
    TENON_RETURN_IF_ERROR(Settings::Read(&settings));
    while (device < kNumDevices && options.device_ids != std::vector{DeviceId(device)}) ++device;
    if (device == kNumDevices)
      return Status::Error(tenon::StatusCode::kDeviceNotFound, "a group has one device: %s or %s", DeviceId(0).c_str(), DeviceId(1).c_str());
    auto link = std::make_shared<sim::Link>(1);
    if (options.num_ranks > 1) TENON_RETURN_IF_ERROR(sim::Link::Join(options.group_id, options.rank, options.num_ranks, &link));
    const auto timeout = std::chrono::milliseconds(settings.collective_timeout_ms);
    auto collective = std::make_unique<SimCollective>(std::move(link), options.rank, options.num_ranks, timeout);
    *group = std::make_unique<SimGroup>(settings, MemoryOf(device, settings), std::move(collective));
    return Status::Ok();
  }

 private:
  static constexpr size_t kNumDevices = 2;
  static std::string DeviceId(size_t device) { return "template:" + std::to_string(device); }

  // Of a device, shared by all that is opened on it.
  static std::shared_ptr<sim::Memory> MemoryOf(size_t device, const Settings& settings) {
    static std::mutex mutex;
    static std::array<std::weak_ptr<sim::Memory>, kNumDevices> memories;
    const std::lock_guard lock(mutex);
    std::shared_ptr<sim::Memory> memory = memories[device].lock();
    if (memory == nullptr) memories[device] = memory = std::make_shared<sim::Memory>(size_t{1} * settings.memory_mib << 20);
    return memory;
  }
};

}  // namespace tenon_backend_template
