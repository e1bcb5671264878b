// Views of the step and its result (core's src/backend/step.ts). StepView::Parse checks every count, offset and number
// that is later used as an index, so a bad step ends as a Status and never as a bad access.
//
// A device with its own memory copies the step's words to a buffer of its own, gives ops the views of that buffer, and
// copies the result's words back:
//
//   BeginStep:  const StepView staged = host_step.Pack(staging);
//               upload(device_step, staging, staged.size_words());
//               *step = staged.Rebased(device_step);
//               *result = host_result.Rebased(device_result);
//   EndStep:    download(staged_result, device_result, host_result.size_words());
//   WaitStep:   wait for the download; copy staged_result to host_result.words().
#pragma once

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

#include "tenon/plan.h"
#include "tenon/schema.gen.h"
#include "tenon/status.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

class StepView {
 public:
  int32_t step_id = 0;
  int32_t num_tokens = 0;      // T
  int32_t num_seqs = 0;        // S
  int32_t num_logit_rows = 0;  // L
  int32_t block_table_stride = 0;
  int32_t max_top_logprobs = 0;
  int32_t num_history_seqs = 0;
  int32_t capture_key = 0;  // 0, or a number that steps of this shape share

  // A region's values where ops read them, or null where the step has none. Shapes: see step.ts.
  const int32_t* Ints(StepRegion region) const { return regions_[static_cast<size_t>(region)]; }
  const float* Floats(StepRegion region) const {
    return reinterpret_cast<const float*>(regions_[static_cast<size_t>(region)]);
  }
  const int32_t* block_table(int32_t seq) const {
    return Ints(StepRegion::kBlockTables) + int64_t{seq} * block_table_stride;
  }
  // Their number.
  int64_t Size(StepRegion region) const;
  // The same values in the host's memory, until EndStep: for what is decided while the step is being enqueued.
  const int32_t* HostInts(StepRegion region) const {
    const int32_t* data = Ints(region);
    return data == nullptr ? nullptr : host_words_ + (data - words_);
  }

  // All of the step, and the place where the ops read it.
  const int32_t* words() const { return words_; }
  size_t size_words() const { return size_words_; }
  // What core writes has room between the regions. Pack copies the regions tightly to `words` [packed_words()], each at a
  // multiple of kRegionAlignment, and returns the view of the copy. Steps of one captureKey are packed alike.
  static constexpr size_t kRegionAlignment = 4;  // words
  size_t packed_words() const;
  StepView Pack(int32_t* words) const;
  // The largest packed_words() of steps without ragged lists. Those of requests with histories or lists of tokens may be
  // longer: a buffer must grow for them.
  static size_t MaxPlainWords(const PlanLimits& limits);
  // The same view over a copy of the words, at an address that only the device may be able to read.
  StepView Rebased(const int32_t* words) const {
    StepView view = *this;
    view.words_ = words;
    for (const int32_t*& region : view.regions_)
      if (region != nullptr) region = words + (region - words_);
    return view;
  }
  // Reads and checks `words` [num_words] against the plan's limits.
  static Status Parse(const int32_t* words, size_t num_words, const PlanLimits& limits, StepView* view);

 private:
  friend class StepChecker;
  const int32_t* words_ = nullptr;
  const int32_t* host_words_ = nullptr;
  size_t size_words_ = 0;
  std::array<const int32_t*, kNumStepRegions> regions_{};
};

// Where a step's results go; L and K of the step.
struct ResultView {
  int32_t* header = nullptr;        // [kResultHeaderWords]
  int32_t* tokens = nullptr;        // [L]
  float* logprobs = nullptr;        // [L]
  int32_t* ranks = nullptr;         // [L]
  int32_t* top_ids = nullptr;       // [L, K]
  float* top_logprobs = nullptr;    // [L, K]
  uint8_t* outputs = nullptr;       // the plan's other output tensors

