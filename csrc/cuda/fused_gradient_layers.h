// What a pass of the fused gradient multiplies by, in the order in which it is read: the layers of its module forwards,
// so that their activations are there again, and then the transposed layers backwards, which turn the cotangent of a
// layer's output into that of its input. And where a layer's activations and the sums of its weights' gradient lie.
//
// Forwards, the last layer of a node module is left out: nobody asks for its output. Backwards, the first layer of a
// node module is two products, for the messages' part of its input and for the states' part, so that no product is
// wider than a layer.
#pragma once

#include "cuda/fused_tile.h"

namespace nri::cuda::fused {

constexpr int kMostProducts = 2 * kMostLayers;

// Of a pass on its way back, at most: what fits into shared memory where layers are as wide as the kernel allows. Sums
// for more would take the registers of others.
NRI_HOST_DEVICE constexpr int gradient_pass_rows(int widest) { return widest > 64 && widest <= 128 ? 96 : 64; }

struct GradientModule {
  int forwards;               // products of layers 0, 1, ..; the others are transposed
  int products;               // in all
  int row_words;              // of a row's activations: all layers' inputs and the last one's output
  int64_t words, first_word;  // of a module's packed weights; of the first module's
  int64_t lane, first_lane;   // floats of a module's sums; of the first module's
  FusedLayer product[kMostProducts];
  int source[kMostProducts];         // layer that the product is made from
  int first_input[kMostProducts];    // transposed: the layer's input that is the product's first output
  int stride[kMostLayers + 2];       // words from one row to the next of the input of layer l, or of the output
  int before[kMostLayers + 2];       // words of a row that lie in earlier layers' inputs
  int64_t lane_weight[kMostLayers];  // [outputs, lane_columns()] of layer l, in a module's sums
  int64_t lane_bias[kMostLayers];    // [outputs]

  NRI_HOST_DEVICE int64_t word_of(int module) const { return first_word + module * words; }
  NRI_HOST_DEVICE int64_t lane_of(int module) const { return first_lane + module * lane; }
};

// Inputs of a layer in its weights' sums: in 8s, as products give them.
NRI_HOST_DEVICE inline int lane_columns(const FusedLayer& layer) { return round_up(layer.in, 8); }

struct GradientLibrary {
  GradientModule edge, node;
  int widest;         // padded outputs of the widest product
  int64_t all_words;  // of all packed weights
  int64_t all_sums;   // floats of a lane

