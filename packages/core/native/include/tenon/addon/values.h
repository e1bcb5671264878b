// Between JavaScript values and the SDK's structs. Readers answer false where a value has another type than the contract
// says; nothing here throws C++ exceptions.
#pragma once

#include <napi.h>

#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "tenon/device.h"
#include "tenon/executor.h"
#include "tenon/status.h"
#include "tenon/weights.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {
namespace addon {

// An Error whose `code` is one of docs/errors.md.
inline Napi::Value ErrorValue(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message());
  error.Set("code", Napi::String::New(env, StatusCodeName(status.code())));
  return error.Value();
}

inline Napi::Value Throw(Napi::Env env, const Status& status) {
  napi_throw(env, ErrorValue(env, status));
  return env.Undefined();
}

// For arguments that no caller in TypeScript can get wrong.
inline Napi::Value ThrowBadArgument(Napi::Env env, const char* expected) {
  return Throw(env, Status::Error(StatusCode::kInternal, "bad argument to the native backend: %s", expected));
}

inline bool Read(const Napi::Value& value, std::string* out) {
  if (!value.IsString()) return false;
  *out = value.As<Napi::String>().Utf8Value();
  return true;
}

inline bool Read(const Napi::Value& value, double* out) {
  if (!value.IsNumber()) return false;
  *out = value.As<Napi::Number>().DoubleValue();
  return true;
}

template <typename Integer>
bool ReadInteger(const Napi::Value& value, Integer* out) {
  double number;
  if (!Read(value, &number) || !(number >= 0 && number <= 9007199254740991.0)) return false;
  *out = static_cast<Integer>(number);
  return static_cast<double>(*out) == number;
}

// The position of a string in a table of names.
template <typename Enum, size_t n>
bool ReadName(const Napi::Value& value, const char* const (&names)[n], Enum* out) {
  std::string name;
  if (!Read(value, &name)) return false;
  for (size_t i = 0; i < n; ++i) {
    if (name != names[i]) continue;
    *out = static_cast<Enum>(i);
    return true;
  }
  return false;
}

// read(element, &item) for every element of an array.
template <typename T, typename F>
bool ReadArray(const Napi::Value& value, std::vector<T>* out, F&& read) {
  if (!value.IsArray()) return false;
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(array.Env());
    out->emplace_back();
    if (!read(array.Get(i), &out->back())) return false;
  }
  return true;
}

inline bool ReadShape(const Napi::Value& value, std::vector<int64_t>* shape) {
  return ReadArray(value, shape, [](const Napi::Value& dim, int64_t* out) { return ReadInteger(dim, out); });
}

inline bool ReadWeightPart(const Napi::Value& value, WeightPart* part) {
  if (!value.IsObject()) return false;
  const auto object = value.As<Napi::Object>();
  return Read(object.Get("name"), &part->name) && Read(object.Get("file"), &part->file) &&
         ReadInteger(object.Get("offset"), &part->offset) && ReadInteger(object.Get("sizeBytes"), &part->size_bytes) &&
         Read(object.Get("dtype"), &part->format) && ReadShape(object.Get("shape"), &part->shape);
}

inline bool ReadFloats(const Napi::Value& value, std::vector<float>* out) {
  if (value.IsUndefined()) return true;
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) return false;
  const auto array = value.As<Napi::Float32Array>();
  out->assign(array.Data(), array.Data() + array.ElementLength());
  return true;
}

// The name of a weight scheme; absent: none.
inline bool ReadScheme(const Napi::Value& value, WeightScheme* out) {
  if (value.IsUndefined()) return true;
  std::string name;
  if (!Read(value, &name)) return false;
  for (size_t i = 0; i < std::size(kWeightSchemes); ++i) {
    if (name != kWeightSchemes[i].name) continue;
    *out = static_cast<WeightScheme>(i);
    return true;
  }
  return false;
}

