// Checkpoint element formats (safetensors' and GGUF's): their conversion to f32, and the integers of the block formats.
//
// The block formats are GGUF's. "_0": value = d * (q - offset), "_1": value = d * q + m, over blocks of 32. "_K":
// super-blocks of 256 with a scale (and minimum) per 16 or 32 elements, themselves quantized: value = (d * scale) * q -
// (dmin * min). d, m and dmin are f16. Compile with -ffp-contract=off (tenon.cmake does): a fused multiply-add would round
// differently.
//
// The loops are plain: the compiler vectorizes them for every instruction set (clones.h).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "tenon/clones.h"
#include "tenon/version.h"

#define TENON_ALWAYS_INLINE inline __attribute__((always_inline))

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

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

namespace formats_internal {

inline constexpr int kSmallBlock = 32;
inline constexpr int kSuperBlock = 256;
inline constexpr int kKScaleBytes = 12;

TENON_ALWAYS_INLINE uint16_t LoadU16(const uint8_t* src) {
  uint16_t value;
  std::memcpy(&value, src, sizeof value);
  return value;
}

TENON_ALWAYS_INLINE uint32_t LoadU32(const uint8_t* src) {
  uint32_t value;
  std::memcpy(&value, src, sizeof value);
  return value;
}

// Exact for every input: the exponent is shifted into place by a multiplication, which also makes denormals normal.
TENON_ALWAYS_INLINE float F16ToF32(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  uint32_t bits = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u;
  return std::bit_cast<float>(bits | static_cast<uint32_t>(half & 0x8000) << 16);
}

TENON_ALWAYS_INLINE float LoadF16(const uint8_t* src) { return F16ToF32(LoadU16(src)); }

TENON_CLONES inline void DequantizeF32(const uint8_t* src, int64_t n, float* dst) {
  std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(float));
}

TENON_CLONES inline void DequantizeF16(const uint8_t* src, int64_t n, float* dst) {
  for (int64_t i = 0; i < n; i++) dst[i] = LoadF16(src + 2 * i);
}

TENON_CLONES inline void DequantizeBf16(const uint8_t* src, int64_t n, float* dst) {
  for (int64_t i = 0; i < n; i++) dst[i] = std::bit_cast<float>(static_cast<uint32_t>(LoadU16(src + 2 * i)) << 16);
}

// Splitting. Low nibbles are elements 0…15 of a block of 32, high nibbles 16…31.

TENON_ALWAYS_INLINE void SplitNibbles(const uint8_t* qs, uint8_t* u) {
  for (int j = 0; j < 16; j++) u[j] = qs[j] & 15;
  for (int j = 0; j < 16; j++) u[16 + j] = qs[j] >> 4;
}

// d, 16 bytes of nibbles
TENON_CLONES inline void SplitQ4_0(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float*) {
  for (int64_t b = 0; b < num_blocks; b++, src += 18, u += kSmallBlock) {
    scales[b] = LoadF16(src);
    SplitNibbles(src + 2, u);
  }
}

// d, m, 16 bytes of nibbles
TENON_CLONES inline void SplitQ4_1(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float* mins) {
  for (int64_t b = 0; b < num_blocks; b++, src += 20, u += kSmallBlock) {
    scales[b] = LoadF16(src);
    mins[b] = LoadF16(src + 2);
    SplitNibbles(src + 4, u);
  }
}

// 4 bytes of fifth bits (bit j: element j), 16 bytes of nibbles
TENON_ALWAYS_INLINE void SplitFiveBits(const uint8_t* src, uint8_t* u) {
  const uint32_t high = LoadU32(src);
  SplitNibbles(src + 4, u);
  for (int j = 0; j < kSmallBlock; j++) u[j] = static_cast<uint8_t>(u[j] | (high >> j & 1) << 4);
}