  NRI_HOST_DEVICE const GradientModule& module_of(bool of_nodes) const { return of_nodes ? node : edge; }
};

// A layer's product with its transposed weights: from its outputs to `count` of its inputs.
inline FusedLayer transposed(const FusedLayer& layer, int count) {
  FusedLayer result{};
  result.in = layer.out;
  result.out = count;
  result.outputs = round_up(count, 16);
  result.chunks = round_up(layer.out, kChunkWords) / kChunkWords;
  return result;
}

// Appends a product that is made from layer `source`.
inline void append_product(GradientModule* module, FusedLayer product, int source, int first_input = 0) {
  product.first = module->words;
  module->words += product.chunks * product.chunk_words();
  module->product[module->products] = product;
  module->source[module->products] = source;
  module->first_input[module->products] = first_input;
  module->products += 1;
}

// Room in a row for the input of layer l, or for the output.
inline void append_slot(GradientModule* module, int l, int words) {
  module->stride[l] = activation_stride(words);
  module->before[l] = module->row_words;
  module->row_words += module->stride[l];
}

// Words of a row between layers l - 1 and l: what the one writes, or the other reads, where that is more.
inline int words_before(const FusedModule& module, int l) {
  const int words = l < module.layers ? module.layer[l].words() : 0;
  const int written = l > 0 ? module.layer[l - 1].outputs : 0;
  return words > written ? words : written;
}

// Room in a lane for every layer's sums.
inline void place_sums(GradientModule* result, const FusedModule& module) {
  for (int l = 0; l < module.layers; ++l) {
    const FusedLayer& layer = module.layer[l];
    result->lane_weight[l] = result->lane;
    result->lane_bias[l] = result->lane + static_cast<int64_t>(layer.outputs) * lane_columns(layer);
    result->lane = result->lane_bias[l] + layer.outputs;
  }
}

// first_part: inputs of the first layer that a product of their own is for; all of them if there is but one.
inline GradientModule gradient_module(const FusedModule& module, bool of_nodes, int first_part) {
  GradientModule result{};
  result.forwards = module.layers - (of_nodes ? 1 : 0);
  for (int l = 0; l < result.forwards; ++l) append_product(&result, module.layer[l], l);
  for (int l = module.layers - 1; l > 0; --l) {
    append_product(&result, transposed(module.layer[l], module.layer[l].in), l);
  }
  const FusedLayer& first = module.layer[0];
  append_product(&result, transposed(first, first_part), 0);
  if (first_part < first.in) append_product(&result, transposed(first, first.in - first_part), 0, first_part);
  for (int l = 0; l <= module.layers; ++l) append_slot(&result, l, words_before(module, l));
  place_sums(&result, module);
  return result;
}

// The modules side by side.
inline GradientLibrary gradient_library(const FusedLibrary& library, const GradientModule& edge,
                                        const GradientModule& node) {
  GradientLibrary result{};
  result.edge = edge;
  result.node = node;
  result.node.first_word = library.edge.modules * result.edge.words;
  result.node.first_lane = library.edge.modules * result.edge.lane;
  result.all_words = result.node.first_word + library.node.modules * result.node.words;
  result.all_sums = result.node.first_lane + library.node.modules * result.node.lane;
  for (const GradientModule* module : {&result.edge, &result.node}) {
    for (int p = 0; p < module->products; ++p) {
      const int outputs = module->product[p].outputs;
      result.widest = result.widest < outputs ? outputs : result.widest;
    }
  }
  return result;
}

// library: laid out for fp32
inline GradientLibrary gradient_library(const FusedLibrary& library) {
  return gradient_library(library, gradient_module(library.edge, false, library.edge.layer[0].in),
                          gradient_module(library.node, true, library.message));
}

// Which parameter a word of the packed weights is, or -1 where it is padding.
NRI_HOST_DEVICE inline int64_t parameter_of_word(const FusedLibrary& library, const GradientLibrary& gradient,
                                                 int64_t word) {
  const bool of_nodes = word >= gradient.node.first_word;
  const GradientModule& back = gradient.module_of(of_nodes);
  const FusedModule& module = of_nodes ? library.node : library.edge;
  const int64_t of_kind = word - back.first_word, in_module = of_kind % back.words;
  int p = back.products - 1;
  while (back.product[p].first > in_module) --p;
  const FusedLayer& product = back.product[p];
  const FusedLayer& layer = module.layer[back.source[p]];
  const int64_t in_product = in_module - product.first;
  const int in_chunk = static_cast<int>(in_product % product.chunk_words());
  const int output = in_chunk / kChunkWords;
  const int input = static_cast<int>(in_product / product.chunk_words()) * kChunkWords + in_chunk % kChunkWords;
  if (output >= product.out || input >= product.in) return -1;
  const int64_t weights = module.parameter_of(static_cast<int>(of_kind / back.words)) + layer.weight;
  return p < back.forwards ? weights + static_cast<int64_t>(output) * layer.in + input
                           : weights + static_cast<int64_t>(input) * layer.in + back.first_input[p] + output;
}

// Place of a parameter's sum in a lane.
NRI_HOST_DEVICE inline int64_t lane_place(const FusedLibrary& library, const GradientLibrary& gradient,
                                          int64_t parameter) {
  const bool of_nodes = parameter >= library.node.first_parameter;
  const FusedModule& module = of_nodes ? library.node : library.edge;
  const GradientModule& back = gradient.module_of(of_nodes);
  const int64_t of_kind = parameter - module.first_parameter, in_module = of_kind % module.parameters;
  int l = module.layers - 1;
  while (module.layer[l].weight > in_module) --l;
  const FusedLayer& layer = module.layer[l];
  const int64_t place = back.lane_of(static_cast<int>(of_kind / module.parameters));
  if (in_module >= layer.bias) return place + back.lane_bias[l] + in_module - layer.bias;
  const int64_t in_layer = in_module - layer.weight;
  return place + back.lane_weight[l] + in_layer / layer.in * lane_columns(layer) + in_layer % layer.in;
}

// On the way back nodes' passes come first: they say what the sums of messages are worth. Turns the list around, edges'
// passes and nodes' each in their order.
NRI_HOST_DEVICE inline void put_nodes_first(Pass* passes, int count) {
  const auto reverse = [passes](int begin, int end) {
    for (--end; begin < end; ++begin, --end) {
      const Pass pass = passes[begin];
      passes[begin] = passes[end];
      passes[end] = pass;
    }
  };
  int edges = 0;
  while (edges < count && passes[edges].of_nodes == 0) ++edges;
  reverse(0, edges);
  reverse(edges, count);
  reverse(0, count);
}

// Goes through the weights of a tile's passes in the order in which they are used, chunk by chunk, step after step.
struct GradientCursor {
  int steps;  // left, this one included; 0 at the end
  int pass, product;
  int left;      // chunks of the product, this one included
  int outputs;   // of the product
  int64_t word;  // where the chunk begins in the packed weights

  NRI_HOST_DEVICE void begin(const GradientLibrary& library, const Pass* passes, int count, int step_count) {
    steps = count == 0 ? 0 : step_count;
    pass = product = left = outputs = 0;
    word = 0;
    if (steps > 0) enter(library, passes);
  }
  NRI_HOST_DEVICE void next(const GradientLibrary& library, const Pass* passes, int count) {
    word += static_cast<int64_t>(outputs) * kChunkWords;
    if (--left > 0) return;
    if (++product == library.module_of(passes[pass].of_nodes != 0).products) {
      product = 0;
      if (++pass == count) {
        pass = 0;
        --steps;
      }
    }
    enter(library, passes);
  }

 private:
  NRI_HOST_DEVICE void enter(const GradientLibrary& library, const Pass* passes) {
    const GradientModule& module = library.module_of(passes[pass].of_nodes != 0);
    left = module.product[product].chunks;
    outputs = module.product[product].outputs;
    if (product == 0) word = module.word_of(passes[pass].module);
  }
};

}  // namespace nri::cuda::fused
