#include "cuda_device.h"

#include <cuda_runtime.h>

#include "cuda_session.h"
#include "cuda_status.h"
#include "nvml.h"

namespace tenon_cuda {
namespace {

using tenon::Dtype;
using tenon::Status;
using tenon::StatusCode;

constexpr int kOldestCapability = 80;
// Sequences of a decode step, padded up to the next: few graphs, little padding.
const std::vector<int> kDecodeBuckets = {1,  2,  4,   8,   12,  16,  24,  32,  40,  48,  56,  64,  80,  96,
                                         112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 320, 384, 448, 512};

std::string IdOf(int index) { return "cuda:" + std::to_string(index); }

std::string VersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The GPUs, or why the driver shows none. Makes no context.
Status FindGpus(std::vector<Gpu>* gpus) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return Status(StatusCode::kDeviceUnusable, cudaGetErrorString(error));
  const Nvml nvml;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties;
    if (const cudaError_t failed = cudaGetDeviceProperties(&properties, index); failed != cudaSuccess)
      return FromCuda(failed, "cudaGetDeviceProperties");
    char bus[32];
    TENON_CUDA(cudaDeviceGetPCIBusId(bus, sizeof(bus), index));
    gpus->push_back({index, properties.name, properties.major * 10 + properties.minor, properties.multiProcessorCount,
                     properties.totalGlobalMem, nvml.FreeBytes(bus, properties.totalGlobalMem)});
  }
  return Status::Ok();
}

// Why no GPU can be used, and what to do, as one device that is not usable.
tenon::DeviceInfo NoDevice(const Status& status) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  const bool old = driver > 0 && driver < CUDART_VERSION;
  return {.id = IdOf(0),
          .device_class = "gpu",
          .name = "NVIDIA GPU",
          .usable = false,
          .reason = driver == 0 ? "there is no NVIDIA driver"
                    : old       ? "the driver speaks CUDA " + VersionText(driver) + ": " + status.message()
                                : status.message(),
          .remedy = driver == 0 ? "install the NVIDIA driver (libcuda.so.1), and in a container pass the GPU to it"
                    : old       ? "install a driver for CUDA " + VersionText(CUDART_VERSION) + " or newer"
                                : "see nvidia-smi and CUDA_VISIBLE_DEVICES",
          .dtypes = {},
          .preferred_dtype = Dtype::kBf16};
}

tenon::DeviceInfo Describe(const Gpu& gpu) {
  const bool usable = gpu.capability >= kOldestCapability;
  return {.id = IdOf(gpu.index),
          .device_class = "gpu",
          .name = gpu.name,
          .usable = usable,
          .reason = usable ? "" : "compute capability " + std::to_string(gpu.capability / 10) + "." +
                                      std::to_string(gpu.capability % 10) + "; 8.0 or newer is needed",
          .remedy = usable ? "" : "use a GPU of the Ampere generation or newer",
          .memory_bytes = gpu.memory_bytes,
          .free_bytes = gpu.free_bytes,
          .dtypes = {Dtype::kBf16, Dtype::kF16, Dtype::kF32},
          .preferred_dtype = Dtype::kBf16};
}

}  // namespace

tenon::SchedulingConstraints CudaGroup::Constraints() const {
  return {.block_sizes = {16, 32, 64},
          .decode_buckets = kDecodeBuckets,
          .steps_in_flight = 2,
          .preferred_batched_tokens = 8192,
          .preferred_seqs = 256,
          .capture = true};
}

void CudaGroup::OnDeviceThread() { cudaSetDevice(gpu_.index); }

Status CudaGroup::CopyOnDevice(void* dst, const void* src, size_t bytes, tenon::Stream stream) {
  TENON_CUDA(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream.handle)));
  return Status::Ok();
}

Status CudaGroup::CreateSession(const tenon::Plan& plan, std::unique_ptr<tenon::Session>* session) {
  return CudaSession::Create(plan, gpu_.num_sms, session);
}

std::vector<std::pair<std::string, std::string>> CudaBackend::Runtime() {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  return {{"cuda", VersionText(CUDART_VERSION)}, {"driver", driver == 0 ? "none" : VersionText(driver)}};
}

Status CudaBackend::Devices(std::vector<tenon::DeviceInfo>* devices) {
  std::vector<Gpu> gpus;
  const Status status = FindGpus(&gpus);
  if (!status.ok()) devices->push_back(NoDevice(status));
  for (const Gpu& gpu : gpus) devices->push_back(Describe(gpu));
  return Status::Ok();
}

Status CudaBackend::Open(const tenon::OpenOptions& options, std::unique_ptr<tenon::DeviceGroup>* group) {
  std::vector<Gpu> gpus;
  TENON_RETURN_IF_ERROR(FindGpus(&gpus));
  if (options.num_ranks != 1)
    return Status::Error(StatusCode::kInvalidOption, "the CUDA backend computes on one GPU; a group of %d ranks was asked for", options.num_ranks);
  if (options.device_ids.size() != 1)
    return Status::Error(StatusCode::kDeviceNotFound, "a group has one GPU of %zu, from cuda:0 on; %zu were named", gpus.size(),
                         options.device_ids.size());
  for (const Gpu& gpu : gpus) {
    if (IdOf(gpu.index) != options.device_ids[0]) continue;
    *group = std::make_unique<CudaGroup>(gpu);
    return Status::Ok();
  }
  return Status::Error(StatusCode::kDeviceNotFound, "no device '%s'; there are %zu GPUs, from cuda:0 on",
                       options.device_ids[0].c_str(), gpus.size());
}

}  // namespace tenon_cuda
