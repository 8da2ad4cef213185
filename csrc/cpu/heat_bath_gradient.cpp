#include "cpu/gradient_lanes.h"
#include "cpu/heat_bath_messages.h"
#include "cpu/transition_error.h"
#include "ops/heat_bath.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

constexpr int64_t kPieceMessages =
    120;  // a group's transitions are cut into pieces of at least so many messages a type
constexpr int64_t kMostPieces = 8;

// A row whose cotangent is not zero.
struct ActiveRow {
  int64_t receiver;    // number in the group
  int64_t first_edge;  // number in the group of the receiver's first incoming edge
  int64_t degree;
  const int64_t* types;  // [degree] the assignment, kHeld for held edges
  double cotangent;
};

template <typename T>
std::vector<ActiveRow> active_rows(Arena& arena, const HeatBathProblem<T>& problem, const ReceiverGroup& group,
                                   const T* cotangent) {
  std::vector<ActiveRow> rows;
  for (int64_t v = group.first_node; v < group.last_node; ++v) {
    Assignments assignment(problem, v);
    const int64_t degree = static_cast<int64_t>(assignment.types().size());
    for (int64_t a = 0; a < assignment.rows(); ++a) {
      const T weight = cotangent[problem.row_offset[v] + a];
      if (weight == T(0)) continue;
      assignment.go(a);
      int64_t* types = arena.take<int64_t>(degree);
      std::copy_n(assignment.types().data(), degree, types);
      rows.push_back({v - group.first_node, problem.graph.in_offset[v] - group.first_edge, degree, types,
                      static_cast<double>(weight)});
    }
  }
  return rows;
}

// A receiver with active rows: which of its incoming edges are held.
struct HeldEdges {
  int64_t receiver, first_edge;
  std::vector<int64_t> types;  // [in-degree] kHeld or anything else
};

std::vector<HeldEdges> held_edges(const std::vector<ActiveRow>& rows) {
  std::vector<HeldEdges> held;
  for (const ActiveRow& row : rows) {
    if (!held.empty() && held.back().receiver == row.receiver) continue;
    held.push_back({row.receiver, row.first_edge, {row.types, row.types + row.degree}});
  }
  return held;
}

// Which (type, edge) pairs the active rows read: [K, edges of the group].
template <typename T>
const uint8_t* pairs_read(Arena& arena, const HeatBathProblem<T>& problem, const ReceiverGroup& group,
                          const std::vector<ActiveRow>& rows, const std::vector<HeldEdges>& held) {
  const int64_t edges = group.edges(), pairs = edges * problem.library.edge_types;
  uint8_t* read = arena.take<uint8_t>(pairs);
  std::fill_n(read, pairs, uint8_t{0});
  for (const ActiveRow& row : rows) {
    for (int64_t i = 0; i < row.degree; ++i) {
      if (row.types[i] != kHeld) read[row.types[i] * edges + row.first_edge + i] = 1;
    }
  }
  for (const HeldEdges& some : held) {
    for_held_types(problem, group, some.types, some.first_edge,
                   [&](int64_t k, int64_t e, T) { read[k * edges + e] = 1; });
  }
  return read;
}

// The gradient of one group's weighted scores. Rows run forwards and backwards in blocks; what they send back to the
// projected messages and to the entities' own part is summed over a chunk of transitions and then taken through the
// edge modules at once.
template <typename T>
class GroupGradient {
 public:
  GroupGradient(const HeatBathProblem<T>& problem, const SplitLibrary<T>& library, const ReceiverGroup& group,
                const T* cotangent, int64_t transitions)
      : arena_(worker_arena()),
        problem_(problem),
        library_(library),
        group_(group),
        module_(library.node[group.node_type]),
        width_(padded<T>(module_.first_width())),
        state_width_(padded<T>(library.features)),
        chunk_(std::min(transitions, transitions_in_chunk(group))),
        rows_(active_rows(arena_, problem, group, cotangent)),
        held_(held_edges(rows_)),
        table_(arena_, problem, library, group, pairs_read(arena_, problem, group, rows_, held_), chunk_, true) {
    const int64_t entities = chunk_ * group.receivers();
    state_ = arena_.take<T>(entities * state_width_);
    own_ = arena_.take<T>(entities * width_);
    own_gradient_ = arena_.take<T>(entities * width_);
    for (size_t k = 0; k < table_.types().size(); ++k) {
      const int64_t messages = table_.types()[k].wanted * chunk_;
      projection_gradient_.push_back(arena_.take<T>(messages * width_));
      layer_gradient_.emplace_back();
      for (const Layer<T>& layer : library.edge[k].layers) {
        layer_gradient_.back().push_back(arena_.take<T>(messages * padded<T>(layer.out)));
      }
    }
    z_ = arena_.take<T>(kNodeRows * width_);
    z_gradient_ = arena_.take<T>(kNodeRows * width_);
    for (const Layer<T>& layer : module_.rest.layers) {
      output_.push_back(arena_.take<T>(kNodeRows * padded<T>(layer.out)));
      output_gradient_.push_back(arena_.take<T>(kNodeRows * padded<T>(layer.out)));
    }
  }

