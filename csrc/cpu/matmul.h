// Register-blocked matrix products over packed weights: a layer forwards, and its gradient back to its input. Each
// block of the result, 6 rows by a panel of vectors, stays in registers for the whole depth; sums start from the bias
// or zero and add up over the depth in order.
#pragma once

#include <algorithm>

#include "cpu/simd.h"

namespace nri::cpu::NRI_CPU_VARIANT {

enum class Start { zero, bias };
enum class Finish { plain, relu, mask };  // mask: keep where `mask` is positive (the derivative of ReLU)

// result [rows, columns] (row stride result_stride) = left [rows, depth] (row stride left_stride) * right, packed by
// pack_panels(). columns is a multiple of a vector; bias [columns]; mask has the result's shape and stride mask_stride.
template <typename T>
struct Product {
  int64_t rows, columns, depth;
  const T* left;
  int64_t left_stride;
  const T* right;
  T* result;
  int64_t result_stride;
  const T* bias;
  const T* mask;
  int64_t mask_stride;
};

template <typename T, int kRows, int kVectors, Start kStart, Finish kFinish>
inline void multiply_block(const Product<T>& p, int64_t row, int64_t column, const T* right) {
  using V = typename Simd<T>::Vector;
  constexpr int64_t kLanes = Simd<T>::kLanes;
  V sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = kStart == Start::bias ? Simd<T>::load(p.bias + column + v * kLanes) : V{};
    }
  }
  const T* left = p.left + row * p.left_stride;
  for (int64_t k = 0; k < p.depth; ++k) {
    V b[kVectors];
    for (int v = 0; v < kVectors; ++v) b[v] = Simd<T>::load(right + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const T a = left[r * p.left_stride];
      for (int v = 0; v < kVectors; ++v) sum[r][v] += a * b[v];
    }
    right += kVectors * kLanes;
    left += 1;
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      V value = sum[r][v];
      if constexpr (kFinish == Finish::relu) value = Simd<T>::positive_part(value);
      if constexpr (kFinish == Finish::mask) {
        const V gate = Simd<T>::load(p.mask + (row + r) * p.mask_stride + column + v * kLanes);
        value = gate > T(0) ? value : V{};
      }
      Simd<T>::store(p.result + (row + r) * p.result_stride + column + v * kLanes, value);
    }
  }
}

template <typename T, Start kStart, Finish kFinish>
void multiply(const Product<T>& p) {
  for_panels<T>(p.columns, [&](auto vectors, int64_t column) {
    for_row_blocks(p.rows, [&](auto rows, int64_t row) {
      multiply_block<T, decltype(rows)::value, decltype(vectors)::value, kStart, kFinish>(p, row, column,
                                                                                          p.right + column * p.depth);
    });
  });
}

// Packs a [depth, columns] matrix, element (k, c) at source[k * depth_stride + c * column_stride], into the panels that
// Right::packed reads: panel after panel, each [depth, panel width], zero beyond `columns`.
// packed: [depth * padded(columns)]
template <typename T>
void pack_panels(const T* source, int64_t depth, int64_t columns, int64_t depth_stride, int64_t column_stride,
                 T* packed) {
  constexpr int64_t kPanel = kPanelVectors * Simd<T>::kLanes;
  const int64_t padded_columns = padded<T>(columns);
  for (int64_t first = 0; first < padded_columns; first += kPanel) {
    const int64_t width = std::min(kPanel, padded_columns - first);
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t c = first; c < first + width; ++c) {
        *packed++ = c < columns ? source[k * depth_stride + c * column_stride] : T(0);
      }
    }
  }
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
