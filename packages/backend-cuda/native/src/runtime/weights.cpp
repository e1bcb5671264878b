#include "weights.h"

#include <algorithm>
#include <mutex>
#include <thread>

#include "cuda_status.h"
#include "tenon/checkpoint/weight_source.h"

namespace tenon_cuda {
namespace {

using tenon::Dtype;
using tenon::Status;
using tenon::StatusCode;
using tenon::WeightRequest;
using tenon::WeightSource;
using tenon::WeightUse;

constexpr size_t kAlignment = 256;
constexpr size_t kBufferBytes = size_t{8} << 20;
constexpr int kBuffers = 2;  // of a thread
constexpr unsigned kMaxThreads = 8;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

struct PlannedWeight {
  WeightSource source;
  bool is_vector;
  Dtype dtype;
  size_t row_bytes;
  size_t offset;
};

// Rows of a weight that fit into a buffer; of a vector, all of it.
struct Item {
  const PlannedWeight* weight;
  int64_t first_row, num_rows;
};

Status PlanWeight(const WeightRequest& request, tenon::MappedFiles* files, size_t* total, PlannedWeight* weight) {
  if (request.scheme != tenon::WeightScheme::kNone)
    return Status::Error(StatusCode::kUnsupportedQuantization, "weight '%s': the GPU holds no quantized weights", request.name.c_str());
  TENON_RETURN_IF_ERROR(WeightSource::Open(request, files, &weight->source));
  weight->is_vector = request.Has(WeightUse::kVector);
  weight->dtype = weight->is_vector ? Dtype::kF32 : request.dtype;
  weight->row_bytes = static_cast<size_t>(weight->source.cols() * tenon::kDtypeBytes[static_cast<int32_t>(weight->dtype)]);
  weight->offset = *total;
  *total += RoundUp(weight->row_bytes * static_cast<size_t>(weight->source.rows()), kAlignment);
  return Status::Ok();
}

void AddItems(const PlannedWeight& weight, std::vector<Item>* items) {
  const int64_t rows = weight.source.rows();
  const auto fitting = static_cast<int64_t>(kBufferBytes / std::max<size_t>(weight.row_bytes, 1));
  const int64_t each = weight.is_vector ? rows : std::max<int64_t>(fitting, 1);
  for (int64_t first = 0; first < rows; first += each) items->push_back({&weight, first, std::min(each, rows - first)});
}

// Shared by the threads of a load.
class Loading {
 public:
  Loading(std::vector<Item> items, size_t buffer_bytes, uint8_t* data, uint64_t total_bytes, const std::atomic<bool>& cancelled,
          const tenon::ProgressFn& progress)
      : items_(std::move(items)), buffer_bytes_(buffer_bytes), data_(data), total_bytes_(total_bytes), cancelled_(cancelled),
        progress_(progress) {
    cudaGetDevice(&device_);
  }

  Status Run() {
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
    const size_t count = std::min<size_t>({kMaxThreads, cores, items_.size()});
    std::vector<std::thread> threads;
    for (size_t i = 0; i < count; ++i) threads.emplace_back([this] { Note(Work()); });
    for (std::thread& thread : threads) thread.join();
    return status_;
  }

 private:
  struct Buffer {
    void* pinned = nullptr;
    cudaEvent_t copied = nullptr;
  };

  Status Work() {
    TENON_CUDA(cudaSetDevice(device_));
    cudaStream_t stream = nullptr;
    TENON_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    Buffer buffers[kBuffers];
    Status status = CopyAll(stream, buffers);
    if (status.ok()) status = FromCuda(cudaStreamSynchronize(stream), "copying weights");
    for (Buffer& buffer : buffers) {
      if (buffer.copied != nullptr) cudaEventDestroy(buffer.copied);
      if (buffer.pinned != nullptr) cudaFreeHost(buffer.pinned);
    }
    cudaStreamDestroy(stream);
    return status;
  }