// d, five-bit integers
TENON_CLONES inline void SplitQ5_0(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float*) {
  for (int64_t b = 0; b < num_blocks; b++, src += 22, u += kSmallBlock) {
    scales[b] = LoadF16(src);
    SplitFiveBits(src + 2, u);
  }
}

// d, m, five-bit integers
TENON_CLONES inline void SplitQ5_1(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float* mins) {
  for (int64_t b = 0; b < num_blocks; b++, src += 24, u += kSmallBlock) {
    scales[b] = LoadF16(src);
    mins[b] = LoadF16(src + 2);
    SplitFiveBits(src + 4, u);
  }
}

// d, 32 signed bytes
TENON_CLONES inline void SplitQ8_0(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float*) {
  for (int64_t b = 0; b < num_blocks; b++, src += 34, u += kSmallBlock) {
    scales[b] = LoadF16(src);
    for (int j = 0; j < kSmallBlock; j++) u[j] = src[2 + j] ^ 0x80;
  }
}

// 16 bytes of nibble pairs (scale, min) per 16 elements, 64 bytes of 2-bit values, d, dmin. Byte l of each half of the
// values holds elements l, 32 + l, 64 + l, 96 + l of 128.
TENON_CLONES inline void SplitQ2_K(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float* mins) {
  for (int64_t b = 0; b < num_blocks; b++, src += 84, u += kSuperBlock, scales += 16, mins += 16) {
    const float d = LoadF16(src + 80);
    const float dmin = LoadF16(src + 82);
    for (int group = 0; group < 16; group++) {
      const uint8_t* qs = src + 16 + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      scales[group] = d * static_cast<float>(src[group] & 15);
      mins[group] = -(dmin * static_cast<float>(src[group] >> 4));
      for (int l = 0; l < 16; l++) u[16 * group + l] = (qs[l] >> shift) & 3;
    }
  }
}