  // All of the result: what is to be copied back where the ops wrote elsewhere. The executor fills in the header.
  int32_t* words() const { return header; }
  size_t size_words() const { return size_words_; }
  // The same view over other words, at an address that only the device may be able to write.
  ResultView Rebased(int32_t* words) const {
    ResultView view = *this;
    const auto moved = [&](const void* field) { return words + (static_cast<const int32_t*>(field) - header); };
    view.header = words;
    view.tokens = moved(tokens);
    view.logprobs = reinterpret_cast<float*>(moved(logprobs));
    view.ranks = moved(ranks);
    view.top_ids = moved(top_ids);
    view.top_logprobs = reinterpret_cast<float*>(moved(top_logprobs));
    view.outputs = reinterpret_cast<uint8_t*>(moved(outputs));
    return view;
  }

  // Lays out the results of `step` and `output_bytes` of the plan's other outputs in `words` [num_words].
  static Status Parse(int32_t* words, size_t num_words, const StepView& step, size_t output_bytes, ResultView* view);

 private:
  size_t size_words_ = 0;
};

namespace step_internal {

// Regions of lists: those from historySeqs to historyTokens, and from suppressOffsets on.
constexpr bool IsRagged(StepRegion region) {
  return (region >= StepRegion::kHistorySeqs && region <= StepRegion::kHistoryTokens) ||
         region >= StepRegion::kSuppressOffsets;
}

// Values of a region that is no list, by the step's counts.
inline int64_t PlainSize(const StepView& step, StepRegion region) {
  if (region <= StepRegion::kSlotMapping) return step.num_tokens;
  if (region == StepRegion::kCuSeqlensQ) return step.num_seqs > 0 ? int64_t{step.num_seqs} + 1 : 0;
  if (region == StepRegion::kBlockTables) return int64_t{step.num_seqs} * step.block_table_stride;
  if (region < StepRegion::kBlockTables) return step.num_seqs;
  return step.num_logit_rows;
}

// Values of a list that the step has.
inline int64_t RaggedSize(const StepView& step, StepRegion region) {
  using R = StepRegion;
  const auto last_offset = [&](R offsets, int32_t rows) -> int64_t {
    const int32_t* values = step.HostInts(offsets);
    return values == nullptr || rows == 0 ? 0 : values[rows];
  };
  const int32_t num_history = step.num_history_seqs, num_rows = step.num_logit_rows;
  switch (region) {
    case R::kHistorySeqs: return num_history;
    case R::kHistoryOffsets: return num_history > 0 ? int64_t{num_history} + 1 : 0;
    case R::kHistoryTokens: return last_offset(R::kHistoryOffsets, num_history);
    case R::kSuppressTokens: return last_offset(R::kSuppressOffsets, num_rows);
    case R::kAllowedTokens: return last_offset(R::kAllowedOffsets, num_rows);
    case R::kBiasTokens:
    case R::kBiasValues: return last_offset(R::kBiasOffsets, num_rows);
    case R::kBadWords: return last_offset(R::kBadWordsOffsets, num_rows);
    default: return num_rows > 0 ? int64_t{num_rows} + 1 : 0;  // offsets
  }
}

constexpr size_t Aligned(int64_t words) {
  constexpr size_t unit = StepView::kRegionAlignment;
  return (static_cast<size_t>(words) + unit - 1) / unit * unit;
}

}  // namespace step_internal

class StepChecker {
 public:
  StepChecker(const int32_t* words, size_t num_words, const PlanLimits& limits, StepView* view)
      : words_(words), num_words_(num_words), limits_(limits), view_(*view) {}

  Status Run() {
    TENON_RETURN_IF_ERROR(ReadHeader());
    TENON_RETURN_IF_ERROR(ReadRegions());
    TENON_RETURN_IF_ERROR(CheckTokens());
    TENON_RETURN_IF_ERROR(CheckSeqs());
    TENON_RETURN_IF_ERROR(CheckHistory());
    TENON_RETURN_IF_ERROR(CheckLogitRows());
    TENON_RETURN_IF_ERROR(CheckRowLists());
    return CheckCaptureKey();
  }

