#include "weights_source.h"

#include <algorithm>
#include <cinttypes>

namespace tenon_cpu {
namespace {

using tenon::Status;
using tenon::StatusCode;
using tenon::WeightPart;
using tenon::WeightRequest;

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

// "'a' [2, 4] + 'b' [3, 4]"
std::string PartsText(const WeightRequest& request) {
  std::string text;
  for (const WeightPart& part : request.parts) {
    text += (text.empty() ? "'" : " + '") + part.name + "' " + ShapeText(part.shape);
  }
  return text;
}

Status OpenFile(const std::string& path, MappedFiles* files, const MappedFile** out) {
  std::unique_ptr<MappedFile>& file = (*files)[path];
  if (file == nullptr) TENON_RETURN_IF_ERROR(MappedFile::Open(path, &file));
  *out = file.get();
  return Status::Ok();
}

// No weight has more, and no size in bytes overflows.
constexpr int64_t kMaxElements = int64_t{1} << 48;

bool IsPossible(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (const int64_t dim : shape) {
    if (dim < 0 || dim > kMaxElements / std::max<int64_t>(elements, 1)) return false;
    elements *= dim;
  }
  return true;
}

Status CheckShapes(const WeightRequest& request) {
  int64_t rows = 0;
  bool fits = IsPossible(request.shape);
  for (const WeightPart& part : request.parts) {
    fits = fits && part.shape.size() == request.shape.size() && part.shape[0] >= 0 && part.shape[0] <= request.shape[0];
    fits = fits && std::equal(part.shape.begin() + 1, part.shape.end(), request.shape.begin() + 1);
    if (fits) rows += part.shape[0];
  }
  if (fits && rows == request.shape[0]) return Status::Ok();
  return Status::Error(StatusCode::kWeightsInvalid, "weight '%s': expected shape %s, found %s", request.name.c_str(),
                       ShapeText(request.shape).c_str(), PartsText(request).c_str());
}

// `elements` per row, or of the whole where it is a vector.
Status CheckBlocks(const WeightRequest& request, const WeightPart& part, const CheckpointFormat& format, int64_t elements) {
  if (elements % format.block_elements == 0) return Status::Ok();
  return Status::Error(StatusCode::kWeightsInvalid,
                       "weight '%s': rows of tensor '%s' have %" PRId64 " elements, not a multiple of %s's block of %" PRId64,
                       request.name.c_str(), part.name.c_str(), elements, part.format.c_str(), format.block_elements);
}

Status CheckBytes(const WeightPart& part, const MappedFile& file, uint64_t expected_bytes) {
  if (part.size_bytes != expected_bytes) {
    return Status::Error(StatusCode::kWeightsInvalid,
                         "file '%s': tensor '%s' of shape %s in %s takes %" PRIu64 " bytes, but the file's header says %" PRIu64,
                         file.path().c_str(), part.name.c_str(), ShapeText(part.shape).c_str(), part.format.c_str(),
                         expected_bytes, part.size_bytes);
  }
  if (part.offset <= file.size() && part.size_bytes <= file.size() - part.offset) return Status::Ok();
  return Status::Error(StatusCode::kWeightsInvalid,
                       "file '%s' is truncated: tensor '%s' ends at byte %" PRIu64 ", the file has %" PRIu64,
                       file.path().c_str(), part.name.c_str(), part.offset + part.size_bytes, file.size());
}

}  // namespace

Status CheckIntact(const MappedFiles& files) {
  for (const auto& [path, file] : files) TENON_RETURN_IF_ERROR(file->CheckIntact());
  return Status::Ok();
}

Status WeightSource::Open(const WeightRequest& request, MappedFiles* files, WeightSource* out) {
  TENON_RETURN_IF_ERROR(CheckShapes(request));
  out->rows_ = request.shape[0];
  out->cols_ = request.shape.size() > 1 ? request.shape[1] : 1;
  int64_t first_row = 0;
  for (const WeightPart& part : request.parts) {
    const CheckpointFormat* format = FindCheckpointFormat(part.format);
    if (format == nullptr) {
      return Status::Error(StatusCode::kUnsupportedQuantization, "weight '%s': tensor '%s' is in format '%s'; supported: %s",
                           request.name.c_str(), part.name.c_str(), part.format.c_str(), CheckpointFormatNames().c_str());
    }
    const bool is_vector = part.shape.size() == 1;
    TENON_RETURN_IF_ERROR(CheckBlocks(request, part, *format, is_vector ? part.shape[0] : out->cols_));
    const MappedFile* file = nullptr;
    TENON_RETURN_IF_ERROR(OpenFile(part.file, files, &file));
    TENON_RETURN_IF_ERROR(CheckBytes(part, *file, static_cast<uint64_t>(format->Bytes(part.shape[0] * out->cols_))));
    out->parts_.push_back({file, format, part.offset, first_row, part.shape[0]});
    first_row += part.shape[0];
  }
  return Status::Ok();
}

uint64_t WeightSource::SizeBytes() const {
  uint64_t bytes = 0;
  for (const Part& part : parts_) bytes += static_cast<uint64_t>(part.format->Bytes(part.num_rows * cols_));
  return bytes;
}

bool WeightSource::IsStoredAs(std::string_view format) const {
  return std::all_of(parts_.begin(), parts_.end(), [&](const Part& part) { return part.format->name == format; });
}

const WeightSource::Part& WeightSource::PartOfRow(int64_t row) const {
  size_t i = 0;
  while (row >= parts_[i].first_row + parts_[i].num_rows) i++;
  return parts_[i];
}

void WeightSource::Hint(void (MappedFile::*hint)(uint64_t, uint64_t) const, int64_t first, int64_t count) const {
  for (const Part& part : parts_) {
    const int64_t begin = std::max(first, part.first_row);
    const int64_t end = std::min(first + count, part.first_row + part.num_rows);
    if (begin >= end) continue;
    const uint64_t row_bytes = RowBytes(part);
    const uint64_t offset = part.offset + static_cast<uint64_t>(begin - part.first_row) * row_bytes;
    (part.file->*hint)(offset, static_cast<uint64_t>(end - begin) * row_bytes);
  }
}

}  // namespace tenon_cpu
