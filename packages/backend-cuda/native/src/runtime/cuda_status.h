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
    case cudaErrorInvalidAddressSpace:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContained:
    case cudaErrorNoDevice:
    case cudaErrorUnknown: return true;
    default: return false;
  }
}

// `what`: the call, or the kernel, that answered so. Errors after which the context is still of use stay with the thread until they are read, and
// would be taken for those of its next launch: reads them.
inline tenon::Status FromCuda(cudaError_t error, const char* what) {
  using tenon::Status;
  using tenon::StatusCode;
  if (error == cudaSuccess) return Status::Ok();
  cudaGetLastError();
  if (IsDeviceLost(error))
    return Status::Error(StatusCode::kDeviceLost, "%s: %s (%s); this process cannot use the GPU any more: start it again, and see the kernel's log (dmesg, Xid)", what,
                         cudaGetErrorString(error), cudaGetErrorName(error));
  const StatusCode code = error == cudaErrorMemoryAllocation ? StatusCode::kOutOfMemory
                          : error == cudaErrorNotSupported   ? StatusCode::kUnsupportedOp
                                                             : StatusCode::kStepFailed;
  return Status::Error(code, "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

}  // namespace tenon_cuda

#define TENON_CUDA(call)                                                     \
  do {                                                                       \
    if (const cudaError_t cuda_error_ = (call); cuda_error_ != cudaSuccess)  \
      return ::tenon_cuda::FromCuda(cuda_error_, #call);                     \
  } while (false)
