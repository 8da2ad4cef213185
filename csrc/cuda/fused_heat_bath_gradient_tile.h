// A tile of the fused heat bath's gradient: what a block multiplies by on its way there and back, in which order, and
// what it has in shared memory. A round is that of the scores (fused_heat_bath_tile.h), then the same rows and messages
// backwards. Plain functions: python_tests/native tests them.
//
// Stages of a round: the messages of each edge module and their projections; all rows, which run forwards and back in
// the same pass; the messages of each edge module once more, forwards, so that their activations are there, and back.
// Tiles and lanes follow from library and batch alone, as for roll-outs (fused_gradient_tile.h).
#pragma once

#include "cuda/fused_gradient_tile.h"
#include "cuda/fused_heat_bath_tile.h"

namespace nri::cuda::fused {

struct HeatBathGradientLibrary : GradientLibrary {
  int edge_modules, edge_layers, node_layers;

  NRI_HOST_DEVICE int projection() const { return 0; }  // among the node module's products
  NRI_HOST_DEVICE int projection_back() const { return node.products - 1; }
  NRI_HOST_DEVICE int cotangent_slot() const { return edge_layers + 1; }  // of the projections, behind the messages
};

// library: laid out for fp32, its node modules of two layers at least
inline HeatBathGradientLibrary heat_bath_gradient_library(const FusedLibrary& library) {
  const FusedModule &messages = library.edge, &rows = library.node;
  const FusedLayer projection = projection_layer(library);
  GradientModule edge{}, node{};
  edge.forwards = messages.layers;
  for (int l = 0; l < messages.layers; ++l) append_product(&edge, messages.layer[l], l);
  for (int l = messages.layers - 1; l > 0; --l) {
    append_product(&edge, transposed(messages.layer[l], messages.layer[l].in), l);
  }
  for (int l = 0; l <= messages.layers; ++l) {
    const int words = words_before(messages, l);
    append_slot(&edge, l, l == messages.layers && projection.words() > words ? projection.words() : words);
  }
  append_slot(&edge, messages.layers + 1, projection.outputs);
  place_sums(&edge, messages);
  node.forwards = rows.layers;
  append_product(&node, projection, 0);
  for (int l = 1; l < rows.layers; ++l) append_product(&node, rows.layer[l], l);
  for (int l = rows.layers - 1; l > 0; --l) append_product(&node, transposed(rows.layer[l], rows.layer[l].in), l);
  append_product(&node, transposed(projection, library.message), 0);
  for (int l = 1; l <= rows.layers; ++l) append_slot(&node, l, words_before(rows, l));
  place_sums(&node, rows);
  return {gradient_library(library, edge, node), messages.modules, messages.layers, rows.layers};
}

// Goes through the weights of a tile's rounds in the order in which they are used, chunk by chunk.
struct HeatBathGradientCursor {
  int steps;  // rounds left, this one included; 0 at the end
  int stage, passes, place;
  int left;      // chunks of the product, this one included
  int outputs;   // of the product
  int64_t word;  // where the chunk begins in the packed weights

  NRI_HOST_DEVICE void begin(const HeatBathGradientLibrary& library, const HeatBathSchedule* schedule, int,
                             int rounds) {
    steps = rounds;
    stage = -1;
    passes = place = left = outputs = 0;
    word = 0;
    if (steps > 0) enter_stage(library, *schedule);
  }

  NRI_HOST_DEVICE void next(const HeatBathGradientLibrary& library, const HeatBathSchedule* schedule, int) {
    word += static_cast<int64_t>(outputs) * kChunkWords;
    if (--left > 0) return;
    if (++place == products_of_stage(library)) {
      place = 0;
      if (--passes == 0) {
        enter_stage(library, *schedule);
        return;
      }
    }
    enter_product(library, *schedule);
  }

 private:
  NRI_HOST_DEVICE bool is_rows(const HeatBathGradientLibrary& library) const { return stage == library.edge_modules; }
  NRI_HOST_DEVICE bool is_back(const HeatBathGradientLibrary& library) const { return stage > library.edge_modules; }
  NRI_HOST_DEVICE int edge_module(const HeatBathGradientLibrary& library) const {
    return is_back(library) ? stage - library.edge_modules - 1 : stage;
  }

