// Sampling: checked against a port of core's src/program/reference/sample.ts, then timed. sample_bench [check|time|tiny]; tiny: a short check, for sanitizers
//   nvcc -std=c++20 -O3 --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a -I../kernels sample_bench.cu ../kernels/sample.cu -o sample_bench
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>

#include "bench.cuh"

namespace tenon_cuda {
namespace {

constexpr int kSample = 1, kGreedy = 2, kTarget = 4, kProcessed = 8;
constexpr float kInfinity = INFINITY;

struct RowCase {
  int mode = kSample;
  uint64_t seed = 1;
  int position = 0;
  float temperature = 1;
  int top_k = 0;
  float top_p = 1, min_p = 0, presence = 0, frequency = 0, repetition = 1;
  std::vector<int32_t> suppress, allowed, bias, bad_words, prompt, output;
  std::vector<float> bias_values;
  int target = 0, num_logprobs = -1;
};
struct RowAnswer {
  int token = -1, rank = 0;
  float logprob = 0;
  std::vector<int> top_ids;
  std::vector<float> top_logprobs;
};

uint64_t MixBits(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// ---- the reference ----

int Argmax(const std::vector<float>& x) { return static_cast<int>(std::max_element(x.begin(), x.end()) - x.begin()); }
std::vector<int> Descending(const std::vector<float>& x) {
  std::vector<int> ids(x.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return x[a] > x[b]; });
  return ids;
}
void Edit(std::vector<float>& l, const RowCase& row) {
  const int vocab = static_cast<int>(l.size());
  if (!row.allowed.empty()) {
    const std::set<int> allowed(row.allowed.begin(), row.allowed.end());
    for (int i = 0; i < vocab; ++i)
      if (allowed.count(i) == 0) l[i] = -kInfinity;
  }
  for (const int token : row.suppress) l[token] = -kInfinity;
  for (size_t at = 0; at < row.bad_words.size(); at += row.bad_words[at] + 1) {
    const int length = row.bad_words[at], begin = static_cast<int>(row.output.size()) - (length - 1);
    bool ends = begin >= 0;
    for (int i = 0; ends && i < length - 1; ++i) ends = row.output[begin + i] == row.bad_words[at + 1 + i];
    if (ends) l[row.bad_words[at + length]] = -kInfinity;
  }
  for (size_t i = 0; i < row.bias.size(); ++i) l[row.bias[i]] += row.bias_values[i];
  std::map<int, int> counts;
  std::set<int> seen(row.prompt.begin(), row.prompt.end());
  for (const int token : row.output) ++counts[token], seen.insert(token);
  if (row.repetition != 1)
    for (const int token : seen) l[token] = l[token] > 0 ? l[token] / row.repetition : l[token] * row.repetition;
  for (const auto& [token, count] : counts) {
    l[token] -= row.frequency * static_cast<float>(count);
    l[token] -= row.presence;
  }
}
void Keep(std::vector<float>& x, const RowCase& row) {
  const float max = x[Argmax(x)];
  if (!std::isfinite(max)) return;
  const auto weight = [&](int i) { return std::exp(static_cast<double>(x[i]) - max); };
  if (row.min_p > 0)
    for (size_t i = 0; i < x.size(); ++i)
      if (weight(static_cast<int>(i)) < row.min_p) x[i] = -kInfinity;
  std::vector<int> kept;
  for (const int i : Descending(x))
    if (x[i] > -kInfinity) kept.push_back(i);
  if (row.top_k > 0 && row.top_k < static_cast<int>(kept.size())) {
    const float threshold = x[kept[row.top_k - 1]];
    while (x[kept.back()] < threshold) x[kept.back()] = -kInfinity, kept.pop_back();
  }
  if (row.top_p < 1) {
    double total = 0, sum = 0;
    for (const int i : kept) total += weight(i);
    size_t n = 0;
    while (n < kept.size()) {
      sum += weight(kept[n++]);
      if (sum >= row.top_p * total) break;
    }
    for (; n < kept.size(); ++n) x[kept[n]] = -kInfinity;
  }
}
int Pick(const std::vector<float>& x, double u) {
  const float max = x[Argmax(x)];
  if (!std::isfinite(max)) return Argmax(x);
  double total = 0, sum = 0;
  for (const float v : x) total += std::exp(static_cast<double>(v) - max);
  int last = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == -kInfinity) continue;
    last = static_cast<int>(i);
    sum += std::exp(static_cast<double>(x[i]) - max);
    if (sum > u * total) return last;
  }
  return last;
}
RowAnswer Reference(const std::vector<float>& logits, const RowCase& row) {
  std::vector<float> raw = logits;
  for (float& v : raw) v = std::isnan(v) ? -kInfinity : v;
  std::vector<float> processed = raw;
  RowAnswer answer;
  const bool samples = row.mode & kSample, processes = row.mode & kProcessed;
  if (samples || processes) {
    Edit(processed, row);
    if (row.mode & kGreedy) {
      if (samples) answer.token = Argmax(processed);
    } else {
      for (float& v : processed) v /= row.temperature;
      Keep(processed, row);
      const uint64_t z = MixBits(MixBits(row.seed + static_cast<uint64_t>(row.position + 1) * 0x9e3779b97f4a7c15ull));
      if (samples) answer.token = Pick(processed, static_cast<double>(z >> 11) / 9007199254740992.0);
    }
  }
  if (row.num_logprobs < 0) return answer;
  const std::vector<float>& values = processes ? processed : raw;
  const int subject = row.mode & kTarget ? row.target : answer.token;
  const float max = values[Argmax(values)];
  double sum = 0;
  for (const float v : values) sum += std::exp(static_cast<double>(v) - max);
  const auto logprob = [&](float v) -> float {
    if (!std::isfinite(max)) return v == kInfinity ? 0 : -kInfinity;
    return static_cast<float>(static_cast<double>(v) - max - std::log(sum));
  };
  if (subject >= 0) {
    answer.logprob = logprob(values[subject]);
    answer.rank = 1 + static_cast<int>(std::count_if(values.begin(), values.end(), [&](float v) { return v > values[subject]; }));
  }
  if (row.num_logprobs == 0) return answer;
  answer.top_ids = Descending(values);
  answer.top_ids.resize(std::min<size_t>(row.num_logprobs, values.size()));
  for (const int i : answer.top_ids) answer.top_logprobs.push_back(logprob(values[i]));
  return answer;
}

