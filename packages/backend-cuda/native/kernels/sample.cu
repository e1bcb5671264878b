// The `sample` op: what it computes, step by step, is said in core's src/program/reference/sample.ts; the numbers below are its steps.
//
// A cluster of kRanks blocks takes a row (from Hopper on; elsewhere one block), each block a slice of the vocabulary, which it keeps in
// shared memory where it fits. Rows without other wishes than a temperature have kernels of their own. Nothing is sorted: the k-th largest value and
// the value where top-p ends are found digit by digit (SelectFromTop), with histograms added up over the cluster. Weights exp(x - max) are integers
// in units of 2^-44, so that their sums are exact, in whatever order they are added, and a token depends on nothing but its row.
// Blocks of a cluster take the same branches: what they branch on is the same in all of them.
#include "sample.cuh"

namespace tenon_cuda {
namespace {

constexpr int kModeSample = 1, kModeGreedy = 2, kModeTarget = 4, kModeProcessed = 8;

__device__ uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
__device__ double Uniform(uint64_t seed, int position) {
  const uint64_t z = Mix(Mix(seed + static_cast<uint64_t>(position + 1) * 0x9e3779b97f4a7c15ull));
  return static_cast<double>(z >> 11) / 9007199254740992.0;
}

struct Row {
  int index;  // in the step
  int mode, slot, position;
};

__device__ const int32_t* List(const int32_t* offsets, const int32_t* values, int row, int* size) {
  *size = offsets == nullptr ? 0 : offsets[row + 1] - offsets[row];
  return *size == 0 ? nullptr : values + offsets[row];
}

// fn(i) for the tokens of a list that are in the slice.
template <typename F>
__device__ void ForListed(const Slice& slice, const int32_t* tokens, int size, F&& fn) {
  for (int n = threadIdx.x; n < size; n += kThreads) {
    const int i = tokens[n] - slice.begin;
    if (i >= 0 && i < slice.size) fn(i, n);
  }
}

// Steps 2 and 3, of the logits in the slice.
__device__ void MaskAndBias(Slice& slice, const SampleParams& p, const float* logits, const Row& row) {
  const SampleStep& step = p.step;
  float* x = slice.x;
  int size;
  const int32_t* allowed = List(step.allowed_offsets, step.allowed_tokens, row.index, &size);
  if (size > 0) {
    for (int i = threadIdx.x; i < slice.size; i += kThreads) x[i] = MinusInfinity();
    __syncthreads();
    ForListed(slice, allowed, size, [&](int i, int) { x[i] = NoNan(logits[slice.begin + i]); });
    __syncthreads();
  }
  const int32_t* suppressed = List(step.suppress_offsets, step.suppress_tokens, row.index, &size);
  ForListed(slice, suppressed, size, [&](int i, int) { x[i] = MinusInfinity(); });
  const int32_t* words = List(step.bad_words_offsets, step.bad_words, row.index, &size);
  if (threadIdx.x == 0 && size > 0) {
    const int length = p.state.history_lengths[row.slot], prompt = p.state.prompt_lengths[row.slot];
    const int32_t* output = p.state.history + static_cast<int64_t>(row.slot) * p.state.max_model_len + prompt;
    for (int at = 0; at < size; at += words[at] + 1) {
      const int word = words[at], begin = length - prompt - (word - 1);
      bool ends = begin >= 0 && word > 0;
      for (int i = 0; ends && i < word - 1; ++i) ends = output[begin + i] == words[at + 1 + i];
      const int i = word > 0 ? words[at + word] - slice.begin : -1;
      if (ends && i >= 0 && i < slice.size) x[i] = MinusInfinity();
    }
  }
  __syncthreads();
  const int32_t* biased = List(step.bias_offsets, step.bias_tokens, row.index, &size);
  const float* values = size > 0 ? step.bias_values + step.bias_offsets[row.index] : nullptr;
  ForListed(slice, biased, size, [&](int i, int n) { atomicAdd(&x[i], values[n]); });
  __syncthreads();
}

// Step 4. counts: how often a token is in the output; the highest bit, that it is in the prompt.
__device__ void Penalize(Slice& slice, const SampleParams& p, const Row& row) {
  const float presence = p.step.presence_penalty[row.index], frequency = p.step.frequency_penalty[row.index];
  const float repetition = p.step.repetition_penalty[row.index];
  if (presence == 0 && frequency == 0 && repetition == 1) return;
  const int length = p.state.history_lengths[row.slot], prompt = p.state.prompt_lengths[row.slot];
  const int32_t* history = p.state.history + static_cast<int64_t>(row.slot) * p.state.max_model_len;
  for (int i = threadIdx.x; i < slice.size; i += kThreads) slice.counts[i] = 0;
  __syncthreads();
  ForListed(slice, history, length, [&](int i, int n) {
    if (n < prompt) atomicOr(&slice.counts[i], 0x80000000u);
    else atomicAdd(&slice.counts[i], 1u);
  });
  __syncthreads();
  for (int i = threadIdx.x; i < slice.size; i += kThreads) {
    if (slice.counts[i] == 0) continue;
    const uint32_t count = slice.counts[i] & 0x7fffffffu;
    float value = slice.x[i];
    if (repetition != 1) value = value > 0 ? __fdiv_rn(value, repetition) : __fmul_rn(value, repetition);
    if (count > 0) {
      value = __fsub_rn(value, __fmul_rn(frequency, static_cast<float>(count)));
      value = __fsub_rn(value, presence);
    }
    slice.x[i] = value;
  }
  __syncthreads();
}

// Steps 7 to 9: what is not kept becomes -inf.
__device__ void KeepTokens(Shared& s, Slice& slice, const SampleParams& p, const Row& row, float max) {
  const float min_p = p.step.min_p[row.index], top_p = p.step.top_p[row.index];
  const int top_k = p.step.top_k[row.index];
  float* x = slice.x;
  if (min_p > 0) {
    // the exact function decides near the limit alone
    const float limit = max + logf(min_p), near = 1e-3f + 1e-5f * fabsf(limit);
    for (int i = threadIdx.x; i < slice.size; i += kThreads) {
      if (x[i] > limit + near) continue;
      if (x[i] < limit - near || exp(static_cast<double>(x[i]) - static_cast<double>(max)) < min_p) x[i] = MinusInfinity();
    }
    __syncthreads();
  }
  if (top_k > 0 && top_k < p.vocab) {
    const Selected selected = SelectFromTop(s, slice, max, [x](int i) { return x[i] > MinusInfinity(); }, [](float) { return 1ull; },
                                            [top_k](unsigned long long) { return static_cast<unsigned long long>(top_k); });
    for (int i = threadIdx.x; i < slice.size; i += kThreads)
      if (x[i] < selected.value) x[i] = MinusInfinity();
    __syncthreads();
  }
  if (top_p >= 1) return;
  const Selected selected = SelectFromTop(s, slice, max, [](int) { return true; }, [&s, max](float v) { return static_cast<unsigned long long>(Weight(s.powers, v, max)); },
                                          [top_p](unsigned long long total) {
                                            return static_cast<unsigned long long>(ceil(static_cast<double>(total) * static_cast<double>(top_p)));
                                          });
  // Of those that equal the last value, as many as are needed, lower ids first.
  const unsigned long long each = Weight(s.powers, selected.value, max), missing = selected.wanted - selected.above;
  const unsigned long long needed = each == 0 ? 1 : (missing + each - 1) / each;
  InOrder(s, slice, [&](int i) { return x[i] == selected.value; },
          [&](int i, unsigned long long n) {
            if (n >= needed) x[i] = MinusInfinity();
          });
  for (int i = threadIdx.x; i < slice.size; i += kThreads)
    if (x[i] < selected.value) x[i] = MinusInfinity();
  __syncthreads();
}

// Step 10.
__device__ int PickToken(Shared& s, Slice& slice, float max, double u) {
  const float* x = slice.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int each = (slice.size + kWarps * 32 - 1) / (kWarps * 32) * 32, begin = min(warp * each, slice.size), end = min(begin + each, slice.size);
  uint64_t sum = 0;
  for (int i = begin + lane; i < end; i += 32) sum += Weight(s.powers, x[i], max);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (lane == 0) s.warp_sums[warp] = sum;
  if (threadIdx.x == 0) s.token = 0;
  SyncCluster();
  const int parts = slice.ranks * kWarps;
  if (threadIdx.x < parts) s.all_sums[threadIdx.x] = OfRank(s.warp_sums, threadIdx.x / kWarps)[threadIdx.x % kWarps];
  __syncthreads();
  // every warp finds the part; its own warp finds the token
  uint64_t total = 0;
  for (int part = lane; part < parts; part += 32) total += s.all_sums[part];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(0xffffffffu, total, offset);
  const double wanted = u * static_cast<double>(total);
  uint64_t before = 0;
  int chosen = -1, last = 0;
  for (int group = 0; group < parts && chosen < 0; group += 32) {
    const uint64_t own = s.all_sums[group + lane];
    uint64_t prefix = own;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint64_t other = __shfl_up_sync(0xffffffffu, prefix, offset);
      if (lane >= offset) prefix += other;
    }
    const unsigned found = __ballot_sync(0xffffffffu, own > 0 && static_cast<double>(before + prefix) > wanted), present = __ballot_sync(0xffffffffu, own > 0);
    if (present != 0) last = group + 31 - __clz(present);
    if (found != 0) {
      chosen = group + __ffs(found) - 1;
      before += __shfl_sync(0xffffffffu, prefix - own, chosen - group);
    } else {
      before += __shfl_sync(0xffffffffu, prefix, 31);
    }
  }
  const bool none = chosen < 0;  // rounding leaves none: the last that is kept
  if (none) chosen = last;
  if (chosen == slice.rank * kWarps + warp) {
    // a lane takes neighbours; then the lanes share those of the one where the sum gets there
    const int each = (end - begin + 31) / 32, first = min(begin + lane * each, end), behind = min(first + each, end);
    uint64_t own = 0;
    for (int i = first; i < behind; ++i) own += Weight(s.powers, x[i], max);
    uint64_t prefix = own;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint64_t other = __shfl_up_sync(0xffffffffu, prefix, offset);
      if (lane >= offset) prefix += other;
    }
    const unsigned lanes = __ballot_sync(0xffffffffu, !none && own > 0 && static_cast<double>(before + prefix) > wanted), present = __ballot_sync(0xffffffffu, own > 0);
    const int in_lane = lanes != 0 ? __ffs(lanes) - 1 : present != 0 ? 31 - __clz(present) : 0;
    before += __shfl_sync(0xffffffffu, prefix - own, in_lane);
    int token = -1, kept = begin;
    const int part = __shfl_sync(0xffffffffu, first, in_lane), part_end = __shfl_sync(0xffffffffu, behind, in_lane);
    for (int at = part; at < part_end && token < 0; at += 32) {
      const uint64_t one = at + lane < part_end ? Weight(s.powers, x[at + lane], max) : 0;
      uint64_t sums = one;
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const uint64_t other = __shfl_up_sync(0xffffffffu, sums, offset);
        if (lane >= offset) sums += other;
      }
      const unsigned found = __ballot_sync(0xffffffffu, !none && one > 0 && static_cast<double>(before + sums) > wanted), there = __ballot_sync(0xffffffffu, one > 0);
      if (there != 0) kept = at + 31 - __clz(there);
      if (found != 0) token = at + __ffs(found) - 1;
      before += __shfl_sync(0xffffffffu, sums, 31);
    }
    if (lane < slice.ranks) *OfRank(&s.token, lane) = slice.begin + (token >= 0 ? token : kept);
  }
  SyncCluster();
  return s.token;
}

