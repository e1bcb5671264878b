// Checkpoint element formats (safetensors' and GGUF's): their conversion to f32, and the integers of the block formats.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tenon_cpu {

// How a block format is made of integers: an element is scale * (u - zero) + min, with a scale (and a minimum) for every
// `size` elements.
struct ElementGroups {
  int32_t size = 0;
  int32_t bits = 0;  // of u
  int32_t zero = 0;
  bool has_min = false;
  // u[block_elements * num_blocks], scales[block_elements / size * num_blocks], mins (where there are any) likewise.
  void (*split)(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float* mins) = nullptr;
};

// One checkpoint format: `block_elements` consecutive elements of a row are stored in `block_bytes` bytes.
struct CheckpointFormat {
  std::string_view name;  // as in `checkpointDtypes` of @tenon/core/backend
  int64_t block_elements;
  int64_t block_bytes;
  void (*convert)(const uint8_t* src, int64_t n, float* dst);  // of plain numbers; null for block formats
  ElementGroups groups = {};                                   // of block formats

  constexpr bool IsGrouped() const { return groups.split != nullptr; }
  // Bytes of `elements` elements, a multiple of block_elements.
  constexpr int64_t Bytes(int64_t elements) const { return elements / block_elements * block_bytes; }
  // dst[block_elements * num_blocks] = the values of `num_blocks` blocks at src (any alignment). Each value is rounded
  // as the format's definition is: products and sums one by one, never fused, so all machines read the same weights.
  void Dequantize(const uint8_t* src, int64_t num_blocks, float* dst) const;
};

// The format of that name, or null.
const CheckpointFormat* FindCheckpointFormat(std::string_view name);
// All names, for messages: "F32, F16, ...".
std::string CheckpointFormatNames();

// 16-bit floats of n values, rounded to nearest even; a NaN stays a NaN.
void ConvertToBf16(const float* src, int64_t n, uint16_t* dst);
void ConvertToF16(const float* src, int64_t n, uint16_t* dst);

}  // namespace tenon_cpu