// ---- the device ----

constexpr int kModelLen = 512;
struct Csr {
  std::vector<int32_t> offsets{0}, values;
  void Add(const std::vector<int32_t>& list) {
    values.insert(values.end(), list.begin(), list.end());
    offsets.push_back(static_cast<int32_t>(values.size()));
  }
};

class Step {
 public:
  Step(const std::vector<std::vector<float>>& logits, const std::vector<RowCase>& rows, int max_top) : rows_(rows), vocab_(static_cast<int64_t>(logits[0].size())), top_(max_top) {
    std::vector<float> all;
    for (const auto& row : logits) all.insert(all.end(), row.begin(), row.end());
    logits_ = std::make_unique<Device<float>>(all);
    const size_t n = rows.size();
    scratch_ = std::make_unique<Device<uint8_t>>(SampleScratchBytes(static_cast<int64_t>(n), vocab_));
    scratch_->Fill(0xff);
    std::vector<int32_t> order(n), history(n * kModelLen, 0), lengths, prompts;
    std::iota(order.begin(), order.end(), 0);
    Csr suppress, allowed, bias, bad;
    std::vector<float> bias_values;
    const auto ints = [&](auto get) {
      std::vector<int32_t> values;
      for (const RowCase& row : rows) values.push_back(static_cast<int32_t>(get(row)));
      return Ints(values);
    };
    const auto floats = [&](auto get) {
      std::vector<float> values;
      for (const RowCase& row : rows) values.push_back(get(row));
      floats_.push_back(std::make_unique<Device<float>>(values));
      return floats_.back()->get();
    };
    for (size_t r = 0; r < n; ++r) {
      const RowCase& row = rows[r];
      suppress.Add(row.suppress);
      allowed.Add(row.allowed);
      bias.Add(row.bias);
      bad.Add(row.bad_words);
      bias_values.insert(bias_values.end(), row.bias_values.begin(), row.bias_values.end());
      std::copy(row.prompt.begin(), row.prompt.end(), history.begin() + r * kModelLen);
      std::copy(row.output.begin(), row.output.end(), history.begin() + r * kModelLen + row.prompt.size());
      lengths.push_back(static_cast<int32_t>(row.prompt.size() + row.output.size()));
      prompts.push_back(static_cast<int32_t>(row.prompt.size()));
    }
    floats_.push_back(std::make_unique<Device<float>>(bias_values));
    const float* d_bias_values = floats_.back()->get();
    history_ = std::make_unique<Device<int32_t>>(history);
    lengths_ = std::make_unique<Device<int32_t>>(lengths);
    last_ = std::make_unique<Device<int32_t>>(n);
    tokens_ = std::make_unique<Device<int32_t>>(n);
    ranks_ = std::make_unique<Device<int32_t>>(n);
    logprobs_ = std::make_unique<Device<float>>(n);
    top_ids_ = std::make_unique<Device<int32_t>>(n * max_top);
    top_logprobs_ = std::make_unique<Device<float>>(n * max_top);
    const int32_t* d_order = Ints(order);
    const auto list = [&](const Csr& csr) { return std::pair{csr.values.empty() ? nullptr : Ints(csr.offsets), csr.values.empty() ? nullptr : Ints(csr.values)}; };
    const auto [so, st] = list(suppress);
    const auto [ao, at] = list(allowed);
    const auto [bo, bt] = list(bias);
    const auto [wo, wt] = list(bad);
    const auto any = [&](auto&& is) { return std::any_of(rows_.begin(), rows_.end(), is); };
    params_ = {.logits = logits_->get(),
               .vocab = vocab_,
               .first_row = 0,
               .num_rows = static_cast<int64_t>(n),
               .step = {.positions = ints([](const RowCase& r) { return r.position; }),
                        .seq_slots = d_order,
                        .logit_rows = d_order,
                        .row_seqs = d_order,
                        .row_modes = ints([](const RowCase& r) { return r.mode; }),
                        .targets = ints([](const RowCase& r) { return r.target; }),
                        .num_logprobs = ints([](const RowCase& r) { return r.num_logprobs; }),
                        .seed_low = ints([](const RowCase& r) { return static_cast<uint32_t>(r.seed); }),
                        .seed_high = ints([](const RowCase& r) { return static_cast<uint32_t>(r.seed >> 32); }),
                        .top_k = ints([](const RowCase& r) { return r.top_k; }),
                        .temperature = floats([](const RowCase& r) { return r.temperature; }),
                        .top_p = floats([](const RowCase& r) { return r.top_p; }),
                        .min_p = floats([](const RowCase& r) { return r.min_p; }),
                        .presence_penalty = floats([](const RowCase& r) { return r.presence; }),
                        .frequency_penalty = floats([](const RowCase& r) { return r.frequency; }),
                        .repetition_penalty = floats([](const RowCase& r) { return r.repetition; }),
                        .bias_values = d_bias_values,
                        .suppress_offsets = so,
                        .suppress_tokens = st,
                        .allowed_offsets = ao,
                        .allowed_tokens = at,
                        .bias_offsets = bo,
                        .bias_tokens = bt,
                        .bad_words_offsets = wo,
                        .bad_words = wt,
                        .max_top_logprobs = max_top,
                        .tokens = tokens_->get(),
                        .ranks = ranks_->get(),
                        .top_ids = top_ids_->get(),
                        .logprobs = logprobs_->get(),
                        .top_logprobs = top_logprobs_->get(),
                        .any_random = any([](const RowCase& r) { return (r.mode & kSample) != 0 && (r.mode & kGreedy) == 0; }),
                        .any_limits = any([&](const RowCase& r) { return (r.top_k > 0 && r.top_k < vocab_) || r.top_p < 1 || r.min_p > 0; }),
                        .any_logprobs = any([](const RowCase& r) { return r.num_logprobs >= 0; }),
                        .any_edits = so != nullptr || ao != nullptr || bo != nullptr || wo != nullptr ||
                                     any([](const RowCase& r) { return r.presence != 0 || r.frequency != 0 || r.repetition != 1; })},
               .state = {last_->get(), history_->get(), lengths_->get(), const_cast<int32_t*>(Ints(prompts)), kModelLen},
               .scratch = scratch_->get()};
  }
  const SampleParams& params() const { return params_; }
  // As if some row of the step wanted everything.
  void SetAnything() { params_.step.any_random = params_.step.any_limits = params_.step.any_logprobs = params_.step.any_edits = true; }

