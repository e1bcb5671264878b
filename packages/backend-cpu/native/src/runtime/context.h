// What all ops of a session share.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "tenon/interfaces.h"
#include "thread_pool.h"

namespace tenon_cpu {

struct OpContext {
  const Kernels& kernels;
  ThreadPool& threads;
  // One stretch per pool thread, large enough for the scratch of any kernel that the plan calls.
  uint8_t* scratch = nullptr;
  size_t scratch_stride = 0;

  void* ScratchOf(int thread) const { return scratch + static_cast<size_t>(thread) * scratch_stride; }
};

inline bool IsFloat(Dtype dtype) { return dtype == Dtype::kF32 || dtype == Dtype::kBf16 || dtype == Dtype::kF16; }

inline tenon::Status UnsupportedDtype(const char* op, const char* rule) {
  return tenon::Status::Error(tenon::StatusCode::kUnsupportedDtype, "%s on the CPU: %s", op, rule);
}

}  // namespace tenon_cpu