// 16 six-bit scales in 12 bytes: the low nibbles of scales 0…7 and 8…15 in bytes 0…7, then two more bits each in bytes 8…11.
TENON_ALWAYS_INLINE void UnpackQ3Scales(const uint8_t* packed, int8_t* scales) {
  for (int j = 0; j < 16; j++) {
    const int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    const int high = (packed[8 + j % 4] >> (j / 4 * 2)) & 3;
    scales[j] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

// 32 bytes of third bits (bit i of byte l: element 32 i + l), 64 bytes of 2-bit values as in Q2_K, 12 bytes of scales, d.
TENON_CLONES inline void SplitQ3_K(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float*) {
  for (int64_t b = 0; b < num_blocks; b++, src += 110, u += kSuperBlock, scales += 16) {
    int8_t group_scales[16];
    UnpackQ3Scales(src + 96, group_scales);
    const float d = LoadF16(src + 108);
    for (int group = 0; group < 16; group++) {
      const uint8_t* high = src + group % 2 * 16;
      const uint8_t* qs = src + 32 + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      const int bit = group / 2;
      scales[group] = d * static_cast<float>(group_scales[group]);
      for (int l = 0; l < 16; l++)
        u[16 * group + l] = static_cast<uint8_t>(((qs[l] >> shift) & 3) | ((high[l] >> bit) & 1) << 2);
    }
  }
}

// 8 six-bit scales and 8 six-bit minima in 12 bytes: those of groups 0…3 in the low six bits of bytes 0…3 and 4…7, those of
// groups 4…7 in the nibbles of bytes 8…11 with their top two bits above the former.
TENON_ALWAYS_INLINE void SplitKScales(const uint8_t* packed, float d, float dmin, float* scales, float* mins) {
  for (int j = 0; j < 4; j++) {
    scales[j] = d * static_cast<float>(packed[j] & 63);
    mins[j] = -(dmin * static_cast<float>(packed[4 + j] & 63));
    scales[4 + j] = d * static_cast<float>((packed[8 + j] & 15) | (packed[j] >> 6) << 4);
    mins[4 + j] = -(dmin * static_cast<float>((packed[8 + j] >> 4) | (packed[4 + j] >> 6) << 4));
  }
}

// d, dmin, 12 bytes of scales, 128 bytes of nibbles: 32 bytes hold groups 2i (low) and 2i + 1 (high) of 32 elements.
TENON_CLONES inline void SplitQ4_K(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float* mins) {
  for (int64_t b = 0; b < num_blocks; b++, src += 144, u += kSuperBlock, scales += 8, mins += 8) {
    SplitKScales(src + 4, LoadF16(src), LoadF16(src + 2), scales, mins);
    for (int group = 0; group < 8; group++) {
      const uint8_t* qs = src + 4 + kKScaleBytes + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int l = 0; l < 32; l++) u[32 * group + l] = (qs[l] >> shift) & 15;
    }
  }
}

// As Q4_K, with 32 bytes of fifth bits (bit i of byte l: element l of group i) before the nibbles.
TENON_CLONES inline void SplitQ5_K(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float* mins) {
  for (int64_t b = 0; b < num_blocks; b++, src += 176, u += kSuperBlock, scales += 8, mins += 8) {
    SplitKScales(src + 4, LoadF16(src), LoadF16(src + 2), scales, mins);
    const uint8_t* high = src + 4 + kKScaleBytes;
    for (int group = 0; group < 8; group++) {
      const uint8_t* qs = high + 32 + group / 2 * 32;
      const int shift = group % 2 * 4;
      for (int l = 0; l < 32; l++)
        u[32 * group + l] = static_cast<uint8_t>(((qs[l] >> shift) & 15) | ((high[l] >> group) & 1) << 4);
    }
  }
}

// 128 bytes of nibbles, 64 bytes of bit pairs, 16 signed scales per 16 elements, d. In each half (128 elements): byte l of
// 64 holds the nibbles of elements l and 64 + l; byte l of 32 the top bits of elements l, 32 + l, 64 + l, 96 + l.
TENON_CLONES inline void SplitQ6_K(const uint8_t* src, int64_t num_blocks, uint8_t* u, float* scales, float*) {
  for (int64_t b = 0; b < num_blocks; b++, src += 210, u += kSuperBlock, scales += 16) {
    const float d = LoadF16(src + 208);
    for (int group = 0; group < 16; group++) {
      const int half = group / 8;
      const uint8_t* low = src + 64 * half + group % 4 * 16;
      const uint8_t* high = src + 128 + 32 * half + group % 2 * 16;
      const int low_shift = group % 8 / 4 * 4;
      const int high_shift = group % 8 / 2 * 2;
      scales[group] = d * static_cast<float>(static_cast<int8_t>(src[192 + group]));
      for (int l = 0; l < 16; l++)
        u[16 * group + l] = static_cast<uint8_t>(((low[l] >> low_shift) & 15) | ((high[l] >> high_shift) & 3) << 4);
    }
  }
}

// Values of integers: scale * (u - zero) + min, with `mins` null where there are none.
TENON_CLONES inline void ScaleGroups(const uint8_t* u, const float* scales, const float* mins, int64_t num_groups, int group,
                              int zero, float* dst) {
  for (int64_t g = 0; g < num_groups; g++, u += group, dst += group) {
    const float scale = scales[g], min = mins == nullptr ? -0.0f : mins[g];
    for (int j = 0; j < group; j++) dst[j] = scale * static_cast<float>(u[j] - zero) + min;
  }
}

inline constexpr std::array kFormats = {
    CheckpointFormat{"F32", 1, 4, DequantizeF32},
    CheckpointFormat{"F16", 1, 2, DequantizeF16},
    CheckpointFormat{"BF16", 1, 2, DequantizeBf16},
    CheckpointFormat{"Q4_0", 32, 18, nullptr, {32, 4, 8, false, SplitQ4_0}},
    CheckpointFormat{"Q4_1", 32, 20, nullptr, {32, 4, 0, true, SplitQ4_1}},
    CheckpointFormat{"Q5_0", 32, 22, nullptr, {32, 5, 16, false, SplitQ5_0}},
    CheckpointFormat{"Q5_1", 32, 24, nullptr, {32, 5, 0, true, SplitQ5_1}},
    CheckpointFormat{"Q8_0", 32, 34, nullptr, {32, 8, 128, false, SplitQ8_0}},
    CheckpointFormat{"Q2_K", 256, 84, nullptr, {16, 2, 0, true, SplitQ2_K}},
    CheckpointFormat{"Q3_K", 256, 110, nullptr, {16, 3, 4, false, SplitQ3_K}},
    CheckpointFormat{"Q4_K", 256, 144, nullptr, {32, 4, 0, true, SplitQ4_K}},
    CheckpointFormat{"Q5_K", 256, 176, nullptr, {32, 5, 0, true, SplitQ5_K}},
    CheckpointFormat{"Q6_K", 256, 210, nullptr, {16, 6, 32, false, SplitQ6_K}},
};

}  // namespace formats_internal

