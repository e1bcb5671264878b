// The SDK's version.
//
// The inline namespace bears both numbers, because classes change with either: two addons that were built on different
// SDKs then share no type and no inline variable in one process, even where one of them was built without hidden
// visibility, or loaded with RTLD_GLOBAL. Nobody spells the namespace, so a new number costs a rebuild and no edit. It does
// not replace the build flags that tenon.cmake sets (hidden visibility, an export list of Node-API's two symbols,
// -fno-gnu-unique): node-addon-api's inline functions have no such namespace, and a unique symbol would keep an addon
// mapped for ever.
#pragma once

#define TENON_SDK_MAJOR 1
#define TENON_SDK_MINOR 1
#define TENON_SDK_VERSION "1.1"
#define TENON_SDK_NAMESPACE sdk_v1_1