  // Number of rows that differ from the reference.
  int Check(const char* name, const std::vector<std::vector<float>>& logits) {
    for (auto* out : {tokens_.get(), ranks_.get(), top_ids_.get(), last_.get()}) out->Fill(0x77);
    tenon_cuda::Check(Sample(params_, nullptr), name);
    tenon_cuda::Check(cudaDeviceSynchronize(), name);
    const auto tokens = tokens_->Host(), ranks = ranks_->Host(), ids = top_ids_->Host(), last = last_->Host(), lengths = lengths_->Host();
    const auto logprobs = logprobs_->Host(), tops = top_logprobs_->Host();
    const auto close = [](float a, float b) { return a == b || std::fabs(a - b) <= 2e-5f + 1e-6f * std::fabs(b); };
    int bad = 0;
    for (size_t r = 0; r < rows_.size(); ++r) {
      const RowAnswer want = Reference(logits[r], rows_[r]);
      bool good = tokens[r] == want.token && ranks[r] == want.rank && close(logprobs[r], want.logprob);
      for (int k = 0; k < top_; ++k) {
        const bool listed = k < static_cast<int>(want.top_ids.size());
        good &= ids[r * top_ + k] == (listed ? want.top_ids[k] : -1) && close(tops[r * top_ + k], listed ? want.top_logprobs[k] : -1);
      }
      if (rows_[r].mode & kSample) {
        const int before = static_cast<int>(rows_[r].prompt.size() + rows_[r].output.size());
        good &= last[r] == want.token && lengths[r] == (before > 0 ? before + 1 : 0);
      }
      if (good) continue;
      if (++bad <= 3)
        std::printf("FAILED %s row %zu mode %d T %g k %d p %g min %g: token %d (%d) rank %d (%d) logprob %g (%g)\n", name, r, rows_[r].mode, rows_[r].temperature,
                    rows_[r].top_k, rows_[r].top_p, rows_[r].min_p, tokens[r], want.token, ranks[r], want.rank, logprobs[r], want.logprob);
      for (int k = 0; bad <= 3 && k < static_cast<int>(want.top_ids.size()); ++k)
        if (ids[r * top_ + k] != want.top_ids[k]) {
          std::printf("  first wrong entry %d: %d (%d) %g (%g)\n", k, ids[r * top_ + k], want.top_ids[k], tops[r * top_ + k], want.top_logprobs[k]);
          break;
        }
    }
    return bad;
  }

