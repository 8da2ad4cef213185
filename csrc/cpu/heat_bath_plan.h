// How a call's work is cut into tiles, and where scoring leaves the activations that the gradient starts from.
#pragma once

#include "cpu/heat_bath_tile.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// Rows that run through modules in a piece of a group's transitions, at least: of scores, and where the gradient has to
// find the same pieces, each of which costs it a lane.
constexpr int64_t kScoredRows = 240;
constexpr int64_t kLearnedRows = 700;
constexpr int64_t kMostPieces = 16;  // that the groups of few systems are cut into, or about so many

// What a thread takes at a time: some of the transitions that a group takes part in, by their numbers.
struct HeatBathTile {
  const ReceiverGroup* group;
  int64_t begin, end;

  int64_t chunk() const { return std::min(end - begin, transitions_in_chunk(*group)); }
};

template <typename T>
int64_t rows_of(const HeatBathProblem<T>& problem, const ReceiverGroup& group) {
  return problem.row_offset[group.last_node] - problem.row_offset[group.first_node];
}

// Few systems are cut by transitions rather than by receivers: products stay large, and threads have even work.
template <typename T>
std::vector<HeatBathTile> cut_transitions(const HeatBathProblem<T>& problem, const std::vector<ReceiverGroup>& groups,
                                          int64_t piece_rows) {
  const int64_t transitions = problem.transitions, count = static_cast<int64_t>(groups.size());
  const int64_t classes = problem.library.edge_types - problem.library.first_type();
  std::vector<HeatBathTile> tiles;
  for (const ReceiverGroup& group : groups) {
    const int64_t rows = (classes * group.edges() + rows_of(problem, group)) * transitions;
    const int64_t wanted = problem.graph.systems < kFewSystems ? (kMostPieces + count - 1) / count : 1;
    const int64_t pieces = std::max<int64_t>(1, std::min({wanted, transitions, rows / piece_rows}));
    for (int64_t i = 0; i < pieces; ++i) {
      tiles.push_back({&group, transitions * i / pieces, transitions * (i + 1) / pieces});
    }
  }
  return tiles;
}

// Where a group's activations are kept: for every layer of the edge modules a row a transition and edge, for every
// layer of the node module a row a transition and row to score. A chunk's rows lie side by side from the place of its
// first transition on, in the order in which they run; where some entities are absent they do not fill it.
template <typename T>
class KeptActivations {
 public:
  KeptActivations() = default;  // nothing is kept
  KeptActivations(const HeatBathProblem<T>& problem, const ReceiverGroup& group, T* first)
      : problem_(&problem), edges_(group.edges()), rows_(rows_of(problem, group)), first_(first) {}

  explicit operator bool() const { return first_ != nullptr; }

  // Output of layer l of edge module k in the chunk that begins with transition number `first`.
  T* messages(int64_t k, int64_t l, int64_t first) const {
    const LibraryView<T>& library = problem_->library;
    const int64_t module = (k - library.first_type()) * width_of(library.edge_layers, library.edge_sizes);
    const int64_t before = module + width_of(l, library.edge_sizes);
    return first_ + (problem_->transitions * before + first * padded<T>(library.edge_sizes[l + 1])) * edges_;
  }

  // Output of layer l of the node module for row number `row` of the group, counted from transition 0 on.
  T* rows(int64_t l, int64_t row) const {
    const LibraryView<T>& library = problem_->library;
    const int64_t before = problem_->transitions * rows_ * width_of(l, library.node_sizes);
    return first_ + problem_->transitions * edges_ * message_values(library) + before +
           row * padded<T>(library.node_sizes[l + 1]);
  }

  static int64_t values(const HeatBathProblem<T>& problem, const ReceiverGroup& group) {
    const LibraryView<T>& library = problem.library;
    return problem.transitions * (group.edges() * message_values(library) +
                                  rows_of(problem, group) * width_of(library.node_layers, library.node_sizes));
  }

 private:
  // Of the outputs of the first layers of a module.
  static int64_t width_of(int64_t layers, const int64_t* sizes) {
    int64_t width = 0;
    for (int64_t l = 0; l < layers; ++l) width += padded<T>(sizes[l + 1]);
    return width;
  }
  static int64_t message_values(const LibraryView<T>& library) {
    return (library.edge_types - library.first_type()) * width_of(library.edge_layers, library.edge_sizes);
  }

  const HeatBathProblem<T>* problem_ = nullptr;
  int64_t edges_ = 0, rows_ = 0;
  T* first_ = nullptr;
};

// Groups and tiles, the same for scores and gradient wherever activations are kept: what one leaves the other finds.
template <typename T>
class HeatBathPlan {
 public:
  explicit HeatBathPlan(const HeatBathProblem<T>& problem, int64_t piece_rows = kLearnedRows)
      : HeatBathPlan(problem, group_receivers(problem, kGroupRows)) {
    tiles_ = cut_transitions(problem, groups_, piece_rows);
  }

  // Of so few systems that every receiver is a group, and not cut any further.
  static HeatBathPlan by_receivers(const HeatBathProblem<T>& problem) {
    HeatBathPlan plan(problem, group_receivers(problem, 1));
    for (const ReceiverGroup& group : plan.groups_) plan.tiles_.push_back({&group, 0, problem.transitions});
    return plan;
  }

  const std::vector<ReceiverGroup>& groups() const { return groups_; }
  const std::vector<HeatBathTile>& tiles() const { return tiles_; }

  // Values that all groups keep together.
  int64_t kept_values() const { return kept_.back(); }
  KeptActivations<T> kept(const HeatBathTile& tile) const {
    if (!problem_.kept) return {};
    return {problem_, *tile.group, problem_.kept + kept_[tile.group - groups_.data()]};
  }

 private:
  HeatBathPlan(const HeatBathProblem<T>& problem, std::vector<ReceiverGroup> groups)
      : problem_(problem), groups_(std::move(groups)), kept_{0} {
    for (const ReceiverGroup& group : groups_) {
      kept_.push_back(kept_.back() + KeptActivations<T>::values(problem, group));
    }
  }

  const HeatBathProblem<T>& problem_;
  std::vector<ReceiverGroup> groups_;
  std::vector<HeatBathTile> tiles_;  // point into groups_
  std::vector<int64_t> kept_;        // [groups + 1] where each group's activations begin
};

}  // namespace nri::cpu::NRI_CPU_VARIANT
