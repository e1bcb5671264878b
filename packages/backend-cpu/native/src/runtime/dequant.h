// Checkpoint element formats (safetensors' and GGUF's) and their conversion to f32.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tenon_cpu {

// One checkpoint format: `block_elements` consecutive elements of a row are stored in `block_bytes` bytes.
struct CheckpointFormat {
  std::string_view name;  // as in `checkpointDtypes` of @tenon/core/backend
  int64_t block_elements;
  int64_t block_bytes;
  // dst[block_elements * num_blocks] = the values of `num_blocks` blocks at src (any alignment). Each value is rounded
  // as the format's definition is: products and sums one by one, never fused, so all machines read the same weights.
  void (*dequantize)(const uint8_t* src, int64_t num_blocks, float* dst);

  // Bytes of `elements` elements, a multiple of block_elements.
  constexpr int64_t Bytes(int64_t elements) const { return elements / block_elements * block_bytes; }
};

// The format of that name, or null.
const CheckpointFormat* FindCheckpointFormat(std::string_view name);
// All names, for messages: "F32, F16, ...".
std::string CheckpointFormatNames();

// 16-bit floats of n values, rounded to nearest even; a NaN stays a NaN.
void ConvertToBf16(const float* src, int64_t n, uint16_t* dst);
void ConvertToF16(const float* src, int64_t n, uint16_t* dst);

}  // namespace tenon_cpu
