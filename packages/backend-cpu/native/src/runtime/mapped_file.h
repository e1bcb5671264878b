// A read-only view of a file, whose pages count to this process only while it reads them.
//
// A page that the file has lost since it was mapped (somebody truncates it, or its disk fails) ends a process that reads it,
// with SIGBUS. While a file is open, these faults are answered with zeros instead, and CheckIntact tells.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tenon/status.h"

namespace tenon_cpu {

class MappedFile {
 public:
  // Errors: config.weights-missing, with the system's reason; backend.out-of-memory.
  static tenon::Status Open(const std::string& path, std::unique_ptr<MappedFile>* out);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  const uint8_t* data() const { return data_; }

  // After reading. Errors: config.weights-invalid, where anything that was read was not there any more.
  tenon::Status CheckIntact() const;

  // Hints about bytes [offset, offset + bytes), which lie in the file. None can fail in a way that matters.
  // Will be needed soon: starts reading from the disk.
  void Prefetch(uint64_t offset, uint64_t bytes) const;
  // Will be read now: maps the pages in one go instead of by faults.
  void Populate(uint64_t offset, uint64_t bytes) const;
  // Has been read: unmaps the pages that lie wholly in the range; the page cache keeps them.
  void Release(uint64_t offset, uint64_t bytes) const;

 private:
  MappedFile(std::string path, const uint8_t* data, uint64_t size);

  struct Guard;
  friend class BusErrors;

  std::string path_;
  const uint8_t* data_;
  uint64_t size_;
  Guard* guard_;  // null: of no bytes
};

}  // namespace tenon_cpu
