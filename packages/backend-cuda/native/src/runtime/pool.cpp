#include "pool.h"

#include <algorithm>

#include "cuda_status.h"

namespace tenon_cuda {
namespace {

// Kept free for what CUDA allocates by itself later: recorded steps, and kernels that are loaded when they are first launched.
constexpr size_t kLaterBytes = size_t{256} << 20;

}  // namespace

using tenon::Status;
using tenon::StatusCode;

Pool::~Pool() {
  for (const auto& [data, allocation] : allocations_) cudaFree(data);
}

Status Pool::Allocate(tenon::Arena arena, size_t bytes, void** data) {
  const size_t size = std::max<size_t>(bytes, 1);
  const cudaError_t error = cudaMalloc(data, size);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // see FromCuda
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return Status::Error(StatusCode::kOutOfMemory, "the GPU has no room for %zu bytes of %s: %zu of %zu are free", bytes,
                         tenon::kArenaNames[static_cast<int>(arena)], free, total);
  }
  TENON_CUDA(error);
  allocations_[*data] = {arena, bytes};
  used_[static_cast<size_t>(arena)] += bytes;
  ++num_allocations_;
  // The streams of sessions do not wait for the default one, on which this is: zeros would come after what a step has written.
  TENON_CUDA(cudaMemsetAsync(*data, 0, size, cudaStreamLegacy));
  TENON_CUDA(cudaStreamSynchronize(cudaStreamLegacy));
  return Status::Ok();
}

std::optional<size_t> Pool::FreeBytes() const {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return std::nullopt;
  return free > kLaterBytes ? free - kLaterBytes : 0;
}

void Pool::Free(void* data) {
  const auto found = allocations_.find(data);
  if (found == allocations_.end()) return;
  used_[static_cast<size_t>(found->second.arena)] -= found->second.bytes;
  cudaFree(data);
  allocations_.erase(found);
}

}  // namespace tenon_cuda