 private:
  [[gnu::format(printf, 1, 2)]] static Status Bad(const char* format, ...) {
    va_list args;
    va_start(args, format);
    Status status = Status::ErrorV(StatusCode::kStepFailed, format, args);
    va_end(args);
    return status;
  }

  int32_t Header(StepField field) const { return words_[static_cast<size_t>(field)]; }

  Status ReadHeader() {
    if (num_words_ < static_cast<size_t>(kStepHeaderWords))
      return Bad("the step has %zu words; its header alone has %d", num_words_, kStepHeaderWords);
    if (Header(StepField::kMagic) != kStepMagic) return Bad("not a step: magic 0x%x", Header(StepField::kMagic));
    if (Header(StepField::kVersion) != kStepVersion)
      return Bad("the step has version %d; this backend reads version %d", Header(StepField::kVersion), kStepVersion);
    view_.step_id = Header(StepField::kStepId);
    TENON_RETURN_IF_ERROR(Count("numTokens", Header(StepField::kNumTokens), limits_.max_tokens, &view_.num_tokens));
    TENON_RETURN_IF_ERROR(Count("numSeqs", Header(StepField::kNumSeqs), limits_.max_seqs, &view_.num_seqs));
    TENON_RETURN_IF_ERROR(
        Count("numLogitRows", Header(StepField::kNumLogitRows), limits_.max_logit_rows, &view_.num_logit_rows));
    TENON_RETURN_IF_ERROR(Count("blockTableStride", Header(StepField::kBlockTableStride), INT32_MAX / 4,
                                &view_.block_table_stride));
    TENON_RETURN_IF_ERROR(
        Count("maxTopLogprobs", Header(StepField::kMaxTopLogprobs), limits_.vocab_size, &view_.max_top_logprobs));
    TENON_RETURN_IF_ERROR(
        Count("numHistorySeqs", Header(StepField::kNumHistorySeqs), limits_.max_seqs, &view_.num_history_seqs));
    const int32_t size = Header(StepField::kSizeWords);
    if (size < kStepHeaderWords || static_cast<size_t>(size) > num_words_)
      return Bad("the step says it has %d words; its buffer has %zu", size, num_words_);
    size_words_ = size;
    view_.words_ = view_.host_words_ = words_;
    view_.size_words_ = static_cast<size_t>(size);
    return Count("captureKey", Header(StepField::kCaptureKey), INT32_MAX, &view_.capture_key);
  }

  static Status Count(const char* name, int32_t value, int32_t max, int32_t* out) {
    if (value < 0 || value > max) return Bad("%s is %d; 0 to %d are possible", name, value, max);
    *out = value;
    return Status::Ok();
  }

  // Pointers of the regions; sizes are checked by Need, which every reader of a region comes through first.
  Status ReadRegions() {
    for (int32_t i = 0; i < kNumStepRegions; ++i) {
      const int32_t offset = words_[kStepHeaderFields + i];
      if (offset == 0) continue;
      if (offset < kStepHeaderWords || offset > size_words_)
        return Bad("region %d starts at word %d of %d", i, offset, size_words_);
      view_.regions_[i] = words_ + offset;
    }
    for (int32_t i = 0; i < kNumStepRegions; ++i) {
      const auto region = static_cast<StepRegion>(i);
      if (!step_internal::IsRagged(region)) TENON_RETURN_IF_ERROR(Need(region, step_internal::PlainSize(view_, region)));
    }
    return Status::Ok();
  }

  // `region` is there and has room for `size` values.
  Status Need(StepRegion region, int64_t size) const {
    if (size == 0) return Status::Ok();
    const int32_t* start = view_.Ints(region);
    if (start == nullptr) return Bad("the step lacks region %d", static_cast<int32_t>(region));
    if (size > size_words_ - (start - words_))
      return Bad("region %d needs %lld words and has %lld", static_cast<int32_t>(region), static_cast<long long>(size),
                 static_cast<long long>(size_words_ - (start - words_)));
    return Status::Ok();
  }

