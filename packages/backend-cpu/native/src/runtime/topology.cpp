#include "topology.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>

namespace tenon_cpu {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return file ? text.str() : "";
}

// A number at the start of the text; "max", an empty file and nonsense give none.
std::optional<uint64_t> ParseNumber(const std::string& text) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return std::nullopt;
  return std::strtoull(text.c_str(), nullptr, 10);
}

// The value of `key` in lines like "key 123" or "key:  123 kB".
std::optional<uint64_t> FindNumber(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t digit = line.find_first_not_of(": \t", key.size());
    if (digit == key.size() || digit == std::string::npos) continue;
    return ParseNumber(line.substr(digit));
  }
  return std::nullopt;
}

// The process's path in the hierarchy of `controller` (v1), or in the unified one ("").
std::optional<std::string> CgroupPath(const std::string& cgroups, const std::string& controller) {
  std::istringstream lines(cgroups);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    std::string names = ",";
    names.append(line, first + 1, second - first - 1).append(",");
    const bool match = controller.empty() ? names == ",," : names.find("," + controller + ",") != std::string::npos;
    if (match) return line.substr(second + 1);
  }
  return std::nullopt;
}

// Folders of the process's cgroup and its ancestors, innermost first. In a container the path may lie outside of what is
// mounted; then only the mount's root is left, which is the container's own cgroup.
std::vector<std::string> CgroupFolders(const std::string& mount, std::string path) {
  std::vector<std::string> folders;
  while (path.size() > 1) {
    folders.push_back(mount + path);
    path.resize(path.rfind('/'));
  }
  folders.push_back(mount);
  return folders;
}

struct Hierarchy {
  std::vector<std::string> folders;
  bool unified;
};

Hierarchy FindHierarchy(const std::string& root, const std::string& controller) {
  const std::string cgroups = ReadFile(root + "/proc/self/cgroup");
  const std::string mount = root + "/sys/fs/cgroup";
  if (const auto path = CgroupPath(cgroups, controller)) return {CgroupFolders(mount + "/" + controller, *path), false};
  return {CgroupFolders(mount, CgroupPath(cgroups, "").value_or("/")), true};
}

double ReadQuota(const std::string& root) {
  const Hierarchy hierarchy = FindHierarchy(root, "cpu");
  double quota = 0;
  for (const std::string& folder : hierarchy.folders) {
    std::optional<uint64_t> share, period;
    if (hierarchy.unified) {
      const std::string text = ReadFile(folder + "/cpu.max");  // "max 100000" or "150000 100000"
      const size_t space = text.find(' ');
      share = ParseNumber(text);
      if (space != std::string::npos) period = ParseNumber(text.substr(space + 1));
    } else {
      share = ParseNumber(ReadFile(folder + "/cpu.cfs_quota_us"));  // "-1": none
      period = ParseNumber(ReadFile(folder + "/cpu.cfs_period_us"));
    }
    if (!share || !period || *period == 0) continue;
    const double cpus = static_cast<double>(*share) / static_cast<double>(*period);
    quota = quota == 0 ? cpus : std::min(quota, cpus);
  }
  return quota;
}

// First CPU of the core that `cpu` belongs to: the lowest of its siblings ("0,64" or "0-1").
int CoreOf(const std::string& root, int cpu) {
  const std::string path =
      root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
  return static_cast<int>(ParseNumber(ReadFile(path)).value_or(static_cast<uint64_t>(cpu)));
}

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  // Machines of more than 1024 CPUs need a larger set than cpu_set_t.
  for (int max_cpus = CPU_SETSIZE; max_cpus <= 1 << 16; max_cpus *= 4) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(max_cpus));
    const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(max_cpus));
    CPU_ZERO_S(size, set);
    const bool known = sched_getaffinity(0, size, set) == 0;
    for (int cpu = 0; known && cpu < max_cpus; ++cpu)
      if (CPU_ISSET_S(static_cast<size_t>(cpu), size, set)) cpus.push_back(cpu);
    CPU_FREE(set);
    if (known) break;
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

// Lowers the limits to those of one cgroup folder.
void ApplyMemoryCgroup(const std::string& folder, bool unified, MemoryLimits* limits) {
  const auto limit = ParseNumber(ReadFile(folder + (unified ? "/memory.max" : "/memory.limit_in_bytes")));
  if (!limit || *limit >= limits->total_bytes) return;
  const auto usage = ParseNumber(ReadFile(folder + (unified ? "/memory.current" : "/memory.usage_in_bytes")));
  const std::string stat = ReadFile(folder + "/memory.stat");
  const std::string prefix = unified ? "" : "total_";
  const uint64_t cache = FindNumber(stat, prefix + "inactive_file").value_or(0) +
                         FindNumber(stat, prefix + "active_file").value_or(0);
  const uint64_t used = usage.value_or(0) - std::min(usage.value_or(0), cache);
  limits->free_bytes = std::min(limits->free_bytes, *limit - std::min(*limit, used));
  limits->total_bytes = *limit;
}

}  // namespace

int CpuLimits::DefaultThreads() const {
  const int num_cores = static_cast<int>(cores.size());
  return quota > 0 ? std::clamp(static_cast<int>(std::ceil(quota)), 1, num_cores) : num_cores;
}

std::vector<std::vector<int>> CpuLimits::Bindings(int num_threads) const {
  const bool limited = quota > 0 && quota < static_cast<double>(cores.size());
  if (limited || num_threads != static_cast<int>(cores.size())) return {};
  return cores;
}

CpuLimits ReadCpuLimits(const std::string& root) {
  std::map<int, std::vector<int>> by_core;
  for (int cpu : AllowedCpus()) by_core[CoreOf(root, cpu)].push_back(cpu);
  CpuLimits limits;
  for (auto& [core, cpus] : by_core) limits.cores.push_back(std::move(cpus));
  limits.quota = ReadQuota(root);
  return limits;
}

MemoryLimits ReadMemoryLimits(const std::string& root) {
  const std::string meminfo = ReadFile(root + "/proc/meminfo");
  MemoryLimits limits;
  limits.total_bytes = FindNumber(meminfo, "MemTotal").value_or(0) * 1024;
  limits.free_bytes = FindNumber(meminfo, "MemAvailable").value_or(0) * 1024;
  const Hierarchy hierarchy = FindHierarchy(root, "memory");
  for (const std::string& folder : hierarchy.folders) ApplyMemoryCgroup(folder, hierarchy.unified, &limits);
  return limits;
}

std::string ReadCpuName(const std::string& root) {
  std::istringstream lines(ReadFile(root + "/proc/cpuinfo"));
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, 10, "model name") != 0) continue;
    const size_t start = line.find_first_not_of(": \t", 10);
    if (start != std::string::npos) return line.substr(start);
  }
  return "CPU";
}

}  // namespace tenon_cpu
