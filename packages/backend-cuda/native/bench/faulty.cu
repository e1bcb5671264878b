// Kernels with one mistake each, to see that a sanitizer sees what it is run for. faulty [memcheck|racecheck|initcheck|synccheck|none]
//   nvcc -std=c++20 -arch=sm_90a faulty.cu -o faulty
#include <cstdio>
#include <string>

constexpr int kSize = 64;

__global__ void Sound(const int* in, int* out) {
  __shared__ int shared[kSize];
  shared[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = shared[kSize - 1 - threadIdx.x];
}

__global__ void BeyondTheEnd(int* out) { out[kSize + threadIdx.x * 1024] = 1; }

__global__ void WithoutBarrier(const int* in, int* out) {
  __shared__ int shared[kSize];
  shared[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = shared[kSize - 1 - threadIdx.x];
}

__global__ void DivergentBarrier(int* out) {
  __shared__ int shared[kSize];
  if (threadIdx.x < kSize / 4) {
    shared[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = shared[kSize / 4 - 1 - threadIdx.x];
  }
  __syncthreads();
  out[threadIdx.x] += shared[threadIdx.x / 4];
}

int main(int argc, char** argv) {
  const std::string mistake = argc > 1 ? argv[1] : "none";
  int *in = nullptr, *out = nullptr;
  cudaMalloc(&in, kSize * sizeof(int));
  cudaMalloc(&out, kSize * sizeof(int));
  if (mistake != "initcheck") cudaMemset(in, 0, kSize * sizeof(int));
  if (mistake == "memcheck") {
    BeyondTheEnd<<<1, kSize>>>(out);
  } else if (mistake == "racecheck") {
    WithoutBarrier<<<1, kSize>>>(in, out);
  } else if (mistake == "synccheck") {
    DivergentBarrier<<<1, kSize>>>(out);
  } else {
    Sound<<<1, kSize>>>(in, out);
  }
  std::printf("%s: %s\n", mistake.c_str(), cudaGetErrorString(cudaDeviceSynchronize()));
  cudaFree(in);
  cudaFree(out);
  return 0;
}
