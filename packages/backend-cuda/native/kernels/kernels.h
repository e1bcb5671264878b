// The kernels as the runtime calls them: one function an op family, each enqueues on a stream and returns at once. Pointers are
// device pointers at multiples of 4 bytes (of 16, where speed matters); matrices are row-major and dense; floats are f32, bf16 or
// f16 as their `Type` says. No kernel allocates, synchronizes or prints; nothing here knows of plans, sessions or Node. What the
// device reads after the call (sizes that change from step to step) comes from the step's buffer, so that a recorded launch can be
// replayed.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace tenon_cuda {

enum class Type : int32_t { kF32, kBf16, kF16 };  // as tenon::Dtype
constexpr int64_t TypeBytes(Type type) { return type == Type::kF32 ? 4 : 2; }

// Launch errors, as cudaGetLastError says them. cudaErrorNotSupported: types or sizes that the kernel does not take; asked with zero rows at
// load time, so it is said then.
using Launch = cudaError_t;

// ---- linear.cu ----------------------------------------------------------------------------------------------------------
// y [rows, n] = x [rows, k] · w [n, k]ᵀ (+ bias [n]) (+ residual [rows, n] f32); f32 accumulation in an order over k that does not
// depend on the row, nor on rows up to 64. x and w have one type (bf16, f16 or f32); y is f32 or that type; y may alias residual. w is read
// before the launches ahead have ended: none of them may write it.
// gated: w [2n, k] holds the gate rows, then the up rows, bias [2n]; y [rows, n] = act(x · gate) * (x · up).
class CublasLt;  // cublas_lt.h
struct LinearParams {
  const void* x;
  const void* w;
  const float* bias;      // or null
  const float* residual;  // or null
  void* y;
  int64_t rows, n, k;
  Type type, y_type;
  bool gated;
  int32_t activation;  // 0 silu, 1 gelu (erf), 2 gelu (tanh)
  void* scratch;       // LinearScratchBytes, all zero before its first use, of one stream; or null: fewer ways to cut the product
  CublasLt* cublas_lt;  // of the same stream, used where it is faster; or null
};
// 0 where no kernel wants any.
size_t LinearScratchBytes();
Launch Linear(const LinearParams& params, cudaStream_t stream);

// ---- attention.cu -------------------------------------------------------------------------------------------------------
// One layer of the paged cache: K and V as [num_blocks][num_kv_heads][block_size][head_dim] each, of `type`.
struct KvLayer {
  void* k;
  void* v;
  int32_t num_kv_heads, head_dim, block_size;
  Type type;
};
// The step's regions, on the device (tenon/step.h), and the counts that the host knows.
struct StepPointers {
  const int32_t* positions;     // [T]
  const int32_t* cu_seqlens_q;  // [S + 1]
  const int32_t* seq_lens;      // [S]
  const int32_t* block_tables;  // [S, block_table_stride]
  int32_t num_tokens, num_seqs, block_table_stride;
  // On the host: the longest seq_len and query length of the step, and how many sequences have one new token. A launch must be right for any values up to max_seq_len_bound of
  // AttentionScratch, so that a recorded one can be replayed: they may only choose between variants when `recording` is false.
  int32_t max_seq_len, max_query_len, num_single;
  bool recording;
};
struct AttentionParams {
  const void* q;  // [T, num_heads * head_dim] of kv.type
  KvLayer kv;
  StepPointers step;
  int32_t num_heads;
  float scale, soft_cap;   // soft_cap 0: none
  int32_t sliding_window;  // 0: none
  int32_t max_model_len;   // no sequence is ever longer
  void* y;                 // [T, num_heads * head_dim] of kv.type
  void* scratch;           // AttentionScratchBytes
};
// For the largest step there may be; 0 today: partial results stay in shared memory.
size_t AttentionScratchBytes(int32_t max_tokens, int32_t max_seqs, int32_t max_seq_len, int32_t num_heads, int32_t head_dim);
Launch Attention(const AttentionParams& params, cudaStream_t stream);

// qkv [T, (num_heads + 2 num_kv_heads) * head_dim] f32: RMS-norms the q and k heads where weights are given, rotates them, stores k
// and v at their slots (-1: nowhere), and writes q [T, num_heads * head_dim] of q_type.
struct QkvParams {
  const float* qkv;
  const float* cos_sin;  // [T, rotary_dim]: cosines, then sines
  const float* q_norm;   // [head_dim] or null
  const float* k_norm;
  const int32_t* slot_mapping;  // [T]
  KvLayer kv;
  int64_t rows;
  int32_t num_heads, rotary_dim, interleaved;
  float eps;
  void* q;
  Type q_type;
};
Launch QkvRopeKvWrite(const QkvParams& params, cudaStream_t stream);
struct KvWriteParams {
  const void* k;  // [rows, num_kv_heads * head_dim]
  const void* v;
  Type k_type, v_type;
  const int32_t* slot_mapping;
  KvLayer kv;
  int64_t rows;
};
Launch KvWrite(const KvWriteParams& params, cudaStream_t stream);

