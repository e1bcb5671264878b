// Failures on request, so that what happens then can be tested: TENON_SIM_FAULT, a list with commas of what kKnown says, that is
//
//   probe:crash|hang|exit|throw       while devices are listed
//   load:fail|oom|hang|crash          while weights are loaded
//   warmup:lost|oom|hang|crash        in the first steps, before core says that warm-up has ended
//   step:lost@N|oom@N|hang@N|crash@N  in the N-th step after that (from 1; counted over all models of the process)
//   kernel:wrong:<op>                 the first element of what the op's kernel writes is off by one
//
// Not part of a real backend: delete it along with sim/.
#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <regex>
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
      if (!std::regex_match(fault, std::regex(kKnown)) && !NamesOp(fault))
        return tenon::Status::Error(tenon::StatusCode::kInvalidEnvironment, "TENON_SIM_FAULT has '%s'; expected %s|kernel:wrong:<op>",
                                    fault.c_str(), kKnown);
      faults->wanted_.push_back(fault);
    }
    return tenon::Status::Ok();
  }

  // Carries out what was asked for at "probe", "load", "warmup", or "step" with its number. A hang ends when `stop` says so.
  tenon::Status Strike(const std::string& point, const std::function<bool()>& stop, int64_t number = 0) const {
    for (const std::string& fault : wanted_) {
      const size_t colon = fault.find(':'), at = fault.find('@');
      if (fault.substr(0, colon) != point) continue;
      if (at != std::string::npos && std::to_string(number) != fault.substr(at + 1)) continue;
      return Fail(fault.substr(colon + 1, at - colon - 1), stop);
    }
    return tenon::Status::Ok();
  }

  bool IsWrong(const std::string& op) const {
    return std::find(wanted_.begin(), wanted_.end(), "kernel:wrong:" + op) != wanted_.end();
  }

 private:
  static constexpr const char* kKnown = "probe:(crash|hang|exit|throw)|load:(fail|oom|hang|crash)|warmup:(lost|oom|hang|crash)|step:(lost|oom|hang|crash)@[1-9][0-9]*";

  static bool NamesOp(const std::string& fault) {
    return std::any_of(std::begin(tenon::kOps), std::end(tenon::kOps),
                       [&](const tenon::OpInfo& op) { return fault == std::string("kernel:wrong:") + op.name; });
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