// A `PlanWeight` whose parts are `TensorLocation`s.
inline bool ReadWeight(const Napi::Value& value, WeightRequest* weight) {
  if (!value.IsObject()) return false;
  const auto object = value.As<Napi::Object>();
  std::vector<WeightUse> uses;
  const bool ok =
      Read(object.Get("name"), &weight->name) && ReadArray(object.Get("parts"), &weight->parts, ReadWeightPart) &&
      ReadShape(object.Get("shape"), &weight->shape) && ReadName(object.Get("dtype"), kDtypeNames, &weight->dtype) &&
      ReadScheme(object.Get("scheme"), &weight->scheme) &&
      ReadArray(object.Get("uses"), &uses,
                [](const Napi::Value& use, WeightUse* out) { return ReadName(use, kWeightUseNames, out); }) &&
      ReadFloats(object.Get("data"), &weight->data);
  for (const WeightUse use : uses) weight->uses |= UseBit(use);
  return ok;
}

inline bool ReadKvLayer(const Napi::Value& value, PlanKvLayer* layer) {
  if (!value.IsObject()) return false;
  const auto object = value.As<Napi::Object>();
  return ReadInteger(object.Get("numKvHeads"), &layer->num_kv_heads) &&
         ReadInteger(object.Get("headDim"), &layer->head_dim) &&
         ReadName(object.Get("dtype"), kDtypeNames, &layer->dtype);
}

inline bool ReadOpId(const Napi::Value& value, OpId* op) {
  std::string name;
  if (!Read(value, &name)) return false;
  for (int32_t i = 0; i < kNumOps; ++i) {
    if (name != kOps[i].name) continue;
    *op = static_cast<OpId>(i);
    return true;
  }
  return false;
}

// Attributes by name, as words in the op table's order; absent ones are 0.
inline bool ReadAttrs(const Napi::Value& value, OpQuery* query) {
  if (!value.IsObject()) return false;
  const auto object = value.As<Napi::Object>();
  const int32_t op = static_cast<int32_t>(query->op);
  for (int32_t i = 0; i < kOps[op].num_attrs; ++i) {
    const Napi::Value attr = object.Get(kOpAttrs[op][i].name);
    double number = 0;
    if (!attr.IsUndefined() && !Read(attr, &number)) return false;
    if (kOpAttrs[op][i].is_float) {
      const auto word = static_cast<float>(number);
      std::memcpy(&query->attr_words[i], &word, sizeof(word));
    } else {
      query->attr_words[i] = static_cast<int32_t>(number);
    }
  }
  return true;
}

inline bool ReadOpQuery(const Napi::Value& value, OpQuery* query) {
  if (!value.IsObject()) return false;
  const auto object = value.As<Napi::Object>();
  return ReadOpId(object.Get("op"), &query->op) && ReadAttrs(object.Get("attrs"), query) &&
         ReadArray(object.Get("dtypes"), &query->dtypes,
                   [](const Napi::Value& dtype, Dtype* out) { return ReadName(dtype, kDtypeNames, out); }) &&
         ReadScheme(object.Get("weightScheme"), &query->weight_scheme);
}

inline bool ReadOpenOptions(const Napi::Value& ids, const Napi::Value& options, OpenOptions* out) {
  if (!ReadArray(ids, &out->device_ids, [](const Napi::Value& id, std::string* text) { return Read(id, text); }))
    return false;
  if (!options.IsObject()) return false;
  const Napi::Value num_threads = options.As<Napi::Object>().Get("numThreads");
  if (!num_threads.IsUndefined() && !ReadInteger(num_threads, &out->num_threads)) return false;
  const Napi::Value parallel = options.As<Napi::Object>().Get("parallel");
  if (parallel.IsUndefined()) return true;
  if (!parallel.IsObject()) return false;
  const auto object = parallel.As<Napi::Object>();
  return ReadInteger(object.Get("rank"), &out->rank) && ReadInteger(object.Get("size"), &out->num_ranks) &&
         Read(object.Get("groupId"), &out->group_id) && out->rank < out->num_ranks;
}

