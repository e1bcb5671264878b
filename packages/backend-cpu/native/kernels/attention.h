// Paged flash attention (Dao 2023, arXiv:2307.08691) for prefill and decode. One item: some query tokens of a sequence and
// one KV head with its group of query heads. The rows of an item are (query, head) pairs, so every load of K and V serves
// the whole group and several queries.
//
// KV is walked in tiles of 64 tokens at multiples of 64, with an online softmax per tile: m' = max(m, max s),
// l' = l 2^(m - m') + Σ p, o' = o 2^(m - m') + Σ p v, p = 2^(s - m'). Scores carry scale · log2 e, so 2^x replaces e^x.
// In bf16, p is rounded to bf16 and l sums the rounded p: then y is an exact weighted mean of V, and the rounding errors of
// p cancel where V varies little. A tile in which a row sees nothing leaves it unchanged to the bit (p = 0, 2^0 = 1), so
// tiles and groups of 16 tokens outside of all rows' ranges are never read. Every kKvSplit tokens the state is merged into
// the row's total and starts anew, in one item as in many.
#pragma once

#include "dot.h"
#include "vector_math.h"

namespace tenon_cpu::TENON_ISA {

inline constexpr int kTileTokens = 64;
inline constexpr int kTileGroups = kTileTokens / kLanes;
// Below all scores, yet finite: the difference of two row maxima is never NaN.
inline constexpr float kNoMax = -1e30f;
inline constexpr float kLog2E = 1.44269504088896341f;


// Joins a finished split to a row's total. acc: [head_dim padded to 16].
struct SplitResult {
  const float* acc;
  float max;
  float sum;
};
struct RowTotal {
  float* acc;
  float* max;
  float* sum;
};
inline void MergeSplit(const SplitResult& split, const RowTotal& total, int64_t head_dim) {
  const float max = split.max > *total.max ? split.max : *total.max;
  const V old_factor = Exp2(Broadcast(*total.max - max));
  const V new_factor = Exp2(Broadcast(split.max - max));
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t n = Min(kLanes, head_dim - d);
    const V scaled = Mul(LoadElementsN<Dtype::kF32>(split.acc + d, n), new_factor);
    const V joined = Fma(LoadElementsN<Dtype::kF32>(total.acc + d, n), old_factor, scaled);
    StoreElementsN<Dtype::kF32>(total.acc + d, joined, n);
  }
  float lanes[16];
  Store(lanes, Fma(Broadcast(*total.sum), old_factor, Mul(Broadcast(split.sum), new_factor)));
  *total.sum = lanes[0];
  *total.max = max;
}

// y[begin, begin + head_dim) = acc / sum.
inline void NormalizeRow(const float* acc, float sum, int64_t head_dim, Dtype dtype, void* y, int64_t begin) {
  const V inverse = Broadcast(1.0f / sum);
  for (int64_t d = 0; d < head_dim; d += kLanes) {
    const int64_t n = Min(kLanes, head_dim - d);
    StoreAny(dtype, y, begin + d, Mul(LoadElementsN<Dtype::kF32>(acc + d, n), inverse), n);
  }
}

// Scratch per row: two accumulators, converted q, 16 lanes of sum, maximum, total's maximum and sum.
inline size_t AttentionScratchBytes(int32_t max_query_rows, int32_t group, int32_t head_dim) {
  const int64_t rows = int64_t{max_query_rows} * group;
  const int64_t stride = RoundUp(head_dim, kLanes);
  return static_cast<size_t>(rows * (3 * stride + kLanes + 3) * 4 + 64);
}

template <Dtype D>
class AttentionItem {
  using Dot = typename DotOf<D>::Type;
  using X = typename Dot::X;
  static constexpr int64_t kElementBytes = BytesOf(D);

