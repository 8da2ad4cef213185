// A tile of the fused kernels: whole roll-outs of a few systems that one block runs from beginning to end, with states,
// activations and receivers' sums in shared memory. Which roll-outs a tile holds, in which rows their edges and nodes
// lie, which rows go through which module together (a pass), and where everything is in shared memory. Plain functions:
// python_tests/native tests them.
#pragma once

#include <cmath>

#include "cuda/fused_layers.h"

namespace nri::cuda::fused {

constexpr int kThreads = 256;
constexpr int kPassRows = 128;      // most rows of a pass
constexpr int kMostNodes = 128;     // of a tile
constexpr int kMostEdges = 1024;    // of a tile
constexpr int kMostRollouts = 128;  // of a tile
constexpr uint16_t kNoRow = 0xFFFF;

// How many chunks of weights have room at a time: narrow ones are worked off sooner than memory answers.
NRI_HOST_DEVICE constexpr int ring_stages(int widest) { return widest > 128 ? 4 : 8; }

// Blocks side by side on a processor, as far as registers go: only a narrow layer's sums take fewer than half of them.
NRI_HOST_DEVICE constexpr int blocks_of(int widest) { return widest > 64 ? 1 : 2; }

// What a tile may hold.
struct TileShape {
  int rollouts;
  int nodes;
  int edges;
  int rows;              // of a pass, a multiple of 16
  int node_rows = rows;  // of a pass of nodes
};

// Rows first, .., first + rows - 1 of the tile's edges or nodes, sorted by module, that go through one module together.
struct Pass {
  uint16_t module;
  uint16_t rows;
  uint16_t first;
  uint16_t of_nodes;
};

// Roll-outs are numbered pair by pair (a pair is a segment and a structure), so that neighbours have one length.
struct Rollout {
  int64_t system;  // in the range
  int64_t structure;
  int64_t segment;
};

NRI_HOST_DEVICE inline Rollout rollout_of(int64_t index, int64_t systems, int64_t structures) {
  const int64_t pair = index / systems;
  return {index % systems, pair % structures, pair / structures};
}

// Into how many passes a module's rows are cut, and the n-th of them: equal ones, in 16s.
NRI_HOST_DEVICE inline int count_passes(int rows, int most) { return (rows + most - 1) / most; }

NRI_HOST_DEVICE inline Pass nth_pass(int n, int module, bool of_nodes, int first, int rows, int most) {
  const int passes = count_passes(rows, most);
  const int each = round_up((rows + passes - 1) / passes, 16);
  const int left = rows - n * each;
  return {static_cast<uint16_t>(module), static_cast<uint16_t>(left < each ? left : each),
          static_cast<uint16_t>(first + n * each), static_cast<uint16_t>(of_nodes)};
}

NRI_HOST_DEVICE inline int most_passes(const FusedLibrary& library, const TileShape& shape) {
  return library.edge.modules + shape.edges / shape.rows + library.node.modules + shape.nodes / shape.node_rows;
}

// Words from one row of activations to the next: 8 or 24 more than a multiple of 32, so that the 4 rows and 4 places
// that half a warp reads 8 bytes each of lie in different banks.
NRI_HOST_DEVICE inline int activation_stride(int words) {
  const int stride = round_up(words, 8);
  return stride % 16 == 8 ? stride : stride + 8;
}

// Words of an activation row: of the longest input, and of the messages, which are outputs of the last edge layer.
inline int activation_words(const FusedLibrary& library) {
  const int outputs = library.widest / columns_of_word(library.precision);
  return library.words > outputs ? library.words : outputs;
}

// Byte offsets in a block's shared memory.
struct SharedLayout {
  int stride;       // words from one activation row to the next
  int activations;  // uint32_t [rows, stride]
  int ring;         // uint32_t [stages, widest * kChunkWords]
  int errors;       // double [nodes]
  int place;        // int64_t [rollouts] its first recorded state, counted in states
  int first_node;   // int64_t [rollouts] of the system, in the mega-graph
  int first_edge;   // int64_t [rollouts]
  int sums;         // float [nodes, message]
  int states;       // float [nodes, features]
  int scale;        // float [rollouts] of a step
  int length;       // int32_t [rollouts] steps
  int passes;       // Pass [most_passes]
  int counts;       // int32_t [2] passes, and steps of the longest roll-out
  int node_begin;   // uint16_t [rollouts + 1] first tile node
  int edge_begin;   // uint16_t [rollouts + 1] first tile edge
  int in_begin;     // uint16_t [nodes + 1] first incoming tile edge
  int edge_row;     // uint16_t [edges] row of a tile edge, or kNoRow
  int sender;       // uint8_t [edges] by row: tile node
  int receiver;     // uint8_t [edges] by row: tile node
  int node;         // uint8_t [nodes] by row: tile node
  int rollout;      // uint8_t [nodes] of a tile node
  int bytes;
};

// activation_bytes: of the rows of a pass
inline SharedLayout shared_layout(const FusedLibrary& library, const TileShape& shape, int64_t activation_bytes) {
  SharedLayout layout{};
  int end = 0;
  const auto take = [&end](int64_t bytes) {
    const int begin = end;
    end += static_cast<int>((bytes + 15) / 16 * 16);
    return begin;
  };
  layout.stride = activation_stride(activation_words(library));
  layout.activations = take(activation_bytes);
  layout.ring = take(int64_t{4} * ring_stages(library.widest) * library.widest * kChunkWords);
  layout.errors = take(8 * shape.nodes);
  layout.place = take(8 * shape.rollouts);
  layout.first_node = take(8 * shape.rollouts);
  layout.first_edge = take(8 * shape.rollouts);
  layout.sums = take(int64_t{4} * shape.nodes * library.message);
  layout.states = take(4 * shape.nodes * library.features);
  layout.scale = take(4 * shape.rollouts);
  layout.length = take(4 * shape.rollouts);
  layout.passes = take(static_cast<int64_t>(sizeof(Pass)) * most_passes(library, shape));
  layout.counts = take(8);
  layout.node_begin = take(2 * (shape.rollouts + 1));
  layout.edge_begin = take(2 * (shape.rollouts + 1));
  layout.in_begin = take(2 * (shape.nodes + 1));
  layout.edge_row = take(2 * shape.edges);
  layout.sender = take(shape.edges);
  layout.receiver = take(shape.edges);
  layout.node = take(shape.nodes);
  layout.rollout = take(shape.nodes);
  layout.bytes = end;
  return layout;
}

inline SharedLayout shared_layout(const FusedLibrary& library, const TileShape& shape) {
  return shared_layout(library, shape, int64_t{4} * shape.rows * activation_stride(activation_words(library)));
}

// While a tile is set up, the room of the activations holds what its rows are sorted by.
struct SortingLayout {
  int counts;  // uint16_t [rollouts, modules] rows, edge modules first, then the same of earlier roll-outs
  int totals;  // uint16_t [modules] rows, then the module's first row
  int edge;    // uint8_t [edges] module of a tile edge, or kNoModule
  int node;    // uint8_t [nodes]
  int bytes;
};

constexpr uint8_t kNoModule = 0xFF;

inline SortingLayout sorting_layout(const FusedLibrary& library, const TileShape& shape) {
  const int modules = library.edge.modules + library.node.modules;
  SortingLayout layout{};
  layout.totals = 2 * shape.rollouts * modules;
  layout.edge = layout.totals + 2 * modules;
  layout.node = layout.edge + shape.edges;
  layout.bytes = layout.node + shape.nodes;
  return layout;
}

// The largest system of a run, and how many roll-outs there are.
struct Systems {
  int64_t nodes;
  int64_t edges;
  int64_t rollouts;
};

// Words of weights that a step of a full tile reads, taking it that types fall evenly and scatter as draws do.
inline double words_of_step(const FusedLibrary& library, const TileShape& shape) {
  double words = 0;
  const auto add = [&](const FusedModule& module, double rows) {
    if (module.modules == 0) return;
    const double each = rows / module.modules;
    const double most = std::fmin(rows, module.modules == 1 ? each : each + std::sqrt(each));
    words += module.modules * std::ceil(most / shape.rows) * static_cast<double>(module.words);
  };
  add(library.edge, shape.edges);
  add(library.node, shape.nodes);
  return words;
}

// The tile that reads the fewest weights a roll-out within so many bytes; rollouts = 0 if none fits.
inline TileShape best_tile(const FusedLibrary& library, const Systems& systems, int64_t most_rollouts, int64_t bytes) {
  TileShape best{};
  double fewest = 0;
  for (int rows = kPassRows; rows >= 16; rows -= 16) {
    for (int64_t n = 1; n <= most_rollouts && n * systems.nodes <= kMostNodes && n * systems.edges <= kMostEdges; ++n) {
      const TileShape shape{static_cast<int>(n), static_cast<int>(n * systems.nodes),
                            static_cast<int>(n * systems.edges), rows};
      const SharedLayout layout = shared_layout(library, shape);
      if (layout.bytes > bytes) break;
      if (sorting_layout(library, shape).bytes > layout.ring) continue;
      const double words = words_of_step(library, shape) / static_cast<double>(n);
      if (best.rollouts == 0 || words < fewest) {
        best = shape;
        fewest = words;
      }
    }
  }
  return best;
}

// How a run of systems is cut: enough tiles for every processor, and two on a processor where registers allow it and it
// costs little. The cut changes no result. shared_bytes: what a block may have, 1 KiB less than a processor has.
inline TileShape plan_tiles(const FusedLibrary& library, const Systems& systems, int64_t processors,
                            int64_t shared_bytes) {
  const int64_t share = (systems.rollouts + processors - 1) / processors;
  const int64_t most = share < kMostRollouts ? share : kMostRollouts;
  const TileShape alone = best_tile(library, systems, most, shared_bytes);
  if (blocks_of(library.widest) == 1 || alone.rollouts == 0) return alone;
  const TileShape shared = best_tile(library, systems, most, (shared_bytes + 1024) / 2 - 1024);
  if (shared.rollouts == 0) return alone;
  const double more = words_of_step(library, shared) * alone.rollouts;
  return more <= 1.5 * words_of_step(library, alone) * shared.rollouts ? shared : alone;
}

// Whether a system goes through the fused kernels: its own size alone decides, never what else is in the batch.
inline bool fits(const FusedLibrary& library, int64_t nodes, int64_t edges, int64_t shared_bytes) {
  return best_tile(library, {nodes, edges, 1}, 1, shared_bytes).rollouts == 1;
}

// Goes through the weights of a tile's passes in the order in which they are used, chunk by chunk, step after step.
struct ChunkCursor {
  int steps;  // left, this one included; 0 at the end
  int pass, layer;
  int left;      // chunks of the layer, this one included
  int outputs;   // of the layer
  int64_t word;  // where the chunk begins in the packed weights

  NRI_HOST_DEVICE void begin(const FusedLibrary& library, const Pass* passes, int count, int step_count) {
    steps = count == 0 ? 0 : step_count;
    pass = layer = left = outputs = 0;
    word = 0;
    if (steps > 0) enter(library, passes);
  }
  NRI_HOST_DEVICE void next(const FusedLibrary& library, const Pass* passes, int count) {
    word += static_cast<int64_t>(outputs) * kChunkWords;
    if (--left > 0) return;
    if (++layer == module_of(library, passes[pass]).layers) {
      layer = 0;
      if (++pass == count) {
        pass = 0;
        --steps;
      }
    }
    enter(library, passes);
  }
  NRI_HOST_DEVICE static const FusedModule& module_of(const FusedLibrary& library, const Pass& pass) {
    return pass.of_nodes ? library.node : library.edge;
  }

 private:
  NRI_HOST_DEVICE void enter(const FusedLibrary& library, const Pass* passes) {
    const FusedModule& module = module_of(library, passes[pass]);
    left = module.layer[layer].chunks;
    outputs = module.layer[layer].outputs;
    if (layer == 0) word = module.word_of(passes[pass].module);
  }
};

}  // namespace nri::cuda::fused
