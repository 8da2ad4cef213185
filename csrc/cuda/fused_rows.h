// The rows of a pass in shared memory: a module's input goes in, and a layer's output becomes the next one's input.
#pragma once

#include "cuda/fused_tile.h"
#include "cuda/fused_words.h"

namespace nri::cuda::fused {

constexpr int kWarps = kThreads / kWarpLanes;

// Fills the rows of a pass with a module's input. input_of(row of the pass, input): the number that belongs there.
template <Precision kPrecision, typename Tile, typename Input>
__device__ void gather(const Tile& block, const Pass& pass, const FusedLayer& layer, const Input& input_of) {
  constexpr int kColumns = columns_of_word(kPrecision);
  const int lane = block.thread % kWarpLanes;
  for (int row = block.thread / kWarpLanes; row < round_up(pass.rows, 16); row += kWarps) {
    for (int word = lane; word < layer.words(); word += kWarpLanes) {
      float value[2] = {0.0f, 0.0f};
      NRI_CUDA_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        const Column column = column_of(layer, word * kColumns + i);
        if (column.part == Part::nothing || row >= pass.rows) continue;
        const float x = input_of(row, column.input);
        const float high = column.part == Part::whole ? x : high_part<kPrecision>(x);
        value[i] = column.part == Part::low_by_high ? x - high : high;
      }
      block.activations()[row * block.layout.stride + word] = word_of<kPrecision>(value[0], value[1]);
    }
  }
}

// ReLU and the next layer's input. Messages are not rounded to TF32: they are added up first.
template <Precision kPrecision, typename Tile, typename Product>
__device__ void store(const Tile& block, const Product& product, bool as_message) {
  product.for_results([&](int row, int column, float first, float second) {
    first = first < 0.0f ? 0.0f : first;  // a NaN passes
    second = second < 0.0f ? 0.0f : second;
    uint32_t* const place = block.activations() + row * block.layout.stride;
    if (kPrecision == Precision::bf16) {
      place[column / 2] = to_bf16_pair(first, second);
    } else if (kPrecision == Precision::fp32 || as_message) {
      *reinterpret_cast<uint2*>(place + column) = make_uint2(bits_of(first), bits_of(second));
    } else {
      *reinterpret_cast<uint2*>(place + column) = make_uint2(to_tf32(first), to_tf32(second));
    }
  });
}

}  // namespace nri::cuda::fused
