// The `sample` op: what it computes, step by step, is said in core's src/program/reference/sample.ts; the numbers below are its steps.
//
// A block per logit row. Its passes over the vocabulary read coalesced; nothing is sorted: the k-th largest value and the value where
// top-p ends are found digit by digit (radix selection on the ordered bits of floats). Weights exp(x - max) are integers in units of
// 2^-44, so that their sums are exact, in whatever order they are added, and a token depends on nothing but its row.
#include <climits>

#include "types.cuh"

namespace tenon_cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kDigits = 256;
constexpr int kTile = 1024;      // ids whose weights are summed together when a token is picked
constexpr int kMaxTiles = 2048;  // vocabularies of up to two million
constexpr double kWeightUnit = 17592186044416.0;  // 2^44

constexpr int kModeSample = 1, kModeGreedy = 2, kModeTarget = 4, kModeProcessed = 8;

__device__ __forceinline__ float MinusInfinity() { return __int_as_float(0xff800000); }
__device__ __forceinline__ float NoNan(float x) { return x == x ? x : MinusInfinity(); }

// Order of floats as unsigned integers.
__device__ __forceinline__ uint32_t Key(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float FromKey(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}
__device__ __forceinline__ uint64_t Weight(float x, float max) {
  return static_cast<uint64_t>(exp(static_cast<double>(x) - static_cast<double>(max)) * kWeightUnit + 0.5);
}

__device__ uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
__device__ double Uniform(uint64_t seed, int position) {
  const uint64_t z = Mix(Mix(seed + static_cast<uint64_t>(position + 1) * 0x9e3779b97f4a7c15ull));
  return static_cast<double>(z >> 11) / 9007199254740992.0;
}

struct Shared {
  union {
    unsigned long long sums[kMaxTiles];  // by digit, or by tile
    int counts[kDigits];
    double doubles[kWarps];
    struct {
      float value[kWarps];
      int id[kWarps];
    } best;
  };
  unsigned long long wanted;
  uint32_t prefix;
  int count;
  int token;
  float value;
};

// All threads of the block call these, and all get the answer.

struct Best {
  float value;
  int id;
};
// The largest value and its lowest id, of candidate(i), i < n.
template <typename F>
__device__ Best BlockArgmax(Shared& s, int64_t n, F&& candidate) {
  Best best{MinusInfinity(), INT_MAX};
  const auto take = [&](float value, int id) {
    if (value > best.value || (value == best.value && id < best.id)) best = {value, id};
  };
  for (int64_t i = threadIdx.x; i < n; i += kThreads) take(candidate(i), static_cast<int>(i));
  for (int offset = 16; offset > 0; offset /= 2) {
    const float value = __shfl_xor_sync(0xffffffffu, best.value, offset);
    const int id = __shfl_xor_sync(0xffffffffu, best.id, offset);
    take(value, id);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    s.best.value[threadIdx.x / 32] = best.value;
    s.best.id[threadIdx.x / 32] = best.id;
  }
  __syncthreads();
  best = {s.best.value[0], s.best.id[0]};
  for (int w = 1; w < kWarps; ++w) take(s.best.value[w], s.best.id[w]);
  __syncthreads();
  if (best.id >= n) best.id = 0;
  return best;
}

// Σ of term(i), added in the same order in every run.
template <typename F>
__device__ double BlockSum(Shared& s, int64_t n, F&& term) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += term(i);
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.doubles[threadIdx.x / 32] = sum;
  __syncthreads();
  double total = 0;
  for (int w = 0; w < kWarps; ++w) total += s.doubles[w];
  __syncthreads();
  return total;
}

