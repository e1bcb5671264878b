// Any words as a step of a plan with every op, and any size of the result, by a session that touches all memory.
#include "touching_session.h"
#include "word_mutator.h"

using namespace tenon;

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  static const std::vector<int32_t> first = MakeStep();
  return MutateWords(data, size, max_size, seed, first);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static TestGroup group;
  static const std::unique_ptr<Executor> executor = [] {
    std::unique_ptr<Executor> made;
    if (!Load(MakePlan(), group, &made).ok()) __builtin_trap();
    return made;
  }();
  // Copies of the exact sizes, so that the sanitizer sees an access beyond them.
  const std::vector<int32_t> words = WordsOf(data, size);
  const std::unique_ptr<int32_t[]> step(new int32_t[words.size()]);
  std::copy(words.begin(), words.end(), step.get());
  const size_t result_words = 16 + (size % 2 == 0 ? 512 : size % 97);
  const std::unique_ptr<int32_t[]> result(new int32_t[result_words]);
  const Status status = executor->Run(step.get(), words.size(), result.get(), result_words);
  group.session->calls.clear();
  return status.message().size() > 512 ? -1 : 0;
}
