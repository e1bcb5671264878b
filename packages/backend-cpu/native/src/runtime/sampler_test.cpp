// sampler_test: what slots remember from step to step (last tokens, histories that steps bring, sampled tokens appended),
// rows tiled and threaded, and the layout of results. The sampling itself is tested against core's reference.
#include "tenon/host_sampler.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <map>

#include "thread_pool.h"

namespace tenon_cpu {
namespace {

using tenon::HostSampler;
using tenon::PlanLimits;
using tenon::ResultView;
using tenon::SampleOpParams;
using tenon::Status;
using tenon::StepField;
using tenon::StepRegion;
using tenon::StepView;

int failures = 0;

#define EXPECT(condition, ...)                         \
  do {                                                 \
    if (!(condition) && ++failures <= 20) {            \
      std::printf("%s:%d: ", __FILE_NAME__, __LINE__); \
      std::printf(__VA_ARGS__);                        \
      std::printf("\n");                               \
    }                                                  \
  } while (0)

constexpr int32_t kVocab = 8;
constexpr PlanLimits kLimits{.max_tokens = 64, .max_seqs = 40, .max_logit_rows = 64, .max_model_len = 12, .block_size = 16,
                             .num_blocks = 64, .vocab_size = kVocab};

struct Row {
  int32_t slot;
  std::vector<int32_t> history;  // empty: none is sent
  int32_t prompt_len = 0;
  int32_t mode = tenon::kRowSample | tenon::kRowGreedy;
  float repetition = 1, presence = 0;
  uint64_t seed = 0;
  int32_t num_logprobs = -1;
};

// A step of one token per row, sampled with the row's parameters. Keeps the words that its views read.
class TestStep {
 public:
  explicit TestStep(const std::vector<Row>& rows, int32_t max_top = 0) : words_(tenon::kStepHeaderWords) {
    const int32_t n = static_cast<int32_t>(rows.size());
    std::vector<int32_t> history_seqs, history_offsets{0}, history;
    for (int32_t i = 0; i < n; i++) {
      if (rows[i].history.empty()) continue;
      history_seqs.push_back(i);
      history.insert(history.end(), rows[i].history.begin(), rows[i].history.end());
      history_offsets.push_back(static_cast<int32_t>(history.size()));
    }
    Each(StepRegion::kTokenIds, rows, [](const Row&, int32_t) { return -1; });
    Each(StepRegion::kPositions, rows, [](const Row& row, int32_t) { return row.slot % 12; });
    Each(StepRegion::kSlotMapping, rows, [](const Row&, int32_t) { return -1; });
    Each(StepRegion::kSeqLens, rows, [](const Row&, int32_t) { return 1; });
    Each(StepRegion::kPromptLens, rows, [](const Row& row, int32_t) { return row.prompt_len; });
    Each(StepRegion::kSeqSlots, rows, [](const Row& row, int32_t) { return row.slot; });
    Each(StepRegion::kBlockTables, rows, [](const Row&, int32_t i) { return i; });
    for (const StepRegion region : {StepRegion::kLogitRows, StepRegion::kRowSeqs}) {
      Each(region, rows, [](const Row&, int32_t i) { return i; });
    }
    Each(StepRegion::kRowModes, rows, [](const Row& row, int32_t) { return row.mode; });
    Each(StepRegion::kTargets, rows, [](const Row&, int32_t) { return 3; });
    Each(StepRegion::kNumLogprobs, rows, [](const Row& row, int32_t) { return row.num_logprobs; });
    Each(StepRegion::kSeedLow, rows, [](const Row& row, int32_t) { return static_cast<int32_t>(row.seed); });
    Each(StepRegion::kSeedHigh, rows, [](const Row& row, int32_t) { return static_cast<int32_t>(row.seed >> 32); });
    Each(StepRegion::kTemperature, rows, [](const Row&, int32_t) { return Bits(1); });
    Each(StepRegion::kTopK, rows, [](const Row&, int32_t) { return 0; });
    Each(StepRegion::kTopP, rows, [](const Row&, int32_t) { return Bits(1); });
    Each(StepRegion::kMinP, rows, [](const Row&, int32_t) { return 0; });
    Each(StepRegion::kPresencePenalty, rows, [](const Row& row, int32_t) { return Bits(row.presence); });
    Each(StepRegion::kFrequencyPenalty, rows, [](const Row&, int32_t) { return 0; });
    Each(StepRegion::kRepetitionPenalty, rows, [](const Row& row, int32_t) { return Bits(row.repetition); });
    std::vector<int32_t> cu_seqlens_q;
    for (int32_t i = 0; i <= n; i++) cu_seqlens_q.push_back(i);
    Add(StepRegion::kCuSeqlensQ, cu_seqlens_q);
    Add(StepRegion::kHistorySeqs, history_seqs);
    Add(StepRegion::kHistoryOffsets, history_offsets);
    Add(StepRegion::kHistoryTokens, history);
    WriteHeader(n, max_top, static_cast<int32_t>(history_seqs.size()));
    result_words_.assign(tenon::kResultHeaderWords + n * (3 + 2 * max_top), 12345);
    Status status = StepView::Parse(words_.data(), words_.size(), kLimits, &step);
    if (status.ok()) status = ResultView::Parse(result_words_.data(), result_words_.size(), step, 0, &result);
    EXPECT(status.ok(), "%s", status.message().c_str());
  }