 private:
  const int32_t* Ints(const std::vector<int32_t>& values) {
    ints_.push_back(std::make_unique<Device<int32_t>>(values));
    return ints_.back()->get();
  }
  std::vector<RowCase> rows_;
  int64_t vocab_;
  int top_;
  std::unique_ptr<Device<float>> logits_, logprobs_, top_logprobs_;
  std::unique_ptr<Device<int32_t>> history_, lengths_, last_, tokens_, ranks_, top_ids_;
  std::unique_ptr<Device<uint8_t>> scratch_;
  std::vector<std::unique_ptr<Device<int32_t>>> ints_;
  std::vector<std::unique_ptr<Device<float>>> floats_;
  SampleParams params_{};
};

int failures = 0;

std::vector<float> Logits(int64_t vocab, float scale, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> x(static_cast<size_t>(vocab));
  for (float& v : x) v = normal(random);
  return x;
}

void CheckVocab(int vocab, int num_rows) {
  std::mt19937 random(static_cast<uint32_t>(vocab));
  std::vector<std::vector<float>> logits;
  std::vector<RowCase> rows;
  const auto token = [&] { return static_cast<int32_t>(random() % vocab); };
  for (int r = 0; r < num_rows; ++r) {
    std::vector<float> x = Logits(vocab, r % 5 == 0 ? 0.05f : 3.f, r + 1);
    if (r % 7 == 1)
      for (float& v : x) v = std::round(v);  // many equals
    if (r % 11 == 2)
      for (int i = 0; i < vocab; i += 3) x[i] = i % 2 ? NAN : -kInfinity;
    if (r == 13) std::fill(x.begin(), x.end(), -kInfinity);
    if (r == 14) x[vocab / 2] = kInfinity;
    if (r == 15) std::fill(x.begin(), x.end(), 0.25f);
    RowCase row;
    row.seed = random() | static_cast<uint64_t>(random()) << 32;
    row.position = r * 3;
    row.mode = r % 6 == 5 ? kTarget : r % 3 == 0 ? kSample | kGreedy : kSample;
    if (r % 4 == 3) row.mode |= kProcessed;
    row.temperature = r % 2 ? 0.7f : 1.3f;
    row.top_k = r % 5 == 1 ? 0 : r % 5 == 2 ? 1 : r % 5 == 3 ? 50 : r % 5 == 4 ? vocab : 1000;
    row.top_p = r % 4 == 0 ? 1.f : r % 4 == 1 ? 0.9f : r % 4 == 2 ? 0.999f : 1e-6f;
    row.min_p = r % 7 == 3 ? 0.05f : r % 7 == 4 ? 1.f : 0.f;
    row.target = token();
    row.num_logprobs = r % 3 - 1 < 1 ? r % 3 - 1 : r % 8;
    if (r % 9 == 4) {
      row.presence = 0.5f;
      row.frequency = 0.25f;
      row.repetition = 1.3f;
      for (int i = 0; i < 40; ++i) row.prompt.push_back(token());
      for (int i = 0; i < 30; ++i) row.output.push_back(i % 3 ? token() : row.prompt[i]);
    }
    if (r % 9 == 5) {
      for (int i = 0; i < 20; ++i) row.allowed.push_back(token());
      row.suppress = {row.allowed[0], row.allowed[3]};
    }
    if (r % 9 == 6) {
      std::set<int32_t> biased;
      for (int i = 0; i < 10; ++i) biased.insert(token());
      row.bias.assign(biased.begin(), biased.end());
      for (size_t i = 0; i < row.bias.size(); ++i) row.bias_values.push_back(i % 2 ? 4.f : -100.f);
      for (int i = 0; i < 5; ++i) row.prompt.push_back(token()), row.output.push_back(token());
      row.bad_words = {1, Argmax(x), 2, row.output[4], row.bias[1], 7, 0, 0, 0, 0, 0, 0, 0};
    }
    logits.push_back(x);
    rows.push_back(row);
  }
  Step step(logits, rows, 8);
  failures += step.Check(("vocab " + std::to_string(vocab)).c_str(), logits);
}

