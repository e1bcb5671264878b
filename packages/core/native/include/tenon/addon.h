// Node-API glue: makes an addon of a class that satisfies tenon::KernelBackend. With addon/*.h, the only header of the SDK
// that includes napi.h; include it in one source file, after which
//
//   TENON_ADDON(my::Backend)
//
// exports info(), devices() and open(deviceIds, options). What open returns has the properties and methods of the
// contract's DeviceGroup, but for load(planWords, weights, onProgress, onStepDone): `weights` are `PlanWeight`s whose parts
// are `TensorLocation`s. All state belongs to one environment, so worker threads may each load the addon.
//
// Build with NAPI_VERSION=9, NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS, NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS (a worker that is
// being terminated takes no exceptions), -fvisibility=hidden, -fno-gnu-unique.
#pragma once

#include <napi.h>

#if !defined(NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS) || !defined(NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS)
#error "see the build flags above"
#endif

#include <memory>
#include <utility>
#include <vector>

#include "tenon/addon/group.h"
#include "tenon/addon/values.h"

namespace tenon {
inline namespace TENON_SDK_NAMESPACE {
namespace addon {

// Constructors of the two classes, per environment.
struct InstanceData {
  Napi::FunctionReference group;
  Napi::FunctionReference executable;
};

// A JavaScript object around shared native state; scripts cannot construct one.
template <typename Wrap, typename State>
class StateObject : public Napi::ObjectWrap<Wrap> {
 public:
  explicit StateObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Wrap>(info) {
    if (info.Length() == 1 && info[0].IsExternal()) {
      state_ = *info[0].As<Napi::External<std::shared_ptr<State>>>().Data();
    } else {
      ThrowBadArgument(info.Env(), "objects of this class are made by the addon");
    }
  }

  static Napi::Object Make(Napi::Env env, const Napi::FunctionReference& constructor, std::shared_ptr<State> state) {
    return constructor.New({Napi::External<std::shared_ptr<State>>::New(env, &state)});
  }

 protected:
  std::shared_ptr<State> state_;
};

class ExecutableObject final : public StateObject<ExecutableObject, ExecutableState> {
 public:
  using StateObject::StateObject;
  ~ExecutableObject() {
    if (state_ != nullptr) CloseExecutableTask::Start(state_);
  }

  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "Executable",
                       {InstanceMethod<&ExecutableObject::Run>("run"), InstanceMethod<&ExecutableObject::Memory>("memory"),
                        InstanceMethod<&ExecutableObject::Counters>("counters"),
                        InstanceAccessor<&ExecutableObject::NumBlocks>("numBlocks"),
                        InstanceMethod<&ExecutableObject::Freeze>("freeze"), InstanceMethod<&ExecutableObject::Close>("close")});
  }

 private:
  static bool IsInt32Array(const Napi::Value& value) {
    return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_int32_array;
  }

  Napi::Value Run(const Napi::CallbackInfo& info) {
    if (!IsInt32Array(info[0]) || !IsInt32Array(info[1])) return ThrowBadArgument(info.Env(), "run(Int32Array, Int32Array)");
    const Status status = ExecutableState::RunStep(state_, info[0].As<Napi::Int32Array>(), info[1].As<Napi::Int32Array>());
    return status.ok() ? info.Env().Undefined() : Throw(info.Env(), status);
  }

  Napi::Value Memory(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const Executor* executor = OpenExecutor();
    auto stats = Napi::Array::New(env, kNumArenas);
    for (uint32_t arena = 0; arena < kNumArenas; ++arena) {
      const size_t used = executor == nullptr ? 0 : executor->UsedBytes(static_cast<Arena>(arena));
      auto entry = Napi::Object::New(env);
      entry.Set("arena", kArenaNames[arena]);
      entry.Set("usedBytes", static_cast<double>(used));
      stats.Set(arena, entry);
    }
    return stats;
  }

  Napi::Value NumBlocks(const Napi::CallbackInfo& info) {
    const Executor* executor = OpenExecutor();
    return executor == nullptr ? info.Env().Undefined() : Napi::Number::New(info.Env(), executor->num_blocks());
  }

  Napi::Value Counters(const Napi::CallbackInfo& info) {
    const Executor* executor = OpenExecutor();
    return ToValue(info.Env(), executor == nullptr ? ExecutorCounters() : executor->counters());
  }

  Napi::Value Freeze(const Napi::CallbackInfo& info) {
    if (OpenExecutor() != nullptr) state_->group().Post(new FreezeTask(state_));
    return info.Env().Undefined();
  }

  // Null once it is closed.
  Executor* OpenExecutor() {
    return state_->close_state().started() || state_->group().closed() ? nullptr : state_->executor();
  }

  Napi::Value Close(const Napi::CallbackInfo& info) {
    CloseExecutableTask::Start(state_);
    if (state_->group().closed()) state_->FinishClose(info.Env());
    return state_->close_state().Wait(info.Env());
  }
};

class GroupObject final : public StateObject<GroupObject, GroupState> {
 public:
  using StateObject::StateObject;

