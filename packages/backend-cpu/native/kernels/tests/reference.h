// What the kernel tests share: seeded random numbers, arrays of any dtype, and comparisons against float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../kernels.h"

namespace tenon_cpu::testing {

inline double EpsOf(Dtype dtype) {
  return dtype == Dtype::kF32 ? 0x1p-24 : dtype == Dtype::kBf16 ? 0x1p-8 : 0x1p-11;
}
// Half of the smallest step: the rounding error among subnormals.
inline double MinStep(Dtype dtype) { return dtype == Dtype::kF16 ? 0x1p-25 : 0; }
inline const char* NameOf(Dtype dtype) {
  return dtype == Dtype::kF32 ? "f32" : dtype == Dtype::kBf16 ? "bf16" : "f16";
}
inline constexpr Dtype kFloats[] = {Dtype::kF32, Dtype::kBf16, Dtype::kF16};

// xorshift64*.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }
  int64_t Below(int64_t n) { return static_cast<int64_t>(Next() >> 11) % n; }
  int64_t Between(int64_t low, int64_t high) { return low + Below(high - low + 1); }
  // In [-1, 1).
  float Uniform() { return static_cast<float>(static_cast<int64_t>(Next() >> 40) - (1 << 23)) / (1 << 23); }
  template <class T, size_t N>
  T Pick(const T (&choices)[N]) {
    return choices[Below(N)];
  }

 private:
  uint64_t state_;
};

// Elements of a dtype in memory that starts `misalign` elements after a 64-byte boundary and ends where the heap block ends.
class Array {
 public:
  Array(Dtype dtype, int64_t size, int misalign = 0)
      : dtype_(dtype), size_(size), width_(dtype == Dtype::kF32 ? 4 : 2), bytes_((size + misalign) * width_),
        begin_(misalign * width_) {}

  void* data() { return bytes_.data() + begin_; }
  const void* data() const { return bytes_.data() + begin_; }
  Dtype dtype() const { return dtype_; }
  int64_t size() const { return size_; }
  int64_t size_bytes() const { return size_ * width_; }

  double At(int64_t i) const {
    const char* at = static_cast<const char*>(data()) + i * width_;
    if (dtype_ == Dtype::kF32) {
      float x;
      std::memcpy(&x, at, 4);
      return x;
    }
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    return dtype_ == Dtype::kBf16 ? FromBf16(bits) : FromF16(bits);
  }

  // Rounds to nearest even (exactly, by way of double).
  void Set(int64_t i, double value) {
    char* at = static_cast<char*>(data()) + i * width_;
    if (dtype_ == Dtype::kF32) {
      const float x = static_cast<float>(value);
      std::memcpy(at, &x, 4);
      return;
    }
    const uint16_t bits = dtype_ == Dtype::kBf16 ? ToHalf(value, 8, 127) : ToHalf(value, 5, 15);
    std::memcpy(at, &bits, 2);
  }

  void Fill(Random& random, double scale = 1) {
    for (int64_t i = 0; i < size_; i++) Set(i, random.Uniform() * scale);
  }
  // Quiet NaN everywhere: what must not be read shows.
  void Poison() {
    for (int64_t i = 0; i < size_; i++) Set(i, NAN);
  }

 private:
  static double FromBf16(uint16_t bits) {
    const uint32_t wide = uint32_t{bits} << 16;
    float x;
    std::memcpy(&x, &wide, 4);
    return x;
  }
  static double FromF16(uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double x = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) x = mantissa != 0 ? NAN : INFINITY;
    return bits & 0x8000 ? -x : x;
  }
  static uint16_t ToHalf(double value, int exponent_bits, int bias) {
    const int mantissa_bits = 15 - exponent_bits;
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const uint16_t infinity = static_cast<uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);
    if (std::isnan(value)) return sign | infinity | static_cast<uint16_t>(1 << (mantissa_bits - 1));
    const double magnitude = std::fabs(value);
    if (magnitude == 0) return sign;
    int exponent = std::isinf(magnitude) ? 10000 : std::ilogb(magnitude);
    if (exponent < 1 - bias) exponent = 1 - bias;
    if (exponent > bias) return sign | infinity;
    const double steps = std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent));
    const int64_t bits = static_cast<int64_t>(steps) + (int64_t{exponent + bias - 1} << mantissa_bits);
    return sign | static_cast<uint16_t>(bits < infinity ? bits : infinity);
  }

  Dtype dtype_;
  int64_t size_;
  int64_t width_;
  std::vector<char> bytes_;
  int64_t begin_;
};

