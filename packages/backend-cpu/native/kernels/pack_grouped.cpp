// Packs rows of a grouped weight into a block: kernels.h tells the layout. Once for each weight, at load.
#include <cstring>

#include "kernels.h"

namespace tenon_cpu {
namespace {

// Halves [64 / group][16]: one of each group for every lane. Missing rows and groups are zero.
void PackHalves(const PackGroupedBlockParams& p, const uint16_t* const* rows, int64_t unit, uint8_t* dst) {
  const int64_t per_unit = kUnitK / p.grouping.group;
  for (int64_t i = 0; i < per_unit; i++) {
    const int64_t group = unit * per_unit + i;
    for (int lane = 0; lane < kLanes; lane++, dst += 2) {
      const uint16_t half = lane < p.rows && group * p.grouping.group < p.k ? rows[lane][group] : 0;
      std::memcpy(dst, &half, 2);
    }
  }
}

// Element k of every row, four at a time; elements beyond the end are zero, as is their scale.
struct Quad {
  uint8_t u[4];
};
Quad QuadAt(const PackGroupedBlockParams& p, int lane, int64_t k) {
  Quad quad = {};
  if (lane < p.rows && k < p.k) std::memcpy(quad.u, p.quants[lane] + k, 4);
  return quad;
}

void PackBytes(const PackGroupedBlockParams& p, int64_t unit, uint8_t* dst) {
  for (int64_t k = unit * kUnitK; k < (unit + 1) * kUnitK; k += 4) {
    for (int lane = 0; lane < kLanes; lane++, dst += 4) {
      const Quad quad = QuadAt(p, lane, k);
      std::memcpy(dst, quad.u, 4);
    }
  }
}

void PackNibbles(const PackGroupedBlockParams& p, int64_t unit, uint8_t* dst) {
  for (int64_t k = unit * kUnitK; k < (unit + 1) * kUnitK; k += 8) {
    for (int lane = 0; lane < kLanes; lane++, dst += 4) {
      const Quad low = QuadAt(p, lane, k), high = QuadAt(p, lane, k + 4);
      for (int j = 0; j < 4; j++) dst[j] = static_cast<uint8_t>(low.u[j] | high.u[j] << 4);
    }
  }
}

}  // namespace

void PackGroupedBlock(const PackGroupedBlockParams& p) {
  const int64_t scale_bytes = kUnitK / p.grouping.group * kLanes * 2;
  auto* dst = static_cast<uint8_t*>(p.dst);
  for (int64_t unit = 0; unit * kUnitK < p.k; unit++) {
    uint8_t* out = dst + unit * GroupedUnitBytes(p.grouping);
    PackHalves(p, p.scales, unit, out);
    out += scale_bytes;
    if (p.grouping.has_min) {
      PackHalves(p, p.mins, unit, out);
      out += scale_bytes;
    }
    if (p.grouping.bits == 8) {
      PackBytes(p, unit, out);
    } else {
      PackNibbles(p, unit, out);
    }
  }
}

}  // namespace tenon_cpu
