// Where a weight's rows lie in the checkpoint, checked against what the plan wants before anything is read.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dequant.h"
#include "mapped_file.h"
#include "tenon/status.h"
#include "tenon/weights.h"

namespace tenon_cpu {

// Files by path, each opened once.
using MappedFiles = std::map<std::string, std::unique_ptr<MappedFile>>;

// After reading: the first error of MappedFile::CheckIntact.
tenon::Status CheckIntact(const MappedFiles& files);

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
  // unsupported.quantization; they name the weight, the tensor, what was expected and what was found.
  static tenon::Status Open(const tenon::WeightRequest& request, MappedFiles* files, WeightSource* out);

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
};

}  // namespace tenon_cpu
