#include "cublas_lt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace tenon_cuda {
namespace {

// ---- the library's C interface, as far as it is used ----

using Handle = void*;
using Desc = void*;
using Layout = void*;
using Preference = void*;
struct Algorithm {
  uint64_t data[8];
};
struct HeuristicResult {
  Algorithm algorithm;
  size_t workspace_bytes;
  int state;  // 0: usable
  float waves;
  int reserved[4];
};
constexpr int kCompute32F = 68, kR32F = 0, kR16F = 2, kR16BF = 14;  // cublasComputeType_t, cudaDataType_t
constexpr int kTransA = 3;                                          // cublasLtMatmulDescAttributes_t
constexpr int kMaxWorkspaceBytes = 1, kMinAlignmentA = 5, kMinAlignmentD = 8;  // cublasLtMatmulPreferenceAttributes_t

struct Functions {
  size_t (*version)();
  int (*create)(Handle*);
  int (*destroy)(Handle);
  int (*desc_create)(Desc*, int compute_type, int scale_type);
  int (*desc_destroy)(Desc);
  int (*desc_set)(Desc, int attribute, const void* value, size_t bytes);
  int (*layout_create)(Layout*, int type, uint64_t rows, uint64_t columns, int64_t stride);
  int (*layout_destroy)(Layout);
  int (*preference_create)(Preference*);
  int (*preference_destroy)(Preference);
  int (*preference_set)(Preference, int attribute, const void* value, size_t bytes);
  int (*heuristic)(Handle, Desc, Layout a, Layout b, Layout c, Layout d, Preference, int wanted, HeuristicResult*, int* found);
  int (*matmul)(Handle, Desc, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta, const void* c, Layout, void* d,
                Layout, const Algorithm*, void* workspace, size_t workspace_bytes, cudaStream_t);
};

struct Library {
  CublasLtFound found;
  Functions functions{};
};

// ---- finding it ----

std::vector<std::string> Candidates() {
  std::vector<std::string> paths = {"libcublasLt.so.13", "libcublasLt.so.12"};
  std::vector<std::string> folders;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* folder = std::getenv(name)) folders.push_back(folder);
  folders.push_back("/usr/local/cuda");
  for (const std::string& folder : folders)
    for (const char* file : {"/lib64/libcublasLt.so.13", "/lib64/libcublasLt.so.12"}) paths.push_back(folder + file);
  return paths;
}

bool Resolve(void* library, Functions* f) {
  const auto find = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
    return *function != nullptr;
  };
  return find("cublasLtGetVersion", &f->version) && find("cublasLtCreate", &f->create) && find("cublasLtDestroy", &f->destroy) &&
         find("cublasLtMatmulDescCreate", &f->desc_create) && find("cublasLtMatmulDescDestroy", &f->desc_destroy) &&
         find("cublasLtMatmulDescSetAttribute", &f->desc_set) && find("cublasLtMatrixLayoutCreate", &f->layout_create) &&
         find("cublasLtMatrixLayoutDestroy", &f->layout_destroy) && find("cublasLtMatmulPreferenceCreate", &f->preference_create) &&
         find("cublasLtMatmulPreferenceDestroy", &f->preference_destroy) &&
         find("cublasLtMatmulPreferenceSetAttribute", &f->preference_set) &&
         find("cublasLtMatmulAlgoGetHeuristic", &f->heuristic) && find("cublasLtMatmul", &f->matmul);
}

Library OpenLibrary() {
  Library library;
  const char* named = std::getenv("TENON_CUBLASLT");
  if (named != nullptr && std::strcmp(named, "off") == 0) {
    library.found.reason = "TENON_CUBLASLT is 'off'";
    return library;
  }
  for (const std::string& path : named != nullptr ? std::vector<std::string>{named} : Candidates()) {
    void* opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (opened == nullptr) continue;
    if (!Resolve(opened, &library.functions)) {
      library.found.reason = path + " lacks a function; ";
      continue;
    }
    Dl_info info{};
    const bool known = dladdr(reinterpret_cast<void*>(library.functions.matmul), &info) != 0 && info.dli_fname != nullptr;
    library.found = {.path = known ? info.dli_fname : path, .reason = "", .version = library.functions.version()};
    return library;
  }
  library.found.named = named != nullptr;
  library.found.reason += named != nullptr ? std::string("TENON_CUBLASLT names ") + named + ", which cannot be opened"
                                           : "no libcublasLt.so.13 or .12 on the loader's path, in CUDA_HOME or /usr/local/cuda; TENON_CUBLASLT may name it";
  return library;
}

const Library& TheLibrary() {
  static const Library library = OpenLibrary();
  return library;
}

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

