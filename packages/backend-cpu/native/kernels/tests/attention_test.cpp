// Paged attention against float64, with stale NaNs in every slot that a query may not see; and results that do not depend
// on chunks of queries, splits over KV or the place of blocks.
#include <algorithm>

#include "reference.h"

namespace tenon_cpu::testing {
namespace {

struct AttentionCase {
  Dtype dtype;
  int group, num_kv_heads, head_dim, block_size;
  int context;  // tokens of the sequence, queries included
  int queries;
  int window;
  float soft_cap;
};

std::string Describe(const AttentionCase& c) {
  char text[200];
  std::snprintf(text, sizeof(text),
                "attention %s group=%d kv_heads=%d head_dim=%d block=%d context=%d queries=%d window=%d cap=%g",
                NameOf(c.dtype), c.group, c.num_kv_heads, c.head_dim, c.block_size, c.context, c.queries, c.window,
                static_cast<double>(c.soft_cap));
  return text;
}

class AttentionRun {
 public:
  AttentionRun(const Kernels& kernels, Random& random, const AttentionCase& c)
      : kernels_(kernels),
        case_(c),
        num_blocks_((c.context + c.block_size - 1) / c.block_size + 2),
        width_(int64_t{c.group} * c.num_kv_heads * c.head_dim),
        cache_k_(c.dtype, num_blocks_ * BlockElements()),
        cache_v_(c.dtype, num_blocks_ * BlockElements() + kKvSlackBytes),
        k_(c.dtype, int64_t{c.context} * c.num_kv_heads * c.head_dim),
        v_(c.dtype, int64_t{c.context} * c.num_kv_heads * c.head_dim),
        q_(c.dtype, c.queries * width_, static_cast<int>(random.Below(3))) {
    k_.Fill(random, 2);
    v_.Fill(random);
    q_.Fill(random, 2);
    FillCache(random);
  }

  // Queries in chunks, KV in pieces of `splits_per_item` splits (0: whole).
  Array Run(Random& random, int max_chunk, int splits_per_item) const {
    Array y(case_.dtype, case_.queries * width_);
    for (int head = 0; head < case_.num_kv_heads; head++) {
      for (int begin = 0; begin < case_.queries;) {
        const int64_t most = std::min(max_chunk, case_.queries - begin);
        const int end = begin + static_cast<int>(random.Between((most + 1) / 2, most));
        RunItem(y, head, begin, end, splits_per_item);
        begin = end;
      }
    }
    return y;
  }

  void Check(Random& random, Report& report) const {
    const Array y = Run(random, kMaxQueryRows, 0);
    std::vector<double> want(y.size()), tolerance(y.size());
    for (int query = 0; query < case_.queries; query++) {
      for (int head = 0; head < case_.group * case_.num_kv_heads; head++) Reference(query, head, want, tolerance);
    }
    report.Close(Describe(case_), [&](int64_t i) { return y.At(i); }, want, tolerance);
    report.Same(Describe(case_) + " in chunks", y, Run(random, 5, 0));
    report.Same(Describe(case_) + " one by one", y, Run(random, 1, 0));
    report.Same(Describe(case_) + " split", y, Run(random, kMaxQueryRows, 1));
    report.Same(Describe(case_) + " in pairs of splits", y, Run(random, 3, 2));
  }

 private:
  int64_t BlockElements() const {
    return KvBlockElements(case_.head_dim, case_.block_size, case_.dtype, case_.num_kv_heads);
  }
  KvLayer Layer() const {
    return {const_cast<void*>(cache_k_.data()), const_cast<void*>(cache_v_.data()), case_.dtype, case_.num_kv_heads,
            case_.head_dim, case_.block_size};
  }

