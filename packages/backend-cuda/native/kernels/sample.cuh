// What sampling is made of: a row's values over a cluster of blocks, sums and maxima over the cluster, and selection without sorting.
#pragma once

#include <algorithm>
#include <climits>

#include "types.cuh"

namespace tenon_cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kRanks = 8;
constexpr int kBins = 1024;
constexpr int kBatch = 1024;  // entries of a top list that are found together; few elements
static_assert(kBatch <= kBins && kBins % kThreads == 0);
constexpr int kWeightBits = 44, kPowerBits = 5, kPowers = 1 << kPowerBits;

__device__ __forceinline__ float MinusInfinity() { return __int_as_float(0xff800000); }
__device__ __forceinline__ float NoNan(float x) { return x == x ? x : MinusInfinity(); }

// Order of floats as unsigned integers; the two zeros are one.
__device__ __forceinline__ uint32_t Key(float x) {
  const uint32_t bits = __float_as_uint(x + 0.f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float FromKey(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}
struct Best {
  float value;
  int id;
};
__device__ __forceinline__ Best Better(Best a, Best b) { return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a; }

struct Entry {
  float value;
  int id;
};

// A block's shared variables. What other blocks of the cluster read is written before a cluster barrier; slots alternate, so that one
// barrier an exchange is enough.
struct Shared {
  uint32_t low[kBins], high[kBins];     // this block's histogram, 64 bits in two
  unsigned long long totals[kBins];     // the cluster's
  Entry list[kBatch];                   // of rank 0: the entries of a top list that are found
  Entry last;                           // that has been found
  Best best_slots[2];
  unsigned long long count_slots[2];
  double sum_slots[2];
  unsigned long long warp_sums[kWarps];
  unsigned long long all_sums[kRanks * kWarps];
  double powers[kPowers];               // 2^(i / kPowers)
  Best warp_bests[kWarps];
  double warp_doubles[kWarps];
  unsigned long long found_before;
  float found_value;
  int found_bin, listed, token;
};

// exp(x - max) in units of 2^-44; less than half a unit is none. x - max is m ln 2 / 32 + r; as double precision is scarce, r has
// a polynomial of degree 6 (off by 2^-57), and 2^(m / 32) a table.
__device__ __forceinline__ uint64_t Weight(const double* powers, float x, float max) {
  if (!(x - max > -32.f)) return 0;
  constexpr double kPerPower = 46.166241308446828, kPower = 0.021660849392498290;  // 32 / ln 2, ln 2 / 32
  constexpr double kRounder = 6755399441055744.0;                                 // 1.5 · 2^52: what is added to it becomes an integer
  constexpr double kInteger = 4503599627370496.0;                                 // 2^52
  const double d = static_cast<double>(x) - static_cast<double>(max), rounded = fma(d, kPerPower, kRounder);
  const int m = __double2loint(rounded);
  const double r = fma(rounded - kRounder, -kPower, d), power = powers[m & (kPowers - 1)];
  double p = fma(r, 1. / 720, 1. / 120);
  p = fma(r, p, 1. / 24);
  p = fma(r, p, 1. / 6);
  p = fma(r, p, 0.5);
  p = fma(r, p, 1.);
  p = fma(r, p, 1.);
  const double scaled = __hiloint2double(__double2hiint(power) + ((m >> kPowerBits) + kWeightBits) * (1 << 20), __double2loint(power));
  return static_cast<uint64_t>(__double_as_longlong(fma(scaled, p, kInteger))) & ((uint64_t{1} << 52) - 1);
}
// powers [kPowers], to be there after the next barrier of the block.
__device__ __forceinline__ void MakePowers(double* powers) {
  if (threadIdx.x < kPowers) powers[threadIdx.x] = exp2(static_cast<double>(threadIdx.x) / kPowers);
}

// The row as the block sees it.
struct Slice {
  float* x;        // [size]: values of ids begin...
  uint32_t* counts;
  int begin, size;
  int rank, ranks;
  int turn;        // of the slots
};

// Of all blocks but the last; a multiple of four.
__host__ __device__ constexpr int SliceSize(int64_t vocab, int ranks) { return static_cast<int>((vocab + ranks * 4 - 1) / (ranks * 4) * 4); }

// ---- exchanges over the cluster; all threads of all its blocks call these, and all get the answer ----

__device__ Best ClusterBest(Shared& s, Slice& slice, Best best) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    best = Better(best, {__shfl_xor_sync(0xffffffffu, best.value, offset), __shfl_xor_sync(0xffffffffu, best.id, offset)});
  if (threadIdx.x % 32 == 0) s.warp_bests[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x < 32) {
    best = s.warp_bests[threadIdx.x % kWarps];
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
      best = Better(best, {__shfl_xor_sync(0xffffffffu, best.value, offset), __shfl_xor_sync(0xffffffffu, best.id, offset)});
    if (threadIdx.x == 0) s.best_slots[slice.turn] = best;
  }
  SyncCluster();
  best = *OfRank(&s.best_slots[slice.turn], 0);
  for (int r = 1; r < slice.ranks; ++r) best = Better(best, *OfRank(&s.best_slots[slice.turn], r));
  slice.turn ^= 1;
  return best;
}

// Σ over all threads; *before: of the lower ranks.
__device__ unsigned long long ClusterCount(Shared& s, Slice& slice, unsigned long long count, unsigned long long* before = nullptr) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) count += __shfl_xor_sync(0xffffffffu, count, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.warp_sums[threadIdx.x / 32] = count;
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned long long sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += s.warp_sums[w];
    s.count_slots[slice.turn] = sum;
  }
  SyncCluster();
  unsigned long long total = 0, lower = 0;
  for (int r = 0; r < slice.ranks; ++r) {
    if (r == slice.rank) lower = total;
    total += *OfRank(&s.count_slots[slice.turn], r);
  }
  slice.turn ^= 1;
  if (before != nullptr) *before = lower;
  return total;
}

