// A tile: a few roll-outs side by side, small enough for their activations to stay in cache while they run.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/mlp.h"
#include "cpu/packed_cache.h"
#include "ops/rollout_energy.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// One roll-out: a system under a structure, restarted at step segment * R of its recording.
struct Rollout {
  int64_t structure, system, segment;
};

// Which rows of a tile hold which edges and nodes. Rows are bucketed by type, so that each module runs over one block;
// results return to the graph's order through edge_row and node_row.
template <typename T>
struct Wiring {
  int64_t nodes = 0, edges = 0;
  int64_t* first_node;  // [rollouts + 1]
  int64_t* in_begin;    // [nodes + 1] tile edges, in CSR order
  int64_t* sender;      // [edges] tile node that the tile edge comes from
  int64_t* edge_row;    // [edges] row of the tile edge
  int64_t* node_row;    // [nodes] row of the tile node
  int64_t* edge_group;  // [K + 1] rows edge_group[k] .. edge_group[k + 1] - 1 run edge module k
  int64_t* node_group;  // [M + 1]

  // edge_types: [structures, E]; node_types: [V] or null
  Wiring(Arena& arena, const GraphView& graph, int64_t edge_type_count, int64_t node_type_count,
         const Rollout* rollouts, int64_t count, const uint8_t* edge_types, const uint8_t* node_types) {
    first_node = arena.take<int64_t>(count + 1);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = rollouts[i].system;
      first_node[i] = nodes;
      nodes += graph.node_offset[b + 1] - graph.node_offset[b];
      edges += graph.in_offset[graph.node_offset[b + 1]] - graph.in_offset[graph.node_offset[b]];
    }
    first_node[count] = nodes;
    in_begin = arena.take<int64_t>(nodes + 1);
    sender = arena.take<int64_t>(edges);
    edge_row = arena.take<int64_t>(edges);
    node_row = arena.take<int64_t>(nodes);
    edge_group = arena.take<int64_t>(edge_type_count + 1);
    node_group = arena.take<int64_t>(node_type_count + 1);
    uint8_t* edge_type = arena.take<uint8_t>(edges);
    uint8_t* node_type = arena.take<uint8_t>(nodes);

    int64_t edge = 0, node = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = rollouts[i].system;
      const int64_t shift = first_node[i] - graph.node_offset[b];
      const uint8_t* types = edge_types + rollouts[i].structure * graph.edges;
      for (int64_t v = graph.node_offset[b]; v < graph.node_offset[b + 1]; ++v) {
        in_begin[node] = edge;
        node_type[node++] = node_types ? node_types[v] : 0;
        for (int64_t e = graph.in_offset[v]; e < graph.in_offset[v + 1]; ++e) {
          sender[edge] = graph.sender[e] + shift;
          edge_type[edge++] = types[e];
        }
      }
    }
    in_begin[nodes] = edges;
    bucket(edge_type, edges, edge_type_count, edge_row, edge_group);
    bucket(node_type, nodes, node_type_count, node_row, node_group);
  }

 private:
  // A stable counting sort: row[i] is where item i goes, group[k] where type k begins.
  static void bucket(const uint8_t* type, int64_t count, int64_t types, int64_t* row, int64_t* group) {
    std::fill(group, group + types + 1, int64_t{0});
    for (int64_t i = 0; i < count; ++i) group[type[i] + 1] += 1;
    for (int64_t k = 0; k < types; ++k) group[k + 1] += group[k];
    for (int64_t i = 0; i < count; ++i) row[i] = group[type[i]]++;
    for (int64_t k = types; k > 0; --k) group[k] = group[k - 1];
    group[0] = 0;
  }
};

// Inputs and layer outputs of one kind of module over the rows of a tile, each row the modules' own.
template <typename T>
struct Activations {
  T* input;                // [rows, padded(in)]
  std::vector<T*> output;  // per layer; row r begins at output[l] + r * room[l]
  std::vector<int64_t> room;
  int64_t values = 0;  // numbers held

  // keep: every layer's output is wanted afterwards (for a backward pass); otherwise only the last one's is.
  Activations(Arena& arena, const Mlp<T>& module, int64_t rows, bool keep) {
    const size_t layers = module.layers.size();
    if (layers == 0) return;
    values = rows * padded<T>(module.layers[0].in);
    input = arena.take<T>(values);
    T* spare[2] = {nullptr, nullptr};
    for (size_t l = 0; l < layers; ++l) {
      const bool own = keep || l + 1 == layers;
      room.push_back(own ? padded<T>(module.layers[l].out) : module.widest());
      if (own || !spare[l % 2]) {
        values += rows * room[l];
        output.push_back(arena.take<T>(rows * room[l]));
        if (!own) spare[l % 2] = output.back();
      } else {
        output.push_back(spare[l % 2]);
      }
    }
  }

  std::vector<T*> from_row(int64_t row) const {
    std::vector<T*> list(output);
    for (size_t l = 0; l < list.size(); ++l) list[l] += row * room[l];
    return list;
  }
};

// All that one step of message passing computes on its way.
template <typename T>
struct StepActivations {
  Activations<T> edge, node;
  StepActivations(Arena& arena, const PackedLibrary<T>& library, const Wiring<T>& wiring, bool keep)
      : edge(arena, library.edge.back(), wiring.edges, keep), node(arena, library.node.back(), wiring.nodes, keep) {}
  int64_t values() const { return edge.values + node.values; }
};

// A plain loop: a state is a few numbers, for which calling memmove costs more than the copy.
template <typename T>
inline void copy_state(const T* state, int64_t features, T* copy) {
  if (features == 4) {
    for (int64_t d = 0; d < 4; ++d) copy[d] = state[d];
  } else {
    for (int64_t d = 0; d < features; ++d) copy[d] = state[d];
  }
}