  // Tokens go to shuffled blocks; all else is NaN, except what a window hides: those blocks belong to nobody.
  void FillCache(Random& random) {
    cache_k_.Poison();
    cache_v_.Poison();
    const int used = (case_.context + case_.block_size - 1) / case_.block_size;
    for (int i = 0; i < num_blocks_; i++) block_table_.push_back(i);
    for (int i = static_cast<int>(num_blocks_) - 1; i > 0; i--) std::swap(block_table_[i], block_table_[random.Below(i + 1)]);
    block_table_.resize(used);
    std::vector<int32_t> slots;
    for (int t = 0; t < case_.context; t++) {
      slots.push_back(block_table_[t / case_.block_size] * case_.block_size + t % case_.block_size);
    }
    const int64_t ld = int64_t{case_.num_kv_heads} * case_.head_dim;
    kernels_.kv_write({k_.data(), v_.data(), case_.dtype, case_.dtype, ld, ld, slots.data(), case_.context, Layer(), 0,
                       case_.context});
    ForgetHiddenBlocks();
  }

  void ForgetHiddenBlocks() {
    if (case_.window == 0) return;
    const int first_visible = std::max(0, case_.context - case_.queries - case_.window + 1);
    for (int b = 0; b < first_visible / case_.block_size; b++) {
      for (int64_t i = 0; i < BlockElements(); i++) {
        cache_k_.Set(block_table_[b] * BlockElements() + i, NAN);
        cache_v_.Set(block_table_[b] * BlockElements() + i, NAN);
      }
      block_table_[b] = -1000000;
    }
  }

  void RunItem(Array& y, int head, int begin, int end, int splits_per_item) const {
    AlignedBytes scratch(kernels_.attention_scratch_bytes(end - begin, case_.group, case_.head_dim));
    AttentionParams p = {};
    p.q = q_.data();
    p.ldq = width_;
    p.kv = Layer();
    p.block_table = block_table_.data();
    p.num_heads = case_.group * case_.num_kv_heads;
    p.scale = Scale();
    p.sliding_window = case_.window;
    p.soft_cap = case_.soft_cap;
    p.kv_head = head;
    p.query_begin = begin;
    p.query_end = end;
    p.first_position = case_.context - case_.queries + begin;
    p.split_end = INT32_MAX;
    p.y = y.data();
    p.ldy = width_;
    p.scratch = scratch.data();
    if (splits_per_item == 0) return kernels_.attention(p);

    const int num_splits = (p.first_position + end - begin - 1) / kKvSplit + 1;
    const int64_t split_size = int64_t{end - begin} * case_.group * (case_.head_dim + 2);
    std::vector<float> partial(num_splits * split_size, NAN);
    for (int split = 0; split < num_splits; split += splits_per_item) {
      p.split_begin = split;
      p.split_end = std::min(split + splits_per_item, num_splits);
      p.partial = partial.data() + split * split_size;
      kernels_.attention(p);
    }
    const int64_t offset = begin * width_ + int64_t{head} * case_.group * case_.head_dim;
    char* out = static_cast<char*>(y.data()) + offset * (case_.dtype == Dtype::kF32 ? 4 : 2);
    kernels_.attention_merge({partial.data(), num_splits, end - begin, case_.group, case_.head_dim, out, case_.dtype, width_});
  }

  float Scale() const { return 1 / std::sqrt(static_cast<float>(case_.head_dim)); }

