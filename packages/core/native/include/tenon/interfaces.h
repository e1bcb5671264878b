// What a kernel backend implements: memory, GEMM, attention, collectives, and the other ops. The executor calls one
// method per op of the plan; each takes plain pointers that the backend's device can read, and enqueues on a stream.
//
// Rules for every method:
//  - Pointers come from the backend's own pool, its own handles, or the step and result of BeginStep. Matrices are
//    row-major and dense. The executor has checked shapes and ranges, never dtypes.
//  - Params structs and what their `step`, `result` and `attrs` point to are valid during the call. What is read on the
//    device after it must be copied: a StepView is small.
//  - Calls are enqueued in the order of the plan, and those of the next step may come before this step's have run: they are
//    to run one after the other, or as if.
//  - While loading, the executor calls each op once with zero rows: check dtypes and limits before looking at the number
//    of rows, and answer with unsupported.dtype or unsupported.op.
//  - After loading, no method allocates, compiles, or throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "tenon/schema.gen.h"
#include "tenon/status.h"
#include "tenon/step.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// The backend's queue of work: a CUDA stream, a command queue; null where calls run at once.
struct Stream {
  void* handle = nullptr;
};

// A matrix weight [n, k] in the backend's own layout: what Session::LoadWeights answered.
using MatrixHandle = const void*;
// One layer of the KV cache: what Session::CreateKvCache answered.
using KvHandle = const void*;

enum class Arena : int32_t { kWeights, kKv, kWorkspace };
inline constexpr int kNumArenas = 3;
inline constexpr const char* kArenaNames[kNumArenas] = {"weights", "kv", "workspace"};

// Named arenas of device memory. What has not been freed goes with the pool.
class MemoryPool {
 public:
  virtual ~MemoryPool() = default;
  // `bytes` of memory, aligned to 64 bytes at least, zeroed, and really there (out of memory is said here, not at first
  // touch): backend.out-of-memory with the arena, the bytes wanted, and the bytes free.
  virtual Status Allocate(Arena arena, size_t bytes, void** data) = 0;
  virtual void Free(void* data) = 0;
  virtual size_t UsedBytes(Arena arena) const = 0;
  // What may still be allocated, without what the session is going to need later (recordings); none where nobody can say.
  virtual std::optional<size_t> FreeBytes() const { return std::nullopt; }
};

// x [rows, k] · weight [n, k]ᵀ, f32 accumulation in ascending k whatever the number of rows.
struct LinearParams {
  const void* x;
  Dtype x_dtype;
  int64_t rows;
  MatrixHandle weight;
  Dtype weight_dtype;
  int64_t n, k;
  const float* bias;     // [n] or null
  const void* residual;  // linear_add: [rows, n]; y may alias it. Null otherwise
  Dtype residual_dtype;
  void* y;  // [rows, n]
  Dtype y_dtype;
};
struct GatedLinearParams {
  const void* x;
  Dtype x_dtype;
  int64_t rows;
  MatrixHandle weight;  // [2 * intermediate, k], held for the use linear_gated
  Dtype weight_dtype;
  int64_t intermediate, k;
  const float* bias;  // [2 * intermediate] or null
  int32_t activation;
  void* y;  // [rows, intermediate]
  Dtype y_dtype;
};

class Gemm {
 public:
  virtual ~Gemm() = default;
  virtual Status Linear(const LinearParams& params, Stream stream) = 0;  // linear, linear_add
  virtual Status LinearGated(const GatedLinearParams& params, Stream stream) = 0;
};

struct AttentionOpParams {
  const void* q;  // [T, num_heads * head_dim]
  Dtype q_dtype;
  KvHandle kv;
  const StepView* step;
  const AttentionAttrs* attrs;
  void* y;  // [T, num_heads * head_dim]; rows that belong to no sequence may keep anything
  Dtype y_dtype;
};

class Attention {
 public:
  virtual ~Attention() = default;
  virtual Status Run(const AttentionOpParams& params, Stream stream) = 0;
};

struct CollectiveParams {
  const void* src;     // [rows, cols]
  void* dst;           // elsewhere; its columns are given below
  int64_t rows, cols;  // of src, the same on all ranks
  Dtype dtype;         // of both; sums are accumulated in f32, in the order of ranks
};

