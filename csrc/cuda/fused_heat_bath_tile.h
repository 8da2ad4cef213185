// A tile of the fused heat bath: some receivers, of a few small systems or of one large one, in some of their
// transitions. A block works the tile off in rounds of as many transitions as have room: first the messages into the
// receivers under every type, projected by the message part of the node module's first layer into shared memory, then
// the rows, which are sums of such projections, through the layers behind it. What a tile holds, where everything lies
// and in which order weights are read: plain functions, which python_tests/native tests.
//
// A row's error is worked out from its own receiver's messages alone, one product after the other, and goes into a
// table in device memory. So no bit depends on how tiles, rounds and passes are cut.
#pragma once

#include <algorithm>
#include <functional>

#include "cuda/fused_tile.h"

namespace nri::cuda::fused {

constexpr int kMostReceivers = 128;     // of a tile
constexpr int kMostIncoming = 1024;     // edges into them
constexpr int kMostTransitions = 128;   // of a tile
constexpr int64_t kMostRows = 1 << 23;  // of a tile's receivers in one transition
constexpr uint8_t kHeldEdge = 0xFF;     // in place of a type: the edge sends a mean, which is part of the base

// Which systems, which of their receivers and which transitions the tiles have.
struct HeatBathCut {
  int64_t systems;      // in all
  int64_t together;     // whole systems of a tile
  int64_t parts;        // or a system's receivers are cut into so many; one of the two is 1
  int64_t transitions;  // in all
  int64_t each;         // of a tile
  int64_t node_types;   // a tile has receivers of one type

  NRI_HOST_DEVICE int64_t pieces() const { return (transitions + each - 1) / each; }
  NRI_HOST_DEVICE int64_t tiles() const { return (systems + together - 1) / together * parts * pieces() * node_types; }
};

struct HeatBathTile {
  int64_t first_system, end_system;  // in the range
  int64_t part;
  int64_t first_transition, end_transition;
  int node_type;
};

NRI_HOST_DEVICE inline HeatBathTile tile_of(int64_t index, const HeatBathCut& cut) {
  HeatBathTile tile{};
  tile.node_type = static_cast<int>(index % cut.node_types);
  index /= cut.node_types;
  tile.first_transition = index % cut.pieces() * cut.each;
  tile.end_transition = tile.first_transition + cut.each;
  if (tile.end_transition > cut.transitions) tile.end_transition = cut.transitions;
  index /= cut.pieces();
  tile.part = index % cut.parts;
  tile.first_system = index / cut.parts * cut.together;
  tile.end_system = tile.first_system + cut.together;
  if (tile.end_system > cut.systems) tile.end_system = cut.systems;
  return tile;
}

// The first of `count` receivers that belongs to a part; the next part's first is its end.
NRI_HOST_DEVICE inline int64_t first_of_part(int64_t count, int64_t part, int64_t parts) {
  return count * part / parts;
}

// The node module's first layer as messages go through it: its first columns, and no bias, which is the receiver's.
inline FusedLayer projection_layer(const FusedLibrary& library) {
  FusedLayer layer = library.node.layer[0];
  const int columns = columns_of_word(library.precision);
  layer.chunks = (library.message + columns * kChunkWords - 1) / (columns * kChunkWords);
  layer.in = library.message;
  layer.exact = 0;
  return layer;
}

// The n-th of the passes into which so many rows are cut: equal ones, in 16s.
struct RowRange {
  int first, rows;
};

NRI_HOST_DEVICE inline RowRange nth_range(int n, int rows, int most) {
  const int passes = count_passes(rows, most);
  const int each = round_up((rows + passes - 1) / passes, 16);
  return {n * each, rows - n * each < each ? rows - n * each : each};
}

// What a block works off.
struct HeatBathSchedule {
  int transitions;              // in which some of the tile's receivers are compared
  int each;                     // of a round
  int rows;                     // of a transition
  int pass_rows;                // most rows of a pass
  int module;                   // of the receivers
  int begin[kMostModules + 1];  // the first message of each edge module, of a transition, and their number

