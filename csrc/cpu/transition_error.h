// The error of one transition of one entity (ErrorView), its sum over many, and its derivative.
#pragma once

#include <cmath>

#include "common/views.h"
#include "cpu/simd.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// e = mean over features of weight[d] * (predicted - recorded)^2, in double. kFeatures: known when compiling, or 0.
template <int kFeatures, typename T>
inline double weighted_error_of(const ErrorView<T>& error, int64_t features, const T* predicted, const T* recorded) {
  if (kFeatures) features = kFeatures;
  double sum = 0;
  for (int64_t d = 0; d < features; ++d) {
    const double difference = static_cast<double>(predicted[d]) - static_cast<double>(recorded[d]);
    sum += static_cast<double>(error.weight[d]) * difference * difference;
  }
  return sum / static_cast<double>(features);
}

// Four features, positions and velocities in two dimensions, are what most recordings hold.
template <typename T>
inline double weighted_error(const ErrorView<T>& error, int64_t features, const T* predicted, const T* recorded) {
  return features == 4 ? weighted_error_of<4>(error, features, predicted, recorded)
                       : weighted_error_of<0>(error, features, predicted, recorded);
}

template <typename T>
inline double transition_error(const ErrorView<T>& error, int64_t features, const T* predicted, const T* recorded) {
  const double e = weighted_error(error, features, predicted, recorded);
  return error.kind == ErrorKind::robust ? std::log(error.scale_squared + e) : e;
}

// gradient[d] = factor * derivative of the transition's error in predicted[d]. kFeatures: as above.
template <int kFeatures, typename T>
inline void transition_error_gradient_of(const ErrorView<T>& error, int64_t features, const T* predicted,
                                         const T* recorded, double factor, T* gradient) {
  if (kFeatures) features = kFeatures;
  if (error.kind == ErrorKind::robust) {
    factor /= error.scale_squared + weighted_error_of<kFeatures>(error, features, predicted, recorded);
  }
  factor *= 2.0 / static_cast<double>(features);
  for (int64_t d = 0; d < features; ++d) {
    const double difference = static_cast<double>(predicted[d]) - static_cast<double>(recorded[d]);
    gradient[d] = static_cast<T>(factor * static_cast<double>(error.weight[d]) * difference);
  }
}

template <typename T>
inline void transition_error_gradient(const ErrorView<T>& error, int64_t features, const T* predicted,
                                      const T* recorded, double factor, T* gradient) {
  if (features == 4) {
    transition_error_gradient_of<4>(error, features, predicted, recorded, factor, gradient);
  } else {
    transition_error_gradient_of<0>(error, features, predicted, recorded, factor, gradient);
  }
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
