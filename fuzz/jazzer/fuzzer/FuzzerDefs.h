// What Jazzer.js uses of libFuzzer's own headers, which Debian's packages lack.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fuzzer {
using UserCallback = int (*)(const uint8_t* data, size_t size);
int FuzzerDriver(int* argc, char*** argv, UserCallback callback);
}  // namespace fuzzer
