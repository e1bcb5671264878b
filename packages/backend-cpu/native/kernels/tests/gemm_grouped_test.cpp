// GEMM with grouped weights against float64, for all groupings, epilogues and odd shapes; the same bits for every split of
// the work and on every instruction set; rows of tables.
#include "reference.h"

namespace tenon_cpu::testing {
namespace {

struct GroupedCase {
  Grouping grouping;
  int64_t m, n, k;
  Dtype dtype, y_dtype;  // of x, of y
  Epilogue epilogue;
  bool bias;
  int misalign;
};

std::string Describe(const GroupedCase& c) {
  char text[160];
  std::snprintf(text, sizeof(text), "gemm int%d:g%d%s m=%lld n=%lld k=%lld %s->%s epilogue=%d bias=%d misalign=%d",
                c.grouping.bits, c.grouping.group, c.grouping.has_min ? ":min" : "", static_cast<long long>(c.m),
                static_cast<long long>(c.n), static_cast<long long>(c.k), NameOf(c.dtype), NameOf(c.y_dtype),
                static_cast<int>(c.epilogue), c.bias, c.misalign);
  return text;
}

class GroupedRun {
 public:
  // extremes: the largest sums of whole numbers that there can be.
  GroupedRun(Random& random, const GroupedCase& c, bool extremes = false)
      : case_(c),
        gated_(c.epilogue == Epilogue::kGated),
        columns_(gated_ ? c.n / 2 : c.n),
        ldx_(c.k + c.misalign),
        x_(c.dtype, (c.m - 1) * ldx_ + c.k, c.misalign),
        weight_(random, c.grouping, c.dtype, c.n, c.k, gated_),
        bias_(Dtype::kF32, c.n, c.misalign),
        residual_(Dtype::kF32, c.m * columns_, c.misalign) {
    x_.Fill(random, 4);
    if (extremes) {
      for (int64_t i = 0; i < x_.size(); i++) x_.Set(i, i / ldx_ % 2 == 0 ? 1000 : -1000);
      weight_.FillQuants([&](int64_t i) { return i / c.k % 2 == 0 ? 255 : 0; });
    }
    bias_.Fill(random);
    residual_.Fill(random);
  }

  Array NewOutput() const { return Array(case_.y_dtype, case_.m * columns_, case_.misalign); }
  int64_t NumOutputBlocks() const { return (columns_ + kLanes - 1) / kLanes; }
  Array& x() { return x_; }
  int64_t ldx() const { return ldx_; }

  void Run(const Kernels& kernels, Array& y, int64_t m_begin, int64_t m_end, int64_t block_begin, int64_t block_end) const {
    AlignedBytes quantized(static_cast<size_t>(m_end * QuantizedRowBytes(case_.k)));
    kernels.quantize_rows(
        {x_.data(), case_.dtype, ldx_, case_.k, case_.grouping, quantized.data(), m_begin, m_end});
    AlignedBytes scratch(kernels.gemm_scratch_bytes(m_end - m_begin, case_.k));
    GemmParams p = {};
    p.x = quantized.data();
    p.weight = weight_.packed;
    p.bias = case_.bias ? static_cast<const float*>(bias_.data()) : nullptr;
    p.epilogue = case_.epilogue;
    p.residual = static_cast<const float*>(residual_.data());
    p.ldr = columns_;
    p.y = y.data();
    p.y_dtype = case_.y_dtype;
    p.ldy = columns_;
    p.m_begin = m_begin;
    p.m_end = m_end;
    p.block_begin = block_begin;
    p.block_end = block_end;
    p.scratch = scratch.data();
    kernels.gemm(p);
  }

  Array RunWhole(const Kernels& kernels) const {
    Array y = NewOutput();
    Run(kernels, y, 0, case_.m, 0, NumOutputBlocks());
    return y;
  }

  void Check(const Kernels& kernels, Report& report) const {
    const Array y = RunWhole(kernels);
    std::vector<double> want(y.size()), tolerance(y.size());
    for (int64_t i = 0; i < y.size(); i++) Reference(i / columns_, i % columns_, &want[i], &tolerance[i]);
    report.Close(Describe(case_), [&](int64_t i) { return y.At(i); }, want, tolerance);
  }