  void Reference(int query, int head, std::vector<double>& want, std::vector<double>& tolerance) const {
    const int position = case_.context - case_.queries + query;
    const int first = case_.window > 0 ? std::max(0, position - case_.window + 1) : 0;
    const int64_t kv = int64_t{head / case_.group} * case_.head_dim, ld = int64_t{case_.num_kv_heads} * case_.head_dim;
    const int64_t row = query * width_ + int64_t{head} * case_.head_dim;
    std::vector<double> scores;
    double score_error = 0;
    for (int t = first; t <= position; t++) {
      double score = 0, magnitude = 0;
      for (int d = 0; d < case_.head_dim; d++) {
        const double product = q_.At(row + d) * k_.At(t * ld + kv + d);
        score += product;
        magnitude += std::fabs(product);
      }
      score_error = std::max(score_error, 3 * std::sqrt(case_.head_dim) * 0x1p-24 * magnitude * Scale());
      score *= Scale();
      scores.push_back(case_.soft_cap > 0 ? case_.soft_cap * std::tanh(score / case_.soft_cap) : score);
      score_error = std::max(score_error, 8 * 0x1p-24 * std::fabs(score));
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - max);
    for (int d = 0; d < case_.head_dim; d++) {
      double y = 0, magnitude = 0;
      for (int t = first; t <= position; t++) {
        y += scores[t - first] / sum * v_.At(t * ld + kv + d);
        magnitude += scores[t - first] / sum * std::fabs(v_.At(t * ld + kv + d));
      }
      want[row + d] = y;
      // Weights: rounded to bf16 in that dtype (each to 2^-9), else f32; plus sums of n terms.
      const double weight_error = case_.dtype == Dtype::kBf16 ? 0x1p-9 : 0;
      const double f32_error = (8 + 3 * std::sqrt(scores.size())) * 0x1p-24 + 2 * score_error;
      tolerance[row + d] = magnitude * (2 * weight_error + f32_error) + EpsOf(case_.dtype) * std::fabs(y) + 1e-7 + MinStep(case_.dtype);
    }
  }

  const Kernels& kernels_;
  AttentionCase case_;
  int64_t num_blocks_;
  int64_t width_;  // of q and y
  Array cache_k_, cache_v_;
  Array k_, v_;  // [context, num_kv_heads * head_dim]
  Array q_;      // [queries, width]
  std::vector<int32_t> block_table_;
};

}  // namespace

void TestAttention(const Kernels& kernels, Random& random, Report& report) {
  const AttentionCase cases[] = {
      {Dtype::kBf16, 1, 1, 64, 16, 1, 1, 0, 0},      {Dtype::kBf16, 3, 3, 64, 16, 100, 100, 0, 0},
      {Dtype::kBf16, 3, 1, 64, 16, 2500, 1, 0, 0},   {Dtype::kBf16, 4, 2, 16, 32, 1100, 90, 0, 0},
      {Dtype::kBf16, 7, 1, 128, 64, 300, 33, 0, 0},  {Dtype::kBf16, 2, 1, 40, 16, 70, 70, 0, 30},
      {Dtype::kF16, 4, 1, 80, 16, 200, 20, 0, 0},    {Dtype::kF16, 1, 2, 8, 16, 1030, 8, 50, 0},
      {Dtype::kF32, 4, 2, 16, 16, 150, 150, 0, 0},   {Dtype::kF32, 1, 1, 256, 48, 130, 7, 0, 0},
      {Dtype::kF32, 5, 1, 96, 16, 2200, 12, 0, 50},  {Dtype::kBf16, 3, 1, 64, 16, 2300, 40, 700, 0},
      {Dtype::kBf16, 1, 1, 24, 16, 2100, 2, 1, 0},   {Dtype::kF32, 2, 1, 64, 16, 2100, 70, 1000, 0},
  };
  for (const AttentionCase& c : cases) AttentionRun(kernels, random, c).Check(random, report);
  for (int i = 0; i < 12; i++) {
    AttentionCase c = {};
    c.dtype = random.Pick(kFloats);
    c.group = static_cast<int>(random.Between(1, 9));
    c.num_kv_heads = static_cast<int>(random.Between(1, 2));
    c.head_dim = 2 * static_cast<int>(random.Between(1, 56));
    c.block_size = 16 * static_cast<int>(random.Between(1, 4));
    c.queries = static_cast<int>(random.Between(1, 40));
    c.context = c.queries + static_cast<int>(random.Below(300));
    c.window = random.Below(2) == 0 ? 0 : static_cast<int>(random.Between(1, 200));
    c.soft_cap = random.Below(3) == 0 ? 20.0f : 0.0f;
    AttentionRun(kernels, random, c).Check(random, report);
  }
}

}  // namespace tenon_cpu::testing
