// Sums over rows of activations. Rows are whole vectors long; additions go row by row, in the order given.
#pragma once

#include "cpu/simd.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// sum [width] += the rows of a matrix [rows, width]
template <typename T>
void add_rows(const T* matrix, int64_t rows, int64_t width, T* sum) {
  using S = Simd<T>;
  for_panels<T>(width, [&](auto vectors, int64_t column) {
    typename S::Vector total[vectors];
    for (int v = 0; v < vectors; ++v) total[v] = S::load(sum + column + v * S::kLanes);
    for (int64_t r = 0; r < rows; ++r) {
      const T* row = matrix + r * width + column;
      for (int v = 0; v < vectors; ++v) total[v] += S::load(row + v * S::kLanes);
    }
    for (int v = 0; v < vectors; ++v) S::store(sum + column + v * S::kLanes, total[v]);
  });
}

// sum [width] = the listed rows of a matrix [..., width]
template <typename T>
void sum_listed_rows(const T* matrix, const int64_t* list, int64_t count, int64_t width, T* sum) {
  using S = Simd<T>;
  for_panels<T>(width, [&](auto vectors, int64_t column) {
    typename S::Vector total[vectors];
    for (int v = 0; v < vectors; ++v) total[v] = typename S::Vector{};
    for (int64_t i = 0; i < count; ++i) {
      const T* row = matrix + list[i] * width + column;
      for (int v = 0; v < vectors; ++v) total[v] += S::load(row + v * S::kLanes);
    }
    for (int v = 0; v < vectors; ++v) S::store(sum + column + v * S::kLanes, total[v]);
  });
}

// sum [width] = first + the others, then ReLU if asked for
template <typename T>
void add_all(const T* first, const T* const* others, int64_t count, int64_t width, bool relu, T* sum) {
  using S = Simd<T>;
  for_panels<T>(width, [&](auto vectors, int64_t column) {
    typename S::Vector total[vectors];
    for (int v = 0; v < vectors; ++v) total[v] = S::load(first + column + v * S::kLanes);
    for (int64_t i = 0; i < count; ++i) {
      for (int v = 0; v < vectors; ++v) total[v] += S::load(others[i] + column + v * S::kLanes);
    }
    for (int v = 0; v < vectors; ++v) {
      S::store(sum + column + v * S::kLanes, relu ? S::positive_part(total[v]) : total[v]);
    }
  });
}

// sum [width] = a + b, then ReLU if asked for; b may be null: zero
template <typename T>
void add_two(const T* a, const T* b, int64_t width, bool relu, T* sum) {
  using S = Simd<T>;
  for (int64_t h = 0; h < width; h += S::kLanes) {
    typename S::Vector value = S::load(a + h);
    if (b) value += S::load(b + h);
    if (relu) value = S::positive_part(value);
    S::store(sum + h, value);
  }
}

// sum [width] += weight * row
template <typename T>
void add_weighted(T weight, const T* row, int64_t width, T* sum) {
  using S = Simd<T>;
  for (int64_t h = 0; h < width; h += S::kLanes) S::store(sum + h, S::load(sum + h) + weight * S::load(row + h));
}

// kept [width] = gradient where `activation` is positive, else zero: the derivative of ReLU
template <typename T>
void mask_row(const T* gradient, const T* activation, int64_t width, T* kept) {
  using S = Simd<T>;
  for (int64_t h = 0; h < width; h += S::kLanes) {
    S::store(kept + h, S::load(activation + h) > T(0) ? S::load(gradient + h) : typename S::Vector{});
  }
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
