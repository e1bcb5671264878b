// Weights on their way from the checkpoint to the GPU.
#pragma once

#include <atomic>
#include <vector>

#include "pool.h"
#include "tenon/weights.h"

namespace tenon_cuda {

// A weight in device memory: a matrix [rows, cols] of its dtype, row-major; a vector in f32.
struct LoadedWeight {
  void* data = nullptr;
};

// One LoadedWeight per request, in order; all in one allocation of the weights arena. Threads read the files through pinned buffers,
// one of which is filled while the other is copied, so no second copy of the weights is ever held. Errors: those of
// tenon::WeightSource, backend.out-of-memory, unsupported.quantization for schemes, backend.device-lost where `cancelled`.
tenon::Status LoadWeights(const std::vector<tenon::WeightRequest>& requests, Pool& pool, const std::atomic<bool>& cancelled,
                          const tenon::ProgressFn& progress, std::vector<LoadedWeight>* out);

}  // namespace tenon_cuda