  // Any split of rows and blocks gives the same bits.
  void CheckSplits(const Kernels& kernels, Random& random, Report& report) const {
    const Array whole = RunWhole(kernels);
    Array split = NewOutput();
    for (int64_t m = 0; m < case_.m;) {
      const int64_t m_end = m + random.Between(1, case_.m - m);
      for (int64_t block = 0; block < NumOutputBlocks();) {
        const int64_t block_end = block + random.Between(1, NumOutputBlocks() - block);
        Run(kernels, split, m, m_end, block, block_end);
        block = block_end;
      }
      m = m_end;
    }
    report.Same(Describe(case_) + " split", whole, split);
  }

  // The bits of the plain C++ kernels; activations of the gated epilogue may round otherwise.
  void CheckBits(const Kernels& kernels, Report& report) const {
    if (!gated_) report.Same(Describe(case_) + " as generic", RunWhole(*GetKernels(Isa::kGeneric)), RunWhole(kernels));
  }

 private:
  // x[row] · w[n] + bias. The bound of its error: half a step of every x, and rounding to f32 once or twice a group.
  double Dot(int64_t row, int64_t n, double* error) const {
    double sum = 0, steps = 0, magnitude = 0;
    for (int64_t begin = 0; begin < case_.k; begin += 32) {
      double max = 0, weights = 0;
      for (int64_t k = begin; k < begin + 32; k++) {
        const double x = x_.At(row * ldx_ + k), w = weight_.At(n, k);
        sum += x * w;
        max = std::fmax(max, std::fabs(x));
        weights += std::fabs(w);
        magnitude += std::fabs(x) * weight_.Magnitude(n, k);
      }
      steps += 0.501 * max / 32639 * weights;
    }
    *error = steps + 3 * std::sqrt(static_cast<double>(case_.k)) * 0x1p-24 * magnitude + 1e-9;
    return case_.bias ? sum + bias_.At(n) : sum;
  }

  void Reference(int64_t row, int64_t column, double* value, double* tolerance) const {
    double error;
    double sum = Dot(row, column, &error);
    if (gated_) {
      double up_error;
      const double up = Dot(row, columns_ + column, &up_error);
      const double act = ActivateReference(sum, 0);
      *value = act * up;
      *tolerance = 1.13 * error * (std::fabs(up) + up_error) + std::fabs(act) * up_error + 8 * 0x1p-24 * std::fabs(*value);
    } else {
      if (case_.epilogue == Epilogue::kAdd) sum += residual_.At(row * columns_ + column);
      *value = sum;
      *tolerance = error + 2 * 0x1p-24 * (std::fabs(sum) + 1);
    }
    *tolerance += EpsOf(case_.y_dtype) * std::fabs(*value) + 1e-8 + MinStep(case_.y_dtype);
  }

