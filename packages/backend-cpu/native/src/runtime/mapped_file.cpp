#include "mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
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

void Advise(const uint8_t* data, uint64_t begin, uint64_t end, int advice) {
  if (begin < end) madvise(const_cast<uint8_t*>(data) + begin, end - begin, advice);
}

}  // namespace

// What the signal's handler knows of a file: it may run at any moment, in any thread, and take no lock.
struct MappedFile::Guard {
  std::atomic<uintptr_t> begin;  // 0: free
  std::atomic<uintptr_t> end;
  std::atomic<bool> is_broken;
};

// The process's handler of SIGBUS, which is ours as long as a file is open.
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
    if (--num_watched_ == 0) sigaction(SIGBUS, &previous_, nullptr);
  }

 private:
  static void Install() {
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
      const uintptr_t page = address / PageSize() * PageSize();
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
  inline static struct sigaction previous_ = {};
};

MappedFile::MappedFile(std::string path, const uint8_t* data, uint64_t size)
    : path_(std::move(path)), data_(data), size_(size), guard_(data == nullptr ? nullptr : BusErrors::Watch(data, size)) {}

MappedFile::~MappedFile() {
  if (guard_ != nullptr) BusErrors::Unwatch(guard_);
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

Status MappedFile::CheckIntact() const {
  if (guard_ == nullptr || !guard_->is_broken.load()) return Status::Ok();
  return Status::Error(StatusCode::kWeightsInvalid,
                       "file '%s' could not be read to its end: it was truncated while it was loaded, or its disk failed; "
                       "copy or download it again",
                       path_.c_str());
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
