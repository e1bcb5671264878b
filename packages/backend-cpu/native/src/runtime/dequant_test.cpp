// dequant_test <dequant.bin>: every format against recorded values of the `gguf` package, bit for bit; conversions to
// 16-bit floats against their definition for all values of a half, and the cases around every rounding boundary.
#include "tenon/checkpoint.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

namespace tenon {
namespace {

int failures = 0;

#define EXPECT(condition, ...)                             \
  do {                                                     \
    if (!(condition) && ++failures <= 20) {                \
      std::printf("%s:%d: ", __FILE_NAME__, __LINE__);     \
      std::printf(__VA_ARGS__);                            \
      std::printf("\n");                                   \
    }                                                      \
  } while (0)

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }
float Float(uint32_t bits) { return std::bit_cast<float>(bits); }

int TestRecordedFormats(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  int formats = 0;
  for (size_t at = 0; at < bytes.size(); formats++) {
    char name[9] = {};
    int32_t sizes[2];
    std::memcpy(name, &bytes[at], 8);
    std::memcpy(sizes, &bytes[at + 8], sizeof sizes);
    const CheckpointFormat* format = FindCheckpointFormat(name);
    EXPECT(format != nullptr, "no format %s", name);
    if (format == nullptr) return formats;
    EXPECT(format->Bytes(sizes[0]) == sizes[1], "%s: %d elements in %d bytes", name, sizes[0], sizes[1]);

    std::vector<float> expected(sizes[0]), actual(sizes[0]);
    std::memcpy(expected.data(), &bytes[at + 16 + sizes[1]], expected.size() * sizeof(float));
    // One byte off, to see that no alignment is assumed.
    std::vector<uint8_t> shifted(sizes[1] + 1);
    std::memcpy(&shifted[1], &bytes[at + 16], sizes[1]);
    format->Dequantize(&shifted[1], sizes[0] / format->block_elements, actual.data());
    for (int i = 0; i < sizes[0]; i++) {
      const bool both_nan = std::isnan(expected[i]) && std::isnan(actual[i]);
      EXPECT(both_nan || Bits(expected[i]) == Bits(actual[i]), "%s[%d]: %a, expected %a", name, i, actual[i], expected[i]);
    }
    at += 16 + sizes[1] + sizes[0] * sizeof(float);
  }
  return formats;
}

// The nearest of the two 16-bit neighbours by comparing distances in double; ties go to the even one.
uint16_t NearestEven(float value, uint16_t below, double below_value, double above_value) {
  const double low = std::fabs(std::fabs(double{value}) - below_value);
  const double high = std::fabs(above_value - std::fabs(double{value}));
  const uint16_t above = static_cast<uint16_t>(below + 1);
  if (low == high) return below % 2 == 0 ? below : above;
  return low < high ? below : above;
}

// Each half, and the values between it and the next at 1/4, 1/2 and 3/4 of the gap (and a hair off the middle).
void TestConversionToF16() {
  const CheckpointFormat* f16 = FindCheckpointFormat("F16");
  for (uint32_t half = 0; half < 0x7c00; half++) {
    const uint16_t pair[2] = {static_cast<uint16_t>(half), static_cast<uint16_t>(half + 1)};
    float values[2];
    f16->Dequantize(reinterpret_cast<const uint8_t*>(pair), 2, values);
    const double above = half == 0x7bff ? 65536.0 : values[1];
    const double gap = above - values[0];
    for (const double fraction : {0.0, 0.25, 0.49999, 0.5, 0.50001, 0.75}) {
      float tries[2] = {static_cast<float>(values[0] + fraction * gap)};
      tries[1] = -tries[0];
      uint16_t halves[2];
      ConvertToF16(tries, 2, halves);
      const uint16_t expected = NearestEven(tries[0], pair[0], values[0], above);
      EXPECT(halves[0] == expected, "f16(%a) = %04x, expected %04x", tries[0], halves[0], expected);
      EXPECT(halves[1] == (expected | 0x8000), "f16(%a) = %04x", tries[1], halves[1]);
    }
  }
  const float special[4] = {INFINITY, -INFINITY, 1e30f, NAN};
  uint16_t halves[4];
  ConvertToF16(special, 4, halves);
  EXPECT(halves[0] == 0x7c00 && halves[1] == 0xfc00 && halves[2] == 0x7c00, "f16 of infinities");
  EXPECT((halves[3] & 0x7fff) > 0x7c00, "f16(NaN) = %04x", halves[3]);
}

void TestConversionToBf16() {
  for (uint32_t high = 0; high < 0x7f80; high++) {
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float value = Float(high << 16 | low);
      const float pair[2] = {value, -value};
      uint16_t rounded[2];
      ConvertToBf16(pair, 2, rounded);
      const bool up = low > 0x8000 || (low == 0x8000 && high % 2 == 1);
      EXPECT(rounded[0] == high + up, "bf16(%a) = %04x", value, rounded[0]);
      EXPECT(rounded[1] == (rounded[0] | 0x8000), "bf16(%a) = %04x", -value, rounded[1]);
    }
  }
  const float nans[2] = {Float(0x7f800001), Float(0xffffffff)};
  uint16_t rounded[2];
  ConvertToBf16(nans, 2, rounded);
  EXPECT((rounded[0] & 0x7fff) > 0x7f80 && (rounded[1] & 0x7fff) > 0x7f80, "bf16(NaN) = %04x %04x", rounded[0], rounded[1]);
}

}  // namespace
}  // namespace tenon

int main(int argc, char** argv) {
  using namespace tenon;
  if (argc != 2) return std::printf("usage: dequant_test <dequant.bin>\n"), 2;
  const int formats = TestRecordedFormats(argv[1]);
  EXPECT(formats == 13, "%d formats recorded, expected 13", formats);
  TestConversionToF16();
  TestConversionToBf16();
  if (failures > 0) return std::printf("%d failures\n", failures), 1;
  std::printf("ok: %d formats\n", formats);
  return 0;
}