// Counts checks and prints the failed ones.
class Report {
 public:
  explicit Report(const char* isa) : isa_(isa) {}

  // got[i] within tolerance[i] of want[i]; prints the worst element.
  void Close(const std::string& what, const std::function<double(int64_t)>& got, const std::vector<double>& want,
             const std::vector<double>& tolerance) {
    int64_t worst = -1;
    double worst_ratio = 0;
    for (int64_t i = 0; i < static_cast<int64_t>(want.size()); i++) {
      const double error = std::fabs(got(i) - want[i]);
      const double ratio = got(i) == want[i] ? 0 : error / tolerance[i];
      if (ratio > worst_ratio || std::isnan(ratio)) {
        worst = i;
        worst_ratio = std::isnan(ratio) ? INFINITY : ratio;
      }
    }
    if (worst_ratio > largest_ratio_) largest_ratio_ = worst_ratio;
    checks_++;
    if (worst_ratio <= 1) return;
    failures_++;
    std::printf("FAIL %s %s: element %lld is %.9g, want %.9g, tolerance %.3g (%.2f times)\n", isa_, what.c_str(),
                static_cast<long long>(worst), got(worst), want[worst], tolerance[worst], worst_ratio);
  }

  void True(const std::string& what, bool holds) {
    checks_++;
    if (holds) return;
    failures_++;
    std::printf("FAIL %s %s\n", isa_, what.c_str());
  }

  void Same(const std::string& what, const Array& a, const Array& b) {
    int64_t i = 0;
    while (i < a.size() && SameBits(a, b, i)) i++;
    if (i == a.size()) return True(what, true);
    True(what + ": element " + std::to_string(i) + " differs: " + std::to_string(a.At(i)) + " and " +
             std::to_string(b.At(i)),
         false);
  }

  int failures() const { return failures_; }
  int checks() const { return checks_; }
  // Error over tolerance, of the worst element of all.
  double largest_ratio() const { return largest_ratio_; }

 private:
  static bool SameBits(const Array& a, const Array& b, int64_t i) {
    const int64_t width = a.size_bytes() / a.size();
    return std::memcmp(static_cast<const char*>(a.data()) + i * width, static_cast<const char*>(b.data()) + i * width,
                       width) == 0;
  }

  const char* isa_;
  int failures_ = 0;
  int checks_ = 0;
  double largest_ratio_ = 0;
};

inline double ActivateReference(double x, int activation) {
  if (activation == 0) return x / (1 + std::exp(-x));
  if (activation == 1) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  return x / (1 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)));
}

// Aligned bytes; on huge pages where they are many, as the runtime's memory is.
class AlignedBytes {
 public:
  explicit AlignedBytes(size_t size) : size_(size) {
    constexpr size_t kLine = 64, kHugePage = size_t{2} << 20;
    const size_t alignment = size < 2 * kHugePage ? kLine : kHugePage;
    const size_t rounded = (size + alignment - 1) / alignment * alignment;
    data_.reset(static_cast<char*>(std::aligned_alloc(alignment, rounded + (rounded == 0 ? kLine : 0))));
#if defined(__linux__)
    if (alignment == kHugePage) madvise(data_.get(), rounded, MADV_HUGEPAGE);
#endif
    std::memset(data_.get(), 0, size);
  }
  char* data() { return data_.get(); }
  const char* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  size_t size_;
  std::unique_ptr<char, Free> data_;
};

// A weight [n, k] in f32 values that its dtype holds exactly, and its packed form.
struct Weight {
  Weight(const Kernels& kernels, Random& random, Dtype dtype, int64_t n, int64_t k, bool gated)
      : values(static_cast<size_t>(n * k)),
        bytes(static_cast<size_t>(NumBlocks(n, gated) * PackedBlockBytes(dtype, k))),
        packed{bytes.data(), dtype, n, k} {
    Array rounded(dtype, n * k);
    rounded.Fill(random);
    for (int64_t i = 0; i < n * k; i++) values[i] = static_cast<float>(rounded.At(i));
    const int64_t half = gated ? n / 2 : n;
    for (int64_t block = 0; block < NumBlocks(n, gated); block++) {
      const int64_t first = gated ? block % 2 * half + block / 2 * kLanes : block * kLanes;
      const int64_t end = gated ? block % 2 * half + half : n;
      const float* rows[kLanes] = {};
      int count = 0;
      for (; count < kLanes && first + count < end; count++) rows[count] = values.data() + (first + count) * k;
      kernels.pack_block({rows, count, k, dtype, bytes.data() + block * PackedBlockBytes(dtype, k)});
    }
  }
  static int64_t NumBlocks(int64_t n, bool gated) {
    return gated ? 2 * ((n / 2 + kLanes - 1) / kLanes) : (n + kLanes - 1) / kLanes;
  }

