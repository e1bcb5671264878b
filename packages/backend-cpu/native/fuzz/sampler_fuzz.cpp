// A row of any logits (NaN and infinities too) with any sampling parameters: the token lies in the vocabulary, what is
// reported is in range, and finite logits give no NaN.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tenon/sampling/sample_row.h"

using namespace tenon;

namespace {

// The case's bytes, zeros after their end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t Byte() { return at_ < size_ ? data_[at_++] : 0; }
  uint32_t Word() {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) word = word << 8 | Byte();
    return word;
  }
  // Any bits, or a small number.
  float Float() {
    const uint8_t kind = Byte();
    if (kind < 64) return std::bit_cast<float>(Word());
    return static_cast<float>(static_cast<int8_t>(Byte())) / static_cast<float>(1 << (kind % 8));
  }
  std::vector<int32_t> Ids(int64_t vocab) {
    std::vector<int32_t> ids(Byte() % 8);
    for (int32_t& id : ids) id = Byte() < 240 ? static_cast<int32_t>(Byte() % vocab) : static_cast<int32_t>(Word());
    return ids;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

Span<int32_t> SpanOf(const std::vector<int32_t>& values) { return {values.data(), static_cast<int64_t>(values.size())}; }

void Require(bool condition) {
  if (!condition) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  const int64_t vocab = bytes.Byte() % 5 == 0 ? 1 + bytes.Byte() * 5 : 1 + bytes.Byte() % 24;
  const auto ids = [&] { return bytes.Ids(vocab); };
  const std::vector<int32_t> suppress = ids(), allowed = ids(), bias = ids(), prompt = ids(), output = ids(), word = ids();
  std::vector<int32_t> bad_words;
  if (!word.empty()) {
    bad_words.push_back(static_cast<int32_t>(word.size()));
    bad_words.insert(bad_words.end(), word.begin(), word.end());
  }
  std::vector<float> bias_values(bias.size());
  for (float& value : bias_values) value = bytes.Float();
  const bool ordinary = bytes.Byte() % 2 == 0;
  // What core lets through.
  const auto between = [&](float low, float high) {
    const float value = bytes.Float();
    return ordinary ? (value >= low && value <= high ? value : low) : value;
  };
  SampleRowParams params{.logits = nullptr, .vocab = vocab, .mode = bytes.Byte() % 16, .seed = bytes.Word(),
                         .position = static_cast<int32_t>(bytes.Byte())};
  params.temperature = between(0.01f, 100);
  params.top_k = ordinary ? bytes.Byte() : static_cast<int32_t>(bytes.Word());
  params.top_p = between(1e-6f, 1);
  params.min_p = between(0, 1);
  params.presence_penalty = between(-2, 2);
  params.frequency_penalty = between(-2, 2);
  params.repetition_penalty = between(1e-3f, 100);
  params.suppress_tokens = SpanOf(suppress);
  params.allowed_tokens = SpanOf(allowed);
  params.bias_tokens = SpanOf(bias);
  params.bias_values = bias_values.data();
  params.bad_words = SpanOf(bad_words);
  params.prompt_tokens = SpanOf(prompt);
  params.output_tokens = SpanOf(output);
  params.target = bytes.Byte() % 2 == 0 ? static_cast<int32_t>(bytes.Byte() % vocab) : -1;
  if (params.target < 0) params.mode &= ~kRowTarget;
  params.num_logprobs = static_cast<int32_t>(bytes.Byte() % (vocab + 2)) - 1;
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (float& logit : logits) logit = bytes.Float();
  params.logits = logits.data();

  SampleScratch scratch(vocab);
  std::vector<int32_t> top_ids(static_cast<size_t>(std::max(0, params.num_logprobs)));
  std::vector<float> top_logprobs(top_ids.size());
  const SampleRowResult result = SampleRow(params, scratch, top_ids.data(), top_logprobs.data());
  const bool samples = (params.mode & kRowSample) != 0;
  Require(samples ? result.token >= 0 && result.token < vocab : result.token == -1);
  Require(result.rank >= 0 && result.rank <= vocab && result.num_top >= 0 && result.num_top <= std::max(0, params.num_logprobs));
  for (int32_t i = 0; i < result.num_top; ++i) Require(top_ids[i] >= 0 && top_ids[i] < vocab);
  const auto finite = [](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value) && std::abs(value) < 1e30f; });
  };
  if (ordinary && finite(logits) && finite(bias_values)) {
    Require(!std::isnan(result.logprob));
    for (int32_t i = 0; i < result.num_top; ++i) Require(!std::isnan(top_logprobs[i]));
  }
  // The scratch is ready for the next row: the same row gives the same token.
  Require(SampleRow(params, scratch, top_ids.data(), top_logprobs.data()).token == result.token);
  return 0;
}
