// Numbers as the products' operands hold them.
#pragma once

#include "cuda/fused_layers.h"
#include "cuda/mma.h"

namespace nri::cuda::fused {

// The digits of a number that one factor of a product has.
template <Precision kPrecision>
__device__ inline float high_part(float value) {
  return kPrecision == Precision::bf16 ? low_bf16(to_bf16_pair(value, 0.0f)) : float_of(to_tf32(value));
}

// A word of one number (the first) or of two. In fp32 all digits stay: they are split when they are used.
template <Precision kPrecision>
__device__ inline uint32_t word_of(float first, float second) {
  if (kPrecision == Precision::bf16) return to_bf16_pair(first, second);
  return kPrecision == Precision::tf32 ? to_tf32(first) : bits_of(first);
}

// d += A B for the words of one chunk.
template <Precision kPrecision>
__device__ inline void multiply_words(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if (kPrecision == Precision::bf16) {
    multiply_bf16(d, a, b);
  } else {
    multiply_tf32(d, a, b);
  }
}

// Splits floats into a number in TF32 and the rest, in TF32 too: 22 bits of mantissa together.
template <int kCount>
__device__ inline void split(const uint32_t (&words)[kCount], uint32_t (&high)[kCount], uint32_t (&low)[kCount]) {
  NRI_CUDA_UNROLL
  for (int i = 0; i < kCount; ++i) {
    high[i] = to_tf32(float_of(words[i]));
    low[i] = to_tf32(float_of(words[i]) - float_of(high[i]));
  }
}

}  // namespace nri::cuda::fused