// ---- elementwise.cu -----------------------------------------------------------------------------------------------------
// y[r, :] = weight[token, :]; a token id of -1 is last_tokens[seq_slots[sequence of r]].
struct EmbeddingParams {
  const int32_t* token_ids;  // [rows]
  const int32_t* cu_seqlens_q;
  const int32_t* seq_slots;
  const int32_t* last_tokens;  // by slot
  int32_t num_seqs;
  const void* weight;  // [vocab, hidden]
  Type type, y_type;
  int64_t rows, hidden;
  void* y;
};
Launch Embedding(const EmbeddingParams& params, cudaStream_t stream);
struct RmsNormParams {
  const void* x;
  const float* weight;
  void* y;
  int64_t rows, size;
  float eps;
  Type x_type, y_type;
};
Launch RmsNorm(const RmsNormParams& params, cudaStream_t stream);
struct RopeCosSinParams {
  const int32_t* positions;
  const float* inv_freq;
  float* y;
  int64_t rows;
  int32_t rotary_dim;
  float scale;
  // dynamic: frequencies by length, of step.ts / op table
  int32_t dynamic;
  float base, factor;
  int32_t original_max_position;
  const int32_t* cu_seqlens_q;
  const int32_t* prompt_lens;
  int32_t num_seqs;
};
Launch RopeCosSin(const RopeCosSinParams& params, cudaStream_t stream);
struct RopeParams {
  const void* x;
  const float* cos_sin;
  void* y;  // may alias x
  int64_t rows;
  int32_t num_heads, head_dim, rotary_dim, interleaved;
  Type x_type, y_type;
};
Launch Rope(const RopeParams& params, cudaStream_t stream);
Launch Add(const void* a, Type a_type, const void* b, Type b_type, void* y, Type y_type, int64_t elements, cudaStream_t stream);
Launch GatedAct(const void* gate, Type gate_type, const void* up, Type up_type, int32_t activation, void* y, Type y_type,
                int64_t elements, cudaStream_t stream);
Launch GatherRows(const void* x, int64_t row_bytes, const int32_t* rows, int64_t num_rows, void* y, cudaStream_t stream);

// ---- sample.cu ----------------------------------------------------------------------------------------------------------
// The `sample` op of the op table and step.ts: penalties, lists, temperature, top-k, top-p, min-p without a full sort, seeded noise, greedy,
// logprobs, ranks and top lists, for logits [num_rows, vocab] f32 of logit rows first_row...
struct SampleState {
  int32_t* last_tokens;      // [max_seqs]
  int32_t* history;          // [max_seqs, max_model_len] or null where no sequence of the engine has needed any
  int32_t* history_lengths;  // [max_seqs]; 0: not tracked
  int32_t* prompt_lengths;   // [max_seqs]
  int32_t max_model_len;
};
// Pointers into the step and the result on the device, null where the step lacks the region; see step.ts for shapes.
struct SampleStep {
  const int32_t *positions, *seq_slots, *logit_rows, *row_seqs, *row_modes, *targets, *num_logprobs, *seed_low, *seed_high, *top_k;
  const float *temperature, *top_p, *min_p, *presence_penalty, *frequency_penalty, *repetition_penalty, *bias_values;
  const int32_t *suppress_offsets, *suppress_tokens, *allowed_offsets, *allowed_tokens, *bias_offsets, *bias_tokens,
      *bad_words_offsets, *bad_words;
  int32_t max_top_logprobs;
  int32_t *tokens, *ranks, *top_ids;  // of the result
  float *logprobs, *top_logprobs;
  // What some row of the step wants, on the host, to leave out what none does: any sampling that is not greedy, any top-k, top-p or min-p, any logprobs,
  // any lists or penalties. Steps that replay a launch agree in these, or have fewer wishes.
  bool any_random, any_limits, any_logprobs, any_edits;
};
struct SampleParams {
  float* logits;  // may be overwritten
  int64_t vocab, first_row, num_rows;
  SampleStep step;
  SampleState state;
  void* scratch;  // SampleScratchBytes
};
size_t SampleScratchBytes(int64_t max_rows, int64_t vocab);
Launch Sample(const SampleParams& params, cudaStream_t stream);
// Takes over the histories that a step brings: history_seqs [n], CSR over n.
Launch TakeHistories(const int32_t* history_seqs, const int32_t* history_offsets, const int32_t* history_tokens, int32_t n,
                     const int32_t* seq_slots, const int32_t* prompt_lens, const SampleState& state, cudaStream_t stream);
}  // namespace tenon_cuda