  NRI_HOST_DEVICE int rounds() const { return each == 0 ? 0 : (transitions + each - 1) / each; }
  NRI_HOST_DEVICE int transitions_of(int round) const {
    return transitions - round * each < each ? transitions - round * each : each;
  }
  NRI_HOST_DEVICE int messages(int module) const { return begin[module + 1] - begin[module]; }
};

// Goes through the weights of a tile's rounds in the order in which they are used, chunk by chunk. A stage is an edge
// module with the projection behind it, or, after all of them, the rows.
struct HeatBathCursor {
  int steps;  // rounds left, this one included; 0 at the end
  int stage, passes, layer;
  int left;      // chunks of the layer, this one included
  int outputs;   // of the layer
  int64_t word;  // where the chunk begins in the packed weights

  NRI_HOST_DEVICE void begin(const FusedLibrary& library, const HeatBathSchedule* schedule, int projection_chunks,
                             int rounds) {
    steps = rounds;
    stage = -1;
    passes = layer = left = outputs = 0;
    word = 0;
    if (steps > 0) enter_stage(library, *schedule, projection_chunks);
  }

  NRI_HOST_DEVICE void next(const FusedLibrary& library, const HeatBathSchedule* schedule, int projection_chunks) {
    word += static_cast<int64_t>(outputs) * kChunkWords;
    if (--left > 0) return;
    if (++layer == layers_of_stage(library)) {
      layer = 0;
      if (--passes == 0) {
        enter_stage(library, *schedule, projection_chunks);
        return;
      }
    }
    enter_layer(library, *schedule, projection_chunks);
  }

 private:
  NRI_HOST_DEVICE int layers_of_stage(const FusedLibrary& library) const {
    return stage < library.edge.modules ? library.edge.layers + 1 : library.node.layers - 1;
  }

  // The next stage with rows to run, if there is one.
  NRI_HOST_DEVICE void enter_stage(const FusedLibrary& library, const HeatBathSchedule& schedule,
                                   int projection_chunks) {
    do {
      if (++stage > library.edge.modules) {
        stage = 0;
        if (--steps == 0) return;
      }
      const int transitions = schedule.transitions_of(schedule.rounds() - steps);
      const bool messages = stage < library.edge.modules;
      const int rows = messages ? schedule.messages(stage) : library.node.layers > 1 ? schedule.rows : 0;
      passes = count_passes(transitions * rows, schedule.pass_rows);
    } while (passes == 0);
    layer = 0;
    enter_layer(library, schedule, projection_chunks);
  }

