// Where a weight's rows lie in the checkpoint, checked against what the plan wants before anything is read.
#pragma once

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tenon/checkpoint/formats.h"
#include "tenon/checkpoint/mapped_file.h"
#include "tenon/status.h"
#include "tenon/weights.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

// Files by path, each opened once.
using MappedFiles = std::map<std::string, std::unique_ptr<MappedFile>>;

// After reading: the first error of MappedFile::CheckIntact.
Status CheckIntact(const MappedFiles& files);

// A matrix [rows, cols] (a vector: [rows, 1]) whose rows lie in one or more checkpoint tensors, one after the other.
class WeightSource {
 public:
  struct Part {
    const MappedFile* file;
    const CheckpointFormat* format;
    uint64_t offset;     // of its first row in the file
    int64_t first_row;   // of the weight
    int64_t num_rows;
  };

  // Opens the files and checks formats, shapes, and sizes. Errors: config.weights-missing, config.weights-invalid,
  // unsupported.quantization; they name the weight, the tensor, what was expected and what was found. `request`, whose
  // values a constant has, and `files` outlive the source.
  static Status Open(const WeightRequest& request, MappedFiles* files, WeightSource* out);

  // Values of rows [first, first + count) of a matrix as numbers of `dtype` (f32, bf16, f16): dst [count, cols]. `scratch`
  // grows to one row.
  void ReadRows(int64_t first, int64_t count, Dtype dtype, void* dst, std::vector<float>* scratch) const;
  // All values of a vector: dst [rows].
  void ReadVector(float* dst) const;
  // Row `row` of a matrix as f32: in place where the file holds it so, else in `scratch` [cols].
  const float* RowAsF32(int64_t row, float* scratch) const;

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  const std::vector<Part>& parts() const { return parts_; }
  uint64_t SizeBytes() const;

  // Whether every part is stored in that format.
  bool IsStoredAs(std::string_view format) const;
  uint64_t RowBytes(const Part& part) const { return static_cast<uint64_t>(part.format->Bytes(cols_)); }
  const Part& PartOfRow(int64_t row) const;
  const uint8_t* Row(const Part& part, int64_t row) const {
    return part.file->data() + part.offset + static_cast<uint64_t>(row - part.first_row) * RowBytes(part);
  }

  // MappedFile's hints, about rows [first, first + count).
  void Prefetch(int64_t first, int64_t count) const { Hint(&MappedFile::Prefetch, first, count); }
  void Populate(int64_t first, int64_t count) const { Hint(&MappedFile::Populate, first, count); }
  void Release(int64_t first, int64_t count) const { Hint(&MappedFile::Release, first, count); }

 private:
  void Hint(void (MappedFile::*hint)(uint64_t, uint64_t) const, int64_t first, int64_t count) const;

  int64_t rows_ = 0;
  int64_t cols_ = 1;
  std::vector<Part> parts_;
  const std::vector<float>* constant_ = nullptr;  // of a weight without parts
};

