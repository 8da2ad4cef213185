// The error of one predicted state and its slope (common/views.h), summed in double over the features in order.
#pragma once

#include <cmath>

#include "cuda/launch.h"

namespace nri::cuda {

template <typename T>
__device__ inline double weighted_square(const ErrorView<T>& error, const T* predicted, const T* recorded,
                                         int64_t features) {
  double sum = 0;
  for (int64_t d = 0; d < features; ++d) {
    const double difference = static_cast<double>(predicted[d]) - static_cast<double>(recorded[d]);
    sum += static_cast<double>(error.weight[d]) * difference * difference;
  }
  return sum / static_cast<double>(features);
}

template <typename T>
__device__ inline double transition_error(const ErrorView<T>& error, double e) {
  return error.kind == ErrorKind::robust ? log(error.scale_squared + e) : e;
}

// d error / d e.
template <typename T>
__device__ inline double transition_error_slope(const ErrorView<T>& error, double e) {
  return error.kind == ErrorKind::robust ? 1.0 / (error.scale_squared + e) : 1.0;
}

// d e / d predicted[d].
template <typename T>
__device__ inline double weighted_square_slope(const ErrorView<T>& error, const T* predicted, const T* recorded,
                                               int64_t features, int64_t d) {
  const double difference = static_cast<double>(predicted[d]) - static_cast<double>(recorded[d]);
  return 2.0 * static_cast<double>(error.weight[d]) * difference / static_cast<double>(features);
}

}  // namespace nri::cuda
