// The one way in which a kernel is launched: check the grid, guard the device, launch on the caller's stream, read the
// error. An empty grid returns at once. The same text compiles for a device and for the host emulation.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>

#include "common/host_device.h"
#include "common/views.h"

#if defined(NRI_CUDA_EMULATED)
#include "cuda/emulator.h"
#else
#include <cuda_runtime.h>
#define NRI_CUDA_PRAGMA(text) _Pragma(#text)
#define NRI_CUDA_UNROLL NRI_CUDA_PRAGMA(unroll)
#define NRI_CUDA_UNROLL_BY(count) NRI_CUDA_PRAGMA(unroll count)
#endif

namespace nri::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forget it, so that the next call does not report it again
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

class DeviceGuard {
 public:
  explicit DeviceGuard(int32_t ordinal) {
    check(cudaGetDevice(&previous_), "cudaGetDevice");
    if (ordinal == previous_) return;
    check(cudaSetDevice(ordinal), "cudaSetDevice");
    changed_ = true;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

inline cudaStream_t stream_of(const Execution& execution) { return static_cast<cudaStream_t>(execution.stream); }

NRI_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// With `shared_bytes` of dynamic shared memory, more than the usual 48 KiB if the device has them.
template <typename... Parameters, typename... Arguments>
void launch_shared(const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes,
                   const Execution& execution, const Arguments&... arguments) {
  if (blocks == 0) return;
  if (blocks < 0 || blocks > 2147483647) {
    throw std::runtime_error(std::string(name) + ": expected 0 to 2147483647 blocks, got " + std::to_string(blocks));
  }
  const DeviceGuard guard(execution.ordinal);
#if defined(NRI_CUDA_EMULATED)
  emulator::block_runner().run(name, blocks, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes),
                               [&] { kernel(static_cast<Parameters>(arguments)...); });
#else
  if (shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          name);
  }
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value...};
        check(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(blocks)),
                               dim3(static_cast<unsigned>(threads)), pointers, static_cast<size_t>(shared_bytes),
                               stream_of(execution)),
              name);
      },
      values);
#endif
  check(cudaGetLastError(), name);
}

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads, const Execution& execution,
            const Arguments&... arguments) {
  launch_shared(name, kernel, blocks, threads, 0, execution, arguments...);
}

// One thread an element. The kernel compares global_index() with the count, which is its first parameter.
template <typename... Parameters, typename... Arguments>
void launch_elements(const char* name, void (*kernel)(int64_t, Parameters...), int64_t count,
                     const Execution& execution, const Arguments&... arguments) {
  constexpr int kThreads = 128;
  launch(name, kernel, ceil_div(count, kThreads), kThreads, execution, count, arguments...);
}

__device__ inline int64_t global_index() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

// The last place of a sorted array [count + 1] whose value is at most `value`, given that values[0] <= value.
__device__ inline int64_t find_range(const int64_t* values, int64_t count, int64_t value) {
  int64_t low = 0;
  int64_t high = count;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (values[middle] <= value) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace nri::cuda