 public:
  explicit AttentionItem(const AttentionParams& params) : p_(params) {
    head_dim_ = p_.kv.head_dim;
    stride_ = RoundUp(head_dim_, kLanes);
    group_ = p_.num_heads / p_.kv.num_kv_heads;
    num_rows_ = (p_.query_end - p_.query_begin) * group_;
    last_position_ = p_.first_position + (p_.query_end - p_.query_begin) - 1;
    score_scale_ = p_.soft_cap > 0 ? p_.soft_cap * kLog2E : p_.scale * kLog2E;
    float* at = reinterpret_cast<float*>(AlignTo64(p_.scratch));
    acc_ = Take(at, num_rows_ * stride_);
    total_acc_ = Take(at, num_rows_ * stride_);
    converted_q_ = Take(at, num_rows_ * stride_);
    sum_ = Take(at, num_rows_ * kLanes);
    max_ = Take(at, num_rows_);
    total_max_ = Take(at, num_rows_);
    total_sum_ = Take(at, num_rows_);
  }

  void Run() {
    if (num_rows_ == 0) return;
    if constexpr (Dot::kConvertsX) ConvertQueries();
    Reset(total_acc_, total_max_);
    for (int64_t row = 0; row < num_rows_; row++) total_sum_[row] = 0;
    const int64_t first = Max(p_.split_begin, FirstVisible(p_.first_position) / kKvSplit);
    const int64_t end = Min(p_.split_end, last_position_ / kKvSplit + 1);
    if (p_.partial != nullptr) {
      for (int64_t split = p_.split_begin; split < p_.split_end; split++) {
        WalkSplit(split);
        WritePartial(split - p_.split_begin);
      }
      return;
    }
    for (int64_t split = first; split < end; split++) {
      WalkSplit(split);
      MergeIntoTotal();
    }
    WriteOutput();
  }

 private:
  TENON_INLINE static float* Take(float*& at, int64_t n) {
    float* taken = at;
    at += n;
    return taken;
  }

  TENON_INLINE int64_t PositionOf(int64_t row) const { return p_.first_position + row / group_; }
  // The first KV position that a query at `position` attends to.
  TENON_INLINE int64_t FirstVisible(int64_t position) const {
    return p_.sliding_window > 0 ? Max(0, position - p_.sliding_window + 1) : 0;
  }
  TENON_INLINE const Element<D>* QueryOf(int64_t row) const {
    const int64_t head = p_.kv_head * group_ + row % group_;
    return static_cast<const Element<D>*>(p_.q) + (p_.query_begin + row / group_) * p_.ldq + head * head_dim_;
  }
  TENON_INLINE const X* DotQueryOf(int64_t row) const {
    if constexpr (Dot::kConvertsX) {
      return converted_q_ + row * stride_;
    } else {
      return QueryOf(row);
    }
  }

  void ConvertQueries() {
    for (int64_t row = 0; row < num_rows_; row++) {
      for (int64_t d = 0; d < head_dim_; d += kLanes) {
        Store(converted_q_ + row * stride_ + d, LoadElementsN<D>(QueryOf(row) + d, Min(kLanes, head_dim_ - d)));
      }
    }
  }

  void Reset(float* acc, float* max) {
    for (int64_t i = 0; i < num_rows_ * stride_; i += kLanes) Store(acc + i, Zero());
    for (int64_t row = 0; row < num_rows_; row++) max[row] = kNoMax;
  }

  void WalkSplit(int64_t split) {
    Reset(acc_, max_);
    for (int64_t row = 0; row < num_rows_; row++) Store(sum_ + row * kLanes, Zero());
    const int64_t visible = FirstVisible(p_.first_position) / kTileTokens * kTileTokens;
    const int64_t begin = Max(split * kKvSplit, visible);
    const int64_t end = Min((split + 1) * kKvSplit, last_position_ + 1);
    const RowTiles tiles(num_rows_, kAttentionTileRows);
    for (int64_t token = begin; token < end; token += kTileTokens) {
      for (int64_t t = 0; t < tiles.count; t++) {
        const int64_t row = tiles.Begin(t);
        WithRows<kAttentionTileRows>(tiles.Begin(t + 1) - row, [&]<int MR>() {
          if (t == 0) {
            RowTile<MR, true>(row, token);
          } else {
            RowTile<MR, false>(row, token);
          }
        });
      }
    }
  }

