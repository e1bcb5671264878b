// Recorded steps: what was enqueued for one step of a captureKey, to be replayed for later ones.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "tenon/device.h"
#include "tenon/op_caller.h"
#include "tenon/step.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// A call of an op of the plan: where it works on logit rows, for `num_rows` of them from `first_row` on.
struct OpCall {
  int32_t op, first_row, num_rows;
};

// A stretch of calls of a step. Without a graph all of them are made each time, with one only those that need this
// step's parameters.
struct RecordedPiece {
  std::unique_ptr<Graph> graph;
  std::vector<OpCall> calls;
};

// Records the calls of a step, in pieces that end where an op is never recorded.
class StepRecorder {
 public:
  StepRecorder(Session& session, OpCaller& caller) : session_(session), caller_(caller) {}

  Status Add(const OpCall& call, CaptureState state) {
    if (state == CaptureState::kNever) {
      TENON_RETURN_IF_ERROR(EndPiece());
      if (pieces_.empty() || pieces_.back().graph != nullptr) pieces_.emplace_back();
      pieces_.back().calls.push_back(call);
      return Status::Ok();
    }
    if (!recording_) TENON_RETURN_IF_ERROR(session_.BeginCapture());
    recording_ = true;
    if (state == CaptureState::kNeedsRebind) rebound_.push_back(call);
    return caller_.Call(call.op, call.first_row, call.num_rows);
  }

  // `status`: of the calls of Add. The pieces, or the first error.
  Status Finish(Status status, std::vector<RecordedPiece>* pieces) {
    Status ended = EndPiece();
    *pieces = std::move(pieces_);
    return status.ok() ? ended : status;
  }

 private:
  Status EndPiece() {
    if (!recording_) return Status::Ok();
    recording_ = false;
    RecordedPiece piece{nullptr, std::exchange(rebound_, {})};
    TENON_RETURN_IF_ERROR(session_.EndCapture(&piece.graph));
    if (piece.graph == nullptr) return Status(StatusCode::kInternal, "EndCapture gave no graph");
    pieces_.push_back(std::move(piece));
    return Status::Ok();
  }

  Session& session_;
  OpCaller& caller_;
  std::vector<RecordedPiece> pieces_;
  bool recording_ = false;
  std::vector<OpCall> rebound_;  // of the piece being recorded
};

class Recording {
 public:
  // Of a step that has not been recorded: it runs eagerly.
  explicit Recording(const StepView& host_step) { std::copy_n(host_step.words(), kStepHeaderWords, header_.begin()); }

  bool is_playable() const { return !pieces_.empty(); }
  void set_pieces(std::vector<RecordedPiece> pieces) { pieces_ = std::move(pieces); }

  // Whether a step has the shape that was recorded: the same header, but for its number.
  bool Fits(const StepView& host_step) const {
    constexpr auto kStepId = static_cast<size_t>(StepField::kStepId);
    const int32_t* words = host_step.words();
    return std::equal(words, words + kStepId, header_.begin()) &&
           std::equal(words + kStepId + 1, words + kStepHeaderWords, header_.begin() + kStepId + 1);
  }

  // Enqueues the step. `is_fresh`: it is the one that was recorded, so that no parameters have changed. `num_rebound` grows
  // by the calls that set parameters.
  Status Play(Session& session, OpCaller& caller, bool is_fresh, uint64_t* num_rebound) {
    for (RecordedPiece& piece : pieces_) {
      if (piece.graph == nullptr) {
        TENON_RETURN_IF_ERROR(CallAll(caller, piece.calls));
        continue;
      }
      if (!is_fresh && !piece.calls.empty()) {
        TENON_RETURN_IF_ERROR(Rebind(session, caller, piece));
        *num_rebound += piece.calls.size();
      }
      TENON_RETURN_IF_ERROR(session.Replay(*piece.graph));
    }
    return Status::Ok();
  }

 private:
  static Status CallAll(OpCaller& caller, const std::vector<OpCall>& calls) {
    for (const OpCall& call : calls) TENON_RETURN_IF_ERROR(caller.Call(call.op, call.first_row, call.num_rows));
    return Status::Ok();
  }

  static Status Rebind(Session& session, OpCaller& caller, RecordedPiece& piece) {
    TENON_RETURN_IF_ERROR(session.BeginRebind(*piece.graph));
    Status called = CallAll(caller, piece.calls);
    Status ended = session.EndRebind();
    return called.ok() ? ended : called;
  }

  std::array<int32_t, kStepHeaderWords> header_;
  std::vector<RecordedPiece> pieces_;
};

// The recordings of a session, by captureKey and the buffers of step and result.
class Recordings {
 public:
  // A limit, should core invent ever new keys. Steps beyond it run eagerly.
  static constexpr size_t kMaxRecordings = 4096;

  // Null where there is none yet.
  Recording* Find(const StepView& step, const ResultView& result) {
    const auto found = recordings_.find(KeyOf(step, result));
    return found == recordings_.end() ? nullptr : &found->second;
  }
  bool is_full() const { return recordings_.size() >= kMaxRecordings; }
  Recording* Add(const StepView& step, const ResultView& result, Recording recording) {
    return &recordings_.insert_or_assign(KeyOf(step, result), std::move(recording)).first->second;
  }

 private:
  using Key = std::tuple<int32_t, const int32_t*, const int32_t*>;
  static Key KeyOf(const StepView& step, const ResultView& result) {
    return {step.capture_key, step.words(), result.words()};
  }
  std::map<Key, Recording> recordings_;
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
