// The addon of @tenon/backend-cuda; the only source that includes napi.h.
#include "cuda_device.h"
#include "tenon/addon.h"

TENON_ADDON(tenon_cuda::CudaBackend)
