// Register-blocked matrix products for the three directions of a linear layer. Each block of the result, 6 rows by a
// panel of vectors, stays in registers for the whole depth; sums start from the bias (or zero, or the old value) and
// add up over the depth in order.
#pragma once

#include <algorithm>

#include "cpu/simd.h"

namespace nri::cpu::NRI_CPU_VARIANT {

enum class Start { zero, bias, accumulate };
enum class Finish { plain, relu, mask };  // mask: keep where `mask` is positive (the derivative of ReLU)
enum class Left { rows_are_rows, depth_is_rows };
enum class Right { packed, strided };

// result [rows, columns] (row stride result_stride) = left * right.
//   left:   rows_are_rows: [rows, depth], depth_is_rows: [depth, rows]; row stride left_stride
//   right:  packed: panels of pack_panels(); strided: [depth, columns], row stride right_stride
//   columns is a multiple of a vector; bias [columns]; mask has the result's shape and stride mask_stride
template <typename T>
struct Product {
  int64_t rows, columns, depth;
  const T* left;
  int64_t left_stride;
  const T* right;
  int64_t right_stride;  // strided only
  T* result;
  int64_t result_stride;
  const T* bias;
  const T* mask;
  int64_t mask_stride;
};

template <typename T, int kRows, int kVectors, Start kStart, Finish kFinish, Left kLeft>
inline void multiply_block(const Product<T>& p, int64_t row, int64_t column, const T* right, int64_t right_step) {
  using V = typename Simd<T>::Vector;
  constexpr int64_t kLanes = Simd<T>::kLanes;
  V sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kStart == Start::zero) sum[r][v] = V{};
      if constexpr (kStart == Start::bias) sum[r][v] = Simd<T>::load(p.bias + column + v * kLanes);
      if constexpr (kStart == Start::accumulate) {
        sum[r][v] = Simd<T>::load(p.result + (row + r) * p.result_stride + column + v * kLanes);
      }
    }
  }
  const T* left = p.left + (kLeft == Left::rows_are_rows ? row * p.left_stride : row);
  const int64_t between_rows = kLeft == Left::rows_are_rows ? p.left_stride : 1;
  const int64_t between_depths = kLeft == Left::rows_are_rows ? 1 : p.left_stride;
  for (int64_t k = 0; k < p.depth; ++k) {
    V b[kVectors];
    for (int v = 0; v < kVectors; ++v) b[v] = Simd<T>::load(right + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const T a = left[r * between_rows];
      for (int v = 0; v < kVectors; ++v) sum[r][v] += a * b[v];
    }
    right += right_step;
    left += between_depths;
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

template <typename T, int kVectors, Start kStart, Finish kFinish, Left kLeft>
void multiply_panel(const Product<T>& p, int64_t column, const T* right, int64_t right_step) {
  int64_t row = 0;
  for (; row + kBlockRows <= p.rows; row += kBlockRows) {
    multiply_block<T, kBlockRows, kVectors, kStart, kFinish, kLeft>(p, row, column, right, right_step);
  }
  switch (p.rows - row) {
    case 5:
      return multiply_block<T, 5, kVectors, kStart, kFinish, kLeft>(p, row, column, right, right_step);
    case 4:
      return multiply_block<T, 4, kVectors, kStart, kFinish, kLeft>(p, row, column, right, right_step);
    case 3:
      return multiply_block<T, 3, kVectors, kStart, kFinish, kLeft>(p, row, column, right, right_step);
    case 2:
      return multiply_block<T, 2, kVectors, kStart, kFinish, kLeft>(p, row, column, right, right_step);
    case 1:
      return multiply_block<T, 1, kVectors, kStart, kFinish, kLeft>(p, row, column, right, right_step);
    default:
      return;
  }
}

template <typename T, Start kStart, Finish kFinish, Left kLeft, Right kRight>
void multiply(const Product<T>& p) {
  static_assert(kBlockRows == 6, "multiply_panel lists the remainders of 6");
  if (p.rows == 0) return;
  constexpr int64_t kLanes = Simd<T>::kLanes;
  for (int64_t column = 0; column < p.columns;) {
    const int64_t vectors = std::min<int64_t>(kPanelVectors, (p.columns - column) / kLanes);
    const bool packed = kRight == Right::packed;
    const T* right = p.right + (packed ? column * p.depth : column);
    const int64_t step = packed ? vectors * kLanes : p.right_stride;
    switch (vectors) {
      case 1:
        multiply_panel<T, 1, kStart, kFinish, kLeft>(p, column, right, step);
        break;
      case 2:
        multiply_panel<T, 2, kStart, kFinish, kLeft>(p, column, right, step);
        break;
      case 3:
        multiply_panel<T, (kPanelVectors > 2 ? 3 : 1), kStart, kFinish, kLeft>(p, column, right, step);
        break;
      default:
        multiply_panel<T, kPanelVectors, kStart, kFinish, kLeft>(p, column, right, step);
        break;
    }
    column += vectors * kLanes;
  }
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
