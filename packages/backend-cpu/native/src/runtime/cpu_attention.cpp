#include "cpu_attention.h"

#include <algorithm>
#include <climits>

namespace tenon_cpu {
namespace {

using tenon::Status;
using tenon::StepRegion;

// Floats of partial results: enough for 60 items over 128 k tokens.
constexpr int64_t kMaxPartials = int64_t{8} << 20;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The first KV split that any query from `position` on attends to.
int32_t FirstSplit(int32_t position, int32_t sliding_window) {
  return sliding_window > 0 ? std::max(0, position - sliding_window + 1) / kKvSplit : 0;
}

}  // namespace

Status CpuAttention::Prepare(const tenon::Plan& plan, tenon::MemoryPool& pool) {
  items_.reserve(static_cast<size_t>(plan.limits.max_seqs + plan.limits.max_tokens / kMaxQueryRows));
  // Splits are for steps with fewer items than twice the threads; this is sized for single query rows over the longest
  // context.
  const int64_t max_splits = CeilDiv(plan.limits.max_model_len, kKvSplit);
  int64_t row_floats = 0;
  for (const tenon::PlanOp& op : plan.ops) {
    if (op.id != tenon::OpId::kAttention) continue;
    const auto& attrs = op.attrs<tenon::AttentionAttrs>();
    row_floats = std::max<int64_t>(row_floats, attrs.num_heads / attrs.num_kv_heads * (attrs.head_dim + 2));
  }
  if (context_.threads.size() == 1 || max_splits == 1 || row_floats == 0) return Status::Ok();
  partials_size_ = std::min(2 * context_.threads.size() * max_splits * row_floats, kMaxPartials);
  void* data = nullptr;
  TENON_RETURN_IF_ERROR(
      pool.Allocate(tenon::Arena::kWorkspace, static_cast<size_t>(partials_size_) * sizeof(float), &data));
  partials_ = static_cast<float*>(data);
  return Status::Ok();
}

void CpuAttention::BeginStep(const tenon::StepView& step) {
  items_.clear();
  max_splits_ = max_rows_ = 0;
  if (step.num_seqs == 0) return;
  const int32_t* cu_seqlens_q = step.Ints(StepRegion::kCuSeqlensQ);
  const int32_t* seq_lens = step.Ints(StepRegion::kSeqLens);
  for (int32_t seq = 0; seq < step.num_seqs; ++seq) {
    const int32_t end = cu_seqlens_q[seq + 1];
    for (int32_t begin = cu_seqlens_q[seq]; begin < end; begin += kMaxQueryRows) {
      const int32_t first_position = seq_lens[seq] - (end - begin);
      const Item item = {seq, begin, std::min(begin + kMaxQueryRows, end), first_position};
      max_splits_ = std::max(max_splits_, item.num_splits());
      max_rows_ = std::max(max_rows_, item.query_end - item.query_begin);
      items_.push_back(item);
    }
  }
  std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) { return a.Cost() > b.Cost(); });
}

Status CpuAttention::Run(const tenon::AttentionOpParams& params, tenon::Stream) {
  const auto& kv = *static_cast<const KvLayer*>(params.kv);
  if (params.q_dtype != kv.dtype || params.y_dtype != kv.dtype)
    return UnsupportedDtype("attention", "q and y must have the type of the KV cache");
  if (items_.empty()) return Status::Ok();
  if (ShouldSplit(*params.attrs)) {
    RunSplit(params);
  } else {
    RunWhole(params);
  }
  return Status::Ok();
}

AttentionParams CpuAttention::ParamsOf(const tenon::AttentionOpParams& params, const Item& item,
                                       int32_t kv_head) const {
  const tenon::AttentionAttrs& attrs = *params.attrs;
  const int64_t row = int64_t{attrs.num_heads} * attrs.head_dim;
  return {.q = params.q,
          .ldq = row,
          .kv = *static_cast<const KvLayer*>(params.kv),
          .block_table = params.step->block_table(item.seq),
          .num_heads = attrs.num_heads,
          .scale = attrs.scale,
          .sliding_window = attrs.sliding_window,
          .soft_cap = attrs.soft_cap,
          .kv_head = kv_head,
          .query_begin = item.query_begin,
          .query_end = item.query_end,
          .first_position = item.first_position,
          .split_begin = 0,
          .split_end = INT32_MAX,
          .y = params.y,
          .ldy = row,
          .partial = nullptr,
          .scratch = nullptr};
}

