#include "cuda_device.h"

#include <cuda_runtime.h>

#include "cublas_lt.h"
#include "cuda_session.h"
#include "cuda_status.h"

namespace tenon_cuda {
namespace {

using tenon::Status;
using tenon::StatusCode;

const Build kBuild{CUDART_VERSION, TENON_CUDA_ARCHITECTURES};
// GPUs with so much memory have room for more sequences at once; there a step's fixed part is shared by more.
constexpr uint64_t kLargeMemory = uint64_t{64} << 30;
constexpr int kMostSeqs = 1024;

// Sequences of a decode step, padded up to the next: few graphs, and padding below an eighth.
std::vector<int> DecodeBuckets() {
  std::vector<int> buckets = {1, 2, 4, 8, 12};
  for (int bucket = 16; bucket <= kMostSeqs; bucket += bucket < 64 ? 8 : bucket < 256 ? 16 : bucket < 512 ? 32 : 64)
    buckets.push_back(bucket);
  return buckets;
}

// Makes the context. Another process may hold the GPU or its memory, which is only seen now.
Status OpenContext(const Gpu& gpu) {
  const cudaError_t error = cudaSetDevice(gpu.index);
  const std::string id = GpuId(gpu.index);
  switch (error) {
    case cudaSuccess: return Status::Ok();
    case cudaErrorMemoryAllocation:
      return Status::Error(StatusCode::kOutOfMemory, "%s has no room for a context: %zu MiB are free; end what else runs on it (nvidia-smi)", id.c_str(),
                           static_cast<size_t>(gpu.free_bytes >> 20));
    case cudaErrorDevicesUnavailable:
      return Status::Error(StatusCode::kDeviceUnusable, "%s cannot be opened: %s; another process may hold it alone (see nvidia-smi and its compute mode)",
                           id.c_str(), cudaGetErrorString(error));
    default:
      return Status::Error(StatusCode::kDeviceUnusable, "%s cannot be opened: %s (%s); see nvidia-smi and the kernel's log (dmesg)", id.c_str(),
                           cudaGetErrorString(error), cudaGetErrorName(error));
  }
}

}  // namespace

tenon::SchedulingConstraints CudaGroup::Constraints() const {
  return {.block_sizes = {16, 32, 64},
          .decode_buckets = DecodeBuckets(),
          .steps_in_flight = 2,
          .preferred_batched_tokens = 8192,
          .preferred_seqs = gpu_.memory_bytes >= kLargeMemory ? kMostSeqs : 256,
          .capture = true};
}

void CudaGroup::OnDeviceThread() { cudaSetDevice(gpu_.index); }

Status CudaGroup::CopyOnDevice(void* dst, const void* src, size_t bytes, tenon::Stream stream) {
  TENON_CUDA(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream.handle)));
  return Status::Ok();
}

Status CudaGroup::CreateSession(const tenon::Plan& plan, std::unique_ptr<tenon::Session>* session) {
  TENON_RETURN_IF_ERROR(OpenContext(gpu_));
  return CudaSession::Create(plan, gpu_.num_sms, session);
}

std::vector<std::pair<std::string, std::string>> CudaBackend::Runtime() {
  std::vector<std::pair<std::string, std::string>> lines = DescribeBuild(kBuild);
  const CublasLtFound& found = FindCublasLt();
  lines.emplace_back("cublasLt", found.reason.empty() ? std::to_string(found.version) + " (" + found.path + ")" : "none: " + found.reason);
  return lines;
}

Status CudaBackend::Devices(std::vector<tenon::DeviceInfo>* devices) {
  *devices = DescribeGpus(ListGpus(kBuild));
  return Status::Ok();
}

Status CudaBackend::Open(const tenon::OpenOptions& options, std::unique_ptr<tenon::DeviceGroup>* group) {
  const GpuList list = ListGpus(kBuild);
  if (list.gpus.empty()) return Status(StatusCode::kDeviceUnusable, list.reason + "; " + list.remedy);
  if (options.num_ranks != 1)
    return Status::Error(StatusCode::kInvalidOption, "the CUDA backend computes on one GPU; a group of %d ranks was asked for", options.num_ranks);
  if (options.device_ids.size() != 1)
    return Status::Error(StatusCode::kDeviceNotFound, "a group has one GPU of %zu, from cuda:0 on; %zu were named", list.gpus.size(),
                         options.device_ids.size());
  for (const Gpu& gpu : list.gpus) {
    if (GpuId(gpu.index) != options.device_ids[0]) continue;
    if (!gpu.reason.empty()) return Status(StatusCode::kDeviceUnusable, gpu.name + ": " + gpu.reason + "; " + gpu.remedy);
    *group = std::make_unique<CudaGroup>(gpu);
    return Status::Ok();
  }
  return Status::Error(StatusCode::kDeviceNotFound, "no device '%s'; there are %zu GPUs, from cuda:0 on",
                       options.device_ids[0].c_str(), list.gpus.size());
}

}  // namespace tenon_cuda
