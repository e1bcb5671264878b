// A read-only view of a file, whose pages count to this process only while it reads them.
//
// A page that the file has lost since it was mapped (somebody truncates it, or its disk fails) ends a process that reads it,
// with SIGBUS. While a file is open, these faults are answered with zeros instead, and CheckIntact tells.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "tenon/status.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {

class MappedFile {
 public:
  // Errors: config.weights-missing, with the system's reason; backend.out-of-memory.
  static Status Open(const std::string& path, std::unique_ptr<MappedFile>* out);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  const uint8_t* data() const { return data_; }

  // After reading. Errors: config.weights-invalid, where anything that was read was not there any more.
  Status CheckIntact() const;

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

namespace mapped_file_internal {

#ifdef MADV_POPULATE_READ
inline constexpr int kPopulateRead = MADV_POPULATE_READ;
#else
inline constexpr int kPopulateRead = 22;  // Linux 5.14; older kernels refuse it, and pages fault in one by one
#endif

inline uint64_t PageSize() {
  static const uint64_t size = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

inline Status CannotRead(const std::string& path) {
  if (errno == ENOMEM)
    return Status::Error(StatusCode::kOutOfMemory, "cannot map weights file '%s': %s", path.c_str(), std::strerror(errno));
  return Status::Error(StatusCode::kWeightsMissing, "cannot read weights file '%s': %s", path.c_str(), std::strerror(errno));
}

// Closes the descriptor, whatever happens.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

inline void Advise(const uint8_t* data, uint64_t begin, uint64_t end, int advice) {
  if (begin < end) madvise(const_cast<uint8_t*>(data) + begin, end - begin, advice);
}

}  // namespace mapped_file_internal

// What the signal's handler knows of a file: it may run at any moment, in any thread, and take no lock.
struct MappedFile::Guard {
  std::atomic<uintptr_t> begin;  // 0: free
  std::atomic<uintptr_t> end;
  std::atomic<bool> is_broken;
};

// The process's handler of SIGBUS, which is ours as long as a file is open. Other addons may do the same meanwhile: who is
// not the last to install a handler leaves it in the chain.
class BusErrors {
 public:
  // Null where more files are open than there are guards; a fault in such a file ends the process.
  static MappedFile::Guard* Watch(const uint8_t* data, uint64_t size) {
    const std::lock_guard lock(mutex_);
    for (MappedFile::Guard& guard : guards_) {
      if (guard.begin.load() != 0) continue;
      guard.is_broken.store(false);
      guard.end.store(reinterpret_cast<uintptr_t>(data) + size);
      guard.begin.store(reinterpret_cast<uintptr_t>(data));
      if (num_watched_++ == 0) Install();
      return &guard;
    }
    return nullptr;
  }

  static void Unwatch(MappedFile::Guard* guard) {
    const std::lock_guard lock(mutex_);
    guard->begin.store(0);
    if (--num_watched_ > 0) return;
    struct sigaction current;
    sigaction(SIGBUS, nullptr, &current);
    if (current.sa_sigaction != Handle) return;
    sigaction(SIGBUS, &previous_, nullptr);
    is_installed_ = false;
  }

 private:
  static void Install() {
    if (is_installed_) return;
    is_installed_ = true;
    struct sigaction action = {};
    action.sa_sigaction = Handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGBUS, &action, &previous_);
  }

  // Puts zeros in place of the page and all behind it, which a truncated file has lost as well; the reader goes on. Faults
  // that are not ours happen again, with the handler there was before.
  static void Handle(int, siginfo_t* info, void*) {
    const int error = errno;
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    for (MappedFile::Guard& guard : guards_) {
      const uintptr_t begin = guard.begin.load();
      const uintptr_t end = guard.end.load();
      if (begin == 0 || address < begin || address >= end) continue;
      guard.is_broken.store(true);
      const uintptr_t page = address / mapped_file_internal::PageSize() * mapped_file_internal::PageSize();
      void* zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
      errno = error;
      if (zeros != MAP_FAILED) return;
    }
    sigaction(SIGBUS, &previous_, nullptr);
  }

  static constexpr size_t kMaxFiles = 4096;
  inline static std::mutex mutex_;
  inline static std::array<MappedFile::Guard, kMaxFiles> guards_{};
  inline static int num_watched_ = 0;
  inline static bool is_installed_ = false;
  inline static struct sigaction previous_ = {};
};

inline MappedFile::MappedFile(std::string path, const uint8_t* data, uint64_t size)
    : path_(std::move(path)), data_(data), size_(size), guard_(data == nullptr ? nullptr : BusErrors::Watch(data, size)) {}

inline MappedFile::~MappedFile() {
  if (guard_ != nullptr) BusErrors::Unwatch(guard_);
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

inline Status MappedFile::Open(const std::string& path, std::unique_ptr<MappedFile>* out) {
  const mapped_file_internal::Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  struct stat info;
  if (file.fd < 0 || fstat(file.fd, &info) != 0) return mapped_file_internal::CannotRead(path);
  if (!S_ISREG(info.st_mode)) {
    return Status::Error(StatusCode::kWeightsMissing, "weights file '%s' is not a file", path.c_str());
  }
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  void* data = nullptr;  // an empty file cannot be mapped
  if (size > 0) {
    data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (data == MAP_FAILED) return mapped_file_internal::CannotRead(path);
  }
  out->reset(new MappedFile(path, static_cast<const uint8_t*>(data), size));
  return Status::Ok();
}

inline Status MappedFile::CheckIntact() const {
  if (guard_ == nullptr || !guard_->is_broken.load()) return Status::Ok();
  return Status::Error(StatusCode::kWeightsInvalid,
                       "file '%s' could not be read to its end: it was truncated while it was loaded, or its disk failed; "
                       "copy or download it again",
                       path_.c_str());
}

inline void MappedFile::Prefetch(uint64_t offset, uint64_t bytes) const {
  mapped_file_internal::Advise(data_, offset / mapped_file_internal::PageSize() * mapped_file_internal::PageSize(), offset + bytes, MADV_WILLNEED);
}

inline void MappedFile::Populate(uint64_t offset, uint64_t bytes) const {
  mapped_file_internal::Advise(data_, offset / mapped_file_internal::PageSize() * mapped_file_internal::PageSize(), offset + bytes, mapped_file_internal::kPopulateRead);
}

inline void MappedFile::Release(uint64_t offset, uint64_t bytes) const {
  const uint64_t begin = (offset + mapped_file_internal::PageSize() - 1) / mapped_file_internal::PageSize() * mapped_file_internal::PageSize();
  mapped_file_internal::Advise(data_, begin, (offset + bytes) / mapped_file_internal::PageSize() * mapped_file_internal::PageSize(), MADV_DONTNEED);
}

}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
