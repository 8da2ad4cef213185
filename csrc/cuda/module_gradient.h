// Backward through the layers of a module kind.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/typed_linear.h"

namespace nri::cuda {

// Two arrays that take turns as the cotangent of a layer's output and of its input.
template <typename T>
struct Cotangents {
  T* current;
  T* spare;
};

enum class InputCotangent { plain, rectified, unwanted };  // rectified: the input is itself a ReLU's output

// From the cotangent of the last layer's output (in `current`, already cut by the last ReLU) down to the input of layer
// `first`, whose cotangent ends up in `current`. activations[i] is the input of layer i. Adds to the group sums.
template <typename T>
void backward_layers(const SlotView& slots, const ModuleLayers& module, int64_t first, InputCotangent input,
                     const T* parameters, const std::vector<T*>& activations, Cotangents<T>& cotangents, T* group_sums,
                     int64_t group_stride, const Execution& execution) {
  for (int64_t i = module.depth() - 1; i >= first; --i) {
    const Layer& layer = module.layers[i];
    typed_linear_weight_gradient<T>(slots, layer, cotangents.current, activations[i], group_sums, group_stride,
                                    execution);
    if (i == first && input == InputCotangent::unwanted) return;
    const T* rectified = i > first || input == InputCotangent::rectified ? activations[i] : nullptr;
    typed_linear_input_gradient<T>(slots, layer, parameters, cotangents.current, rectified, cotangents.spare,
                                   execution);
    std::swap(cotangents.current, cotangents.spare);
  }
}

}  // namespace nri::cuda
