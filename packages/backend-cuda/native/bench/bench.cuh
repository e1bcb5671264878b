// What the kernel benches share: device memory with random contents, a timer over recorded launches, and failing loudly.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "types.cuh"

namespace tenon_cuda {

inline void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("FAILED: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

template <typename T>
class Device {
 public:
  explicit Device(size_t size) : size_(size) { Check(cudaMalloc(&data_, std::max<size_t>(size, 1) * sizeof(T)), "cudaMalloc"); }
  explicit Device(const std::vector<T>& host) : Device(host.size()) { *this = host; }
  ~Device() { cudaFree(data_); }
  Device(const Device&) = delete;
  void operator=(const std::vector<T>& host) { Check(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "upload"); }
  std::vector<T> Host() const {
    std::vector<T> host(size_);
    Check(cudaMemcpy(host.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "download");
    return host;
  }
  void Fill(int byte) { Check(cudaMemset(data_, byte, size_ * sizeof(T)), "fill"); }
  T* get() const { return data_; }
  size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  size_t size_;
};

// About N(0, scale²), the same for one seed.
template <typename T>
__global__ void RandomKernel(T* x, int64_t n, uint64_t seed, float scale) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    uint64_t z = seed + static_cast<uint64_t>(i + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    const float u = (static_cast<uint32_t>(z) + 1.f) * 2.3283064e-10f, v = static_cast<uint32_t>(z >> 32) * 1.4629180e-9f;
    x[i] = FromFloat<T>(scale * sqrtf(-2 * logf(u)) * cosf(v));
  }
}
template <typename T>
void Randomize(const Device<T>& x, uint64_t seed, float scale = 1) {
  RandomKernel<<<1024, 256>>>(x.get(), static_cast<int64_t>(x.size()), seed, scale);
  Check(cudaGetLastError(), "random values");
}

// Median microseconds of one launch(i), i counting up: `launches` of them are recorded as one graph, and replayed `replays` times.
inline double Microseconds(const std::function<Launch(int, cudaStream_t)>& launch, int launches = 20, int replays = 9) {
  cudaStream_t stream;
  Check(cudaStreamCreate(&stream), "stream");
  Check(launch(0, stream), "launch");
  Check(cudaStreamSynchronize(stream), "run");
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < launches; ++i) Check(launch(i, stream), "captured launch");
  cudaGraph_t graph;
  Check(cudaStreamEndCapture(stream, &graph), "end of capture");
  cudaGraphExec_t executable;
  Check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<double> times;
  for (int i = 0; i < replays + 2; ++i) {
    cudaEventRecord(begin, stream);
    Check(cudaGraphLaunch(executable, stream), "replay");
    cudaEventRecord(end, stream);
    Check(cudaEventSynchronize(end), "replay");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (i >= 2) times.push_back(ms * 1000.0 / launches);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

constexpr double kCopyBytesPerSecond = 4.25e12;  // measured on an H200, read and written bytes
constexpr double kPeakFlops = 790e12;            // measured on an H200, bf16

}  // namespace tenon_cuda