  static Napi::Function Define(Napi::Env env) {
    return DefineClass(
        env, "DeviceGroup",
        {InstanceAccessor<&GroupObject::Constraints>("constraints"),
         InstanceMethod<&GroupObject::KvBlockBytes>("kvBlockBytes"), InstanceMethod<&GroupObject::Negotiate>("negotiate"),
         InstanceMethod<&GroupObject::Load>("load"), InstanceMethod<&GroupObject::Close>("close")});
  }

 private:
  // Throws where the group is closed.
  bool CheckOpen(Napi::Env env) {
    if (!state_->closed() && !state_->close_state().started()) return true;
    Throw(env, Status::Error(StatusCode::kInternal, "the device group is closed"));
    return false;
  }

  Napi::Value Constraints(const Napi::CallbackInfo& info) {
    if (!CheckOpen(info.Env())) return info.Env().Undefined();
    return ToValue(info.Env(), state_->device().Constraints());
  }

  Napi::Value KvBlockBytes(const Napi::CallbackInfo& info) {
    PlanKvLayer layer;
    int block_size;
    if (!CheckOpen(info.Env())) return info.Env().Undefined();
    if (!ReadKvLayer(info[0], &layer) || !ReadInteger(info[1], &block_size))
      return ThrowBadArgument(info.Env(), "kvBlockBytes({ numKvHeads, headDim, dtype }, blockSize)");
    return Napi::Number::New(info.Env(), static_cast<double>(state_->device().KvBlockBytes(layer, block_size)));
  }

  Napi::Value Negotiate(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    std::vector<OpQuery> queries;
    if (!CheckOpen(env)) return env.Undefined();
    if (!info[0].IsObject() || !ReadArray(info[0].As<Napi::Object>().Get("ops"), &queries, ReadOpQuery))
      return ThrowBadArgument(env, "negotiate({ ops: [{ op, attrs, dtypes, weightScheme? }] })");
    auto answers = Napi::Array::New(env, queries.size());
    for (size_t i = 0; i < queries.size(); ++i)
      answers.Set(static_cast<uint32_t>(i), ToValue(env, state_->device().Negotiate(queries[i])));
    auto negotiation = Napi::Object::New(env);
    negotiation.Set("answers", answers);
    negotiation.Set("batchInvariant", state_->device().BatchInvariant());
    return negotiation;
  }

