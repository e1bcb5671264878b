// How native code reports failure: a code of docs/errors.md and a message. Kernels and runtimes never throw, print or
// abort.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "tenon/version.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

enum class StatusCode : int32_t {
  kOk,
  kInvalidOption,
  kInvalidEnvironment,
  kDeviceNotFound,
  kDeviceUnusable,
  kWeightsInvalid,
  kWeightsMissing,
  kUnsupportedOp,
  kUnsupportedDtype,
  kUnsupportedQuantization,
  kLoadFailed,
  kStepFailed,
  kDeviceLost,
  kOutOfMemory,
  kInternal,
};

// The code's spelling in docs/errors.md.
constexpr const char* StatusCodeName(StatusCode code) {
  switch (code) {
    case StatusCode::kOk: return "ok";
    case StatusCode::kInvalidOption: return "config.invalid-option";
    case StatusCode::kInvalidEnvironment: return "config.invalid-environment";
    case StatusCode::kDeviceNotFound: return "config.device-not-found";
    case StatusCode::kDeviceUnusable: return "config.device-unusable";
    case StatusCode::kWeightsInvalid: return "config.weights-invalid";
    case StatusCode::kWeightsMissing: return "config.weights-missing";
    case StatusCode::kUnsupportedOp: return "unsupported.op";
    case StatusCode::kUnsupportedDtype: return "unsupported.dtype";
    case StatusCode::kUnsupportedQuantization: return "unsupported.quantization";
    case StatusCode::kLoadFailed: return "backend.load-failed";
    case StatusCode::kStepFailed: return "backend.step-failed";
    case StatusCode::kDeviceLost: return "backend.device-lost";
    case StatusCode::kOutOfMemory: return "backend.out-of-memory";
    case StatusCode::kInternal: return "internal.invariant";
  }
  return "internal.invariant";
}

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return Status(); }

  // printf-style: Status::Error(StatusCode::kStepFailed, "seqLens[%d] is %d", s, len).
  [[gnu::format(printf, 2, 3)]] static Status Error(StatusCode code, const char* format, ...) {
    va_list args;
    va_start(args, format);
    Status status = ErrorV(code, format, args);
    va_end(args);
    return status;
  }
  static Status ErrorV(StatusCode code, const char* format, va_list args) {
    char text[512];
    std::vsnprintf(text, sizeof(text), format, args);
    return Status(code, text);
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon

#define TENON_RETURN_IF_ERROR(expression)                   \
  do {                                                      \
    if (::tenon::Status tenon_status_ = (expression); !tenon_status_.ok()) [[unlikely]] \
      return tenon_status_;                                 \
  } while (false)
