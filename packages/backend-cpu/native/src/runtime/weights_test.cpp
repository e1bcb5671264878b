// weights_test: LoadWeights against a plain element-by-element layout of the same values, for every layout, type, weight
// scheme and awkward size; the same bytes whatever the threads; and what broken files and plans are answered.
#include "weights.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>

#include "grouped_rows.h"

namespace tenon_cpu {
namespace {

using tenon::Status;
using tenon::StatusCode;
using tenon::UseBit;
using tenon::WeightPart;
using tenon::CheckpointFormat;
using tenon::ConvertToBf16;
using tenon::ConvertToF16;
using tenon::FindCheckpointFormat;
using tenon::WeightUse;

int failures = 0;

#define EXPECT(condition, ...)                         \
  do {                                                 \
    if (!(condition) && ++failures <= 20) {            \
      std::printf("%s:%d: ", __FILE_NAME__, __LINE__); \
      std::printf(__VA_ARGS__);                        \
      std::printf("\n");                               \
    }                                                  \
  } while (0)

// Memory full of a pattern, so that bytes that loading leaves out are seen.
class TestPool : public tenon::MemoryPool {
 public:
  Status Allocate(tenon::Arena, size_t bytes, void** data) override {
    if (bytes > limit) return Status::Error(StatusCode::kOutOfMemory, "no room for %zu bytes", bytes);
    bytes_ = (bytes + 63) / 64 * 64;
    *data = std::aligned_alloc(64, bytes_);
    std::memset(*data, 0xa5, bytes_);
    return Status::Ok();
  }
  void Free(void* data) override { std::free(data); }
  size_t UsedBytes(tenon::Arena) const override { return bytes_; }

  size_t limit = size_t{1} << 40;

 private:
  size_t bytes_ = 0;
};

std::mt19937 rng(7);
std::string folder;

// A checkpoint file that grows tensor by tensor.
class Checkpoint {
 public:
  explicit Checkpoint(const char* name) : path_(folder + "/" + name) {}

  // Random bits, or normal values where the format has exponents (`any_bits` false). `skip`: bytes before it.
  WeightPart Add(const char* format_name, std::vector<int64_t> shape, bool any_bits, int skip = 0) {
    const CheckpointFormat* format = FindCheckpointFormat(format_name);
    int64_t elements = 1;
    for (const int64_t dim : shape) elements *= dim;
    bytes_.resize(bytes_.size() + skip);
    const size_t offset = bytes_.size();
    const size_t size = static_cast<size_t>(format->Bytes(elements));
    for (size_t i = 0; i < size; i++) bytes_.push_back(static_cast<uint8_t>(rng()));
    if (!any_bits) MakeNormal(format_name, offset, size);
    return {.name = std::to_string(offset) + ".weight", .file = path_, .offset = offset, .size_bytes = size,
            .format = format_name, .shape = std::move(shape)};
  }

  std::string Write(size_t bytes = SIZE_MAX) {
    std::ofstream file(path_, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes_.data()), static_cast<std::streamsize>(std::min(bytes, bytes_.size())));
    return path_;
  }

  std::vector<float> Values(const WeightPart& part) const {
    const CheckpointFormat* format = FindCheckpointFormat(part.format);
    const int64_t blocks = static_cast<int64_t>(part.size_bytes) / format->block_bytes;
    std::vector<float> values(blocks * format->block_elements);
    format->Dequantize(bytes_.data() + part.offset, blocks, values.data());
    return values;
  }
  uint16_t Half(const WeightPart& part, int64_t i) const {
    uint16_t half;
    std::memcpy(&half, &bytes_[part.offset + 2 * i], 2);
    return half;
  }