// The largest value v for which the terms of all elements ≥ v add up to `wanted` or more (the smallest value where they never do), found
// from the highest digit on; and what those > v add up to. term(x) is an integer, 0 for what does not count.
template <typename F>
__device__ float SelectFromTop(Shared& s, const float* x, int64_t n, unsigned long long wanted, unsigned long long* above, F&& term) {
  uint32_t prefix = 0, mask = 0;
  unsigned long long before = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < kDigits; i += kThreads) s.sums[i] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      const uint32_t key = Key(x[i]);
      if ((key & mask) != prefix) continue;
      const unsigned long long amount = term(x[i]);
      if (amount != 0) atomicAdd(&s.sums[key >> shift & 0xff], amount);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned long long sum = before;
      int digit = kDigits - 1, last = -1;
      for (; digit >= 0; --digit) {
        if (s.sums[digit] == 0) continue;
        last = digit;
        if (sum + s.sums[digit] >= wanted) break;
        sum += s.sums[digit];
      }
      if (digit < 0) {  // all of them are less than wanted: the lowest there is
        digit = last < 0 ? 0 : last;
        sum -= s.sums[digit];
      }
      s.prefix = prefix | static_cast<uint32_t>(digit) << shift;
      s.wanted = sum;
    }
    __syncthreads();
    prefix = s.prefix;
    before = s.wanted;
    mask |= 0xffu << shift;
    __syncthreads();
  }
  *above = before;
  return FromKey(prefix);
}

struct Row {
  int index;     // in the step
  int mode, slot, position;
  float* work;      // [vocab]
  uint32_t* counts;  // [vocab]
};

__device__ const int32_t* List(const int32_t* offsets, const int32_t* values, int row, int* size) {
  *size = offsets == nullptr ? 0 : offsets[row + 1] - offsets[row];
  return *size == 0 ? nullptr : values + offsets[row];
}

// Steps 2 and 3.
__device__ void MaskAndBias(const SampleParams& p, const float* logits, const Row& row) {
  const SampleStep& step = p.step;
  int size;
  const int32_t* allowed = List(step.allowed_offsets, step.allowed_tokens, row.index, &size);
  for (int64_t i = threadIdx.x; i < p.vocab; i += kThreads) row.work[i] = allowed == nullptr ? NoNan(logits[i]) : MinusInfinity();
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += kThreads) row.work[allowed[i]] = NoNan(logits[allowed[i]]);
  __syncthreads();
  const int32_t* suppressed = List(step.suppress_offsets, step.suppress_tokens, row.index, &size);
  for (int i = threadIdx.x; i < size; i += kThreads) row.work[suppressed[i]] = MinusInfinity();
  const int32_t* words = List(step.bad_words_offsets, step.bad_words, row.index, &size);
  if (threadIdx.x == 0 && size > 0) {
    const int length = p.state.history_lengths[row.slot], prompt = p.state.prompt_lengths[row.slot];
    const int32_t* output = p.state.history + static_cast<int64_t>(row.slot) * p.state.max_model_len + prompt;
    for (int at = 0; at < size; at += words[at] + 1) {
      const int word = words[at], begin = length - prompt - (word - 1);
      bool ends = begin >= 0;
      for (int i = 0; ends && i < word - 1; ++i) ends = output[begin + i] == words[at + 1 + i];
      if (ends) row.work[words[at + word]] = MinusInfinity();
    }
  }
  __syncthreads();
  const int32_t* biased = List(step.bias_offsets, step.bias_tokens, row.index, &size);
  const float* values = size > 0 ? step.bias_values + step.bias_offsets[row.index] : nullptr;
  for (int i = threadIdx.x; i < size; i += kThreads) atomicAdd(&row.work[biased[i]], values[i]);
  __syncthreads();
}

// Step 4. counts: how often a token is in the output; the highest bit, that it is in the prompt.
__device__ void Penalize(const SampleParams& p, const Row& row) {
  const float presence = p.step.presence_penalty[row.index], frequency = p.step.frequency_penalty[row.index];
  const float repetition = p.step.repetition_penalty[row.index];
  if (presence == 0 && frequency == 0 && repetition == 1) return;
  const int length = p.state.history_lengths[row.slot], prompt = p.state.prompt_lengths[row.slot];
  const int32_t* history = p.state.history + static_cast<int64_t>(row.slot) * p.state.max_model_len;
  for (int64_t i = threadIdx.x; i < p.vocab; i += kThreads) row.counts[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < length; i += kThreads) {
    if (history[i] < 0 || history[i] >= p.vocab) continue;
    if (i < prompt) atomicOr(&row.counts[history[i]], 0x80000000u);
    else atomicAdd(&row.counts[history[i]], 1u);
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < p.vocab; i += kThreads) {
    if (row.counts[i] == 0) continue;
    const uint32_t count = row.counts[i] & 0x7fffffffu;
    float value = row.work[i];
    if (repetition != 1) value = value > 0 ? __fdiv_rn(value, repetition) : __fmul_rn(value, repetition);
    if (count > 0) {
      value = __fsub_rn(value, __fmul_rn(frequency, static_cast<float>(count)));
      value = __fsub_rn(value, presence);
    }
    row.work[i] = value;
  }
  __syncthreads();
}