  // Samples all rows from `logits` [rows, kVocab], `tile` rows at a time.
  void Run(HostSampler& sampler, ThreadPool& threads, const std::vector<float>& logits, int32_t tile) {
    sampler.BeginStep(step);
    for (int32_t first = 0; first < step.num_logit_rows; first += tile) {
      const SampleOpParams params{.logits = logits.data() + first * kVocab,
                                  .logits_dtype = tenon::Dtype::kF32,
                                  .vocab = kVocab,
                                  .first_row = first,
                                  .num_rows = std::min(tile, step.num_logit_rows - first),
                                  .step = &step,
                                  .result = &result};
      const Status status = sampler.Sample(
          params, [&](int64_t num_rows, const auto& fn) { threads.ParallelFor(num_rows, fn); });
      EXPECT(status.ok(), "%s", status.message().c_str());
    }
  }

  StepView step;
  ResultView result;

 private:
  static int32_t Bits(float value) { return std::bit_cast<int32_t>(value); }

  template <class Value>
  void Each(StepRegion region, const std::vector<Row>& rows, Value value) {
    std::vector<int32_t> values;
    for (size_t i = 0; i < rows.size(); i++) values.push_back(value(rows[i], static_cast<int32_t>(i)));
    Add(region, values);
  }

  void Add(StepRegion region, const std::vector<int32_t>& values) {
    words_[tenon::kStepHeaderFields + static_cast<int>(region)] = static_cast<int32_t>(words_.size());
    words_.insert(words_.end(), values.begin(), values.end());
  }

  void WriteHeader(int32_t n, int32_t max_top, int32_t num_history_seqs) {
    const std::map<StepField, int32_t> fields = {
        {StepField::kMagic, tenon::kStepMagic}, {StepField::kVersion, tenon::kStepVersion}, {StepField::kNumTokens, n},
        {StepField::kNumSeqs, n}, {StepField::kNumLogitRows, n}, {StepField::kBlockTableStride, 1},
        {StepField::kMaxTopLogprobs, max_top}, {StepField::kNumHistorySeqs, num_history_seqs},
        {StepField::kSizeWords, static_cast<int32_t>(words_.size())}};
    for (const auto& [field, value] : fields) words_[static_cast<int>(field)] = value;
  }

