#include "cuda/reused_memory.h"
#include "ops/machine.h"

#ifndef NRI_FAST_CUDA_ARCHITECTURES
#define NRI_FAST_CUDA_ARCHITECTURES ""
#endif

namespace nri::cuda {

void refuse_allocations(uint64_t largest) { largest_allocation.store(largest); }

#if defined(NRI_CUDA_EMULATED)

Build build() { return Build::emulated; }

std::vector<std::string> architectures() { return {}; }

int device_count() { return 0; }

std::string device_problem() { return "this build runs the CUDA kernels on the host, in emulation"; }

#else

Build build() { return Build::device; }

// The definition is a list with semicolons.
std::vector<std::string> architectures() {
  std::vector<std::string> result;
  std::string name;
  for (const char c : std::string(NRI_FAST_CUDA_ARCHITECTURES) + ";") {
    if (c != ';') {
      name += c;
    } else if (!name.empty()) {
      result.push_back(name);
      name.clear();
    }
  }
  return result;
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string device_problem() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return count == 0 ? "the CUDA driver reports no device" : "";
}

#endif

}  // namespace nri::cuda
