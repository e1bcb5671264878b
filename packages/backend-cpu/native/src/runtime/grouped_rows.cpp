#include "grouped_rows.h"

namespace tenon_cpu {

Grouping GroupingOf(tenon::WeightScheme scheme) {
  const tenon::WeightSchemeInfo& info = tenon::InfoOf(scheme);
  return {info.bits, info.group_size, info.has_min};
}

void GroupedRows::Pack(int rows, int64_t k, const Grouping& grouping, void* dst) const {
  std::array<const uint8_t*, kLanes> quants{};
  std::array<const uint16_t*, kLanes> scales{}, mins{};
  for (int r = 0; r < rows; r++) {
    quants[r] = rows_[r].quants();
    scales[r] = rows_[r].scales();
    mins[r] = rows_[r].mins();
  }
  PackGroupedBlock({.quants = quants.data(),
                    .scales = scales.data(),
                    .mins = grouping.has_min ? mins.data() : nullptr,
                    .rows = rows,
                    .k = k,
                    .grouping = grouping,
                    .dst = dst});
}

}  // namespace tenon_cpu