  NRI_HOST_DEVICE void enter_layer(const FusedLibrary& library, const HeatBathSchedule& schedule,
                                   int projection_chunks) {
    const bool messages = stage < library.edge.modules, projection = messages && layer == library.edge.layers;
    const bool of_edge = messages && !projection;
    const FusedModule& module = of_edge ? library.edge : library.node;
    const FusedLayer& own = module.layer[of_edge ? layer : projection ? 0 : layer + 1];
    left = projection ? projection_chunks : own.chunks;
    outputs = own.outputs;
    word = module.word_of(of_edge ? stage : schedule.module) + own.first;
  }
};

// What a tile may hold.
struct HeatBathShape {
  int receivers;
  int edges;  // into them
  int transitions;
  int rows;   // of a pass, a multiple of 16
  int terms;  // free edges of a receiver
  int room;   // projections and bases of a round
};

// Byte offsets in a block's shared memory.
struct HeatBathLayout {
  int stride;          // words from one activation row to the next
  int width;           // of a projection
  int activations;     // uint32_t [rows, stride]
  int ring;            // uint32_t [stages, widest * kChunkWords]
  int projections;     // float [room, width] messages of a round's transitions, then a base for each receiver in each
  int sender_place;    // int64_t [rows] of a pass of messages: recorded states, counted in states; -1: there is none
  int receiver_place;  // int64_t [rows]
  int first_state;     // int64_t [receivers] of the system, counted in states
  int first_start;     // int64_t [receivers] of the system, in the transitions' list
  int first_node;      // int64_t [receivers] of the system
  int first_edge;      // int64_t [receivers] of the receiver
  int first_row;       // int64_t [receivers] of the receiver, in the range
  int entities;        // int32_t [receivers] of the system
  int local;           // int32_t [receivers] number in the system
  int row_begin;       // int32_t [receivers + 1] first row, in a transition
  int scale;           // float [receivers] of a step
  int sender;          // int32_t [edges] number in the system
  int transition;      // int32_t [transitions] number in the problem
  int schedule;        // HeatBathSchedule
  int counts;          // int32_t [3] chunks of the projection, rounds, receivers
  int in_begin;        // uint16_t [receivers + 1] first incoming edge
  int free;            // uint16_t [receivers] edges whose types vary
  int message;         // uint16_t [edges, modules] of a transition, or kNoRow
  int edge;            // uint16_t [edges * modules] of a message
  int unit;            // uint16_t [rows] of a pass of rows: transition of the round * receivers + receiver
  int count;           // uint16_t [rows] terms of a row
  int leading;         // uint16_t [rows] see HeatBathRowSums
  int term;            // uint16_t [rows, terms] projections
  int receiver;        // uint8_t [edges]
  int type;            // uint8_t [edges] the current one (conditionals), kHeldEdge, or anything else
  int bytes;
};

// activation_bytes: of the rows of a pass
inline HeatBathLayout heat_bath_layout(const FusedLibrary& library, const HeatBathShape& shape, int stride,
                                       int64_t activation_bytes) {
  HeatBathLayout layout{};
  int end = 0;
  const auto take = [&end](int64_t bytes) {
    const int begin = end;
    end += static_cast<int>((bytes + 15) / 16 * 16);
    return begin;
  };
  layout.stride = stride;
  layout.width = library.node.layer[0].outputs;
  layout.activations = take(activation_bytes);
  layout.ring = take(int64_t{4} * ring_stages(library.widest) * library.widest * kChunkWords);
  layout.projections = take(int64_t{4} * shape.room * layout.width);
  layout.sender_place = take(8 * shape.rows);
  layout.receiver_place = take(8 * shape.rows);
  layout.first_state = take(8 * shape.receivers);
  layout.first_start = take(8 * shape.receivers);
  layout.first_node = take(8 * shape.receivers);
  layout.first_edge = take(8 * shape.receivers);
  layout.first_row = take(8 * shape.receivers);
  layout.entities = take(4 * shape.receivers);
  layout.local = take(4 * shape.receivers);
  layout.row_begin = take(4 * (shape.receivers + 1));
  layout.scale = take(4 * shape.receivers);
  layout.sender = take(4 * shape.edges);
  layout.transition = take(4 * shape.transitions);
  layout.schedule = take(sizeof(HeatBathSchedule));
  layout.counts = take(12);
  layout.in_begin = take(2 * (shape.receivers + 1));
  layout.free = take(2 * shape.receivers);
  layout.message = take(int64_t{2} * shape.edges * library.edge.modules);
  layout.edge = take(int64_t{2} * shape.edges * library.edge.modules);
  layout.unit = take(2 * shape.rows);
  layout.count = take(2 * shape.rows);
  layout.leading = take(2 * shape.rows);
  layout.term = take(int64_t{2} * shape.rows * shape.terms);
  layout.receiver = take(shape.edges);
  layout.type = take(shape.edges);
  layout.bytes = end;
  return layout;
}

// Where all layers' activations take turns in one array.
inline HeatBathLayout heat_bath_layout(const FusedLibrary& library, const HeatBathShape& shape) {
  const int words = activation_words(library);
  const int stride =
      activation_stride(words > kMostFeatures ? words : kMostFeatures);  // changes end up there, as floats
  return heat_bath_layout(library, shape, stride, int64_t{4} * shape.rows * stride);
}

// The largest system of a run in each respect, and how much there is to do.
struct HeatBathSizes {
  int64_t nodes, edges, rows;
  int64_t systems, transitions;
  int64_t edge_types, node_types;
  bool conditionals;