// Lists as long as the vocabulary, with equal and with infinite values.
void CheckLongLists(int vocab) {
  std::vector<std::vector<float>> logits{Logits(vocab, 3, 5), Logits(vocab, 1, 6), Logits(vocab, 1, 7), std::vector<float>(vocab, 1.f)};
  for (float& v : logits[1]) v = std::round(v);
  for (int i = 0; i < vocab; i += 2) logits[2][i] = -kInfinity;
  std::vector<RowCase> rows(4);
  for (RowCase& row : rows) {
    row.mode = kSample | kGreedy;
    row.num_logprobs = vocab;
  }
  rows[3].num_logprobs = vocab / 2;
  Step step(logits, rows, vocab);
  failures += step.Check("long lists", logits);
}

// Steps whose rows are greedy, or, if `random`, drawn from all tokens, or sample nothing.
void CheckPlain(int vocab, int num_rows, bool random) {
  std::vector<std::vector<float>> logits;
  std::vector<RowCase> rows(num_rows);
  for (int r = 0; r < num_rows; ++r) {
    std::vector<float> x = Logits(vocab, 3, r + 1);
    if (r % 4 == 1)
      for (float& v : x) v = std::round(v);  // many equals
    if (r % 5 == 2)
      for (int i = 0; i < vocab; i += 3) x[i] = i % 2 ? NAN : -kInfinity;
    if (r == 3) std::fill(x.begin(), x.end(), -kInfinity);
    if (r == 4) x[vocab / 2] = x[vocab - 1] = kInfinity;
    if (r == 5) std::fill(x.begin(), x.end(), 0.25f);
    rows[r].mode = r % 7 == 6 ? kTarget : kSample | kGreedy;
    if (random && r % 5 < 3) {
      rows[r].mode = rows[r].mode == kTarget ? kTarget : kSample;
      rows[r].temperature = r % 2 == 0 ? 0.6f : 5.f;
      rows[r].seed = 77 * r + 1;
      rows[r].position = r;
    }
    if (r % 3 == 0) rows[r].prompt = {1, 2}, rows[r].output = {3};
    logits.push_back(x);
  }
  Step step(logits, rows, num_rows % 2 == 0 ? 3 : 0);
  failures += step.Check(("plain rows, vocab " + std::to_string(vocab)).c_str(), logits);
}