  // min ≤ values[i] ≤ max for all i < size.
  static Status InRange(const char* name, const int32_t* values, int64_t size, int32_t min, int64_t max) {
    for (int64_t i = 0; i < size; ++i)
      if (values[i] < min || values[i] > max) [[unlikely]]
        return Bad("%s[%lld] is %d; %d to %lld are possible", name, static_cast<long long>(i), values[i], min,
                   static_cast<long long>(max));
    return Status::Ok();
  }

  Status CheckTokens() const {
    const int64_t T = view_.num_tokens;
    const int64_t num_slots = int64_t{limits_.num_blocks} * limits_.block_size;
    TENON_RETURN_IF_ERROR(InRange("tokenIds", view_.Ints(StepRegion::kTokenIds), T, -1, limits_.vocab_size - 1));
    TENON_RETURN_IF_ERROR(InRange("positions", view_.Ints(StepRegion::kPositions), T, 0, limits_.max_model_len - 1));
    return InRange("slotMapping", view_.Ints(StepRegion::kSlotMapping), T, -1, num_slots - 1);
  }

  Status CheckSeqs() const {
    const int32_t S = view_.num_seqs;
    if (S == 0) return Status::Ok();
    const int32_t* cu_seqlens_q = view_.Ints(StepRegion::kCuSeqlensQ);
    const int32_t* seq_lens = view_.Ints(StepRegion::kSeqLens);
    if (cu_seqlens_q[0] != 0) return Bad("cuSeqlensQ[0] is %d; it must be 0", cu_seqlens_q[0]);
    for (int32_t s = 0; s < S; ++s) {
      if (cu_seqlens_q[s + 1] < cu_seqlens_q[s] || cu_seqlens_q[s + 1] > view_.num_tokens)
        return Bad("cuSeqlensQ[%d] is %d after %d, of %d tokens", s + 1, cu_seqlens_q[s + 1], cu_seqlens_q[s],
                   view_.num_tokens);
      const int32_t query_len = cu_seqlens_q[s + 1] - cu_seqlens_q[s];
      if (seq_lens[s] < query_len || seq_lens[s] > limits_.max_model_len)
        return Bad("seqLens[%d] is %d; %d to %d are possible", s, seq_lens[s], query_len, limits_.max_model_len);
      if (limits_.num_blocks > 0) TENON_RETURN_IF_ERROR(CheckBlockTable(s, seq_lens[s]));
    }
    TENON_RETURN_IF_ERROR(InRange("promptLens", view_.Ints(StepRegion::kPromptLens), S, 0, limits_.max_model_len));
    return InRange("seqSlots", view_.Ints(StepRegion::kSeqSlots), S, 0, limits_.max_seqs - 1);
  }

  Status CheckBlockTable(int32_t seq, int32_t seq_len) const {
    const int32_t num_blocks = (seq_len + limits_.block_size - 1) / limits_.block_size;
    if (num_blocks > view_.block_table_stride)
      return Bad("sequence %d has %d tokens, so %d blocks; blockTableStride is %d", seq, seq_len, num_blocks,
                 view_.block_table_stride);
    return InRange("blockTables", view_.block_table(seq), num_blocks, 0, limits_.num_blocks - 1);
  }

  // A ragged list over `rows` rows: offsets ascend from 0 and the values are there.
  Status CheckCsr(const char* name, StepRegion offsets_region, StepRegion values_region, int32_t rows) const {
    const int32_t* offsets = view_.Ints(offsets_region);
    if (offsets == nullptr || rows == 0) return Status::Ok();
    TENON_RETURN_IF_ERROR(Need(offsets_region, int64_t{rows} + 1));
    if (offsets[0] != 0) return Bad("%sOffsets[0] is %d; it must be 0", name, offsets[0]);
    for (int32_t row = 0; row < rows; ++row)
      if (offsets[row + 1] < offsets[row])
        return Bad("%sOffsets[%d] is %d after %d", name, row + 1, offsets[row + 1], offsets[row]);
    return Need(values_region, offsets[rows]);
  }

