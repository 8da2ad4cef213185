// The messages into a group of receivers for a chunk of transitions: every edge under every type that is wanted, and
// their projections into the first layer of the receivers' node module.
#pragma once

#include "cpu/heat_bath_tile.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// Activations of one edge type. Row slot + t * wanted holds edge number `slot` of this type's list in transition t.
template <typename T>
struct TypeMessages {
  int64_t wanted = 0;  // edges to run under this type
  int64_t* slot;       // [edges of the group] place in the list, or -1
  int64_t* edges;      // [wanted] the list
  T* pair;             // [wanted * transitions, padded(2 D)]
  std::vector<T*> output;
  T* projection;  // [wanted * transitions, padded(first width)]
};

template <typename T>
class MessageTable {
 public:
  // wanted: [K, edges of the group] marks the (type, edge) pairs that some row reads
  MessageTable(Arena& arena, const HeatBathProblem<T>& problem, const SplitLibrary<T>& library,
               const ReceiverGroup& group, const uint8_t* wanted, int64_t transitions, bool keep)
      : problem_(problem), library_(library), group_(group), types_(library.edge.size()) {
    const int64_t edges = group.edges();
    const int64_t width = padded<T>(library.node[group.node_type].first_width());
    receiver_ = arena.take<int64_t>(edges);
    for (int64_t v = group.first_node; v < group.last_node; ++v) {
      for (int64_t e = problem.graph.in_offset[v]; e < problem.graph.in_offset[v + 1]; ++e) {
        receiver_[e - group.first_edge] = v;
      }
    }
    for (size_t k = 0; k < types_.size(); ++k) {
      TypeMessages<T>& type = types_[k];
      type.slot = arena.take<int64_t>(edges);
      type.edges = arena.take<int64_t>(edges);
      for (int64_t e = 0; e < edges; ++e) {
        const bool runs = wanted[k * edges + e] && !library.edge[k].layers.empty();
        type.slot[e] = runs ? type.wanted : -1;
        if (runs) type.edges[type.wanted++] = e;
      }
      const int64_t rows = type.wanted * transitions;
      if (rows == 0) continue;
      type.pair = arena.take<T>(rows * padded<T>(2 * library.features));
      const std::vector<Layer<T>>& layers = library.edge[k].layers;
      T* spare[2] = {nullptr, nullptr};
      for (size_t l = 0; l < layers.size(); ++l) {
        const int64_t room = rows * (keep ? padded<T>(layers[l].out) : library.edge[k].widest());
        if (keep || !spare[l % 2]) spare[l % 2] = arena.take<T>(room);
        type.output.push_back(spare[l % 2]);
      }
      type.projection = arena.take<T>(rows * width);
    }
  }

  // Fills the table for transitions first .. first + count - 1 of the problem's list.
  void run(int64_t first, int64_t count) const {
    const int64_t features = library_.features, stride = padded<T>(2 * features);
    const GraphView& graph = problem_.graph;
    for (size_t k = 0; k < types_.size(); ++k) {
      const TypeMessages<T>& type = types_[k];
      if (type.wanted == 0) continue;
      for (int64_t t = 0; t < count; ++t) {
        const T* state = state_before(first + t);
        for (int64_t i = 0; i < type.wanted; ++i) {
          const int64_t e = type.edges[i];
          T* pair = type.pair + (t * type.wanted + i) * stride;
          const T* sender = state + (graph.sender[group_.first_edge + e] - node_base()) * features;
          const T* receiver = state + (receiver_[e] - node_base()) * features;
          std::copy_n(sender, features, pair);
          std::copy_n(receiver, features, pair + features);
        }
      }
      const int64_t rows = type.wanted * count;
      library_.edge[k].forward(type.pair, rows, type.output.data());
      library_.node[group_.node_type].projection.apply(type.output.back(), rows, type.projection, false);
    }
  }

  const std::vector<TypeMessages<T>>& types() const { return types_; }  // [K]

  // Adds the projections of a receiver's held edges, weighted, to sum [width]. `types` are those of an Assignments.
  void add_held(const std::vector<int64_t>& types, int64_t first_edge, int64_t t, T* sum) const {
    const int64_t width = padded<T>(library_.node[group_.node_type].first_width());
    for_held_types(problem_, group_, types, first_edge, [&](int64_t k, int64_t e, T weight) {
      if (const T* message = projection(k, e, t)) add_weighted(weight, message, width, sum);
    });
  }

  // The projection of edge e's message under type k in transition t of the chunk; null for a silent type or a held
  // edge.
  const T* projection(int64_t k, int64_t e, int64_t t) const {
    if (k == kHeld) return nullptr;
    const TypeMessages<T>& type = types_[k];
    if (type.slot[e] < 0) return nullptr;
    const int64_t width = padded<T>(library_.node[group_.node_type].first_width());
    return type.projection + (t * type.wanted + type.slot[e]) * width;
  }

  // State of the whole system before and after transition number l of the problem's list.
  const T* state_before(int64_t l) const {
    const GraphView& graph = problem_.graph;
    const int64_t entities = graph.node_offset[group_.system + 1] - node_base();
    const int64_t step = problem_.start[group_.system * problem_.transitions + l];
    return problem_.trajectories.states +
           (problem_.trajectories.steps * node_base() + step * entities) * library_.features;
  }
  const T* state_after(int64_t l) const {
    const GraphView& graph = problem_.graph;
    const int64_t entities = graph.node_offset[group_.system + 1] - node_base();
    return state_before(l) + entities * library_.features;
  }
  int64_t node_base() const { return problem_.graph.node_offset[group_.system]; }

 private:
  const HeatBathProblem<T>& problem_;
  const SplitLibrary<T>& library_;
  const ReceiverGroup& group_;
  int64_t* receiver_;
  std::vector<TypeMessages<T>> types_;
};

// Adds up the first node layer for one assignment after another, reusing the sums over the leading edges that an
// assignment shares with the one before it.
template <typename T>
class FirstLayerSums {
 public:
  FirstLayerSums(Arena& arena, int64_t degree, int64_t width)
      : width_(width), sums_(arena.take<T>(std::max<int64_t>(degree, 1) * width)) {}

  // The start of every sum: the entity's own part.
  T* own() { return sums_; }

  // Writes the sum for `types` [degree] to z [width], edges numbered from first_edge in the group's list.
  void add_up(const MessageTable<T>& table, int64_t first_edge, const std::vector<int64_t>& types, int64_t changed,
              int64_t t, T* z, bool relu) {
    const int64_t last = static_cast<int64_t>(types.size()) - 1;
    for (int64_t i = changed; i < last; ++i) {
      add_two(sums_ + i * width_, table.projection(types[i], first_edge + i, t), width_, false,
              sums_ + (i + 1) * width_);
    }
    const T* message = last < 0 ? nullptr : table.projection(types[last], first_edge + last, t);
    add_two(sums_ + std::max<int64_t>(last, 0) * width_, message, width_, relu, z);
  }

 private:
  int64_t width_;
  T* sums_;  // [degree, width]: own part and the leading edges added up; the last edge goes straight to its row
};

}  // namespace nri::cpu::NRI_CPU_VARIANT
