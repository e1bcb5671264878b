// linear, linear_add, linear_gated: packed weights times rows, cut by column blocks and tiles of rows.
#pragma once

#include "context.h"

namespace tenon_cpu {

class CpuGemm final : public tenon::Gemm {
 public:
  explicit CpuGemm(const OpContext& context) : context_(context) {}
  tenon::Status Linear(const tenon::LinearParams& params, tenon::Stream stream) override;
  tenon::Status LinearGated(const tenon::GatedLinearParams& params, tenon::Stream stream) override;

 private:
  void Run(const GemmParams& params, Dtype x_dtype, int64_t rows, int64_t output_columns);
  void QuantizeRows(const GemmParams& params, Dtype x_dtype, int64_t first_row, int64_t rows);
  void RunBlocks(GemmParams params, int64_t rows, int64_t output_columns);

  const OpContext& context_;
};

}  // namespace tenon_cpu
