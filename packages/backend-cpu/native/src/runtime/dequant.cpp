// Checkpoint formats → f32.
//
// The block formats are GGUF's. "_0": value = d * (q - offset), "_1": value = d * q + m, over blocks of 32. "_K":
// super-blocks of 256 with a scale (and minimum) per 16 or 32 elements, themselves quantized: value = (d * scale) * q -
// (dmin * min). d, m and dmin are f16. Compiled with -ffp-contract=off: a fused multiply-add would round differently.
//
// The loops are plain: the compiler vectorizes them for every instruction set (clones.h).
#include "dequant.h"

#include <array>
#include <bit>
#include <cstring>

#include "clones.h"

#define TENON_INLINE static inline __attribute__((always_inline))

namespace tenon_cpu {
namespace {

constexpr int kSmallBlock = 32;
constexpr int kSuperBlock = 256;
constexpr int kKScaleBytes = 12;

TENON_INLINE uint16_t LoadU16(const uint8_t* src) {
  uint16_t value;
  std::memcpy(&value, src, sizeof value);
  return value;
}

TENON_INLINE uint32_t LoadU32(const uint8_t* src) {
  uint32_t value;
  std::memcpy(&value, src, sizeof value);
  return value;
}

// Exact for every input: the exponent is shifted into place by a multiplication, which also makes denormals normal.
TENON_INLINE float F16ToF32(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  uint32_t bits = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u;
  return std::bit_cast<float>(bits | static_cast<uint32_t>(half & 0x8000) << 16);
}

TENON_INLINE float LoadF16(const uint8_t* src) { return F16ToF32(LoadU16(src)); }

TENON_CLONES void DequantizeF32(const uint8_t* src, int64_t n, float* dst) {
  std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(float));
}

TENON_CLONES void DequantizeF16(const uint8_t* src, int64_t n, float* dst) {
  for (int64_t i = 0; i < n; i++) dst[i] = LoadF16(src + 2 * i);
}

TENON_CLONES void DequantizeBf16(const uint8_t* src, int64_t n, float* dst) {
  for (int64_t i = 0; i < n; i++) dst[i] = std::bit_cast<float>(static_cast<uint32_t>(LoadU16(src + 2 * i)) << 16);
}

// Low nibbles are elements 0…15 of a block of 32, high nibbles 16…31.

// d, 16 bytes of nibbles
TENON_CLONES void DequantizeQ4_0(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 18, dst += kSmallBlock) {
    const float d = LoadF16(src);
    const uint8_t* qs = src + 2;
    for (int j = 0; j < 16; j++) dst[j] = d * static_cast<float>((qs[j] & 15) - 8);
    for (int j = 0; j < 16; j++) dst[16 + j] = d * static_cast<float>((qs[j] >> 4) - 8);
  }
}

// d, m, 16 bytes of nibbles
TENON_CLONES void DequantizeQ4_1(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 20, dst += kSmallBlock) {
    const float d = LoadF16(src), m = LoadF16(src + 2);
    const uint8_t* qs = src + 4;
    for (int j = 0; j < 16; j++) dst[j] = d * static_cast<float>(qs[j] & 15) + m;
    for (int j = 0; j < 16; j++) dst[16 + j] = d * static_cast<float>(qs[j] >> 4) + m;
  }
}

// Element j of 32 with its fifth bit, bit j of `high`, in place.
TENON_INLINE int LowFiveBits(uint8_t byte, uint32_t high, int j) { return (byte & 15) | static_cast<int>(high >> j & 1) << 4; }
TENON_INLINE int HighFiveBits(uint8_t byte, uint32_t high, int j) {
  return byte >> 4 | static_cast<int>(high >> (16 + j) & 1) << 4;
}

// d, 4 bytes of fifth bits, 16 bytes of nibbles
TENON_CLONES void DequantizeQ5_0(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 22, dst += kSmallBlock) {
    const float d = LoadF16(src);
    const uint32_t high = LoadU32(src + 2);
    const uint8_t* qs = src + 6;
    for (int j = 0; j < 16; j++) dst[j] = d * static_cast<float>(LowFiveBits(qs[j], high, j) - 16);
    for (int j = 0; j < 16; j++) dst[16 + j] = d * static_cast<float>(HighFiveBits(qs[j], high, j) - 16);
  }
}