  // Where the 16 tokens from `token` on lie: K [head_dim / kr][16 of block_size][kr], V [16 / kr][head_dim][kr].
  TENON_INLINE const char* KeysAt(int64_t token) const {
    const int64_t offset = token % p_.kv.block_size;
    return static_cast<const char*>(p_.kv.k) + HeadOffset(token) + offset * Dot::kFactor * kElementBytes;
  }
  TENON_INLINE const char* ValuesAt(int64_t token) const {
    const int64_t offset = token % p_.kv.block_size;
    return static_cast<const char*>(p_.kv.v) + HeadOffset(token) + offset * head_dim_ * kElementBytes;
  }
  TENON_INLINE int64_t HeadOffset(int64_t token) const {
    const int64_t block = p_.block_table[token / p_.kv.block_size];
    const int64_t head = block * p_.kv.num_kv_heads + p_.kv_head;
    return head * head_dim_ * p_.kv.block_size * kElementBytes;
  }

  // Rows [row, row + MR) against the tile of tokens [token, token + 64).
  template <int MR, bool kPrefetch>
  void RowTile(int64_t row, int64_t token) {
    const int64_t first = Max(0, FirstVisible(PositionOf(row)) - token);
    const int64_t last = Min(kTileTokens - 1, PositionOf(row + MR - 1) - token);
    if (first >= kTileTokens || last < first) return;
    const int64_t group_begin = first / kLanes, group_end = last / kLanes + 1;
    alignas(64) float scores[MR][kTileTokens];
    alignas(64) X weights[MR][kTileTokens];
    float correction[16];
    Scores<MR, kPrefetch>(row, token, group_begin, group_end, scores);
    Softmax<MR>(row, token, group_begin, group_end, scores, weights, correction);
    Values<MR, kPrefetch>(row, token, group_begin, last, weights, correction);
  }

  // The group of 16 tokens that lies a tile further on, or the same where the sequence ends.
  TENON_INLINE int64_t NextTileToken(int64_t token) const {
    return token + kTileTokens <= last_position_ ? token + kTileTokens : token;
  }

  // scores[r][t] = q · k for the groups asked for.
  template <int MR, bool kPrefetch>
  TENON_INLINE void Scores(int64_t row, int64_t token, int64_t group_begin, int64_t group_end,
                           float (&scores)[MR][kTileTokens]) {
    constexpr int NR = kAttentionTileBlocks;
    const X* q[MR];
    for (int r = 0; r < MR; r++) q[r] = DotQueryOf(row + r);
    const int64_t k_stride = int64_t{p_.kv.block_size} * Dot::kFactor * kElementBytes;
    const int64_t steps = head_dim_ / Dot::kFactor;
    for (int64_t g = group_begin; g < group_end; g += NR) {
      const char* k[NR];
      PrefetchEach<NR> next;
      for (int j = 0; j < NR; j++) {
        const int64_t at = token + Min(g + j, group_end - 1) * kLanes;
        k[j] = KeysAt(at);
        if constexpr (kPrefetch) next.stream[j] = KeysAt(NextTileToken(at));
      }
      V acc[MR][NR];
      ZeroTile(acc);
      if constexpr (kPrefetch) {
        DotSteps<Dot>(q, k, k_stride, steps, next, acc);
      } else {
        DotSteps<Dot>(q, k, k_stride, steps, NoPrefetch(), acc);
      }
      for (int r = 0; r < MR; r++) {
        TENON_UNROLL
        for (int j = 0; j < NR; j++) {
          if (g + j < group_end) Store(scores[r] + (g + j) * kLanes, acc[r][j]);
        }
      }
    }
  }

