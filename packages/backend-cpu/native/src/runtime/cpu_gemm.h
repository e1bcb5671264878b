// linear, linear_add, linear_gated: packed weights times rows, cut by column blocks and tiles of rows.
#pragma once

#include <unordered_map>
#include <vector>

#include "context.h"

namespace tenon_cpu {

class CpuGemm final : public tenon::Gemm {
 public:
  explicit CpuGemm(const OpContext& context) : context_(context) {}

  // The plan's weights in the order in which a step reads them, for idle threads to look ahead.
  void Prepare(const std::vector<PackedMatrix>& order);

  tenon::Status Linear(const tenon::LinearParams& params, tenon::Stream stream) override;
  tenon::Status LinearGated(const tenon::GatedLinearParams& params, tenon::Stream stream) override;

 private:
  void Run(const GemmParams& params, Dtype x_dtype, int64_t rows, int64_t output_columns);
  void QuantizeRows(const GemmParams& params, Dtype x_dtype, int64_t first_row, int64_t rows);
  void RunBlocks(GemmParams params, int64_t rows, int64_t output_columns);

  const OpContext& context_;
  std::unordered_map<const void*, PackedMatrix> next_;  // by the data of a weight: the one that is read after it
};

}  // namespace tenon_cpu
