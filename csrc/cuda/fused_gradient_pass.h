// A pass through a module that keeps every layer's input, walks back from the cotangents of its output, and adds the
// weights' gradients to a lane: what the fused gradients of roll-outs and of the heat bath have in common.
#pragma once

#include "cuda/fused_gradient_layers.h"
#include "cuda/fused_gradient_product.h"
#include "cuda/fused_rows.h"

namespace nri::cuda::fused {

// A layer's input, or the last one's output, in the rows of a pass: what products and gather() take for a tile.
struct Slot {
  struct Stride {
    int stride;
  };
  int thread;
  uint32_t* words;
  Stride layout;

  // activations: of the pass, with room for so many rows
  __device__ Slot(int thread, uint32_t* activations, int rows, const GradientModule& module, int l)
      : thread(thread), words(activations + rows * module.before[l]), layout{module.stride[l]} {}

  __device__ uint32_t* activations() const { return words; }
  __device__ uint32_t* row(int row) const { return words + row * layout.stride; }
  __device__ uint2* pair(int row, int column) const {
    return reinterpret_cast<uint2*>(words + row * layout.stride + column);
  }
};

template <int kWidest>
using SlotProduct = LayerProduct<Precision::fp32, kWidest, Slot, gradient_pass_rows(kWidest)>;

__device__ inline float or_zero(bool wanted, float value) { return wanted ? value : 0.0f; }

// ReLU, and the next layer's input.
template <int kWidest, typename Ring>
__device__ void run_layer(const Slot& input, const Slot& output, const Pass& pass, const FusedLayer& layer,
                          const float* bias, Ring& ring) {
  SlotProduct<kWidest> product(input, pass, layer);
  product.run(bias, ring);
  store<Precision::fp32>(output, product, false);
}

// Where a layer's sums are in a lane.
struct LaneLayer {
  float* weight;  // [outputs, stride]
  float* bias;    // [outputs], or null
  int stride;
  int columns;  // inputs that take part, in 8s
};

__device__ inline LaneLayer lane_layer(float* lane, const GradientModule& back, int module, const FusedLayer& layer,
                                       int l) {
  float* const sums = lane + back.lane_of(module);
  return {sums + back.lane_weight[l], sums + back.lane_bias[l], lane_columns(layer), lane_columns(layer)};
}

// Adds to the tile's lane what a layer's weights get from a pass, once the cotangents of its output are there.
template <int kWidest>
__device__ void add_weight_gradient(const Slot& cotangents, const Slot& input, const Pass& pass,
                                    const FusedLayer& layer, const LaneLayer& sums) {
  __syncthreads();
  WeightGradient<kWidest>(cotangents.thread, layer, pass.rows, cotangents.words, cotangents.layout.stride, input.words,
                          input.layout.stride)
      .add(sums.weight, sums.stride, sums.bias, sums.columns);
}

// A layer's input, which is a ReLU's output, gives way to the cotangent of what went into the ReLU.
template <int kWidest, typename Ring>
__device__ void run_layer_back(const Slot& cotangents, const Slot& input, const Pass& pass,
                               const FusedLayer& transposed, Ring& ring) {
  SlotProduct<kWidest> product(cotangents, pass, transposed);
  product.run(ring);
  product.for_results([&](int row, int column, float first, float second) {
    uint2* const place = input.pair(row, column);
    *place = make_uint2(bits_of(or_zero(float_of(place->x) > 0.0f, first)),
                        bits_of(or_zero(float_of(place->y) > 0.0f, second)));
  });
}

}  // namespace nri::cuda::fused