// Entries first... of the row's top list, in descending value, the lower id first among equals: kBatch at a time. A batch begins behind `last`.
template <typename F>
__device__ void WriteTopList(Shared& s, Slice& slice, float max, int wanted, int32_t* ids, float* logprobs, F&& logprob_of) {
  const float* x = slice.x;
  Entry last{-MinusInfinity(), -1};
  for (int done = 0; done < wanted; done += kBatch) {
    const int count = min(kBatch, wanted - done);
    const auto is_behind = [&](int i) { return x[i] < last.value || (x[i] == last.value && slice.begin + i > last.id); };
    const Selected selected = SelectFromTop(s, slice, max, is_behind, [](float) { return 1ull; },
                                            [count](unsigned long long) { return static_cast<unsigned long long>(count); });
    if (threadIdx.x == 0) s.listed = 0;
    SyncCluster();
    // the larger ones to the list of rank 0, where each finds its place; then those that equal the last value, by id
    const int larger = static_cast<int>(selected.above);
    for (int i = threadIdx.x; i < slice.size; i += kThreads) {
      if (x[i] <= selected.value || !is_behind(i)) continue;
      const int at = atomicAdd(OfRank(&s.listed, 0), 1);
      OfRank(s.list, 0)[at] = {x[i], slice.begin + i};
    }
    InOrder(s, slice, [&](int i) { return x[i] == selected.value && is_behind(i); },
            [&](int i, unsigned long long n) {
              if (n >= static_cast<unsigned long long>(count - larger)) return;
              const int at = larger + static_cast<int>(n);
              ids[done + at] = slice.begin + i;
              logprobs[done + at] = logprob_of(x[i]);
              if (at == count - 1)
                for (int r = 0; r < slice.ranks; ++r) *OfRank(&s.last, r) = {x[i], slice.begin + i};
            });
    SyncCluster();
    last = s.last;
    for (int n = threadIdx.x; slice.rank == 0 && n < larger; n += kThreads) {
      const Entry own = s.list[n];
      int at = 0;
      for (int i = 0; i < larger; ++i) at += s.list[i].value > own.value || (s.list[i].value == own.value && s.list[i].id < own.id) ? 1 : 0;
      ids[done + at] = own.id;
      logprobs[done + at] = logprob_of(own.value);
    }
    SyncCluster();
  }
}

