// The SDK's version. The inline namespace keeps two addons that were built on different SDKs apart in one process.
#pragma once

#define TENON_SDK_MAJOR 1
#define TENON_SDK_MINOR 0
#define TENON_SDK_NAMESPACE sdk_v1
