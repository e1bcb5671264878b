// A file of any bytes, and a weight whose parts lie anywhere in it, of any shape and format: what opens is unpacked to its end.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tenon/checkpoint.h"

using namespace tenon;

namespace {

struct Head {
  uint8_t num_parts, rank, format, kind;
  int16_t dims[4];  // of the weight, and of its first part
  uint8_t offset, size_change;
};

const char* const kFormats[] = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
                                "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "I64", ""};

int64_t Dim(int16_t dim) { return dim % 7 == 0 ? int64_t{dim} << 40 : dim % 3 == 0 ? int64_t{dim % 32} * 32 : dim % 512; }

void Unpack(const WeightSource& source) {
  for (const WeightSource::Part& part : source.parts()) {
    const int64_t elements = part.num_rows * source.cols();
    if (elements == 0) continue;
    std::vector<float> values(static_cast<size_t>(elements));
    part.format->Dequantize(part.file->data() + part.offset, elements / part.format->block_elements, values.data());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int file = memfd_create("weights", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  Head head;
  if (size < sizeof(head)) return 0;
  std::memcpy(&head, data, sizeof(head));
  if (ftruncate(file, 0) != 0 || pwrite(file, data + sizeof(head), size - sizeof(head), 0) < 0) return 0;

  WeightRequest request;
  request.name = "w";
  request.shape = {Dim(head.dims[0])};
  if (head.rank % 2 == 0) request.shape.push_back(Dim(head.dims[1]));
  uint64_t offset = head.offset;
  const int num_parts = head.num_parts % 3 + 1;
  for (int i = 0; i < num_parts; ++i) {
    WeightPart part{.name = "p", .file = path, .offset = offset, .size_bytes = 0,
                           .format = kFormats[(head.format + (head.kind & 1) * i) % std::size(kFormats)], .shape = request.shape};
    const bool last = i == num_parts - 1;
    part.shape[0] = num_parts == 1 ? request.shape[0] : last ? request.shape[0] - Dim(head.dims[2]) * i : Dim(head.dims[2]);
    if ((head.kind & 2) != 0 && part.shape.size() > 1) part.shape[1] = Dim(head.dims[3]);
    const CheckpointFormat* format = FindCheckpointFormat(part.format);
    uint64_t elements = 1;
    for (const int64_t dim : part.shape) elements *= static_cast<uint64_t>(dim);
    if (format != nullptr && elements < uint64_t{1} << 50)
      part.size_bytes = static_cast<uint64_t>(format->Bytes(static_cast<int64_t>(elements)));
    if ((head.kind & 4) != 0) part.size_bytes += head.size_change;
    if ((head.kind & 8) != 0) part.offset = ~uint64_t{head.size_change};
    offset += part.size_bytes;
    request.parts.push_back(part);
  }
  MappedFiles files;
  WeightSource source;
  if (WeightSource::Open(request, &files, &source).ok()) Unpack(source);
  return 0;
}
