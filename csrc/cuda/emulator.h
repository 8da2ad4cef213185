// Runs the CUDA kernels on the host, so that their logic is tested where there is no GPU. Blocks run one after another.
// The threads of a block are fibers: each runs until a barrier or its end, so that a barrier means what it means on a
// device. Memory is host memory, filled with NaN when it is handed out; streams are empty. Only what the kernels here
// use is offered: one-dimensional launches, static and dynamic shared memory, __syncthreads, exchanges inside a warp,
// and asynchronous copies into shared memory, which land when they are waited for and not before.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
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
#define __grid_constant__
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

constexpr unsigned kWarp = 32;

// A stack that can be left and entered again.
struct Fiber {
  static constexpr size_t kStackBytes = 256 * 1024;
  ucontext_t context;
  void* resume[5];  // of __builtin_setjmp
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  unsigned thread = 0;  // the thread that waits here
};

// Copies that a thread has asked for and not yet waited for.
struct PendingCopies {
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

class BlockRunner {
 public:
  void run(const char* kernel, int64_t blocks, unsigned threads, size_t shared_bytes,
           const std::function<void()>& body) {
    body_ = &body;
    threads_ = threads;
    BlockRunner* const outer = running;
    running = this;
    blockDim.x = threads;
    gridDim.x = static_cast<unsigned>(blocks);
    for (int64_t block = 0; block < blocks; ++block) {
      blockIdx.x = static_cast<unsigned>(block);
      shared_.reset(new char[shared_bytes]);
      std::memset(shared_.get(), 0xFF, shared_bytes);
      const std::string problem = run_block();
      if (!problem.empty()) {
        running = outer;
        throw std::logic_error(std::string(kernel) + ", block " + std::to_string(block) + ": " + problem);
      }
    }
    running = outer;
  }

  void* shared() const { return shared_.get(); }

  // Called on a fiber: lets the block's other threads run up to the barrier.
  void wait_at_barrier() { wait_in(waiting_); }

  // Called on a fiber by all lanes of a warp: what each of them brings, at [lane * size]. Valid up to the next call.
  const char* exchange(const void* mine, size_t size) {
    Warp& warp = warps_[threadIdx.x / kWarp];
    std::vector<char>& values = warp.values[warp.meetings % 2];  // two in turns: some lanes may still read the other
    if (values.size() < kWarp * size) values.resize(kWarp * size);
    std::memcpy(values.data() + threadIdx.x % kWarp * size, mine, size);
    const unsigned lanes = std::min(kWarp, threads_ - threadIdx.x / kWarp * kWarp);
    if (warp.waiting.size() + 1 == lanes) {
      ++warp.meetings;
      ready_.insert(ready_.end(), warp.waiting.begin(), warp.waiting.end());
      warp.waiting.clear();
    } else {
      wait_in(warp.waiting);
    }
    return values.data();
  }

  PendingCopies& copies() { return copies_[threadIdx.x]; }

 private:
  struct Warp {
    std::vector<Fiber*> waiting;
    size_t meetings = 0;
    std::vector<char> values[2];
  };

  std::string run_block() {
    next_thread_ = 0;
    waiting_.clear();
    idle_.clear();
    for (auto& fiber : fibers_) idle_.push_back(fiber.get());
    warps_.assign((threads_ + kWarp - 1) / kWarp, Warp{});
    copies_.assign(threads_, PendingCopies{});
    // A fiber that meets no barrier goes on with the next thread, so kernels without barriers need one fiber.
    while (next_thread_ < threads_) enter_new(take_idle());
    for (;;) {
      for (; !ready_.empty(); ready_.pop_front()) enter(ready_.front());
      for (const Warp& warp : warps_) {
        if (!warp.waiting.empty())
          return std::to_string(warp.waiting.size()) + " lanes wait for the rest of their warp";
      }
      if (waiting_.empty()) break;
      if (waiting_.size() != threads_) {
        return std::to_string(waiting_.size()) + " of " + std::to_string(threads_) +
               " threads wait at a barrier that the others have passed by";
      }
      ready_.assign(waiting_.begin(), waiting_.end());
      waiting_.clear();
    }
    for (const PendingCopies& copies : copies_) {
      bool none = copies.open.empty();
      for (const auto& group : copies.groups) none = none && group.empty();
      if (!none) return "a thread ends before its asynchronous copies do";
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

  void wait_in(std::vector<Fiber*>& queue) {
    Fiber* const self = current_;
    self->thread = threadIdx.x;
    queue.push_back(self);
    leave(self);
    threadIdx.x = self->thread;
  }

  void enter_new(Fiber* fiber) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = Fiber::kStackBytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, &BlockRunner::fiber_main, 0);
    current_ = fiber;
#if defined(__SANITIZE_ADDRESS__)
    switch_stacks(fiber->stack.get(), Fiber::kStackBytes, &scheduler_, &fiber->context);
#else
    if (__builtin_setjmp(resume_) == 0) setcontext(&fiber->context);
#endif
  }

#if defined(__SANITIZE_ADDRESS__)

  void switch_stacks(const void* stack, size_t bytes, ucontext_t* from, ucontext_t* to) {
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, stack, bytes);
    swapcontext(from, to);
    const void** const left = from == &scheduler_ ? nullptr : &scheduler_stack_;
    __sanitizer_finish_switch_fiber(fake_stack, left, left == nullptr ? nullptr : &scheduler_stack_bytes_);
  }
  void enter(Fiber* fiber) {
    current_ = fiber;
    switch_stacks(fiber->stack.get(), Fiber::kStackBytes, &scheduler_, &fiber->context);
  }
  void leave(Fiber* fiber) { switch_stacks(scheduler_stack_, scheduler_stack_bytes_, &fiber->context, &scheduler_); }

#else

  // Without a system call, which swapcontext makes: a block with tensor products changes fibers millions of times.
  __attribute__((noinline)) static void jump(void** to) { __builtin_longjmp(to, 1); }
  __attribute__((noinline)) void enter(Fiber* fiber) {
    current_ = fiber;
    if (__builtin_setjmp(resume_) == 0) jump(fiber->resume);
  }
  __attribute__((noinline)) void leave(Fiber* fiber) {
    if (__builtin_setjmp(fiber->resume) == 0) jump(resume_);
  }

#endif

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
  std::unique_ptr<char[]> shared_;
  Fiber* current_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  std::vector<Fiber*> waiting_;  // for the block
  std::deque<Fiber*> ready_;
  std::vector<Warp> warps_;
  std::vector<PendingCopies> copies_;
#if defined(__SANITIZE_ADDRESS__)
  ucontext_t scheduler_;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
#else
  void* resume_[5];
#endif
};

inline BlockRunner& block_runner() {
  static thread_local BlockRunner runner;
  return runner;
}

// What the emulated device has to give; small, so that tests work in several chunks.
constexpr size_t kFreeBytes = size_t{2} << 20;
// As on an H200; a test may ask for less.
inline int shared_memory_of_block = 232448;
constexpr int kProcessors = 2;

// What all lanes of this thread's warp bring, by lane. Every lane must call it, and it is a barrier between them.
template <typename T>
const T* exchange(const T& mine) {
  return reinterpret_cast<const T*>(running->exchange(&mine, sizeof(T)));
}

}  // namespace nri::cuda::emulator

struct alignas(8) uint2 {
  unsigned x, y;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline void __syncwarp() { nri::cuda::emulator::exchange(0); }
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
enum cudaDeviceAttr : int { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  namespace emulator = nri::cuda::emulator;
  *value = attribute == cudaDevAttrMultiProcessorCount ? emulator::kProcessors : emulator::shared_memory_of_block;
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