// d, m, 4 bytes of fifth bits, 16 bytes of nibbles
TENON_CLONES void DequantizeQ5_1(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 24, dst += kSmallBlock) {
    const float d = LoadF16(src), m = LoadF16(src + 2);
    const uint32_t high = LoadU32(src + 4);
    const uint8_t* qs = src + 8;
    for (int j = 0; j < 16; j++) dst[j] = d * static_cast<float>(LowFiveBits(qs[j], high, j)) + m;
    for (int j = 0; j < 16; j++) dst[16 + j] = d * static_cast<float>(HighFiveBits(qs[j], high, j)) + m;
  }
}

// d, 32 signed bytes
TENON_CLONES void DequantizeQ8_0(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 34, dst += kSmallBlock) {
    const float d = LoadF16(src);
    for (int j = 0; j < kSmallBlock; j++) dst[j] = d * static_cast<float>(static_cast<int8_t>(src[2 + j]));
  }
}

// 16 bytes of nibble pairs (scale, min) per 16 elements, 64 bytes of 2-bit values, d, dmin. Byte l of each half of the
// values holds elements l, 32 + l, 64 + l, 96 + l of 128.
TENON_CLONES void DequantizeQ2_K(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 84, dst += kSuperBlock) {
    const uint8_t* scales = src;
    const float d = LoadF16(src + 80);
    const float dmin = LoadF16(src + 82);
    for (int group = 0; group < 16; group++) {
      const uint8_t* qs = src + 16 + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      const float scale = d * static_cast<float>(scales[group] & 15);
      const float min = dmin * static_cast<float>(scales[group] >> 4);
      float* y = dst + 16 * group;
      for (int l = 0; l < 16; l++) y[l] = scale * static_cast<float>((qs[l] >> shift) & 3) - min;
    }
  }
}

// 16 six-bit scales in 12 bytes: the low nibbles of scales 0…7 and 8…15 in bytes 0…7, then two more bits each in bytes 8…11.
TENON_INLINE void UnpackQ3Scales(const uint8_t* packed, int8_t* scales) {
  for (int j = 0; j < 16; j++) {
    const int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    const int high = (packed[8 + j % 4] >> (j / 4 * 2)) & 3;
    scales[j] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

// 32 bytes of third bits (bit i of byte l: element 32 i + l; 0 means minus 4), 64 bytes of 2-bit values as in Q2_K, 12
// bytes of scales, d.
TENON_CLONES void DequantizeQ3_K(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 110, dst += kSuperBlock) {
    int8_t scales[16];
    UnpackQ3Scales(src + 96, scales);
    const float d = LoadF16(src + 108);
    for (int group = 0; group < 16; group++) {
      const uint8_t* high = src + group % 2 * 16;
      const uint8_t* qs = src + 32 + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      const int bit = group / 2;
      const float scale = d * static_cast<float>(scales[group]);
      float* y = dst + 16 * group;
      for (int l = 0; l < 16; l++) {
        const int q = ((qs[l] >> shift) & 3) + ((high[l] >> bit) & 1) * 4 - 4;
        y[l] = scale * static_cast<float>(q);
      }
    }
  }
}

// 8 six-bit scales and 8 six-bit minima in 12 bytes: those of groups 0…3 in the low six bits of bytes 0…3 and 4…7, those of
// groups 4…7 in the nibbles of bytes 8…11 with their top two bits above the former.
TENON_INLINE void UnpackKScales(const uint8_t* packed, uint8_t* scales, uint8_t* mins) {
  for (int j = 0; j < 4; j++) {
    scales[j] = packed[j] & 63;
    mins[j] = packed[4 + j] & 63;
    scales[4 + j] = static_cast<uint8_t>((packed[8 + j] & 15) | (packed[j] >> 6) << 4);
    mins[4 + j] = static_cast<uint8_t>((packed[8 + j] >> 4) | (packed[4 + j] >> 6) << 4);
  }
}

// d, dmin, 12 bytes of scales, 128 bytes of nibbles: 32 bytes hold groups 2i (low) and 2i + 1 (high) of 32 elements.
TENON_CLONES void DequantizeQ4_K(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 144, dst += kSuperBlock) {
    uint8_t scales[8], mins[8];
    UnpackKScales(src + 4, scales, mins);
    const float d = LoadF16(src);
    const float dmin = LoadF16(src + 2);
    for (int group = 0; group < 8; group++) {
      const uint8_t* qs = src + 4 + kKScaleBytes + group / 2 * 32;
      const int shift = group % 2 * 4;
      const float scale = d * static_cast<float>(scales[group]);
      const float min = dmin * static_cast<float>(mins[group]);
      float* y = dst + 32 * group;
      for (int l = 0; l < 32; l++) y[l] = scale * static_cast<float>((qs[l] >> shift) & 15) - min;
    }
  }
}

