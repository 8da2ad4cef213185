#include "cpu/gradient_lanes.h"
#include "cpu/heat_bath_messages.h"
#include "cpu/transition_error.h"
#include "ops/heat_bath.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

// A row whose cotangent is not zero.
struct ActiveRow {
  int64_t receiver;    // number in the group
  int64_t assignment;  // number among the receiver's
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
      rows.push_back({v - group.first_node, a, problem.graph.in_offset[v] - group.first_edge, degree, types,
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
// edge modules at once. Where scoring has kept what rows and messages were, nothing runs forwards again.
template <typename T>
class TileGradient {
 public:
  TileGradient(const HeatBathProblem<T>& problem, const SplitLibrary<T>& library, const HeatBathTile& tile,
               const KeptActivations<T>& kept, const T* cotangent)
      : arena_(worker_arena()),
        problem_(problem),
        library_(library),
        group_(*tile.group),
        tile_(tile),
        kept_(kept),
        module_(library.node[group_.node_type]),
        width_(padded<T>(module_.first_width())),
        state_width_(padded<T>(library.features)),
        chunk_(tile.chunk()),
        rows_(active_rows(arena_, problem, group_, cotangent)),
        held_(held_edges(rows_)),
        pairs_(pairs_read(arena_, problem, group_, rows_, held_)),
        transitions_(problem, group_),
        table_(arena_, problem, library, group_, transitions_, pairs_in_table(), chunk_,
               kept ? Outputs::none : Outputs::all) {
    const int64_t entities = chunk_ * group_.receivers();
    kept_row_.resize(entities);
    state_ = arena_.take<T>(entities * state_width_);
    own_ = arena_.take<T>(entities * width_);
    own_gradient_ = arena_.take<T>(entities * width_);
    for (size_t k = 0; k < table_.types().size(); ++k) {
      const int64_t messages = table_.types()[k].wanted * chunk_;
      projection_gradient_.push_back(arena_.take<T>(messages * width_));
      layer_gradient_.emplace_back();
      gathered_.emplace_back();
      for (const Layer<T>& layer : library.edge[k].layers) {
        layer_gradient_.back().push_back(arena_.take<T>(messages * padded<T>(layer.out)));
        if (kept) gathered_.back().push_back(arena_.take<T>(messages * padded<T>(layer.out)));
      }
    }
    z_ = arena_.take<T>(kNodeRows * width_);
    z_gradient_ = arena_.take<T>(kNodeRows * width_);
    for (const Layer<T>& layer : module_.rest.layers) {
      output_.push_back(arena_.take<T>(kNodeRows * padded<T>(layer.out)));
      output_gradient_.push_back(arena_.take<T>(kNodeRows * padded<T>(layer.out)));
    }
  }

  void add_to(T* gradients) {
    const int64_t end = std::min(tile_.end, transitions_.count());
    for (int64_t first = tile_.begin; !rows_.empty() && first < end; first += chunk_) {
      const int64_t count = std::min(chunk_, end - first);
      start_chunk(first, count);
      for (int64_t t = 0; t < count; ++t) {
        for (const ActiveRow& row : rows_) {
          if (!transitions_.is_compared(first + t, group_.first_node + row.receiver)) continue;
          add_row(row, t, first + t);
          if (waiting_ == kNodeRows) run_block(gradients);
        }
      }
      run_block(gradients);
      send_back_to_held(count);
      module_.own.add_gradient({{state_, own_gradient_, count * group_.receivers()}}, gradients);
      messages_backward(count, gradients);
    }
  }

 private:
  // A row in the block: whom it belongs to, and the transition it predicts.
  struct Waiting {
    const ActiveRow* row;
    int64_t transition;  // in the chunk
    int64_t kept;        // number of the row where rows are kept
    const T *before, *after;
  };

  // What is kept are the outputs for all pairs that scoring reads, so these are what the table numbers then.
  const uint8_t* pairs_in_table() {
    if (!kept_) return pairs_;
    std::vector<Assignments> assignments;
    for (int64_t v = group_.first_node; v < group_.last_node; ++v) assignments.emplace_back(problem_, v);
    return pairs_of(arena_, problem_, group_, assignments);
  }

  void start_chunk(int64_t first, int64_t count) {
    const int64_t features = library_.features;
    if (kept_) {
      table_.place_outputs(kept_, first);
      table_.list(first, count);
      number_kept_rows(first, count);
    } else {
      table_.run(first, count);
    }
    for (int64_t t = 0; t < count; ++t) {
      const T* states = transitions_.before(first + t) + (group_.first_node - transitions_.node_base()) * features;
      for (int64_t j = 0; j < group_.receivers(); ++j) {
        T* state = state_ + (t * group_.receivers() + j) * state_width_;
        if (transitions_.is_compared(first + t, group_.first_node + j)) {
          std::copy_n(states + j * features, features, state);
        } else {
          std::fill_n(state, features, T(0));  // nothing is sent back to it; not to be NaN is enough
        }
      }
    }
    if (!kept_) own_parts(count);
    std::fill_n(own_gradient_, count * group_.receivers() * width_, T(0));
    for (size_t k = 0; k < table_.types().size(); ++k) {
      std::fill_n(projection_gradient_[k], table_.types()[k].rows * width_, T(0));
    }
  }

  void number_kept_rows(int64_t first, int64_t count) {
    int64_t row = first * rows_of(problem_, group_);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t j = 0; j < group_.receivers(); ++j) {
        const int64_t v = group_.first_node + j;
        kept_row_[t * group_.receivers() + j] = row;
        if (transitions_.is_compared(first + t, v)) row += problem_.row_offset[v + 1] - problem_.row_offset[v];
      }
    }
  }

  // The sums that a receiver's rows have in common.
  void own_parts(int64_t count) {
    module_.own.apply(state_, count * group_.receivers(), own_, false);
    for (const HeldEdges& held : held_) {
      for (int64_t t = 0; t < count; ++t) {
        table_.add_held(held.types, held.first_edge, t, own_ + (t * group_.receivers() + held.receiver) * width_);
      }
    }
  }

  void add_row(const ActiveRow& row, int64_t t, int64_t transition) {
    const int64_t receiver = t * group_.receivers() + row.receiver;
    if (!kept_) {
      sent_.clear();
      for (int64_t i = 0; i < row.degree; ++i) {
        if (const T* message = table_.projection(row.types[i], row.first_edge + i, t)) sent_.push_back(message);
      }
      add_all(own_ + receiver * width_, sent_.data(), static_cast<int64_t>(sent_.size()), width_,
              !module_.rest.layers.empty(), z_ + waiting_ * width_);
    }
    const int64_t offset = (group_.first_node + row.receiver - transitions_.node_base()) * library_.features;
    block_[waiting_++] = {&row, t, kept_ ? kept_row_[receiver] + row.assignment : 0,
                          transitions_.before(transition) + offset, transitions_.after(transition) + offset};
  }

  // The block's rows in the first node layer and behind it, as scoring kept them: where they are if they lie side by
  // side, else copied together.
  void take_kept(MlpPass<T>* pass) {
    if (waiting_ == 0) return;
    const int64_t first = block_[0].kept;
    const bool together = block_[waiting_ - 1].kept - first == waiting_ - 1;
    const auto take = [&](int64_t layer, int64_t width, T* copies) {
      if (together) return kept_.rows(layer, first);
      for (int64_t i = 0; i < waiting_; ++i) std::copy_n(kept_.rows(layer, block_[i].kept), width, copies + i * width);
      return copies;
    };
    pass->input = take(0, width_, z_);
    for (size_t l = 0; l < output_.size(); ++l) {
      pass->activation[l] = take(static_cast<int64_t>(l) + 1, padded<T>(module_.rest.layers[l].out), output_[l]);
    }
  }

  void run_block(T* gradients) {
    const int64_t features = library_.features;
    const Mlp<T>& rest = module_.rest;
    MlpPass<T> pass{z_, waiting_, output_, output_gradient_};
    if (kept_) {
      take_kept(&pass);
    } else {
      rest.forward(z_, waiting_, output_.data());
    }
    const T* change = output_.empty() ? pass.input : pass.activation.back();
    T* change_gradient = output_.empty() ? z_gradient_ : output_gradient_.back();
    const int64_t stride = output_.empty() ? width_ : state_width_;
    const T step_scale = step_scale_of(problem_, group_.system);
    std::vector<T> predicted(features);
    for (int64_t i = 0; i < waiting_; ++i) {
      const ActiveRow& row = *block_[i].row;
      for (int64_t d = 0; d < features; ++d) predicted[d] = block_[i].before[d] + step_scale * change[i * stride + d];
      const double transitions = static_cast<double>(transitions_.compared(group_.first_node + row.receiver));
      const double factor = row.cotangent / transitions * static_cast<double>(step_scale);
      transition_error_gradient(problem_.error, features, predicted.data(), block_[i].after, factor,
                                change_gradient + i * stride);
    }
    if (!rest.layers.empty()) {
      rest.backward(pass, z_gradient_, pass.input);
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

  void messages_backward(int64_t count, T* gradients) {
    for (size_t k = 0; k < table_.types().size(); ++k) {
      const TypeMessages<T>& type = table_.types()[k];
      if (type.rows == 0) continue;
      MlpPass<T> pass{type.pair, type.rows, type.output, layer_gradient_[k]};
      if (kept_) leave_out_unread(static_cast<int64_t>(k), count, &pass);
      if (pass.rows == 0) continue;
      const T* sent = pass.activation.back();
      module_.projection.add_gradient({{sent, projection_gradient_[k], pass.rows}}, gradients);
      module_.projection.apply_backward(projection_gradient_[k], pass.rows, sent, pass.gradient.back());
      library_.edge[k].backward(pass, nullptr, nullptr);
      library_.edge[k].add_gradients({pass}, gradients);
    }
  }

  // Messages that no active row reads have no gradient: the others move together.
  void leave_out_unread(int64_t k, int64_t count, MlpPass<T>* pass) {
    const TypeMessages<T>& type = table_.types()[k];
    const uint8_t* read = pairs_ + k * group_.edges();
    if (std::all_of(type.edges, type.edges + type.wanted, [&](int64_t e) { return read[e] != 0; })) return;
    const int64_t pair_width = padded<T>(2 * library_.features);
    T* pairs = type.pair;
    T* sent = projection_gradient_[k];
    pass->rows = 0;
    pass->activation = gathered_[k];
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t i = 0; i < type.wanted; ++i) {
        const int64_t e = type.edges[i], row = type.row[t * group_.edges() + e], place = pass->rows;
        if (row < 0 || !read[e]) continue;
        std::copy_n(pairs + row * pair_width, pair_width, pairs + place * pair_width);
        std::copy_n(sent + row * width_, width_, sent + place * width_);
        for (size_t l = 0; l < type.output.size(); ++l) {
          const int64_t width = padded<T>(library_.edge[k].layers[l].out);
          std::copy_n(type.output[l] + row * width, width, gathered_[k][l] + place * width);
        }
        pass->rows += 1;
      }
    }
  }

  Arena& arena_;
  const HeatBathProblem<T>& problem_;
  const SplitLibrary<T>& library_;
  const ReceiverGroup& group_;
  const HeatBathTile& tile_;
  const KeptActivations<T> kept_;
  const SplitNodeModule<T>& module_;
  const int64_t width_, state_width_, chunk_;
  const std::vector<ActiveRow> rows_;
  const std::vector<HeldEdges> held_;
  const uint8_t* pairs_;  // that active rows read
  const GroupTransitions<T> transitions_;
  MessageTable<T> table_;
  std::vector<int64_t> kept_row_;                // [chunk * receivers] the first of a receiver's, where rows are kept
  T *state_, *own_, *own_gradient_;              // [chunk * receivers, ...]
  std::vector<T*> projection_gradient_;          // per type [wanted * chunk, width]
  std::vector<std::vector<T*>> layer_gradient_;  // per type and edge layer
  std::vector<std::vector<T*>> gathered_;        // the same: outputs that were kept, without unread messages
  std::vector<const T*> sent_;                   // projected messages of the row being added up
  T *z_, *z_gradient_;                           // [kNodeRows, width]
  std::vector<T*> output_, output_gradient_;     // per layer of the rest
  Waiting block_[kNodeRows];
  int64_t waiting_ = 0;
};

template <typename T>
void heat_bath_gradient_variant(const HeatBathProblem<T>& problem, const T* cotangent, T* parameter_gradient,
                                const Execution& execution) {
  const auto packed = PackedCache<SplitLibrary<T>, T>::get(problem.library);
  const SplitLibrary<T>& library = *packed;
  const HeatBathPlan<T> plan(problem);
  const T* total =
      GradientLanes<T>::sum(library.gradient_size, execution.threads, static_cast<int64_t>(plan.tiles().size()),
                            [&](int64_t i, T* gradients) {
                              const HeatBathTile& tile = plan.tiles()[i];
                              TileGradient<T>(problem, library, tile, plan.kept(tile), cotangent).add_to(gradients);
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