  Status CopyAll(cudaStream_t stream, Buffer (&buffers)[kBuffers]) {
    std::vector<float> scratch;
    for (int turn = 0;; turn = (turn + 1) % kBuffers) {
      const size_t i = next_.fetch_add(1);
      if (i >= items_.size() || failed_.load()) return Status::Ok();
      if (cancelled_.load()) return Status(StatusCode::kDeviceLost, "loading was given up");
      Buffer& buffer = buffers[turn];
      if (buffer.pinned == nullptr) {
        TENON_CUDA(cudaHostAlloc(&buffer.pinned, buffer_bytes_, cudaHostAllocDefault));
        TENON_CUDA(cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming));
      }
      TENON_CUDA(cudaEventSynchronize(buffer.copied));
      TENON_RETURN_IF_ERROR(CopyItem(items_[i], buffer, stream, &scratch));
    }
  }

  Status CopyItem(const Item& item, Buffer& buffer, cudaStream_t stream, std::vector<float>* scratch) {
    const PlannedWeight& weight = *item.weight;
    if (weight.is_vector) weight.source.ReadVector(static_cast<float*>(buffer.pinned));
    else weight.source.ReadRows(item.first_row, item.num_rows, weight.dtype, buffer.pinned, scratch);
    const size_t bytes = static_cast<size_t>(item.num_rows) * weight.row_bytes;
    uint8_t* to = data_ + weight.offset + static_cast<size_t>(item.first_row) * weight.row_bytes;
    TENON_CUDA(cudaMemcpyAsync(to, buffer.pinned, bytes, cudaMemcpyHostToDevice, stream));
    TENON_CUDA(cudaEventRecord(buffer.copied, stream));
    const uint64_t share = weight.source.rows() == 0 ? 0 : weight.source.SizeBytes() * static_cast<uint64_t>(item.num_rows) /
                                                              static_cast<uint64_t>(weight.source.rows());
    if (progress_) progress_(loaded_bytes_.fetch_add(share) + share, total_bytes_);
    return Status::Ok();
  }

  void Note(Status status) {
    if (status.ok()) return;
    const std::lock_guard lock(mutex_);
    if (!failed_.exchange(true)) status_ = std::move(status);
  }

  const std::vector<Item> items_;
  const size_t buffer_bytes_;
  uint8_t* const data_;
  const uint64_t total_bytes_;
  const std::atomic<bool>& cancelled_;
  const tenon::ProgressFn& progress_;
  int device_ = 0;
  std::atomic<size_t> next_{0};
  std::atomic<uint64_t> loaded_bytes_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  Status status_;
};

}  // namespace

Status LoadWeights(const std::vector<WeightRequest>& requests, Pool& pool, const std::atomic<bool>& cancelled,
                   const tenon::ProgressFn& progress, std::vector<LoadedWeight>* out) {
  tenon::MappedFiles files;
  std::vector<PlannedWeight> weights(requests.size());
  size_t total = 0, largest = kBufferBytes;
  uint64_t file_bytes = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    TENON_RETURN_IF_ERROR(PlanWeight(requests[i], &files, &total, &weights[i]));
    const size_t vector_bytes = static_cast<size_t>(weights[i].source.rows()) * weights[i].row_bytes;
    largest = std::max(largest, weights[i].is_vector ? vector_bytes : weights[i].row_bytes);
    file_bytes += weights[i].source.SizeBytes();
  }
  void* data = nullptr;
  TENON_RETURN_IF_ERROR(pool.Allocate(tenon::Arena::kWeights, total, &data));
  std::vector<Item> items;
  for (const PlannedWeight& weight : weights) {
    AddItems(weight, &items);
    out->push_back({static_cast<uint8_t*>(data) + weight.offset});
  }
  TENON_RETURN_IF_ERROR(Loading(std::move(items), largest, static_cast<uint8_t*>(data), file_bytes, cancelled, progress).Run());
  return CheckIntact(files);
}

}  // namespace tenon_cuda
