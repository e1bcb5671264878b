// Sampling of one logit row. The algorithm, step by step, is defined in core's src/program/reference/sample.ts; the
// numbers of the steps below are its.
//
// Masks, bias and penalties touch few tokens; what follows goes over the vocabulary in few passes and never sorts
// it. Tokens that min_p, top_k or top_p may keep are collected by a bound on their value (largest group maxima, a distance
// from the maximum), and everything exact is done on these few candidates.
//
// Compiled with -ffp-contract=off, as the reference rounds every operation.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>

#include "tenon/sampling/row_math.h"
#include "tenon/schema.gen.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// A list that the row does not own.
template <class T>
struct Span {
  const T* data = nullptr;
  int64_t size = 0;
};

// Token ids anywhere may lie outside the vocabulary; they are then without effect.
struct SampleRowParams {
  const float* logits;  // [vocab], not changed
  int64_t vocab;
  int32_t mode;  // kRow… bits
  uint64_t seed;
  int32_t position;  // of the row's input token
  float temperature = 1;  // > 0 unless greedy
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repetition_penalty = 1;
  Span<int32_t> suppress_tokens;
  Span<int32_t> allowed_tokens;  // empty: all
  Span<int32_t> bias_tokens;
  const float* bias_values = nullptr;  // [bias_tokens.size]
  Span<int32_t> bad_words;             // [length ≥ 1, tokens…] per word
  Span<int32_t> prompt_tokens;         // of sequences that are tracked
  Span<int32_t> output_tokens;
  int32_t target = -1;
  int32_t num_logprobs = -1;  // entries of the top list; -1: no logprobs at all
};

struct SampleRowResult {
  int32_t token;       // -1 where the row does not sample
  float logprob;       // of the target or the token; 0 where there is none
  int32_t rank;        // 1 = most likely; 0 where there is none
  int32_t num_top;     // entries written to the row's top list: min(num_logprobs, vocab)
};

struct SampleEntry {
  float value;
  int32_t id;
};

// Memory of one thread for rows of up to `vocab` logits.
struct SampleScratch {
  explicit SampleScratch(int64_t vocab)
      : row(new float[vocab]),
        maxima(new float[sampling::NumGroups(vocab)]),
        sums(new double[sampling::NumSegments(vocab)]),
        counts(new int32_t[vocab]()),
        ids(new int32_t[vocab]),
        values(new float[vocab]),
        weights(new double[std::max(vocab, sampling::kSegment)]),
        entries(new SampleEntry[std::max(vocab, sampling::NumGroups(vocab))]) {}

  std::unique_ptr<float[]> row;       // [vocab] the processed logits
  std::unique_ptr<float[]> maxima;    // [NumGroups(vocab)]
  std::unique_ptr<double[]> sums;     // [NumSegments(vocab)]
  std::unique_ptr<int32_t[]> counts;  // [vocab], all zero between rows
  // Candidates, in ascending ids, [vocab] each.
  std::unique_ptr<int32_t[]> ids;
  std::unique_ptr<float[]> values;
  std::unique_ptr<double[]> weights;
  std::unique_ptr<SampleEntry[]> entries;  // [max(vocab, NumGroups(vocab))] room to select and sort in
};

namespace sampling {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kLowest = std::numeric_limits<float>::lowest();  // the least value that can be kept
inline constexpr int kMassBuckets = 1024;
// How far below the maximum top_p looks for its prefix before it takes all tokens.
inline constexpr std::array<float, 2> kPrefixDepths = {4, 10};
inline constexpr int32_t kSeen = 1 << 30;  // in `counts`

inline bool IsBefore(const SampleEntry& a, const SampleEntry& b) { return a.value > b.value || (a.value == b.value && a.id < b.id); }

inline uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// The row's noise, in [0, 1): splitmix64's finalizer, twice, of (seed, position + 1).
inline double Uniform(uint64_t seed, int32_t position) {
  const uint64_t z = Mix(Mix(seed + (static_cast<uint64_t>(position) + 1) * 0x9e3779b97f4a7c15));
  return static_cast<double>(z >> 11) * 0x1p-53;
}

class RowSampler {
 public:
  RowSampler(const SampleRowParams& params, SampleScratch& scratch) : p_(params), s_(scratch), n_(params.vocab) {}

