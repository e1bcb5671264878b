// The GPUs of this machine, and why any of them, or all, cannot be used. Makes no context, and compiles without the CUDA toolkit, so that
// every explanation can be tested with a driver library made for the purpose.
#pragma once

#include <string>
#include <vector>

#include "tenon/device.h"

namespace tenon_cuda {

// What the kernels are compiled with and for.
struct Build {
  int cuda_version;           // CUDART_VERSION: 13000 for 13.0
  const char* architectures;  // as CMake has them, with spaces: "80-real 90a-real 90-virtual"
  const char* kernel_driver = "/proc/driver/nvidia/version";  // is there while the driver's kernel module is loaded
};

struct Gpu {
  int index;
  std::string name;
  int capability;  // major * 10 + minor
  int num_sms;
  uint64_t memory_bytes, free_bytes;
  std::string reason, remedy;  // empty where it can be used
};

struct GpuList {
  std::vector<Gpu> gpus;
  std::string reason, remedy;  // why there are none
};

GpuList ListGpus(const Build& build);

// One device that cannot be used where there are no GPUs.
std::vector<tenon::DeviceInfo> DescribeGpus(const GpuList& list);

// `cuda:0` for 0.
std::string GpuId(int index);

// For people: the CUDA version of toolkit and driver ("none" where there is no driver), and what GPUs there is code for.
std::vector<std::pair<std::string, std::string>> DescribeBuild(const Build& build);

// Whether code for these architectures runs on GPUs of this compute capability.
bool HasCodeFor(const char* architectures, int capability);

}  // namespace tenon_cuda
