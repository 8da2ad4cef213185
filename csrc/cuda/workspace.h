// Device memory for the time of one call, ordered with the caller's stream and freed on every way out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "cuda/plans.h"
#include "cuda/reused_memory.h"

namespace nri::cuda {

// Sets `count` values to zero, on the stream.
template <typename T>
void fill_zero(T* values, int64_t count, const Execution& execution) {
  if (count == 0) return;
  const DeviceGuard guard(execution.ordinal);
  check(cudaMemsetAsync(values, 0, static_cast<size_t>(count) * sizeof(T), stream_of(execution)), "cudaMemsetAsync");
}

// Copies `count` values on the device, on the stream; nothing where there is nothing to copy from or to.
template <typename T>
void copy_values(T* to, const T* from, int64_t count, const Execution& execution) {
  if (to == nullptr || from == nullptr || count == 0) return;
  const DeviceGuard guard(execution.ordinal);
  check(
      cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(T), cudaMemcpyDeviceToDevice, stream_of(execution)),
      "cudaMemcpyAsync");
}

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(int64_t count, const Execution& execution)
      : count_(count), execution_(execution), reused_(ReusedMemory::current()) {
    if (count <= 0) return;
    void* const pointer = reused_ != nullptr ? reused_->take(bytes()) : allocate_on_stream(bytes(), execution);
    if (pointer == nullptr) throw OutOfMemory(bytes());
    data_ = static_cast<T*>(pointer);
  }
  // A copy of a small host array, to be read only.
  Buffer(const std::vector<T>& values, const Execution& execution)
      : count_(static_cast<int64_t>(values.size())), execution_(execution), reused_(ReusedMemory::current()) {
    if (values.empty()) return;
    if (reused_ != nullptr) {
      data_ = static_cast<T*>(reused_->constant(values.data(), bytes()));
      return;
    }
    data_ = static_cast<T*>(allocate_on_stream(bytes(), execution));
    if (data_ == nullptr) throw OutOfMemory(bytes());
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
    if (reused_ != nullptr) {
      reused_->give_back(data_);
    } else {
      free_on_stream(data_, execution_);
    }
  }

  T* data() const { return data_; }
  int64_t count() const { return count_; }

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
    std::swap(reused_, other.reused_);
  }

  T* data_ = nullptr;
  int64_t count_ = 0;
  Execution execution_{};
  ReusedMemory* reused_ = nullptr;
};

// Bytes that a call may plan for: half of what is free, and no more than keeps the device busy.
inline int64_t workspace_budget(const Execution& execution) {
  constexpr size_t kEnough = size_t{2} << 30;
  ReusedMemory* const reused = ReusedMemory::current();
  if (reused != nullptr && reused->budget) return *reused->budget;
  const DeviceGuard guard(execution.ordinal);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  const auto budget = static_cast<int64_t>(std::min(free_bytes / 2, kEnough));
  if (reused != nullptr) reused->budget = budget;
  return budget;
}

// The budget to go on with after memory ran out.
inline int64_t smaller_budget(int64_t budget) {
  if (ReusedMemory* const reused = ReusedMemory::current()) {
    reused->budget = budget / 2;
    reused->shrank = true;
  }
  return budget / 2;
}

}  // namespace nri::cuda