  std::vector<int32_t> words_;
  std::vector<int32_t> result_words_;
};

// Token 5 is the most likely, then 6, 7, 4.
const std::vector<float> kLogits = {0, 0, 0, 0, 1, 4, 3, 2};

int32_t SampleOne(HostSampler& sampler, ThreadPool& threads, const Row& row) {
  TestStep step({row});
  step.Run(sampler, threads, kLogits, 1);
  EXPECT(sampler.last_token(row.slot) == step.result.tokens[0], "last token of slot %d", row.slot);
  return step.result.tokens[0];
}

// A presence penalty of 10 drives every token out once it was sampled, but not for being in the prompt.
void TestHistoryGrowsWithSampledTokens(ThreadPool& threads) {
  HostSampler sampler(kLimits, threads.size());
  Row row{.slot = 2, .history = {5, 1}, .prompt_len = 2, .presence = 10};
  const int32_t first = SampleOne(sampler, threads, row);
  row.history.clear();
  const int32_t second = SampleOne(sampler, threads, row), third = SampleOne(sampler, threads, row);
  EXPECT(first == 5 && second == 6 && third == 7, "sampled %d %d %d, expected 5 6 7", first, second, third);

  // Another slot remembers nothing of it; a history sent anew replaces the old one.
  EXPECT(SampleOne(sampler, threads, {.slot = 3, .presence = 10}) == 5, "slot 3 shares slot 2's history");
  row.history = {1, 1, 5, 6, 7};
  EXPECT(SampleOne(sampler, threads, row) == 4, "the output part of a resumed history is not penalized");
  row.history = {1, 2};
  EXPECT(SampleOne(sampler, threads, row) == 5, "the old history is still there");
}

void TestPromptIsPenalizedForRepetition(ThreadPool& threads) {
  HostSampler sampler(kLimits, threads.size());
  Row row{.slot = 0, .history = {5, 6}, .prompt_len = 2, .repetition = 4};
  EXPECT(SampleOne(sampler, threads, row) == 7, "the prompt is not penalized");
  row.history.clear();
  EXPECT(SampleOne(sampler, threads, row) == 4, "sampled %d after 7", sampler.last_token(0));
}

void TestHistoryEndsAtMaxModelLen(ThreadPool& threads) {
  HostSampler sampler(kLimits, threads.size());
  Row row{.slot = 39, .history = std::vector<int32_t>(11, 1), .prompt_len = 11, .presence = 10};
  for (const int32_t expected : {5, 6, 6}) {  // the second one is no longer remembered
    EXPECT(SampleOne(sampler, threads, row) == expected, "sampled %d, expected %d", sampler.last_token(39), expected);
    row.history.clear();
  }
}

void TestRowsDoNotDependOnTilesOrThreads() {
  std::vector<Row> rows;
  std::vector<float> logits;
  for (int32_t i = 0; i < 40; i++) {
    rows.push_back({.slot = 39 - i, .mode = tenon::kRowSample, .seed = uint64_t{1000003} * i});
    logits.insert(logits.end(), kLogits.begin(), kLogits.end());
  }
  std::vector<int32_t> expected;
  for (const int num_threads : {1, 2, 3}) {
    for (const int32_t tile : {40, 7, 1}) {
      ThreadPool threads(num_threads);
      HostSampler sampler(kLimits, num_threads);
      TestStep step(rows);
      step.Run(sampler, threads, logits, tile);
      const std::vector<int32_t> tokens(step.result.tokens, step.result.tokens + 40);
      if (expected.empty()) expected = tokens;
      EXPECT(tokens == expected, "%d threads, tiles of %d: other tokens", num_threads, tile);
      for (int32_t i = 0; i < 40; i++) EXPECT(sampler.last_token(39 - i) == tokens[i], "last token of row %d", i);
    }
  }
  EXPECT(std::count(expected.begin(), expected.end(), expected[0]) < 40, "all rows sampled %d", expected[0]);
}

void TestResultLayout(ThreadPool& threads) {
  HostSampler sampler(kLimits, threads.size());
  std::vector<Row> rows(3);
  rows[0].num_logprobs = 3;
  rows[1].mode = tenon::kRowTarget;
  rows[1].num_logprobs = 1;
  for (int32_t i = 0; i < 3; i++) rows[i].slot = i;
  TestStep step(rows, 3);
  std::vector<float> logits;
  for (int i = 0; i < 3; i++) logits.insert(logits.end(), kLogits.begin(), kLogits.end());
  step.Run(sampler, threads, logits, 3);
  const ResultView& result = step.result;
  const std::vector<int32_t> tokens(result.tokens, result.tokens + 3), ranks(result.ranks, result.ranks + 3);
  const std::vector<int32_t> top_ids(result.top_ids, result.top_ids + 9);
  EXPECT((tokens == std::vector<int32_t>{5, -1, 5}), "tokens %d %d %d", tokens[0], tokens[1], tokens[2]);
  EXPECT((ranks == std::vector<int32_t>{1, 5, 0}), "ranks %d %d %d", ranks[0], ranks[1], ranks[2]);
  EXPECT((top_ids == std::vector<int32_t>{5, 6, 7, 5, -1, -1, -1, -1, -1}), "top ids %d %d %d ...", top_ids[0], top_ids[1], top_ids[2]);
  EXPECT(result.logprobs[0] == result.top_logprobs[0] && result.logprobs[0] < 0 && result.logprobs[2] == 0, "logprobs");
  EXPECT(result.top_logprobs[8] == -1, "padding %f", result.top_logprobs[8]);
  EXPECT(sampler.last_token(1) == 0, "a row that does not sample changed its slot");
}

}  // namespace
}  // namespace tenon_cpu

int main() {
  using namespace tenon_cpu;
  ThreadPool threads(2);
  TestHistoryGrowsWithSampledTokens(threads);
  TestPromptIsPenalizedForRepetition(threads);
  TestHistoryEndsAtMaxModelLen(threads);
  TestRowsDoNotDependOnTilesOrThreads();
  TestResultLayout(threads);
  if (failures > 0) return std::printf("%d failures\n", failures), 1;
  std::printf("ok\n");
  return 0;
}
