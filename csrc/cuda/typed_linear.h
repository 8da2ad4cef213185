// A linear layer whose weights depend on the row: the rows are in the order of RowBuckets, so a tile has one module.
// Every sum runs over its terms in ascending order, wherever in a tile the element lies: results do not depend on what
// else is in work, to the bit.
#pragma once

#include "cuda/module_layers.h"
#include "cuda/row_buckets.h"

namespace nri::cuda {

// y[slot] = W x[slot] + b, then ReLU if the layer has one.   x [slots, in]   y [slots, out]
template <typename T>
void typed_linear(const SlotView& slots, const Layer& layer, const T* parameters, const T* x, T* y,
                  const Execution& execution);

// dx[slot] = transpose(W) dy[slot]; where `rectified` [slots, in] is given, zero wherever it is not positive.
template <typename T>
void typed_linear_input_gradient(const SlotView& slots, const Layer& layer, const T* parameters, const T* dy,
                                 const T* rectified, T* dx, const Execution& execution);

// group_gradients [groups, group_stride] += the layer's weight and bias gradient of each group's rows.
template <typename T>
void typed_linear_weight_gradient(const SlotView& slots, const Layer& layer, const T* dy, const T* x,
                                  T* group_gradients, int64_t group_stride, const Execution& execution);

}  // namespace nri::cuda
