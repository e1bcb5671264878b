// y = x · wᵀ by cuBLASLt, which is opened when it is first asked for, so that nothing here needs it: not the build, not a machine without.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>

#include "kernels.h"

namespace tenon_cuda {

// The library of this process, looked for once: the file that TENON_CUBLASLT names ("off": none), else libcublasLt.so.13 and .12 where the
// loader looks, in CUDA_HOME, and in /usr/local/cuda.
struct CublasLtFound {
  std::string path, reason;  // reason: why there is none, else empty
  bool named = false;        // there is none, although TENON_CUBLASLT names one
  size_t version = 0;        // 130100 for 13.1.0
};
const CublasLtFound& FindCublasLt();

// What multiplies on one stream. What it does for given sizes is chosen by the library and does not change.
class CublasLt {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  // workspace: of the device, kWorkspaceBytes; outlives this. Null where there is no library, or it cannot use this GPU.
  static std::unique_ptr<CublasLt> Create(void* workspace);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;

  // For plain products of 16-bit types, and where `y` takes the residual over, as kernels.h says.
  bool Takes(const LinearParams& params) const;
  // cudaErrorNotSupported: the library has no way. Recorded as any other launch.
  Launch Linear(const LinearParams& params, cudaStream_t stream);

 private:
  struct Product;
  CublasLt(void* handle, void* workspace);
  // How such a product is computed, null where there is no way.
  const Product* Find(const LinearParams& params);

  void* const handle_;
  void* const workspace_;
  // By rows, n, k, x's type, y's type, and whether y is added to.
  std::map<std::array<int64_t, 6>, std::unique_ptr<Product>> products_;
};

}  // namespace tenon_cuda