// As Q4_K, with 32 bytes of fifth bits (bit i of byte l: element l of group i) before the nibbles.
TENON_CLONES void DequantizeQ5_K(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 176, dst += kSuperBlock) {
    uint8_t scales[8], mins[8];
    UnpackKScales(src + 4, scales, mins);
    const float d = LoadF16(src);
    const float dmin = LoadF16(src + 2);
    const uint8_t* high = src + 4 + kKScaleBytes;
    for (int group = 0; group < 8; group++) {
      const uint8_t* qs = high + 32 + group / 2 * 32;
      const int shift = group % 2 * 4;
      const float scale = d * static_cast<float>(scales[group]);
      const float min = dmin * static_cast<float>(mins[group]);
      float* y = dst + 32 * group;
      for (int l = 0; l < 32; l++) {
        const int q = ((qs[l] >> shift) & 15) | ((high[l] >> group) & 1) << 4;
        y[l] = scale * static_cast<float>(q) - min;
      }
    }
  }
}

// 128 bytes of nibbles, 64 bytes of bit pairs, 16 signed scales per 16 elements, d. In each half (128 elements): byte l of
// 64 holds the nibbles of elements l and 64 + l; byte l of 32 the top bits of elements l, 32 + l, 64 + l, 96 + l.
TENON_CLONES void DequantizeQ6_K(const uint8_t* src, int64_t num_blocks, float* dst) {
  for (int64_t b = 0; b < num_blocks; b++, src += 210, dst += kSuperBlock) {
    const float d = LoadF16(src + 208);
    for (int group = 0; group < 16; group++) {
      const int half = group / 8;
      const uint8_t* low = src + 64 * half + group % 4 * 16;
      const uint8_t* high = src + 128 + 32 * half + group % 2 * 16;
      const int low_shift = group % 8 / 4 * 4;
      const int high_shift = group % 8 / 2 * 2;
      const float scale = d * static_cast<float>(static_cast<int8_t>(src[192 + group]));
      float* y = dst + 16 * group;
      for (int l = 0; l < 16; l++) {
        const int q = (((low[l] >> low_shift) & 15) | ((high[l] >> high_shift) & 3) << 4) - 32;
        y[l] = scale * static_cast<float>(q);
      }
    }
  }
}

constexpr std::array kFormats = {
    CheckpointFormat{"F32", 1, 4, DequantizeF32},
    CheckpointFormat{"F16", 1, 2, DequantizeF16},
    CheckpointFormat{"BF16", 1, 2, DequantizeBf16},
    CheckpointFormat{"Q4_0", 32, 18, DequantizeQ4_0},
    CheckpointFormat{"Q4_1", 32, 20, DequantizeQ4_1},
    CheckpointFormat{"Q5_0", 32, 22, DequantizeQ5_0},
    CheckpointFormat{"Q5_1", 32, 24, DequantizeQ5_1},
    CheckpointFormat{"Q8_0", 32, 34, DequantizeQ8_0},
    CheckpointFormat{"Q2_K", 256, 84, DequantizeQ2_K},
    CheckpointFormat{"Q3_K", 256, 110, DequantizeQ3_K},
    CheckpointFormat{"Q4_K", 256, 144, DequantizeQ4_K},
    CheckpointFormat{"Q5_K", 256, 176, DequantizeQ5_K},
    CheckpointFormat{"Q6_K", 256, 210, DequantizeQ6_K},
};

}  // namespace

const CheckpointFormat* FindCheckpointFormat(std::string_view name) {
  for (const CheckpointFormat& format : kFormats) {
    if (format.name == name) return &format;
  }
  return nullptr;
}

std::string CheckpointFormatNames() {
  std::string names;
  for (const CheckpointFormat& format : kFormats) names.append(names.empty() ? "" : ", ").append(format.name);
  return names;
}

TENON_CLONES void ConvertToBf16(const float* src, int64_t n, uint16_t* dst) {
  for (int64_t i = 0; i < n; i++) {
    const uint32_t bits = std::bit_cast<uint32_t>(src[i]);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const uint32_t quiet_nan = bits >> 16 | 0x40;
    dst[i] = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : rounded);
  }
}

// Values below the smallest normal half are aligned to its last place by adding 0.5, which rounds them to nearest even.
TENON_CLONES void ConvertToF16(const float* src, int64_t n, uint16_t* dst) {
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

}  // namespace tenon_cpu
