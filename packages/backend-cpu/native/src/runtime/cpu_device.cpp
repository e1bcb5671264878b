#include "cpu_device.h"

#include <algorithm>
#include <cstdlib>

#include "cpu_session.h"
#include "topology.h"

namespace tenon_cpu {
namespace {

using tenon::Status;
using tenon::StatusCode;

constexpr const char* kDeviceId = "cpu:0";
constexpr int kMaxThreads = 1024;

// Kernels that TENON_CPU_ISA names, or the best that the machine runs.
Status ChooseKernels(const Kernels** kernels) {
  *kernels = GetKernels(BestIsa());
  const char* name = std::getenv("TENON_CPU_ISA");
  if (name == nullptr || *name == '\0') return Status::Ok();
  Isa isa;
  if (IsaByName(name, &isa) && CanRun(isa)) return Status::Ok();
  std::string runnable;
  for (const Isa candidate : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx})
    if (CanRun(candidate)) runnable += std::string(runnable.empty() ? "" : ", ") + GetKernels(candidate)->name;
  return Status::Error(StatusCode::kInvalidEnvironment, "TENON_CPU_ISA is '%s'; this machine runs: %s", name,
                       runnable.c_str());
}

// Threads that the caller or TENON_CPU_THREADS asks for, or one per core that the process may use.
Status ChooseThreads(int requested, const CpuLimits& limits, int* num_threads) {
  *num_threads = requested > 0 ? requested : limits.DefaultThreads();
  const char* text = std::getenv("TENON_CPU_THREADS");
  if (requested > 0 || text == nullptr || *text == '\0') return Status::Ok();
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (*end != '\0' || value < 1 || value > kMaxThreads)
    return Status::Error(StatusCode::kInvalidEnvironment, "TENON_CPU_THREADS is '%s'; a number from 1 to %d is expected",
                         text, kMaxThreads);
  *num_threads = static_cast<int>(value);
  return Status::Ok();
}

}  // namespace

tenon::SchedulingConstraints CpuGroup::Constraints() const {
  // 512 tokens are well past the point where weights are read for free, and keep steps short enough that running requests do
  // not stutter while a prompt is read. They take a third of a second; a quarter of them is nearly as efficient.
  const int batched_tokens = std::clamp(512 * threads_.size() / 2, 512, 2048);
  return {.block_sizes = {32, 16, 64, 128},
          .steps_in_flight = 2,
          .preferred_batched_tokens = batched_tokens,
          .preferred_seqs = 128,
          .preferred_prompt_tokens_beside_decodes = batched_tokens / 4,
          // Less than one core does with the plainest kernels.
          .slowest_operations_per_second = 5e9};
}

int64_t CpuGroup::KvBlockBytes(const tenon::PlanKvLayer& layer, int block_size) const {
  return 2 * tenon_cpu::KvBlockBytes(layer, block_size);
}

tenon::OpAnswer CpuGroup::Negotiate(const tenon::OpQuery& query) const { return AnswerFor(query, kernels_); }

Status CpuGroup::CreateSession(const tenon::Plan& plan, std::unique_ptr<tenon::Session>* session) {
  *session = std::make_unique<CpuSession>(plan, kernels_, threads_, ReadMemoryLimits().free_bytes);
  return Status::Ok();
}

std::vector<std::pair<std::string, std::string>> CpuBackend::Runtime() {
  const Kernels* kernels = nullptr;
  int num_threads = 0;
  const CpuLimits limits = ReadCpuLimits();
  // Values that cannot be followed are reported by Devices and Open.
  if (!ChooseKernels(&kernels).ok()) kernels = GetKernels(BestIsa());
  if (!ChooseThreads(0, limits, &num_threads).ok()) num_threads = limits.DefaultThreads();
  return {{"isa", kernels->name}, {"threads", std::to_string(num_threads)}};
}

Status CpuBackend::Devices(std::vector<tenon::DeviceInfo>* devices) {
  const Kernels* kernels = nullptr;
  int num_threads = 0;
  Status status = ChooseKernels(&kernels);
  if (status.ok()) status = ChooseThreads(0, ReadCpuLimits(), &num_threads);
  const MemoryLimits memory = ReadMemoryLimits();
  devices->push_back({.id = kDeviceId,
                      .device_class = "cpu",
                      .name = ReadCpuName(),
                      .usable = status.ok(),
                      .reason = status.message(),
                      .remedy = status.ok() ? "" : "correct or unset the environment variable",
                      .memory_bytes = memory.total_bytes,
                      .free_bytes = memory.free_bytes,
                      .memory_is_shared = true,
                      .dtypes = {Dtype::kBf16, Dtype::kF16, Dtype::kF32},
                      .preferred_dtype = Dtype::kBf16});
  return Status::Ok();
}

Status CpuBackend::Open(const tenon::OpenOptions& options, std::unique_ptr<tenon::DeviceGroup>* group) {
  if (options.device_ids.size() != 1 || options.device_ids[0] != kDeviceId)
    return Status::Error(StatusCode::kDeviceNotFound, "the CPU backend has the device '%s' alone, which is one rank",
                         kDeviceId);
  if (options.num_ranks != 1)
    return Status::Error(StatusCode::kInvalidOption, "the CPU backend computes alone; a group of %d ranks was asked for",
                         options.num_ranks);
  if (options.num_threads < 0 || options.num_threads > kMaxThreads)
    return Status::Error(StatusCode::kInvalidOption, "numThreads is %d; 1 to %d are possible", options.num_threads,
                         kMaxThreads);
  const Kernels* kernels = nullptr;
  TENON_RETURN_IF_ERROR(ChooseKernels(&kernels));
  const CpuLimits limits = ReadCpuLimits();
  int num_threads = 0;
  TENON_RETURN_IF_ERROR(ChooseThreads(options.num_threads, limits, &num_threads));
  *group = std::make_unique<CpuGroup>(*kernels, num_threads, limits.Bindings(num_threads));
  return Status::Ok();
}

}  // namespace tenon_cpu
