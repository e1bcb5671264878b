// Rows of a checkpoint's block formats in a weight scheme: what a grouped matrix is packed from.
#pragma once

#include <cstdint>
#include <vector>

#include "dequant.h"
#include "kernels.h"
#include "tenon/schema.gen.h"

namespace tenon_cpu {

// bits 0 for a weight of no scheme.
Grouping GroupingOf(tenon::WeightScheme scheme);

// Whether the grouping holds every integer of the format.
bool Fits(const ElementGroups& groups, const Grouping& grouping);

// One thread's room for the 16 rows of a packed block.
class GroupedRows {
 public:
  // Row `row` from `k` elements of a format at src; all rows of a block have the same k and grouping.
  void Split(const CheckpointFormat& format, const uint8_t* src, int64_t k, const Grouping& grouping, int row);
  // Packs the first `rows` rows that were split.
  void Pack(int rows, int64_t k, const Grouping& grouping, void* dst) const;

 private:
  void Resize(int64_t k, int64_t num_groups);

  std::vector<uint8_t> quants_;        // [16][k]
  std::vector<uint16_t> scales_;       // [16][num_groups]
  std::vector<uint16_t> mins_;         // [16][num_groups]
  std::vector<float> file_scales_;     // [k / 16] at most: of one row, as the format groups it
  std::vector<float> file_mins_;
};

}  // namespace tenon_cpu
