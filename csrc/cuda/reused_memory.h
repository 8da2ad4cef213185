// Workspace of launches that are made again and again: while one of these objects is current, every Buffer of this
// thread takes its memory from it, so that the second time finds the arrays of the first, at the same addresses. A CUDA
// graph that was captured from such launches allocates nothing and copies nothing from the host.
#pragma once

#include <atomic>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <vector>

#include "cuda/launch.h"

namespace nri::cuda {

// Caught by the loops over chunks, which go on with smaller ones while they can.
class OutOfMemory : public std::runtime_error {
 public:
  explicit OutOfMemory(size_t bytes)
      : std::runtime_error("out of device memory: a workspace array of " + std::to_string(bytes) +
                           " bytes was refused") {}
};

// A larger allocation counts as refused (ops/machine.h).
inline std::atomic<size_t> largest_allocation{SIZE_MAX};

// Device memory ordered with the stream; null where there is no more.
inline void* allocate_on_stream(size_t bytes, const Execution& execution) {
  if (bytes > largest_allocation.load(std::memory_order_relaxed)) return nullptr;
  const DeviceGuard guard(execution.ordinal);
  void* pointer = nullptr;
  const cudaError_t status = cudaMallocAsync(&pointer, bytes, stream_of(execution));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cudaMallocAsync");
  return pointer;
}

// For destructors: throws nothing.
inline void free_on_stream(void* pointer, const Execution& execution) {
  int previous = 0;
  cudaGetDevice(&previous);
  cudaSetDevice(execution.ordinal);
  cudaFreeAsync(pointer, stream_of(execution));
  cudaSetDevice(previous);
}

class ReusedMemory {
 public:
  // Becomes current. All work that uses it is on the execution's stream.
  explicit ReusedMemory(const Execution& execution) : execution_(execution), outer_(current_) { current_ = this; }
  ~ReusedMemory() {
    current_ = outer_;
    for (const Block& block : blocks_) free_on_stream(block.pointer, execution_);
    for (const Constant& constant : constants_) free_on_stream(constant.pointer, execution_);
  }
  ReusedMemory(const ReusedMemory&) = delete;
  ReusedMemory& operator=(const ReusedMemory&) = delete;

  static ReusedMemory* current() { return current_; }

  // From now on there is nothing but what has been taken before; taking more throws.
  void close() { closed_ = true; }
  void open() { closed_ = false; }

  void* take(size_t bytes) {
    for (Block& block : blocks_) {
      if (block.taken || block.bytes != bytes) continue;
      block.taken = true;
      return block.pointer;
    }
    void* const pointer = allocate(bytes);
    blocks_.push_back({pointer, bytes, true});
    return pointer;
  }

  void give_back(const void* pointer) {
    for (Block& block : blocks_) {
      if (block.pointer == pointer) block.taken = false;
    }
  }

  // A device array with this content, which nobody may write to.
  void* constant(const void* values, size_t bytes) {
    for (const Constant& known : constants_) {
      if (known.values.size() == bytes && std::memcmp(known.values.data(), values, bytes) == 0) return known.pointer;
    }
    void* const pointer = allocate(bytes);
    const char* const begin = static_cast<const char*>(values);
    constants_.push_back({pointer, {begin, begin + bytes}});
    const DeviceGuard guard(execution_.ordinal);
    check(cudaMemcpyAsync(pointer, values, bytes, cudaMemcpyHostToDevice, stream_of(execution_)), "cudaMemcpyAsync");
    return pointer;
  }

  // What chunks of work plan for: the same every time, unless it shrank because memory ran out.
  std::optional<int64_t> budget;
  bool shrank = false;

 private:
  struct Block {
    void* pointer;
    size_t bytes;
    bool taken;
  };
  struct Constant {
    void* pointer;
    std::vector<char> values;
  };

  void* allocate(size_t bytes) {
    if (closed_) throw std::logic_error("launches that are made again asked for other memory than the first time");
    void* pointer = allocate_on_stream(bytes, execution_);
    if (pointer == nullptr) {
      free_idle();
      pointer = allocate_on_stream(bytes, execution_);
    }
    if (pointer == nullptr) throw OutOfMemory(bytes);
    return pointer;
  }

  void free_idle() {
    std::vector<Block> kept;
    for (const Block& block : blocks_) {
      if (block.taken) {
        kept.push_back(block);
      } else {
        free_on_stream(block.pointer, execution_);
      }
    }
    blocks_.swap(kept);
  }

  Execution execution_;
  ReusedMemory* outer_;
  bool closed_ = false;
  std::vector<Block> blocks_;
  std::vector<Constant> constants_;
  inline static thread_local ReusedMemory* current_ = nullptr;
};

}  // namespace nri::cuda