  TENON_INLINE V Scaled(V score) const {
    if (p_.soft_cap > 0) score = Tanh(Mul(score, Broadcast(p_.scale / p_.soft_cap)));
    return Mul(score, Broadcast(score_scale_));
  }

  // Masks and scales the scores in place, then weights = 2^(s - max), and the factor of what the rows have so far.
  template <int MR>
  TENON_INLINE void Softmax(int64_t row, int64_t token, int64_t group_begin, int64_t group_end,
                            float (&scores)[MR][kTileTokens], X (&weights)[MR][kTileTokens],
                            float (&correction)[16]) {
    float change[16] = {};
    for (int r = 0; r < MR; r++) {
      const int64_t position = PositionOf(row + r);
      const int64_t first = FirstVisible(position) - token, end = position - token + 1;
      V max = Broadcast(max_[row + r]);
      for (int64_t g = group_begin; g < group_end; g++) {
        V s = Scaled(Load(scores[r] + g * kLanes));
        s = SelectRange(s, first - g * kLanes, end - g * kLanes, -INFINITY);
        Store(scores[r] + g * kLanes, s);
        max = Max(s, max);
      }
      const float new_max = ReduceMax(max);
      change[r] = max_[row + r] - new_max;
      max_[row + r] = new_max;
    }
    Store(correction, Exp2(Load(change)));
    for (int r = 0; r < MR; r++) {
      const V max = Broadcast(max_[row + r]);
      V sum = Zero();
      for (int64_t g = group_begin; g < group_end; g++) {
        const V p = Exp2(Sub(Load(scores[r] + g * kLanes), max));
        sum = Add(sum, Dot::StoreX(weights[r] + g * kLanes, p));
      }
      float* lanes = sum_ + (row + r) * kLanes;
      Store(lanes, Fma(Load(lanes), Broadcast(correction[r]), sum));
    }
  }

  // acc = acc * correction + weights · V over the tokens up to `last` of the tile.
  template <int MR, bool kPrefetch>
  TENON_INLINE void Values(int64_t row, int64_t token, int64_t group_begin, int64_t last,
                           const X (&weights)[MR][kTileTokens], const float (&correction)[16]) {
    constexpr int NR = kAttentionTileBlocks;
    int64_t d = 0;
    for (; d + NR * kLanes <= head_dim_; d += NR * kLanes) {
      ValueBlocks<MR, NR, false, kPrefetch>(row, token, group_begin, last, d, weights, correction);
    }
    for (; d + kLanes <= head_dim_; d += kLanes) {
      ValueBlocks<MR, 1, false, kPrefetch>(row, token, group_begin, last, d, weights, correction);
    }
    // Lanes beyond head_dim hold what comes next in memory; nothing reads them.
    if (head_dim_ - d > kLanes / 2) {
      ValueBlocks<MR, 1, false, kPrefetch>(row, token, group_begin, last, d, weights, correction);
    } else if (d < head_dim_) {
      ValueBlocks<MR, 1, true, kPrefetch>(row, token, group_begin, last, d, weights, correction);
    }
  }