// Σ, added in the same order in every run.
__device__ double ClusterSum(Shared& s, Slice& slice, double sum) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.warp_doubles[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    for (int w = 0; w < kWarps; ++w) total += s.warp_doubles[w];
    s.sum_slots[slice.turn] = total;
  }
  SyncCluster();
  double total = 0;
  for (int r = 0; r < slice.ranks; ++r) total += *OfRank(&s.sum_slots[slice.turn], r);
  slice.turn ^= 1;
  return total;
}

// The largest value and its lowest id, of value(i), i < slice.size.
template <typename F>
__device__ Best SliceBest(Shared& s, Slice& slice, F&& value) {
  Best best{MinusInfinity(), INT_MAX};
  for (int i = threadIdx.x; i < slice.size; i += kThreads) best = Better(best, {value(i), slice.begin + i});
  best = ClusterBest(s, slice, best);
  if (best.id == INT_MAX) best.id = 0;
  return best;
}

// ---- selection ----

// Values in order from the top: a bin of [max - x] first, so that usual logits spread over the bins, then the bits of their keys.
__device__ __forceinline__ int LinearBin(float x, float max) {
  return x == max ? 0 : static_cast<int>(fminf((max - x) * 32.f, static_cast<float>(kBins - 1)));
}

// Adds up the blocks' histograms, and finds the bin, from low to high numbers, where the running sum, which begins at *before, reaches
// wanted(total of all bins); *before becomes the sum ahead of it.
template <typename W>
__device__ int FindBin(Shared& s, Slice& slice, unsigned long long* before, W&& wanted) {
  SyncCluster();
  // each block adds up its share of the bins, for all
  const int share = kBins / slice.ranks;
  for (int i = threadIdx.x; i < share; i += kThreads) {
    const int bin = slice.rank * share + i;
    unsigned long long sum = 0;
    for (int r = 0; r < slice.ranks; ++r)
      sum += (static_cast<unsigned long long>(OfRank(s.high, r)[bin]) << 32) + OfRank(s.low, r)[bin];
    for (int r = 0; r < slice.ranks; ++r) OfRank(s.totals, r)[bin] = sum;
  }
  SyncCluster();
  constexpr int kEach = kBins / kThreads;
  unsigned long long own[kEach], sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) sum += own[i] = s.totals[threadIdx.x * kEach + i];
  unsigned long long prefix = sum;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const unsigned long long other = __shfl_up_sync(0xffffffffu, prefix, offset);
    if (lane >= offset) prefix += other;
  }
  if (lane == 31) s.warp_sums[warp] = prefix;
  __syncthreads();
  unsigned long long lower = 0, total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) lower = total;
    total += s.warp_sums[w];
  }
  const unsigned long long goal = wanted(total);
  unsigned long long at = *before + lower + prefix - sum;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (at < goal && at + own[i] >= goal) {
      s.found_bin = threadIdx.x * kEach + i;
      s.found_before = at;
    }
    at += own[i];
  }
  __syncthreads();
  *before = s.found_before;
  const int bin = s.found_bin;
  __syncthreads();
  return bin;
}

