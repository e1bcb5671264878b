// llama.cpp itself, by its C interface: each step is one llama_decode call for all sequences. usage: llama_native MODEL.gguf THREADS
// Built by bench/prepare.sh; speaks what protocol.md says.

#include <llama.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace {

using nlohmann::json;
using Tokens = std::vector<llama_token>;
using Clock = std::chrono::steady_clock;
using Context = std::unique_ptr<llama_context, decltype(&llama_free)>;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void Fail(const std::string& problem) {
  std::cerr << "llama_native: " << problem << "\n";
  std::exit(1);
}

// Tokens of several sequences for one llama_decode call.
class Batch {
 public:
  explicit Batch(int capacity) : batch_(llama_batch_init(capacity, 0, 1)) {}
  ~Batch() { llama_batch_free(batch_); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  void Clear() { batch_.n_tokens = 0; }

  // Returns the row that the token's logits will have.
  int Add(llama_token token, int position, int sequence, bool wants_logits) {
    const int row = batch_.n_tokens++;
    batch_.token[row] = token;
    batch_.pos[row] = position;
    batch_.n_seq_id[row] = 1;
    batch_.seq_id[row][0] = sequence;
    batch_.logits[row] = wants_logits;
    return row;
  }

  void Decode(llama_context* context) {
    if (const int status = llama_decode(context, batch_); status != 0) Fail("llama_decode returned " + std::to_string(status));
  }

 private:
  llama_batch batch_;
};

Context MakeContext(llama_model* model, const std::vector<Tokens>& prompts, int max_tokens, int threads) {
  size_t longest = 0, total = 0;
  for (const Tokens& prompt : prompts) {
    longest = std::max(longest, prompt.size());
    total += prompt.size();
  }
  llama_context_params params = llama_context_default_params();
  params.n_seq_max = static_cast<uint32_t>(prompts.size());
  params.n_ctx = static_cast<uint32_t>((longest + max_tokens + 16) * prompts.size());
  params.n_batch = static_cast<uint32_t>(total);
  params.n_threads = params.n_threads_batch = threads;
  Context context(llama_init_from_model(model, params), llama_free);
  if (!context) Fail("no context of " + std::to_string(params.n_ctx) + " tokens");
  return context;
}

// In lanes, which compilers turn into vectors: one by one, the search would be 2 % of a step of 32 sequences.
llama_token MostLikely(llama_context* context, int row, int vocab_size) {
  constexpr int kLanes = 16;
  const float* logits = llama_get_logits_ith(context, row);
  float best[kLanes];
  std::fill(best, best + kLanes, logits[0]);
  int i = 0;
  for (; i + kLanes <= vocab_size; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) best[lane] = logits[i + lane] > best[lane] ? logits[i + lane] : best[lane];
  float most = *std::max_element(best, best + kLanes);
  for (; i < vocab_size; ++i) most = std::max(most, logits[i]);
  return static_cast<llama_token>(std::find(logits, logits + vocab_size, most) - logits);
}

// All prompts in one call, then a token of every sequence per call, greedy.
std::vector<Tokens> Generate(llama_context* context, int vocab_size, const std::vector<Tokens>& prompts, int max_tokens) {
  Batch batch(static_cast<int>(llama_n_batch(context)));
  std::vector<int> rows;
  for (size_t i = 0; i < prompts.size(); ++i) {
    int row = 0;
    for (size_t j = 0; j < prompts[i].size(); ++j)
      row = batch.Add(prompts[i][j], static_cast<int>(j), static_cast<int>(i), j + 1 == prompts[i].size());
    rows.push_back(row);
  }
  std::vector<Tokens> outputs(prompts.size());
  for (int n = 0;; ++n) {
    batch.Decode(context);
    for (size_t i = 0; i < prompts.size(); ++i) outputs[i].push_back(MostLikely(context, rows[i], vocab_size));
    if (n + 1 == max_tokens) return outputs;
    batch.Clear();
    for (size_t i = 0; i < prompts.size(); ++i)
      rows[i] = batch.Add(outputs[i].back(), static_cast<int>(prompts[i].size()) + n, static_cast<int>(i), true);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) Fail("expected a model and a number of threads");
  const int threads = std::stoi(argv[2]);
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  const Clock::time_point start = Clock::now();
  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) Fail(std::string("cannot load ") + argv[1]);
  const int vocab_size = llama_vocab_n_tokens(llama_model_get_vocab(model));
  const std::string version = std::string("llama.cpp ") + llama_version() + " built here";
  std::cout << json{{"ready", true}, {"version", version}, {"loadSeconds", SecondsSince(start)}} << std::endl;

  for (std::string line; std::getline(std::cin, line);) {
    const json job = json::parse(line);
    const auto prompts = job.at("prompts").get<std::vector<Tokens>>();
    const int max_tokens = job.at("maxTokens");
    const Context context = MakeContext(model, prompts, max_tokens, threads);
    const Clock::time_point began = Clock::now();
    const std::vector<Tokens> outputs = Generate(context.get(), vocab_size, prompts, max_tokens);
    std::cout << json{{"seconds", SecondsSince(began)}, {"outputs", outputs}} << std::endl;
  }
  llama_model_free(model);
  llama_backend_free();
}
