// Reading weights: for each WeightRequest of Session::LoadWeights,
//
//   MappedFiles files;                                          // mapped, each once
//   TENON_RETURN_IF_ERROR(WeightSource::Open(request, &files, &source));
//   source.ReadVector(values);                                  // use `vector`: f32
//   source.ReadRows(first, count, request.dtype, rows, &scratch);   // a matrix of plain numbers
//   grouped_row.Read(...);                                      // a matrix with a scheme
//   ...
//   return CheckIntact(files);                                  // nothing was lost while it was read
//
// WeightSource::Row gives the bytes as they are in the file. Sources may be read by many threads at a time.
#pragma once

#include <atomic>
#include <cstdint>

#include "tenon/checkpoint/formats.h"
#include "tenon/checkpoint/grouped_row.h"
#include "tenon/checkpoint/mapped_file.h"
#include "tenon/checkpoint/weight_source.h"
#include "tenon/weights.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// Tells how far loading is, at most a hundred times, whatever the number of threads.
class LoadProgress {
 public:
  LoadProgress(const ProgressFn& report, uint64_t total_bytes) : report_(report), total_bytes_(total_bytes) {}

  void Add(uint64_t bytes) {
    const uint64_t before = loaded_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    if (report_ && Percent(before) != Percent(before + bytes)) report_(before + bytes, total_bytes_);
  }

 private:
  uint64_t Percent(uint64_t bytes) const { return total_bytes_ == 0 ? 100 : bytes * 100 / total_bytes_; }

  const ProgressFn& report_;
  const uint64_t total_bytes_;
  std::atomic<uint64_t> loaded_bytes_{0};
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
