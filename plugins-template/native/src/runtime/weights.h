// From the checkpoint to the device: reads each weight, brings it into the layout that kernels read, and enqueues its copy.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "launch.h"
#include "pool.h"
#include "tenon/checkpoint.h"

namespace tenon_backend_template {

class WeightUploader {
 public:
  WeightUploader(SimPool& pool, Launcher& launcher) : pool_(pool), launcher_(launcher) {}

  tenon::Status Load(const tenon::WeightRequest& r, Matrix* m, const void** handle) {
    std::vector<float> v = r.data;
    if (v.empty()) TENON_RETURN_IF_ERROR(tenon::ReadAll(r, &v));
    if (r.shape.size() == 1) return Upload(v, const_cast<void**>(handle));
    *m = Matrix{nullptr, nullptr, r.dtype, r.shape[0], r.shape[1]};
    std::vector<uint8_t> bytes(m->num_values() * m->value_bytes());
    Floats to{bytes.data(), r.dtype};
    for (int64_t i = 0; i < m->n; ++i) for (int64_t k = 0; k < m->k; ++k) to.Set(m->ValueAt(i, k), v[i * m->k + k]);
    *handle = m;
    return Upload(bytes, &m->values);
  }
  // `*address`: on the device, where `values` will be.
  template <typename T>
  tenon::Status Upload(std::vector<T> values, void** address) {
    TENON_RETURN_IF_ERROR(pool_.Allocate(tenon::Arena::kWeights, values.size() * sizeof(T), address));
    Launch launch(launcher_, "upload");
    auto* to = static_cast<T*>(*address);
    launch.In(to, static_cast<int64_t>(values.size()));
    return launch.Run([values = std::move(values), to] { std::copy(values.begin(), values.end(), to); });
  }

 private:
  SimPool& pool_;
  Launcher& launcher_;
};
inline tenon::Status UploadWeights(const std::vector<tenon::WeightRequest>& requests, const tenon::ProgressFn&,
                                   SimPool& pool, Launcher& launcher, std::vector<Matrix>* matrices,
                                   std::vector<const void*>* handles) {
  WeightUploader u(pool, launcher);
  matrices->resize(requests.size()); handles->resize(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) TENON_RETURN_IF_ERROR(u.Load(requests[i], &(*matrices)[i], &(*handles)[i]));
  return {};
}
}
