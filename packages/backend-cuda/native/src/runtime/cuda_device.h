// The devices, and a group of one of them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpus.h"
#include "tenon/device.h"

namespace tenon_cuda {

class CudaGroup final : public tenon::DeviceGroup {
 public:
  explicit CudaGroup(Gpu gpu)
      : gpu_(std::move(gpu)), collective_([](void* dst, const void* src, size_t bytes, tenon::Stream stream) {
          return CopyOnDevice(dst, src, bytes, stream);
        }) {}

  tenon::SchedulingConstraints Constraints() const override;
  int64_t KvBlockBytes(const tenon::PlanKvLayer& layer, int block_size) const override;
  tenon::OpAnswer Negotiate(const tenon::OpQuery& query) const override;
  bool BatchInvariant() const override { return false; }
  tenon::Collective& collective() override { return collective_; }
  tenon::Status CreateSession(const tenon::Plan& plan, std::unique_ptr<tenon::Session>* session) override;
  void OnDeviceThread() override;

 private:
  static tenon::Status CopyOnDevice(void* dst, const void* src, size_t bytes, tenon::Stream stream);

  const Gpu gpu_;
  tenon::SingleRank collective_;
};

struct CudaBackend {
  static std::vector<std::pair<std::string, std::string>> Runtime();
  static tenon::Status Devices(std::vector<tenon::DeviceInfo>* devices);
  static tenon::Status Open(const tenon::OpenOptions& options, std::unique_ptr<tenon::DeviceGroup>* group);
};

}  // namespace tenon_cuda
