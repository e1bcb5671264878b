// sample_cases <cases> <results>: runs recorded rows through SampleRow, for a test that compares with core's reference.
//
// A case, in 32-bit words: vocab, mode, seed low, high, position, temperature, topK, topP, minP, presence, frequency,
// repetition, target, numLogprobs; the sizes of suppress, allowed, bias, badWords, prompt, output; then those lists (bias:
// tokens, then values) and the logits. A result: token, logprob, rank, numTop, top ids, top logprobs.
#include <bit>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "tenon/sampling/sample_row.h"

namespace tenon {
namespace {

class WordReader {
 public:
  explicit WordReader(const std::vector<int32_t>& words) : words_(words) {}

  bool AtEnd() const { return at_ >= words_.size(); }
  int32_t Int() { return words_.at(at_++); }
  float Float() { return std::bit_cast<float>(Int()); }
  const int32_t* Take(int64_t size) {
    const int32_t* data = words_.data() + at_;
    at_ += static_cast<size_t>(size);
    return data;
  }

 private:
  const std::vector<int32_t>& words_;
  size_t at_ = 0;
};

SampleRowParams ReadCase(WordReader& in) {
  SampleRowParams row{};
  row.vocab = in.Int();
  row.mode = in.Int();
  const uint64_t seed_low = static_cast<uint32_t>(in.Int());
  row.seed = static_cast<uint64_t>(static_cast<uint32_t>(in.Int())) << 32 | seed_low;
  row.position = in.Int();
  row.temperature = in.Float();
  row.top_k = in.Int();
  row.top_p = in.Float();
  row.min_p = in.Float();
  row.presence_penalty = in.Float();
  row.frequency_penalty = in.Float();
  row.repetition_penalty = in.Float();
  row.target = in.Int();
  row.num_logprobs = in.Int();
  Span<int32_t>* const lists[] = {&row.suppress_tokens, &row.allowed_tokens, &row.bias_tokens,
                                  &row.bad_words,       &row.prompt_tokens,  &row.output_tokens};
  for (Span<int32_t>* list : lists) list->size = in.Int();
  for (Span<int32_t>* list : lists) {
    list->data = in.Take(list->size);
    if (list == &row.bias_tokens) row.bias_values = reinterpret_cast<const float*>(in.Take(list->size));
  }
  row.logits = reinterpret_cast<const float*>(in.Take(row.vocab));
  return row;
}

std::vector<int32_t> ReadWords(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<int32_t> words(bytes.size() / 4);
  std::copy(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(words.size() * 4), reinterpret_cast<char*>(words.data()));
  return words;
}

}  // namespace
}  // namespace tenon

int main(int argc, char** argv) {
  using namespace tenon;
  if (argc != 3) return std::printf("usage: sample_cases <cases> <results>\n"), 2;
  const std::vector<int32_t> words = ReadWords(argv[1]);
  std::ofstream results(argv[2], std::ios::binary);
  WordReader in(words);
  int cases = 0;
  for (; !in.AtEnd(); cases++) {
    const SampleRowParams row = ReadCase(in);
    // A fresh scratch for every other case: what a row leaves behind must not matter.
    static SampleScratch reused(1 << 18);
    SampleScratch fresh(row.vocab);
    std::vector<int32_t> ids(row.num_logprobs > 0 ? row.num_logprobs : 0);
    std::vector<float> logprobs(ids.size());
    const SampleRowResult result = SampleRow(row, cases % 2 == 0 ? reused : fresh, ids.data(), logprobs.data());
    results.write(reinterpret_cast<const char*>(&result), sizeof result);
    results.write(reinterpret_cast<const char*>(ids.data()), result.num_top * 4);
    results.write(reinterpret_cast<const char*>(logprobs.data()), result.num_top * 4);
  }
  std::printf("ok: %d cases\n", cases);
  return 0;
}
