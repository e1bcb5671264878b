// What the environment says about the simulated device (README.md lists the variables), and the ways in which it can want to be
// scheduled. A real backend has one mode: keep its SchedulingConstraints, delete the rest.
#pragma once

#include "faults.h"
#include "tenon/device.h"

namespace tenon_backend_template {

struct Mode {
  const char* name;
  tenon::SchedulingConstraints constraints;
  bool int8_only = false;  // multiplies int8 weights alone
};

// Said as data, which core's one scheduler obeys.
inline const std::vector<Mode>& Modes() {
  static const std::vector<Mode> modes = {
      // Paged KV cache; steps are padded to buckets, so that each shape is compiled and recorded once, in the warm-up.
      {"paged", {.block_sizes = {16, 32}, .token_buckets = {8, 16, 32, 64, 128, 256}, .decode_buckets = {1, 2, 4, 8, 16, 32},
                 .preferred_batched_tokens = 256, .preferred_seqs = 32, .capture = true, .warmup = true}},
      // As Gaudi: static shapes for prompts and for decoding, which do not mix; large blocks.
      {"gaudi", {.block_sizes = {128}, .token_buckets = {128, 256}, .decode_buckets = {1, 4, 16, 32}, .mixed_prefill_decode = false,
                 .preferred_batched_tokens = 256, .preferred_seqs = 32, .capture = true, .warmup = true}},
      // As Ascend: prompts of any length, graphs recorded for decoding.
      {"ascend", {.block_sizes = {128}, .decode_buckets = {1, 2, 4, 8, 16, 32},
                  .preferred_batched_tokens = 256, .preferred_seqs = 32, .capture = true, .warmup = true}},
      // As Spyre: a fixed batch, the KV cache of a sequence in one piece, whole prompts, one step at a time.
      {"spyre", {.block_sizes = {64}, .kv_layout = tenon::KvLayout::kSlots, .token_buckets = {64, 128, 256, 512, 1024},
                 .decode_buckets = {4}, .max_seqs = 4, .mixed_prefill_decode = false, .chunked_prefill = false,
                 .steps_in_flight = 1, .preferred_batched_tokens = 256, .preferred_seqs = 4, .warmup = true}},
      // A device that multiplies nothing but int8 weights, as many edge NPUs; shapes are free.
      {"int8", {.block_sizes = {16}, .preferred_batched_tokens = 256, .preferred_seqs = 32}, /*int8_only=*/true},
  };
  return modes;
}

struct Settings {
  const Mode* mode = nullptr;
  int memory_mib = 256, latency_us = 50, collective_timeout_ms = 10000;
  Faults faults;

  // config.invalid-environment where a variable has a value that means nothing.
  static tenon::Status Read(Settings* settings) {
    TENON_RETURN_IF_ERROR(ReadMode(&settings->mode));
    TENON_RETURN_IF_ERROR(ReadNumber("TENON_SIM_MEMORY", 1, &settings->memory_mib));
    TENON_RETURN_IF_ERROR(ReadNumber("TENON_SIM_LATENCY_US", 0, &settings->latency_us));
    TENON_RETURN_IF_ERROR(ReadNumber("TENON_SIM_COLLECTIVE_TIMEOUT_MS", 1, &settings->collective_timeout_ms));
    return Faults::Read(&settings->faults);
  }

 private:
  static tenon::Status ReadMode(const Mode** mode) {
    const char* text = std::getenv("TENON_SIM_MODE");
    const std::string wanted = text == nullptr ? Modes()[0].name : text;
    std::string known;
    for (const Mode& candidate : Modes()) {
      if (candidate.name == wanted) *mode = &candidate;
      known += std::string(known.empty() ? "" : ", ") + candidate.name;
    }
    if (*mode != nullptr) return tenon::Status::Ok();
    return tenon::Status::Error(tenon::StatusCode::kInvalidEnvironment, "TENON_SIM_MODE is '%s'; expected one of %s", text,
                                known.c_str());
  }

  static tenon::Status ReadNumber(const char* variable, int min, int* number) {
    const char* text = std::getenv(variable);
    if (text == nullptr) return tenon::Status::Ok();
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < min || value > 1'000'000)
      return tenon::Status::Error(tenon::StatusCode::kInvalidEnvironment, "%s is '%s'; expected a number from %d to 1000000",
                                  variable, text, min);
    *number = static_cast<int>(value);
    return tenon::Status::Ok();
  }
};

}  // namespace tenon_backend_template
