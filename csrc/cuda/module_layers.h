// Where the layers of the module library lie in its array of parameters.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/views.h"

namespace nri::cuda {

// One linear layer of every module of a kind. Offsets are those of class 0's weights; the other classes' follow at
// module_stride. A column range of a layer is a layer too: then row_stride is larger than `in`.
struct Layer {
  int64_t in;
  int64_t out;
  int64_t weight;      // offset of weight [out, in]
  int64_t row_stride;  // from one output's weights to the next
  int64_t bias;        // offset of bias [out], or -1 for none
  int64_t module_stride;
  bool relu;
};

struct ModuleLayers {
  std::vector<Layer> layers;
  int64_t classes = 0;
  int64_t widest = 0;      // of the input and all outputs
  int64_t all_widths = 0;  // of the input and all outputs together
  int64_t end = 0;         // offset behind the last module

  int64_t depth() const { return static_cast<int64_t>(layers.size()); }
  const Layer& first() const { return layers.front(); }
};

inline ModuleLayers lay_out(const int64_t* sizes, int64_t depth, int64_t classes, int64_t begin, bool relu_last) {
  ModuleLayers module;
  module.classes = classes;
  int64_t offset = begin;
  for (int64_t i = 0; i < depth; ++i) {
    const int64_t weights = sizes[i] * sizes[i + 1];
    module.layers.push_back(
        {sizes[i], sizes[i + 1], offset, sizes[i], offset + weights, 0, relu_last || i + 1 < depth});
    offset += weights + sizes[i + 1];
  }
  for (Layer& layer : module.layers) layer.module_stride = offset - begin;
  for (int64_t i = 0; i <= depth; ++i) {
    module.widest = std::max(module.widest, sizes[i]);
    module.all_widths += sizes[i];
  }
  module.end = begin + classes * (offset - begin);
  return module;
}

template <typename T>
ModuleLayers edge_module(const LibraryView<T>& library) {
  return lay_out(library.edge_sizes, library.edge_layers, library.edge_types - library.first_type(), 0, true);
}

template <typename T>
ModuleLayers node_module(const LibraryView<T>& library) {
  return lay_out(library.node_sizes, library.node_layers, library.node_types, edge_module(library).end, false);
}

// The columns [first, first + count) of a layer, with or without its bias: a summand of its output before the ReLU.
inline Layer columns_of(Layer layer, int64_t first, int64_t count, bool with_bias) {
  layer.weight += first;
  layer.in = count;
  layer.relu = false;
  if (!with_bias) layer.bias = -1;
  return layer;
}

}  // namespace nri::cuda