  std::vector<float> values;  // [n, k]
  AlignedBytes bytes;
  PackedMatrix packed;
};

// A grouped weight [n, k] of random numbers, and its packed form.
class GroupedWeight {
 public:
  GroupedWeight(Random& random, const Grouping& grouping, Dtype dtype, int64_t n, int64_t k, bool gated)
      : grouping_(grouping), n_(n), k_(k), gated_(gated), quants_(static_cast<size_t>(n * k)),
        scales_(Dtype::kF16, n * k / grouping.group), mins_(Dtype::kF16, n * k / grouping.group),
        bytes_(static_cast<size_t>(Weight::NumBlocks(n, gated) * PackedBlockBytes(dtype, k, grouping))),
        packed{bytes_.data(), dtype, n, k, grouping} {
    scales_.Fill(random);
    mins_.Fill(random, 8);
    FillQuants([&](int64_t) { return random.Below(256); });
  }

  // u of element i is fn(i), cut to the grouping's bits.
  void FillQuants(const std::function<int64_t(int64_t)>& fn) {
    for (int64_t i = 0; i < n_ * k_; i++) {
      quants_[static_cast<size_t>(i)] = static_cast<uint8_t>(fn(i) & ((1 << grouping_.bits) - 1));
    }
    const int64_t half = gated_ ? n_ / 2 : n_;
    for (int64_t block = 0; block < Weight::NumBlocks(n_, gated_); block++) {
      const int64_t first = gated_ ? block % 2 * half + block / 2 * kLanes : block * kLanes;
      PackBlock(block, first, std::min(first + kLanes, gated_ ? block % 2 * half + half : n_));
    }
  }

  double At(int64_t n, int64_t k) const { return grouping_.has_min ? Scaled(n, k) + Min(n, k) : Scaled(n, k); }
  double Magnitude(int64_t n, int64_t k) const { return std::fabs(Scaled(n, k)) + std::fabs(Min(n, k)); }

 private:
  int64_t GroupOf(int64_t n, int64_t k) const { return (n * k_ + k) / grouping_.group; }
  double Scaled(int64_t n, int64_t k) const {
    return scales_.At(GroupOf(n, k)) * (quants_[static_cast<size_t>(n * k_ + k)] - grouping_.Zero());
  }
  double Min(int64_t n, int64_t k) const { return grouping_.has_min ? mins_.At(GroupOf(n, k)) : 0; }

  void PackBlock(int64_t block, int64_t begin, int64_t end) {
    const uint8_t* quants[kLanes];
    const uint16_t *scales[kLanes], *mins[kLanes];
    for (int64_t row = begin; row < end; row++) {
      quants[row - begin] = quants_.data() + row * k_;
      scales[row - begin] = static_cast<const uint16_t*>(scales_.data()) + GroupOf(row, 0);
      mins[row - begin] = static_cast<const uint16_t*>(mins_.data()) + GroupOf(row, 0);
    }
    PackGroupedBlock({quants, scales, grouping_.has_min ? mins : nullptr, static_cast<int>(std::max<int64_t>(0, end - begin)),
                      k_, grouping_, bytes_.data() + block * PackedBlockBytes(Dtype::kF32, k_, grouping_)});
  }

  Grouping grouping_;
  int64_t n_, k_;
  bool gated_;
  std::vector<uint8_t> quants_;  // [n, k]
  Array scales_, mins_;          // [n, k / group]
  AlignedBytes bytes_;

 public:
  PackedMatrix packed;
};

void TestGemm(const Kernels& kernels, Random& random, Report& report);
void TestGroupedGemm(const Kernels& kernels, Random& random, Report& report);
void TestAttention(const Kernels& kernels, Random& random, Report& report);
void TestKvWrite(const Kernels& kernels, Random& random, Report& report);
void TestElementwise(const Kernels& kernels, Random& random, Report& report);
void TestVocab(const Kernels& kernels, Random& random, Report& report);

}  // namespace tenon_cpu::testing
