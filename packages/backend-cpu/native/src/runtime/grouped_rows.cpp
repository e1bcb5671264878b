#include "grouped_rows.h"

#include <array>

namespace tenon_cpu {
namespace {

constexpr int kSmallestGroup = 16;

// `values` for every `from` elements, in place as values for every `to`.
void Repeat(int64_t count, int from, int to, float* values) {
  const int64_t times = from / to;
  for (int64_t i = count * times - 1; times > 1 && i >= 0; i--) values[i] = values[i / times];
}

}  // namespace

Grouping GroupingOf(tenon::WeightScheme scheme) {
  const tenon::WeightSchemeInfo& info = tenon::kWeightSchemes[static_cast<int32_t>(scheme)];
  return {info.bits, info.group_size, info.has_min};
}

bool Fits(const ElementGroups& groups, const Grouping& grouping) {
  const bool zero_fits = grouping.bits == 8 || grouping.has_min || groups.zero == grouping.Zero();
  return groups.size != 0 && groups.bits <= grouping.bits && groups.size % grouping.group == 0 &&
         (grouping.has_min || !groups.has_min) && zero_fits;
}

// Eight bits have room to move the format's zero to the grouping's; in four, another zero goes into the minimum.
void GroupedRows::Split(const CheckpointFormat& format, const uint8_t* src, int64_t k, const Grouping& grouping, int row) {
  const ElementGroups& groups = format.groups;
  const int64_t num_groups = k / grouping.group, file_groups = k / groups.size;
  Resize(k, num_groups);
  uint8_t* quants = &quants_[static_cast<size_t>(row * k)];
  groups.split(src, k / format.block_elements, quants, file_scales_.data(), file_mins_.data());
  const int shift = grouping.Zero() - groups.zero;
  if (grouping.bits == 8 && shift != 0) {
    for (int64_t i = 0; i < k; i++) quants[i] = static_cast<uint8_t>(quants[i] + shift);
  }
  if (grouping.has_min) {
    const float lift = grouping.bits == 8 ? 0 : static_cast<float>(shift);
    for (int64_t g = 0; g < file_groups; g++) file_mins_[g] = (groups.has_min ? file_mins_[g] : 0) + lift * file_scales_[g];
    Repeat(file_groups, groups.size, grouping.group, file_mins_.data());
    ConvertToF16(file_mins_.data(), num_groups, &mins_[static_cast<size_t>(row * num_groups)]);
  }
  Repeat(file_groups, groups.size, grouping.group, file_scales_.data());
  ConvertToF16(file_scales_.data(), num_groups, &scales_[static_cast<size_t>(row * num_groups)]);
}

void GroupedRows::Pack(int rows, int64_t k, const Grouping& grouping, void* dst) const {
  const int64_t num_groups = k / grouping.group;
  std::array<const uint8_t*, kLanes> quants{};
  std::array<const uint16_t*, kLanes> scales{}, mins{};
  for (int r = 0; r < rows; r++) {
    quants[r] = &quants_[static_cast<size_t>(r * k)];
    scales[r] = &scales_[static_cast<size_t>(r * num_groups)];
    mins[r] = &mins_[static_cast<size_t>(r * num_groups)];
  }
  PackGroupedBlock({.quants = quants.data(),
                    .scales = scales.data(),
                    .mins = grouping.has_min ? mins.data() : nullptr,
                    .rows = rows,
                    .k = k,
                    .grouping = grouping,
                    .dst = dst});
}

void GroupedRows::Resize(int64_t k, int64_t num_groups) {
  const auto grow = [](auto& values, int64_t size) {
    if (values.size() < static_cast<size_t>(size)) values.resize(static_cast<size_t>(size));
  };
  grow(quants_, kLanes * k);
  grow(scales_, kLanes * num_groups);
  grow(mins_, kLanes * num_groups);
  grow(file_scales_, k / kSmallestGroup);
  grow(file_mins_, k / kSmallestGroup);
}

}  // namespace tenon_cpu