  // Of transitions number begin .. end - 1, as far as there are so many that the group takes part in.
  void add_to(int64_t begin, int64_t end, T* gradients) {
    end = std::min(end, table_.transitions());
    for (int64_t first = begin; !rows_.empty() && first < end; first += chunk_) {
      const int64_t count = std::min(chunk_, end - first);
      start_chunk(first, count);
      for (int64_t t = 0; t < count; ++t) {
        for (const ActiveRow& row : rows_) {
          if (!table_.is_compared(first + t, group_.first_node + row.receiver)) continue;
          add_row(row, t, first + t);
          if (waiting_ == kNodeRows) run_block(gradients);
        }
      }
      run_block(gradients);
      send_back_to_held(count);
      module_.own.add_gradient({{state_, own_gradient_, count * group_.receivers()}}, gradients);
      messages_backward(gradients);
    }
  }

 private:
  // A row in the block: whom it belongs to, and the transition it predicts.
  struct Waiting {
    const ActiveRow* row;
    int64_t transition;  // in the chunk
    const T *before, *after;
  };

  void start_chunk(int64_t first, int64_t count) {
    const int64_t features = library_.features;
    table_.run(first, count);
    for (int64_t t = 0; t < count; ++t) {
      const T* states = table_.state_before(first + t) + (group_.first_node - table_.node_base()) * features;
      for (int64_t j = 0; j < group_.receivers(); ++j) {
        T* state = state_ + (t * group_.receivers() + j) * state_width_;
        if (table_.is_compared(first + t, group_.first_node + j)) {
          std::copy_n(states + j * features, features, state);
        } else {
          std::fill_n(state, features, T(0));  // nothing is sent back to it; not to be NaN is enough
        }
      }
    }
    module_.own.apply(state_, count * group_.receivers(), own_, false);
    for (const HeldEdges& held : held_) {
      for (int64_t t = 0; t < count; ++t) {
        table_.add_held(held.types, held.first_edge, t, own_ + (t * group_.receivers() + held.receiver) * width_);
      }
    }
    std::fill_n(own_gradient_, count * group_.receivers() * width_, T(0));
    for (size_t k = 0; k < table_.types().size(); ++k) {
      std::fill_n(projection_gradient_[k], table_.types()[k].rows * width_, T(0));
    }
  }

  void add_row(const ActiveRow& row, int64_t t, int64_t transition) {
    sent_.clear();
    for (int64_t i = 0; i < row.degree; ++i) {
      if (const T* message = table_.projection(row.types[i], row.first_edge + i, t)) sent_.push_back(message);
    }
    add_all(own_ + (t * group_.receivers() + row.receiver) * width_, sent_.data(), static_cast<int64_t>(sent_.size()),
            width_, !module_.rest.layers.empty(), z_ + waiting_ * width_);
    const int64_t offset = (group_.first_node + row.receiver - table_.node_base()) * library_.features;
    block_[waiting_++] = {&row, t, table_.state_before(transition) + offset, table_.state_after(transition) + offset};
  }

  void run_block(T* gradients) {
    const int64_t features = library_.features;
    const Mlp<T>& rest = module_.rest;
    rest.forward(z_, waiting_, output_.data());
    const T* change = output_.empty() ? z_ : output_.back();
    T* change_gradient = output_.empty() ? z_gradient_ : output_gradient_.back();
    const int64_t stride = output_.empty() ? width_ : state_width_;
    const T step_scale = step_scale_of(problem_, group_.system);
    std::vector<T> predicted(features);
    for (int64_t i = 0; i < waiting_; ++i) {
      const ActiveRow& row = *block_[i].row;
      for (int64_t d = 0; d < features; ++d) predicted[d] = block_[i].before[d] + step_scale * change[i * stride + d];
      const double transitions = static_cast<double>(table_.compared(group_.first_node + row.receiver));
      const double factor = row.cotangent / transitions * static_cast<double>(step_scale);
      transition_error_gradient(problem_.error, features, predicted.data(), block_[i].after, factor,
                                change_gradient + i * stride);
    }
    if (!rest.layers.empty()) {
      const MlpPass<T> pass{z_, waiting_, output_, output_gradient_};
      rest.backward(pass, z_gradient_, z_);
      rest.add_gradients({pass}, gradients);
    }
    for (int64_t i = 0; i < waiting_; ++i) send_back(block_[i], z_gradient_ + i * width_);
    waiting_ = 0;
  }

