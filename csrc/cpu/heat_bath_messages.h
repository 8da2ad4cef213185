// The messages into a group of receivers for a chunk of transitions: every edge under every type that is wanted, and
// their projections into the first layer of the receivers' node module.
#pragma once

#include "cpu/heat_bath_tile.h"

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

template <typename T>
class MessageTable {
 public:
  // wanted: [K, edges of the group] marks the (type, edge) pairs that some row reads
  MessageTable(Arena& arena, const HeatBathProblem<T>& problem, const SplitLibrary<T>& library,
               const ReceiverGroup& group, const uint8_t* wanted, int64_t transitions, bool keep)
      : problem_(problem), library_(library), group_(group), types_(library.edge.size()) {
    list_transitions();
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
      type.row = arena.take<int64_t>(transitions * edges);
      std::fill_n(type.row, transitions * edges, int64_t{-1});
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

  // The transitions in which a receiver of the group is compared are numbered from 0 on.
  int64_t transitions() const { return static_cast<int64_t>(transitions_.size()); }
  // In how many of them this one is.
  int64_t compared(int64_t node) const { return compared_[node - group_.first_node]; }
  bool is_compared(int64_t number, int64_t node) const {
    return is_present(present_at(number), node - node_base()) && is_present(present_after(number), node - node_base());
  }

  // Fills the table for transitions number first .. first + count - 1.
  void run(int64_t first, int64_t count) {
    const int64_t features = library_.features, stride = padded<T>(2 * features), edges = group_.edges();
    const GraphView& graph = problem_.graph;
    for (size_t k = 0; k < types_.size(); ++k) {
      TypeMessages<T>& type = types_[k];
      if (type.wanted == 0) continue;
      type.rows = 0;
      for (int64_t t = 0; t < count; ++t) {
        const T* state = state_before(first + t);
        const uint8_t* present = present_at(first + t);
        for (int64_t i = 0; i < type.wanted; ++i) {
          const int64_t e = type.edges[i], sender = graph.sender[group_.first_edge + e] - node_base();
          int64_t& row = type.row[t * edges + e];
          row = -1;
          if (present && !(present[sender] && is_compared(first + t, receiver_[e]))) continue;
          row = type.rows++;
          T* pair = type.pair + row * stride;
          std::copy_n(state + sender * features, features, pair);
          std::copy_n(state + (receiver_[e] - node_base()) * features, features, pair + features);
        }
      }
      library_.edge[k].forward(type.pair, type.rows, type.output.data());
      library_.node[group_.node_type].projection.apply(type.output.back(), type.rows, type.projection, false);
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

  // State of the whole system before and after transition `number`.
  const T* state_before(int64_t number) const {
    return problem_.trajectories.states + first_state(number) * library_.features;
  }
  const T* state_after(int64_t number) const { return state_before(number) + entities() * library_.features; }
  // Who is there before the transition; null: everybody.
  const uint8_t* present_at(int64_t number) const {
    return problem_.trajectories.present ? problem_.trajectories.present + first_state(number) : nullptr;
  }
  int64_t node_base() const { return problem_.graph.node_offset[group_.system]; }

 private:
  int64_t entities() const { return problem_.graph.node_offset[group_.system + 1] - node_base(); }
  int64_t first_state(int64_t number) const {
    const int64_t step = problem_.start[group_.system * problem_.transitions + transitions_[number]];
    return problem_.trajectories.steps * node_base() + step * entities();
  }
  const uint8_t* present_after(int64_t number) const {
    return problem_.trajectories.present ? present_at(number) + entities() : nullptr;
  }

  void list_transitions() {
    compared_.assign(group_.receivers(), 0);
    for (int64_t l = 0; l < problem_.transitions; ++l) {
      transitions_.push_back(l);
      bool any = false;
      for (int64_t j = 0; j < group_.receivers(); ++j) {
        const bool here = is_compared(transitions() - 1, group_.first_node + j);
        compared_[j] += here;
        any = any || here;
      }
      if (!any) transitions_.pop_back();
    }
  }

  const HeatBathProblem<T>& problem_;
  const SplitLibrary<T>& library_;
  const ReceiverGroup& group_;
  std::vector<int64_t> transitions_;  // places in the problem's list
  std::vector<int64_t> compared_;     // [receivers of the group]
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
