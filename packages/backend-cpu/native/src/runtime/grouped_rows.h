// Rows of a checkpoint's block formats on their way into a packed block.
#pragma once

#include <array>
#include <cstdint>

#include "kernels.h"
#include "tenon/checkpoint.h"

namespace tenon_cpu {

// bits 0 for a weight of no scheme.
Grouping GroupingOf(tenon::WeightScheme scheme);

// One thread's room for the 16 rows of a packed block.
class GroupedRows {
 public:
  // Row `row` from `k` elements of a format at src; all rows of a block have the same k and scheme.
  void Read(int row, const tenon::CheckpointFormat& format, const uint8_t* src, int64_t k, tenon::WeightScheme scheme) {
    rows_[static_cast<size_t>(row)].Read(format, src, k, tenon::InfoOf(scheme));
  }
  // Packs the first `rows` rows that were read.
  void Pack(int rows, int64_t k, const Grouping& grouping, void* dst) const;

 private:
  std::array<tenon::GroupedRow, kLanes> rows_;
};

}  // namespace tenon_cpu