 private:
  void MakeNormal(std::string_view format, size_t offset, size_t size) {
    for (size_t i = offset; i < offset + size; i++) {
      if (format == "F32" && i % 4 == (offset + 3) % 4) bytes_[i] = static_cast<uint8_t>((bytes_[i] & 0x80) | 0x3e);
      if (format == "BF16" && i % 2 == (offset + 1) % 2) bytes_[i] = static_cast<uint8_t>((bytes_[i] & 0x80) | 0x3e);
      if (format == "F16" && i % 2 == (offset + 1) % 2) bytes_[i] = static_cast<uint8_t>((bytes_[i] & 0x80) | 0x34);
      if (format[0] == 'Q') bytes_[i] &= 0x3b;  // f16 scales below 1, never NaN
    }
  }

  std::string path_;
  std::vector<uint8_t> bytes_;
};

struct Loaded {
  Status status;
  std::vector<LoadedWeight> weights;
  TestPool pool;
  void* memory = nullptr;
  uint64_t max_progress = 0, total_progress = 0;
  ~Loaded() { pool.Free(memory); }
};

void Load(const std::vector<WeightRequest>& requests, const Kernels& kernels, int num_threads, Loaded* loaded) {
  ThreadPool threads(num_threads);
  std::mutex mutex;
  loaded->status = LoadWeights(
      requests, kernels, threads, loaded->pool,
      [&](uint64_t done, uint64_t total) {
        const std::lock_guard<std::mutex> lock(mutex);
        loaded->max_progress = std::max(loaded->max_progress, done);
        loaded->total_progress = total;
      },
      std::atomic<bool>(false), &loaded->weights, &loaded->memory);
}

// The bits of a value held as `dtype`.
uint32_t Held(float value, Dtype dtype) {
  uint16_t half = 0;
  if (dtype == Dtype::kBf16) ConvertToBf16(&value, 1, &half);
  if (dtype == Dtype::kF16) ConvertToF16(&value, 1, &half);
  return dtype == Dtype::kF32 ? std::bit_cast<uint32_t>(value) : half;
}

uint32_t ElementAt(const void* data, int64_t i, Dtype dtype) {
  if (dtype == Dtype::kF32) return static_cast<const uint32_t*>(data)[i];
  return static_cast<const uint16_t*>(data)[i];
}

// Position of element (row, col) in a packed matrix of n rows.
int64_t PackedIndex(int64_t row, int64_t col, int64_t n, int64_t k, bool gated, Dtype dtype) {
  const int64_t kr = PackFactor(dtype), half = gated ? n / 2 : n;
  const int64_t in_half = row % half;
  const int64_t block = gated ? in_half / 16 * 2 + row / half : in_half / 16;
  const int64_t block_elements = (k + kr - 1) / kr * kr * 16;
  return block * block_elements + col / kr * 16 * kr + in_half % 16 * kr + col % kr;
}

struct MatrixCase {
  const char* format;
  Dtype dtype;
  WeightUse use;
  std::vector<int64_t> part_rows;
  int64_t k;
  int skip;
};

void ExpectMatrix(const MatrixCase& test, const Checkpoint& checkpoint, const WeightRequest& request, const LoadedWeight& weight) {
  const int64_t n = request.shape[0], k = test.k;
  const bool gated = test.use == WeightUse::kLinearGated, packed = gated || test.use == WeightUse::kLinear;
  const void* data = packed ? weight.packed.data : weight.row_major;
  EXPECT(data != nullptr && reinterpret_cast<uintptr_t>(data) % 64 == 0, "%s: misaligned", test.format);
  if (data == nullptr) return;
  const bool as_is = test.dtype == Dtype::kBf16 && std::string_view(test.format) == "BF16";
  std::vector<bool> seen(packed ? PackedIndex(n - 1, k - 1, n, k, gated, test.dtype) / 16 / k * 16 * k * 2 + 64 * k : 0);
  int64_t row = 0;
  for (const WeightPart& part : request.parts) {
    const std::vector<float> values = checkpoint.Values(part);
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); i++) {
      const int64_t r = row + i / k;
      const int64_t at = packed ? PackedIndex(r, i % k, n, k, gated, test.dtype) : r * k + i % k;
      const uint32_t expected = as_is ? checkpoint.Half(part, i) : Held(values[i], test.dtype);
      const uint32_t actual = ElementAt(data, at, test.dtype);
      EXPECT(actual == expected, "%s as %s, use %d, %ldx%ld: (%ld, %ld) is %x, expected %x", test.format,
             tenon::kDtypeNames[static_cast<int>(test.dtype)], static_cast<int>(test.use), n, k, r, i % k, actual, expected);
      if (packed && at < static_cast<int64_t>(seen.size())) seen[at] = true;
    }
    row += part.shape[0];
  }
  if (!packed) return;
  const int64_t blocks = gated ? (n / 2 + 15) / 16 * 2 : (n + 15) / 16;
  const int64_t kr = PackFactor(test.dtype);
  for (int64_t at = 0; at < blocks * ((k + kr - 1) / kr * kr * 16); at++) {
    EXPECT(seen[at] || ElementAt(data, at, test.dtype) == 0, "%s %ldx%ld: padding at %ld is not zero", test.format, n, k, at);
  }
}

