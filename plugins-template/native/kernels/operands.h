// What kernels read and write, in the layouts of this device. Pointers are those that device code may follow (runtime/launch.h).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "tenon/interfaces.h"

namespace tenon_backend_template {

using tenon::Dtype;

// Elements of f32 or bf16, the upper half of an f32; kernels compute in f32.
struct Floats {
  void* data = nullptr;
  Dtype dtype = Dtype::kF32;

  float operator[](int64_t i) const {
    if (dtype == Dtype::kF32) return static_cast<const float*>(data)[i];
    return std::bit_cast<float>(uint32_t{static_cast<const uint16_t*>(data)[i]} << 16);
  }
  // Rounds to the nearest, even among two.
  void Set(int64_t i, float value) const {
    if (dtype == Dtype::kF32) {
      static_cast<float*>(data)[i] = value;
      return;
    }
    const uint32_t word = std::bit_cast<uint32_t>(value);
    const bool is_nan = (word & 0x7fffffff) > 0x7f800000;
    static_cast<uint16_t*>(data)[i] = static_cast<uint16_t>(is_nan ? word >> 16 | 1 : (word + 0x7fff + (word >> 16 & 1)) >> 16);
  }
};
inline Floats In(const void* data, Dtype dtype) { return {const_cast<void*>(data), dtype}; }

// A weight [n, k] in panels of 16 rows, so that 16 results are computed side by side: values [n / 16][k][16], rows beyond n zero.
// Of floats, or of int8, where groups of 32 elements of a row share a scale: scales [n / 16][k / 32][16].
struct Matrix {
  static constexpr int64_t kPanelRows = 16, kGroupSize = 32;
  void* values = nullptr;
  float* scales = nullptr;  // int8 alone has them
  Dtype dtype = Dtype::kF32;
  int64_t n = 0, k = 0;

  int64_t num_panels() const { return (n + kPanelRows - 1) / kPanelRows; }
  int64_t num_values() const { return num_panels() * kPanelRows * k; }
  int64_t value_bytes() const { return scales != nullptr ? 1 : tenon::kDtypeBytes[static_cast<int32_t>(dtype)]; }
  int64_t ValueAt(int64_t row, int64_t column) const { return (row / kPanelRows * k + column) * kPanelRows + row % kPanelRows; }
  int64_t ScaleAt(int64_t row, int64_t column) const {
    return (row / kPanelRows * (k / kGroupSize) + column / kGroupSize) * kPanelRows + row % kPanelRows;
  }
};

// One layer of the KV cache: [block][head][head_dim / 4][token of the block][K, V][4].
struct KvLayer {
  static constexpr int64_t kLanes = 4;
  Floats data;
  int64_t num_heads, head_dim, block_size, num_blocks;

  int64_t num_elements() const { return 2 * num_blocks * block_size * num_heads * head_dim; }
  // The first K of a slot; V lies kLanes behind, the next four K `stride()`.
  int64_t At(int64_t slot, int64_t head) const {
    const int64_t row = slot / block_size * num_heads + head;
    return 2 * (row * head_dim * block_size + slot % block_size * kLanes);
  }
  int64_t stride() const { return 2 * block_size * kLanes; }
};

// The sequence that a token of the step belongs to; -1 for padding, which comes last.
inline int32_t SequenceOf(const tenon::StepView& step, int64_t token) {
  if (step.num_seqs == 0) return -1;
  const int32_t* ends = step.Ints(tenon::StepRegion::kCuSeqlensQ) + 1;
  const auto seq = static_cast<int32_t>(std::upper_bound(ends, ends + step.num_seqs, token) - ends);
  return seq < step.num_seqs ? seq : -1;
}

}  // namespace tenon_backend_template