int64_t CpuAttention::PartialStride(const tenon::AttentionAttrs& attrs) const {
  return int64_t{max_splits_} * max_rows_ * (attrs.num_heads / attrs.num_kv_heads) * (attrs.head_dim + 2);
}

// Where there are too few items to keep the threads busy, and room for what splits leave behind.
bool CpuAttention::ShouldSplit(const tenon::AttentionAttrs& attrs) const {
  const auto num_tasks = static_cast<int64_t>(items_.size()) * attrs.num_kv_heads;
  return max_splits_ > 1 && num_tasks < 2 * context_.threads.size() &&
         num_tasks * PartialStride(attrs) <= partials_size_;
}

void CpuAttention::RunWhole(const tenon::AttentionOpParams& params) {
  const int32_t num_kv_heads = params.attrs->num_kv_heads;
  const auto num_tasks = static_cast<int64_t>(items_.size()) * num_kv_heads;
  context_.threads.ParallelFor(num_tasks, [&](int64_t task, int thread) {
    const Item& item = items_[static_cast<size_t>(task / num_kv_heads)];
    AttentionParams part = ParamsOf(params, item, static_cast<int32_t>(task % num_kv_heads));
    part.scratch = context_.ScratchOf(thread);
    context_.kernels.attention(part);
  });
}

// A unit per item, KV head and split, in stretches of the cache; then the splits of each item are merged.
void CpuAttention::RunSplit(const tenon::AttentionOpParams& params) {
  const tenon::AttentionAttrs& attrs = *params.attrs;
  const int32_t num_kv_heads = attrs.num_kv_heads, group = attrs.num_heads / num_kv_heads;
  const int64_t stride = PartialStride(attrs);
  const auto num_tasks = static_cast<int64_t>(items_.size()) * num_kv_heads;

  context_.threads.ParallelRanges(num_tasks * max_splits_, [&](Range units, int thread) {
    for (int64_t task = units.begin / max_splits_; task * max_splits_ < units.end; ++task) {
      const Item& item = items_[static_cast<size_t>(task / num_kv_heads)];
      const int64_t first = FirstSplit(item.first_position, attrs.sliding_window);
      const int64_t begin = std::max(units.begin - task * max_splits_, first);
      const int64_t end = std::min<int64_t>(units.end - task * max_splits_, item.num_splits());
      if (begin >= end) continue;
      AttentionParams part = ParamsOf(params, item, static_cast<int32_t>(task % num_kv_heads));
      const int64_t split_floats = int64_t{item.query_end - item.query_begin} * group * (attrs.head_dim + 2);
      part.split_begin = static_cast<int32_t>(begin);
      part.split_end = static_cast<int32_t>(end);
      part.partial = partials_ + task * stride + (begin - first) * split_floats;
      part.scratch = context_.ScratchOf(thread);
      context_.kernels.attention(part);
    }
  });

  const int64_t element_bytes = tenon::kDtypeBytes[static_cast<int32_t>(params.y_dtype)];
  const int64_t row = int64_t{attrs.num_heads} * attrs.head_dim;
  context_.threads.ParallelFor(num_tasks, [&](int64_t task, int) {
    const Item& item = items_[static_cast<size_t>(task / num_kv_heads)];
    const int64_t column = task % num_kv_heads * group * attrs.head_dim;
    context_.kernels.attention_merge(
        {.partial = partials_ + task * stride,
         .num_splits = item.num_splits() - FirstSplit(item.first_position, attrs.sliding_window),
         .num_rows = item.query_end - item.query_begin,
         .group = group,
         .head_dim = attrs.head_dim,
         .y = static_cast<uint8_t*>(params.y) + (item.query_begin * row + column) * element_bytes,
         .y_dtype = params.y_dtype,
         .ldy = row});
  });
}

}  // namespace tenon_cpu
