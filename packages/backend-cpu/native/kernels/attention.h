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
    score_scale_ = p_.soft_cap > 0 ? kLog2E : p_.scale * kLog2E;
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
    const RowTiles tiles(num_rows_, kCachedTileRows);
    if (begin >= end) return;
    Tile tile = {begin, AddressesOf(begin), AddressesOf(begin + kTileTokens)};
    while (true) {
      for (int64_t t = 0; t < tiles.count; t++) {
        const int64_t row = tiles.Begin(t);
        WithRows<kCachedTileRows>(tiles.Begin(t + 1) - row, [&]<int MR>() {
          if (t == 0) {
            RowTile<MR, true>(row, tile);
          } else {
            RowTile<MR, false>(row, tile);
          }
        });
      }
      if (tile.token + kTileTokens >= end) return;
      tile = {tile.token + kTileTokens, tile.next, AddressesOf(tile.token + 2 * kTileTokens)};
    }
  }

  // Where the groups of 16 tokens of a tile lie: K [head_dim / kr][16 of block_size][kr], V [16 / kr][head_dim][kr].
  // Groups past the end of the sequence repeat the last one.
  struct TileAddresses {
    const char* keys[kTileGroups];
    const char* values[kTileGroups];
  };
  TileAddresses AddressesOf(int64_t token) const {
    const uint32_t last_group = static_cast<uint32_t>(last_position_) / kLanes * kLanes;
    const uint32_t block_size = static_cast<uint32_t>(p_.kv.block_size);
    TileAddresses addresses;
    for (int g = 0; g < kTileGroups; g++) {
      const uint32_t at = static_cast<uint32_t>(token) + g * kLanes;
      const uint32_t group = at < last_group ? at : last_group;
      const int64_t offset = group % block_size;
      const int64_t head = int64_t{p_.block_table[group / block_size]} * p_.kv.num_kv_heads + p_.kv_head;
      const int64_t head_begin = head * head_dim_ * block_size;
      addresses.keys[g] = static_cast<const char*>(p_.kv.k) + (head_begin + offset * Dot::kFactor) * kElementBytes;
      addresses.values[g] = static_cast<const char*>(p_.kv.v) + (head_begin + offset * head_dim_) * kElementBytes;
    }
    return addresses;
  }

  // The tile that rows are run against, and the next one, which the first rows prefetch: K and V lie in short pieces all
  // over the cache, which the processor's own prefetchers do not follow.
  struct Tile {
    int64_t token;
    TileAddresses now, next;
  };

  // Rows [row, row + MR) against a tile.
  template <int MR, bool kPrefetch>
  void RowTile(int64_t row, const Tile& tile) {
    const int64_t token = tile.token;
    const int64_t first = Max(0, FirstVisible(PositionOf(row)) - token);
    const int64_t last = Min(kTileTokens - 1, PositionOf(row + MR - 1) - token);
    if (first >= kTileTokens || last < first) return;
    const int64_t group_begin = first / kLanes, group_end = last / kLanes + 1;
    alignas(64) float scores[MR][kTileTokens];
    alignas(64) X weights[MR][kTileTokens];
    V correction[MR];
    Scores<MR, kPrefetch>(row, tile, group_begin, group_end, scores);
    const bool whole = FirstVisible(PositionOf(row + MR - 1)) <= token && token + kTileTokens <= PositionOf(row) + 1;
    const bool rescales = whole ? Softmax<MR, false>(row, token, 0, kTileGroups, scores, weights, correction)
                                : Softmax<MR, true>(row, token, group_begin, group_end, scores, weights, correction);
    Values<MR, kPrefetch>(row, tile, group_begin, last, weights, rescales, correction);
  }

  // scores[r][t] = q · k for the groups asked for.
  template <int MR, bool kPrefetch>
  TENON_INLINE void Scores(int64_t row, const Tile& tile, int64_t group_begin, int64_t group_end,
                           float (&scores)[MR][kTileTokens]) {
    constexpr int NR = kCachedTileBlocks;
    const X* q[MR];
    for (int r = 0; r < MR; r++) q[r] = DotQueryOf(row + r);
    const int64_t k_stride = int64_t{p_.kv.block_size} * Dot::kFactor * kElementBytes;
    const int64_t steps = head_dim_ / Dot::kFactor;
    for (int64_t g = group_begin; g < group_end; g += NR) {
      const char* k[NR];
      PrefetchEach<NR> next;
      next.stride = k_stride;
      for (int j = 0; j < NR; j++) {
        const int64_t group = Min(g + j, group_end - 1);
        k[j] = tile.now.keys[group];
        next.stream[j] = tile.next.keys[group];
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

  TENON_INLINE V Capped(V score) const {
    return Mul(Tanh(Mul(score, Broadcast(p_.scale / p_.soft_cap))), Broadcast(p_.soft_cap));
  }

  // The largest of a row's scores, lane by lane; masks and caps them in place. Groups come in pairs: a mask leaves nothing of
  // those that were not computed.
  template <bool kMasked>
  TENON_INLINE V LargestScores(int64_t row, int64_t token, int64_t group_begin, int64_t group_end, float* scores) const {
    const int64_t position = PositionOf(row);
    const int64_t first = FirstVisible(position) - token, end = position - token + 1;
    V largest = Broadcast(-INFINITY);
    for (int64_t g = group_begin; g < group_end; g++) {
      V s = Load(scores + g * kLanes);
      if (p_.soft_cap > 0) s = Capped(s);
      if constexpr (kMasked) s = SelectRange(s, first - g * kLanes, end - g * kLanes, -INFINITY);
      if (kMasked || p_.soft_cap > 0) Store(scores + g * kLanes, s);
      largest = Max(s, largest);
    }
    return largest;
  }

  // Raises the rows' maxima, and gives the factors of what the rows have so far.
  template <int MR>
  void RaiseMaxima(int64_t row, const V (&largest)[MR], V (&correction)[MR]) {
    for (int r = 0; r < MR; r++) {
      const float old = max_[row + r];
      max_[row + r] = ReduceMax(Max(largest[r], Broadcast(old)));
      correction[r] = Exp2(Broadcast((old - max_[row + r]) * score_scale_));
      float* lanes = sum_ + (row + r) * kLanes;
      Store(lanes, Mul(Load(lanes), correction[r]));
    }
  }

  // weights = 2^((s - max) score_scale). Returns whether some row's maximum has changed, which happens early: only then
  // there are corrections.
  template <int MR, bool kMasked>
  TENON_INLINE bool Softmax(int64_t row, int64_t token, int64_t group_begin, int64_t group_end,
                            float (&scores)[MR][kTileTokens], X (&weights)[MR][kTileTokens], V (&correction)[MR]) {
    const int64_t begin = group_begin / 2 * 2, end = RoundUp(group_end, 2);
    V largest[MR];
    bool changed = false;
    for (int r = 0; r < MR; r++) {
      largest[r] = LargestScores<kMasked>(row + r, token, begin, end, scores[r]);
      changed |= AnyGreater(largest[r], Broadcast(max_[row + r]));
    }
    if (changed) RaiseMaxima<MR>(row, largest, correction);
    const V scale = Broadcast(score_scale_);
    for (int r = 0; r < MR; r++) {
      const V shift = Broadcast(-max_[row + r] * score_scale_);
      const auto weight_at = [&](int64_t g) {
        const V x = Fma(Load(scores[r] + g * kLanes), scale, shift);
        return Dot::kCoarse ? Exp2Coarse(x) : Exp2(x);
      };
      float* lanes = sum_ + (row + r) * kLanes;
      V sum = Load(lanes);
      for (int64_t g = begin; g < end; g += 2) {
        sum = Dot::StoreWeights(weights[r] + g * kLanes, weight_at(g), weight_at(g + 1), sum);
      }
      Store(lanes, sum);
    }
    return changed;
  }

  // acc = acc * correction + weights · V over the tokens up to `last` of the tile. Lanes beyond head_dim hold what comes
  // next in memory; nothing reads them.
  template <int MR, bool kPrefetch>
  TENON_INLINE void Values(int64_t row, const Tile& tile, int64_t group_begin, int64_t last,
                           const X (&weights)[MR][kTileTokens], bool rescales, const V (&correction)[MR]) {
    constexpr int NR = kCachedTileBlocks;
    int64_t d = 0;
    for (; d + NR * kLanes <= stride_; d += NR * kLanes) {
      ValueBlocks<MR, NR, kPrefetch>(row, tile, group_begin, last, d, weights, rescales, correction);
    }
    if constexpr (NR > 1) {
      for (; d < stride_; d += kLanes) {
        ValueBlocks<MR, 1, kPrefetch>(row, tile, group_begin, last, d, weights, rescales, correction);
      }
    }
  }

  template <int MR, int NR, bool kPrefetch>
  TENON_INLINE void ValueBlocks(int64_t row, const Tile& tile, int64_t group_begin, int64_t last, int64_t d,
                                const X (&weights)[MR][kTileTokens], bool rescales, const V (&correction)[MR]) {
    const int64_t v_stride = head_dim_ * Dot::kFactor * kElementBytes;
    float* out = acc_ + row * stride_ + d;
    V acc[MR][NR];
    LoadTile(out, stride_, acc);
    if (rescales) {
      TENON_UNROLL
      for (int r = 0; r < MR; r++) {
        TENON_UNROLL
        for (int j = 0; j < NR; j++) acc[r][j] = Mul(acc[r][j], correction[r]);
      }
    }
    for (int64_t g = group_begin; g * kLanes <= last; g++) {
      const char* v[NR];
      const X* p[MR];
      for (int j = 0; j < NR; j++) v[j] = tile.now.values[g] + (d + j * kLanes) * Dot::kFactor * kElementBytes;
      for (int r = 0; r < MR; r++) p[r] = weights[r] + g * kLanes;
      const int64_t steps = CeilDiv(Min(kLanes, last + 1 - g * kLanes), Dot::kFactor);
      if constexpr (kPrefetch) {
        const PrefetchAhead next = {tile.next.values[g] - tile.now.values[g], v_stride};
        DotSteps<Dot>(p, v, v_stride, steps, next, acc);
      } else {
        DotSteps<Dot>(p, v, v_stride, steps, NoPrefetch(), acc);
      }
    }
    StoreTile(out, stride_, acc);
  }

  TENON_INLINE SplitResult ResultOf(int64_t row) const {
    return {acc_ + row * stride_, max_[row] * score_scale_, ReduceAdd(Load(sum_ + row * kLanes))};
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
