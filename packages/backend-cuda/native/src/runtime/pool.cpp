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
    cudaGetLastError();  // an error that is not sticky stays until it is read
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return Status::Error(StatusCode::kOutOfMemory, "the GPU has no room for %zu bytes of %s: %zu of %zu are free", bytes,
                         tenon::kArenaNames[static_cast<int>(arena)], free, total);
  }
  TENON_CUDA(error);
  TENON_CUDA(cudaMemset(*data, 0, size));
  allocations_[*data] = {arena, bytes};
  used_[static_cast<size_t>(arena)] += bytes;
  ++num_allocations_;
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
