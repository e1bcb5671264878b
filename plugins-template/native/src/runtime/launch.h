// From calls of the SDK to work on the stream: turns the addresses of operands into what device code may follow, then runs, records
// or rebinds a kernel.
#pragma once

#include <memory>

#include "faults.h"
#include "memory.h"
#include "operands.h"
#include "stream.h"
#include "tenon/device.h"

namespace tenon_backend_template {

// Recorded kernels; `to_rebind` are those whose parameters hold values of the step. What is enqueued shares the kernels, so that
// rebinding one does not change a replay that has yet to run.
struct SimGraph final : tenon::Graph {
  std::vector<std::shared_ptr<const sim::Work>> kernels;
  std::vector<size_t> to_rebind;
};

struct Launcher {
  sim::Memory& memory;
  sim::Stream& stream;
  const Faults& faults;
  std::unique_ptr<SimGraph> recording = nullptr;
  SimGraph* rebinding = nullptr;
  size_t num_rebound = 0;

  void Submit(sim::Work work, bool needs_rebind) {
    if (recording == nullptr && rebinding == nullptr) return stream.Enqueue(std::move(work));
    auto kernel = std::make_shared<const sim::Work>(std::move(work));
    if (rebinding != nullptr) {
      rebinding->kernels[rebinding->to_rebind[num_rebound++]] = std::move(kernel);
      return;
    }
    if (needs_rebind) recording->to_rebind.push_back(recording->kernels.size());
    recording->kernels.push_back(std::move(kernel));
  }
};

// One kernel being launched. In and Out replace the device address of an operand; one that is none of the device's makes Run fail,
// and the kernel never starts. Null stays null: an operand that is absent or has no rows.
class Launch {
 public:
  Launch(Launcher& launcher, const char* kernel) : launcher_(launcher), kernel_(kernel) {}

  template <typename T>
  void In(T*& operand, int64_t count) {
    operand = static_cast<T*>(Access(operand, count * static_cast<int64_t>(sizeof(T))));
  }
  void In(const void*& operand, int64_t count, Dtype dtype) {
    CheckType(dtype);
    operand = Access(operand, count * Bytes(dtype));
  }
  void Out(void*& operand, int64_t count, Dtype dtype) {
    CheckType(dtype);
    operand = Access(operand, count * Bytes(dtype));
    SpoilIfWrong({operand, dtype});
  }
  void Out(float*& operand, int64_t count) {
    In(operand, count);
    SpoilIfWrong({operand, Dtype::kF32});
  }
  Matrix In(tenon::MatrixHandle handle) {
    Matrix matrix = *static_cast<const Matrix*>(handle);
    In(matrix.scales, matrix.num_values() / Matrix::kGroupSize);
    matrix.values = Access(matrix.values, matrix.num_values() * matrix.value_bytes());
    return matrix;
  }
  KvLayer InKv(tenon::KvHandle handle) {
    KvLayer layer = *static_cast<const KvLayer*>(handle);
    layer.data.data = Access(layer.data.data, layer.num_elements() * Bytes(layer.data.dtype));
    return layer;
  }
  KvLayer OutKv(tenon::KvHandle handle) {
    const KvLayer layer = InKv(handle);
    SpoilIfWrong(layer.data);
    return layer;
  }
  tenon::StepView In(const tenon::StepView& step) {
    const int32_t* words = step.words();
    In(words, static_cast<int64_t>(step.size_words()));
    return words == nullptr ? step : step.Rebased(words);
  }

  // `kernel()` is run on the device; it may answer with a Status.
  template <typename Kernel>
  tenon::Status Run(Kernel kernel, bool needs_rebind = false) {
    TENON_RETURN_IF_ERROR(status_);
    launcher_.Submit([kernel = std::move(kernel), spoiled = spoiled_] {
      tenon::Status status;
      if constexpr (std::is_void_v<decltype(kernel())>) kernel();
      else status = kernel();
      if (spoiled.data != nullptr) spoiled.Set(0, spoiled[0] + 1);
      return status;
    }, needs_rebind);
    return tenon::Status::Ok();
  }

 private:
  static int64_t Bytes(Dtype dtype) { return tenon::kDtypeBytes[static_cast<int32_t>(dtype)]; }
  void CheckType(Dtype dtype) {
    if (dtype != Dtype::kF32 && dtype != Dtype::kBf16)
      status_ = {tenon::StatusCode::kUnsupportedDtype, std::string(kernel_) + ": the device computes in f32 and bf16"};
  }
  void SpoilIfWrong(const Floats& output) {
    if (launcher_.faults.IsWrong(kernel_)) spoiled_ = output;
  }
  void* Access(const void* address, int64_t bytes) {
    if (address == nullptr || bytes == 0) return nullptr;
    void* data = launcher_.memory.Access(address, static_cast<size_t>(bytes));
    if (data == nullptr)
      status_ = tenon::Status::Error(tenon::StatusCode::kStepFailed, "%s: the %lld bytes at %p are not of one allocation of the device",
                                     kernel_, static_cast<long long>(bytes), address);
    return data;
  }

  Launcher& launcher_;
  const char* kernel_;
  Floats spoiled_;  // by request: see faults.h
  tenon::Status status_;
};

}  // namespace tenon_backend_template
