// GEMM against float64 for all dtypes, epilogues and odd shapes; rows do not depend on how the work is split.
#include "reference.h"

namespace tenon_cpu::testing {
namespace {

struct Shape {
  int64_t m, n, k;
};

struct GemmCase {
  Shape shape;
  Dtype dtype, y_dtype;
  Epilogue epilogue;
  int activation;
  bool bias;
  int misalign;
};

std::string Describe(const GemmCase& c) {
  char text[160];
  std::snprintf(text, sizeof(text), "gemm m=%lld n=%lld k=%lld %s->%s epilogue=%d act=%d bias=%d misalign=%d",
                static_cast<long long>(c.shape.m), static_cast<long long>(c.shape.n),
                static_cast<long long>(c.shape.k), NameOf(c.dtype), NameOf(c.y_dtype), static_cast<int>(c.epilogue),
                c.activation, c.bias, c.misalign);
  return text;
}

// Operands of a case, and runs of it.
class GemmRun {
 public:
  GemmRun(const Kernels& kernels, Random& random, const GemmCase& c)
      : kernels_(kernels),
        case_(c),
        gated_(c.epilogue == Epilogue::kGated),
        columns_(gated_ ? c.shape.n / 2 : c.shape.n),
        ldx_(c.shape.k + c.misalign),
        x_(c.dtype, (c.shape.m - 1) * ldx_ + c.shape.k, c.misalign),
        weight_(kernels, random, c.dtype, c.shape.n, c.shape.k, gated_),
        bias_(Dtype::kF32, c.shape.n, c.misalign),
        residual_(Dtype::kF32, c.shape.m * columns_, c.misalign) {
    x_.Fill(random);
    bias_.Fill(random);
    residual_.Fill(random);
  }

  Array NewOutput() const { return Array(case_.y_dtype, case_.shape.m * columns_, case_.misalign); }
  int64_t NumOutputBlocks() const { return (columns_ + kLanes - 1) / kLanes; }

  void Run(Array& y, int64_t m_begin, int64_t m_end, int64_t block_begin, int64_t block_end) const {
    AlignedBytes scratch(kernels_.gemm_scratch_bytes(m_end - m_begin, case_.shape.k));
    GemmParams p = {};
    p.x = x_.data();
    p.ldx = ldx_;
    p.weight = weight_.packed;
    p.bias = case_.bias ? static_cast<const float*>(bias_.data()) : nullptr;
    p.epilogue = case_.epilogue;
    p.activation = case_.activation;
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
    kernels_.gemm(p);
  }

  Array RunWhole() const {
    Array y = NewOutput();
    Run(y, 0, case_.shape.m, 0, NumOutputBlocks());
    return y;
  }

  // Value and tolerance of y[row, column].
  void Reference(int64_t row, int64_t column, double* value, double* tolerance) const {
    double error;
    double sum = Dot(row, column, &error);
    if (gated_) {
      double up_error;
      const double up = Dot(row, columns_ + column, &up_error);
      const double act = ActivateReference(sum, case_.activation);
      *value = act * up;
      // |act'| ≤ 1.13 for all three; 4 more roundings.
      *tolerance = 1.13 * error * std::fabs(up) + std::fabs(act) * up_error + 8 * 0x1p-24 * std::fabs(*value);
    } else {
      if (case_.epilogue == Epilogue::kAdd) sum += residual_.At(row * columns_ + column);
      *value = sum;
      *tolerance = error + 2 * 0x1p-24 * (std::fabs(sum) + 1);
    }
    *tolerance += EpsOf(case_.y_dtype) * std::fabs(*value) + 1e-8 + MinStep(case_.y_dtype);
  }

  void Check(Report& report) const {
    const Array y = RunWhole();
    std::vector<double> want, tolerance;
    for (int64_t i = 0; i < y.size(); i++) {
      want.emplace_back();
      tolerance.emplace_back();
      Reference(i / columns_, i % columns_, &want.back(), &tolerance.back());
    }
    report.Close(Describe(case_), [&](int64_t i) { return y.At(i); }, want, tolerance);
  }

  // Any split of rows and blocks gives the same bits.
  void CheckSplits(Random& random, Report& report) const {
    const Array whole = RunWhole();
    Array split = NewOutput();
    for (int64_t m = 0; m < case_.shape.m;) {
      const int64_t m_end = m + random.Between(1, case_.shape.m - m);
      for (int64_t block = 0; block < NumOutputBlocks();) {
        const int64_t block_end = block + random.Between(1, NumOutputBlocks() - block);
        Run(split, m, m_end, block, block_end);
        block = block_end;
      }
      m = m_end;
    }
    report.Same(Describe(case_) + " split", whole, split);
  }

