// The addon of @tenon/backend-cpu; the only source that includes napi.h.
#include "cpu_device.h"
#include "tenon/addon.h"

TENON_ADDON(tenon_cpu::CpuBackend)