int TypeOf(Type type) { return type == Type::kF32 ? kR32F : type == Type::kBf16 ? kR16BF : kR16F; }

constexpr size_t kMostProducts = 4096;  // sizes whose choice is kept

}  // namespace

const CublasLtFound& FindCublasLt() { return TheLibrary().found; }

// ---- products ----

// Column-major, as the library thinks: yᵀ [n, rows] = w [k, n]ᵀ · xᵀ [k, rows].
struct CublasLt::Product {
  Desc desc = nullptr;
  Layout w = nullptr, x = nullptr, y = nullptr;
  HeuristicResult choice{};
  bool usable = false;

  ~Product() {
    const Functions& f = TheLibrary().functions;
    if (desc != nullptr) f.desc_destroy(desc);
    for (Layout layout : {w, x, y})
      if (layout != nullptr) f.layout_destroy(layout);
  }
};

CublasLt::CublasLt(void* handle, void* workspace) : handle_(handle), workspace_(workspace) {}

std::unique_ptr<CublasLt> CublasLt::Create(void* workspace) {
  const Library& library = TheLibrary();
  Handle handle = nullptr;
  if (!library.found.reason.empty() || library.functions.create(&handle) != 0) return nullptr;
  return std::unique_ptr<CublasLt>(new CublasLt(handle, workspace));
}

CublasLt::~CublasLt() {
  products_.clear();
  TheLibrary().functions.destroy(handle_);
}

bool CublasLt::Takes(const LinearParams& p) const {
  if (p.type == Type::kF32 || p.gated || p.bias != nullptr || p.k % 8 != 0 || p.n % 8 != 0) return false;
  if (p.residual != nullptr && p.y_type != Type::kF32) return false;
  return IsAligned(p.x) && IsAligned(p.w) && IsAligned(p.y) && IsAligned(p.residual);
}

const CublasLt::Product* CublasLt::Find(const LinearParams& p) {
  const std::array<int64_t, 6> key = {p.rows, p.n, p.k, static_cast<int64_t>(p.type), static_cast<int64_t>(p.y_type), p.residual != nullptr};
  if (const auto found = products_.find(key); found != products_.end()) return found->second.get();
  if (products_.size() >= kMostProducts) products_.clear();
  const Functions& f = TheLibrary().functions;
  auto product = std::make_unique<Product>();
  const auto n = static_cast<uint64_t>(p.n), k = static_cast<uint64_t>(p.k), rows = static_cast<uint64_t>(p.rows);
  const int32_t transposed = 1;
  Preference preference = nullptr;
  bool ok = f.desc_create(&product->desc, kCompute32F, kR32F) == 0 && f.desc_set(product->desc, kTransA, &transposed, sizeof(transposed)) == 0 &&
            f.layout_create(&product->w, TypeOf(p.type), k, n, p.k) == 0 && f.layout_create(&product->x, TypeOf(p.type), k, rows, p.k) == 0 &&
            f.layout_create(&product->y, TypeOf(p.y_type), n, rows, p.n) == 0 && f.preference_create(&preference) == 0;
  const uint64_t workspace_bytes = kWorkspaceBytes;
  ok = ok && f.preference_set(preference, kMaxWorkspaceBytes, &workspace_bytes, sizeof(workspace_bytes)) == 0;
  const uint32_t alignment = 16;
  for (int attribute = kMinAlignmentA; ok && attribute <= kMinAlignmentD; ++attribute)
    ok = f.preference_set(preference, attribute, &alignment, sizeof(alignment)) == 0;
  int found = 0;
  ok = ok && f.heuristic(handle_, product->desc, product->w, product->x, product->y, product->y, preference, 1, &product->choice, &found) == 0;
  product->usable = ok && found > 0 && product->choice.state == 0;
  if (preference != nullptr) f.preference_destroy(preference);
  return products_.emplace(key, std::move(product)).first->second.get();
}

Launch CublasLt::Linear(const LinearParams& p, cudaStream_t stream) {
  const Product* product = Find(p);
  if (!product->usable) return cudaErrorNotSupported;
  const float alpha = 1, beta = p.residual != nullptr ? 1.f : 0.f;
  const void* c = p.residual != nullptr ? p.residual : p.y;
  const int status = TheLibrary().functions.matmul(handle_, product->desc, &alpha, p.w, product->w, p.x, product->x, &beta, c, product->y, p.y, product->y,
                                                   &product->choice.algorithm, workspace_, kWorkspaceBytes, stream);
  if (status == 0) return cudaSuccess;
  const cudaError_t error = cudaGetLastError();
  return error != cudaSuccess ? error : cudaErrorNotSupported;
}

}  // namespace tenon_cuda