// Steps 7 to 9: what is not kept becomes -inf.
__device__ void KeepTokens(Shared& s, const SampleParams& p, const Row& row, float max) {
  const float min_p = p.step.min_p[row.index], top_p = p.step.top_p[row.index];
  const int top_k = p.step.top_k[row.index];
  float* x = row.work;
  if (min_p > 0) {
    for (int64_t i = threadIdx.x; i < p.vocab; i += kThreads)
      if (exp(static_cast<double>(x[i]) - static_cast<double>(max)) < min_p) x[i] = MinusInfinity();
    __syncthreads();
  }
  unsigned long long above;
  if (top_k > 0 && top_k < p.vocab) {
    const float threshold = SelectFromTop(s, x, p.vocab, static_cast<unsigned long long>(top_k), &above,
                                          [](float v) { return v > MinusInfinity() ? 1ull : 0ull; });
    for (int64_t i = threadIdx.x; i < p.vocab; i += kThreads)
      if (x[i] < threshold) x[i] = MinusInfinity();
    __syncthreads();
  }
  if (top_p >= 1) return;
  const auto weight = [max](float v) { return v > MinusInfinity() ? static_cast<unsigned long long>(Weight(v, max)) : 0ull; };
  if (threadIdx.x == 0) s.wanted = 0;
  __syncthreads();
  unsigned long long mine = 0;
  for (int64_t i = threadIdx.x; i < p.vocab; i += kThreads) mine += weight(x[i]);
  atomicAdd(&s.wanted, mine);
  __syncthreads();
  const double share = static_cast<double>(s.wanted) * static_cast<double>(top_p);
  __syncthreads();
  const auto wanted = static_cast<unsigned long long>(ceil(share));
  const float last = SelectFromTop(s, x, p.vocab, wanted < 1 ? 1 : wanted, &above, weight);
  // Of those that equal the last value, as many as are needed, lower ids first.
  const unsigned long long each = max == last ? Weight(max, max) : weight(last);
  const unsigned long long missing = wanted > above ? wanted - above : 1;
  const unsigned long long needed = each == 0 ? 1 : (missing + each - 1) / each;
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
  for (int64_t begin = 0; begin < p.vocab; begin += kThreads) {
    const int64_t i = begin + threadIdx.x;
    const bool equal = i < p.vocab && x[i] == last;
    if (i < p.vocab && x[i] < last) x[i] = MinusInfinity();
    if (__syncthreads_or(equal) == 0) continue;
    // rare: ids in order, by warps
    for (int w = 0; w < kWarps; ++w) {
      if (threadIdx.x / 32 == w) {
        const unsigned ballot = __ballot_sync(0xffffffffu, equal);
        const int before = s.count + __popc(ballot & ((1u << threadIdx.x % 32) - 1));
        if (equal && static_cast<unsigned long long>(before) >= needed) x[i] = MinusInfinity();
        __syncwarp();
        if (threadIdx.x % 32 == 0) s.count += __popc(ballot);
      }
      __syncthreads();
    }
  }
  __syncthreads();
}