// Of the values in the slice, as `numLogprobs` and the mode of the row ask.
__device__ void WriteLogprobs(Shared& s, Slice& slice, const SampleParams& p, const Row& row, int token) {
  const SampleStep& step = p.step;
  const float* x = slice.x;
  const int top = step.max_top_logprobs, subject = row.mode & kModeTarget ? step.targets[row.index] : token;
  const float max = SliceBest(s, slice, [x](int i) { return x[i]; }).value;
  const bool finite = isfinite(max);
  double sum = 0;
  for (int i = threadIdx.x; i < slice.size; i += kThreads) sum += exp(static_cast<double>(x[i]) - static_cast<double>(max));
  const double log_sum = log(ClusterSum(s, slice, sum));
  const auto logprob_of = [&](float v) {
    if (!finite) return v == -MinusInfinity() ? 0.f : MinusInfinity();
    return static_cast<float>(static_cast<double>(v) - static_cast<double>(max) - log_sum);
  };
  float logprob = 0;
  int rank = 0;
  if (subject >= 0 && subject < p.vocab) {
    const int size = SliceSize(p.vocab, slice.ranks), owner = subject / size;
    const float own = slice.ranks == 1 ? x[subject] : OfRank(slice.x, owner)[subject - owner * size];
    unsigned long long larger = 0;
    for (int i = threadIdx.x; i < slice.size; i += kThreads) larger += x[i] > own ? 1 : 0;
    rank = 1 + static_cast<int>(ClusterCount(s, slice, larger));
    logprob = logprob_of(own);
  }
  const int listed = static_cast<int>(min(static_cast<int64_t>(min(step.num_logprobs[row.index], top)), p.vocab));
  int32_t* ids = step.top_ids + static_cast<int64_t>(row.index) * top;
  float* logprobs = step.top_logprobs + static_cast<int64_t>(row.index) * top;
  WriteTopList(s, slice, max, listed, ids, logprobs, logprob_of);
  if (slice.rank != 0) return;
  for (int k = listed + threadIdx.x; k < top; k += kThreads) {
    ids[k] = -1;
    logprobs[k] = -1;
  }
  if (threadIdx.x == 0) {
    step.logprobs[row.index] = logprob;
    step.ranks[row.index] = rank;
  }
}

