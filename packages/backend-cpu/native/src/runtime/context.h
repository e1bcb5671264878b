// What all ops of a session share.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "tenon/interfaces.h"
#include "thread_pool.h"

namespace tenon_cpu {

// Rows that meet a quantized weight at a time: enough to pass over its blocks once, few enough for a small buffer.
inline constexpr int64_t kPanelRows = 512;

struct OpContext {
  const Kernels& kernels;
  ThreadPool& threads;
  // One stretch per pool thread, large enough for the scratch of any kernel that the plan calls.
  uint8_t* scratch = nullptr;
  size_t scratch_stride = 0;
  // Rows of x on their way to a quantized weight: kPanelRows of the widest, at most; null where the plan has none.
  uint8_t* quantized_rows = nullptr;

  void* ScratchOf(int thread) const { return scratch + static_cast<size_t>(thread) * scratch_stride; }
};

inline bool IsFloat(Dtype dtype) { return dtype == Dtype::kF32 || dtype == Dtype::kBf16 || dtype == Dtype::kF16; }

inline tenon::Status UnsupportedDtype(const char* op, const char* rule) {
  return tenon::Status::Error(tenon::StatusCode::kUnsupportedDtype, "%s on the CPU: %s", op, rule);
}

}  // namespace tenon_cpu
