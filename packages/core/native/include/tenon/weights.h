// What a plan's weights are, said by core as data: where the checkpoint's tensors lie and how ops read them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tenon/schema.gen.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// Bits of WeightRequest::uses.
constexpr uint32_t UseBit(WeightUse use) { return 1u << static_cast<int32_t>(use); }

// A checkpoint tensor on disk, row-major.
struct WeightPart {
  std::string name;
  std::string file;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
  std::string format;  // `checkpointDtypes` of @tenon/core/backend: "BF16", "Q4_1", ...
  std::vector<int64_t> shape;
};

struct WeightRequest {
  std::string name;
  std::vector<WeightPart> parts;  // concatenated along dimension 0; empty for a constant
  std::vector<int64_t> shape;     // [N, K] or [N]
  Dtype dtype = Dtype::kF32;      // the type to hold it in, and that of what it is multiplied by
  WeightScheme scheme = WeightScheme::kNone;  // grouped integers instead of `dtype`; every part's format fits into it
  uint32_t uses = 0;              // bits of WeightUse
  std::vector<float> data;        // values of a constant

  bool Has(WeightUse use) const { return (uses & UseBit(use)) != 0; }
};

// Called now and then while weights load, from any thread, with bytes of the checkpoint read so far and in all.
using ProgressFn = std::function<void(uint64_t loaded_bytes, uint64_t total_bytes)>;

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
