// Loading in three passes: check every source, lay all weights out in one allocation, then fill it in parallel. Work is
// cut into items of about a megabyte of the checkpoint; a thread brings 16 rows at a time into its scratch as f32 (or takes
// them as they are) and packs them into their final place, so nothing is held twice.
#include "weights.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cinttypes>
#include <cstring>
#include <string>

#include "grouped_rows.h"
#include "tenon/checkpoint.h"

namespace tenon_cpu {
namespace {

using tenon::Status;
using tenon::StatusCode;
using tenon::WeightSource;
using tenon::WeightUse;

constexpr uint64_t kItemBytes = 1 << 20;  // of the checkpoint
constexpr size_t kPrefetchItems = 32;     // read from the disk ahead of use
constexpr uint64_t kAlignment = 64;

enum class Layout { kPacked, kGated, kRowMajor, kVector };

// A request whose source has been checked and whose place is known.
struct PlannedWeight {
  const WeightRequest* request;
  Layout layout;
  Grouping grouping = {};  // of a quantized matrix that stays so
  WeightSource source;
  uint64_t offset = 0;  // in the allocation
  uint8_t* data = nullptr;
};

// Rows [first_row, + num_rows) of a weight, packed to blocks first_block, first_block + block_step, ...
struct Item {
  const PlannedWeight* weight;
  int64_t first_row;
  int64_t num_rows;
  int64_t first_block;
  int64_t block_step;
};

constexpr int64_t BlocksOf(int64_t rows) { return (rows + kLanes - 1) / kLanes; }

int64_t BlockBytes(const PlannedWeight& weight) {
  return PackedBlockBytes(weight.request->dtype, weight.request->shape[1], weight.grouping);
}

uint64_t LayoutBytes(const PlannedWeight& weight) {
  const std::vector<int64_t>& shape = weight.request->shape;
  const Dtype dtype = weight.request->dtype;
  switch (weight.layout) {
    case Layout::kVector: return static_cast<uint64_t>(shape[0]) * sizeof(float);
    case Layout::kRowMajor: return static_cast<uint64_t>(shape[0] * shape[1]) * tenon::kDtypeBytes[static_cast<int>(dtype)];
    case Layout::kPacked: return static_cast<uint64_t>(BlocksOf(shape[0]) * BlockBytes(weight));
    case Layout::kGated: return static_cast<uint64_t>(2 * BlocksOf(shape[0] / 2) * BlockBytes(weight));
  }
  return 0;
}

Status InvalidRequest(const WeightRequest& request, const char* reason) {
  return Status::Error(StatusCode::kInternal, "weight '%s': %s", request.name.c_str(), reason);
}

Status ChooseLayout(const WeightRequest& request, Layout* layout) {
  const size_t rank = request.shape.size();
  if (request.Has(WeightUse::kVector)) {
    *layout = Layout::kVector;
    if (rank != 1 || request.uses != tenon::UseBit(WeightUse::kVector)) return InvalidRequest(request, "not only a vector");
    if (request.scheme != tenon::WeightScheme::kNone) return InvalidRequest(request, "a vector with a scheme");
    return Status::Ok();
  }
  if (rank != 2 || request.uses == 0) return InvalidRequest(request, "neither a used matrix nor a vector");
  if (request.dtype != Dtype::kF32 && request.dtype != Dtype::kBf16 && request.dtype != Dtype::kF16) {
    return Status::Error(StatusCode::kUnsupportedDtype, "weight '%s': cannot be held as %s; supported: f32, bf16, f16",
                         request.name.c_str(), tenon::kDtypeNames[static_cast<int>(request.dtype)]);
  }
  if (!request.Has(WeightUse::kLinearGated)) {
    const bool packed = request.Has(WeightUse::kLinear) || request.scheme != tenon::WeightScheme::kNone;
    *layout = packed ? Layout::kPacked : Layout::kRowMajor;
    return Status::Ok();
  }
  *layout = Layout::kGated;
  if (request.uses != tenon::UseBit(WeightUse::kLinearGated)) return InvalidRequest(request, "gated and used otherwise too");
  if (request.shape[0] % 2 != 0) return InvalidRequest(request, "gated, but its rows do not make two halves");
  return Status::Ok();
}

// Every part is in a format whose integers the weight's scheme holds.
Status CheckScheme(const WeightRequest& request, const PlannedWeight& weight) {
  if (weight.grouping.bits == 0) return Status::Ok();
  const char* scheme = tenon::kWeightSchemes[static_cast<int32_t>(request.scheme)].name;
  for (const WeightSource::Part& part : weight.source.parts()) {
    if (Holds(tenon::InfoOf(request.scheme), part.format->groups)) continue;
    return Status::Error(StatusCode::kUnsupportedQuantization, "weight '%s': a part in format %s cannot be held as %s",
                         request.name.c_str(), std::string(part.format->name).c_str(), scheme);
  }
  return Status::Ok();
}

Status PlanWeights(const std::vector<WeightRequest>& requests, tenon::MappedFiles* files, std::vector<PlannedWeight>* weights,
                   uint64_t* total_bytes) {
  *total_bytes = 0;
  for (const WeightRequest& request : requests) {
    PlannedWeight weight{
        .request = &request, .layout = Layout::kVector, .grouping = GroupingOf(request.scheme), .source = {}};
    TENON_RETURN_IF_ERROR(ChooseLayout(request, &weight.layout));
    TENON_RETURN_IF_ERROR(WeightSource::Open(request, files, &weight.source));
    TENON_RETURN_IF_ERROR(CheckScheme(request, weight));
    weight.offset = *total_bytes;
    *total_bytes += (LayoutBytes(weight) + kAlignment - 1) / kAlignment * kAlignment;
    weights->push_back(std::move(weight));
  }
  return Status::Ok();
}

// Rows [first_row, + num_rows) as items of whole blocks.
void AddItems(Item span, std::vector<Item>* items) {
  const int64_t row_bytes = std::max<int64_t>(1, static_cast<int64_t>(span.weight->source.SizeBytes()) / span.weight->source.rows());
  const int64_t blocks = std::max<int64_t>(1, static_cast<int64_t>(kItemBytes) / (row_bytes * kLanes));
  while (span.num_rows > 0) {
    Item item = span;
    item.num_rows = std::min(span.num_rows, blocks * kLanes);
    items->push_back(item);
    span.first_row += item.num_rows;
    span.num_rows -= item.num_rows;
    span.first_block += blocks * span.block_step;
  }
}

std::vector<Item> CutIntoItems(const std::vector<PlannedWeight>& weights) {
  std::vector<Item> items;
  for (const PlannedWeight& weight : weights) {
    const int64_t rows = weight.request->shape[0];
    if (rows == 0) continue;
    if (weight.layout == Layout::kVector) {
      items.push_back({&weight, 0, rows, 0, 1});
    } else if (weight.layout == Layout::kGated) {
      AddItems({&weight, 0, rows / 2, 0, 2}, &items);
      AddItems({&weight, rows / 2, rows / 2, 1, 2}, &items);
    } else {
      AddItems({&weight, 0, rows, 0, 1}, &items);
    }
  }
  return items;
}

// One thread's room for 16 rows.
class RowScratch {
 public:
  GroupedRows grouped;
  std::vector<float> row;

