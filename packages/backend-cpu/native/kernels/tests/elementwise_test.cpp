// Norm, elementwise ops, embedding and the reductions over logits.
#include "reference.h"

namespace tenon_cpu::testing {
namespace {

constexpr int64_t kSizes[] = {1, 7, 15, 16, 17, 31, 33, 64, 100, 127, 576, 1000};

void CheckRmsNorm(const Kernels& kernels, Random& random, Report& report, int64_t size, Dtype x_dtype, Dtype y_dtype) {
  const int64_t rows = 3;
  Array x(x_dtype, rows * size, 1), weight(Dtype::kF32, size, 1), y(y_dtype, rows * size, 3);
  x.Fill(random, 3);
  weight.Fill(random);
  kernels.rms_norm({x.data(), x_dtype, static_cast<const float*>(weight.data()), y.data(), y_dtype, size, 1e-6f, 0, rows});
  std::vector<double> want, tolerance;
  for (int64_t i = 0; i < rows * size; i++) {
    double sum = 0;
    for (int64_t j = 0; j < size; j++) sum += std::pow(x.At(i / size * size + j), 2);
    want.push_back(x.At(i) / std::sqrt(sum / static_cast<double>(size) + 1e-6) * weight.At(i % size));
    const double error = (6 + std::sqrt(static_cast<double>(size)) / 4) * 0x1p-24 + EpsOf(y_dtype);
    tolerance.push_back(error * std::fabs(want.back()) + 1e-9 + MinStep(y_dtype));
  }
  report.Close("rms_norm " + std::to_string(size), [&](int64_t i) { return y.At(i); }, want, tolerance);
}

void CheckElementwise(const Kernels& kernels, Random& random, Report& report, int64_t size) {
  const Dtype a_dtype = random.Pick(kFloats), b_dtype = random.Pick(kFloats), y_dtype = random.Pick(kFloats);
  Array a(a_dtype, size, 1), b(b_dtype, size, 2), y(y_dtype, size, 3);
  a.Fill(random, 12);
  b.Fill(random, 2);
  const int64_t begin = size / 3;
  const ElementwiseParams p = {a.data(), a_dtype, b.data(), b_dtype, y.data(), y_dtype, begin, size};
  for (int activation = -1; activation < 3; activation++) {
    std::vector<double> want, tolerance;
    for (int64_t i = begin; i < size; i++) {
      const double value = activation < 0 ? a.At(i) + b.At(i) : ActivateReference(a.At(i), activation) * b.At(i);
      want.push_back(value);
      // e^u carries u's rounding: |u| eps, at most 22 here before the result vanishes beside 1e-8.
      tolerance.push_back((EpsOf(y_dtype) + (activation < 0 ? 1 : 30) * 0x1p-24) * std::fabs(value) + 1e-8 + MinStep(y_dtype));
    }
    activation < 0 ? kernels.add(p) : kernels.gated_act(p, activation);
    report.Close("elementwise " + std::to_string(activation), [&](int64_t i) { return y.At(begin + i); }, want, tolerance);
  }
}

// silu in units in the last place of f32.
void CheckSilu(const Kernels& kernels, Report& report) {
  Array x(Dtype::kF32, 4000), one(Dtype::kF32, 4000), y(Dtype::kF32, 4000);
  for (int64_t i = 0; i < x.size(); i++) {
    x.Set(i, static_cast<double>(i - 2000) / 25);
    one.Set(i, 1);
  }
  kernels.gated_act({x.data(), Dtype::kF32, one.data(), Dtype::kF32, y.data(), Dtype::kF32, 0, x.size()}, 0);
  std::vector<double> want, tolerance;
  for (int64_t i = 0; i < x.size(); i++) {
    want.push_back(ActivateReference(x.At(i), 0));
    tolerance.push_back(2.5 * 0x1p-23 * std::fabs(want.back()) + 1e-38);
  }
  report.Close("silu", [&](int64_t i) { return y.At(i); }, want, tolerance);
}

void CheckEmbedding(const Kernels& kernels, Random& random, Report& report, Dtype dtype, Dtype y_dtype) {
  const int64_t vocab = 45, hidden = random.Between(1, 70);
  const Weight weight(kernels, random, dtype, vocab, hidden, false);
  Array table(dtype, vocab * hidden, 1);
  for (int64_t i = 0; i < table.size(); i++) table.Set(i, weight.values[i]);
  const std::vector<int32_t> ids = {0, 15, 16, 44, 7};
  Array packed(y_dtype, ids.size() * hidden), row_major(y_dtype, ids.size() * hidden, 1), want(y_dtype, packed.size());
  const int64_t n = static_cast<int64_t>(ids.size());
  kernels.embedding({ids.data(), weight.packed, nullptr, dtype, hidden, packed.data(), y_dtype, 0, n});
  kernels.embedding({ids.data(), {nullptr, dtype, vocab, hidden}, table.data(), dtype, hidden, row_major.data(), y_dtype, 0, n});
  for (int64_t i = 0; i < want.size(); i++) want.Set(i, weight.values[ids[i / hidden] * hidden + i % hidden]);
  report.Same("embedding, packed", want, packed);
  report.Same("embedding, row-major", want, row_major);
}

}  // namespace

void TestElementwise(const Kernels& kernels, Random& random, Report& report) {
  CheckSilu(kernels, report);
  for (const int64_t size : kSizes) {
    CheckRmsNorm(kernels, random, report, size, random.Pick(kFloats), random.Pick(kFloats));
    CheckElementwise(kernels, random, report, size);
  }
  for (const Dtype dtype : kFloats) {
    for (const Dtype y_dtype : kFloats) CheckEmbedding(kernels, random, report, dtype, y_dtype);
  }
}

void TestVocab(const Kernels& kernels, Random& random, Report& report) {
  for (const int64_t n : {1, 15, 16, 17, 63, 65, 1023, 1025, 5000, 49152}) {
    Array x(Dtype::kF32, n, 1), y(Dtype::kF32, n, 1);
    x.Fill(random, 10);
    const int64_t best = random.Below(n);
    x.Set(best, 11);
    if (best + 1 < n) x.Set(random.Between(best + 1, n - 1), 11);
    if (best > 0) x.Set(random.Below(best), -INFINITY);
    const float* logits = static_cast<const float*>(x.data());
    report.True("max of " + std::to_string(n), kernels.max(logits, n) == 11.0f);
    report.True("argmax of " + std::to_string(n), kernels.argmax(logits, n) == best);

    const float scale = 0.7f;
    std::vector<double> want, tolerance;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
      want.push_back(std::exp((x.At(i) - 11) * double{scale}));
      tolerance.push_back(20 * 0x1p-24 * want.back());
      sum += want.back();
    }
    const double got = kernels.exp_sum(logits, n, 11, scale, static_cast<float*>(y.data()));
    report.Close("exp_sum terms", [&](int64_t i) { return y.At(i); }, want, tolerance);
    report.Close("exp_sum", [&](int64_t) { return got; }, {sum}, {sum * 20 * 0x1p-24});
    report.True("exp_sum without y", got == kernels.exp_sum(logits, n, 11, scale, nullptr));
  }
}

}  // namespace tenon_cpu::testing