// The data plane between the ranks of a group: all of them run the same plan, so they make the same calls in the same
// order. A group that is alone returns a SingleRank.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // dst [rows, cols]: the sum of all ranks' src.
  virtual Status AllReduce(const CollectiveParams& params, Stream stream) = 0;
  // dst [rows, size * cols]: the ranks' columns side by side, dst[r, rank * cols + c] = src of that rank[r, c].
  virtual Status AllGather(const CollectiveParams& params, Stream stream) = 0;
  // dst [rows, cols / size]: this rank's columns of the sum, from column rank * (cols / size) on.
  virtual Status ReduceScatter(const CollectiveParams& params, Stream stream) = 0;
};

struct EmbeddingOpParams {
  const int32_t* token_ids;  // [rows]; -1: the last token sampled for the slot of the row's sequence
  int64_t rows;
  const StepView* step;
  MatrixHandle weight;  // [vocab, hidden]
  Dtype weight_dtype;
  int64_t hidden;
  void* y;  // [rows, hidden]
  Dtype y_dtype;
};
struct RmsNormOpParams {
  const void* x;  // [rows, size]
  Dtype x_dtype;
  int64_t rows, size;
  const float* weight;  // [size]
  float eps;
  void* y;
  Dtype y_dtype;
};
struct RopeCosSinOpParams {
  const int32_t* positions;  // [rows]
  int64_t rows;
  const float* inv_freq;  // [rotary_dim / 2]
  const StepView* step;   // promptLens, for attrs->dynamic
  const RopeCosSinAttrs* attrs;
  float* y;  // [rows, rotary_dim]
};
struct RopeOpParams {
  const void* x;  // [rows, num_heads * head_dim]; y may alias it
  Dtype x_dtype;
  int64_t rows;
  const float* cos_sin;  // [rows, rotary_dim]
  const RopeAttrs* attrs;
  void* y;
  Dtype y_dtype;
};
struct KvWriteOpParams {
  const void* k;  // [rows, num_kv_heads * head_dim]
  Dtype k_dtype;
  const void* v;
  Dtype v_dtype;
  int64_t rows;
  const int32_t* slot_mapping;  // [rows]; -1 stores nothing
  KvHandle kv;
  const KvWriteAttrs* attrs;
};
struct QkvRopeKvWriteOpParams {
  const void* qkv;  // [rows, (num_heads + 2 num_kv_heads) * head_dim]
  Dtype qkv_dtype;
  int64_t rows;
  const float* cos_sin;  // [rows, rotary_dim]
  const float* q_norm;   // [head_dim] or null
  const float* k_norm;
  const int32_t* slot_mapping;  // [rows]
  KvHandle kv;
  const QkvRopeKvWriteAttrs* attrs;
  void* q;  // [rows, num_heads * head_dim]
  Dtype q_dtype;
};
struct AddOpParams {
  const void* a;
  Dtype a_dtype;
  const void* b;
  Dtype b_dtype;
  void* y;  // may alias a or b
  Dtype y_dtype;
  int64_t elements;
};
struct GatedActOpParams {
  const void* gate;
  Dtype gate_dtype;
  const void* up;
  Dtype up_dtype;
  int32_t activation;
  void* y;
  Dtype y_dtype;
  int64_t elements;
};
struct GatherRowsOpParams {
  const void* x;  // [x_rows, row_bytes]
  int64_t row_bytes;
  const int32_t* rows;  // [num_rows], each in [0, x_rows)
  int64_t num_rows;
  void* y;
};
struct SampleOpParams {
  const void* logits;  // [num_rows, vocab]: of logit rows first_row, first_row + 1, ... of the step
  Dtype logits_dtype;
  int64_t vocab;
  int64_t first_row, num_rows;
  const StepView* step;
  const ResultView* result;
};

class Ops {
 public:
  virtual ~Ops() = default;
  virtual Status Embedding(const EmbeddingOpParams& params, Stream stream) = 0;
  virtual Status RmsNorm(const RmsNormOpParams& params, Stream stream) = 0;
  virtual Status RopeCosSin(const RopeCosSinOpParams& params, Stream stream) = 0;
  virtual Status Rope(const RopeOpParams& params, Stream stream) = 0;
  virtual Status KvWrite(const KvWriteOpParams& params, Stream stream) = 0;
  virtual Status QkvRopeKvWrite(const QkvRopeKvWriteOpParams& params, Stream stream) = 0;
  virtual Status Add(const AddOpParams& params, Stream stream) = 0;
  virtual Status GatedAct(const GatedActOpParams& params, Stream stream) = 0;
  virtual Status GatherRows(const GatherRowsOpParams& params, Stream stream) = 0;
  virtual Status Sample(const SampleOpParams& params, Stream stream) = 0;
};

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