// The slice's logits, NaN as -inf, through fn(i, value); 16 bytes at a time where rows are aligned.
template <typename F>
__device__ __forceinline__ void ForLogits(const SampleParams& p, const Slice& slice, const float* logits, F&& fn) {
  if (p.vocab % 4 != 0 || !IsAligned<16>(logits + slice.begin)) {
    for (int i = threadIdx.x; i < slice.size; i += kThreads) fn(i, NoNan(logits[slice.begin + i]));
    return;
  }
  const auto* quads = reinterpret_cast<const float4*>(logits + slice.begin);
#pragma unroll 5
  for (int i = threadIdx.x; i < slice.size / 4; i += kThreads) {
    const float4 quad = quads[i];
    fn(4 * i, NoNan(quad.x));
    fn(4 * i + 1, NoNan(quad.y));
    fn(4 * i + 2, NoNan(quad.z));
    fn(4 * i + 3, NoNan(quad.w));
  }
}

// What a row that wants no logprobs has in their place.
__device__ __forceinline__ void NoTopLogprob(const SampleStep& step, int index, int k) {
  step.top_ids[static_cast<int64_t>(index) * step.max_top_logprobs + k] = -1;
  step.top_logprobs[static_cast<int64_t>(index) * step.max_top_logprobs + k] = -1;
}
__device__ __forceinline__ void NoLogprob(const SampleStep& step, int index) {
  step.logprobs[index] = 0;
  step.ranks[index] = 0;
}
// To the result, and where the next step looks for it.
__device__ __forceinline__ void WriteToken(const SampleParams& p, int index, int slot, bool samples, int token) {
  p.step.tokens[index] = token;
  if (!samples) return;
  p.state.last_tokens[slot] = token;
  const int length = p.state.history_lengths[slot];
  if (length == 0 || length >= p.state.max_model_len) return;
  p.state.history[static_cast<int64_t>(slot) * p.state.max_model_len + length] = token;
  p.state.history_lengths[slot] = length + 1;
}