  template <int MR, int NR, bool kHalf, bool kPrefetch>
  TENON_INLINE void ValueBlocks(int64_t row, int64_t token, int64_t group_begin, int64_t last, int64_t d,
                                const X (&weights)[MR][kTileTokens], const float (&correction)[16]) {
    const int64_t v_stride = head_dim_ * Dot::kFactor * kElementBytes;
    float* out = acc_ + row * stride_ + d;
    V acc[MR][NR];
    LoadTile(out, stride_, acc);
    TENON_UNROLL
    for (int r = 0; r < MR; r++) {
      TENON_UNROLL
      for (int j = 0; j < NR; j++) acc[r][j] = Mul(acc[r][j], Broadcast(correction[r]));
    }
    for (int64_t t = group_begin * kLanes; t <= last; t += kLanes) {
      const int64_t to_block = d * Dot::kFactor * kElementBytes;
      const char* values = ValuesAt(token + t) + to_block;
      const char* v[NR];
      const X* p[MR];
      for (int j = 0; j < NR; j++) v[j] = values + j * kLanes * Dot::kFactor * kElementBytes;
      for (int r = 0; r < MR; r++) p[r] = weights[r] + t;
      const int64_t steps = CeilDiv(Min(kLanes, last + 1 - t), Dot::kFactor);
      if constexpr (kPrefetch) {
        const PrefetchAhead next = {ValuesAt(NextTileToken(token + t)) + to_block - values};
        DotSteps<Dot, kHalf>(p, v, v_stride, steps, next, acc);
      } else {
        DotSteps<Dot, kHalf>(p, v, v_stride, steps, NoPrefetch(), acc);
      }
    }
    StoreTile(out, stride_, acc);
  }

  TENON_INLINE SplitResult ResultOf(int64_t row) const {
    return {acc_ + row * stride_, max_[row], ReduceAdd(Load(sum_ + row * kLanes))};
  }

  void MergeIntoTotal() {
    for (int64_t row = 0; row < num_rows_; row++) {
      MergeSplit(ResultOf(row), {total_acc_ + row * stride_, total_max_ + row, total_sum_ + row}, head_dim_);
    }
  }

  void WritePartial(int64_t split) {
    float* out = p_.partial + split * num_rows_ * (head_dim_ + 2);
    for (int64_t row = 0; row < num_rows_; row++, out += head_dim_ + 2) {
      const SplitResult result = ResultOf(row);
      for (int64_t d = 0; d < head_dim_; d++) out[d] = result.acc[d];
      out[head_dim_] = result.max;
      out[head_dim_ + 1] = result.sum;
    }
  }

  void WriteOutput() {
    for (int64_t row = 0; row < num_rows_; row++) {
      const int64_t head = p_.kv_head * group_ + row % group_;
      const int64_t begin = (p_.query_begin + row / group_) * p_.ldy + head * head_dim_;
      NormalizeRow(total_acc_ + row * stride_, total_sum_[row], head_dim_, D, p_.y, begin);
    }
  }

  const AttentionParams& p_;
  int64_t head_dim_, stride_;  // stride_: of accumulator rows, head_dim padded to 16
  int64_t group_, num_rows_;
  int64_t last_position_;
  float score_scale_;
  float* acc_;          // [rows][stride] of the current split
  float* total_acc_;    // [rows][stride] of the finished splits
  float* converted_q_;  // [rows][stride] q as f32, where the dot wants that
  float* sum_;          // [rows][16] lanes of l, of the current split
  float* max_;          // [rows] of the current split
  float* total_max_;    // [rows]
  float* total_sum_;    // [rows]
};

inline void Attention(const AttentionParams& p) {
  WithDtype(p.kv.dtype, [&](auto dtype) { AttentionItem<dtype.kDtype>(p).Run(); });
}

inline void AttentionMerge(const AttentionMergeParams& p) {
  constexpr int64_t kMaxHeadDim = 256;
  const int64_t row_size = p.head_dim + 2;
  const int64_t num_rows = int64_t{p.num_rows} * p.group;
  for (int64_t row = 0; row < num_rows; row++) {
    alignas(64) float acc[kMaxHeadDim] = {};
    float max = kNoMax, sum = 0;
    for (int64_t split = 0; split < p.num_splits; split++) {
      const float* part = p.partial + (split * num_rows + row) * row_size;
      MergeSplit({part, part[p.head_dim], part[p.head_dim + 1]}, {acc, &max, &sum}, p.head_dim);
    }
    const int64_t begin = row / p.group * p.ldy + row % p.group * p.head_dim;
    NormalizeRow(acc, sum, p.head_dim, p.y_dtype, p.y, begin);
  }
}

}  // namespace tenon_cpu::TENON_ISA
