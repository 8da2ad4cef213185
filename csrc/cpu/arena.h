// Scratch memory of one worker: handed out in order, taken back all at once, kept for the next tile.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "cpu/simd.h"

namespace nri::cpu::NRI_CPU_VARIANT {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { release(first_); }

  // Uninitialised room for `count` values, aligned to a cache line. Valid until rewind().
  template <typename T>
  T* take(int64_t count) {
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(T)) + kLine - 1) / kLine * kLine;
    if (!current_ || used_ + bytes > current_->bytes) next_block(bytes);
    char* start = reinterpret_cast<char*>(current_) + kLine + used_;
    used_ += bytes;
    return reinterpret_cast<T*>(start);
  }

  void rewind() {
    current_ = first_;
    used_ = 0;
  }

 private:
  static constexpr int64_t kLine = 64;
  static constexpr int64_t kSmallestBlock = int64_t{1} << 20;
  struct Block {
    Block* next;
    int64_t bytes;
  };

  void next_block(int64_t bytes) {
    Block* following = current_ ? current_->next : first_;
    if (!following || following->bytes < bytes) {
      release(following);
      const int64_t size = bytes > kSmallestBlock ? bytes : kSmallestBlock;
      void* memory = std::aligned_alloc(kLine, static_cast<size_t>(size + kLine));
      if (!memory) {
        (current_ ? current_->next : first_) = nullptr;
        throw std::bad_alloc();
      }
      following = static_cast<Block*>(memory);
      following->next = nullptr;
      following->bytes = size;
      (current_ ? current_->next : first_) = following;
    }
    current_ = following;
    used_ = 0;
  }

  static void release(Block* block) {
    while (block) {
      Block* next = block->next;
      std::free(block);
      block = next;
    }
  }

  Block* first_ = nullptr;
  Block* current_ = nullptr;
  int64_t used_ = 0;
};

// The calling thread's arena, emptied. Its memory stays with the thread from call to call.
inline Arena& worker_arena() {
  thread_local Arena arena;
  arena.rewind();
  return arena;
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
