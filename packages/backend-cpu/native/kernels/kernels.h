// What a CPU kernel is: a plain function over a range of work, on one thread, for one instruction set. Nothing here
// knows of plans, steps, threads or Node. The runtime splits work into ranges and calls these through the table of the
// best instruction set that the machine has.
//
// Every result is independent of how work is split and of what else is in the batch: one accumulator per output element,
// K ascending; KV walked in fixed tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tenon/schema.gen.h"

namespace tenon_cpu {

using tenon::Dtype;

enum class Isa : int32_t { kGeneric, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// Columns of one packed block, and tokens of one attention lane group.
inline constexpr int kLanes = 16;

// K elements that lie together in a packed matrix: pairs for bf16 (vdpbf16ps), single ones for f16 and f32.
constexpr int PackFactor(Dtype dtype) { return dtype == Dtype::kBf16 ? 2 : 1; }

// A weight held in whole numbers: element k of a row is scale * (u - Zero()) + min, where u has `bits` bits and every `group`
// elements of K have their own scale (and min), f16. bits 0: plain numbers of a dtype.
struct Grouping {
  int32_t bits = 0;   // 0, 4 or 8
  int32_t group = 0;  // 16 or 32
  bool has_min = false;
  constexpr int32_t Zero() const { return bits == 8 ? 128 : has_min ? 0 : 8; }
};

// A packed block of a grouped weight is a row of units of 64 elements of K (the last one padded with scale = min = 0):
//   scales f16 [64 / group][16], mins f16 [64 / group][16] where there are any, then u:
//   8 bits: [16][16 lanes][4 elements of K]
//   4 bits: [8][16 lanes][4], byte j of (i, lane) holding element 8i + j in its low half and 8i + 4 + j in its high half
inline constexpr int64_t kUnitK = 64;
constexpr int64_t GroupedUnitBytes(const Grouping& g) {
  return kUnitK * kLanes * g.bits / 8 + kUnitK / g.group * kLanes * (g.has_min ? 4 : 2);
}

// A weight [n, k], packed as [ceil(n / 16)][ceil(k / kr)][16][kr], kr = PackFactor(dtype), padded with zeros, 64-byte
// aligned. `gated` matrices [2I, k] interleave blocks: block 2j holds gate rows 16j…, block 2j + 1 the up rows of the same
// numbers (I padded to 16 in each half), n = 2I.
struct PackedMatrix {
  const void* data;
  Dtype dtype;  // of a grouped matrix: of what it is multiplied with
  int64_t n;
  int64_t k;
  Grouping grouping = {};
};

constexpr int64_t PackedBlockBytes(Dtype dtype, int64_t k, const Grouping& grouping = {}) {
  if (grouping.bits != 0) return (k + kUnitK - 1) / kUnitK * GroupedUnitBytes(grouping);
  const int64_t kr = PackFactor(dtype);
  return (k + kr - 1) / kr * kr * kLanes * (dtype == Dtype::kF32 ? 4 : 2);
}

// Packs rows [16 * block, +16) of a row-major f32 source into one block. rows may be fewer than 16 (the rest is zero).
// src: `rows` pointers to f32 [k].
struct PackBlockParams {
  const float* const* src;
  int rows;
  int64_t k;
  Dtype dtype;
  void* dst;
};

// Packs up to 16 rows of a grouped weight into one block (other lanes: zero). k is a multiple of 32.
struct PackGroupedBlockParams {
  const uint8_t* const* quants;   // [rows] pointers to u [k], one a byte
  const uint16_t* const* scales;  // [rows] pointers to f16 [k / group]
  const uint16_t* const* mins;    // likewise; null without minimums
  int rows;
  int64_t k;
  Grouping grouping;
  void* dst;
};
void PackGroupedBlock(const PackGroupedBlockParams& params);

// Rows of x as the GEMM of a grouped weight takes them: 16-bit whole numbers with a scale for every 32 (quantize_rows.h), in
// rows of QuantizedRowBytes(k), in the form that the instruction set wants.
struct QuantizeRowsParams {
  const void* x;
  Dtype x_dtype;
  int64_t ldx;  // elements
  int64_t k;
  Grouping grouping;  // of the weight
  void* y;            // [row_end] rows of QuantizedRowBytes(k), 64-byte aligned; those of the range are written
  int64_t row_begin, row_end;
};
// Three lines for 64 elements; an odd number of lines in all, so that rows do not push each other out of L1.
constexpr int64_t QuantizedRowBytes(int64_t k) { return ((k + kUnitK - 1) / kUnitK * 3 | 1) * 64; }

enum class Epilogue : int32_t {
  kStore,   // y = x·wᵀ + bias
  kAdd,     // y = residual + (x·wᵀ + bias), f32; y may alias residual
  kGated,   // y[:, i] = act(x·gate_i + bias_i) * (x·up_i + bias_{I+i}); weight is gated, y has I columns
};

// y[m, n] for m in [m_begin, m_end) and packed blocks [block_begin, block_end) (pairs of blocks for kGated: block_begin
// and block_end count output blocks of 16 columns).
// x: [rows, k] of the weight's dtype, row stride ldx elements; of a grouped weight, [rows] as quantize_rows wrote them (row 0
// at x; ldx unused). y: f32, or the weight's dtype; residual f32.
// scratch: GemmScratchBytes(...) bytes of the calling thread.
struct GemmParams {
  const void* x;
  int64_t ldx;
  PackedMatrix weight;
  const float* bias;  // [n] or null
  Epilogue epilogue;
  int32_t activation;  // of kGated: 0 silu, 1 gelu, 2 gelu tanh
  const float* residual;
  int64_t ldr;
  void* y;
  Dtype y_dtype;
  int64_t ldy;
  int64_t m_begin, m_end;
  int64_t block_begin, block_end;
  void* scratch;
};

// rows [row_begin, row_end): y = x / sqrt(mean(x²) + eps) * weight. x f32 or 16-bit; weight f32.
struct RmsNormParams {
  const void* x;
  Dtype x_dtype;
  const float* weight;
  void* y;
  Dtype y_dtype;
  int64_t size;
  float eps;
  int64_t row_begin, row_end;
};

// KV cache of one layer. block b, head h:
//   K: [blocks][heads][ceil(head_dim / kr)][block_size][kr]   (tokens are lanes)
//   V: [blocks][heads][block_size / kr][head_dim][kr]         (pairs of tokens lie together for 16-bit bf16)
// head_dim is even and at most 256, block_size a multiple of 16. Up to kKvSlackBytes beyond the end of V are read.
inline constexpr int kKvSlackBytes = 64;
struct KvLayer {
  void* k;
  void* v;
  Dtype dtype;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t block_size;
};

constexpr int64_t KvBlockElements(int head_dim, int block_size, Dtype dtype, int num_kv_heads) {
  const int64_t kr = PackFactor(dtype);
  return (head_dim + kr - 1) / kr * kr * int64_t{block_size} * num_kv_heads;  // of K, and of V
}

// Tokens [token_begin, token_end): stores k and v (any float types; row strides in elements) at slot_mapping[t];
// slot -1 stores nothing. Writing an even token offset zeroes the V of its odd neighbour unless that is written in this
// step too (so that a stale NaN never meets a zero weight).
struct KvWriteParams {
  const void* k;
  const void* v;
  Dtype k_dtype, v_dtype;
  int64_t ldk, ldv;
  const int32_t* slot_mapping;  // [num_tokens]
  int64_t num_tokens;
  KvLayer kv;
  int64_t token_begin, token_end;
};

// cos_sin [T, rotary_dim] f32: cos, then sin.
struct RopeParams {
  const void* x;  // [T, num_heads * head_dim], row stride ldx elements
  Dtype x_dtype;
  int64_t ldx;
  const float* cos_sin;
  void* y;
  Dtype y_dtype;
  int64_t ldy;
  int32_t num_heads, head_dim, rotary_dim;
  bool interleaved;
  int64_t token_begin, token_end;
};

// Fused: qkv f32 [T, (num_heads + 2 num_kv_heads) head_dim] → norm (optional), rope, q out, k and v into the cache.
struct QkvRopeKvWriteParams {
  const float* qkv;
  int64_t ld_qkv;
  const float* cos_sin;
  const float* q_norm;  // [head_dim] or null
  const float* k_norm;
  float eps;
  int32_t num_heads, num_kv_heads, head_dim, rotary_dim;
  bool interleaved;
  void* q;  // [T, num_heads * head_dim]
  Dtype q_dtype;
  const int32_t* slot_mapping;
  int64_t num_tokens;
  KvLayer kv;
  int64_t token_begin, token_end;
};

// One work item of attention: query tokens [query_begin, query_end) of one sequence (rows of q), one KV head (all its
// query heads), KV positions [kv_begin, kv_end) of the causal range. Splits over KV write partial results (unnormalized
// accumulator, row maximum, row sum) that AttentionMerge joins in ascending order; an item that covers the whole range
// writes y itself. Splits lie at multiples of kKvSplit, also within one item, so results do not depend on the splitting.
// Small enough that a single sequence of a few hundred tokens keeps two threads busy, large enough to merge for free.
inline constexpr int kKvSplit = 256;
struct AttentionParams {
  const void* q;  // [T, num_heads * head_dim] of the cache's dtype
  int64_t ldq;
  KvLayer kv;
  const int32_t* block_table;  // of the sequence
  int32_t num_heads;
  float scale;  // > 0
  int32_t sliding_window;
  float soft_cap;
  int32_t kv_head;
  int32_t query_begin, query_end;  // rows of q and y
  int32_t first_position;          // position of query_begin
  // Numbers of the KV splits to walk (split s: positions [s * kKvSplit, (s + 1) * kKvSplit)). All: 0, INT32_MAX; with
  // `partial`, split_end is at most last position / kKvSplit + 1.
  int32_t split_begin, split_end;
  void* y;                         // [T, num_heads * head_dim] of the cache's dtype
  int64_t ldy;
  // Null: write y. Else [split_end - split_begin][query rows][group][head_dim + 2] f32: unnormalized output, max, sum.
  float* partial;
  void* scratch;   // AttentionScratchBytes of the calling thread
};

struct AttentionMergeParams {
  const float* partial;  // [splits][rows][group][head_dim + 2]
  int32_t num_splits, num_rows, group, head_dim;
  void* y;  // row stride ldy, at the KV head's first query head
  Dtype y_dtype;
  int64_t ldy;
};

// Elementwise and gathers.
struct EmbeddingParams {
  const int32_t* token_ids;  // resolved: never -1
  PackedMatrix packed;       // data null if row_major is used
  const void* row_major;     // [V, hidden]
  Dtype dtype;
  int64_t hidden;
  void* y;
  Dtype y_dtype;
  int64_t token_begin, token_end;
};
struct ElementwiseParams {
  const void* a;
  Dtype a_dtype;
  const void* b;
  Dtype b_dtype;
  void* y;
  Dtype y_dtype;
  int64_t begin, end;
};

// The functions of one instruction set.
struct Kernels {
  Isa isa;
  const char* name;  // "avx512-bf16"
  void (*pack_block)(const PackBlockParams&);
  void (*quantize_rows)(const QuantizeRowsParams&);
  void (*gemm)(const GemmParams&);
  size_t (*gemm_scratch_bytes)(int64_t max_rows, int64_t max_k);
  void (*rms_norm)(const RmsNormParams&);
  void (*rope)(const RopeParams&);
  void (*kv_write)(const KvWriteParams&);
  void (*qkv_rope_kv_write)(const QkvRopeKvWriteParams&);
  void (*attention)(const AttentionParams&);
  size_t (*attention_scratch_bytes)(int32_t max_query_rows, int32_t group, int32_t head_dim);
  void (*attention_merge)(const AttentionMergeParams&);
  void (*embedding)(const EmbeddingParams&);
  void (*add)(const ElementwiseParams&);
  void (*gated_act)(const ElementwiseParams&, int32_t activation);
  // Vocabulary-sized helpers of sampling, over f32 [n].
  float (*max)(const float* x, int64_t n);
  int64_t (*argmax)(const float* x, int64_t n);  // lowest index among equals
  // Σ exp((x - max) * scale), in a fixed order; where y is not null, y[i] = exp((x[i] - max) * scale).
  double (*exp_sum)(const float* x, int64_t n, float max, float scale, float* y);
};

// Query rows an attention item may have at most; larger chunks are split by the runtime.
inline constexpr int kMaxQueryRows = 32;

// The table of one instruction set, or null where this build lacks it.
const Kernels* GetKernels(Isa isa);
// The best that this machine runs (CPUID and operating system), or what TENON_CPU_ISA names if that can run. Whoever
// starts up checks the variable with IsaByName and CanRun, and reports a value that cannot be followed.
Isa BestIsa();
bool CanRun(Isa isa);
bool IsaByName(const char* name, Isa* isa);

}  // namespace tenon_cpu
