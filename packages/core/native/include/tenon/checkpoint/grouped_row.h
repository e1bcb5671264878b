// Rows of a checkpoint's block formats as the integers, scales and minima of a weight scheme.
#pragma once

#include <cstdint>
#include <vector>

#include "tenon/checkpoint/formats.h"
#include "tenon/schema.gen.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

inline const WeightSchemeInfo& InfoOf(WeightScheme scheme) { return kWeightSchemes[static_cast<int32_t>(scheme)]; }

// Whether the scheme holds every integer of the format.
inline bool Holds(const WeightSchemeInfo& scheme, const ElementGroups& groups) {
  const bool zero_fits = scheme.bits == 8 || scheme.has_min || groups.zero == scheme.zero;
  return groups.size != 0 && groups.bits <= scheme.bits && groups.size % scheme.group_size == 0 &&
         (scheme.has_min || !groups.has_min) && zero_fits;
}

// One row: element k is scales[k / group_size] * (quants[k] - zero) + mins[k / group_size].
class GroupedRow {
 public:
  // From `k` elements of a format at src, which the scheme holds.
  void Read(const CheckpointFormat& format, const uint8_t* src, int64_t k, const WeightSchemeInfo& scheme);

  const uint8_t* quants() const { return quants_.data(); }   // [k], unpacked
  const uint16_t* scales() const { return scales_.data(); }  // f16 [k / group_size]
  const uint16_t* mins() const { return mins_.data(); }      // likewise, where the scheme has any

 private:
  static constexpr int kSmallestGroup = 16;

  void Resize(int64_t k) {
    if (quants_.size() >= static_cast<size_t>(k)) return;
    const auto num_groups = static_cast<size_t>(k / kSmallestGroup);
    quants_.resize(static_cast<size_t>(k));
    for (std::vector<uint16_t>* values : {&scales_, &mins_}) values->resize(num_groups);
    for (std::vector<float>* values : {&file_scales_, &file_mins_}) values->resize(num_groups);
  }

  // `values` for every `from` elements, in place as values for every `to`.
  static void Repeat(int64_t count, int from, int to, float* values) {
    const int64_t times = from / to;
    for (int64_t i = count * times - 1; times > 1 && i >= 0; i--) values[i] = values[i / times];
  }

  std::vector<uint8_t> quants_;
  std::vector<uint16_t> scales_, mins_;
  std::vector<float> file_scales_, file_mins_;  // as the format groups them
};

// Eight bits have room to move the format's zero to the scheme's; in four, another zero goes into the minimum.
inline void GroupedRow::Read(const CheckpointFormat& format, const uint8_t* src, int64_t k,
                             const WeightSchemeInfo& scheme) {
  const ElementGroups& groups = format.groups;
  const int64_t num_groups = k / scheme.group_size, file_groups = k / groups.size;
  Resize(k);
  groups.split(src, k / format.block_elements, quants_.data(), file_scales_.data(), file_mins_.data());
  const int shift = scheme.zero - groups.zero;
  if (scheme.bits == 8 && shift != 0) {
    for (int64_t i = 0; i < k; i++) quants_[i] = static_cast<uint8_t>(quants_[i] + shift);
  }
  if (scheme.has_min) {
    const float lift = scheme.bits == 8 ? 0 : static_cast<float>(shift);
    for (int64_t g = 0; g < file_groups; g++) file_mins_[g] = (groups.has_min ? file_mins_[g] : 0) + lift * file_scales_[g];
    Repeat(file_groups, groups.size, scheme.group_size, file_mins_.data());
    ConvertToF16(file_mins_.data(), num_groups, mins_.data());
  }
  Repeat(file_groups, groups.size, scheme.group_size, file_scales_.data());
  ConvertToF16(file_scales_.data(), num_groups, scales_.data());
}

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
