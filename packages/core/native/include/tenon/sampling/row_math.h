// Vocabulary-long loops of sampling, over f32 logits x [n]. A NaN counts as -inf everywhere. Results are the same on every
// instruction set: sums have fixed lanes and are never fused (-ffp-contract=off) or reordered. The loops are plain: the
// compiler vectorizes them for every instruction set (clones.h).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "tenon/clones.h"
#include "tenon/version.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {
namespace sampling {

// Maxima are taken over groups: element i of the segment of 2048 belongs to its group i mod 32. Every group holds at most
// 64 elements, so the k-th largest group maximum bounds the k-th largest element from below.
inline constexpr int64_t kSegment = 2048;
inline constexpr int64_t kSegmentGroups = 32;
constexpr int64_t NumSegments(int64_t n) { return (n + kSegment - 1) / kSegment; }
constexpr int64_t NumGroups(int64_t n) { return NumSegments(n) * kSegmentGroups; }

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
inline constexpr int64_t kChunk = 64;  // elements looked at together in searches
inline constexpr int64_t kSumLanes = 16;

// e^x for x in [-708, 0]. n = round(x / ln 2) comes from adding 1.5 · 2^52, which leaves n in the low bits; r = x - n ln 2
// (ln 2 in two parts), |r| ≤ 0.347; e^r by its Taylor polynomial of degree 10, whose next term is below 2.3e-13; 2^n
// is added to the exponent.
inline __attribute__((always_inline)) double ExpOfNegative(double x) {
  constexpr double kShift = 0x1.8p52, kLog2E = 0x1.71547652b82fep0;
  constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;
  const double shifted = x * kLog2E + kShift;
  const double n = shifted - kShift;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  const double r2 = r * r, r4 = r2 * r2;
  const double p01 = 1.0 + r, p23 = 1.0 / 2 + r * (1.0 / 6), p45 = 1.0 / 24 + r * (1.0 / 120);
  const double p67 = 1.0 / 720 + r * (1.0 / 5040), p89 = 1.0 / 40320 + r * (1.0 / 362880);
  const double low = p01 + r2 * p23, high = (p45 + r2 * p67) + r4 * (p89 + r2 * (1.0 / 3628800));
  return std::bit_cast<double>(std::bit_cast<uint64_t>(low + r4 * high) + (std::bit_cast<uint64_t>(shifted) << 52));
}

// y = x / divisor, NaN as -inf; y may be x.
TENON_CLONES inline void DivideRow(const float* x, int64_t n, float divisor, float* y) {
  for (int64_t i = 0; i < n; i++) {
    const float value = x[i] / divisor;
    y[i] = value == value ? value : kMinusInfinity;
  }
}

// maxima [NumGroups(n)], -inf for groups without a number; returns the largest of all.
TENON_CLONES inline float GroupMaxima(const float* x, int64_t n, float* maxima) {
  float max = kMinusInfinity;
  for (int64_t begin = 0; begin < n; begin += kSegment, maxima += kSegmentGroups) {
    const int64_t end = begin + kSegment < n ? begin + kSegment : n;
    float group[kSegmentGroups];
    for (float& value : group) value = kMinusInfinity;
    int64_t i = begin;
    for (; i + kSegmentGroups <= end; i += kSegmentGroups) {
      for (int64_t j = 0; j < kSegmentGroups; j++) group[j] = x[i + j] > group[j] ? x[i + j] : group[j];
    }
    for (int64_t j = 0; i + j < end; j++) group[j] = x[i + j] > group[j] ? x[i + j] : group[j];
    for (int64_t j = 0; j < kSegmentGroups; j++) {
      maxima[j] = group[j];
      max = group[j] > max ? group[j] : max;
    }
  }
  return max;
}

// The lowest i with x[i] = value; n if there is none.
TENON_CLONES inline int64_t FirstEqual(const float* x, int64_t n, float value) {
  int64_t i = 0;
  for (; i + kChunk <= n; i += kChunk) {
    int32_t found = 0;
    for (int64_t j = 0; j < kChunk; j++) found |= x[i + j] == value;
    if (found) break;
  }
  while (i < n && x[i] != value) i++;
  return i;
}

TENON_CLONES inline int64_t CountGreater(const float* x, int64_t n, float value) {
  int64_t total = 0;
  for (int64_t begin = 0; begin < n; begin += kSegment) {
    const int64_t end = begin + kSegment < n ? begin + kSegment : n;
    int32_t count = 0;
    for (int64_t i = begin; i < end; i++) count += x[i] > value;
    total += count;
  }
  return total;
}

// Writes the elements ≥ min in ascending order to ids, values (both with room for n), and returns their number.
TENON_CLONES inline int64_t CollectAtLeast(const float* x, int64_t n, float min, int32_t* ids, float* values) {
  int64_t count = 0;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = begin + kChunk < n ? begin + kChunk : n;
    int32_t found = 0;
    for (int64_t i = begin; i < end; i++) found |= x[i] >= min;
    if (!found) continue;
    for (int64_t i = begin; i < end; i++) {
      ids[count] = static_cast<int32_t>(i);
      values[count] = x[i];
      count += x[i] >= min;
    }
  }
  return count;
}

// w[i] = e^(x[i] - max) in double (relative error below 1e-12; 0 below e^-708).
TENON_CLONES inline void ExpWeights(const float* x, int64_t n, float max, double* w) {
  for (int64_t i = 0; i < n; i++) {
    const double difference = static_cast<double>(x[i]) - static_cast<double>(max);
    const double weight = ExpOfNegative(difference);
    w[i] = difference >= -708.0 ? weight : 0.0;
  }
}

// Σ w in 16 interleaved partial sums.
TENON_CLONES inline double Sum(const double* w, int64_t n) {
  double lanes[kSumLanes] = {};
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
    for (int64_t j = 0; j < kSumLanes; j++) lanes[j] += w[i + j];
  }
  for (int64_t j = 0; i + j < n; j++) lanes[j] += w[i + j];
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

// sums [NumSegments(n)]: Σ e^(x - max) over each segment. Returns their sum.
inline double SegmentExpSums(const float* x, int64_t n, float max, double* sums) {
  double weights[kSegment];
  double total = 0;
  for (int64_t segment = 0; segment < NumSegments(n); segment++) {
    const int64_t begin = segment * kSegment;
    const int64_t size = std::min(kSegment, n - begin);
    ExpWeights(x + begin, size, max, weights);
    sums[segment] = Sum(weights, size);
    total += sums[segment];
  }
  return total;
}

}  // namespace sampling
}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
