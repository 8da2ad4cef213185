// Products with at most four columns: what turns the last hidden layer into the change of a state. A vector over the
// columns would be mostly padding, so its lanes are spent on the depth instead: each result is four partial sums, over
// the depths k = j mod 4, added up as (s0 + s2) + (s1 + s3) in every variant.
#pragma once

#include <algorithm>

#include "cpu/quads.h"

namespace nri::cpu::NRI_CPU_VARIANT {

constexpr int64_t kNarrow = 4;  // columns

constexpr bool is_narrow(int64_t columns) { return columns <= kNarrow; }
constexpr int64_t narrow_size(int64_t depth) { return (depth + 3) / 4 * 4 * kNarrow; }

// Packs W [columns, depth], element (c, k) at source[c * row_stride + k]: for four depths at a time the four of column
// 0, the four of column 1, ...; zero beyond the matrix. packed: [narrow_size(depth)]
template <typename T>
void pack_narrow(const T* source, int64_t depth, int64_t columns, int64_t row_stride, T* packed) {
  for (int64_t first = 0; first < depth; first += 4) {
    for (int64_t c = 0; c < kNarrow; ++c) {
      for (int64_t k = first; k < first + 4; ++k) {
        *packed++ = c < columns && k < depth ? source[c * row_stride + k] : T(0);
      }
    }
  }
}

// result [rows, columns] = left [rows, depth] W^T + bias, then ReLU if asked for
template <typename T>
struct NarrowProduct {
  int64_t columns, depth;
  const T* left;
  int64_t left_stride;
  const T* packed;
  const T* bias;
  T* result;
  int64_t result_stride;
};

// Rows go side by side, so that no addition waits for the one before it.
template <typename T, int kRows>
void multiply_narrow_rows(const NarrowProduct<T>& p, int64_t row, bool relu) {
  constexpr int kVectors = kNarrow / Quads<T>::kCount;
  Quads<T> sum[kRows][kVectors];
  const T* left = p.left + row * p.left_stride;
  const T* packed = p.packed;
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = Quads<T>::zero();
  }
  const auto add = [&](int r, const T* four) {
    const Quads<T> factor = Quads<T>::repeat(four);
    for (int v = 0; v < kVectors; ++v) sum[r][v].add_product(factor, packed + v * Quads<T>::kCount * 4);
  };
  const int64_t whole = p.depth / 4 * 4;
  for (int64_t k = 0; k < whole; k += 4, packed += 4 * kNarrow) {
    for (int r = 0; r < kRows; ++r) add(r, left + r * p.left_stride + k);
  }
  for (int r = 0; whole < p.depth && r < kRows; ++r) {
    T rest[4] = {};  // behind a row's last value there may be anything
    std::copy(left + r * p.left_stride + whole, left + r * p.left_stride + p.depth, rest);
    add(r, rest);
  }
  for (int r = 0; r < kRows; ++r) {
    T value[kNarrow];
    for (int v = 0; v < kVectors; ++v) sum[r][v].store_sums(value + v * Quads<T>::kCount);
    T* result = p.result + (row + r) * p.result_stride;
    for (int64_t c = 0; c < p.columns; ++c) {
      const T sum = value[c] + p.bias[c];
      result[c] = relu && sum < T(0) ? T(0) : sum;
    }
  }
}

template <typename T>
void multiply_narrow(const NarrowProduct<T>& p, int64_t rows, bool relu) {
  int64_t row = 0;
  for (; row + 6 <= rows; row += 6) multiply_narrow_rows<T, 6>(p, row, relu);
  for (; row < rows; ++row) multiply_narrow_rows<T, 1>(p, row, relu);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
