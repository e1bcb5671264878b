// From the checkpoint to the device: reads each weight, brings it into the layout that kernels read, and enqueues its copy.
#pragma once

#include <cstring>

#include "launch.h"
#include "pool.h"
#include "tenon/checkpoint.h"

namespace tenon_backend_template {

class WeightUploader {
 public:
  WeightUploader(SimPool& pool, Launcher& launcher) : pool_(pool), launcher_(launcher) {}

  // Handles are of the elements of `matrices` for matrices, and device addresses of f32 for vectors.
  tenon::Status UploadAll(const std::vector<tenon::WeightRequest>& requests, const tenon::ProgressFn& progress,
                          std::vector<Matrix>* matrices, std::vector<const void*>* handles) {
    tenon::MappedFiles files;
    std::vector<tenon::WeightSource> sources(requests.size());
    uint64_t total_bytes = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      TENON_RETURN_IF_ERROR(tenon::WeightSource::Open(requests[i], &files, &sources[i]));
      total_bytes += sources[i].SizeBytes();
    }
    tenon::LoadProgress loading(progress, total_bytes);
    matrices->resize(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      void* vector = nullptr;
      const bool is_vector = requests[i].Has(tenon::WeightUse::kVector);
      TENON_RETURN_IF_ERROR(is_vector ? UploadVector(sources[i], &vector) : UploadMatrix(requests[i], sources[i], &(*matrices)[i]));
      handles->push_back(is_vector ? vector : &(*matrices)[i]);
      loading.Add(sources[i].SizeBytes());
    }
    return tenon::CheckIntact(files);
  }

 private:
  tenon::Status UploadVector(const tenon::WeightSource& source, void** address) {
    std::vector<float> values(static_cast<size_t>(source.rows()));
    source.ReadVector(values.data());
    return Upload(std::move(values), address);
  }

  tenon::Status UploadMatrix(const tenon::WeightRequest& request, const tenon::WeightSource& source, Matrix* matrix) {
    *matrix = {nullptr, nullptr, request.dtype, source.rows(), source.cols()};
    if (request.scheme == tenon::WeightScheme::kInt8G32) return UploadInt8(source, matrix);
    if (request.scheme != tenon::WeightScheme::kNone || request.dtype == Dtype::kF16)
      return tenon::Status::Error(tenon::StatusCode::kUnsupportedQuantization, "weight '%s': the device holds f32, bf16 and int8:g32",
                                  request.name.c_str());
    const auto size = static_cast<size_t>(matrix->value_bytes());
    std::vector<uint8_t> panels(static_cast<size_t>(matrix->num_values()) * size), row(static_cast<size_t>(matrix->k) * size);
    std::vector<float> scratch;
    for (int64_t n = 0; n < matrix->n; ++n) {
      source.ReadRows(n, 1, request.dtype, row.data(), &scratch);
      for (int64_t k = 0; k < matrix->k; ++k)
        std::memcpy(&panels[static_cast<size_t>(matrix->ValueAt(n, k)) * size], &row[static_cast<size_t>(k) * size], size);
    }
    return Upload(std::move(panels), &matrix->values);
  }

  // The checkpoint's own integers and scales.
  tenon::Status UploadInt8(const tenon::WeightSource& source, Matrix* matrix) {
    const tenon::WeightSchemeInfo& scheme = tenon::InfoOf(tenon::WeightScheme::kInt8G32);
    std::vector<int8_t> values(static_cast<size_t>(matrix->num_values()));
    std::vector<float> scales(values.size() / Matrix::kGroupSize);
    tenon::GroupedRow row;
    for (int64_t n = 0; n < matrix->n; ++n) {
      const tenon::WeightSource::Part& part = source.PartOfRow(n);
      if (!tenon::Holds(scheme, part.format->groups))
        return {tenon::StatusCode::kUnsupportedQuantization, std::string(part.format->name) + " does not fit into int8:g32"};
      row.Read(*part.format, source.Row(part, n), matrix->k, scheme);
      for (int64_t k = 0; k < matrix->k; ++k) {
        values[static_cast<size_t>(matrix->ValueAt(n, k))] = static_cast<int8_t>(row.quants()[k] - scheme.zero);
        scales[static_cast<size_t>(matrix->ScaleAt(n, k))] = tenon::F16ToF32(row.scales()[k / Matrix::kGroupSize]);
      }
    }
    void* on_device = nullptr;
    TENON_RETURN_IF_ERROR(Upload(std::move(scales), &on_device));
    matrix->scales = static_cast<float*>(on_device);
    return Upload(std::move(values), &matrix->values);
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

  SimPool& pool_;
  Launcher& launcher_;
};

}  // namespace tenon_backend_template
