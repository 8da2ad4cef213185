// The modules as the kernels read them: weights packed for both directions, and a forward and a backward pass over a
// block of rows. Activations have a row stride of padded(width).
#pragma once

#include <vector>

#include "common/views.h"
#include "cpu/aligned_vector.h"
#include "cpu/arena.h"
#include "cpu/matmul.h"
#include "cpu/narrow.h"
#include "cpu/row_sums.h"
#include "cpu/weight_gradient.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// One linear layer y = W x + b. Gradients of W are gathered in rows that are padded to vectors: a row per output or a
// row per input, whichever wastes less; the gradient of b follows.
template <typename T>
struct Layer {
  int64_t in, out;
  AlignedVector<T> forward;   // W transposed, packed: depth in, columns out; or as pack_narrow() leaves it
  AlignedVector<T> bias;      // [padded(out)]
  AlignedVector<T> backward;  // W, packed: depth out, columns in
  int64_t gradient;           // offset of this layer's gradients

  // weight: element (o, i) at weight[o * row_stride + i]; bias may be null: zero
  Layer(const T* weight, int64_t row_stride, const T* bias_values, int64_t in_, int64_t out_, int64_t gradient_)
      : in(in_),
        out(out_),
        bias(std::max(padded<T>(out_), kNarrow)),
        backward(out_ * padded<T>(in_)),
        gradient(gradient_) {
    if (is_narrow(out)) {
      forward.resize(narrow_size(in));
      pack_narrow(weight, in, out, row_stride, forward.data());
    } else {
      forward.resize(in * padded<T>(out));
      pack_panels(weight, in, out, int64_t{1}, row_stride, forward.data());
    }
    for (int64_t o = 0; bias_values && o < out; ++o) bias[o] = bias_values[o];
    pack_panels(weight, out, in, row_stride, int64_t{1}, backward.data());
  }

  int64_t gradient_size() const { return weight_gradient_size() + padded<T>(out); }

  // output [rows, out] = input [rows, in] W^T + b, then ReLU if asked for
  void apply(const T* input, int64_t rows, T* output, bool relu) const {
    if (is_narrow(out)) {
      multiply_narrow<T>({out, in, input, padded<T>(in), forward.data(), bias.data(), output, padded<T>(out)}, rows,
                         relu);
      return;
    }
    const Product<T> p{rows,           padded<T>(out), in,      input, padded<T>(in), forward.data(), output,
                       padded<T>(out), bias.data(),    nullptr, 0};
    relu ? multiply<T, Start::bias, Finish::relu>(p) : multiply<T, Start::bias, Finish::plain>(p);
  }

  // input_gradient [rows, in] = output_gradient [rows, out] W; zero where `activation` (the input, if it came out of a
  // ReLU) is not positive. activation may be null.
  void apply_backward(const T* output_gradient, int64_t rows, const T* activation, T* input_gradient) const {
    const Product<T> p{rows,           padded<T>(in), out,     output_gradient, padded<T>(out), backward.data(),
                       input_gradient, padded<T>(in), nullptr, activation,      padded<T>(in)};
    activation ? multiply<T, Start::zero, Finish::mask>(p) : multiply<T, Start::zero, Finish::plain>(p);
  }

  // Adds the sum over all rows of output_gradient^T input, and that of output_gradient for the bias, to this layer's
  // part of `gradients`.
  void add_gradient(const std::vector<LayerPass<T>>& passes, T* gradients) const {
    const int64_t in_stride = padded<T>(in), out_stride = padded<T>(out);
    T* weight = gradients + gradient;
    std::vector<RowPairs<T>> pairs;
    for (const LayerPass<T>& pass : passes) {
      pairs.push_back(row_per_output() ? RowPairs<T>{pass.output_gradient, pass.input, pass.rows}
                                       : RowPairs<T>{pass.input, pass.output_gradient, pass.rows});
    }
    if (row_per_output()) {
      add_outer_products(pairs.data(), pairs.size(), out, out_stride, in_stride, in_stride, weight, in_stride);
    } else {
      add_outer_products(pairs.data(), pairs.size(), in, in_stride, out_stride, out_stride, weight, out_stride);
    }
    for (const LayerPass<T>& pass : passes) {
      add_rows(pass.output_gradient, pass.rows, out_stride, weight + weight_gradient_size());
    }
  }

  // Copies the gradient of output o's weights; returns the end of what it wrote.
  T* copy_weight_gradient(const T* gradients, int64_t o, T* values) const {
    const T* weight = gradients + gradient;
    if (row_per_output()) return std::copy_n(weight + o * padded<T>(in), in, values);
    for (int64_t i = 0; i < in; ++i) *values++ = weight[i * padded<T>(out) + o];
    return values;
  }

  T* copy_bias_gradient(const T* gradients, T* values) const {
    return std::copy_n(gradients + gradient + weight_gradient_size(), out, values);
  }

