// The gradient of a layer's weights: a sum of outer products over all rows that ran through the layer.
#pragma once

#include "cpu/simd.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// Rows that ran through a layer together.
template <typename T>
struct LayerPass {
  const T* input;            // [rows, padded(in)]
  const T* output_gradient;  // [rows, padded(out)]
  int64_t rows;
};

// Matrices whose rows belong together: left [rows, m], right [rows, n].
template <typename T>
struct RowPairs {
  const T *left, *right;
  int64_t rows;
};

// result [m, n] (row stride result_stride) += sum over the pairs' rows of left^T right, pair after pair, row after row.
// A block of the result stays in registers over all of them, so that it is read and written once however many there
// are. n is a multiple of a vector.
template <typename T>
void add_outer_products(const RowPairs<T>* pairs, size_t count, int64_t m, int64_t left_stride, int64_t n,
                        int64_t right_stride, T* result, int64_t result_stride) {
  using S = Simd<T>;
  for_panels<T>(n, [&](auto vectors, int64_t column) {
    for_row_blocks(m, [&](auto rows, int64_t row) {
      constexpr int kRows = decltype(rows)::value, kVectors = decltype(vectors)::value;
      typename S::Vector sum[kRows][kVectors];
      T* block = result + row * result_stride + column;
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) sum[r][v] = S::load(block + r * result_stride + v * S::kLanes);
      }
      for (size_t i = 0; i < count; ++i) {
        const T* left = pairs[i].left + row;
        const T* right = pairs[i].right + column;
        for (int64_t k = 0; k < pairs[i].rows; ++k, left += left_stride, right += right_stride) {
          typename S::Vector b[kVectors];
          for (int v = 0; v < kVectors; ++v) b[v] = S::load(right + v * S::kLanes);
          for (int r = 0; r < kRows; ++r) {
            for (int v = 0; v < kVectors; ++v) sum[r][v] += left[r] * b[v];
          }
        }
      }
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) S::store(block + r * result_stride + v * S::kLanes, sum[r][v]);
      }
    });
  });
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
