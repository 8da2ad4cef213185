// Faults on purpose: bench/device_check.sh must see each of compute-sanitizer's tools catch its own before it believes
// a clean run. Names are as in our kernels, which the tools are told by; memory is ordered with a stream, as ours.
//   planted_faults memcheck|racecheck|synccheck|initcheck
#include <cuda_runtime.h>

#include <cstdio>
#include <string>

namespace nri::cuda {
namespace {

constexpr int kThreads = 64;

__global__ void write_beyond(int* values) { values[threadIdx.x + 1] = 1; }

// The second warp's values are read before anything says that they are there.
__global__ void read_too_early(int* values) {
  __shared__ int shared[kThreads];
  shared[threadIdx.x] = values[threadIdx.x];
  values[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

__global__ void meet_without_some(int* values) {
  __shared__ int shared[kThreads];
  shared[threadIdx.x] = values[threadIdx.x];
  if (threadIdx.x < 48) {
    __syncthreads();
    values[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
  }
}

__global__ void read_unwritten(int* values) { values[threadIdx.x] += 1; }

}  // namespace
}  // namespace nri::cuda

// The status tells of nothing: it is the tool that has to find the fault.
int main(int count, char** arguments) {
  const std::string fault = count > 1 ? arguments[1] : "";
  int* values = nullptr;
  if (cudaMallocAsync(&values, nri::cuda::kThreads * sizeof(int), nullptr) != cudaSuccess) {
    std::puts("no memory on a device");
    return 2;
  }
  if (fault != "initcheck") cudaMemsetAsync(values, 0, nri::cuda::kThreads * sizeof(int), nullptr);
  if (fault == "memcheck") {
    nri::cuda::write_beyond<<<1, nri::cuda::kThreads>>>(values);
  } else if (fault == "racecheck") {
    nri::cuda::read_too_early<<<1, nri::cuda::kThreads>>>(values);
  } else if (fault == "synccheck") {
    nri::cuda::meet_without_some<<<1, nri::cuda::kThreads>>>(values);
  } else if (fault == "initcheck") {
    nri::cuda::read_unwritten<<<1, nri::cuda::kThreads>>>(values);
  } else {
    std::puts("expected memcheck, racecheck, synccheck or initcheck");
    return 2;
  }
  cudaDeviceSynchronize();
  return 0;
}
