// What the fused kernels are planned for.
#pragma once

#include "cuda/launch.h"

namespace nri::cuda::fused {

inline int64_t device_attribute(cudaDeviceAttr which, const Execution& execution) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, execution.ordinal), "cudaDeviceGetAttribute");
  return value;
}

inline int64_t processors(const Execution& execution) {
  return device_attribute(cudaDevAttrMultiProcessorCount, execution);
}

// What a block may have: 1 KiB less than a processor has.
inline int64_t shared_bytes(const Execution& execution) {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, execution);
}

}  // namespace nri::cuda::fused
