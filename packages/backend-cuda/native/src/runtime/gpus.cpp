#include "gpus.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "driver.h"
#include "nvml.h"

namespace tenon_cuda {
namespace {

constexpr int kOldestCapability = 80;

const Driver& TheDriver() {
  static const Driver driver;
  return driver;
}

// 0: there is no driver, or one that does not say.
int DriverVersion() {
  int version = 0;
  const bool known = TheDriver().error().empty() && TheDriver().get_version(&version) == kDriverSuccess;
  return known ? version : 0;
}

std::string VersionText(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

std::string CapabilityText(int capability) {
  return "compute capability " + std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

// The first branch of drivers for all minors of a major version of CUDA (docs/decisions/0027).
int OldestDriver(int cuda_version) { return cuda_version / 1000 >= 13 ? 580 : 525; }

GpuList None(std::string reason, std::string remedy) { return {{}, std::move(reason), std::move(remedy)}; }

GpuList WhyNoDriver(const Build& build, const std::string& error) {
  if (access(build.kernel_driver, F_OK) == 0)
    return None("the NVIDIA driver is loaded, but its library is not here: " + error,
                "in a container, start it with its GPUs (docker run --gpus all); else install the driver's library libcuda.so.1");
  return None("there is no NVIDIA driver: " + error, "install the NVIDIA driver, and in a container pass the GPUs to it");
}

GpuList WhyNoInit(int result) {
  const char* text = nullptr;
  TheDriver().get_error_string(result, &text);
  const std::string reason = "the NVIDIA driver does not start: " + std::string(text == nullptr ? "unknown error" : text) + " (" +
                             std::to_string(result) + ")";
  switch (result) {
    case kDriverStubLibrary: return None(reason, "remove the CUDA toolkit's folder 'stubs' from LD_LIBRARY_PATH");
    case kDriverSystemNotReady: return None(reason, "wait for nvidia-fabricmanager (systemctl status nvidia-fabricmanager)");
    case kDriverVersionsDiffer: return None(reason, "reboot: the driver's library and its kernel module are of different versions");
    case kDriverCompatNotSupported: return None(reason, "remove the cuda-compat package's folder from LD_LIBRARY_PATH, and update the driver");
    default: return None(reason, "see nvidia-smi and the kernel's log (dmesg)");
  }
}

GpuList WhyNoGpu() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible != nullptr)
    return None("the NVIDIA driver finds no GPU, with CUDA_VISIBLE_DEVICES='" + std::string(visible) + "'", "unset or mend CUDA_VISIBLE_DEVICES");
  return None("the NVIDIA driver finds no GPU", "see nvidia-smi; in a container pass the GPUs to it");
}

int Attribute(DeviceAttribute attribute, int device) {
  int value = 0;
  return TheDriver().get_attribute(&value, attribute, device) == kDriverSuccess ? value : 0;
}

void JudgeGpu(const Build& build, int compute_mode, Gpu* gpu) {
  const auto refuse = [gpu](std::string reason, std::string remedy) {
    gpu->reason = std::move(reason);
    gpu->remedy = std::move(remedy);
  };
  const std::string index = std::to_string(gpu->index);
  if (gpu->capability < kOldestCapability)
    refuse(CapabilityText(gpu->capability) + "; 8.0 or newer is needed", "use a GPU of the Ampere generation or newer");
  else if (!HasCodeFor(build.architectures, gpu->capability))
    refuse(CapabilityText(gpu->capability) + ", and the native part was built for others (" + build.architectures + ")",
           "install the prebuilt package, or build for all GPUs with npm run build:native");
  else if (compute_mode == kComputeModeProhibited)
    refuse("its compute mode is Prohibited", "allow computing: nvidia-smi -i " + index + " -c DEFAULT");
}

Gpu ReadGpu(const Build& build, const Nvml& nvml, int index) {
  const Driver& driver = TheDriver();
  int device = 0;
  char name[128] = "NVIDIA GPU", bus[32] = "";
  size_t memory = 0;
  driver.get_device(&device, index);
  driver.get_name(name, sizeof(name), device);
  driver.total_memory(&memory, device);
  driver.get_pci_bus_id(bus, sizeof(bus), device);
  const int capability = Attribute(kCapabilityMajor, device) * 10 + Attribute(kCapabilityMinor, device);
  Gpu gpu{index, name, capability, Attribute(kMultiprocessorCount, device), memory, nvml.FreeBytes(bus, memory), "", ""};
  JudgeGpu(build, Attribute(kComputeMode, device), &gpu);
  return gpu;
}

// The words between spaces.
std::vector<std::string> Split(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    if (end > 0) words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

// "90a-real" runs as `sm_90a`, "90-virtual" is `compute_90`, which the driver compiles.
std::string CompilerName(const std::string& architecture) {
  const size_t dash = architecture.find('-');
  const bool is_virtual = dash != std::string::npos && architecture.substr(dash) == "-virtual";
  return std::string(is_virtual ? "compute_" : "sm_").append(architecture, 0, dash);
}

}  // namespace

std::string GpuId(int index) { return "cuda:" + std::to_string(index); }

bool HasCodeFor(const char* architectures, int capability) {
  for (const std::string& entry : Split(architectures)) {
    const int built = std::atoi(entry.c_str());
    const bool is_virtual = entry.ends_with("-virtual"), is_real = entry.ends_with("-real");
    const bool is_exact = entry.find('a') < entry.find('-');  // 90a
    if (is_exact ? built == capability
                 : (!is_real && built <= capability) || (!is_virtual && built / 10 == capability / 10 && built <= capability))
      return true;
  }
  return false;
}

GpuList ListGpus(const Build& build) {
  const Driver& driver = TheDriver();
  if (!driver.error().empty()) return WhyNoDriver(build, driver.error());
  int version = 0;
  if (const int result = driver.get_version(&version); result != kDriverSuccess) return WhyNoInit(result);
  if (version / 1000 < build.cuda_version / 1000)
    return None("the NVIDIA driver is for CUDA " + VersionText(version) + "; CUDA " + VersionText(build.cuda_version / 1000 * 1000) + " is needed",
                "install NVIDIA driver " + std::to_string(OldestDriver(build.cuda_version)) + " or newer");
  const int result = driver.init(0);
  int count = 0;
  if (result == kDriverNoDevice || (result == kDriverSuccess && (driver.get_count(&count) != kDriverSuccess || count == 0))) return WhyNoGpu();
  if (result != kDriverSuccess) return WhyNoInit(result);
  const Nvml nvml;
  GpuList list;
  for (int index = 0; index < count; ++index) list.gpus.push_back(ReadGpu(build, nvml, index));
  return list;
}

std::vector<tenon::DeviceInfo> DescribeGpus(const GpuList& list) {
  using tenon::Dtype;
  if (list.gpus.empty())
    return {{.id = GpuId(0),
             .device_class = "gpu",
             .name = "NVIDIA GPU",
             .usable = false,
             .reason = list.reason,
             .remedy = list.remedy,
             .dtypes = {},
             .preferred_dtype = Dtype::kBf16}};
  std::vector<tenon::DeviceInfo> devices;
  for (const Gpu& gpu : list.gpus)
    devices.push_back({.id = GpuId(gpu.index),
                       .device_class = "gpu",
                       .name = gpu.name,
                       .usable = gpu.reason.empty(),
                       .reason = gpu.reason,
                       .remedy = gpu.remedy,
                       .memory_bytes = gpu.memory_bytes,
                       .free_bytes = gpu.free_bytes,
                       .dtypes = {Dtype::kBf16, Dtype::kF16, Dtype::kF32},
                       .preferred_dtype = Dtype::kBf16});
  return devices;
}

std::vector<std::pair<std::string, std::string>> DescribeBuild(const Build& build) {
  const int driver = DriverVersion();
  std::string code;
  for (const std::string& entry : Split(build.architectures)) {
    if (!code.empty()) code += ' ';
    code += CompilerName(entry);
  }
  return {{"cuda", VersionText(build.cuda_version)}, {"driver", driver == 0 ? "none" : VersionText(driver)}, {"code", code}};
}

}  // namespace tenon_cuda