  Status CheckTokenCsr(const char* name, StepRegion offsets_region, StepRegion values_region, int32_t rows) const {
    TENON_RETURN_IF_ERROR(CheckCsr(name, offsets_region, values_region, rows));
    const int32_t* offsets = view_.Ints(offsets_region);
    if (offsets == nullptr || rows == 0) return Status::Ok();
    return InRange(name, view_.Ints(values_region), offsets[rows], 0, limits_.vocab_size - 1);
  }

  Status CheckHistory() const {
    const int32_t n = view_.num_history_seqs;
    if (n == 0) return Status::Ok();
    TENON_RETURN_IF_ERROR(Need(StepRegion::kHistorySeqs, n));
    TENON_RETURN_IF_ERROR(
        InRange("historySeqs", view_.Ints(StepRegion::kHistorySeqs), n, 0, view_.num_seqs - 1));
    TENON_RETURN_IF_ERROR(Need(StepRegion::kHistoryOffsets, int64_t{n} + 1));
    return CheckTokenCsr("history", StepRegion::kHistoryOffsets, StepRegion::kHistoryTokens, n);
  }

  Status CheckLogitRows() const {
    const int64_t L = view_.num_logit_rows;
    if (L > 0 && view_.num_seqs == 0) return Bad("the step has logit rows and no sequences");
    TENON_RETURN_IF_ERROR(InRange("logitRows", view_.Ints(StepRegion::kLogitRows), L, 0, int64_t{view_.num_tokens} - 1));
    TENON_RETURN_IF_ERROR(InRange("rowSeqs", view_.Ints(StepRegion::kRowSeqs), L, 0, view_.num_seqs - 1));
    TENON_RETURN_IF_ERROR(
        InRange("numLogprobs", view_.Ints(StepRegion::kNumLogprobs), L, -1, view_.max_top_logprobs));
    const int32_t* targets = view_.Ints(StepRegion::kTargets);
    for (int64_t row = 0; row < L; ++row)
      if ((view_.Ints(StepRegion::kRowModes)[row] & kRowTarget) != 0 && targets[row] < 0)
        return Bad("targets[%lld] is %d; the row asks for its logprob", static_cast<long long>(row), targets[row]);
    return InRange("targets", targets, L, -1, limits_.vocab_size - 1);
  }

  Status CheckRowLists() const {
    using R = StepRegion;
    const int32_t L = view_.num_logit_rows;
    TENON_RETURN_IF_ERROR(CheckTokenCsr("suppress", R::kSuppressOffsets, R::kSuppressTokens, L));
    TENON_RETURN_IF_ERROR(CheckTokenCsr("allowed", R::kAllowedOffsets, R::kAllowedTokens, L));
    TENON_RETURN_IF_ERROR(CheckTokenCsr("bias", R::kBiasOffsets, R::kBiasTokens, L));
    TENON_RETURN_IF_ERROR(CheckCsr("bias", R::kBiasOffsets, R::kBiasValues, L));
    TENON_RETURN_IF_ERROR(CheckCsr("badWords", R::kBadWordsOffsets, R::kBadWords, L));
    return CheckBadWords(L);
  }

  // Each row's list is a chain of [length ≥ 1, tokens…] that ends exactly at the row's end.
  Status CheckBadWords(int32_t rows) const {
    const int32_t* offsets = view_.Ints(StepRegion::kBadWordsOffsets);
    if (offsets == nullptr) return Status::Ok();
    const int32_t* words = view_.Ints(StepRegion::kBadWords);
    for (int32_t row = 0; row < rows; ++row) {
      for (int32_t at = offsets[row]; at < offsets[row + 1]; at += 1 + words[at]) {
        if (words[at] < 1 || words[at] > offsets[row + 1] - at - 1)
          return Bad("badWords of row %d: a word of %d tokens where %d are left", row, words[at],
                     offsets[row + 1] - at - 1);
        TENON_RETURN_IF_ERROR(InRange("badWords", words + at + 1, words[at], 0, limits_.vocab_size - 1));
      }
    }
    return Status::Ok();
  }