  GroupedCase case_;
  bool gated_;
  int64_t columns_;
  int64_t ldx_;
  Array x_;
  GroupedWeight weight_;
  Array bias_;
  Array residual_;
};

GroupedCase RandomCase(Random& random, const Grouping& grouping, int64_t m, int64_t n, int64_t k) {
  GroupedCase c = {grouping, m, n, k, random.Pick(kFloats), Dtype::kF32, static_cast<Epilogue>(random.Below(3)),
                   random.Below(2) == 0, static_cast<int>(random.Below(4))};
  if (c.epilogue == Epilogue::kGated) c.n = (c.n + 1) / 2 * 2;
  if (c.epilogue != Epilogue::kAdd && random.Below(2) == 0) c.y_dtype = c.dtype;
  if (c.y_dtype == Dtype::kF16 && c.epilogue == Epilogue::kGated) c.y_dtype = Dtype::kF32;  // might be too large for it
  return c;
}

void CheckCase(const Kernels& kernels, Random& random, Report& report, const GroupedCase& c) {
  const GroupedRun run(random, c);
  run.Check(kernels, report);
  run.CheckSplits(kernels, random, report);
  run.CheckBits(kernels, report);
}

struct Shape {
  int64_t m, n, k;
};
constexpr Shape kShapes[] = {
    {1, 1, 32},    {1, 17, 64},   {2, 33, 96},    {3, 128, 160}, {4, 100, 64},   {5, 64, 224},  {8, 48, 128},
    {9, 129, 96},  {16, 31, 512}, {19, 160, 576}, {33, 70, 1056}, {131, 40, 96}, {1, 20, 9024}, {7, 36, 1536},
};

// A row that holds what is no number has no number for an answer, and no other row is touched.
void CheckNotFinite(const Kernels& kernels, Random& random, Report& report, const Grouping& grouping) {
  GroupedCase c = {grouping, 5, 33, 96, Dtype::kF32, Dtype::kF32, Epilogue::kStore, true, 0};
  GroupedRun run(random, c);
  const Array good = run.RunWhole(kernels);
  run.x().Set(1 * run.ldx() + 95, NAN);
  run.x().Set(3 * run.ldx() + 40, -INFINITY);
  const Array y = run.RunWhole(kernels);
  bool right = true;
  for (int64_t i = 0; i < y.size(); i++) {
    const int64_t row = i / c.n;
    right = right && (row == 1 || row == 3 ? std::isnan(y.At(i)) : y.At(i) == good.At(i));
  }
  report.True(Describe(c) + " with NaN and infinity", right);
}

// Rows of zeros, and of numbers too small to count, give zero.
void CheckNothing(const Kernels& kernels, Random& random, Report& report, const Grouping& grouping) {
  GroupedCase c = {grouping, 2, 20, 64, Dtype::kF32, Dtype::kF32, Epilogue::kStore, false, 1};
  GroupedRun run(random, c);
  for (int64_t i = 0; i < run.x().size(); i++) run.x().Set(i, i < run.ldx() ? 0 : 1e-38);
  const Array y = run.RunWhole(kernels);
  bool right = true;
  for (int64_t i = 0; i < y.size(); i++) right = right && y.At(i) == 0;
  report.True(Describe(c) + " of nothing", right);
}

void CheckRows(const Kernels& kernels, Random& random, Report& report, const Grouping& grouping, Dtype y_dtype) {
  const int64_t vocab = 45, hidden = 32 * random.Between(1, 5);
  const GroupedWeight weight(random, grouping, Dtype::kBf16, vocab, hidden, false);
  const std::vector<int32_t> ids = {0, 15, 16, 44, 7};
  const auto n = static_cast<int64_t>(ids.size());
  Array got(y_dtype, n * hidden), want(y_dtype, n * hidden);
  kernels.embedding({ids.data(), weight.packed, nullptr, Dtype::kBf16, hidden, got.data(), y_dtype, 0, n});
  for (int64_t i = 0; i < want.size(); i++) {
    want.Set(i, static_cast<float>(weight.At(ids[static_cast<size_t>(i / hidden)], i % hidden)));
  }
  report.Same("embedding, grouped", want, got);
}

}  // namespace

void TestGroupedGemm(const Kernels& kernels, Random& random, Report& report) {
  for (const int32_t bits : {4, 8}) {
    for (const int32_t group : {16, 32}) {
      for (const bool has_min : {false, true}) {
        const Grouping grouping = {bits, group, has_min};
        for (const Shape& s : kShapes) CheckCase(kernels, random, report, RandomCase(random, grouping, s.m, s.n, s.k));
        for (int i = 0; i < 10; i++) {
          const int64_t m = random.Between(1, 40), n = random.Between(1, 200), k = 32 * random.Between(1, 12);
          CheckCase(kernels, random, report, RandomCase(random, grouping, m, n, k));
        }
        const GroupedCase widest = {grouping, 9, 40, 640, Dtype::kF32, Dtype::kF32, Epilogue::kStore, false, 0};
        GroupedRun(random, widest, true).Check(kernels, report);
        CheckNotFinite(kernels, random, report, grouping);
        CheckNothing(kernels, random, report, grouping);
        for (const Dtype y_dtype : kFloats) CheckRows(kernels, random, report, grouping, y_dtype);
      }
    }
  }
}

}  // namespace tenon_cpu::testing
