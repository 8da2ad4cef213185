// The floor that benchmarks measure kernels against: multiply-adds between registers, nothing else. Compiled once per
// instruction set, with the flags of the kernels, so that it is what they could reach at best.
#include <cstdint>

#include "cpu/simd.h"

namespace nri::cpu::NRI_CPU_VARIANT {

namespace {

// Independent sums, enough to cover the latency of a multiply-add on two units (4 or 5 cycles each), few enough to stay
// in registers together with the two factors where there are 16 of them.
constexpr int kSums = 12;
constexpr int64_t kRoundsPerCall = 1 << 14;

}  // namespace

int64_t fma_block() {
  using Vector = Simd<float>::Vector;
  // Read through volatile: the compiler must not know them. The product keeps the sums near 1, far from denormals.
  volatile float told_factor = 0.999999f, told_addend = 1e-6f;
  const float factor = told_factor, addend = told_addend;
  const Vector a = Vector{} + factor, b = Vector{} + addend;
  Vector sum[kSums];
  for (int i = 0; i < kSums; ++i) sum[i] = Vector{} + (1.0f + static_cast<float>(i));
  for (int64_t round = 0; round < kRoundsPerCall; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sum[i] = sum[i] * a + b;
  }
  Vector total{};
  for (int i = 0; i < kSums; ++i) total += sum[i];
  volatile float sink = total[0];
  static_cast<void>(sink);
  return 2 * kSums * Simd<float>::kLanes * kRoundsPerCall;
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