// next = state + node module's output; both [nodes, D], row stride D. next may be state itself.
template <typename T>
void message_passing_step(const PackedLibrary<T>& library, const Wiring<T>& wiring, const T* state, T* next,
                          const StepActivations<T>& room) {
  const int64_t features = library.features, message = library.message;
  const int64_t message_stride = padded<T>(message);
  const bool any_edge_module = !library.edge.back().layers.empty();  // a lone silent type has none
  const int64_t pair_stride = padded<T>(2 * features);
  const int64_t node_stride = padded<T>(message + features);
  T* messages = any_edge_module ? room.edge.output.back() : nullptr;

  for (int64_t v = 0; any_edge_module && v < wiring.nodes; ++v) {
    for (int64_t e = wiring.in_begin[v]; e < wiring.in_begin[v + 1]; ++e) {
      T* pair = room.edge.input + wiring.edge_row[e] * pair_stride;
      copy_state(state + wiring.sender[e] * features, features, pair);
      copy_state(state + v * features, features, pair + features);
    }
  }
  for (size_t k = 0; k < library.edge.size(); ++k) {
    const int64_t first = wiring.edge_group[k], rows = wiring.edge_group[k + 1] - first;
    if (rows == 0 || !any_edge_module) continue;
    if (library.edge[k].layers.empty()) {
      std::fill_n(messages + first * message_stride, rows * message_stride, T(0));
    } else {
      library.edge[k].forward(room.edge.input + first * pair_stride, rows, room.edge.from_row(first).data());
    }
  }
  for (int64_t v = 0; v < wiring.nodes; ++v) {
    T* row = room.node.input + wiring.node_row[v] * node_stride;
    const int64_t begin = wiring.in_begin[v], incoming = any_edge_module ? wiring.in_begin[v + 1] - begin : 0;
    sum_listed_rows(messages, wiring.edge_row + begin, incoming, message_stride, row);
    copy_state(state + v * features, features, row + message);  // where the sum's padding was
  }
  for (size_t m = 0; m < library.node.size(); ++m) {
    const int64_t first = wiring.node_group[m], rows = wiring.node_group[m + 1] - first;
    if (rows) library.node[m].forward(room.node.input + first * node_stride, rows, room.node.from_row(first).data());
  }
  const int64_t change_stride = padded<T>(features);
  for (int64_t v = 0; v < wiring.nodes; ++v) {
    const T* change = room.node.output.back() + wiring.node_row[v] * change_stride;
    for (int64_t d = 0; d < features; ++d) next[v * features + d] = state[v * features + d] + change[d];
  }
}

// How a recording is cut into roll-outs.
struct Segments {
  int64_t count, rollout, steps;
  Segments(int64_t steps_, int64_t rollout_)
      : count((steps_ - 1 + rollout_ - 1) / rollout_), rollout(rollout_), steps(steps_) {}
  int64_t start(int64_t segment) const { return segment * rollout; }
  int64_t length(int64_t segment) const { return std::min(rollout, steps - 1 - start(segment)); }
};

template <typename T>
const T* recorded_state(const GraphView& graph, const TrajectoryView<T>& trajectories, int64_t features, int64_t system,
                        int64_t step) {
  const int64_t entities = graph.node_offset[system + 1] - graph.node_offset[system];
  return trajectories.states + (trajectories.steps * graph.node_offset[system] + step * entities) * features;
}

// Which of a system's entities are observed, the first first; null: all are.
template <typename T>
const uint8_t* observed_entities(const RolloutProblem<T>& problem, int64_t system) {
  return problem.observed ? problem.observed + problem.graph.node_offset[system] : nullptr;
}

// Transitions of a system that its energy is the mean of.
template <typename T>
double compared_transitions(const RolloutProblem<T>& problem, int64_t system) {
  const int64_t* offset = problem.graph.node_offset + system;
  return static_cast<double>((problem.trajectories.steps - 1) * count_observed(problem.observed, offset[0], offset[1]));
}

// A system's energy from the sum of its errors.
template <typename T>
T mean_error(const RolloutProblem<T>& problem, int64_t system, double sum) {
  const double transitions = compared_transitions(problem, system);
  return transitions > 0 ? static_cast<T>(sum / transitions) : T(0);
}

// Cuts a list of roll-outs into tiles of about `target` edge rows and of one length each; entry t and t + 1 bound tile
// t.
inline std::vector<int64_t> cut_into_tiles(const GraphView& graph, const Segments& segments,
                                           const std::vector<Rollout>& rollouts, int64_t target) {
  std::vector<int64_t> bounds;
  int64_t rows = 0, length = 0;
  const int64_t count = static_cast<int64_t>(rollouts.size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t b = rollouts[i].system;
    const int64_t first = graph.node_offset[b], last = graph.node_offset[b + 1];
    const int64_t more = std::max(graph.in_offset[last] - graph.in_offset[first], last - first);
    if (i == 0 || rows + more > target || segments.length(rollouts[i].segment) != length) {
      bounds.push_back(i);
      rows = 0;
      length = segments.length(rollouts[i].segment);
    }
    rows += more;
  }
  bounds.push_back(count);
  return bounds;
}

// Edge rows that keep a tile's activations near the core: a layer's rows fill about 128 KiB.
template <typename T>
int64_t tile_rows(const PackedLibrary<T>& library) {
  const int64_t width = std::max(library.edge.back().widest(), library.node.back().widest());
  return std::max<int64_t>(24, (int64_t{128} << 10) / (width * static_cast<int64_t>(sizeof(T))));
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
