// The messages into a group of receivers for a chunk of transitions: every edge under every type that is wanted, and
// their projections into the first layer of the receivers' node module.
#pragma once

#include "cpu/heat_bath_plan.h"
#include "cpu/heat_bath_transitions.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// Activations of one edge type for a chunk of transitions.
template <typename T>
struct TypeMessages {
  int64_t wanted = 0;  // edges to run under this type
  int64_t* edges;      // [wanted] the list
  int64_t rows = 0;    // messages of the chunk in work
  int64_t* row;        // [transitions, edges of the group] row of a message, or -1: there is none
  T* pair;             // [wanted * transitions, padded(2 D)]
  std::vector<T*> output;
  T* projection;  // [wanted * transitions, padded(first width)]
};

// Which (type, edge) pairs the rows of a group read, all of them together: [K, edges of the group].
template <typename T>
const uint8_t* pairs_of(Arena& arena, const HeatBathProblem<T>& problem, const ReceiverGroup& group,
                        const std::vector<Assignments>& assignments) {
  const int64_t edges = group.edges(), types = problem.library.edge_types;
  uint8_t* read = arena.take<uint8_t>(types * edges);
  std::fill_n(read, types * edges, uint8_t{0});
  for (int64_t j = 0; j < group.receivers(); ++j) {
    const int64_t first_edge = problem.graph.in_offset[group.first_node + j] - group.first_edge;
    for_held_types(problem, group, assignments[j].types(), first_edge,
                   [&](int64_t k, int64_t e, T) { read[k * edges + e] = 1; });
    for (const int64_t i : assignments[j].free()) {
      for (int64_t k = 0; k < types; ++k) read[k * edges + first_edge + i] = 1;
    }
  }
  return read;
}

// Which layers' outputs a table makes room for: the last one's alone, or all of them. None: they are kept elsewhere.
enum class Outputs { none, last, all };

template <typename T>
class MessageTable {
 public:
  // wanted: [K, edges of the group] marks the (type, edge) pairs that some row reads
  // most: transitions of a chunk
  MessageTable(Arena& arena, const HeatBathProblem<T>& problem, const SplitLibrary<T>& library,
               const ReceiverGroup& group, const GroupTransitions<T>& transitions, const uint8_t* wanted, int64_t most,
               Outputs outputs)
      : problem_(problem), library_(library), group_(group), transitions_(transitions), types_(library.edge.size()) {
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
      type.edges = arena.take<int64_t>(edges);
      for (int64_t e = 0; e < edges; ++e) {
        if (wanted[k * edges + e] && !library.edge[k].layers.empty()) type.edges[type.wanted++] = e;
      }
      type.row = arena.take<int64_t>(most * edges);
      std::fill_n(type.row, most * edges, int64_t{-1});
      const int64_t rows = type.wanted * most;
      if (rows == 0) continue;
      type.pair = arena.take<T>(rows * padded<T>(2 * library.features));
      const std::vector<Layer<T>>& layers = library.edge[k].layers;
      const bool all = outputs == Outputs::all;
      type.output.resize(layers.size());
      for (size_t l = 0; outputs != Outputs::none && l < layers.size(); ++l) {
        const bool shared = !all && l >= 2;
        type.output[l] = shared ? type.output[l - 2]
                                : arena.take<T>(rows * (all ? padded<T>(layers[l].out) : library.edge[k].widest()));
      }
      type.projection = arena.take<T>(rows * width);
    }
  }

  // Fills the table for transitions number first .. first + count - 1.
  void run(int64_t first, int64_t count) {
    list(first, count);
    for (size_t k = 0; k < types_.size(); ++k) {
      TypeMessages<T>& type = types_[k];
      if (type.wanted == 0) continue;
      library_.edge[k].forward(type.pair, type.rows, type.output.data());
      library_.node[group_.node_type].projection.apply(type.output.back(), type.rows, type.projection, false);
    }
  }

  // Outputs of a chunk are where `kept` has them, or room for them.
  void place_outputs(const KeptActivations<T>& kept, int64_t first) {
    for (size_t k = 0; k < types_.size(); ++k) {
      for (size_t l = 0; l < types_[k].output.size(); ++l) {
        types_[k].output[l] = kept.messages(static_cast<int64_t>(k), static_cast<int64_t>(l), first);
      }
    }
  }

  // Numbers the messages of a chunk and collects their inputs.
  void list(int64_t first, int64_t count) {
    const int64_t features = library_.features, stride = padded<T>(2 * features), edges = group_.edges();
    const GraphView& graph = problem_.graph;
    const int64_t base = transitions_.node_base();
    for (size_t k = 0; k < types_.size(); ++k) {
      TypeMessages<T>& type = types_[k];
      if (type.wanted == 0) continue;
      type.rows = 0;
      for (int64_t t = 0; t < count; ++t) {
        const T* state = transitions_.before(first + t);
        const uint8_t* present = transitions_.present_at(first + t);
        for (int64_t i = 0; i < type.wanted; ++i) {
          const int64_t e = type.edges[i], sender = graph.sender[group_.first_edge + e] - base;
          int64_t& row = type.row[t * edges + e];
          row = -1;
          if (present && !(present[sender] && transitions_.is_compared(first + t, receiver_[e]))) continue;
          row = type.rows++;
          T* pair = type.pair + row * stride;
          std::copy_n(state + sender * features, features, pair);
          std::copy_n(state + (receiver_[e] - base) * features, features, pair + features);
        }
      }
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

  // Row of edge e's message under type k in transition t of the chunk; -1 for a silent type, a held edge, or a sender
  // that is absent.
  int64_t row(int64_t k, int64_t e, int64_t t) const { return k == kHeld ? -1 : types_[k].row[t * group_.edges() + e]; }

  // The message's projection, or null.
  const T* projection(int64_t k, int64_t e, int64_t t) const {
    const int64_t place = row(k, e, t);
    if (place < 0) return nullptr;
    return types_[k].projection + place * padded<T>(library_.node[group_.node_type].first_width());
  }

 private:
  const HeatBathProblem<T>& problem_;
  const SplitLibrary<T>& library_;
  const ReceiverGroup& group_;
  const GroupTransitions<T>& transitions_;
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
