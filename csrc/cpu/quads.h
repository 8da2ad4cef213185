// Vectors seen as groups of four lanes.
#pragma once

#include "cpu/simd.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// kCount groups of four. store_sums() writes each group's (s0 + s2) + (s1 + s3).
template <typename T>
struct Quads {
  static constexpr int kCount = 1;
  T lane[4];

  static Quads zero() { return {}; }
  static Quads repeat(const T* four) { return {{four[0], four[1], four[2], four[3]}}; }
  void add_product(Quads factor, const T* other) {
    for (int i = 0; i < 4; ++i) lane[i] += factor.lane[i] * other[i];
  }
  void store_sums(T* sums) const { *sums = (lane[0] + lane[2]) + (lane[1] + lane[3]); }
};

#if defined(__AVX512F__)

// The forms with a mask, because GCC 12 warns about its own header for those without.

template <>
struct Quads<float> {
  static constexpr int kCount = 4;
  __m512 lane;

  static Quads zero() { return {_mm512_setzero_ps()}; }
  static Quads repeat(const float* four) { return {_mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(four))}; }
  void add_product(Quads factor, const float* other) {
    lane = _mm512_fmadd_ps(factor.lane, _mm512_loadu_ps(other), lane);
  }
  void store_sums(float* sums) const {
    const __m512 pairs = _mm512_add_ps(lane, _mm512_maskz_permute_ps(0xFFFF, lane, 0b01'00'11'10));
    const __m512 all = _mm512_add_ps(pairs, _mm512_maskz_permute_ps(0xFFFF, pairs, 0b10'11'00'01));
    const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(sums, _mm512_maskz_extractf32x4_ps(0xF, _mm512_maskz_permutexvar_ps(0xFFFF, first, all), 0));
  }
};

template <>
struct Quads<double> {
  static constexpr int kCount = 2;
  __m512d lane;

  static Quads zero() { return {_mm512_setzero_pd()}; }
  static Quads repeat(const double* four) { return {_mm512_maskz_broadcast_f64x4(0xFF, _mm256_loadu_pd(four))}; }
  void add_product(Quads factor, const double* other) {
    lane = _mm512_fmadd_pd(factor.lane, _mm512_loadu_pd(other), lane);
  }
  void store_sums(double* sums) const {
    const __m512d pairs = _mm512_add_pd(lane, _mm512_maskz_permutex_pd(0xFF, lane, 0b01'00'11'10));
    const __m512d all = _mm512_add_pd(pairs, _mm512_maskz_permute_pd(0xFF, pairs, 0b01010101));
    sums[0] = _mm512_cvtsd_f64(all);
    sums[1] = _mm256_cvtsd_f64(_mm512_maskz_extractf64x4_pd(0xF, all, 1));
  }
};

#elif defined(__AVX2__)

template <>
struct Quads<float> {
  static constexpr int kCount = 2;
  __m256 lane;

  static Quads zero() { return {_mm256_setzero_ps()}; }
  static Quads repeat(const float* four) {
    const __m128 once = _mm_loadu_ps(four);
    return {_mm256_set_m128(once, once)};
  }
  void add_product(Quads factor, const float* other) {
    lane = _mm256_fmadd_ps(factor.lane, _mm256_loadu_ps(other), lane);
  }
  void store_sums(float* sums) const {
    const __m256 pairs = _mm256_add_ps(lane, _mm256_permute_ps(lane, 0b01'00'11'10));
    const __m256 all = _mm256_add_ps(pairs, _mm256_permute_ps(pairs, 0b10'11'00'01));
    sums[0] = _mm256_cvtss_f32(all);
    sums[1] = _mm_cvtss_f32(_mm256_extractf128_ps(all, 1));
  }
};

template <>
struct Quads<double> {
  static constexpr int kCount = 1;
  __m256d lane;

  static Quads zero() { return {_mm256_setzero_pd()}; }
  static Quads repeat(const double* four) { return {_mm256_loadu_pd(four)}; }
  void add_product(Quads factor, const double* other) {
    lane = _mm256_fmadd_pd(factor.lane, _mm256_loadu_pd(other), lane);
  }
  void store_sums(double* sums) const {
    const __m256d pairs = _mm256_add_pd(lane, _mm256_permute4x64_pd(lane, 0b01'00'11'10));
    const __m256d all = _mm256_add_pd(pairs, _mm256_permute_pd(pairs, 0b0101));
    *sums = _mm256_cvtsd_f64(all);
  }
};

#endif

}  // namespace nri::cpu::NRI_CPU_VARIANT
