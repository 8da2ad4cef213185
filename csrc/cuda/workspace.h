// Device memory for the time of one call, ordered with the caller's stream and freed on every way out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/launch.h"

namespace nri::cuda {

// Caught by the loops over chunks, which go on with smaller ones while they can.
class OutOfMemory : public std::runtime_error {
 public:
  explicit OutOfMemory(int64_t bytes)
      : std::runtime_error("out of device memory: a workspace array of " + std::to_string(bytes) +
                           " bytes was refused") {}
};

// Sets `count` values to zero, on the stream.
template <typename T>
void fill_zero(T* values, int64_t count, const Execution& execution) {
  if (count == 0) return;
  const DeviceGuard guard(execution.ordinal);
  check(cudaMemsetAsync(values, 0, static_cast<size_t>(count) * sizeof(T), stream_of(execution)), "cudaMemsetAsync");
}

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(int64_t count, const Execution& execution) : count_(count), execution_(execution) {
    if (count <= 0) return;
    const DeviceGuard guard(execution.ordinal);
    void* pointer = nullptr;
    const cudaError_t status = cudaMallocAsync(&pointer, bytes(), stream_of(execution));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw OutOfMemory(static_cast<int64_t>(bytes()));
    }
    check(status, "cudaMallocAsync");
    data_ = static_cast<T*>(pointer);
  }
  // A copy of a small host array.
  Buffer(const std::vector<T>& values, const Execution& execution)
      : Buffer(static_cast<int64_t>(values.size()), execution) {
    if (data_ == nullptr) return;
    const DeviceGuard guard(execution.ordinal);
    check(cudaMemcpyAsync(data_, values.data(), bytes(), cudaMemcpyHostToDevice, stream_of(execution)),
          "cudaMemcpyAsync");
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_ == nullptr) return;
    int previous = 0;  // no guard: a destructor must not throw
    cudaGetDevice(&previous);
    cudaSetDevice(execution_.ordinal);
    cudaFreeAsync(data_, stream_of(execution_));
    cudaSetDevice(previous);
  }

  T* data() const { return data_; }
  int64_t count() const { return count_; }

  // Copies everything to the host and waits for it.
  void copy_to(std::vector<T>& values) const {
    if (data_ == nullptr) return;
    const DeviceGuard guard(execution_.ordinal);
    check(cudaMemcpyAsync(values.data(), data_, bytes(), cudaMemcpyDeviceToHost, stream_of(execution_)),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_of(execution_)), "cudaStreamSynchronize");
  }

  // Sets every byte.
  void fill(int byte) const {
    if (data_ == nullptr) return;
    const DeviceGuard guard(execution_.ordinal);
    check(cudaMemsetAsync(data_, byte, bytes(), stream_of(execution_)), "cudaMemsetAsync");
  }

 private:
  size_t bytes() const { return static_cast<size_t>(count_) * sizeof(T); }
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    std::swap(execution_, other.execution_);
  }

  T* data_ = nullptr;
  int64_t count_ = 0;
  Execution execution_{};
};

// Bytes that a call may plan for: half of what is free, and no more than keeps the device busy.
inline int64_t workspace_budget(const Execution& execution) {
  constexpr size_t kEnough = size_t{2} << 30;
  const DeviceGuard guard(execution.ordinal);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  return static_cast<int64_t>(std::min(free_bytes / 2, kEnough));
}

// The last of least, .., most for which fits(n) holds, or `least`; larger ones never fit better.
template <typename Fits>
int64_t last_fitting(int64_t least, int64_t most, const Fits& fits) {
  if (fits(most)) return most;
  while (most - least > 1) {
    const int64_t middle = (least + most) / 2;
    if (fits(middle)) {
      least = middle;
    } else {
      most = middle;
    }
  }
  return least;
}

}  // namespace nri::cuda
