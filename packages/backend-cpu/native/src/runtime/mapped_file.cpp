#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace tenon_cpu {
namespace {

using tenon::Status;
using tenon::StatusCode;

#ifdef MADV_POPULATE_READ
constexpr int kPopulateRead = MADV_POPULATE_READ;
#else
constexpr int kPopulateRead = 22;  // Linux 5.14; older kernels refuse it, and pages fault in one by one
#endif

uint64_t PageSize() {
  static const uint64_t size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

Status CannotRead(const std::string& path) {
  return Status::Error(StatusCode::kWeightsMissing, "cannot read weights file '%s': %s", path.c_str(), std::strerror(errno));
}

// Closes the descriptor, whatever happens.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

void Advise(const uint8_t* data, uint64_t begin, uint64_t end, int advice) {
  if (begin < end) madvise(const_cast<uint8_t*>(data) + begin, end - begin, advice);
}

}  // namespace

MappedFile::MappedFile(std::string path, const uint8_t* data, uint64_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

Status MappedFile::Open(const std::string& path, std::unique_ptr<MappedFile>* out) {
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat info;
  if (file.fd < 0 || fstat(file.fd, &info) != 0) return CannotRead(path);
  if (!S_ISREG(info.st_mode)) {
    return Status::Error(StatusCode::kWeightsMissing, "weights file '%s' is not a file", path.c_str());
  }
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  void* data = nullptr;  // an empty file cannot be mapped
  if (size > 0) {
    data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (data == MAP_FAILED) return CannotRead(path);
  }
  out->reset(new MappedFile(path, static_cast<const uint8_t*>(data), size));
  return Status::Ok();
}

void MappedFile::Prefetch(uint64_t offset, uint64_t bytes) const {
  Advise(data_, offset / PageSize() * PageSize(), offset + bytes, MADV_WILLNEED);
}

void MappedFile::Populate(uint64_t offset, uint64_t bytes) const {
  Advise(data_, offset / PageSize() * PageSize(), offset + bytes, kPopulateRead);
}

void MappedFile::Release(uint64_t offset, uint64_t bytes) const {
  const uint64_t begin = (offset + PageSize() - 1) / PageSize() * PageSize();
  Advise(data_, begin, (offset + bytes) / PageSize() * PageSize(), MADV_DONTNEED);
}

}  // namespace tenon_cpu