  // What differs in size from step to step cannot be recorded.
  Status CheckCaptureKey() const {
    for (int32_t i = 0; view_.capture_key != 0 && i < kNumStepRegions; ++i)
      if (view_.regions_[i] != nullptr && step_internal::IsRagged(static_cast<StepRegion>(i)))
        return Bad("the step has captureKey %d and region %d, which is a list", view_.capture_key, i);
    return Status::Ok();
  }

  const int32_t* words_;
  size_t num_words_;
  const PlanLimits& limits_;
  StepView& view_;
  int32_t size_words_ = 0;
};

inline Status StepView::Parse(const int32_t* words, size_t num_words, const PlanLimits& limits, StepView* view) {
  *view = StepView();
  return StepChecker(words, num_words, limits, view).Run();
}

inline int64_t StepView::Size(StepRegion region) const {
  if (Ints(region) == nullptr) return 0;
  if (!step_internal::IsRagged(region)) return step_internal::PlainSize(*this, region);
  return step_internal::RaggedSize(*this, region);
}

inline size_t StepView::packed_words() const {
  size_t words = step_internal::Aligned(kStepHeaderWords);
  for (int32_t i = 0; i < kNumStepRegions; ++i)
    words += step_internal::Aligned(Size(static_cast<StepRegion>(i)));
  return words;
}

inline StepView StepView::Pack(int32_t* words) const {
  StepView view = *this;
  std::copy_n(host_words_, kStepHeaderWords, words);
  size_t at = step_internal::Aligned(kStepHeaderWords);
  for (int32_t i = 0; i < kNumStepRegions; ++i) {
    const auto region = static_cast<StepRegion>(i);
    const int64_t size = Size(region);
    view.regions_[i] = size == 0 ? nullptr : words + at;
    words[kStepHeaderFields + i] = size == 0 ? 0 : static_cast<int32_t>(at);
    if (size > 0) std::copy_n(HostInts(region), size, words + at);
    at += step_internal::Aligned(size);
  }
  words[static_cast<size_t>(StepField::kSizeWords)] = static_cast<int32_t>(at);
  view.words_ = view.host_words_ = words;
  view.size_words_ = at;
  return view;
}

inline size_t StepView::MaxPlainWords(const PlanLimits& limits) {
  StepView largest;
  largest.num_tokens = limits.max_tokens;
  largest.num_seqs = limits.max_seqs;
  largest.num_logit_rows = limits.max_logit_rows;
  largest.block_table_stride = (limits.max_model_len + limits.block_size - 1) / limits.block_size;
  size_t words = step_internal::Aligned(kStepHeaderWords);
  for (int32_t i = 0; i < kNumStepRegions; ++i) {
    const auto region = static_cast<StepRegion>(i);
    if (!step_internal::IsRagged(region)) words += step_internal::Aligned(step_internal::PlainSize(largest, region));
  }
  return words;
}

inline Status ResultView::Parse(int32_t* words, size_t num_words, const StepView& step, size_t output_bytes,
                                ResultView* view) {
  const size_t L = static_cast<size_t>(step.num_logit_rows), K = static_cast<size_t>(step.max_top_logprobs);
  const size_t size = kResultHeaderWords + L * (3 + 2 * K);
  if (num_words < size)
    return Status::Error(StatusCode::kStepFailed, "the result has %zu words; %zu logit rows with %zu logprobs need %zu",
                         num_words, L, K, size);
  if (output_bytes > (num_words - size) * sizeof(int32_t))
    return Status::Error(StatusCode::kStepFailed, "the plan's outputs take %zu bytes; the result has room for %zu",
                         output_bytes, (num_words - size) * sizeof(int32_t));
  view->header = words;
  view->tokens = words + kResultHeaderWords;
  view->logprobs = reinterpret_cast<float*>(view->tokens + L);
  view->ranks = view->tokens + 2 * L;
  view->top_ids = view->tokens + 3 * L;
  view->top_logprobs = reinterpret_cast<float*>(view->top_ids + L * K);
  view->outputs = reinterpret_cast<uint8_t*>(words + size);
  view->size_words_ = size + (output_bytes + sizeof(int32_t) - 1) / sizeof(int32_t);
  return Status::Ok();
}

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
