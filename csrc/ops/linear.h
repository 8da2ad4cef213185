// A dense layer over many rows, y = x W^T + b, and its gradient: the proposal networks' layers, which would otherwise
// run on one processor while training keeps torch to one thread. CPU only; elsewhere torch's own layers do.
//
// Determinism: a row of y, or of the gradient of x, depends on that row alone, to the bit. Gradients of W and b are
// sums over rows in order. Nothing depends on the number of threads. Aliasing: none allowed. Empty input: no rows, or
// gradients of zero.
#pragma once

#include "common/views.h"

namespace nri {

template <typename T>
struct LinearLayer {
  int64_t rows, in, out;
  const T* input;   // [rows, in]
  const T* weight;  // [out, in]
};

// bias: [out], or null: zero    output: [rows, out]
//
// linear_gradient: of the sum of output_gradient [rows, out] * output
// input_gradient: [rows, in], or null    weight_gradient: [out, in]    bias_gradient: [out], or null
#define NRI_DECLARE_LINEAR(T)                                                                                        \
  void linear(const LinearLayer<T>& layer, const T* bias, T* output, const Execution& execution);                    \
  void linear_gradient(const LinearLayer<T>& layer, const T* output_gradient, T* input_gradient, T* weight_gradient, \
                       T* bias_gradient, const Execution& execution);

namespace cpu {
NRI_DECLARE_LINEAR(float)
NRI_DECLARE_LINEAR(double)
}  // namespace cpu
#undef NRI_DECLARE_LINEAR

}  // namespace nri