  NRI_HOST_DEVICE int products_of_stage(const HeatBathGradientLibrary& library) const {
    if (is_rows(library)) return 2 * (library.node_layers - 1);
    return is_back(library) ? 2 * library.edge_layers : library.edge_layers + 1;
  }

  // The next stage with rows to run, if there is one.
  NRI_HOST_DEVICE void enter_stage(const HeatBathGradientLibrary& library, const HeatBathSchedule& schedule) {
    do {
      if (++stage > 2 * library.edge_modules) {
        stage = 0;
        if (--steps == 0) return;
      }
      const int transitions = schedule.transitions_of(schedule.rounds() - steps);
      const int rows = is_rows(library) ? schedule.rows : schedule.messages(edge_module(library));
      passes = count_passes(transitions * rows, schedule.pass_rows);
    } while (passes == 0);
    place = 0;
    enter_product(library, schedule);
  }

  NRI_HOST_DEVICE bool is_projection(const HeatBathGradientLibrary& library) const {
    return !is_rows(library) && place == library.edge_layers;
  }

  // The product in work, among those of its module.
  NRI_HOST_DEVICE int product(const HeatBathGradientLibrary& library) const {
    if (is_rows(library)) return 1 + place;
    if (is_projection(library)) return is_back(library) ? library.projection_back() : library.projection();
    return place < library.edge_layers ? place : place - 1;
  }

  NRI_HOST_DEVICE void enter_product(const HeatBathGradientLibrary& library, const HeatBathSchedule& schedule) {
    const bool of_nodes = is_rows(library) || is_projection(library);
    const GradientModule& module = library.module_of(of_nodes);
    const FusedLayer& next = module.product[product(library)];
    left = next.chunks;
    outputs = next.outputs;
    word = module.word_of(of_nodes ? schedule.module : edge_module(library)) + next.first;
  }
};

// Byte offsets in a block's shared memory.
struct HeatBathGradientLayout {
  HeatBathLayout tile;  // its stride is that of the input of the node module's second layer
  int cotangents;       // float [room, width] of projections and bases
  int compared;         // int32_t [receivers] transitions
  int bytes;
};

// library: its widest is that of the gradient
inline HeatBathGradientLayout heat_bath_gradient_layout(const FusedLibrary& library,
                                                        const HeatBathGradientLibrary& gradient,
                                                        const HeatBathShape& shape) {
  const int words = std::max(gradient.edge.row_words, gradient.node.row_words);
  HeatBathGradientLayout layout{};
  layout.tile = heat_bath_layout(library, shape, gradient.node.stride[1], int64_t{4} * shape.rows * words);
  layout.cotangents = layout.tile.bytes;
  layout.compared = layout.cotangents + 4 * shape.room * layout.tile.width;
  layout.bytes = layout.compared + round_up(4 * shape.receivers, 16);
  return layout;
}

// What passes move: weights in, and sums of their gradients in and out.
inline HeatBathCosts gradient_costs(const FusedLibrary& library, const HeatBathGradientLibrary& gradient) {
  const auto words_of = [](const GradientModule& module, int first, int end) {
    int64_t words = 0;
    for (int p = first; p < end; ++p) words += module.product[p].chunks * module.product[p].chunk_words();
    return words;
  };
  const GradientModule &edge = gradient.edge, &node = gradient.node;
  const int64_t forwards = words_of(edge, 0, edge.forwards), projection = words_of(node, 0, 1);
  const int64_t first_sums = node.lane_weight[1], other_sums = node.lane - node.lane_weight[1];
  const int64_t messages =
      2 * forwards + words_of(edge, edge.forwards, edge.products) + 2 * projection + 2 * (edge.lane + first_sums);
  const int64_t rows = words_of(node, 1, node.products - 1) + 2 * other_sums;
  return {library,
          static_cast<double>(messages),
          static_cast<double>(rows),
          gradient_pass_rows(gradient.widest),
          2,
          [library, gradient](const HeatBathShape& shape) {
            return static_cast<int64_t>(heat_bath_gradient_layout(library, gradient, shape).bytes);
          }};
}

}  // namespace nri::cuda::fused