  SampleRowResult Run(int32_t* top_ids, float* top_logprobs) {
    const bool sampling = (p_.mode & kRowSample) != 0;
    const bool processing = (p_.mode & kRowProcessedLogprobs) != 0 && p_.num_logprobs >= 0;
    const float* values = p_.logits;
    int32_t token = -1;
    if (sampling || processing) {
      const float* processed = IsProcessed() ? Process() : p_.logits;
      if ((p_.mode & kRowGreedy) != 0) {
        if (sampling) token = Argmax(processed);
      } else {
        DivideRow(processed, n_, p_.temperature, s_.row.get());
        Keep();
        if (sampling) token = Pick();
        if (processing) WriteKept();
        processed = s_.row.get();
      }
      if (processing) values = processed;
    }
    const int32_t subject = (p_.mode & kRowTarget) != 0 ? p_.target : token;
    return Score(values, token, subject, top_ids, top_logprobs);
  }

 private:
  bool InVocab(int32_t token) const { return token >= 0 && token < n_; }
  bool Penalizes() const {
    const bool any = p_.repetition_penalty != 1 || p_.frequency_penalty != 0 || p_.presence_penalty != 0;
    return any && p_.prompt_tokens.size + p_.output_tokens.size > 0;
  }
  bool IsProcessed() const {
    return p_.allowed_tokens.size + p_.suppress_tokens.size + p_.bad_words.size + p_.bias_tokens.size > 0 || Penalizes();
  }

  // Steps 2 to 4, into the scratch row.
  const float* Process() {
    CopyAllowed();
    for (int64_t i = 0; i < p_.suppress_tokens.size; i++) Mask(p_.suppress_tokens.data[i]);
    MaskBadWords();
    for (int64_t i = 0; i < p_.bias_tokens.size; i++) {
      if (InVocab(p_.bias_tokens.data[i])) s_.row[p_.bias_tokens.data[i]] += p_.bias_values[i];
    }
    if (Penalizes()) Penalize();
    return s_.row.get();
  }

  void Mask(int32_t token) {
    if (InVocab(token)) s_.row[token] = -kInfinity;
  }

  void CopyAllowed() {
    if (p_.allowed_tokens.size == 0) {
      std::memcpy(s_.row.get(), p_.logits, static_cast<size_t>(n_) * sizeof(float));
      return;
    }
    std::fill_n(s_.row.get(), n_, -kInfinity);
    for (int64_t i = 0; i < p_.allowed_tokens.size; i++) {
      const int32_t token = p_.allowed_tokens.data[i];
      if (InVocab(token)) s_.row[token] = p_.logits[token];
    }
  }

  // The last token of each word whose other tokens end the output.
  void MaskBadWords() {
    for (int64_t at = 0; at < p_.bad_words.size; at += 1 + p_.bad_words.data[at]) {
      const int32_t* word = p_.bad_words.data + at + 1;
      const int64_t prefix = p_.bad_words.data[at] - 1;
      if (prefix < 0 || prefix > p_.output_tokens.size) continue;
      const int32_t* tail = p_.output_tokens.data + p_.output_tokens.size - prefix;
      if (std::equal(word, word + prefix, tail)) Mask(word[prefix]);
    }
  }

