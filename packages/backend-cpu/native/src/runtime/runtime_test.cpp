// runtime_test: thread pool, splits, memory, files that change, machine limits, and that attention's splits over KV do not show.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu_attention.h"
#include "memory_pool.h"
#include "split.h"
#include "tenon/checkpoint.h"
#include "topology.h"
#include "weights.h"

namespace tenon_cpu {
namespace {

using tenon::MappedFile;
using Clock = std::chrono::steady_clock;

int failures = 0;

#define EXPECT(condition, ...)                    \
  do {                                            \
    if (!(condition) && ++failures <= 20) {       \
      std::printf("%s:%d: ", __FILE__, __LINE__); \
      std::printf(__VA_ARGS__);                   \
      std::printf("\n");                          \
    }                                             \
  } while (false)

// Every chunk of every job is run once, on a valid thread, before ParallelFor returns; also after pauses in which the
// threads park, and with more threads than CPUs.
void TestThreadPool() {
  for (int num_threads : {1, 2, 3, 8}) {
    ThreadPool threads(num_threads);
    EXPECT(threads.size() == num_threads, "size %d", threads.size());
    for (int job = 0; job < 3000; ++job) {
      const int64_t num_chunks = job % 37;
      std::vector<std::atomic<int>> runs(static_cast<size_t>(num_chunks));
      std::atomic<bool> bad_thread{false};
      threads.ParallelFor(num_chunks, [&](int64_t chunk, int thread) {
        runs[static_cast<size_t>(chunk)].fetch_add(1);
        if (thread < 0 || thread >= num_threads) bad_thread = true;
      });
      const bool once = std::all_of(runs.begin(), runs.end(), [](const auto& count) { return count == 1; });
      EXPECT(once && !bad_thread, "%d threads, job %d", num_threads, job);
      if (job % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
}

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void TestIdlePoolSleeps() {
  ThreadPool threads(4);
  threads.ParallelFor(8, [](int64_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double before = CpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT(CpuSeconds() - before < 0.005, "an idle pool used %.1f ms of CPU in 300 ms", 1e3 * (CpuSeconds() - before));
}

// A job that both threads must take part in. The best of many, since other programs run beside this one.
void ReportForkJoin() {
  ThreadPool threads(2);
  double best = 1;
  for (int round = 0; round < 200; ++round) {
    const auto start = Clock::now();
    for (int i = 0; i < 100; ++i) {
      std::atomic<int> arrived{0};
      threads.ParallelFor(2, [&](int64_t, int) {
        arrived.fetch_add(1);
        while (arrived.load() < 2) std::this_thread::yield();
      });
    }
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count() / 100);
  }
  std::printf("fork-join of 2 threads: %.2f us\n", best * 1e6);
}

template <typename Split>
void CheckSplit(const Split& split, int64_t size) {
  int64_t next = 0;
  for (int64_t chunk = 0; chunk < split.num_chunks(); ++chunk) {
    const Range range = split[chunk];
    EXPECT(range.begin == next && range.end > range.begin, "size %lld chunk %lld", static_cast<long long>(size),
           static_cast<long long>(chunk));
    next = range.end;
  }
  EXPECT(next == size, "%lld of %lld units covered", static_cast<long long>(next), static_cast<long long>(size));
}

void TestSplits() {
  for (int64_t size = 0; size < 700; ++size) CheckSplit(EvenSplit(size, size % 11), size);
}

// Every unit of a stretch is taken once, from the front in ascending and from the back in descending runs, down to one.
void TestStretch() {
  for (int64_t size : {0, 1, 2, 3, 37, 700}) {
    Stretch stretch;
    stretch.Reset({5, 5 + size});
    int64_t begin = 5, end = 5 + size, last = 1;
    Range range;
    for (int i = 0; i % 3 == 2 ? stretch.TakeBack(&range) : stretch.TakeFront(&range); ++i) {
      EXPECT(range.begin < range.end && (i % 3 == 2 ? range.end == end : range.begin == begin), "size %lld, run %d",
             static_cast<long long>(size), i);
      (i % 3 == 2 ? end : begin) = i % 3 == 2 ? range.begin : range.end;
      last = range.end - range.begin;
    }
    EXPECT(begin == end && last == 1, "size %lld: %lld units left", static_cast<long long>(size),
           static_cast<long long>(end - begin));
  }
}

// Every unit is run once, by however many threads, also where one of them sleeps over its stretch.
void TestRanges() {
  for (int num_threads : {1, 2, 3, 8}) {
    ThreadPool threads(num_threads);
    for (int job = 0; job < 1000; ++job) {
      const int64_t size = job % 131;
      std::vector<std::atomic<int>> runs(static_cast<size_t>(size));
      threads.ParallelRanges(size, [&](Range range, int thread) {
        if (job % 250 == 0 && thread == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        for (int64_t i = range.begin; i < range.end; ++i) runs[static_cast<size_t>(i)].fetch_add(1);
      });
      const bool once = std::all_of(runs.begin(), runs.end(), [](const auto& count) { return count == 1; });
      EXPECT(once, "%d threads, %lld units", num_threads, static_cast<long long>(size));
    }
  }
}

void TestMemoryPool() {
  ThreadPool threads(2);
  constexpr uint64_t kMiB = 1 << 20;
  CpuMemoryPool pool(threads, 100 * kMiB);
  using tenon::Arena;
  void* kv = nullptr;
  void* small = nullptr;
  EXPECT(pool.Allocate(Arena::kKv, 20 * kMiB + 5, &kv).ok() && reinterpret_cast<size_t>(kv) % 64 == 0, "kv");
  EXPECT(pool.Allocate(Arena::kWorkspace, 100, &small).ok() && reinterpret_cast<size_t>(small) % 64 == 0, "workspace");
  const auto* bytes = static_cast<const uint8_t*>(kv);
  EXPECT(std::all_of(bytes, bytes + 20 * kMiB + 5, [](uint8_t byte) { return byte == 0; }), "zeroed");
  EXPECT(pool.UsedBytes(Arena::kKv) == 20 * kMiB + 5 && pool.UsedBytes(Arena::kWorkspace) == 100, "used");
  void* too_much = nullptr;
  const tenon::Status status = pool.Allocate(Arena::kWeights, 60 * kMiB, &too_much);
  EXPECT(status.code() == tenon::StatusCode::kOutOfMemory && too_much == nullptr, "over the limit");
  EXPECT(status.message().find("weights need 60.0 MiB; 48.0 MiB") == 0, "message: %s", status.message().c_str());
  pool.Free(kv);
  EXPECT(pool.UsedBytes(Arena::kKv) == 0, "freed");
  EXPECT(pool.Allocate(Arena::kWeights, 60 * kMiB, &too_much).ok(), "fits now");
}

// A folder with the files of /proc and /sys that matter.
class FakeRoot {
 public:
  FakeRoot() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tenon-root-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void Write(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(path_ + file).parent_path());
    std::ofstream(path_ + file) << text;
  }

 private:
  std::string path_;
};

constexpr const char* kMemInfo = "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:   8000000 kB\n";

void TestCgroupV2() {
  const FakeRoot root;
  root.Write("/proc/meminfo", kMemInfo);
  root.Write("/proc/cpuinfo", "processor: 0\nmodel name\t: Test CPU\n");
  root.Write("/proc/self/cgroup", "0::/app/inner\n");
  root.Write("/sys/fs/cgroup/app/memory.max", "4000000000\n");
  root.Write("/sys/fs/cgroup/app/memory.current", "1500000000\n");
  root.Write("/sys/fs/cgroup/app/memory.stat", "anon 1\ninactive_file 300000000\nactive_file 200000000\n");
  root.Write("/sys/fs/cgroup/app/inner/memory.max", "max\n");
  root.Write("/sys/fs/cgroup/app/inner/cpu.max", "150000 100000\n");
  const MemoryLimits memory = ReadMemoryLimits(root.path());
  EXPECT(memory.total_bytes == 4000000000 && memory.free_bytes == 3000000000, "v2: %llu total, %llu free",
         static_cast<unsigned long long>(memory.total_bytes), static_cast<unsigned long long>(memory.free_bytes));
  const CpuLimits cpus = ReadCpuLimits(root.path());
  EXPECT(cpus.quota == 1.5 && !cpus.cores.empty(), "v2 quota %.2f", cpus.quota);
  EXPECT(ReadCpuName(root.path()) == "Test CPU", "name %s", ReadCpuName(root.path()).c_str());
}

void TestCgroupV1() {
  const FakeRoot root;
  root.Write("/proc/meminfo", kMemInfo);
  // The path lies outside of what is mounted, as in a container without a cgroup namespace.
  root.Write("/proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n");
  root.Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000000\n");
  root.Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "700000000\n");
  root.Write("/sys/fs/cgroup/memory/memory.stat", "cache 5\ntotal_inactive_file 100000000\ntotal_active_file 100000000\n");
  root.Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  root.Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  const MemoryLimits memory = ReadMemoryLimits(root.path());
  EXPECT(memory.total_bytes == 2000000000 && memory.free_bytes == 1500000000, "v1: %llu total, %llu free",
         static_cast<unsigned long long>(memory.total_bytes), static_cast<unsigned long long>(memory.free_bytes));
  EXPECT(ReadCpuLimits(root.path()).quota == 0, "v1 quota");
}

void TestDefaultThreads() {
  CpuLimits limits;
  limits.cores = {{0, 4}, {1, 5}, {2, 6}, {3, 7}};
  EXPECT(limits.DefaultThreads() == 4 && limits.Bindings(4).size() == 4 && limits.Bindings(3).empty(), "no quota");
  limits.quota = 1.5;
  EXPECT(limits.DefaultThreads() == 2 && limits.Bindings(4).empty(), "quota 1.5");
  limits.quota = 100;
  EXPECT(limits.DefaultThreads() == 4, "quota 100");
}

// One decoding sequence over 3000 tokens, and one of 5 queries: split over threads and KV, or not.
class AttentionCase {
 public:
  AttentionCase() : rng_(1) {
    plan_.limits = {.max_tokens = 16, .max_seqs = 2, .max_logit_rows = 1, .max_model_len = 4096, .block_size = 16,
                    .num_blocks = 400, .vocab_size = 1};
    tenon::PlanOp op = {};
    op.id = tenon::OpId::kAttention;
    std::memcpy(op.attr_words.data(), &attrs_, sizeof(attrs_));
    plan_.ops.push_back(op);
    const int64_t cache = KvBlockElements(kHeadDim, 16, Dtype::kF32, kKvHeads) * plan_.limits.num_blocks;
    keys_ = Noise(cache);
    values_ = Noise(cache + kKvSlackBytes);
    q_ = Noise(6 * kRow);
    for (int32_t block = 0; block < plan_.limits.num_blocks; ++block) blocks_.push_back((block * 7) % 400);
  }

  std::vector<float> Run(const Kernels& kernels, int num_threads, int32_t sliding_window) {
    ThreadPool threads(num_threads);
    CpuMemoryPool pool(threads, uint64_t{1} << 30);
    OpContext context{kernels, threads};
    context.scratch_stride = (kernels.attention_scratch_bytes(kMaxQueryRows, kHeads / kKvHeads, kHeadDim) + 63) / 64 * 64;
    std::vector<uint8_t> scratch(context.scratch_stride * static_cast<size_t>(num_threads) + 64);
    context.scratch = scratch.data();
    CpuAttention attention(context);
    EXPECT(attention.Prepare(plan_, pool).ok(), "prepare");
    const tenon::StepView step = MakeStep();
    attention.BeginStep(step);
    tenon::AttentionAttrs attrs = attrs_;
    attrs.sliding_window = sliding_window;
    const KvLayer layer = {keys_.data(), values_.data(), Dtype::kF32, kKvHeads, kHeadDim, 16};
    std::vector<float> y(q_.size(), -1);
    const tenon::Status status = attention.Run({q_.data(), Dtype::kF32, &layer, &step, &attrs, y.data(), Dtype::kF32}, {});
    EXPECT(status.ok(), "%s", status.message().c_str());
    return y;
  }

 private:
  static constexpr int32_t kHeads = 4, kKvHeads = 2, kHeadDim = 16, kRow = kHeads * kHeadDim;

  std::vector<float> Noise(int64_t size) {
    std::vector<float> noise(static_cast<size_t>(size));
    for (float& value : noise) value = std::normal_distribution<float>()(rng_);
    return noise;
  }

  tenon::StepView MakeStep() {
    using Region = tenon::StepRegion;
    words_.assign(tenon::kStepHeaderWords, 0);
    const auto add = [&](Region region, const std::vector<int32_t>& values) {
      words_[static_cast<size_t>(tenon::kStepHeaderFields) + static_cast<size_t>(region)] = static_cast<int32_t>(words_.size());
      words_.insert(words_.end(), values.begin(), values.end());
    };
    add(Region::kTokenIds, std::vector<int32_t>(6));
    add(Region::kPositions, std::vector<int32_t>(6));
    add(Region::kSlotMapping, std::vector<int32_t>(6));
    add(Region::kCuSeqlensQ, {0, 1, 6});
    add(Region::kSeqLens, {3000, 2050});
    add(Region::kPromptLens, {0, 0});
    add(Region::kSeqSlots, {0, 1});
    std::vector<int32_t> tables(blocks_.begin(), blocks_.begin() + 200);
    tables.insert(tables.end(), blocks_.begin() + 200, blocks_.end());
    add(Region::kBlockTables, tables);
    const int32_t header[] = {tenon::kStepMagic, tenon::kStepVersion, 1, 6, 2, 0, 200, 0, static_cast<int32_t>(words_.size())};
    std::copy(std::begin(header), std::end(header), words_.begin());
    tenon::StepView step;
    const tenon::Status status = tenon::StepView::Parse(words_.data(), words_.size(), plan_.limits, &step);
    EXPECT(status.ok(), "%s", status.message().c_str());
    return step;
  }

  std::mt19937 rng_;
  const tenon::AttentionAttrs attrs_ = {0, kHeads, kKvHeads, kHeadDim, 0.25f, 0, 0};
  tenon::Plan plan_;
  std::vector<float> keys_, values_, q_;
  std::vector<int32_t> blocks_, words_;
};

void TestAttentionSplits() {
  AttentionCase attention;
  for (const Isa isa : {Isa::kGeneric, BestIsa()}) {
    for (int32_t window : {0, 700, 1500}) {
      const std::vector<float> whole = attention.Run(*GetKernels(isa), 1, window);
      EXPECT(whole[0] != -1 && whole.back() != -1, "all rows are written");
      for (int num_threads : {2, 3, 16})
        EXPECT(attention.Run(*GetKernels(isa), num_threads, window) == whole, "%s, %d threads, window %d differ",
               GetKernels(isa)->name, num_threads, window);
    }
  }
}

// A chunk that throws, in whichever thread, fails the call and nothing else.
void TestThrowingChunks() {
  ThreadPool threads(3);
  for (int64_t bad = 0; bad < 100; ++bad) {
    std::atomic<int64_t> ran{0};
    bool thrown = false;
    try {
      threads.ParallelFor(100, [&](int64_t chunk, int) {
        ++ran;
        if (chunk == bad || chunk == 99) throw std::bad_alloc();
      });
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
    EXPECT(thrown && ran.load() == 100, "chunk %d: thrown %d, %d ran", static_cast<int>(bad), thrown, static_cast<int>(ran.load()));
    int64_t sum = 0;
    std::mutex mutex;
    threads.ParallelFor(10, [&](int64_t chunk, int) {
      const std::lock_guard lock(mutex);
      sum += chunk;
    });
    EXPECT(sum == 45, "the next job: %d", static_cast<int>(sum));
  }
}

// Where the system refuses memory, as under a limit of the process, an allocation is an error.
void TestRefusedMemory() {
  ThreadPool threads(1);
  CpuMemoryPool pool(threads, uint64_t{1} << 50);
  void* data = nullptr;
  const tenon::Status status = pool.Allocate(tenon::Arena::kKv, size_t{1} << 49, &data);
  EXPECT(status.code() == tenon::StatusCode::kOutOfMemory && data == nullptr, "%s", status.message().c_str());
}

// Loading reports progress as it goes: the first report is the moment at which the file is cut, or loading is given up.
void TestLoadingThatEndsEarly(const std::string& path) {
  constexpr int64_t kRows = 16384, kCols = 1024;
  constexpr uint64_t kBytes = uint64_t{kRows * kCols * 2};
  std::ofstream(path, std::ios::binary).close();
  std::filesystem::resize_file(path, kBytes);
  const tenon::WeightPart part{.name = "w", .file = path, .offset = 0, .size_bytes = kBytes, .format = "BF16", .shape = {kRows, kCols}};
  const tenon::WeightRequest request{.name = "w", .parts = {part}, .shape = {kRows, kCols}, .dtype = Dtype::kBf16,
                                     .uses = tenon::UseBit(tenon::WeightUse::kLinear), .data = {}};
  for (const int num_threads : {1, 3}) {
    std::filesystem::resize_file(path, kBytes);
    ThreadPool threads(num_threads);
    CpuMemoryPool pool(threads, uint64_t{1} << 40);
    std::vector<LoadedWeight> weights;
    void* memory = nullptr;
    std::atomic<bool> cancelled{false};
    const auto load = [&](const tenon::ProgressFn& progress) {
      return LoadWeights({request}, *GetKernels(BestIsa()), threads, pool, progress, cancelled, &weights, &memory);
    };
    const tenon::Status cut = load([&](uint64_t, uint64_t) { std::filesystem::resize_file(path, 4096); });
    EXPECT(cut.code() == tenon::StatusCode::kWeightsInvalid && cut.message().find("truncated while it was loaded") != std::string::npos,
           "%s", cut.message().c_str());
    EXPECT(memory == nullptr && pool.UsedBytes(tenon::Arena::kWeights) == 0, "memory is kept");
    std::filesystem::resize_file(path, kBytes);
    std::atomic<uint64_t> loaded{0};
    const tenon::Status given_up = load([&](uint64_t bytes, uint64_t) { cancelled = true, loaded.store(bytes); });
    EXPECT(given_up.code() == tenon::StatusCode::kDeviceLost && loaded < kBytes, "%s", given_up.message().c_str());
    EXPECT(memory == nullptr && pool.UsedBytes(tenon::Arena::kWeights) == 0, "memory is kept");
  }
}

// A file that loses its end while it is mapped reads as zeros from there on, and says so; others are not touched by it.
void TestTruncatedFile() {
  constexpr size_t kBytes = 64 << 10, kKept = 16 << 10;
  struct sigaction before;
  sigaction(SIGBUS, nullptr, &before);
  const std::string folder = (std::filesystem::temp_directory_path() / ("tenon-runtime-" + std::to_string(getpid()))).string();
  std::filesystem::create_directory(folder);
  const auto open = [&](const char* name, std::unique_ptr<MappedFile>* file) {
    std::ofstream(folder + "/" + name, std::ios::binary) << std::string(kBytes, 'w');
    EXPECT(MappedFile::Open(folder + "/" + name, file).ok(), "open %s", name);
  };
  const auto count = [](const MappedFile& file) { return std::count(file.data(), file.data() + file.size(), 'w'); };
  {
    std::unique_ptr<MappedFile> cut, whole;
    open("cut", &cut);
    open("whole", &whole);
    EXPECT(cut->data()[kBytes - 1] == 'w' && cut->CheckIntact().ok(), "before");
    std::filesystem::resize_file(folder + "/cut", kKept);
    cut->Populate(0, kBytes);
    ThreadPool threads(3);
    std::atomic<int64_t> read{0};
    threads.ParallelFor(64, [&](int64_t page, int) {
      read += std::count(cut->data() + page * 1024, cut->data() + (page + 1) * 1024, 'w');
    });
    EXPECT(read.load() == kKept && count(*cut) == kKept, "%d bytes", static_cast<int>(read.load()));
    const tenon::Status status = cut->CheckIntact();
    EXPECT(status.code() == tenon::StatusCode::kWeightsInvalid && status.message().find("/cut' could not be read") != std::string::npos,
           "%s", status.message().c_str());
    EXPECT(count(*whole) == kBytes && whole->CheckIntact().ok(), "the other file");
    cut.reset();
    open("cut", &cut);
    EXPECT(count(*cut) == kBytes && cut->CheckIntact().ok(), "opened again");
  }
  TestLoadingThatEndsEarly(folder + "/weights");
  struct sigaction after;
  sigaction(SIGBUS, nullptr, &after);
  EXPECT(after.sa_handler == before.sa_handler, "the handler stays behind");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace tenon_cpu

int main() {
  using namespace tenon_cpu;
  TestThreadPool();
  TestThrowingChunks();
  TestRefusedMemory();
  TestTruncatedFile();
  TestIdlePoolSleeps();
  ReportForkJoin();
  TestSplits();
  TestStretch();
  TestRanges();
  TestMemoryPool();
  TestCgroupV2();
  TestCgroupV1();
  TestDefaultThreads();
  TestAttentionSplits();
  if (failures > 0) return std::printf("%d failures\n", failures), 1;
  std::printf("ok\n");
  return 0;
}
