// Any words as a plan: parsed, checked, loaded and run, by a session that touches all memory that its ops are given.
#include "touching_session.h"
#include "word_mutator.h"

using namespace tenon;

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  static const std::vector<int32_t> first = MakePlan().words;
  return MutateWords(data, size, max_size, seed, first);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const TestPlan good = MakePlan();
  static const std::vector<int32_t> step = MakeStep();
  TestGroup group;
  std::unique_ptr<Executor> executor;
  if (!Load({WordsOf(data, size), good.weights}, group, &executor).ok()) return 0;
  std::vector<int32_t> result(4096);
  const Status status = executor->Run(step.data(), step.size(), result.data(), result.size());
  return status.message().size() > 512 ? -1 : 0;
}
