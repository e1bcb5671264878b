// Loading: checkpoint tensors to the layouts that the kernels read, in parallel, each held once.
#pragma once

#include <atomic>
#include <vector>

#include "kernels.h"
#include "tenon/interfaces.h"
#include "tenon/weights.h"
#include "thread_pool.h"

namespace tenon_cpu {

using tenon::ProgressFn;
using tenon::WeightRequest;

// A weight in memory. One of the three is set: `packed` for the uses linear and linear_gated (tied embeddings included:
// they are packed only) and for quantized matrices, `row_major` for other matrices that are only embeddings, `vector` (f32)
// for vectors and constants.
struct LoadedWeight {
  PackedMatrix packed{};            // data null where not packed
  const void* row_major = nullptr;  // [rows, cols] of `dtype`
  const float* vector = nullptr;    // [rows]
  Dtype dtype = Dtype::kF32;
  int64_t rows = 0;
  int64_t cols = 1;
};

// Fills `out` with one LoadedWeight per request, in order. They share one allocation of the pool's weights arena (so that
// huge pages cover them all), `*memory`, which the caller frees; null where there is none. Errors: config.weights-missing
// (a file that cannot be read), config.weights-invalid (a file too short, shapes that do not fit),
// unsupported.quantization (a format it cannot unpack), unsupported.dtype, backend.out-of-memory. On error, memory it took
// is freed. Where `cancelled` becomes true it ends soon, with backend.device-lost.
tenon::Status LoadWeights(const std::vector<WeightRequest>& requests, const Kernels& kernels, ThreadPool& threads,
                          tenon::MemoryPool& pool, const ProgressFn& progress, const std::atomic<bool>& cancelled,
                          std::vector<LoadedWeight>* out, void** memory);

}  // namespace tenon_cpu