void TestMatrices(const Kernels& kernels) {
  std::vector<MatrixCase> cases;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    for (const char* format : {"F32", "F16", "BF16", "Q4_1", "Q6_K"}) {
      const int64_t k = format[0] == 'Q' ? 512 : 66;
      for (const WeightUse use : {WeightUse::kLinear, WeightUse::kLinearGated, WeightUse::kEmbedding}) {
        cases.push_back({format, dtype, use, {34}, k, 0});
        cases.push_back({format, dtype, use, {7, 16, 25}, k, 2});
        if (format[0] != 'Q') cases.push_back({format, dtype, use, {6}, 33, 1});
        if (format[0] != 'Q') cases.push_back({format, dtype, use, {30, 2}, 1, 3});
      }
    }
  }
  cases.push_back({"BF16", Dtype::kBf16, WeightUse::kLinear, {3000}, 512, 0});  // several items
  cases.push_back({"BF16", Dtype::kBf16, WeightUse::kLinearGated, {2100, 2100}, 512, 0});

  Checkpoint checkpoint("matrices.bin");
  std::vector<WeightRequest> requests;
  for (const MatrixCase& test : cases) {
    WeightRequest request{.name = "w", .parts = {}, .shape = {0, test.k}, .dtype = test.dtype, .uses = UseBit(test.use), .data = {}};
    const bool as_is = test.dtype == Dtype::kBf16 && std::string_view(test.format) == "BF16";
    for (const int64_t rows : test.part_rows) {
      request.parts.push_back(checkpoint.Add(test.format, {rows, test.k}, as_is, test.skip));
      request.shape[0] += rows;
    }
    requests.push_back(std::move(request));
  }
  checkpoint.Write();

  Loaded one, three;
  Load(requests, kernels, 1, &one);
  Load(requests, kernels, 3, &three);
  EXPECT(one.status.ok() && three.status.ok(), "%s %s", one.status.message().c_str(), three.status.message().c_str());
  if (!one.status.ok() || !three.status.ok()) return;
  for (size_t i = 0; i < cases.size(); i++) ExpectMatrix(cases[i], checkpoint, requests[i], one.weights[i]);
  for (size_t i = 0; i < cases.size(); i++) ExpectMatrix(cases[i], checkpoint, requests[i], three.weights[i]);
  EXPECT(three.max_progress == three.total_progress && three.total_progress > 0, "progress ends at %lu of %lu",
         three.max_progress, three.total_progress);
}

