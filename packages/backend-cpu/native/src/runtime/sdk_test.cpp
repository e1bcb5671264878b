// sdk_test: the SDK's readers and executor, with a session that reads and writes all the memory its ops are given. Built
// with AddressSanitizer: whatever a plan or step says, it ends as a Status or stays within bounds.
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "touching_session.h"

namespace tenon {
namespace {

int failures = 0;

#define EXPECT(condition, ...)                      \
  do {                                              \
    if (!(condition) && ++failures <= 20) {         \
      std::printf("%s:%d: ", __FILE__, __LINE__);   \
      std::printf(__VA_ARGS__);                     \
      std::printf("\n");                            \
    }                                               \
  } while (false)

// Room for three rows with two top logprobs, and 8 tokens of the embedding.
constexpr size_t kResultWords = kResultHeaderWords + 3 * 7 + 8 * kHidden;

void ExpectError(const Status& status, StatusCode code, const char* text) {
  EXPECT(status.code() == code && status.message().find(text) != std::string::npos, "got %s '%s', wanted %s '%s'",
         StatusCodeName(status.code()), status.message().c_str(), StatusCodeName(code), text);
}

void TestExecution() {
  TestGroup group;
  std::unique_ptr<Executor> executor;
  const Status loaded = Load(MakePlan(), group, &executor);
  EXPECT(loaded.ok(), "load: %s", loaded.message().c_str());
  if (!loaded.ok()) return;
  group.session->calls.clear();
  const std::vector<int32_t> step = MakeStep();
  std::vector<int32_t> result(kResultWords, -7);
  const Status ran = executor->Run(step.data(), step.size(), result.data(), result.size());
  EXPECT(ran.ok(), "run: %s", ran.message().c_str());
  const std::vector<std::string> wanted = {
      "embedding 8", "rms_norm 8", "rope_cos_sin 8", "linear 8", "qkv_rope_kv_write 8", "rope 8", "kv_write 8",
      "attention 8", "linear 8", "linear_gated 8", "gated_act 48", "add 64",
      "gather_rows 2", "linear 2", "sample 0 2", "gather_rows 1", "linear 1", "sample 2 1"};
  EXPECT(group.session->calls == wanted, "%zu calls, wanted %zu", group.session->calls.size(), wanted.size());
  EXPECT(result[0] == 77 && result[1] == 0 && result[2] == 3 && result[3] == 2, "header");
  EXPECT(result[8] == 0 && result[9] == 1 && result[10] == 2, "tokens of tiles");
  EXPECT(result[kResultWords - 1] == 0x01010101, "the embedding is an output");
  ExpectError(executor->Run(step.data(), step.size(), result.data(), kResultWords - 1), StatusCode::kStepFailed, "outputs");
  ExpectError(executor->Run(step.data(), step.size(), result.data(), 20), StatusCode::kStepFailed, "result has 20 words");
}

void TestBadPlans() {
  const auto with = [](size_t index, int32_t word) {
    TestPlan plan = MakePlan();
    plan.words[index] = word;
    return plan;
  };
  const auto load = [](const TestPlan& plan) {
    TestGroup group;
    std::unique_ptr<Executor> executor;
    return Load(plan, group, &executor);
  };
  ExpectError(load(with(0, 1)), StatusCode::kLoadFailed, "not a plan");
  ExpectError(load(with(1, 99)), StatusCode::kLoadFailed, "version 99");
  ExpectError(load(with(3, INT32_MAX)), StatusCode::kLoadFailed, "tensors");
  ExpectError(load(with(4, INT32_MIN)), StatusCode::kLoadFailed, "segment 0: ops");
  ExpectError(load(with(7, 8)), StatusCode::kLoadFailed, "of a workspace of 8");
  ExpectError(load(with(7, MakePlan().words[7] - 4)), StatusCode::kLoadFailed, "does not fit the workspace");
  TestPlan plan = MakePlan();
  const size_t first_op = plan.words.size() - 1;
  plan.words.push_back(0);
  ExpectError(load(plan), StatusCode::kLoadFailed, "too many");
  plan.words.resize(first_op);
  ExpectError(load(plan), StatusCode::kLoadFailed, "ends within op");
  plan = MakePlan();
  plan.weights.pop_back();
  ExpectError(load(plan), StatusCode::kLoadFailed, "weights");
  plan = MakePlan();
  plan.weights[1].shape[0]--;
  ExpectError(load(plan), StatusCode::kLoadFailed, "embed");
  for (size_t size = 0; size < MakePlan().words.size(); ++size) {
    plan = MakePlan();
    plan.words.resize(size);
    EXPECT(!load(plan).ok(), "a plan cut to %zu words was accepted", size);
  }
  plan = MakePlan();
  // sample@1 is the last op: 10, 1, 1 input, 1 output, 0 attributes, logits, tokens.
  plan.words[plan.words.size() - 6] = 2;
  ExpectError(load(plan), StatusCode::kUnsupportedOp, "sample@2");
  // A buffer that no op uses, far beyond the workspace.
  plan = MakePlan();
  plan.words[3]++;
  const int32_t unused[] = {static_cast<int32_t>(TensorKind::kBuffer), 0, 1, 1, 1, 1, 0, INT32_MIN / 2, 0};
  plan.words.insert(plan.words.begin() + kPlanHeaderWords, std::begin(unused), std::end(unused));
  ExpectError(load(plan), StatusCode::kLoadFailed, "tensor 0: at byte");
}

void TestBadSteps() {
  TestGroup group;
  std::unique_ptr<Executor> executor;
  if (!Load(MakePlan(), group, &executor).ok()) return;
  std::vector<int32_t> result(kResultWords);
  const auto run = [&](const std::vector<int32_t>& step) {
    // A copy of the exact size, so that the sanitizer sees a read beyond it.
    const std::unique_ptr<int32_t[]> words(new int32_t[step.size()]);
    std::copy(step.begin(), step.end(), words.get());
    return executor->Run(words.get(), step.size(), result.data(), result.size());
  };
  struct Case {
    StepRegion region;
    size_t index;
    int32_t value;
    const char* text;
  };
  const Case cases[] = {
      {StepRegion::kTokenIds, 0, kVocab, "tokenIds[0]"},     {StepRegion::kTokenIds, 1, -2, "tokenIds[1]"},
      {StepRegion::kPositions, 0, kMaxLen, "positions[0]"},  {StepRegion::kSlotMapping, 2, kBlockSize * kNumBlocks, "slotMapping[2]"},
      {StepRegion::kCuSeqlensQ, 0, 1, "cuSeqlensQ[0]"},      {StepRegion::kCuSeqlensQ, 2, 9, "cuSeqlensQ[2]"},
      {StepRegion::kCuSeqlensQ, 1, 8, "seqLens[0]"},         {StepRegion::kSeqLens, 0, 5, "seqLens[0]"},
      {StepRegion::kSeqLens, 1, kMaxLen + 1, "seqLens[1]"},  {StepRegion::kSeqLens, 1, 13, "blockTableStride"},
      {StepRegion::kBlockTables, 1, kNumBlocks, "blockTables[1]"}, {StepRegion::kSeqSlots, 0, kMaxSeqs, "seqSlots[0]"},
      {StepRegion::kLogitRows, 0, 8, "logitRows[0]"},        {StepRegion::kRowSeqs, 0, 2, "rowSeqs[0]"},
      {StepRegion::kTargets, 1, -1, "targets[1]"},           {StepRegion::kNumLogprobs, 0, 3, "numLogprobs[0]"},
      {StepRegion::kSuppressOffsets, 1, 3, "suppressOffsets[2]"}, {StepRegion::kSuppressTokens, 0, kVocab, "suppress[0]"},
      {StepRegion::kBadWords, 0, 6, "badWords"},             {StepRegion::kBadWords, 0, 0, "badWords"},
      {StepRegion::kHistorySeqs, 0, 2, "historySeqs[0]"},    {StepRegion::kHistoryOffsets, 1, 1 << 30, "region"},
  };
  for (const Case& c : cases) {
    std::vector<int32_t> step = MakeStep();
    WordOf(step, c.region, c.index) = c.value;
    ExpectError(run(step), StatusCode::kStepFailed, c.text);
  }
  ExpectError(run(MakeStep(4)), StatusCode::kStepFailed, "result");
  ExpectError(run(MakeStep(6)), StatusCode::kStepFailed, "numLogitRows");
  for (size_t size = 0; size < MakeStep().size(); ++size) {
    std::vector<int32_t> step = MakeStep();
    step.resize(size);
    EXPECT(!run(step).ok(), "a step cut to %zu words was accepted", size);
  }
  EXPECT(run(MakeStep()).ok(), "a good step after bad ones");
}

// Random words in random places: anything but a bad access.
void TestMutations() {
  std::mt19937 random(1);
  const auto mutate = [&](std::vector<int32_t>& words, size_t from) {
    static constexpr int32_t kValues[] = {0, 1, -1, 2, -2, -3, 7, 64, 1 << 20, INT32_MAX, INT32_MIN};
    for (uint32_t count = random() % 3 + 1; count > 0; --count)
      words[from + random() % (words.size() - from)] = kValues[random() % std::size(kValues)];
  };
  int plans_run = 0, steps_run = 0;
  for (int i = 0; i < 4000; ++i) {
    TestPlan plan = MakePlan();
    mutate(plan.words, 7);
    TestGroup group;
    std::unique_ptr<Executor> executor;
    if (!Load(plan, group, &executor).ok()) continue;
    std::vector<int32_t> result(kResultWords);
    const std::vector<int32_t> step = MakeStep();
    if (executor->Run(step.data(), step.size(), result.data(), result.size()).ok()) plans_run++;
  }
  TestGroup group;
  std::unique_ptr<Executor> executor;
  if (!Load(MakePlan(), group, &executor).ok()) return;
  for (int i = 0; i < 20000; ++i) {
    std::vector<int32_t> step = MakeStep();
    mutate(step, 3);
    const std::unique_ptr<int32_t[]> words(new int32_t[step.size()]), result(new int32_t[kResultWords]);
    std::copy(step.begin(), step.end(), words.get());
    if (executor->Run(words.get(), step.size(), result.get(), kResultWords).ok()) steps_run++;
  }
  EXPECT(plans_run > 100 && steps_run > 100, "%d plans and %d steps survived: mutations are too wild", plans_run, steps_run);
  std::printf("%d mutated plans and %d mutated steps ran\n", plans_run, steps_run);
}

}  // namespace
}  // namespace tenon

int main() {
  tenon::TestExecution();
  tenon::TestBadPlans();
  tenon::TestBadSteps();
  tenon::TestMutations();
  if (tenon::failures > 0) return std::printf("%d failures\n", tenon::failures), 1;
  std::printf("ok\n");
  return 0;
}