  void Penalize() {
    for (int64_t i = 0; i < p_.output_tokens.size; i++) {
      if (InVocab(p_.output_tokens.data[i])) s_.counts[p_.output_tokens.data[i]]++;
    }
    if (p_.repetition_penalty != 1) {
      PenalizeRepetition(p_.prompt_tokens);
      PenalizeRepetition(p_.output_tokens);
    }
    for (int64_t i = 0; i < p_.output_tokens.size; i++) PenalizeFrequency(p_.output_tokens.data[i]);
    ForgetCounts(p_.prompt_tokens);
    ForgetCounts(p_.output_tokens);
  }

  void PenalizeRepetition(Span<int32_t> tokens) {
    for (int64_t i = 0; i < tokens.size; i++) {
      const int32_t token = tokens.data[i];
      if (!InVocab(token) || (s_.counts[token] & kSeen) != 0) continue;
      s_.counts[token] |= kSeen;
      float& value = s_.row[token];
      value = value > 0 ? value / p_.repetition_penalty : value * p_.repetition_penalty;
    }
  }

  // Once per distinct token: its count is cleared.
  void PenalizeFrequency(int32_t token) {
    if (!InVocab(token)) return;
    const int32_t count = s_.counts[token] & ~kSeen;
    if (count == 0) return;
    s_.counts[token] &= kSeen;
    s_.row[token] -= p_.frequency_penalty * static_cast<float>(count);
    s_.row[token] -= p_.presence_penalty;
  }

  void ForgetCounts(Span<int32_t> tokens) {
    for (int64_t i = 0; i < tokens.size; i++) {
      if (InVocab(tokens.data[i])) s_.counts[tokens.data[i]] = 0;
    }
  }

  int32_t Argmax(const float* values) {
    const float max = GroupMaxima(values, n_, s_.maxima.get());
    return max == -kInfinity ? 0 : static_cast<int32_t>(FirstEqual(values, n_, max));
  }

  // Steps 7 to 9 on the scratch row. Afterwards either the whole row is kept (the segments' sums are known), or the
  // candidates are.
  void Keep() {
    max_ = GroupMaxima(s_.row.get(), n_, s_.maxima.get());
    if (!std::isfinite(max_)) return;
    const bool has_top_k = p_.top_k > 0 && p_.top_k < n_;
    const bool has_top_p = p_.top_p < 1;
    if (p_.min_p <= 0 && !has_top_k) {
      total_ = SegmentExpSums(s_.row.get(), n_, max_, s_.sums.get());
      if (has_top_p) CollectMass(p_.top_p * total_);
      if (has_top_p) KeepPrefix(p_.top_p * total_);
      return;
    }
    Collect(std::max({MinPBound(), TopKBound(), kLowest}));
    if (p_.min_p > 0) KeepIf([&](int64_t i) { return s_.weights[i] >= p_.min_p; });
    if (has_top_k && p_.top_k < count_) KeepTopK();
    if (has_top_p) KeepPrefix(p_.top_p * Sum(s_.weights.get(), count_));
  }

  // A value that every token with weight ≥ min_p reaches, with room for rounding.
  float MinPBound() const {
    if (p_.min_p <= 0) return -kInfinity;
    return static_cast<float>(max_ + std::log(static_cast<double>(p_.min_p)) - 1e-3 - 1e-6 * std::fabs(max_));
  }

  float TopKBound() { return p_.top_k > 0 ? LargestBound(p_.top_k) : -kInfinity; }

  // A value that the k largest tokens reach: the k-th largest group maximum; -inf where there are fewer groups.
  float LargestBound(int64_t k) {
    const int64_t groups = NumGroups(n_);
    if (k > groups) return -kInfinity;
    for (int64_t i = 0; i < groups; i++) s_.entries[i] = {s_.maxima[i], static_cast<int32_t>(i)};
    std::nth_element(&s_.entries[0], &s_.entries[k - 1], &s_.entries[groups], IsBefore);
    return s_.entries[k - 1].value;
  }

  void Collect(float min) {
    whole_row_ = false;
    count_ = CollectAtLeast(s_.row.get(), n_, min, s_.ids.get(), s_.values.get());
    ExpWeights(s_.values.get(), count_, max_, s_.weights.get());
  }

