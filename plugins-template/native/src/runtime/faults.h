// Failures on request, so that what happens then can be tested: TENON_SIM_FAULT (README.md). Delete it along with sim/.
#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tenon/schema.gen.h"
#include "tenon/status.h"

namespace tenon_backend_template {

class Faults {
 public:
  // As the environment says; config.invalid-environment where that is none of the above.
  static tenon::Status Read(Faults* faults) {
    const char* text = std::getenv("TENON_SIM_FAULT");
    std::istringstream list(text == nullptr ? "" : text);
    for (std::string fault; std::getline(list, fault, ',');) {
      if (!IsKnown(fault))
        return tenon::Status::Error(tenon::StatusCode::kInvalidEnvironment, "TENON_SIM_FAULT has '%s'; expected one of%s kernel:wrong:<op>",
                                    fault.c_str(), kKnown);
      faults->wanted_.push_back(fault);
    }
    return tenon::Status::Ok();
  }

  // Carries out what was asked for at "probe", "load", "warmup", or "step" with its number. A hang ends when `stop` says so. A fault
  // at a step strikes once in the life of the process: it is taken out of the environment, which is read when a device is opened.
  tenon::Status Strike(const std::string& point, const std::function<bool()>& stop, int64_t number = 0) const {
    for (const std::string& fault : wanted_) {
      const size_t colon = fault.find(':'), at = fault.find('@');
      if (fault.substr(0, colon) != point) continue;
      if (at != std::string::npos && std::to_string(number) != fault.substr(at + 1)) continue;
      if (at != std::string::npos) Forget(fault);
      return Fail(fault.substr(colon + 1, at - colon - 1), stop);
    }
    return tenon::Status::Ok();
  }

  bool IsWrong(const std::string& op) const {
    return std::find(wanted_.begin(), wanted_.end(), "kernel:wrong:" + op) != wanted_.end();
  }

 private:
  static constexpr const char* kKnown =
      " probe:crash, probe:hang, probe:exit, probe:throw, load:fail, load:oom, load:hang, load:crash, warmup:lost, warmup:oom,"
      " warmup:hang, warmup:crash, step:lost@N, step:oom@N, step:hang@N, step:crash@N,";

  static bool IsKnown(const std::string& fault) {
    const size_t at = fault.find('@');
    std::string pattern = fault;
    if (at != std::string::npos) {
      const size_t digits = fault.find_first_not_of("0123456789", at + 1) == std::string::npos ? fault.size() - at - 1 : 0;
      if (digits == 0 || fault[at + 1] == '0') return false;
      pattern.replace(at + 1, std::string::npos, "N");
    }
    const auto names = [&](const tenon::OpInfo& op) { return fault == std::string("kernel:wrong:") + op.name; };
    return std::string(kKnown).find(" " + pattern + ",") != std::string::npos ||
           std::any_of(std::begin(tenon::kOps), std::end(tenon::kOps), names);
  }

  void Forget(const std::string& struck) const {
    std::string others;
    for (const std::string& fault : wanted_) others += fault == struck ? "" : (others.empty() ? "" : ",") + fault;
    setenv("TENON_SIM_FAULT", others.c_str(), 1);
  }

  static tenon::Status Fail(const std::string& kind, const std::function<bool()>& stop) {
    if (kind == "crash") std::raise(SIGSEGV);
    if (kind == "exit") std::_Exit(3);
    if (kind == "throw") throw std::runtime_error("the simulated driver threw an exception");
    if (kind == "oom") return {tenon::StatusCode::kOutOfMemory, "the simulated device is out of memory (TENON_SIM_FAULT)"};
    if (kind == "fail") return {tenon::StatusCode::kLoadFailed, "the simulated device refuses to load (TENON_SIM_FAULT)"};
    while (kind == "hang" && !stop()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return {tenon::StatusCode::kDeviceLost, "the simulated device was lost (TENON_SIM_FAULT)"};
  }

  std::vector<std::string> wanted_;
};

}  // namespace tenon_backend_template