  // At most so many edges come into a receiver, and so many of them are free.
  int64_t degree() const { return std::min(edges, nodes - 1); }
  int64_t terms() const {
    if (conditionals) return 1;  // the rest is the same in all of a receiver's rows
    if (edge_types == 1) return degree();
    int64_t count = 0;
    for (int64_t assignments = edge_types; count < degree() && assignments <= rows; assignments *= edge_types) ++count;
    return count;
  }
};

struct HeatBathPlan {
  HeatBathCut cut;
  HeatBathShape shape;  // no rows: there is none
};

// What a tile takes and costs, of a kernel.
struct HeatBathCosts {
  FusedLibrary library;
  double message_words, row_words;  // between L2 and a pass of messages, or of rows
  int most_rows;                    // of a pass
  int arrays;                       // of projections

  // Bytes of a block's shared memory.
  std::function<int64_t(const HeatBathShape&)> bytes;
};

// Of the kernel that scores.
inline HeatBathCosts scoring_costs(const FusedLibrary& library) {
  const FusedModule& node = library.node;
  const int64_t projection = projection_layer(library).chunks * node.layer[0].chunk_words();
  return {library,
          static_cast<double>(library.edge.words + projection),
          node.layers == 1 ? 0.0 : static_cast<double>(node.words - node.layer[1].first),
          kPassRows,
          1,
          [library](const HeatBathShape& shape) { return heat_bath_layout(library, shape).bytes; }};
}

// Words between L2 and blocks that a system's transition costs, with tiles of so many receivers and edges, of so many
// rows in a transition, which are `share` of a system, or of systems.
inline double words_of_transition(const HeatBathCosts& costs, const HeatBathShape& shape, double rows, double share) {
  const int modules = costs.library.edge.modules, messages = shape.edges * modules;
  const int rounds = count_passes(shape.transitions, shape.room / (messages + shape.receivers));
  const int each = count_passes(shape.transitions, rounds);
  const double words = modules * count_passes(each * shape.edges, shape.rows) * costs.message_words +
                       std::ceil(each * rows / shape.rows) * costs.row_words;
  return words * rounds / (shape.transitions * share);
}

// A tile of so many receivers and edges into them, with all the room there is; without rows if it does not fit.
inline HeatBathShape shape_within(const HeatBathCosts& costs, const HeatBathSizes& sizes, int64_t receivers,
                                  int64_t edges, int64_t transitions, int rows, int64_t bytes) {
  HeatBathShape shape{static_cast<int>(receivers),     static_cast<int>(edges),
                      static_cast<int>(transitions),   rows,
                      static_cast<int>(sizes.terms()), 0};
  const int64_t bare = costs.bytes(shape), width = costs.library.node.layer[0].outputs;
  const int64_t least = edges * costs.library.edge.modules + receivers;
  const int64_t room = bytes < bare ? 0 : (bytes - bare) / (4 * costs.arrays * width);
  if (room < least) return {};
  shape.room = static_cast<int>(std::min(room, shape.transitions * least));
  return shape;
}

// The cut that reads the fewest weights within so many bytes.
//   most_together: systems of a tile   least_parts: of a system   transitions: of a tile
inline HeatBathPlan best_plan(const HeatBathCosts& costs, const HeatBathSizes& sizes, int64_t most_together,
                              int64_t least_parts, int64_t transitions, int64_t bytes) {
  HeatBathPlan best{};
  double fewest = 0;
  const auto consider = [&](int64_t together, int64_t parts) {
    const int64_t receivers = together * ((sizes.nodes + parts - 1) / parts);
    const int64_t edges = std::min(together * sizes.edges, receivers * sizes.degree());
    if (receivers > kMostReceivers || edges > kMostIncoming || together * sizes.rows > kMostRows) return;
    for (int rows = costs.most_rows; rows >= 16; rows -= 16) {
      const HeatBathShape shape = shape_within(costs, sizes, receivers, edges, transitions, rows, bytes);
      if (shape.rows == 0) continue;
      const double share = static_cast<double>(together) / static_cast<double>(parts);
      const double words = words_of_transition(costs, shape, static_cast<double>(sizes.rows) * share, share);
      if (best.shape.rows > 0 && words >= fewest) continue;
      best = {{sizes.systems, together, parts, sizes.transitions, transitions, sizes.node_types}, shape};
      fewest = words;
    }
  };
  for (int64_t n = 1; least_parts == 1 && n <= most_together && n * sizes.nodes <= kMostReceivers; ++n) consider(n, 1);
  const int64_t most = std::min<int64_t>((sizes.nodes + least_parts - 1) / least_parts, kMostReceivers);
  for (int64_t receivers = most; receivers > 0; --receivers) {
    consider(1, (sizes.nodes + receivers - 1) / receivers);
  }
  return best;
}

// How a run of systems is cut into at least so many tiles, as far as there is work for them, that take so many bytes.
inline HeatBathPlan plan_tiles(const HeatBathCosts& costs, const HeatBathSizes& sizes, int64_t wanted, int64_t bytes) {
  const int64_t pairs = sizes.systems * sizes.transitions;
  const int64_t share = std::max<int64_t>(1, pairs / wanted);  // pairs of a system and a transition, of a tile
  const int64_t together = std::max<int64_t>(1, share / sizes.transitions);
  const int64_t most = std::min({share, sizes.transitions, int64_t{kMostTransitions}});
  const int64_t pieces = (sizes.transitions + most - 1) / most, each = (sizes.transitions + pieces - 1) / pieces;
  const int64_t parts = pairs >= wanted ? 1 : std::min(std::max<int64_t>(1, sizes.nodes), wanted / pairs);
  return best_plan(costs, sizes, together, parts, each, bytes);
}

// The same for scores: enough tiles for every processor, and two blocks on a processor where registers allow it and it
// costs little. The cut changes no result. shared_bytes: what a block may have, 1 KiB less than a processor has.
inline HeatBathPlan plan_heat_bath(const FusedLibrary& library, const HeatBathSizes& sizes, int64_t processors,
                                   int64_t shared_bytes) {
  const HeatBathCosts costs = scoring_costs(library);
  const int64_t wanted = processors * blocks_of(library.widest);
  const HeatBathPlan alone = plan_tiles(costs, sizes, wanted, shared_bytes);
  if (blocks_of(library.widest) == 1 || alone.shape.rows == 0) return alone;
  const HeatBathPlan shared = plan_tiles(costs, sizes, wanted, (shared_bytes + 1024) / 2 - 1024);
  if (shared.shape.rows == 0) return alone;
  const auto words = [&](const HeatBathPlan& some) {
    const double systems = static_cast<double>(some.cut.together) / static_cast<double>(some.cut.parts);
    return words_of_transition(costs, some.shape, static_cast<double>(sizes.rows) * systems, systems);
  };
  return words(shared) <= 1.5 * words(alone) ? shared : alone;
}

// Whether a system, or one as large as the largest of several in each respect, goes through the fused kernels: whether
// a single receiver in a single transition does, which takes the least room.
inline bool fits(const HeatBathCosts& costs, const HeatBathSizes& sizes, int64_t shared_bytes) {
  if (sizes.nodes == 0 || sizes.degree() > kMostIncoming || sizes.rows > kMostRows) return false;
  return shape_within(costs, sizes, 1, sizes.degree(), 1, 16, shared_bytes).rows > 0;
}

}  // namespace nri::cuda::fused