// The few elements that remain are gathered in every block; the one where the sum reaches `wanted` is found by comparing all with all.
// Returns false where they are not few.
template <typename M, typename A>
__device__ bool SelectOfFew(Shared& s, Slice& slice, unsigned long long wanted, M&& matches, A&& amount_of, unsigned long long* before, float* value) {
  if (threadIdx.x == 0) s.listed = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < slice.size; i += kThreads) {
    if (!matches(i)) continue;
    const int at = atomicAdd(&s.listed, 1);
    if (at < kBatch) s.list[at].value = slice.x[i];
  }
  SyncCluster();
  int total = 0;
  bool few = true;
  float* values = reinterpret_cast<float*>(s.low);  // done with
  for (int r = 0; r < slice.ranks; ++r) {
    const int count = *OfRank(&s.listed, r);
    few = few && total + count <= kBatch;
    if (!few) break;
    for (int i = threadIdx.x; i < count; i += kThreads) values[total + i] = OfRank(s.list, r)[i].value;
    total += count;
  }
  SyncCluster();
  if (!few) return false;
  auto* amounts = s.totals;
  for (int i = threadIdx.x; i < total; i += kThreads) amounts[i] = amount_of(values[i]);
  __syncthreads();
  for (int j = threadIdx.x; j < total; j += kThreads) {
    const float own = values[j];
    unsigned long long above = *before, equal = 0;
    for (int i = 0; i < total; ++i) {
      above += values[i] > own ? amounts[i] : 0;
      equal += values[i] == own ? amounts[i] : 0;
    }
    if (above >= wanted || above + equal < wanted) continue;
    s.found_value = own;  // all that are equal write the same
    s.found_before = above;
  }
  __syncthreads();
  *before = s.found_before;
  *value = s.found_value;
  __syncthreads();
  return true;
}

struct Selected {
  float value;
  unsigned long long wanted, above;  // above: what those larger than `value` add up to
};
// The largest value v for which the amounts of the elements ≥ v that count add up to wanted(total) or more (the smallest such value where
// they never do). amount_of(value) is an integer, 0 for what does not count either; some amount is not 0. max: of x.
template <typename C, typename A, typename W>
__device__ Selected SelectFromTop(Shared& s, Slice& slice, float max, C&& counts, A&& amount_of, W&& wanted) {
  unsigned long long before = 0, goal = 0;
  const auto add_up = [&](auto&& bin_of) {
    for (int i = threadIdx.x; i < kBins; i += kThreads) s.low[i] = s.high[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < slice.size; i += kThreads) {
      const float x = slice.x[i];
      const int bin = bin_of(x);
      if (bin < 0 || !counts(i)) continue;
      const unsigned long long amount = amount_of(x);
      if (amount == 0) continue;
      const auto low = static_cast<uint32_t>(amount);
      const uint32_t old = atomicAdd(&s.low[bin], low), high = static_cast<uint32_t>(amount >> 32) + (old + low < old ? 1u : 0u);
      if (high != 0) atomicAdd(&s.high[bin], high);
    }
  };
  add_up([max](float x) { return LinearBin(x, max); });
  const int linear = FindBin(s, slice, &before, [&](unsigned long long total) { return goal = ::min(::max(wanted(total), 1ull), total); });
  float value;
  if (SelectOfFew(s, slice, goal, [&](int i) { return LinearBin(slice.x[i], max) == linear && counts(i) && amount_of(slice.x[i]) != 0; }, amount_of, &before, &value))
    return {value, goal, before};
  uint32_t prefix = 0, mask = 0;
  for (const int shift : {22, 12, 2, 0}) {
    const uint32_t digits = shift == 0 ? 3u : 1023u;
    add_up([&](float x) {
      const uint32_t key = ~Key(x);  // from the top
      return LinearBin(x, max) == linear && (key & mask) == prefix ? static_cast<int>(key >> shift & digits) : -1;
    });
    prefix |= static_cast<uint32_t>(FindBin(s, slice, &before, [goal](unsigned long long) { return goal; })) << shift;
    mask |= digits << shift;
  }
  return {FromKey(~prefix), goal, before};
}

// fn(i, n) for the elements of the slice that match, n their number in the order of ids over the cluster.
template <typename M, typename F>
__device__ void InOrder(Shared& s, Slice& slice, M&& matches, F&& fn) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int each = (slice.size + kWarps * 32 - 1) / (kWarps * 32) * 32, begin = min(warp * each, slice.size), end = min(begin + each, slice.size);
  int count = 0;
  for (int i = begin + lane; i < end; i += 32) count += matches(i) ? 1 : 0;
  unsigned long long lower = 0;
  ClusterCount(s, slice, static_cast<unsigned long long>(count), &lower);
  unsigned long long n = lower;
  for (int w = 0; w < warp; ++w) n += s.warp_sums[w];
  for (int at = begin; at < end; at += 32) {
    const int i = at + lane;
    const bool match = i < end && matches(i);
    const unsigned ballot = __ballot_sync(0xffffffffu, match);
    if (match) fn(i, n + __popc(ballot & ((1u << lane) - 1)));
    n += __popc(ballot);
  }
  __syncthreads();
}

}  // namespace
}  // namespace tenon_cuda
