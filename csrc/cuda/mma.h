// The instructions that have no name in C++: products of small matrices by a warp, asynchronous copies into shared
// memory, rounding to the formats of those products. Each with the same thing in plain C++ beside it, for the
// emulation.
//
// A product takes 16 rows by kDepth columns of A, kDepth by 8 of B, and adds to 16 by 8 sums in fp32. Which numbers
// a lane holds, `group` being lane / 4 and `place` lane % 4 (a word is one TF32 number, or two bf16 numbers with the
// lower column in the lower half):
//   a[0], a[2]: row group,     words place and place + 4       b[0], b[1]: column group, words place and place + 4
//   a[1], a[3]: row group + 8, words place and place + 4
//   d[0], d[1]: row group,     columns 2 place and 2 place + 1
//   d[2], d[3]: row group + 8, columns 2 place and 2 place + 1
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/launch.h"

namespace nri::cuda {

constexpr int kWarpLanes = 32;
constexpr int kCopyBytes = 16;  // of an asynchronous copy

__device__ inline uint32_t bits_of(float value) {
#if defined(NRI_CUDA_EMULATED)
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
#else
  return __float_as_uint(value);
#endif
}

__device__ inline float float_of(uint32_t bits) {
#if defined(NRI_CUDA_EMULATED)
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
#else
  return __uint_as_float(bits);
#endif
}

// To the nearest number with 10 bits of mantissa, ties away from zero; as the bits of a float whose last 13 are zero.
__device__ inline uint32_t to_tf32(float value) {
#if defined(NRI_CUDA_EMULATED)
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return (bits & 0x7fffffu) != 0 ? 0x7fffe000u : bits;
  return (bits + 0x1000u) & 0xffffe000u;
#else
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits & 0xffffe000u;
#endif
}

// Two bf16 numbers in a word, to the nearest, ties to even; a NaN stays one.
__device__ inline uint32_t to_bf16_pair(float low, float high) {
#if defined(NRI_CUDA_EMULATED)
  const auto rounded = [](float value) {
    const uint32_t bits = bits_of(value);
    return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
#else
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#endif
}

__device__ inline float low_bf16(uint32_t word) { return float_of(word << 16); }
__device__ inline float high_bf16(uint32_t word) { return float_of(word & 0xffff0000u); }

#if defined(NRI_CUDA_EMULATED)

namespace emulator {

struct Fragments {
  uint32_t a[4];
  uint32_t b[2];
};

// sum over the product's words of terms(word of A, word of B), for each of a lane's four results.
template <typename Terms>
void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const Terms& terms) {
  Fragments mine;
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  const Fragments* lanes = exchange(mine);
  const unsigned group = threadIdx.x % kWarpLanes / 4, place = threadIdx.x % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned high_row = i / 2, column = 2 * place + i % 2;
    double sum = 0;
    for (unsigned word = 0; word < 8; ++word) {
      sum += terms(lanes[group * 4 + word % 4].a[word / 4 * 2 + high_row], lanes[column * 4 + word % 4].b[word / 4]);
    }
    d[i] = static_cast<float>(static_cast<double>(d[i]) + sum);
  }
}

}  // namespace emulator

#endif

// d += A B in TF32: 8 columns of A. Bits of a word beyond TF32's are ignored.
__device__ inline void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(NRI_CUDA_EMULATED)
  emulator::multiply(d, a, b, [](uint32_t x, uint32_t y) {
    return static_cast<double>(float_of(x & 0xffffe000u)) * static_cast<double>(float_of(y & 0xffffe000u));
  });
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += A B in bf16: 16 columns of A.
__device__ inline void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(NRI_CUDA_EMULATED)
  emulator::multiply(d, a, b, [](uint32_t x, uint32_t y) {
    return static_cast<double>(low_bf16(x)) * static_cast<double>(low_bf16(y)) +
           static_cast<double>(high_bf16(x)) * static_cast<double>(high_bf16(y));
  });
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// The block's dynamic shared memory, aligned to 16 bytes.
__device__ inline unsigned char* dynamic_shared() {
#if defined(NRI_CUDA_EMULATED)
  return static_cast<unsigned char*>(emulator::running->shared());
#else
  extern __shared__ __align__(16) unsigned char nri_dynamic_shared[];
  return nri_dynamic_shared;
#endif
}

// Asks for a copy of 16 bytes, both ends aligned to 16, from global to shared memory. It has landed once
// wait_for_copies() has returned for its group, and other threads see it behind a barrier after that.
__device__ inline void copy_async(void* shared, const void* global) {
#if defined(NRI_CUDA_EMULATED)
  if (reinterpret_cast<uintptr_t>(shared) % kCopyBytes != 0 || reinterpret_cast<uintptr_t>(global) % kCopyBytes != 0) {
    std::abort();
  }
  emulator::running->copies().open.push_back({shared, global, kCopyBytes});
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#endif
}

// The copies that this thread asked for since the last call are a group, even if there are none.
__device__ inline void close_copy_group() {
#if defined(NRI_CUDA_EMULATED)
  emulator::PendingCopies& copies = emulator::running->copies();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all of this thread's groups but the latest `kLeft` have landed.
template <int kLeft>
__device__ inline void wait_for_copies() {
#if defined(NRI_CUDA_EMULATED)
  emulator::PendingCopies& copies = emulator::running->copies();
  for (; copies.groups.size() > kLeft; copies.groups.pop_front()) {
    for (const auto& copy : copies.groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
  }
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#endif
}

}  // namespace nri::cuda
