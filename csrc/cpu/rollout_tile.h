// A tile: a few roll-outs side by side, small enough for their activations to stay in cache while they run.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/mlp.h"
#include "cpu/packed_cache.h"
#include "cpu/rollout_list.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// Which rows of a tile hold which edges and nodes. Rows are bucketed by type, so that each module runs over one block;
// results return to the graph's order through edge_row and node_row. Who takes no part in a roll-out is not in its
// tile.
template <typename T>
struct Wiring {
  int64_t nodes = 0, edges = 0;
  int64_t* first_node;  // [rollouts + 1]
  int64_t* entity;      // [nodes] number of the tile node within its system
  T* step_scale;        // [nodes] that of its system
  int64_t* in_begin;    // [nodes + 1] tile edges, in CSR order
  int64_t* sender;      // [edges] tile node that the tile edge comes from
  int64_t* edge_row;    // [edges] row of the tile edge
  int64_t* node_row;    // [nodes] row of the tile node
  int64_t* edge_group;  // [K + 1] rows edge_group[k] .. edge_group[k + 1] - 1 run edge module k
  int64_t* node_group;  // [M + 1]

  // edge_types: [structures, E]; node_types: [V] or null; scale_of_system: [B] or null
  Wiring(Arena& arena, const GraphView& graph, int64_t edge_type_count, int64_t node_type_count,
         const Rollout* rollouts, int64_t count, const uint8_t* edge_types, const uint8_t* node_types,
         const T* scale_of_system) {
    first_node = arena.take<int64_t>(count + 1);
    int64_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = rollouts[i].system;
      first_node[i] = nodes;
      nodes += rollouts[i].nodes;
      edges += rollouts[i].edges;
      most = std::max(most, graph.node_offset[b + 1] - graph.node_offset[b]);
    }
    first_node[count] = nodes;
    entity = arena.take<int64_t>(nodes);
    step_scale = arena.take<T>(nodes);
    in_begin = arena.take<int64_t>(nodes + 1);
    sender = arena.take<int64_t>(edges);
    edge_row = arena.take<int64_t>(edges);
    node_row = arena.take<int64_t>(nodes);
    edge_group = arena.take<int64_t>(edge_type_count + 1);
    node_group = arena.take<int64_t>(node_type_count + 1);
    uint8_t* edge_type = arena.take<uint8_t>(edges);
    uint8_t* node_type = arena.take<uint8_t>(nodes);
    int64_t* place = arena.take<int64_t>(most);  // of a system's entities in the tile, or -1

    int64_t edge = 0, node = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = rollouts[i].system, first = graph.node_offset[b], end = graph.node_offset[b + 1];
      const uint8_t* types = edge_types + rollouts[i].structure * graph.edges;
      int64_t next = node;
      for (int64_t v = 0; v < end - first; ++v) place[v] = is_present(rollouts[i].present, v) ? next++ : -1;
      for (int64_t v = first; v < end; ++v) {
        if (place[v - first] < 0) continue;
        entity[node] = v - first;
        step_scale[node] = scale_of_system ? scale_of_system[b] : T(1);
        in_begin[node] = edge;
        node_type[node++] = node_types ? node_types[v] : 0;
        for (int64_t e = graph.in_offset[v]; e < graph.in_offset[v + 1]; ++e) {
          const int64_t from = place[graph.sender[e] - first];
          if (from < 0) continue;
          sender[edge] = from;
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

// next = state + step_scale * node module's output; both [nodes, D], row stride D. next may be state itself.
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
    const T scale = wiring.step_scale[v];
    for (int64_t d = 0; d < features; ++d) next[v * features + d] = state[v * features + d] + scale * change[d];
  }
}

// Copies the recorded states that roll-out i starts from to the tile's `state` [nodes, D].
template <typename T>
void copy_starts(const Wiring<T>& wiring, int64_t i, int64_t features, const T* recorded, T* state) {
  for (int64_t v = wiring.first_node[i]; v < wiring.first_node[i + 1]; ++v) {
    copy_state(recorded + wiring.entity[v] * features, features, state + v * features);
  }
}

// Calls use(tile node, recorded state) for the predictions of roll-out i's t-th step that are compared.
template <typename T, typename Use>
void for_compared(const RolloutProblem<T>& problem, const Segments& segments, const Wiring<T>& wiring,
                  const Rollout& rollout, int64_t i, int64_t t, const Use& use) {
  const int64_t features = problem.library.features, step = segments.start(rollout.segment) + t;
  const T* recorded = recorded_state(problem.graph, problem.trajectories, features, rollout.system, step);
  const uint8_t* present = present_entities(problem.graph, problem.trajectories, rollout.system, step);
  const uint8_t* observed = observed_entities(problem, rollout.system);
  for (int64_t v = wiring.first_node[i]; v < wiring.first_node[i + 1]; ++v) {
    const int64_t entity = wiring.entity[v];
    if (is_present(observed, entity) && is_present(present, entity)) use(v, recorded + entity * features);
  }
}

// Edge rows that keep a tile's activations near the core: a layer's rows fill about 128 KiB.
template <typename T>
int64_t tile_rows(const PackedLibrary<T>& library) {
  const int64_t width = std::max(library.edge.back().widest(), library.node.back().widest());
  return std::max<int64_t>(24, (int64_t{128} << 10) / (width * static_cast<int64_t>(sizeof(T))));
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