void CheckAll() {
  for (const bool random : {false, true}) {
    for (const int vocab : {7, 100, 4099, 40000, 128256, 151936}) CheckPlain(vocab, vocab > 10000 ? 21 : 300, random);
    CheckPlain(600000, 3, random);
  }
  for (const int vocab : {7, 100, 1000, 4099, 128256, 151936}) CheckVocab(vocab, vocab > 10000 ? 24 : 120);
  CheckVocab(600000, 8);  // longer than shared memory
  CheckLongLists(5000);
  std::printf("%d rows failed\n", failures);
}

void Time(const char* name, int rows, int vocab, const RowCase& row, int max_top, bool anything = false) {
  std::vector<std::vector<float>> logits;
  std::vector<RowCase> cases(rows, row);
  for (int r = 0; r < rows; ++r) logits.push_back(r < 8 ? Logits(vocab, 3, r + 1) : logits[r % 8]);
  Step step(logits, cases, max_top);
  if (anything) step.SetAnything();
  const double us = Microseconds([&](int, cudaStream_t stream) { return Sample(step.params(), stream); });
  const double bytes = 4. * rows * vocab;
  std::printf("  %-28s %4d rows of %6d: %8.2f us %6.0f GB/s\n", name, rows, vocab, us, bytes / us / 1e3);
}

void TimeAll() {
  RowCase greedy, random, top_k, top_p, both, min_p, logprobs;
  greedy.mode = kSample | kGreedy;
  top_k.top_k = 50;
  top_p.top_p = 0.9f;
  both.top_k = 50;
  both.top_p = 0.9f;
  min_p.min_p = 0.05f;
  logprobs.mode = kSample | kGreedy;
  logprobs.num_logprobs = 20;
  for (const int rows : {1, 8, 32, 256}) {
    Time("greedy", rows, 128256, greedy, 0);
    Time("greedy", rows, 151936, greedy, 0);
    Time("greedy among others", rows, 151936, greedy, 0, true);
    Time("temperature", rows, 151936, random, 0);
    Time("temperature among others", rows, 151936, random, 0, true);
    Time("top-k 50", rows, 151936, top_k, 0);
    Time("top-p 0.9", rows, 151936, top_p, 0);
    Time("top-k 50, top-p 0.9", rows, 151936, both, 0);
    Time("min-p 0.05", rows, 151936, min_p, 0);
    Time("greedy, 20 logprobs", rows, 151936, logprobs, 20);
  }
}

}  // namespace
}  // namespace tenon_cuda

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "all";
  if (mode == "tiny") tenon_cuda::CheckVocab(1000, 30), tenon_cuda::CheckPlain(1003, 9, true);
  if (mode == "all" || mode == "check") tenon_cuda::CheckAll();
  if (mode == "all" || mode == "time") tenon_cuda::TimeAll();
  return tenon_cuda::failures == 0 ? 0 : 1;
}
