// A tile of the fused gradient: what a block has in shared memory on its way back, how large its tiles are, and how
// many lanes add up the weights' gradients. Plain functions: python_tests/native tests them.
//
// Tile and lanes say in which order a parameter's gradient is added up, so they follow from the library and the batch
// alone: never from the GPU, nor from what memory is free. A GPU with less shared memory than is planned for takes the
// unfused kernels.
#pragma once

#include "cuda/fused_gradient_layers.h"

namespace nri::cuda::fused {

// Of a block: what every GPU has from compute capability 8.0 on, so that two fit on a processor of Hopper, or all that
// Hopper has.
NRI_HOST_DEVICE constexpr int64_t gradient_shared_bytes(int widest) { return widest > 64 ? 232448 : 101376; }

#if defined(NRI_CUDA_EMULATED)
constexpr int64_t kLanes = 3;  // so that small tests have several tiles a lane
#else
constexpr int64_t kLanes = 132;  // processors of an H100 or H200
#endif
constexpr int64_t kLaneBytes = int64_t{256} << 20;  // of all lanes together

// Tile t of a run adds to lane t % lanes, one after another.
inline int64_t lanes_of(const GradientLibrary& library) {
  const int64_t fitting = kLaneBytes / (4 * (library.all_sums > 0 ? library.all_sums : 1));
  const int64_t wanted = kLanes * blocks_of(library.widest);
  return fitting < 1 ? 1 : fitting < wanted ? fitting : wanted;
}

// Byte offsets in a block's shared memory.
struct GradientLayout {
  SharedLayout tile;  // its sums are the cotangents of the receivers' sums; one stride for all activations it has not
  int factor;         // double [rollouts] cotangent of a prediction's error
  int cotangents;     // float [nodes, features] of the states
  int inputs;         // float [edges, 2 features] by row: cotangents of the edge modules' inputs
  int out_begin;      // uint16_t [nodes + 1] first outgoing edge
  int out_row;        // uint16_t [edges] row of a sender's edge, in the graph's order
  int bytes;
};

// library: its widest is that of the gradient
inline GradientLayout gradient_layout(const FusedLibrary& library, const GradientLibrary& gradient,
                                      const TileShape& shape) {
  const int64_t edge_words = int64_t{shape.rows} * gradient.edge.row_words;
  const int64_t node_words = int64_t{shape.node_rows} * gradient.node.row_words;
  GradientLayout layout{};
  layout.tile = shared_layout(library, shape, 4 * (edge_words > node_words ? edge_words : node_words));
  int end = layout.tile.bytes;
  const auto take = [&end](int64_t bytes) {
    const int begin = end;
    end += static_cast<int>((bytes + 15) / 16 * 16);
    return begin;
  };
  layout.factor = take(8 * shape.rollouts);
  layout.cotangents = take(4 * shape.nodes * library.features);
  layout.inputs = take(int64_t{8} * shape.edges * library.features);
  layout.out_begin = take(2 * (shape.nodes + 1));
  layout.out_row = take(2 * shape.edges);
  layout.bytes = end;
  return layout;
}

// Words between shared memory and L2 in a step of a full tile: a pass reads its weights, and reads and writes the sums
// of their gradients. Types fall evenly and scatter as draws do.
inline double gradient_words_of_step(const FusedLibrary& library, const GradientLibrary& gradient,
                                     const TileShape& shape) {
  double words = 0;
  const auto add = [&](int modules, const GradientModule& module, double rows, int most) {
    if (modules == 0) return;
    const double each = rows / modules;
    const double largest = std::fmin(rows, modules == 1 ? each : each + std::sqrt(each));
    words += modules * std::ceil(largest / most) * static_cast<double>(module.words + 2 * module.lane);
  };
  add(library.edge.modules, gradient.edge, shape.edges, shape.rows);
  add(library.node.modules, gradient.node, shape.nodes, shape.node_rows);
  return words;
}

// The tile that moves the fewest words a roll-out; rollouts = 0 if none fits.
inline TileShape gradient_tile(const FusedLibrary& library, const GradientLibrary& gradient, int64_t nodes,
                               int64_t edges, int64_t most_rollouts) {
  TileShape best{};
  double fewest = 0;
  const int64_t most = most_rollouts < kMostRollouts ? most_rollouts : kMostRollouts;
  const int most_rows = gradient_pass_rows(gradient.widest);
  for (int rows = most_rows; rows >= 16; rows -= 16) {
    const int fitting = rows * gradient.edge.row_words / gradient.node.row_words / 16 * 16;
    const int node_rows = fitting < 16 ? 16 : fitting > most_rows ? most_rows : fitting;
    for (int64_t n = 1; n <= most && n * nodes <= kMostNodes && n * edges <= kMostEdges; ++n) {
      const TileShape shape{static_cast<int>(n), static_cast<int>(n * nodes), static_cast<int>(n * edges), rows,
                            node_rows};
      const GradientLayout layout = gradient_layout(library, gradient, shape);
      if (layout.bytes > gradient_shared_bytes(gradient.widest)) break;
      if (sorting_layout(library, shape).bytes > layout.tile.ring) continue;
      const double words = gradient_words_of_step(library, gradient, shape) / static_cast<double>(n);
      if (best.rollouts == 0 || words < fewest) {
        best = shape;
        fewest = words;
      }
    }
  }
  return best;
}

// How a run of systems is cut: a tile for every lane at least, as far as there are roll-outs.
inline TileShape plan_gradient_tiles(const FusedLibrary& library, const GradientLibrary& gradient,
                                     const Systems& systems) {
  const int64_t lanes = lanes_of(gradient);
  return gradient_tile(library, gradient, systems.nodes, systems.edges, (systems.rollouts + lanes - 1) / lanes);
}

}  // namespace nri::cuda::fused