// For scales and minima of weight schemes (GroupedRow), which are f16.
using formats_internal::F16ToF32;

// By way of the integers of at most kSuperBlock elements at a time.
inline void CheckpointFormat::Dequantize(const uint8_t* src, int64_t num_blocks, float* dst) const {
  if (!IsGrouped()) return convert(src, num_blocks, dst);
  using namespace formats_internal;
  std::array<uint8_t, kSuperBlock> u;
  std::array<float, kSuperBlock / 16> scales, mins;
  const int64_t step = kSuperBlock / block_elements;
  for (int64_t b = 0; b < num_blocks; b += step) {
    const int64_t blocks = std::min(step, num_blocks - b), elements = blocks * block_elements;
    groups.split(src + b * block_bytes, blocks, u.data(), scales.data(), mins.data());
    ScaleGroups(u.data(), scales.data(), groups.has_min ? mins.data() : nullptr, elements / groups.size, groups.size,
                groups.zero, dst);
    dst += elements;
  }
}

// The format of that name, or null.
inline const CheckpointFormat* FindCheckpointFormat(std::string_view name) {
  for (const CheckpointFormat& format : formats_internal::kFormats) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

// All names, for messages: "F32, F16, ...".
inline std::string CheckpointFormatNames() {
  std::string names;
  for (const CheckpointFormat& format : formats_internal::kFormats) names.append(names.empty() ? "" : ", ").append(format.name);
  return names;
}

// 16-bit floats of n values, rounded to nearest even; a NaN stays a NaN.
TENON_CLONES inline void ConvertToBf16(const float* src, int64_t n, uint16_t* dst) {
  for (int64_t i = 0; i < n; i++) {
    const uint32_t bits = std::bit_cast<uint32_t>(src[i]);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const uint32_t quiet_nan = bits >> 16 | 0x40;
    dst[i] = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : rounded);
  }
}

// Values below the smallest normal half are aligned to its last place by adding 0.5, which rounds them to nearest even.
TENON_CLONES inline void ConvertToF16(const float* src, int64_t n, uint16_t* dst) {
  constexpr uint32_t kInfinity = 0x7f800000, kOverflow = 0x477ff000, kSmallestNormal = 0x38800000;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t bits = std::bit_cast<uint32_t>(src[i]);
    const uint32_t magnitude = bits & 0x7fffffff;
    const uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const uint32_t tiny = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
    uint32_t half = magnitude < kSmallestNormal ? tiny : normal;
    half = magnitude >= kOverflow ? 0x7c00 : half;
    half = magnitude > kInfinity ? 0x7e00 | ((magnitude >> 13) & 0x3ff) : half;
    dst[i] = static_cast<uint16_t>(half | (bits >> 16 & 0x8000));
  }
}

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon

#undef TENON_ALWAYS_INLINE