namespace weight_source_internal {

inline std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

// "'a' [2, 4] + 'b' [3, 4]"
inline std::string PartsText(const WeightRequest& request) {
  std::string text;
  for (const WeightPart& part : request.parts) {
    text += (text.empty() ? "'" : " + '") + part.name + "' " + ShapeText(part.shape);
  }
  return text;
}

inline Status OpenFile(const std::string& path, MappedFiles* files, const MappedFile** out) {
  std::unique_ptr<MappedFile>& file = (*files)[path];
  if (file == nullptr) TENON_RETURN_IF_ERROR(MappedFile::Open(path, &file));
  *out = file.get();
  return Status::Ok();
}

// No weight has more, and no size in bytes overflows.
inline constexpr int64_t kMaxElements = int64_t{1} << 48;

inline bool IsPossible(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (const int64_t dim : shape) {
    if (dim < 0 || dim > kMaxElements / std::max<int64_t>(elements, 1)) return false;
    elements *= dim;
  }
  return true;
}

inline Status CheckShapes(const WeightRequest& request) {
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
inline Status CheckBlocks(const WeightRequest& request, const WeightPart& part, const CheckpointFormat& format, int64_t elements) {
  if (elements % format.block_elements == 0) return Status::Ok();
  return Status::Error(StatusCode::kWeightsInvalid,
                       "weight '%s': rows of tensor '%s' have %" PRId64 " elements, not a multiple of %s's block of %" PRId64,
                       request.name.c_str(), part.name.c_str(), elements, part.format.c_str(), format.block_elements);
}

inline Status CheckBytes(const WeightPart& part, const MappedFile& file, uint64_t expected_bytes) {
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

inline Status CheckConstant(const WeightRequest& request) {
  const char* problem = request.shape.size() != 1                                        ? "that is not a vector"
                        : static_cast<int64_t>(request.data.size()) != request.shape[0] ? "of another size"
                                                                                         : nullptr;
  if (problem == nullptr) return Status::Ok();
  return Status::Error(StatusCode::kInternal, "weight '%s': a constant %s", request.name.c_str(), problem);
}

}  // namespace weight_source_internal

inline Status CheckIntact(const MappedFiles& files) {
  for (const auto& [path, file] : files) TENON_RETURN_IF_ERROR(file->CheckIntact());
  return Status::Ok();
}

inline Status WeightSource::Open(const WeightRequest& request, MappedFiles* files, WeightSource* out) {
  if (request.parts.empty()) {
    TENON_RETURN_IF_ERROR(weight_source_internal::CheckConstant(request));
    out->rows_ = request.shape[0];
    out->constant_ = &request.data;
    return Status::Ok();
  }
  TENON_RETURN_IF_ERROR(weight_source_internal::CheckShapes(request));
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
    TENON_RETURN_IF_ERROR(weight_source_internal::CheckBlocks(request, part, *format, is_vector ? part.shape[0] : out->cols_));
    const MappedFile* file = nullptr;
    TENON_RETURN_IF_ERROR(weight_source_internal::OpenFile(part.file, files, &file));
    TENON_RETURN_IF_ERROR(weight_source_internal::CheckBytes(part, *file, static_cast<uint64_t>(format->Bytes(part.shape[0] * out->cols_))));
    out->parts_.push_back({file, format, part.offset, first_row, part.shape[0]});
    first_row += part.shape[0];
  }
  return Status::Ok();
}

inline uint64_t WeightSource::SizeBytes() const {
  uint64_t bytes = 0;
  for (const Part& part : parts_) bytes += static_cast<uint64_t>(part.format->Bytes(part.num_rows * cols_));
  return bytes;
}

inline bool WeightSource::IsStoredAs(std::string_view format) const {
  return std::all_of(parts_.begin(), parts_.end(), [&](const Part& part) { return part.format->name == format; });
}

inline const WeightSource::Part& WeightSource::PartOfRow(int64_t row) const {
  size_t i = 0;
  while (row >= parts_[i].first_row + parts_[i].num_rows) i++;
  return parts_[i];
}

inline const float* WeightSource::RowAsF32(int64_t row, float* scratch) const {
  const Part& part = PartOfRow(row);
  const uint8_t* src = Row(part, row);
  if (part.format->name == "F32" && reinterpret_cast<uintptr_t>(src) % alignof(float) == 0)
    return reinterpret_cast<const float*>(src);
  part.format->Dequantize(src, cols_ / part.format->block_elements, scratch);
  return scratch;
}

inline void WeightSource::ReadRows(int64_t first, int64_t count, Dtype dtype, void* dst,
                                   std::vector<float>* scratch) const {
  const size_t row_bytes = static_cast<size_t>(cols_ * kDtypeBytes[static_cast<int32_t>(dtype)]);
  const bool as_is = IsStoredAs(dtype == Dtype::kF32 ? "F32" : dtype == Dtype::kBf16 ? "BF16" : "F16");
  if (!as_is && scratch->size() < static_cast<size_t>(cols_)) scratch->resize(static_cast<size_t>(cols_));
  auto* out = static_cast<uint8_t*>(dst);
  for (int64_t row = first; row < first + count; ++row, out += row_bytes) {
    if (as_is) {
      std::memcpy(out, Row(PartOfRow(row), row), row_bytes);
      continue;
    }
    const float* values = RowAsF32(row, scratch->data());
    if (dtype == Dtype::kF32) std::memcpy(out, values, row_bytes);
    if (dtype == Dtype::kBf16) ConvertToBf16(values, cols_, reinterpret_cast<uint16_t*>(out));
    if (dtype == Dtype::kF16) ConvertToF16(values, cols_, reinterpret_cast<uint16_t*>(out));
  }
}

inline void WeightSource::ReadVector(float* dst) const {
  if (constant_ != nullptr) std::copy(constant_->begin(), constant_->end(), dst);
  for (const Part& part : parts_)
    part.format->Dequantize(part.file->data() + part.offset, part.num_rows / part.format->block_elements,
                            dst + part.first_row);
}

inline void WeightSource::Hint(void (MappedFile::*hint)(uint64_t, uint64_t) const, int64_t first, int64_t count) const {
  for (const Part& part : parts_) {
    const int64_t begin = std::max(first, part.first_row);
    const int64_t end = std::min(first + count, part.first_row + part.num_rows);
    if (begin >= end) continue;
    const uint64_t row_bytes = RowBytes(part);
    const uint64_t offset = part.offset + static_cast<uint64_t>(begin - part.first_row) * row_bytes;
    (part.file->*hint)(offset, static_cast<uint64_t>(end - begin) * row_bytes);
  }
}

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
