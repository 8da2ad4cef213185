// How the fused kernels hold a module library's weights: in the order in which they are read, rounded or split as the
// precision says, and padded to what a product of matrices takes.
//
// A layer's input is words of 32 bits: a float, or two bf16 numbers. A chunk is the weights of all outputs for 8 words
// of the input, [outputs, 8 words]; a layer is its chunks one after another, a module its layers, and the library its
// modules: first all edge modules, then all node modules. So reading a module is reading on.
//
// States are positions, beside which a step's change is small. Where products are rounded (TF32, bf16), a state x goes
// in as three columns, high(x), x - high(x) and high(x) again, that meet the weights high(w), high(w) and w - high(w):
// two numbers' worth of digits for the first layers' few columns. In fp32 every product is made of three in TF32.
#pragma once

#include "common/views.h"
#include "cuda/launch.h"

namespace nri::cuda::fused {

constexpr int kChunkWords = 8;     // words of input in a chunk: one product deep
constexpr int kMostLayers = 8;     // of a module
constexpr int kWidest = 256;       // outputs of a layer
constexpr int kMostModules = 64;   // of either kind
constexpr int kMostFeatures = 16;  // of a state

NRI_HOST_DEVICE constexpr int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

NRI_HOST_DEVICE constexpr int columns_of_word(Precision precision) { return precision == Precision::bf16 ? 2 : 1; }

// What a column of a layer's input holds, and what it meets.
enum class Part : int32_t { whole, high_by_high, low_by_high, high_by_low, nothing };

struct Column {
  Part part;
  int input;  // of the layer as the library has it
};

struct FusedLayer {
  int in, out;           // as the library has it
  int exact;             // the last so many inputs are states
  int outputs;           // padded
  int chunks;            // the input's words / kChunkWords
  int64_t first;         // word of the module's packed weights where this layer begins
  int64_t weight, bias;  // in the module's parameters

  NRI_HOST_DEVICE int64_t chunk_words() const { return static_cast<int64_t>(outputs) * kChunkWords; }
  NRI_HOST_DEVICE int words() const { return chunks * kChunkWords; }
};

struct FusedModule {
  int layers;
  int modules;              // of this kind
  int64_t words;            // of one module
  int64_t first_word;       // of the first module
  int64_t first_parameter;  // of the first module
  int64_t parameters;       // of one module
  FusedLayer layer[kMostLayers];

  NRI_HOST_DEVICE int64_t word_of(int module) const { return first_word + module * words; }
  NRI_HOST_DEVICE int64_t parameter_of(int module) const { return first_parameter + module * parameters; }
};

struct FusedLibrary {
  Precision precision;
  int features, message;
  int first_type;  // types below send nothing
  FusedModule edge, node;
  int widest;         // padded outputs of the widest layer
  int words;          // of the longest input
  int64_t all_words;  // of all packed weights
};

NRI_HOST_DEVICE inline Column column_of(const FusedLayer& layer, int column) {
  const int rounded = layer.in - layer.exact;
  if (column < rounded) return {Part::whole, column};
  const int state = column - rounded;
  if (state >= 3 * layer.exact) return {Part::nothing, 0};
  const int input = rounded + state % layer.exact;
  if (state < layer.exact) return {Part::high_by_high, input};
  return {state < 2 * layer.exact ? Part::low_by_high : Part::high_by_low, input};
}

// Place of a word in a layer's packed weights.   output: 0 .. outputs - 1   word: 0 .. words() - 1
NRI_HOST_DEVICE inline int64_t packed_place(const FusedLayer& layer, int output, int word) {
  return word / kChunkWords * layer.chunk_words() + output * kChunkWords + word % kChunkWords;
}

// Columns of the input, with states three times where products are rounded; not padded.
NRI_HOST_DEVICE inline int columns_of(const FusedLayer& layer) { return layer.in + 2 * layer.exact; }

inline FusedModule lay_out(const int64_t* sizes, int64_t layers, int64_t modules, int64_t first_exact,
                           Precision precision) {
  FusedModule module{};
  module.layers = static_cast<int>(layers);
  module.modules = static_cast<int>(modules);
  for (int l = 0; l < module.layers; ++l) {
    FusedLayer& layer = module.layer[l];
    layer.in = static_cast<int>(sizes[l]);
    layer.out = static_cast<int>(sizes[l + 1]);
    layer.exact = l == 0 && precision != Precision::fp32 ? static_cast<int>(first_exact) : 0;
    layer.outputs = round_up(layer.out, 16);  // so that they pad the next layer's input
    const int words = round_up(columns_of(layer), columns_of_word(precision)) / columns_of_word(precision);
    layer.chunks = round_up(words, kChunkWords) / kChunkWords;
    layer.first = module.words;
    module.words += layer.chunks * layer.chunk_words();
    layer.weight = module.parameters;
    layer.bias = layer.weight + sizes[l] * sizes[l + 1];
    module.parameters = layer.bias + sizes[l + 1];
  }
  return module;
}

// The library's layout, or false if it is not one for the fused kernels.
inline bool lay_out(const LibraryView<float>& library, Precision precision, FusedLibrary* result) {
  const int64_t edge_modules = library.edge_types - library.first_type();
  if (library.edge_layers > kMostLayers || library.node_layers > kMostLayers || edge_modules > kMostModules ||
      library.node_types > kMostModules || library.features > kMostFeatures) {
    return false;
  }
  for (int64_t l = 1; l <= library.edge_layers; ++l) {
    if (library.edge_sizes[l] > kWidest) return false;
  }
  for (int64_t l = 1; l <= library.node_layers; ++l) {
    if (library.node_sizes[l] > kWidest) return false;
  }
  FusedLibrary fused{};
  fused.precision = precision;
  fused.features = static_cast<int>(library.features);
  fused.message = static_cast<int>(library.message());
  fused.first_type = static_cast<int>(library.first_type());
  fused.edge = lay_out(library.edge_sizes, library.edge_layers, edge_modules, 2 * library.features, precision);
  fused.node = lay_out(library.node_sizes, library.node_layers, library.node_types, library.features, precision);
  fused.node.first_word = edge_modules * fused.edge.words;
  fused.node.first_parameter = edge_modules * fused.edge.parameters;
  fused.all_words = fused.node.first_word + library.node_types * fused.node.words;
  for (const FusedModule* module : {&fused.edge, &fused.node}) {
    for (int l = 0; l < module->layers; ++l) {
      fused.widest = fused.widest < module->layer[l].outputs ? module->layer[l].outputs : fused.widest;
      fused.words = fused.words < module->layer[l].words() ? module->layer[l].words() : fused.words;
    }
  }
  *result = fused;
  return true;
}

}  // namespace nri::cuda::fused