  float* Row(int row, int64_t cols) {
    const size_t needed = static_cast<size_t>(kLanes * (cols + 1));
    if (values_.size() < needed) values_.resize(needed);
    return values_.data() + row * (cols + 1);  // one more: room to pad odd rows of bf16
  }

 private:
  std::vector<float> values_;
};

// The row's bf16 values two to a word, so that packing moves them untouched: in place where it can be read so, else in
// `scratch` [(cols + 1) / 2], an odd row padded with zero.
const float* RowAsBf16Pairs(const WeightSource& source, int64_t row, float* scratch) {
  const uint8_t* src = source.Row(source.PartOfRow(row), row);
  const int64_t cols = source.cols();
  if (cols % 2 == 0 && reinterpret_cast<uintptr_t>(src) % alignof(float) == 0) return reinterpret_cast<const float*>(src);
  scratch[cols / 2] = 0;
  std::memcpy(scratch, src, static_cast<size_t>(cols) * 2);
  return scratch;
}

// One packed block of `rows` ≤ 16 rows of a quantized matrix.
void PackGroupedRows(const PlannedWeight& weight, int64_t first_row, int rows, uint8_t* dst, GroupedRows& scratch) {
  const WeightSource& source = weight.source;
  for (int r = 0; r < rows; r++) {
    const WeightSource::Part& part = source.PartOfRow(first_row + r);
    scratch.Read(r, *part.format, source.Row(part, first_row + r), source.cols(), weight.request->scheme);
  }
  scratch.Pack(rows, source.cols(), weight.grouping, dst);
}

// One packed block of `rows` ≤ 16 rows. Pairs of bf16 that are packed as f32 words of a matrix half as wide make the bf16
// layout [k / 2][16][2], bit for bit.
void PackRows(const PlannedWeight& weight, const Kernels& kernels, int64_t first_row, int rows, uint8_t* dst,
              RowScratch& scratch) {
  const WeightSource& source = weight.source;
  const bool as_pairs = weight.request->dtype == Dtype::kBf16 && source.IsStoredAs("BF16");
  std::array<const float*, kLanes> src{};
  for (int r = 0; r < rows; r++) {
    float* room = scratch.Row(r, source.cols());
    src[r] = as_pairs ? RowAsBf16Pairs(source, first_row + r, room) : source.RowAsF32(first_row + r, room);
  }
  PackBlockParams params{.src = src.data(), .rows = rows, .k = source.cols(), .dtype = weight.request->dtype, .dst = dst};
  if (as_pairs) {
    params.k = (source.cols() + 1) / 2;
    params.dtype = Dtype::kF32;
  }
  kernels.pack_block(params);
}

void FillPacked(const Item& item, const Kernels& kernels, RowScratch& scratch) {
  const PlannedWeight& weight = *item.weight;
  const int64_t block_bytes = BlockBytes(weight);
  int64_t block = item.first_block;
  for (int64_t row = 0; row < item.num_rows; row += kLanes, block += item.block_step) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, item.num_rows - row));
    uint8_t* dst = weight.data + block * block_bytes;
    if (weight.grouping.bits != 0) {
      PackGroupedRows(weight, item.first_row + row, rows, dst, scratch.grouped);
    } else {
      PackRows(weight, kernels, item.first_row + row, rows, dst, scratch);
    }
  }
}

