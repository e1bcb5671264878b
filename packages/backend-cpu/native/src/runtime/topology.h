// What this process may use of the machine: CPUs (affinity mask, cgroup quota) and memory (cgroup limits, v1 and v2).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tenon_cpu {

struct CpuLimits {
  // Logical CPUs that the process may run on, grouped by physical core, in ascending order of their first CPU.
  std::vector<std::vector<int>> cores;
  // CPUs' worth of time per second that the cgroups grant; 0: no quota.
  double quota = 0;

  // One thread per physical core, and no more than the quota.
  int DefaultThreads() const;
  // CPU sets for `num_threads` pool threads: each its own core where the pool fills the machine; empty (threads not bound)
  // where it does not, since another process would bind to the same cores.
  std::vector<std::vector<int>> Bindings(int num_threads) const;
};

struct MemoryLimits {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // that may still be taken; file caches count as free
};

// `root`: where /proc and /sys are looked for ("" on a real machine; a folder in tests).
CpuLimits ReadCpuLimits(const std::string& root = "");
MemoryLimits ReadMemoryLimits(const std::string& root = "");
std::string ReadCpuName(const std::string& root = "");

}  // namespace tenon_cpu