// Rows that the general kernel leaves to those for plain rows.
__device__ __forceinline__ bool HasEdits(const SampleStep& step, int index) {
  return step.any_edits && (step.allowed_offsets != nullptr || step.suppress_offsets != nullptr || step.bad_words_offsets != nullptr || step.bias_offsets != nullptr ||
                            step.presence_penalty[index] != 0 || step.frequency_penalty[index] != 0 || step.repetition_penalty[index] != 1);
}
__device__ __forceinline__ bool IsRandom(int mode) { return (mode & kModeSample) != 0 && (mode & kModeGreedy) == 0; }
__device__ __forceinline__ bool IsPlain(const SampleStep& step, int index, int64_t vocab) {
  if (HasEdits(step, index) || (step.any_logprobs && step.num_logprobs[index] >= 0)) return false;
  if (!step.any_random || !IsRandom(step.row_modes[index])) return true;
  const int top_k = step.top_k[index];
  return (top_k <= 0 || top_k >= vocab) && step.top_p[index] >= 1 && !(step.min_p[index] > 0);
}
__device__ __forceinline__ float Scaled(float x, float temperature) { return NoNan(__fdiv_rn(NoNan(x), temperature)); }

// Blocks of a cluster: a row. kInShared: its values are in shared memory, else in scratch.
template <bool kInShared>
__global__ void __launch_bounds__(kThreads, 2) SampleKernel(const __grid_constant__ SampleParams p) {
  extern __shared__ __align__(16) float values[];
  __shared__ Shared s;
  const SampleStep& step = p.step;
  LetNextStart();
  const int ranks = ClusterSize(), rank = ClusterRank(), row_index = blockIdx.x / ranks, index = static_cast<int>(p.first_row) + row_index;
  if (IsPlain(step, index, p.vocab)) {
    WaitForPrevious();
    return;
  }
  const Row row{index, step.row_modes[index], step.seq_slots[step.row_seqs[index]], step.positions[step.logit_rows[index]]};
  const float* logits = p.logits + row_index * p.vocab;
  auto* scratch = static_cast<float*>(p.scratch);
  Slice slice;
  slice.begin = rank * SliceSize(p.vocab, ranks);
  slice.size = max(0, min(SliceSize(p.vocab, ranks), static_cast<int>(p.vocab) - slice.begin));
  slice.x = kInShared ? values : scratch + row_index * p.vocab + slice.begin;
  slice.counts = reinterpret_cast<uint32_t*>(scratch + (gridDim.x / ranks + row_index) * p.vocab) + slice.begin;
  slice.rank = rank;
  slice.ranks = ranks;
  slice.turn = 0;
  MakePowers(s.powers);
  const bool samples = row.mode & kModeSample, greedy = row.mode & kModeGreedy, processes = row.mode & kModeProcessed;
  const bool lists = step.num_logprobs[index] >= 0;
  const bool edits = HasEdits(step, index);
  WaitForPrevious();

  int token = -1;
  Best best{MinusInfinity(), INT_MAX};
  if (samples || lists) {
    const auto load = [&] {
      ForLogits(p, slice, logits, [&](int i, float value) { slice.x[i] = value; });
      __syncthreads();
    };
    if (samples || processes) {
      const float temperature = greedy ? 1.f : step.temperature[index];
      const auto scaled = [&](float x) { return NoNan(__fdiv_rn(NoNan(x), temperature)); };
      if (edits) {
        load();
        MaskAndBias(slice, p, logits, row);
        Penalize(slice, p, row);
        for (int i = threadIdx.x; i < slice.size; i += kThreads) slice.x[i] = scaled(slice.x[i]);
        __syncthreads();
        best = SliceBest(s, slice, [&](int i) { return slice.x[i]; });
      } else {
        ForLogits(p, slice, logits, [&](int i, float value) {
          slice.x[i] = value = scaled(value);
          best = Better(best, {value, slice.begin + i});
        });
        best = ClusterBest(s, slice, best);
        if (best.id == INT_MAX) best.id = 0;
      }
      token = samples ? best.id : -1;
      if (!greedy && isfinite(best.value)) {
        KeepTokens(s, slice, p, row, best.value);
        const uint64_t seed = static_cast<uint64_t>(static_cast<uint32_t>(step.seed_high[index])) << 32 | static_cast<uint32_t>(step.seed_low[index]);
        if (samples) token = PickToken(s, slice, best.value, Uniform(seed, row.position));
      }
    }
    if (lists) {
      if (!processes) {
        SyncCluster();
        load();
      }
      SyncCluster();  // all slices are there
      WriteLogprobs(s, slice, p, row, token);
    }
  }
  if (rank == 0) {
    if (!lists)
      for (int k = threadIdx.x; k < step.max_top_logprobs; k += kThreads) NoTopLogprob(step, index, k);
    if (threadIdx.x == 0) {
      if (!lists) NoLogprob(step, index);
      WriteToken(p, index, row.slot, samples, token);
    }
  }
  if (ranks > 1) EndCluster();
}

