// Products of bfloat16 numbers, summed in fp32, for scoring where that was asked for: the processor does two of them
// where it does one in fp32. Inputs are rounded as they come, weights when they are packed; what leaves is fp32 again.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/aligned_vector.h"
#include "cpu/matmul.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// Short products stay in fp32: states are small numbers beside positions, and what reads them costs little.
constexpr int64_t kLeastBf16Depth = 32;

#if defined(__AVX512BF16__)
constexpr bool kBf16Products = true;
#else
constexpr bool kBf16Products = false;
#endif

// Packs a [depth, columns] matrix, element (k, c) at source[c * row_stride + k], as pack_panels() does, but pairs of
// depths side by side: (0, c), (1, c), (0, c + 1), (1, c + 1), ...; zero beyond the matrix.
inline AlignedVector<uint16_t> pack_bf16_panels(const float* source, int64_t depth, int64_t columns,
                                                int64_t row_stride);

// The product p with its bias, then ReLU if asked for. The first `rounded` depths are multiplied in bf16, with `right`
// from pack_bf16_panels(), the others in fp32.
template <Finish kFinish>
void multiply_bf16(const Product<float>& p, const uint16_t* right, int64_t rounded);

#if defined(__AVX512BF16__)

// Round to nearest, ties to even; a NaN stays one.
inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline AlignedVector<uint16_t> pack_bf16_panels(const float* source, int64_t depth, int64_t columns,
                                                int64_t row_stride) {
  constexpr int64_t kPanel = kPanelVectors * Simd<float>::kLanes;
  const int64_t width = padded<float>(columns), pairs = (depth + 1) / 2;
  AlignedVector<uint16_t> packed;
  packed.reserve(2 * pairs * width);
  for (int64_t first = 0; first < width; first += kPanel) {
    for (int64_t k = 0; k < 2 * pairs; k += 2) {
      for (int64_t c = first; c < std::min(first + kPanel, width); ++c) {
        for (int64_t j = k; j < k + 2; ++j) {
          packed.push_back(c < columns && j < depth ? to_bf16(source[c * row_stride + j]) : uint16_t{0});
        }
      }
    }
  }
  return packed;
}

// left [rows, depth] in bf16, two to a word, the row stride a multiple of 8 words; valid until the thread's next call.
inline const uint32_t* bf16_rows(const float* left, int64_t rows, int64_t depth, int64_t left_stride, int64_t stride) {
  thread_local AlignedVector<uint32_t> words;
  if (static_cast<int64_t>(words.size()) < rows * stride) words.resize(rows * stride);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < depth; k += 16) {
      const __mmask16 there = depth - k < 16 ? static_cast<__mmask16>((1u << (depth - k)) - 1) : 0xFFFF;
      const __m512 values = _mm512_maskz_loadu_ps(there, left + r * left_stride + k);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(words.data() + r * stride + k / 2),
                          (__m256i)_mm512_cvtneps_pbh(values));
    }
  }
  return words.data();
}

template <Finish kFinish>
void multiply_bf16(const Product<float>& p, const uint16_t* right, int64_t rounded) {
  using S = Simd<float>;
  const int64_t pairs = (rounded + 1) / 2, stride = (rounded + 15) / 16 * 8;
  const uint32_t* words = bf16_rows(p.left, p.rows, rounded, p.left_stride, stride);
  for_panels<float>(p.columns, [&](auto vectors, int64_t column) {
    for_row_blocks(p.rows, [&](auto rows, int64_t row) {
      constexpr int kRows = decltype(rows)::value, kVectors = decltype(vectors)::value;
      __m512 sum[kRows][kVectors];
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) sum[r][v] = S::load(p.bias + column + v * S::kLanes);
      }
      const uint32_t* a = words + row * stride;
      const uint16_t* b = right + 2 * column * pairs;
      for (int64_t k = 0; k < pairs; ++k, b += 2 * kVectors * S::kLanes) {
        __m512bh weight[kVectors];
        for (int v = 0; v < kVectors; ++v) weight[v] = (__m512bh)_mm512_loadu_si512(b + v * 2 * S::kLanes);
        for (int r = 0; r < kRows; ++r) {
          const auto value = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r * stride + k]));
          for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], value, weight[v]);
        }
      }
      const float* exact = p.right + column * p.depth + rounded * kVectors * S::kLanes;
      for (int64_t k = rounded; k < p.depth; ++k, exact += kVectors * S::kLanes) {
        for (int r = 0; r < kRows; ++r) {
          const float value = p.left[(row + r) * p.left_stride + k];
          for (int v = 0; v < kVectors; ++v) sum[r][v] += value * S::load(exact + v * S::kLanes);
        }
      }
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
          S::store(p.result + (row + r) * p.result_stride + column + v * S::kLanes,
                   kFinish == Finish::relu ? S::positive_part(sum[r][v]) : sum[r][v]);
        }
      }
    });
  });
}

#endif

}  // namespace nri::cpu::NRI_CPU_VARIANT