  template <class Predicate>
  void KeepIf(Predicate keeps) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count_; i++) {
      if (!keeps(i)) continue;
      s_.ids[kept] = s_.ids[i];
      s_.values[kept] = s_.values[i];
      s_.weights[kept] = s_.weights[i];
      kept++;
    }
    count_ = kept;
  }

  void KeepTopK() {
    for (int64_t i = 0; i < count_; i++) s_.entries[i] = {s_.values[i], s_.ids[i]};
    std::nth_element(&s_.entries[0], &s_.entries[p_.top_k - 1], &s_.entries[count_], IsBefore);
    const float threshold = s_.entries[p_.top_k - 1].value;
    KeepIf([&](int64_t i) { return s_.values[i] >= threshold; });
  }

  // Candidates that hold at least the mass `wanted`: those near the maximum if they do, else all.
  void CollectMass(double wanted) {
    for (const float depth : kPrefixDepths) {
      Collect(std::max(max_ - depth, kLowest));
      if (Sum(s_.weights.get(), count_) >= wanted) return;
    }
    Collect(kLowest);
  }

  // Step 9.
  void KeepPrefix(double wanted) {
    SampleEntry last;
    if (!FindPrefixEnd(wanted, &last)) return;
    KeepIf([&](int64_t i) { return !IsBefore(last, {s_.values[i], s_.ids[i]}); });
  }

  // The last token of the prefix; false if all belong to it. Values fall into buckets by their distance from the maximum;
  // only the bucket in which the prefix ends is put in order.
  bool FindPrefixEnd(double wanted, SampleEntry* last) {
    if (count_ == 0) return false;
    const float min = *std::min_element(&s_.values[0], &s_.values[count_]);
    const double range = static_cast<double>(max_) - static_cast<double>(min);
    const double scale = range > 0 ? (kMassBuckets - 1) / range : 0;
    const auto bucket_of = [&](float value) {
      return static_cast<int>((static_cast<double>(max_) - static_cast<double>(value)) * scale);
    };
    std::array<double, kMassBuckets> masses{};
    for (int64_t i = 0; i < count_; i++) masses[bucket_of(s_.values[i])] += s_.weights[i];
    double mass = 0;
    int bucket = 0;
    while (bucket < kMassBuckets && mass + masses[bucket] < wanted) mass += masses[bucket++];
    if (bucket == kMassBuckets) return false;

    int64_t members = 0;
    for (int64_t i = 0; i < count_; i++) {
      if (bucket_of(s_.values[i]) == bucket) s_.entries[members++] = {s_.values[i], static_cast<int32_t>(i)};
    }
    // Candidates ascend in ids, so their numbers order as their ids do.
    std::sort(&s_.entries[0], &s_.entries[members], IsBefore);
    int64_t end = 0;
    while (end < members - 1 && (mass += s_.weights[s_.entries[end].id]) < wanted) end++;
    *last = {s_.entries[end].value, s_.ids[s_.entries[end].id]};
    return true;
  }

  // Step 10.
  int32_t Pick() {
    if (!std::isfinite(max_)) return static_cast<int32_t>(FirstEqual(s_.row.get(), n_, max_));
    const double u = Uniform(p_.seed, p_.position);
    return whole_row_ ? PickFromRow(u * total_) : PickFromCandidates(u * Sum(s_.weights.get(), count_));
  }

  // Whole segments first, then token by token.
  int32_t PickFromRow(double target) {
    double sum = 0;
    int64_t segment = 0;
    while (segment + 1 < NumSegments(n_) && sum + s_.sums[segment] <= target) sum += s_.sums[segment++];
    for (; segment < NumSegments(n_); segment++) {
      const int64_t begin = segment * kSegment, size = std::min(kSegment, n_ - begin);
      ExpWeights(&s_.row[begin], size, max_, s_.weights.get());
      for (int64_t i = 0; i < size; i++) {
        sum += s_.weights[i];
        if (sum > target) return static_cast<int32_t>(begin + i);
      }
    }
    int64_t last = n_ - 1;
    while (s_.row[last] == -kInfinity) last--;
    return static_cast<int32_t>(last);
  }

  int32_t PickFromCandidates(double target) {
    double sum = 0;
    for (int64_t i = 0; i < count_; i++) {
      sum += s_.weights[i];
      if (sum > target) return s_.ids[i];
    }
    return count_ > 0 ? s_.ids[count_ - 1] : 0;
  }

  // The scratch row with -inf for what is not kept.
  void WriteKept() {
    if (whole_row_) return;
    std::fill_n(s_.row.get(), n_, -kInfinity);
    for (int64_t i = 0; i < count_; i++) s_.row[s_.ids[i]] = s_.values[i];
  }

  SampleRowResult Score(const float* values, int32_t token, int32_t subject, int32_t* top_ids, float* top_logprobs) {
    SampleRowResult result{.token = token, .logprob = 0, .rank = 0, .num_top = 0};
    if (p_.num_logprobs < 0) return result;
    max_ = GroupMaxima(values, n_, s_.maxima.get());
    if (std::isfinite(max_)) log_sum_ = std::log(SegmentExpSums(values, n_, max_, s_.sums.get()));
    if (InVocab(subject)) {
      const float value = Clean(values[subject]);
      result.logprob = Logprob(value);
      result.rank = static_cast<int32_t>(1 + CountGreater(values, n_, value));
    }
    result.num_top = static_cast<int32_t>(std::min<int64_t>(p_.num_logprobs, n_));
    if (result.num_top > 0) SelectTop(values, result.num_top);
    for (int32_t i = 0; i < result.num_top; i++) {
      top_ids[i] = s_.entries[i].id;
      top_logprobs[i] = Logprob(s_.entries[i].value);
    }
    return result;
  }

  static float Clean(float value) { return std::isnan(value) ? -kInfinity : value; }

  float Logprob(float value) const {
    if (!std::isfinite(max_)) return value == kInfinity ? 0 : -kInfinity;
    return static_cast<float>(static_cast<double>(value) - static_cast<double>(max_) - log_sum_);
  }

  // The k first tokens in order, to the front of `entries`.
  void SelectTop(const float* values, int64_t k) {
    const float bound = LargestBound(k);
    int64_t count = n_;
    if (bound > -kInfinity) {
      count = CollectAtLeast(values, n_, bound, s_.ids.get(), s_.values.get());
      for (int64_t i = 0; i < count; i++) s_.entries[i] = {s_.values[i], s_.ids[i]};
    } else {
      for (int64_t i = 0; i < n_; i++) s_.entries[i] = {Clean(values[i]), static_cast<int32_t>(i)};
    }
    if (k < count) std::nth_element(&s_.entries[0], &s_.entries[k - 1], &s_.entries[count], IsBefore);
    std::sort(&s_.entries[0], &s_.entries[k], IsBefore);
  }

  const SampleRowParams& p_;
  SampleScratch& s_;
  const int64_t n_;
  float max_ = 0;
  bool whole_row_ = true;
  double total_ = 0;    // Σ weights of the whole row
  int64_t count_ = 0;   // candidates
  double log_sum_ = 0;  // log Σ e^(value - max)
};

}  // namespace sampling

// Samples, scores or both. top_ids, top_logprobs: [num_logprobs], written as far as the result's num_top; null where
// num_logprobs ≤ 0. Whatever the logits (NaN, infinities), it ends and the token is in the vocabulary.
inline SampleRowResult SampleRow(const SampleRowParams& params, SampleScratch& scratch, int32_t* top_ids, float* top_logprobs) {
  return sampling::RowSampler(params, scratch).Run(top_ids, top_logprobs);
}

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
