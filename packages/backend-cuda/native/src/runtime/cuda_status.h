// CUDA's errors as statuses of the SDK.
#pragma once

#include <cuda_runtime.h>

#include "tenon/status.h"

namespace tenon_cuda {

// Errors after which the context is of no more use.
inline bool IsDeviceLost(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContained: return true;
    default: return false;
  }
}

// `what`: the call, or the kernel, that answered so.
inline tenon::Status FromCuda(cudaError_t error, const char* what) {
  using tenon::Status;
  using tenon::StatusCode;
  if (error == cudaSuccess) return Status::Ok();
  const StatusCode code = error == cudaErrorMemoryAllocation ? StatusCode::kOutOfMemory
                          : error == cudaErrorNotSupported   ? StatusCode::kUnsupportedOp
                          : IsDeviceLost(error)              ? StatusCode::kDeviceLost
                                                             : StatusCode::kStepFailed;
  return Status::Error(code, "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

}  // namespace tenon_cuda

#define TENON_CUDA(call)                                                     \
  do {                                                                       \
    if (const cudaError_t cuda_error_ = (call); cuda_error_ != cudaSuccess)  \
      return ::tenon_cuda::FromCuda(cuda_error_, #call);                     \
  } while (false)