 private:
  // x[row] · w[n] + bias, and its error bound 3 sqrt(k) eps Σ |x w|.
  double Dot(int64_t row, int64_t n, double* error) const {
    double sum = 0, magnitude = 0;
    for (int64_t i = 0; i < case_.shape.k; i++) {
      const double product = x_.At(row * ldx_ + i) * double{weight_.values[n * case_.shape.k + i]};
      sum += product;
      magnitude += std::fabs(product);
    }
    *error = 3 * std::sqrt(static_cast<double>(case_.shape.k)) * 0x1p-24 * magnitude + 1e-9;
    return case_.bias ? sum + bias_.At(n) : sum;
  }

  const Kernels& kernels_;
  GemmCase case_;
  bool gated_;
  int64_t columns_;
  int64_t ldx_;
  Array x_;
  Weight weight_;
  Array bias_;
  Array residual_;
};

GemmCase RandomCase(Random& random, Shape shape) {
  GemmCase c = {};
  c.shape = shape;
  c.dtype = random.Pick(kFloats);
  c.y_dtype = random.Below(2) == 0 ? Dtype::kF32 : c.dtype;
  c.epilogue = static_cast<Epilogue>(random.Below(3));
  if (c.epilogue == Epilogue::kGated) c.shape.n = (c.shape.n + 1) / 2 * 2;
  if (c.epilogue == Epilogue::kAdd) c.y_dtype = Dtype::kF32;
  c.activation = static_cast<int>(random.Below(3));
  c.bias = random.Below(2) == 0;
  c.misalign = static_cast<int>(random.Below(4));
  return c;
}

constexpr Shape kShapes[] = {
    {1, 1, 1},    {1, 15, 2},   {1, 16, 3},   {1, 17, 31},  {2, 33, 32},   {3, 128, 33},  {4, 100, 64},
    {5, 64, 65},  {6, 48, 127}, {7, 80, 128}, {8, 129, 96}, {13, 160, 40}, {17, 31, 77},  {33, 70, 50},
    {1, 576, 96}, {9, 24, 600}, {40, 48, 64}, {131, 40, 24}, {1, 20, 9000}, {7, 36, 9001},
};

// Values that only exact handling of f16 and bf16 conversions gets right.
void CheckConversions(const Kernels& kernels, Random& random, Report& report) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kF16}) {
    Array source(Dtype::kF32, 4096);
    Array rounded(dtype, 4096), got(dtype, 4096);
    for (int64_t i = 0; i < source.size(); i++) {
      uint32_t bits = static_cast<uint32_t>(random.Next() >> 32);
      if (i % 4 == 0) bits = (bits & 0xffff0000u) | 0x8000;                // ties of bf16
      if (i % 4 == 1) bits = (bits & 0x807fe000u) | 0x38801000u;           // ties of f16, and its smallest normals
      if (i % 4 == 2) bits = (bits & 0x80ffffffu) + 0x33000000u;           // f16's subnormals
      if (i % 64 == 3) bits &= 0x807fffffu;                                // f32's subnormals
      float x;
      std::memcpy(&x, &bits, 4);
      if (std::isnan(x)) x = 65520;  // rounds to f16's infinity
      source.Set(i, x);
      rounded.Set(i, x);
    }
    Array zero(Dtype::kF32, source.size());
    kernels.add({source.data(), Dtype::kF32, zero.data(), Dtype::kF32, got.data(), dtype, 0, source.size()});
    // Adding zero turns -0 into 0: leave those out.
    for (int64_t i = 0; i < source.size(); i++) {
      if (rounded.At(i) == 0) rounded.Set(i, 0), got.Set(i, got.At(i) == 0 ? 0 : got.At(i));
    }
    report.Same(std::string("rounding to ") + NameOf(dtype), rounded, got);
  }
}

}  // namespace

void TestGemm(const Kernels& kernels, Random& random, Report& report) {
  CheckConversions(kernels, random, report);
  for (const Shape shape : kShapes) {
    for (const Dtype dtype : kFloats) {
      GemmCase c = RandomCase(random, shape);
      c.dtype = dtype;
      if (c.epilogue != Epilogue::kAdd && c.y_dtype != Dtype::kF32) c.y_dtype = dtype;
      const GemmRun run(kernels, random, c);
      run.Check(report);
      run.CheckSplits(random, report);
    }
  }
  for (int i = 0; i < 40; i++) {
    const Shape shape = {random.Between(1, 40), random.Between(1, 200), random.Between(1, 150)};
    const GemmRun run(kernels, random, RandomCase(random, shape));
    run.Check(report);
    run.CheckSplits(random, report);
  }
}

}  // namespace tenon_cpu::testing
