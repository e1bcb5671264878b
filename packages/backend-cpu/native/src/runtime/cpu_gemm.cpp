#include "cpu_gemm.h"

#include <algorithm>

#include "split.h"
#include "weights.h"

namespace tenon_cpu {
namespace {

using tenon::Status;

// Rows that a thread takes at once: their x stays in L2 while the weights pass by.
constexpr int64_t kRowTile = 128;
// Up to here a call is bound by reading the weights, and single column blocks are the units of work.
constexpr int64_t kFewRows = 12;
// Column blocks of a unit of work for more rows.
constexpr int64_t kGroupBlocks = 4;

// Elements that a thread brings into the form that quantized weights want in a few microseconds.
constexpr int64_t kQuantizedElements = 16384;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The same product from row `first` of y and residual on; x is the panel that begins there.
GemmParams FromRow(GemmParams params, const void* x, int64_t first) {
  params.x = x;
  params.y = static_cast<uint8_t*>(params.y) + first * params.ldy * tenon::kDtypeBytes[static_cast<int32_t>(params.y_dtype)];
  if (params.residual != nullptr) params.residual += first * params.ldr;
  return params;
}

}  // namespace

void CpuGemm::Prepare(const std::vector<PackedMatrix>& order) {
  next_.clear();
  for (size_t i = 0; i < order.size(); ++i) next_[order[i].data] = order[(i + 1) % order.size()];
}

Status CpuGemm::Linear(const tenon::LinearParams& p, tenon::Stream) {
  if (!IsFloat(p.weight_dtype) || p.x_dtype != p.weight_dtype || !IsFloat(p.y_dtype))
    return UnsupportedDtype("linear", "x and weight must have one float type");
  if (p.residual != nullptr && p.residual_dtype != Dtype::kF32) return UnsupportedDtype("linear_add", "residual must be f32");
  const auto& weight = *static_cast<const LoadedWeight*>(p.weight);
  Run({.x = p.x,
       .ldx = p.k,
       .weight = weight.packed,
       .bias = p.bias,
       .epilogue = p.residual != nullptr ? Epilogue::kAdd : Epilogue::kStore,
       .activation = 0,
       .residual = static_cast<const float*>(p.residual),
       .ldr = p.n,
       .y = p.y,
       .y_dtype = p.y_dtype,
       .ldy = p.n},
      p.x_dtype, p.rows, p.n);
  return Status::Ok();
}

Status CpuGemm::LinearGated(const tenon::GatedLinearParams& p, tenon::Stream) {
  if (!IsFloat(p.weight_dtype) || p.x_dtype != p.weight_dtype || !IsFloat(p.y_dtype))
    return UnsupportedDtype("linear_gated", "x and weight must have one float type");
  const auto& weight = *static_cast<const LoadedWeight*>(p.weight);
  Run({.x = p.x,
       .ldx = p.k,
       .weight = weight.packed,
       .bias = p.bias,
       .epilogue = Epilogue::kGated,
       .activation = p.activation,
       .residual = nullptr,
       .ldr = 0,
       .y = p.y,
       .y_dtype = p.y_dtype,
       .ldy = p.intermediate},
      p.x_dtype, p.rows, p.intermediate);
  return Status::Ok();
}

void CpuGemm::Run(const GemmParams& params, Dtype x_dtype, int64_t rows, int64_t output_columns) {
  if (params.weight.grouping.bits == 0) return RunBlocks(params, rows, output_columns);
  for (int64_t first = 0; first < rows; first += kPanelRows) {
    const int64_t panel = std::min(kPanelRows, rows - first);
    QuantizeRows(params, x_dtype, first, panel);
    RunBlocks(FromRow(params, context_.quantized_rows, first), panel, output_columns);
  }
}

// Rows [first_row, + rows) of x to the beginning of the shared buffer.
void CpuGemm::QuantizeRows(const GemmParams& params, Dtype x_dtype, int64_t first_row, int64_t rows) {
  const int64_t k = params.weight.k;
  const int64_t row_bytes = params.ldx * tenon::kDtypeBytes[static_cast<int32_t>(x_dtype)];
  const EvenSplit split(rows, kQuantizedElements / k);
  context_.threads.ParallelFor(split.num_chunks(), [&](int64_t chunk, int) {
    const Range range = split[chunk];
    context_.kernels.quantize_rows({.x = static_cast<const uint8_t*>(params.x) + first_row * row_bytes,
                                    .x_dtype = x_dtype,
                                    .ldx = params.ldx,
                                    .k = k,
                                    .grouping = params.weight.grouping,
                                    .y = context_.quantized_rows,
                                    .row_begin = range.begin,
                                    .row_end = range.end});
  });
}

// Units of work are numbered along the columns, then by row tile, so a chunk of units is one run of columns in most
// cases. Cuts do not show in the results.
void CpuGemm::RunBlocks(GemmParams params, int64_t rows, int64_t output_columns) {
  if (rows == 0) return;
  const int64_t num_blocks = CeilDiv(output_columns, kLanes);
  const int64_t unit_blocks = rows <= kFewRows ? 1 : kGroupBlocks;
  const int64_t units_across = CeilDiv(num_blocks, unit_blocks);
  if (const auto next = next_.find(params.weight.data); next != next_.end()) {
    const PackedMatrix& weight = next->second;
    context_.threads.ReadNext(weight.data, CeilDiv(weight.n, kLanes) * PackedBlockBytes(weight.dtype, weight.k, weight.grouping));
  }

  context_.threads.ParallelRanges(units_across * CeilDiv(rows, kRowTile), [&](Range units, int thread) {
    GemmParams part = params;
    part.scratch = context_.ScratchOf(thread);
    while (units.begin < units.end) {
      const int64_t tile = units.begin / units_across;
      const int64_t end = std::min(units.end, (tile + 1) * units_across);
      part.m_begin = tile * kRowTile;
      part.m_end = std::min(part.m_begin + kRowTile, rows);
      part.block_begin = (units.begin - tile * units_across) * unit_blocks;
      part.block_end = std::min((end - tile * units_across) * unit_blocks, num_blocks);
      context_.kernels.gemm(part);
      units.begin = end;
    }
  });
}

}  // namespace tenon_cpu