// ---- plain rows: greedy, or drawn from all tokens, and without other wishes ----
// No cluster, no shared memory to speak of: `parts` blocks of few registers read a row for its largest value, and again, where it is random, for the sum
// of its weights; a block per row then finds the token.

constexpr int kPlainThreads = 256, kPlainWarps = kPlainThreads / 32, kPlainBlocksPerSm = 6;
constexpr int kMaxParts = 64, kLeastParts = 8;  // of random rows, as one part is read a third time

struct Plain {
  Best* bests;               // [num_rows, parts]
  unsigned long long* sums;  // [num_rows, parts]: of weights
  int parts;
};

// fn(id, value) for this thread's logits of [begin, end), ids rising. kOnce: nobody reads them again.
template <bool kOnce, typename F>
__device__ __forceinline__ void ForPart(const SampleParams& p, int row, int begin, int end, F&& fn) {
  const float* logits = p.logits + int64_t{row} * p.vocab;
  if (p.vocab % 4 != 0 || !IsAligned<16>(p.logits)) {
    for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kPlainThreads) fn(i, logits[i]);
    return;
  }
  const auto* quads = reinterpret_cast<const float4*>(logits);
#pragma unroll 4
  for (int i = begin / 4 + static_cast<int>(threadIdx.x); i < end / 4; i += kPlainThreads) {
    const float4 quad = kOnce ? __ldcs(quads + i) : quads[i];
    fn(4 * i, quad.x);
    fn(4 * i + 1, quad.y);
    fn(4 * i + 2, quad.z);
    fn(4 * i + 3, quad.w);
  }
}
__device__ __forceinline__ Best WarpBest(Best best) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    best = Better(best, {__shfl_xor_sync(0xffffffffu, best.value, offset), __shfl_xor_sync(0xffffffffu, best.id, offset)});
  return best;
}
// Of all parts of a row, by all threads of a warp.
__device__ __forceinline__ Best RowBest(const Plain& plain, int row) {
  Best best{MinusInfinity(), INT_MAX};
  for (int i = static_cast<int>(threadIdx.x) % 32; i < plain.parts; i += 32) best = Better(best, plain.bests[row * plain.parts + i]);
  return WarpBest(best);
}

// grid (parts, num_rows)
__global__ void __launch_bounds__(kPlainThreads, kPlainBlocksPerSm) PartBestsKernel(const __grid_constant__ SampleParams p, Plain plain) {
  __shared__ Best bests[kPlainWarps];
  LetNextStart();
  const int row = static_cast<int>(blockIdx.y), index = static_cast<int>(p.first_row) + row, vocab = static_cast<int>(p.vocab);
  const int size = SliceSize(vocab, plain.parts), begin = min(static_cast<int>(blockIdx.x) * size, vocab), end = min(begin + size, vocab);
  const bool is_plain = IsPlain(p.step, index, p.vocab), is_random = p.step.any_random && IsRandom(p.step.row_modes[index]);
  const float temperature = is_random ? p.step.temperature[index] : 1.f;
  WaitForPrevious();
  if (!is_plain) return;
  // ids rise, so that only a larger value is better; none is larger than NaN, or less than -inf
  Best best{MinusInfinity(), INT_MAX};
  if (is_random) {
    ForPart<false>(p, row, begin, end, [&](int id, float value) {
      value = Scaled(value, temperature);
      if (value > best.value) best = {value, id};
    });
  } else {
    ForPart<true>(p, row, begin, end, [&](int id, float value) {
      if (value > best.value) best = {value, id};
    });
  }
  if (best.id == INT_MAX) best.id = begin;  // all are -inf: the lowest id
  best = WarpBest(best);
  if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int w = 1; w < kPlainWarps; ++w) best = Better(best, bests[w]);
  plain.bests[row * plain.parts + blockIdx.x] = best;
}

// grid (parts, num_rows): random rows
__global__ void __launch_bounds__(kPlainThreads, kPlainBlocksPerSm) PartSumsKernel(const __grid_constant__ SampleParams p, Plain plain) {
  __shared__ double powers[kPowers];
  __shared__ unsigned long long sums[kPlainWarps];
  LetNextStart();
  const int row = static_cast<int>(blockIdx.y), index = static_cast<int>(p.first_row) + row, vocab = static_cast<int>(p.vocab);
  const int size = SliceSize(vocab, plain.parts), begin = min(static_cast<int>(blockIdx.x) * size, vocab), end = min(begin + size, vocab);
  const bool wanted = IsRandom(p.step.row_modes[index]) && IsPlain(p.step, index, p.vocab);
  const float temperature = p.step.temperature[index];
  MakePowers(powers);
  WaitForPrevious();
  if (!wanted) return;
  const float max = RowBest(plain, row).value;
  __syncthreads();
  unsigned long long sum = 0;
  if (isfinite(max)) ForPart<false>(p, row, begin, end, [&](int, float value) { sum += Weight(powers, Scaled(value, temperature), max); });
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int w = 1; w < kPlainWarps; ++w) sum += sums[w];
  plain.sums[row * plain.parts + blockIdx.x] = sum;
}

