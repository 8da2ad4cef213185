// Runs the CUDA kernels on the host, so that their logic is tested where there is no GPU. Blocks run one after another.
// The threads of a block are fibers: each runs until __syncthreads or its end, so that a barrier means what it means on
// a device. Memory is host memory, filled with NaN when it is handed out; streams are empty. Only what the kernels here
// use is offered: one-dimensional launches, static shared memory, __syncthreads.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define NRI_CUDA_UNROLL
#define NRI_CUDA_UNROLL_BY(count)

namespace nri::cuda::emulator {

struct Index {
  unsigned x;
};

class BlockRunner;
inline thread_local BlockRunner* running = nullptr;

}  // namespace nri::cuda::emulator

inline thread_local nri::cuda::emulator::Index threadIdx{0};
inline thread_local nri::cuda::emulator::Index blockIdx{0};
inline thread_local nri::cuda::emulator::Index blockDim{0};
inline thread_local nri::cuda::emulator::Index gridDim{0};

namespace nri::cuda::emulator {

// A stack that can be left and entered again.
struct Fiber {
  static constexpr size_t kStackBytes = 256 * 1024;
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  unsigned thread = 0;  // the thread that waits here
};

class BlockRunner {
 public:
  void run(const char* kernel, int64_t blocks, unsigned threads, const std::function<void()>& body) {
    body_ = &body;
    threads_ = threads;
    BlockRunner* const outer = running;
    running = this;
    blockDim.x = threads;
    gridDim.x = static_cast<unsigned>(blocks);
    for (int64_t block = 0; block < blocks; ++block) {
      blockIdx.x = static_cast<unsigned>(block);
      const std::string problem = run_block();
      if (!problem.empty()) {
        running = outer;
        throw std::logic_error(std::string(kernel) + ", block " + std::to_string(block) + ": " + problem);
      }
    }
    running = outer;
  }

  // Called on a fiber: lets the block's other threads run up to the barrier.
  void wait_at_barrier() {
    Fiber* const self = current_;
    self->thread = threadIdx.x;
    waiting_.push_back(self);
    leave(self);
    threadIdx.x = self->thread;
  }

 private:
  std::string run_block() {
    next_thread_ = 0;
    waiting_.clear();
    idle_.clear();
    for (auto& fiber : fibers_) idle_.push_back(fiber.get());
    // A fiber that meets no barrier goes on with the next thread, so kernels without barriers need one fiber.
    while (next_thread_ < threads_) enter_new(take_idle());
    while (!waiting_.empty()) {
      if (waiting_.size() != threads_) {
        return std::to_string(waiting_.size()) + " of " + std::to_string(threads_) +
               " threads wait at a barrier that the others have passed by";
      }
      std::vector<Fiber*> released;
      released.swap(waiting_);
      for (Fiber* fiber : released) enter(fiber);
    }
    return {};
  }

  Fiber* take_idle() {
    if (idle_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>());
      return fibers_.back().get();
    }
    Fiber* const fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }

  void enter_new(Fiber* fiber) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = Fiber::kStackBytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, &BlockRunner::fiber_main, 0);
    enter(fiber);
  }

  void enter(Fiber* fiber) {
    current_ = fiber;
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, fiber->stack.get(), Fiber::kStackBytes);
#endif
    swapcontext(&scheduler_, &fiber->context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  void leave(Fiber* fiber) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, scheduler_stack_, scheduler_stack_bytes_);
#endif
    swapcontext(&fiber->context, &scheduler_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
  }

  static void fiber_main() {
    BlockRunner* const runner = running;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &runner->scheduler_stack_, &runner->scheduler_stack_bytes_);
#endif
    while (runner->next_thread_ < runner->threads_) {
      threadIdx.x = runner->next_thread_++;
      (*runner->body_)();
    }
    runner->leave(runner->current_);
  }

  const std::function<void()>* body_ = nullptr;
  unsigned threads_ = 0;
  unsigned next_thread_ = 0;
  ucontext_t scheduler_;
  Fiber* current_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  std::vector<Fiber*> waiting_;
#if defined(__SANITIZE_ADDRESS__)
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
#endif
};

inline BlockRunner& block_runner() {
  static thread_local BlockRunner runner;
  return runner;
}

// What the emulated device has to give; small, so that tests work in several chunks.
constexpr size_t kFreeBytes = size_t{2} << 20;

}  // namespace nri::cuda::emulator

inline void __syncthreads() { nri::cuda::emulator::running->wait_at_barrier(); }

enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind : int { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
using cudaStream_t = void*;

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}
inline thread_local int nri_emulated_device = 0;  // any number will do: there is only the host
inline cudaError_t cudaGetDevice(int* device) {
  *device = nri_emulated_device;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  nri_emulated_device = device;
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *free_bytes = *total_bytes = nri::cuda::emulator::kFreeBytes;
  return cudaSuccess;
}
inline cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) {
  *pointer = std::malloc(bytes);
  if (*pointer == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*pointer, 0xFF, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) {
  std::free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t) {
  std::memset(pointer, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