// Step 10.
__device__ int PickToken(Shared& s, const SampleParams& p, const Row& row, float max, double u) {
  const float* x = row.work;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int num_tiles = static_cast<int>((p.vocab + kTile - 1) / kTile);
  const auto weight = [&](int64_t i) { return i < p.vocab && x[i] > MinusInfinity() ? Weight(x[i], max) : 0; };
  for (int tile = warp; tile < num_tiles; tile += kWarps) {
    uint64_t sum = 0;
    for (int i = lane; i < kTile; i += 32) sum += weight(static_cast<int64_t>(tile) * kTile + i);
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0) s.sums[tile] = sum;
  }
  __syncthreads();
  if (warp == 0) {
    uint64_t total = 0;
    for (int tile = lane; tile < num_tiles; tile += 32) total += s.sums[tile];
    for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(0xffffffffu, total, offset);
    const double wanted = u * static_cast<double>(total);
    uint64_t sum = 0;
    int tile = 0, last = -1;
    for (; tile < num_tiles; ++tile) {
      if (s.sums[tile] > 0) last = tile;
      if (static_cast<double>(sum + s.sums[tile]) > wanted) break;
      sum += s.sums[tile];
    }
    if (tile == num_tiles) {  // rounding leaves none: the last that is kept
      tile = last < 0 ? 0 : last;
      sum = 0;
    }
    int token = -1, kept = -1;
    for (int begin = 0; begin < kTile && token < 0; begin += 32) {
      const int64_t i = static_cast<int64_t>(tile) * kTile + begin + lane;
      uint64_t prefix = weight(i);
      const unsigned present = __ballot_sync(0xffffffffu, prefix > 0);
      for (int offset = 1; offset < 32; offset *= 2) {
        const uint64_t other = __shfl_up_sync(0xffffffffu, prefix, offset);
        if (lane >= offset) prefix += other;
      }
      const unsigned found = __ballot_sync(0xffffffffu, static_cast<double>(sum + prefix) > wanted) & present;
      if (found != 0) token = tile * kTile + begin + __ffs(found) - 1;
      if (present != 0) kept = tile * kTile + begin + 31 - __clz(present);
      sum += __shfl_sync(0xffffffffu, prefix, 31);
    }
    if (lane == 0) s.token = token >= 0 ? token : kept;
  }
  __syncthreads();
  return s.token;
}

// Of `values`, as `numLogprobs` and the mode of the row ask.
__device__ void WriteLogprobs(Shared& s, const SampleParams& p, const float* values, const Row& row, int token) {
  const SampleStep& step = p.step;
  const int wanted = step.num_logprobs[row.index], top = step.max_top_logprobs;
  const int subject = row.mode & kModeTarget ? step.targets[row.index] : token;
  float logprob = 0;
  int rank = 0, listed = 0;
  if (wanted >= 0) {
    const auto value = [values](int64_t i) { return NoNan(values[i]); };
    const float max = BlockArgmax(s, p.vocab, value).value;
    const bool finite = isfinite(max);
    const double sum = !finite ? 1 : BlockSum(s, p.vocab, [&](int64_t i) { return exp(static_cast<double>(value(i)) - static_cast<double>(max)); });
    const double log_sum = log(sum);
    const auto logprob_of = [&](float v) {
      if (!finite) return v == -MinusInfinity() ? 0.f : MinusInfinity();
      return static_cast<float>(static_cast<double>(v) - static_cast<double>(max) - log_sum);
    };
    if (subject >= 0 && subject < p.vocab) {
      const float own = value(subject);
      logprob = logprob_of(own);
      rank = 1 + static_cast<int>(BlockSum(s, p.vocab, [&](int64_t i) { return value(i) > own ? 1. : 0.; }));
    }
    listed = static_cast<int>(min(static_cast<int64_t>(min(wanted, top)), p.vocab));
    Best last{-MinusInfinity(), -1};
    for (int k = 0; k < listed; ++k) {
      // the best of those behind the last one
      Best best = BlockArgmax(s, p.vocab, [&](int64_t i) {
        const float v = value(i);
        return v < last.value || (v == last.value && i > last.id) ? v : MinusInfinity();
      });
      if (best.value == MinusInfinity()) {
        // all that are left are -inf: in the order of ids, behind the last of them
        int id = last.value == MinusInfinity() ? last.id + 1 : 0;
        while (id < p.vocab && value(id) != MinusInfinity()) ++id;
        best = {MinusInfinity(), id};
      }
      last = best;
      if (threadIdx.x == 0) {
        step.top_ids[static_cast<int64_t>(row.index) * top + k] = best.id;
        step.top_logprobs[static_cast<int64_t>(row.index) * top + k] = logprob_of(best.value);
      }
    }
  }
  for (int k = listed + threadIdx.x; k < top; k += kThreads) {
    step.top_ids[static_cast<int64_t>(row.index) * top + k] = -1;
    step.top_logprobs[static_cast<int64_t>(row.index) * top + k] = -1;
  }
  if (threadIdx.x == 0) {
    step.logprobs[row.index] = logprob;
    step.ranks[row.index] = rank;
  }
}

