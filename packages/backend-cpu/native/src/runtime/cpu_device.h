// The CPU as a backend: what it says of itself, and the group that opens sessions.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"
#include "tenon/device.h"
#include "thread_pool.h"

namespace tenon_cpu {

class CpuGroup final : public tenon::DeviceGroup {
 public:
  CpuGroup(const Kernels& kernels, int num_threads, std::vector<std::vector<int>> bindings)
      : kernels_(kernels), threads_(num_threads, std::move(bindings)) {}

  tenon::SchedulingConstraints Constraints() const override;
  int64_t KvBlockBytes(const tenon::PlanKvLayer& layer, int block_size) const override;
  tenon::OpAnswer Negotiate(const tenon::OpQuery& query) const override;
  bool BatchInvariant() const override { return true; }
  tenon::Collective& collective() override { return collective_; }
  tenon::Status CreateSession(const tenon::Plan& plan, std::unique_ptr<tenon::Session>* session) override;
  void OnDeviceThread() override { threads_.BindCaller(); }

 private:
  const Kernels& kernels_;
  ThreadPool threads_;
  tenon::SingleRank collective_;
};

// A KernelBackend of the SDK. TENON_CPU_ISA and TENON_CPU_THREADS override what it finds; a value that cannot be followed
// is an error.
struct CpuBackend {
  static std::vector<std::pair<std::string, std::string>> Runtime();
  static tenon::Status Devices(std::vector<tenon::DeviceInfo>* devices);
  static tenon::Status Open(const tenon::OpenOptions& options, std::unique_ptr<tenon::DeviceGroup>* group);
};

}  // namespace tenon_cpu
