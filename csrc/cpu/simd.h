// The vector type of the instruction set that this file is being compiled for. Kernel files are compiled once per
// variant, NRI_CPU_VARIANT naming it (generic, avx2, avx512), and everything in them lives in a namespace of that name.
//
// A dot product runs over its depth in order, one multiply-add at a time, whatever the vector width: variants with
// fused multiply-add (avx2, avx512) therefore agree to the bit.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace nri::cpu::NRI_CPU_VARIANT {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
constexpr int kPanelVectors = 4;  // 6 rows x 4 vectors of sums in 32 registers
#elif defined(__AVX2__)
constexpr int64_t kVectorBytes = 32;
constexpr int kPanelVectors = 2;  // 6 rows x 2 vectors in 16 registers
#else
constexpr int64_t kVectorBytes = 16;
constexpr int kPanelVectors = 2;
#endif
constexpr int kBlockRows = 6;

template <typename T>
struct Simd {
  static constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));

  static Vector load(const T* p) { return *reinterpret_cast<const Unaligned*>(p); }
  static void store(T* p, Vector v) { *reinterpret_cast<Unaligned*>(p) = v; }

  // ReLU; a NaN stays a NaN.
  static Vector positive_part(Vector v) {
#if defined(__AVX512F__)
    // With a mask, because GCC 12 warns about its own header for the forms without.
    if constexpr (std::is_same_v<T, float>) return _mm512_maskz_max_ps(0xFFFF, Vector{}, v);
    if constexpr (std::is_same_v<T, double>) return _mm512_maskz_max_pd(0xFF, Vector{}, v);
#elif defined(__AVX2__)
    if constexpr (std::is_same_v<T, float>) return _mm256_max_ps(Vector{}, v);
    if constexpr (std::is_same_v<T, double>) return _mm256_max_pd(Vector{}, v);
#else
    return v < T(0) ? Vector{} : v;
#endif
  }
};

// Row strides are multiples of a vector, so that whole vectors can be read and written at the end of a row.
template <typename T>
constexpr int64_t padded(int64_t width) {
  return (width + Simd<T>::kLanes - 1) / Simd<T>::kLanes * Simd<T>::kLanes;
}

// Calls body(number of vectors as a constant, first column) for panels that cover `width` columns, whole vectors all.
template <typename T, typename Body>
inline void for_panels(int64_t width, const Body& body) {
  constexpr int64_t kLanes = Simd<T>::kLanes, kPanel = kPanelVectors * kLanes;
  int64_t column = 0;
  for (; column + kPanel <= width; column += kPanel) body(std::integral_constant<int, kPanelVectors>{}, column);
  if constexpr (kPanelVectors > 3) {
    if (width - column == 3 * kLanes) return body(std::integral_constant<int, 3>{}, column);
  }
  if constexpr (kPanelVectors > 2) {
    if (width - column == 2 * kLanes) return body(std::integral_constant<int, 2>{}, column);
  }
  if (width - column == kLanes) body(std::integral_constant<int, 1>{}, column);
}

// Calls body(number of rows as a constant, first row) for blocks of rows that cover `rows`.
template <typename Body>
inline void for_row_blocks(int64_t rows, const Body& body) {
  static_assert(kBlockRows == 6, "the remainders of 6 are listed");
  int64_t row = 0;
  for (; row + kBlockRows <= rows; row += kBlockRows) body(std::integral_constant<int, kBlockRows>{}, row);
  switch (rows - row) {
    case 5:
      return body(std::integral_constant<int, 5>{}, row);
    case 4:
      return body(std::integral_constant<int, 4>{}, row);
    case 3:
      return body(std::integral_constant<int, 3>{}, row);
    case 2:
      return body(std::integral_constant<int, 2>{}, row);
    case 1:
      return body(std::integral_constant<int, 1>{}, row);
    default:
      return;
  }
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
