// Vocabulary-long loops of sampling, over f32 logits x [n]. A NaN counts as -inf everywhere. Results are the same on every
// instruction set: sums have fixed lanes and are never fused or reordered.
#pragma once

#include <cstdint>

namespace tenon_cpu {

// Maxima are taken over groups: element i of the segment of 2048 belongs to its group i mod 32. Every group holds at most
// 64 elements, so the k-th largest group maximum bounds the k-th largest element from below.
inline constexpr int64_t kSegment = 2048;
inline constexpr int64_t kSegmentGroups = 32;
constexpr int64_t NumSegments(int64_t n) { return (n + kSegment - 1) / kSegment; }
constexpr int64_t NumGroups(int64_t n) { return NumSegments(n) * kSegmentGroups; }

// y = x / divisor, NaN as -inf; y may be x.
void DivideRow(const float* x, int64_t n, float divisor, float* y);

// maxima [NumGroups(n)], -inf for groups without a number; returns the largest of all.
float GroupMaxima(const float* x, int64_t n, float* maxima);

// The lowest i with x[i] = value; n if there is none.
int64_t FirstEqual(const float* x, int64_t n, float value);

int64_t CountGreater(const float* x, int64_t n, float value);

// Writes the elements ≥ min in ascending order to ids, values (both with room for n), and returns their number.
int64_t CollectAtLeast(const float* x, int64_t n, float min, int32_t* ids, float* values);

// w[i] = e^(x[i] - max) in double (relative error below 1e-12; 0 below e^-708).
void ExpWeights(const float* x, int64_t n, float max, double* w);

// Σ w in 16 interleaved partial sums.
double Sum(const double* w, int64_t n);

// sums [NumSegments(n)]: Σ e^(x - max) over each segment. Returns their sum.
double SegmentExpSums(const float* x, int64_t n, float max, double* sums);

}  // namespace tenon_cpu
