// The Node-API addon; the only source that includes napi.h.
#include "backend.h"
#include "tenon/addon.h"

TENON_ADDON(tenon_backend_template::Backend)