// Where a running sum over the threads of a block gets above a limit.
struct Reached {
  int thread;                 // or, where it never does, the last with an amount
  unsigned long long before;  // what the amounts of earlier threads add up to, and what there was before them
};
// above(sum): whether a running sum is above the limit. All threads of the block call it.
template <typename F>
__device__ __forceinline__ Reached FindAbove(unsigned long long own, unsigned long long before, F&& above) {
  __shared__ unsigned long long warp_sums[kPlainWarps], found_before;
  __shared__ int first, last;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  unsigned long long prefix = own;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const unsigned long long other = __shfl_up_sync(0xffffffffu, prefix, offset);
    if (lane >= offset) prefix += other;
  }
  __syncthreads();  // the call before is read
  if (lane == 31) warp_sums[warp] = prefix;
  if (thread == 0) {
    first = kPlainThreads;
    last = 0;
    found_before = before;
  }
  __syncthreads();
  unsigned long long sum = before + prefix;
#pragma unroll
  for (int w = 0; w < kPlainWarps; ++w)
    if (w < warp) sum += warp_sums[w];
  if (own > 0) {
    atomicMax(&last, thread);
    if (above(sum)) atomicMin(&first, thread);
  }
  __syncthreads();
  const int at = first < kPlainThreads ? first : last;
  if (thread == at) found_before = sum - own;
  __syncthreads();
  return {at, found_before};
}

// Step 10 for a row whose parts are summed up; all threads of the block. Of the parts, then of shares of the part, then of the share's
// tokens, that one where the sum of weights gets above u times the sum of all; where rounding leaves none, the last with a weight.
__device__ __forceinline__ int DrawPlain(const SampleParams& p, const Plain& plain, const double* powers, int row, float max, float temperature, double u) {
  const int vocab = static_cast<int>(p.vocab), size = SliceSize(vocab, plain.parts), thread = static_cast<int>(threadIdx.x);
  const float* logits = p.logits + int64_t{row} * p.vocab;
  const auto weight = [&](int i) { return Weight(powers, Scaled(logits[i], temperature), max); };
  unsigned long long total = 0;
  for (int i = thread % 32; i < plain.parts; i += 32) total += plain.sums[row * plain.parts + i];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(0xffffffffu, total, offset);
  const double wanted = u * static_cast<double>(total);
  const auto above = [&](unsigned long long sum) { return static_cast<double>(sum) > wanted; };
  Reached reached = FindAbove(thread < plain.parts ? plain.sums[row * plain.parts + thread] : 0, 0, above);
  int begin = min(reached.thread * size, vocab), end = min(begin + size, vocab);
  while (true) {
    const int each = (end - begin + kPlainThreads - 1) / kPlainThreads, first = min(begin + thread * each, end), behind = min(first + each, end);
    unsigned long long own = 0;
#pragma unroll 4
    for (int i = first; i < behind; ++i) own += weight(i);
    reached = FindAbove(own, reached.before, above);
    begin = min(begin + reached.thread * each, end);
    if (each == 1) return begin;
    end = min(begin + each, end);
  }
}

// A block per row.
__global__ void __launch_bounds__(kPlainThreads) PlainTokensKernel(const __grid_constant__ SampleParams p, Plain plain) {
  __shared__ double powers[kPowers];
  LetNextStart();
  const int row = static_cast<int>(blockIdx.x), index = static_cast<int>(p.first_row) + row;
  const SampleStep& step = p.step;
  const bool is_plain = IsPlain(step, index, p.vocab);
  const int mode = step.row_modes[index], slot = step.seq_slots[step.row_seqs[index]], position = step.positions[step.logit_rows[index]];
  const bool samples = mode & kModeSample, is_random = step.any_random && IsRandom(mode);
  if (is_random) MakePowers(powers);
  WaitForPrevious();
  if (!is_plain) return;
  int token = -1;
  if (samples) {
    const Best best = RowBest(plain, row);
    token = best.id;
    if (is_random && isfinite(best.value)) {
      const uint64_t seed = static_cast<uint64_t>(static_cast<uint32_t>(step.seed_high[index])) << 32 | static_cast<uint32_t>(step.seed_low[index]);
      token = DrawPlain(p, plain, powers, row, best.value, step.temperature[index], Uniform(seed, position));
    }
  }
  for (int k = static_cast<int>(threadIdx.x); k < step.max_top_logprobs; k += kPlainThreads) NoTopLogprob(step, index, k);
  if (threadIdx.x != 0) return;
  NoLogprob(step, index);
  WriteToken(p, index, slot, samples, token);
}

