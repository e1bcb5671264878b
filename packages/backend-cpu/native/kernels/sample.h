// Sampling of one logit row. The algorithm, step by step, is defined in core's src/program/reference/sample.ts; the
// numbers of the steps below are its.
#pragma once

#include <cstdint>
#include <memory>

namespace tenon_cpu {

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
  explicit SampleScratch(int64_t vocab);

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

// Samples, scores or both. top_ids, top_logprobs: [num_logprobs], written as far as the result's num_top; null where
// num_logprobs ≤ 0. Whatever the logits (NaN, infinities), it ends and the token is in the vocabulary.
SampleRowResult SampleRow(const SampleRowParams& params, SampleScratch& scratch, int32_t* top_ids, float* top_logprobs);

// The row's noise, in [0, 1): splitmix64's finalizer, twice, of (seed, position + 1).
double SampleUniform(uint64_t seed, int32_t position);

}  // namespace tenon_cpu