  Napi::Value Load(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (!CheckOpen(env)) return env.Undefined();
    std::vector<WeightRequest> weights;
    const bool has_words = info[0].IsTypedArray() && info[0].As<Napi::TypedArray>().TypedArrayType() == napi_int32_array;
    if (!has_words || !ReadArray(info[1], &weights, ReadWeight) || !(info[2].IsUndefined() || info[2].IsFunction()) ||
        !info[3].IsFunction() || !(info[4].IsUndefined() || info[4].IsNumber()))
      return ThrowBadArgument(env, "load(Int32Array, weights, onProgress?, onStepDone, spareBytes?)");
    const auto words = info[0].As<Napi::Int32Array>();
    std::optional<uint64_t> spare_bytes;
    if (info[4].IsNumber()) spare_bytes = static_cast<uint64_t>(std::max<int64_t>(0, info[4].As<Napi::Number>().Int64Value()));
    Napi::FunctionReference on_progress;
    if (info[2].IsFunction()) on_progress = Napi::Persistent(info[2].As<Napi::Function>());
    auto make_object = [](Napi::Env env, std::shared_ptr<ExecutableState> executable) -> Napi::Value {
      return ExecutableObject::Make(env, env.GetInstanceData<InstanceData>()->executable, std::move(executable));
    };
    auto* task = new LoadTask(state_, {words.Data(), words.Data() + words.ElementLength()}, std::move(weights), spare_bytes,
                              std::move(on_progress), Napi::Persistent(info[3].As<Napi::Function>()), make_object);
    const Napi::Promise promise = task->promise();
    state_->Post(task);
    return promise;
  }

  Napi::Value Close(const Napi::CallbackInfo& info) {
    if (!state_->close_state().started()) {
      for (const auto& executable : state_->executables()) CloseExecutableTask::Start(executable);
      state_->close_state().Start();
      state_->Post(new CloseGroupTask(state_));
    }
    return state_->close_state().Wait(info.Env());
  }
};

template <KernelBackend Backend>
struct Module {
  static Napi::Value Info(const Napi::CallbackInfo& info) {
    auto runtime = Napi::Object::New(info.Env());
    for (const auto& [key, value] : Backend::Runtime()) runtime.Set(key, value);
    runtime.Set("sdk", TENON_SDK_VERSION);
    auto object = Napi::Object::New(info.Env());
    object.Set("runtime", runtime);
    return object;
  }

  static Napi::Value Devices(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    std::vector<DeviceInfo> devices;
    if (const Status status = Guarded([&] { return Backend::Devices(&devices); }); !status.ok())
      return Throw(env, status);
    auto array = Napi::Array::New(env, devices.size());
    for (size_t i = 0; i < devices.size(); ++i) array.Set(static_cast<uint32_t>(i), ToValue(env, devices[i]));
    return array;
  }

  static Napi::Value Open(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    OpenOptions options;
    if (!ReadOpenOptions(info[0], info[1], &options)) return ThrowBadArgument(env, "open(deviceIds, { numThreads?, parallel? })");
    std::unique_ptr<DeviceGroup> device;
    std::shared_ptr<GroupState> group;
    const Status status = Guarded([&] {
      TENON_RETURN_IF_ERROR(Backend::Open(options, &device));
      group = std::make_shared<GroupState>(env, std::move(device));
      return Status::Ok();
    });
    if (!status.ok()) return Throw(env, status);
    return GroupObject::Make(env, env.GetInstanceData<InstanceData>()->group, std::move(group));
  }

  static Napi::Object Init(Napi::Env env, Napi::Object exports) {
    env.SetInstanceData(
        new InstanceData{Napi::Persistent(GroupObject::Define(env)), Napi::Persistent(ExecutableObject::Define(env))});
    exports.Set("info", Napi::Function::New<Info>(env, "info"));
    exports.Set("devices", Napi::Function::New<Devices>(env, "devices"));
    exports.Set("open", Napi::Function::New<Open>(env, "open"));
    return exports;
  }
};

}  // namespace addon
}  // namespace TENON_SDK_NAMESPACE
}  // namespace tenon

#define TENON_ADDON(Backend)                                                          \
  static Napi::Object TenonAddonInit(Napi::Env env, Napi::Object exports) {           \
    return ::tenon::addon::Module<Backend>::Init(env, exports);                       \
  }                                                                                   \
  NODE_API_MODULE(NODE_GYP_MODULE_NAME, TenonAddonInit)
