// Free memory of a GPU without a context on it: NVIDIA's management library, where it is installed.
#pragma once

#include <dlfcn.h>

#include <cstdint>

namespace tenon_cuda {

class Nvml {
 public:
  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) return;
    init_ = Find<int()>("nvmlInit_v2");
    shutdown_ = Find<int()>("nvmlShutdown");
    by_bus_ = Find<int(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
    memory_ = Find<int(void*, Memory*)>("nvmlDeviceGetMemoryInfo");
    ready_ = init_ != nullptr && shutdown_ != nullptr && by_bus_ != nullptr && memory_ != nullptr && init_() == 0;
  }
  ~Nvml() {
    if (ready_) shutdown_();
    if (library_ != nullptr) dlclose(library_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // `unknown` where nobody can say.
  uint64_t FreeBytes(const char* pci_bus_id, uint64_t unknown) const {
    void* device = nullptr;
    Memory memory{};
    const bool known = ready_ && by_bus_(pci_bus_id, &device) == 0 && memory_(device, &memory) == 0;
    return known ? memory.free : unknown;
  }

 private:
  struct Memory {
    unsigned long long total, free, used;
  };
  template <typename F>
  F* Find(const char* name) const {
    return reinterpret_cast<F*>(dlsym(library_, name));
  }

  void* library_;
  int (*init_)() = nullptr;
  int (*shutdown_)() = nullptr;
  int (*by_bus_)(const char*, void**) = nullptr;
  int (*memory_)(void*, Memory*) = nullptr;
  bool ready_ = false;
};

}  // namespace tenon_cuda