__global__ void __launch_bounds__(kThreads) SampleKernel(SampleParams p) {
  __shared__ Shared s;
  const SampleStep& step = p.step;
  const int index = static_cast<int>(p.first_row) + blockIdx.x;
  const float* logits = p.logits + static_cast<int64_t>(blockIdx.x) * p.vocab;
  float* work = static_cast<float*>(p.scratch) + static_cast<int64_t>(blockIdx.x) * p.vocab;
  auto* counts = reinterpret_cast<uint32_t*>(static_cast<float*>(p.scratch) + static_cast<int64_t>(gridDim.x + blockIdx.x) * p.vocab);
  const Row row{index, step.row_modes[index], step.seq_slots[step.row_seqs[index]], step.positions[step.logit_rows[index]], work, counts};
  const bool samples = row.mode & kModeSample, greedy = row.mode & kModeGreedy, processes = row.mode & kModeProcessed;
  int token = -1;
  const float* values = logits;
  if (samples || processes) {
    const float* from = logits;
    if (p.step.any_edits) {
      MaskAndBias(p, logits, row);
      Penalize(p, row);
      from = work;
    }
    if (greedy) {
      if (samples) token = BlockArgmax(s, p.vocab, [from](int64_t i) { return NoNan(from[i]); }).id;
      if (processes) values = from;
    } else {
      const float temperature = step.temperature[index];
      for (int64_t i = threadIdx.x; i < p.vocab; i += kThreads) work[i] = NoNan(__fdiv_rn(NoNan(from[i]), temperature));
      __syncthreads();
      const Best best = BlockArgmax(s, p.vocab, [work](int64_t i) { return work[i]; });
      if (isfinite(best.value)) {
        KeepTokens(s, p, row, best.value);
        const uint64_t seed = static_cast<uint64_t>(static_cast<uint32_t>(step.seed_high[index])) << 32 | static_cast<uint32_t>(step.seed_low[index]);
        if (samples) token = PickToken(s, p, row, best.value, Uniform(seed, row.position));
      } else if (samples) {
        token = best.id;
      }
      if (processes) values = work;
    }
  }
  WriteLogprobs(s, p, values, row, token);
  if (threadIdx.x != 0) return;
  step.tokens[index] = token;
  if (!samples) return;
  p.state.last_tokens[row.slot] = token;
  const int length = p.state.history_lengths[row.slot];
  if (length == 0 || length >= p.state.max_model_len) return;
  p.state.history[static_cast<int64_t>(row.slot) * p.state.max_model_len + length] = token;
  p.state.history_lengths[row.slot] = length + 1;
}

// grid (n): a block per sequence.
__global__ void TakeHistoriesKernel(const int32_t* seqs, const int32_t* offsets, const int32_t* tokens, const int32_t* seq_slots,
                                    const int32_t* prompt_lens, SampleState state) {
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

Launch Sample(const SampleParams& p, cudaStream_t stream) {
  if (p.vocab > int64_t{kMaxTiles} * kTile) return cudaErrorNotSupported;
  if (p.num_rows == 0) return cudaSuccess;
  SampleKernel<<<static_cast<unsigned>(p.num_rows), kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

Launch TakeHistories(const int32_t* history_seqs, const int32_t* history_offsets, const int32_t* history_tokens, int32_t n,
                     const int32_t* seq_slots, const int32_t* prompt_lens, const SampleState& state, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  TakeHistoriesKernel<<<static_cast<unsigned>(n), 256, 0, stream>>>(history_seqs, history_offsets, history_tokens, seq_slots, prompt_lens, state);
  return cudaGetLastError();
}

}  // namespace tenon_cuda