  void send_back(const Waiting& waiting, const T* gradient) {
    const ActiveRow& row = *waiting.row;
    T* own = own_gradient_ + (waiting.transition * group_.receivers() + row.receiver) * width_;
    add_two(own, gradient, width_, false, own);
    for (int64_t i = 0; i < row.degree; ++i) {
      const int64_t place = table_.row(row.types[i], row.first_edge + i, waiting.transition);
      if (place < 0) continue;
      T* sent = projection_gradient_[row.types[i]] + place * width_;
      add_two(sent, gradient, width_, false, sent);
    }
  }

  // What a held edge sent is part of the receiver's own sum in every row.
  void send_back_to_held(int64_t count) {
    for (const HeldEdges& held : held_) {
      for_held_types(problem_, group_, held.types, held.first_edge, [&](int64_t k, int64_t e, T weight) {
        for (int64_t t = 0; t < count; ++t) {
          const int64_t place = table_.row(k, e, t);
          if (place < 0) continue;
          const T* own = own_gradient_ + (t * group_.receivers() + held.receiver) * width_;
          add_weighted(weight, own, width_, projection_gradient_[k] + place * width_);
        }
      });
    }
  }

  void messages_backward(T* gradients) {
    for (size_t k = 0; k < table_.types().size(); ++k) {
      const TypeMessages<T>& type = table_.types()[k];
      const int64_t rows = type.rows;
      if (rows == 0) continue;
      const MlpPass<T> pass{type.pair, rows, type.output, layer_gradient_[k]};
      module_.projection.add_gradient({{type.output.back(), projection_gradient_[k], rows}}, gradients);
      module_.projection.apply_backward(projection_gradient_[k], rows, type.output.back(), pass.gradient.back());
      library_.edge[k].backward(pass, nullptr, nullptr);
      library_.edge[k].add_gradients({pass}, gradients);
    }
  }

  Arena& arena_;
  const HeatBathProblem<T>& problem_;
  const SplitLibrary<T>& library_;
  const ReceiverGroup& group_;
  const SplitNodeModule<T>& module_;
  const int64_t width_, state_width_, chunk_;
  const std::vector<ActiveRow> rows_;
  const std::vector<HeldEdges> held_;
  MessageTable<T> table_;
  T *state_, *own_, *own_gradient_;              // [chunk * receivers, ...]
  std::vector<T*> projection_gradient_;          // per type [wanted * chunk, width]
  std::vector<std::vector<T*>> layer_gradient_;  // per type and edge layer
  std::vector<const T*> sent_;                   // projected messages of the row being added up
  T *z_, *z_gradient_;                           // [kNodeRows, width]
  std::vector<T*> output_, output_gradient_;     // per layer of the rest
  Waiting block_[kNodeRows];
  int64_t waiting_ = 0;
};

// What a lane takes at a time: some of the transitions of a group.
struct GradientTile {
  const ReceiverGroup* group;
  int64_t begin, end;
};

// Few systems are cut by transitions rather than by receivers: products stay large, and lanes, which all have to be
// cleared and added up, few.
std::vector<GradientTile> cut_transitions(const std::vector<ReceiverGroup>& groups, int64_t systems,
                                          int64_t transitions) {
  std::vector<GradientTile> tiles;
  for (const ReceiverGroup& group : groups) {
    const int64_t messages = group.edges() * transitions;
    const int64_t pieces = systems < kFewSystems ? std::min({kMostPieces, transitions, messages / kPieceMessages}) : 1;
    const int64_t count = std::max<int64_t>(1, pieces);
    for (int64_t i = 0; i < count; ++i) {
      tiles.push_back({&group, transitions * i / count, transitions * (i + 1) / count});
    }
  }
  return tiles;
}

template <typename T>
void heat_bath_gradient_variant(const HeatBathProblem<T>& problem, const T* cotangent, T* parameter_gradient,
                                const Execution& execution) {
  const auto packed = PackedCache<SplitLibrary<T>, T>::get(problem.library);
  const SplitLibrary<T>& library = *packed;
  const std::vector<ReceiverGroup> groups = group_receivers(problem, kGroupRows);
  const std::vector<GradientTile> tiles = cut_transitions(groups, problem.graph.systems, problem.transitions);
  const T* total = GradientLanes<T>::sum(
      library.gradient_size, execution.threads, static_cast<int64_t>(tiles.size()), [&](int64_t i, T* gradients) {
        const GradientTile& tile = tiles[i];
        GroupGradient<T>(problem, library, *tile.group, cotangent, tile.end - tile.begin)
            .add_to(tile.begin, tile.end, gradients);
      });
  library.unpad(total, parameter_gradient);
}

}  // namespace

void heat_bath_gradient(const HeatBathProblem<float>& problem, const float* cotangent, float* parameter_gradient,
                        const Execution& execution) {
  heat_bath_gradient_variant(problem, cotangent, parameter_gradient, execution);
}
void heat_bath_gradient(const HeatBathProblem<double>& problem, const double* cotangent, double* parameter_gradient,
                        const Execution& execution) {
  heat_bath_gradient_variant(problem, cotangent, parameter_gradient, execution);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