// Element (row, col) of a grouped matrix, read out of its block as kernels.h describes it.
float GroupedElement(const PackedMatrix& matrix, int64_t row, int64_t col, bool gated) {
  const Grouping& grouping = matrix.grouping;
  const int64_t half = gated ? matrix.n / 2 : matrix.n, in_half = row % half, lane = in_half % 16;
  const int64_t block = gated ? in_half / 16 * 2 + row / half : in_half / 16;
  const auto* unit = static_cast<const uint8_t*>(matrix.data) + block * PackedBlockBytes(matrix.dtype, matrix.k, grouping) +
                     col / kUnitK * GroupedUnitBytes(grouping);
  const int64_t in_unit = col % kUnitK, halves = kUnitK / grouping.group * 16;
  const auto half_at = [&](int64_t index) {
    float value;
    FindCheckpointFormat("F16")->Dequantize(unit + 2 * index, 1, &value);
    return value;
  };
  const int64_t at = in_unit / grouping.group * 16 + lane;
  const float scale = half_at(at), min = grouping.has_min ? half_at(halves + at) : 0;
  const uint8_t* quants = unit + 2 * halves * (grouping.has_min ? 2 : 1);
  const int64_t in_byte = in_unit % 8;
  const int u = grouping.bits == 8 ? quants[in_unit / 4 * 64 + lane * 4 + in_unit % 4]
                                   : quants[in_unit / 8 * 64 + lane * 4 + in_byte % 4] >> (in_byte / 4 * 4) & 15;
  return scale * static_cast<float>(u - grouping.Zero()) + min;
}

struct GroupedCase {
  std::vector<const char*> formats;  // of the parts
  tenon::WeightScheme scheme;
  WeightUse use;
  int64_t k;
};

// Scales and minima of the K formats are products that are rounded to f16; all others are the file's own.
void ExpectGrouped(const GroupedCase& test, const Checkpoint& checkpoint, const WeightRequest& request,
                   const LoadedWeight& weight) {
  const Grouping grouping = GroupingOf(test.scheme);
  const PackedMatrix& packed = weight.packed;
  EXPECT(packed.data != nullptr && reinterpret_cast<uintptr_t>(packed.data) % 64 == 0, "grouped: misaligned");
  EXPECT(packed.grouping.bits == grouping.bits && packed.grouping.group == grouping.group &&
             packed.grouping.has_min == grouping.has_min && packed.k == test.k && packed.n == request.shape[0],
         "grouped: another description");
  if (packed.data == nullptr) return;
  int64_t row = 0;
  for (const WeightPart& part : request.parts) {
    const std::vector<float> values = checkpoint.Values(part);
    const bool exact = part.format.find("_K") == std::string::npos;
    const float largest = std::abs(*std::max_element(values.begin(), values.end(), [](float a, float b) {
      return std::abs(a) < std::abs(b);
    }));
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); i++) {
      const float actual = GroupedElement(packed, row + i / test.k, i % test.k, test.use == WeightUse::kLinearGated);
      const float tolerance = exact ? 0 : largest * 0x1p-9f;
      EXPECT(std::abs(actual - values[i]) <= tolerance, "%s as %s, use %d: (%ld, %ld) is %g, expected %g",
             part.format.c_str(), tenon::kWeightSchemes[static_cast<int>(test.scheme)].name, static_cast<int>(test.use),
             row + i / test.k, i % test.k, actual, values[i]);
    }
    row += part.shape[0];
  }
}