 private:
  bool row_per_output() const { return out * padded<T>(in) <= in * padded<T>(out); }
  int64_t weight_gradient_size() const { return row_per_output() ? out * padded<T>(in) : in * padded<T>(out); }
};

// Rows that ran through a module together.
template <typename T>
struct MlpPass {
  const T* input;
  int64_t rows;
  std::vector<T*> activation;  // per layer: its output
  std::vector<T*> gradient;    // per layer: room for the gradient of its output
};

// A module: linear layers with ReLU between them, and after the last one too if relu_last.
template <typename T>
struct Mlp {
  std::vector<Layer<T>> layers;  // empty: the silent type
  bool relu_last = false;

  bool relu_after(size_t layer) const { return relu_last || layer + 1 < layers.size(); }

  // Runs rows through all layers. activation[l] [rows, padded(out of layer l)] receives layer l's output; entries may
  // alternate between two buffers when only the last output is wanted.
  void forward(const T* input, int64_t rows, T* const* activation) const {
    for (size_t l = 0; l < layers.size(); ++l) {
      layers[l].apply(input, rows, activation[l], relu_after(l));
      input = activation[l];
    }
  }

  // Takes a pass's gradient back from its last layer's output, where it comes filled with the ReLU's mask applied, to
  // all other layers' outputs. input_gradient may be null; input_mask, the input itself where that came out of a ReLU,
  // is applied to it.
  void backward(const MlpPass<T>& pass, T* input_gradient, const T* input_mask) const {
    for (size_t l = layers.size(); l-- > 0;) {
      if (l) {
        layers[l].apply_backward(pass.gradient[l], pass.rows, pass.activation[l - 1], pass.gradient[l - 1]);
      } else if (input_gradient) {
        layers[l].apply_backward(pass.gradient[l], pass.rows, input_mask, input_gradient);
      }
    }
  }

  // Adds the gradients of all layers' weights, once the passes have been taken back.
  void add_gradients(const std::vector<MlpPass<T>>& passes, T* gradients) const {
    std::vector<LayerPass<T>> through(passes.size());
    for (size_t l = 0; l < layers.size(); ++l) {
      for (size_t i = 0; i < passes.size(); ++i) {
        const MlpPass<T>& pass = passes[i];
        through[i] = {l ? pass.activation[l - 1] : pass.input, pass.gradient[l], pass.rows};
      }
      layers[l].add_gradient(through, gradients);
    }
  }

  int64_t widest() const {
    int64_t width = 0;
    for (const Layer<T>& layer : layers) width = std::max(width, padded<T>(layer.out));
    return width;
  }
};

// Appends layers first .. last - 1 of a module to `module`; returns the parameters behind them.
template <typename T>
const T* pack_layers(Mlp<T>& module, const int64_t* sizes, int64_t first, int64_t last, const T* parameters,
                     int64_t* gradient_size) {
  for (int64_t l = first; l < last; ++l) {
    const int64_t in = sizes[l], out = sizes[l + 1];
    module.layers.emplace_back(parameters, in, parameters + out * in, in, out, *gradient_size);
    *gradient_size += module.layers.back().gradient_size();
    parameters += out * in + out;
  }
  return parameters;
}

// Copies the modules' padded gradients into the layout of LibraryView::parameters; returns the end of what it wrote.
template <typename T>
T* unpad_gradient(const Mlp<T>& module, const T* gradients, T* parameters) {
  for (const Layer<T>& layer : module.layers) {
    for (int64_t o = 0; o < layer.out; ++o) parameters = layer.copy_weight_gradient(gradients, o, parameters);
    parameters = layer.copy_bias_gradient(gradients, parameters);
  }
  return parameters;
}

// All modules of a library.
template <typename T>
struct PackedLibrary {
  int64_t features, message;
  std::vector<Mlp<T>> edge;  // [K]
  std::vector<Mlp<T>> node;  // [M]
  int64_t gradient_size = 0;

  explicit PackedLibrary(const LibraryView<T>& library)
      : features(library.features), message(library.message()), edge(library.edge_types), node(library.node_types) {
    const T* parameters = library.parameters;
    for (int64_t k = library.first_type(); k < library.edge_types; ++k) {
      edge[k].relu_last = true;
      parameters = pack_layers(edge[k], library.edge_sizes, 0, library.edge_layers, parameters, &gradient_size);
    }
    for (Mlp<T>& module : node) {
      parameters = pack_layers(module, library.node_sizes, 0, library.node_layers, parameters, &gradient_size);
    }
  }

  void unpad(const T* gradients, T* parameters) const {
    for (const Mlp<T>& module : edge) parameters = unpad_gradient(module, gradients, parameters);
    for (const Mlp<T>& module : node) parameters = unpad_gradient(module, gradients, parameters);
  }
};

}  // namespace nri::cpu::NRI_CPU_VARIANT