void FillRowMajor(const Item& item, RowScratch& scratch) {
  const WeightRequest& request = *item.weight->request;
  const int64_t row_bytes = request.shape[1] * tenon::kDtypeBytes[static_cast<int>(request.dtype)];
  item.weight->source.ReadRows(item.first_row, item.num_rows, request.dtype,
                               item.weight->data + item.first_row * row_bytes, &scratch.row);
}

void FillItem(const Item& item, const Kernels& kernels, RowScratch& scratch) {
  const WeightSource& source = item.weight->source;
  source.Populate(item.first_row, item.num_rows);
  switch (item.weight->layout) {
    case Layout::kVector: source.ReadVector(reinterpret_cast<float*>(item.weight->data)); break;
    case Layout::kRowMajor: FillRowMajor(item, scratch); break;
    case Layout::kPacked:
    case Layout::kGated: FillPacked(item, kernels, scratch); break;
  }
  source.Release(item.first_row, item.num_rows);
}

uint64_t ItemBytes(const Item& item) {
  const WeightSource& source = item.weight->source;
  return source.rows() == 0 ? 0 : source.SizeBytes() * static_cast<uint64_t>(item.num_rows) / static_cast<uint64_t>(source.rows());
}

void FillWeights(const std::vector<Item>& items, const Kernels& kernels, ThreadPool& threads, const ProgressFn& progress,
                 const std::atomic<bool>& cancelled) {
  uint64_t total_bytes = 0;
  for (const Item& item : items) total_bytes += ItemBytes(item);
  tenon::LoadProgress report(progress, total_bytes);
  std::vector<RowScratch> scratch(static_cast<size_t>(threads.size()));
  threads.ParallelFor(static_cast<int64_t>(items.size()), [&](int64_t i, int thread) {
    if (cancelled.load(std::memory_order_relaxed)) return;
    const size_t ahead = static_cast<size_t>(i) + kPrefetchItems;
    if (ahead < items.size()) items[ahead].weight->source.Prefetch(items[ahead].first_row, items[ahead].num_rows);
    FillItem(items[i], kernels, scratch[thread]);
    report.Add(ItemBytes(items[i]));
  });
}

LoadedWeight Describe(const PlannedWeight& weight) {
  const std::vector<int64_t>& shape = weight.request->shape;
  LoadedWeight loaded{.dtype = weight.request->dtype, .rows = shape[0], .cols = shape.size() > 1 ? shape[1] : 1};
  switch (weight.layout) {
    case Layout::kVector:
      loaded.vector = reinterpret_cast<const float*>(weight.data);
      loaded.dtype = Dtype::kF32;
      break;
    case Layout::kRowMajor: loaded.row_major = weight.data; break;
    case Layout::kPacked:
    case Layout::kGated:
      loaded.packed = {weight.data, loaded.dtype, loaded.rows, loaded.cols, weight.grouping};
      break;
  }
  return loaded;
}

}  // namespace

Status LoadWeights(const std::vector<WeightRequest>& requests, const Kernels& kernels, ThreadPool& threads,
                   tenon::MemoryPool& pool, const ProgressFn& progress, const std::atomic<bool>& cancelled,
                   std::vector<LoadedWeight>* out, void** memory) {
  *memory = nullptr;
  out->clear();
  tenon::MappedFiles files;
  std::vector<PlannedWeight> weights;
  uint64_t total_bytes = 0;
  TENON_RETURN_IF_ERROR(PlanWeights(requests, &files, &weights, &total_bytes));
  if (total_bytes > 0) TENON_RETURN_IF_ERROR(pool.Allocate(tenon::Arena::kWeights, total_bytes, memory));
  for (PlannedWeight& weight : weights) weight.data = static_cast<uint8_t*>(*memory) + weight.offset;
  FillWeights(CutIntoItems(weights), kernels, threads, progress, cancelled);
  Status status = CheckIntact(files);
  if (cancelled) status = Status(StatusCode::kDeviceLost, "loading was given up");
  if (!status.ok()) {
    pool.Free(*memory);
    *memory = nullptr;
    return status;
  }
  for (const PlannedWeight& weight : weights) out->push_back(Describe(weight));
  return Status::Ok();
}

}  // namespace tenon_cpu
