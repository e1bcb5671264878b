// NVIDIA's driver library, opened at run time: what of it can be asked without a context, and without the CUDA toolkit's headers. It
// stays open until the process ends.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <string>

namespace tenon_cuda {

// Results of the driver API, with their numbers there.
enum DriverResult : int {
  kDriverSuccess = 0,
  kDriverStubLibrary = 34,
  kDriverNoDevice = 100,
  kDriverSystemNotReady = 802,
  kDriverVersionsDiffer = 803,
  kDriverCompatNotSupported = 804,
};

// CUdevice_attribute.
enum DeviceAttribute : int { kMultiprocessorCount = 16, kComputeMode = 20, kCapabilityMajor = 75, kCapabilityMinor = 76 };
inline constexpr int kComputeModeProhibited = 2;

class Driver {
 public:
  Driver() : library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) {
      error_ = dlerror();
      return;
    }
    const bool complete = Find("cuInit", &init) && Find("cuDriverGetVersion", &get_version) && Find("cuGetErrorString", &get_error_string) &&
                          Find("cuDeviceGetCount", &get_count) && Find("cuDeviceGet", &get_device) && Find("cuDeviceGetName", &get_name) &&
                          Find("cuDeviceTotalMem_v2", &total_memory) && Find("cuDeviceGetAttribute", &get_attribute) &&
                          Find("cuDeviceGetPCIBusId", &get_pci_bus_id);
    if (!complete) error_ = dlerror();
  }

  // Why it cannot be used, in the dynamic linker's words; empty where it can.
  const std::string& error() const { return error_; }

  int (*init)(unsigned flags) = nullptr;
  int (*get_version)(int* version) = nullptr;  // 13000 for CUDA 13.0
  int (*get_error_string)(int result, const char** text) = nullptr;
  int (*get_count)(int* count) = nullptr;
  int (*get_device)(int* device, int index) = nullptr;
  int (*get_name)(char* name, int size, int device) = nullptr;
  int (*total_memory)(size_t* bytes, int device) = nullptr;
  int (*get_attribute)(int* value, int attribute, int device) = nullptr;
  int (*get_pci_bus_id)(char* id, int size, int device) = nullptr;

 private:
  template <typename F>
  bool Find(const char* name, F** function) {
    *function = reinterpret_cast<F*>(dlsym(library_, name));
    return *function != nullptr;
  }

  void* const library_;
  std::string error_;
};

}  // namespace tenon_cuda
