// A read-only view of a file, whose pages count to this process only while it reads them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tenon/status.h"

namespace tenon_cpu {

class MappedFile {
 public:
  // Errors: config.weights-missing, with the system's reason.
  static tenon::Status Open(const std::string& path, std::unique_ptr<MappedFile>* out);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  const uint8_t* data() const { return data_; }

  // Hints about bytes [offset, offset + bytes), which lie in the file. None can fail in a way that matters.
  // Will be needed soon: starts reading from the disk.
  void Prefetch(uint64_t offset, uint64_t bytes) const;
  // Will be read now: maps the pages in one go instead of by faults.
  void Populate(uint64_t offset, uint64_t bytes) const;
  // Has been read: unmaps the pages that lie wholly in the range; the page cache keeps them.
  void Release(uint64_t offset, uint64_t bytes) const;

 private:
  MappedFile(std::string path, const uint8_t* data, uint64_t size);

  std::string path_;
  const uint8_t* data_;
  uint64_t size_;
};

}  // namespace tenon_cpu
