// What scoring and its gradient share: the library with the node modules' first layers split in two, the receivers that
// are worked on together, and the messages into them, projected and ready to be added up for any assignment.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cpu/mlp.h"
#include "cpu/packed_cache.h"
#include "ops/heat_bath.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// A node module whose first layer is applied in parts: W [a, x] + b = projection(a) + own(x), and projection(a) is the
// sum of the projections of the messages that make up a.
template <typename T>
struct SplitNodeModule {
  Layer<T> projection;  // of messages, without bias
  Layer<T> own;         // of the entity's state, with the bias
  Mlp<T> rest;          // the layers behind the first; empty if there is one layer only

  int64_t first_width() const { return own.out; }
};

template <typename T>
struct SplitLibrary {
  int64_t features, message;
  std::vector<Mlp<T>> edge;  // [K]
  std::vector<SplitNodeModule<T>> node;
  int64_t gradient_size = 0;

  explicit SplitLibrary(const LibraryView<T>& library)
      : features(library.features), message(library.message()), edge(library.edge_types) {
    const T* parameters = library.parameters;
    for (int64_t k = library.first_type(); k < library.edge_types; ++k) {
      edge[k].relu_last = true;
      parameters = pack_layers(edge[k], library.edge_sizes, 0, library.edge_layers, parameters, &gradient_size);
    }
    const int64_t in = message + features, out = library.node_sizes[1];
    for (int64_t m = 0; m < library.node_types; ++m) {
      Layer<T> projection(parameters, in, nullptr, message, out, gradient_size);
      gradient_size += projection.gradient_size();
      Layer<T> own(parameters + message, in, parameters + out * in, features, out, gradient_size);
      gradient_size += own.gradient_size();
      node.push_back({std::move(projection), std::move(own), Mlp<T>{}});
      parameters = pack_layers(node.back().rest, library.node_sizes, 1, library.node_layers,
                               parameters + out * in + out, &gradient_size);
    }
  }

  void unpad(const T* gradients, T* parameters) const {
    for (const Mlp<T>& module : edge) parameters = unpad_gradient(module, gradients, parameters);
    for (const SplitNodeModule<T>& module : node) {
      for (int64_t o = 0; o < module.first_width(); ++o) {
        parameters = module.projection.copy_weight_gradient(gradients, o, parameters);
        parameters = module.own.copy_weight_gradient(gradients, o, parameters);
      }
      parameters = module.own.copy_bias_gradient(gradients, parameters);
      parameters = unpad_gradient(module.rest, gradients, parameters);
    }
  }
};

// Consecutive receivers of one system and one node type, and with them a consecutive range of edges.
struct ReceiverGroup {
  int64_t system, node_type;
  int64_t first_node, last_node;
  int64_t first_edge, last_edge;
  int64_t edges() const { return last_edge - first_edge; }
  int64_t receivers() const { return last_node - first_node; }
};

constexpr int64_t kGroupRows = 1024;  // a group closes once it has so many rows to score
constexpr int64_t kFewSystems = 16;   // fewer have to be cut finer, so that all threads find work
constexpr int64_t kChunkEdges = 256;  // transitions are taken in chunks of about so many edges per type
constexpr int64_t kNodeRows = 192;    // node module rows that run through the layers together

// Groups decide the order in which gradients add up, so they follow from the problem alone.
// most_rows: a group closes once it has so many rows.
template <typename T>
std::vector<ReceiverGroup> group_receivers(const HeatBathProblem<T>& problem, int64_t most_rows) {
  const GraphView& graph = problem.graph;
  std::vector<ReceiverGroup> groups;
  int64_t rows = 0;
  for (int64_t b = 0; b < graph.systems; ++b) {
    for (int64_t v = graph.node_offset[b]; v < graph.node_offset[b + 1]; ++v) {
      const int64_t type = problem.node_types ? problem.node_types[v] : 0;
      const bool joins = v > graph.node_offset[b] && rows < most_rows && groups.back().node_type == type;
      if (!joins) {
        groups.push_back({b, type, v, v, graph.in_offset[v], graph.in_offset[v]});
        rows = 0;
      }
      groups.back().last_node = v + 1;
      groups.back().last_edge = graph.in_offset[v + 1];
      rows += problem.row_offset[v + 1] - problem.row_offset[v];
    }
  }
  return groups;
}

template <typename T>
T step_scale_of(const HeatBathProblem<T>& problem, int64_t system) {
  return problem.trajectories.step_scale ? problem.trajectories.step_scale[system] : T(1);
}

inline int64_t transitions_in_chunk(const ReceiverGroup& group) {
  return std::max<int64_t>(1, kChunkEdges / std::max<int64_t>(1, group.edges()));
}

constexpr int64_t kHeld = -1;  // in place of a type: the edge's message is a mean over types, the same in every row

// Walks the rows of one receiver: each gives its incoming edges an assignment of types.
class Assignments {
 public:
  template <typename T>
  Assignments(const HeatBathProblem<T>& problem, int64_t node)
      : conditionals_(problem.rows == HeatBathRows::conditionals),
        count_(problem.library.edge_types),
        rows_(problem.row_offset[node + 1] - problem.row_offset[node]),
        current_(conditionals_ ? problem.edge_types + problem.graph.in_offset[node] : nullptr),
        types_(problem.graph.in_offset[node + 1] - problem.graph.in_offset[node], kHeld) {
    for (size_t i = 0; i < types_.size(); ++i) {
      if (conditionals_ || problem.stride[problem.graph.in_offset[node] + static_cast<int64_t>(i)] > 0) {
        free_.push_back(static_cast<int64_t>(i));
        types_[i] = 0;
      }
    }
  }

  int64_t rows() const { return rows_; }
  const std::vector<int64_t>& free() const { return free_; }    // places of the edges whose types vary
  const std::vector<int64_t>& types() const { return types_; }  // [in-degree], kHeld for an edge that is held

  void go(int64_t row) {
    row_ = row;
    if (conditionals_) {
      for (size_t i = 0; i < types_.size(); ++i) types_[i] = current_[i];
      types_[row / count_] = row % count_;
      return;
    }
    for (size_t i = free_.size(); i-- > 0; row /= count_) types_[free_[i]] = row % count_;
  }

  // Moves to the next row; returns the first edge whose type has changed.
  int64_t advance() {
    if (conditionals_) {
      go(row_ + 1);
      return (row_ - 1) / count_;
    }
    row_ += 1;
    size_t i = free_.size();
    while (i-- > 0 && ++types_[free_[i]] == count_) types_[free_[i]] = 0;
    return free_[i];
  }

 private:
  bool conditionals_;
  int64_t count_, rows_, row_ = 0;
  const uint8_t* current_;  // conditionals only
  std::vector<int64_t> types_, free_;
};

// Calls use(type, edge of the group, weight) for every type with a weight of every held edge of one receiver, whose
// first edge in the group has the number given. `types` are those of its Assignments.
template <typename T, typename Use>
void for_held_types(const HeatBathProblem<T>& problem, const ReceiverGroup& group, const std::vector<int64_t>& types,
                    int64_t first_edge, const Use& use) {
  const int64_t count = problem.library.edge_types;
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] != kHeld) continue;
    const int64_t edge = first_edge + static_cast<int64_t>(i);
    for (int64_t k = 0; k < count; ++k) {
      const float weight = problem.held_weight[(group.first_edge + edge) * count + k];
      if (weight != 0.0f) use(k, edge, static_cast<T>(weight));
    }
  }
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