// grid (n): a block per sequence.
__global__ void TakeHistoriesKernel(const int32_t* seqs, const int32_t* offsets, const int32_t* tokens, const int32_t* seq_slots,
                                    const int32_t* prompt_lens, SampleState state) {
  WaitForPrevious();
  const int seq = seqs[blockIdx.x], slot = seq_slots[seq];
  const int begin = offsets[blockIdx.x], length = min(offsets[blockIdx.x + 1] - begin, state.max_model_len);
  int32_t* to = state.history + static_cast<int64_t>(slot) * state.max_model_len;
  for (int i = threadIdx.x; i < length; i += blockDim.x) to[i] = tokens[begin + i];
  if (threadIdx.x != 0) return;
  state.history_lengths[slot] = length;
  state.prompt_lengths[slot] = min(prompt_lens[seq], length);
}

}  // namespace

size_t SampleScratchBytes(int64_t max_rows, int64_t vocab) {
  return static_cast<size_t>(2 * max_rows * vocab) * sizeof(float);
}

namespace {
Launch SamplePlain(const SampleParams& p, cudaStream_t stream) {
  // four blocks or more per multiprocessor, and 4 KiB or more a block
  const int64_t wanted = (int64_t{4} * Facts().num_sms + p.num_rows - 1) / p.num_rows;
  const int64_t least = p.step.any_random ? kLeastParts : 1;
  const int parts = static_cast<int>(std::clamp<int64_t>(std::min(std::max(wanted, least), p.vocab / 1024), 1, kMaxParts));
  auto* bests = static_cast<Best*>(p.scratch);
  const Plain plain{bests, reinterpret_cast<unsigned long long*>(bests + p.num_rows * parts), parts};
  const dim3 all_parts(static_cast<unsigned>(parts), static_cast<unsigned>(p.num_rows));
  Launch launch = LaunchEarly(PartBestsKernel, all_parts, dim3(kPlainThreads), 0, stream, p, plain);
  if (launch == cudaSuccess && p.step.any_random) launch = LaunchEarly(PartSumsKernel, all_parts, dim3(kPlainThreads), 0, stream, p, plain);
  if (launch != cudaSuccess) return launch;
  return LaunchEarly(PlainTokensKernel, dim3(static_cast<unsigned>(p.num_rows)), dim3(kPlainThreads), 0, stream, p, plain);
}
}  // namespace

Launch Sample(const SampleParams& p, cudaStream_t stream) {
  if (p.num_rows == 0) return cudaSuccess;
  const SampleStep& step = p.step;
  const Launch plain = SamplePlain(p, stream);
  if (plain != cudaSuccess || !(step.any_limits || step.any_logprobs || step.any_edits)) return plain;
  const DeviceFacts& facts = Facts();
  constexpr int kStaticBytes = static_cast<int>(sizeof(Shared));
  const int64_t slice_bytes = int64_t{SliceSize(p.vocab, kRanks)} * static_cast<int64_t>(sizeof(float));
  if (facts.capability >= 90 && slice_bytes <= facts.shared_bytes - kStaticBytes) {
    static const Launch allowed =
        cudaFuncSetAttribute(SampleKernel<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, facts.shared_bytes - kStaticBytes);
    if (allowed != cudaSuccess) return allowed;
    return LaunchClusters(kRanks, SampleKernel<true>, dim3(static_cast<unsigned>(p.num_rows * kRanks)), dim3(kThreads), static_cast<size_t>(slice_bytes), stream, p);
  }
  return LaunchEarly(SampleKernel<false>, dim3(static_cast<unsigned>(p.num_rows)), dim3(kThreads), 0, stream, p);
}

Launch TakeHistories(const int32_t* history_seqs, const int32_t* history_offsets, const int32_t* history_tokens, int32_t n,
                     const int32_t* seq_slots, const int32_t* prompt_lens, const SampleState& state, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return LaunchEarly(TakeHistoriesKernel, dim3(static_cast<unsigned>(n)), dim3(256), 0, stream, history_seqs, history_offsets, history_tokens, seq_slots, prompt_lens, state);
}

}  // namespace tenon_cuda