// Every format in every scheme that holds it, alone and beside another; widths with half a unit at the end.
std::vector<GroupedCase> GroupedCases() {
  constexpr const char* kFormats[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"};
  std::vector<GroupedCase> cases;
  for (size_t i = 1; i < std::size(tenon::kWeightSchemes); i++) {
    const auto scheme = static_cast<tenon::WeightScheme>(i);
    std::vector<const char*> fitting;
    for (const char* format : kFormats) {
      if (Holds(tenon::InfoOf(scheme), FindCheckpointFormat(format)->groups)) fitting.push_back(format);
    }
    EXPECT(!fitting.empty(), "nothing fits %s", tenon::kWeightSchemes[i].name);
    for (const char* format : fitting) {
      const bool small = FindCheckpointFormat(format)->block_elements == 32;
      for (const WeightUse use : {WeightUse::kLinear, WeightUse::kLinearGated, WeightUse::kEmbedding})
        cases.push_back({{format}, scheme, use, small ? 96 : 256});
      cases.push_back({{format, fitting[0], fitting.back()}, scheme, WeightUse::kLinear, 512});
    }
  }
  return cases;
}

void TestGrouped(const Kernels& kernels) {
  const std::vector<GroupedCase> cases = GroupedCases();
  Checkpoint checkpoint("grouped.bin");
  std::vector<WeightRequest> requests;
  for (const GroupedCase& test : cases) {
    WeightRequest request{.name = "w", .parts = {}, .shape = {0, test.k}, .dtype = Dtype::kBf16, .scheme = test.scheme,
                          .uses = UseBit(test.use), .data = {}};
    for (const char* format : test.formats) {
      const int64_t rows = test.formats.size() == 1 ? 42 : 7 + static_cast<int64_t>(requests.size()) % 16;
      request.parts.push_back(checkpoint.Add(format, {rows, test.k}, false, 1));
      request.shape[0] += rows;
    }
    requests.push_back(std::move(request));
  }
  checkpoint.Write();
  for (const int num_threads : {1, 3}) {
    Loaded loaded;
    Load(requests, kernels, num_threads, &loaded);
    EXPECT(loaded.status.ok(), "%s", loaded.status.message().c_str());
    if (!loaded.status.ok()) return;
    for (size_t i = 0; i < cases.size(); i++) ExpectGrouped(cases[i], checkpoint, requests[i], loaded.weights[i]);
  }
}

void TestVectors(const Kernels& kernels) {
  Checkpoint checkpoint("vectors.bin");
  const uint32_t vector = UseBit(WeightUse::kVector);
  std::vector<WeightRequest> requests;
  for (const char* format : {"F32", "F16", "BF16", "Q8_0"}) {
    const WeightPart a = checkpoint.Add(format, {64}, false, 1), b = checkpoint.Add(format, {32}, false);
    requests.push_back({.name = format, .parts = {a, b}, .shape = {96}, .dtype = Dtype::kF32, .uses = vector, .data = {}});
  }
  requests.push_back({.name = "constant", .parts = {}, .shape = {3}, .dtype = Dtype::kF32, .uses = vector, .data = {1, 2, 3}});
  checkpoint.Write();
  Loaded loaded;
  Load(requests, kernels, 2, &loaded);
  EXPECT(loaded.status.ok(), "%s", loaded.status.message().c_str());
  if (!loaded.status.ok()) return;
  for (size_t i = 0; i < 4; i++) {
    std::vector<float> expected = checkpoint.Values(requests[i].parts[0]), tail = checkpoint.Values(requests[i].parts[1]);
    expected.insert(expected.end(), tail.begin(), tail.end());
    EXPECT(std::memcmp(expected.data(), loaded.weights[i].vector, 96 * 4) == 0, "vector of %s", requests[i].name.c_str());
  }
  const float* constant = loaded.weights[4].vector;
  EXPECT(constant[0] == 1 && constant[1] == 2 && constant[2] == 3, "constant");
}

void ExpectError(const Kernels& kernels, const WeightRequest& request, StatusCode code, std::vector<std::string> words,
                 size_t memory_limit = size_t{1} << 40) {
  Loaded loaded;
  loaded.pool.limit = memory_limit;
  Load({request}, kernels, 1, &loaded);
  EXPECT(loaded.status.code() == code, "code %s, message '%s'", StatusCodeName(loaded.status.code()), loaded.status.message().c_str());
  for (const std::string& word : words) {
    EXPECT(loaded.status.message().find(word) != std::string::npos, "'%s' is not in '%s'", word.c_str(), loaded.status.message().c_str());
  }
  EXPECT(loaded.memory == nullptr, "memory kept after an error");
}

void TestErrors(const Kernels& kernels) {
  Checkpoint checkpoint("errors.bin");
  const uint32_t linear = UseBit(WeightUse::kLinear);
  const WeightPart part = checkpoint.Add("BF16", {4, 32}, false, 64);
  const WeightPart tail = checkpoint.Add("F32", {2, 32}, false);
  const std::string path = checkpoint.Write();
  const auto request = [&](WeightPart from, std::vector<int64_t> shape, uint32_t uses) {
    return WeightRequest{.name = "mlp.up", .parts = {std::move(from)}, .shape = std::move(shape), .dtype = Dtype::kBf16, .uses = uses, .data = {}};
  };

  WeightPart missing = part, unknown = part, contradictory = part, uneven = part;
  missing.file = folder + "/nowhere.bin";
  unknown.format = "IQ9_Z";
  contradictory.size_bytes = 250;
  uneven.format = "Q4_K";
  ExpectError(kernels, request(missing, {4, 32}, linear), StatusCode::kWeightsMissing, {"nowhere.bin", "No such file"});
  missing.file = folder;
  ExpectError(kernels, request(missing, {4, 32}, linear), StatusCode::kWeightsMissing, {"not a file"});
  ExpectError(kernels, request(unknown, {4, 32}, linear), StatusCode::kUnsupportedQuantization, {"mlp.up", "IQ9_Z", "Q6_K"});
  ExpectError(kernels, request(contradictory, {4, 32}, linear), StatusCode::kWeightsInvalid, {part.name, "256", "250"});
  ExpectError(kernels, request(uneven, {4, 32}, linear), StatusCode::kWeightsInvalid, {"mlp.up", "32", "256"});
  ExpectError(kernels, request(part, {4, 33}, linear), StatusCode::kWeightsInvalid, {"mlp.up", "[4, 33]", part.name, "[4, 32]"});
  ExpectError(kernels, request(part, {5, 32}, linear), StatusCode::kWeightsInvalid, {"[5, 32]", "[4, 32]"});
  ExpectError(kernels, request(part, {int64_t{1} << 40, int64_t{1} << 40}, linear), StatusCode::kWeightsInvalid, {"mlp.up"});
  ExpectError(kernels, request(part, {-4, 32}, linear), StatusCode::kWeightsInvalid, {"[-4, 32]"});
  ExpectError(kernels, request(part, {128}, UseBit(WeightUse::kVector)), StatusCode::kWeightsInvalid, {"[128]", "[4, 32]"});
  ExpectError(kernels, request(part, {4, 32}, linear), StatusCode::kOutOfMemory, {"1024"}, 100);
  ExpectError(kernels, request(part, {4, 32}, 0), StatusCode::kInternal, {"mlp.up"});

  WeightRequest scheme = request(part, {4, 32}, linear);
  scheme.scheme = tenon::WeightScheme::kInt8G32;
  ExpectError(kernels, scheme, StatusCode::kUnsupportedQuantization, {"mlp.up", "BF16", "int8:g32"});

  checkpoint.Write(400);
  ExpectError(kernels, request(tail, {2, 32}, linear), StatusCode::kWeightsInvalid, {path, "truncated", tail.name, "576", "400"});
  WeightPart beyond = part;
  beyond.offset = UINT64_MAX - 8;
  ExpectError(kernels, request(beyond, {4, 32}, linear), StatusCode::kWeightsInvalid, {"truncated"});
  checkpoint.Write(0);
  ExpectError(kernels, request(part, {4, 32}, linear), StatusCode::kWeightsInvalid, {"truncated", "320", "has 0"});
}

}  // namespace
}  // namespace tenon_cpu

int main() {
  using namespace tenon_cpu;
  folder = (std::filesystem::temp_directory_path() / "tenon-weights-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return std::printf("cannot make %s\n", folder.c_str()), 1;
  int tables = 0;
  for (const Isa isa : {Isa::kGeneric, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx}) {
    if (GetKernels(isa) == nullptr || !CanRun(isa)) continue;
    TestMatrices(*GetKernels(isa));
    TestGrouped(*GetKernels(isa));
    TestVectors(*GetKernels(isa));
    TestErrors(*GetKernels(isa));
    tables++;
  }
  std::filesystem::remove_all(folder);
  EXPECT(tables > 0, "no kernels run on this machine");
  if (failures > 0) return std::printf("%d failures\n", failures), 1;
  std::printf("ok: %d instruction sets\n", tables);
  return 0;
}