inline Napi::Value ToValue(Napi::Env env, const std::vector<int>& numbers) {
  auto array = Napi::Array::New(env, numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) array.Set(static_cast<uint32_t>(i), Napi::Number::New(env, numbers[i]));
  return array;
}

inline Napi::Value ToValue(Napi::Env env, const SchedulingConstraints& constraints) {
  auto object = Napi::Object::New(env);
  const auto set_limit = [&](const char* name, double value) {
    if (value > 0) object.Set(name, value);
  };
  object.Set("blockSizes", ToValue(env, constraints.block_sizes));
  object.Set("kvLayout", kKvLayoutNames[static_cast<int32_t>(constraints.kv_layout)]);
  object.Set("tokenBuckets", ToValue(env, constraints.token_buckets));
  object.Set("decodeBuckets", ToValue(env, constraints.decode_buckets));
  set_limit("maxTokens", constraints.max_tokens);
  set_limit("maxSeqs", constraints.max_seqs);
  object.Set("mixedPrefillDecode", constraints.mixed_prefill_decode);
  object.Set("chunkedPrefill", constraints.chunked_prefill);
  object.Set("stepsInFlight", constraints.steps_in_flight);
  object.Set("preferredBatchedTokens", constraints.preferred_batched_tokens);
  set_limit("preferredSeqs", constraints.preferred_seqs);
  set_limit("preferredPromptTokensBesideDecodes", constraints.preferred_prompt_tokens_beside_decodes);
  set_limit("slowestOperationsPerSecond", constraints.slowest_operations_per_second);
  object.Set("capture", constraints.capture);
  object.Set("warmup", constraints.warmup);
  return object;
}

inline Napi::Value ToValue(Napi::Env env, const DeviceInfo& device) {
  auto object = Napi::Object::New(env);
  object.Set("id", device.id);
  object.Set("class", device.device_class);
  object.Set("name", device.name);
  object.Set("usable", device.usable);
  if (!device.reason.empty()) object.Set("reason", device.reason);
  if (!device.remedy.empty()) object.Set("remedy", device.remedy);
  object.Set("memoryBytes", static_cast<double>(device.memory_bytes));
  object.Set("freeBytes", static_cast<double>(device.free_bytes));
  object.Set("memoryIsShared", device.memory_is_shared);
  auto dtypes = Napi::Array::New(env, device.dtypes.size());
  for (size_t i = 0; i < device.dtypes.size(); ++i)
    dtypes.Set(static_cast<uint32_t>(i), kDtypeNames[static_cast<int32_t>(device.dtypes[i])]);
  object.Set("dtypes", dtypes);
  object.Set("preferredDtype", kDtypeNames[static_cast<int32_t>(device.preferred_dtype)]);
  return object;
}

inline Napi::Value ToValue(Napi::Env env, const ExecutorCounters& counters) {
  auto object = Napi::Object::New(env);
  const auto set = [&](const char* name, uint64_t count) { object.Set(name, static_cast<double>(count)); };
  set("steps", counters.steps);
  set("captures", counters.captures);
  set("replays", counters.replays);
  set("rebinds", counters.rebinds);
  set("compiles", counters.session.compiles);
  set("allocations", counters.session.allocations);
  set("fallbacks", counters.session.fallbacks);
  set("hostSyncs", counters.session.host_syncs);
  return object;
}

inline Napi::Value ToValue(Napi::Env env, const OpAnswer& answer) {
  auto object = Napi::Object::New(env);
  object.Set("support", kOpSupportNames[static_cast<int32_t>(answer.support)]);
  object.Set("kernel", answer.kernel);
  if (!answer.reason.empty()) object.Set("reason", answer.reason);
  object.Set("capture", kCaptureStateNames[static_cast<int32_t>(answer.capture)]);
  return object;
}

}  // namespace addon
}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon
