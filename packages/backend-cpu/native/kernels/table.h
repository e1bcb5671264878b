// The table of the instruction set that is being compiled.
#pragma once

#include "attention.h"
#include "elementwise.h"
#include "gemm_grouped.h"
#include "kv_write.h"
#include "pack.h"
#include "rms_norm.h"
#include "rope.h"
#include "vocab.h"

namespace tenon_cpu::TENON_ISA {

constexpr Kernels MakeKernels(Isa isa, const char* name) {
  Kernels kernels = {};
  kernels.isa = isa;
  kernels.name = name;
  kernels.pack_block = PackBlock;
  kernels.quantize_rows = QuantizeRows;
  kernels.gemm = AnyGemm;
  kernels.gemm_scratch_bytes = GemmScratchBytes;
  kernels.rms_norm = RmsNorm;
  kernels.rope = Rope;
  kernels.kv_write = KvWrite;
  kernels.qkv_rope_kv_write = QkvRopeKvWrite;
  kernels.attention = Attention;
  kernels.attention_scratch_bytes = AttentionScratchBytes;
  kernels.attention_merge = AttentionMerge;
  kernels.embedding = Embedding;
  kernels.add = AddElements;
  kernels.gated_act = GatedAct;
  kernels.max = MaxOf;
  kernels.argmax = ArgMaxOf;
  kernels.exp_sum = ExpSum;
  return kernels;
}

}  // namespace tenon_cpu::TENON_ISA
