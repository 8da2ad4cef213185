#include "ops/heat_bath.h"

#include <type_traits>

#include "cpu/heat_bath_messages.h"
#include "cpu/thread_pool.h"
#include "cpu/transition_error.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

constexpr int64_t kMostErrors = int64_t{1} << 20;  // of single transitions that wait to be added up

// Bytes that are kept at most: what a last-level cache holds, and what malloc leaves with the process from call to
// call. Rows of narrow layers are run again as fast as they are fetched from beyond the second-level cache.
constexpr int64_t kMostKept = int64_t{24} << 20;
constexpr int64_t kMostKeptOfNarrow = int64_t{4} << 20;
constexpr int64_t kNarrowLayers = 96;  // below this

template <typename T>
int64_t errors_of(const HeatBathProblem<T>& problem) {
  return problem.row_offset[problem.graph.nodes] * problem.transitions;
}

// Whether tiles may have some of a group's transitions each. Otherwise few systems are cut into their receivers.
template <typename T>
bool has_table(const HeatBathProblem<T>& problem) {
  return problem.graph.systems >= kFewSystems || errors_of(problem) <= kMostErrors;
}

// The sum of a row's errors. The robust error's logarithms are taken of the product over a few transitions, which in
// double cannot leave the range while single errors are floats.
template <typename T>
class ErrorSum {
 public:
  void add(const ErrorView<T>& error, double e) {
    if (error.kind == ErrorKind::squared) {
      sum_ += e;
      return;
    }
    product_ *= error.scale_squared + e;
    if (++factors_ < kFactors) return;
    sum_ += std::log(product_);
    product_ = 1.0;
    factors_ = 0;
  }

  double total() const { return factors_ ? sum_ + std::log(product_) : sum_; }

 private:
  static constexpr int64_t kFactors = std::is_same_v<T, float> ? 4 : 1;
  double sum_ = 0.0, product_ = 1.0;
  int64_t factors_ = 0;  // of the product
};

// Where the errors of a group's rows go: to their sums, or, where other threads have other transitions of the same
// rows, to a table from which they are added up in order later.
template <typename T>
class RowErrors {
 public:
  RowErrors(Arena& arena, const HeatBathProblem<T>& problem, int64_t rows, double* table)
      : problem_(problem), table_(table), sum_(table ? nullptr : arena.take<ErrorSum<T>>(rows)) {
    if (sum_) std::fill_n(sum_, rows, ErrorSum<T>());
  }

  // place: which of its receiver's compared transitions it is
  void add(int64_t row, int64_t place, double e) {
    if (table_) {
      table_[row * problem_.transitions + place] = e;
    } else {
      sum_[row].add(problem_.error, e);
    }
  }

  double total(int64_t row) const { return sum_[row].total(); }

 private:
  const HeatBathProblem<T>& problem_;
  double* table_;  // [rows, transitions]
  ErrorSum<T>* sum_;
};

// Rows of the node module waiting to be run and compared.
template <typename T>
class RowBlock {
 public:
  RowBlock(Arena& arena, const HeatBathProblem<T>& problem, const SplitNodeModule<T>& module, T step_scale,
           const KeptActivations<T>& kept)
      : problem_(problem),
        module_(module),
        step_scale_(step_scale),
        width_(padded<T>(module.first_width())),
        kept_(kept),
        output_(module.rest.layers.size()) {
    if (kept) return;
    const int64_t widest = std::max(module.rest.widest(), width_);
    z_ = arena.take<T>(kNodeRows * width_);
    T* spare[2] = {arena.take<T>(kNodeRows * widest), arena.take<T>(kNodeRows * widest)};
    for (size_t l = 0; l < output_.size(); ++l) output_[l] = spare[l % 2];
  }

  // The rows that follow are those from number `row` on, where rows are kept.
  void start(int64_t row) { row_ = row; }

  bool full() const { return count_ == kNodeRows; }
  T* next(int64_t row, int64_t place, const T* state, const T* recorded) {
    if (kept_ && count_ == 0) place_outputs();
    waiting_[count_] = {row, place, state, recorded};
    return z_ + width_ * count_++;
  }

  void flush(RowErrors<T>& errors) {
    module_.rest.forward(z_, count_, output_.data());
    const int64_t features = problem_.library.features;
    const T* change = output_.empty() ? z_ : output_.back();
    const int64_t stride = output_.empty() ? width_ : padded<T>(features);
    std::vector<T> predicted(features);
    for (int64_t i = 0; i < count_; ++i) {
      const Waiting& row = waiting_[i];
      for (int64_t d = 0; d < features; ++d) predicted[d] = row.state[d] + step_scale_ * change[i * stride + d];
      errors.add(row.row, row.place, weighted_error(problem_.error, features, predicted.data(), row.recorded));
    }
    row_ += count_;
    count_ = 0;
  }

 private:
  struct Waiting {
    int64_t row, place;
    const T *state, *recorded;
  };

  void place_outputs() {
    z_ = kept_.rows(0, row_);
    for (size_t l = 0; l < output_.size(); ++l) output_[l] = kept_.rows(static_cast<int64_t>(l) + 1, row_);
  }

  const HeatBathProblem<T>& problem_;
  const SplitNodeModule<T>& module_;
  T step_scale_;
  int64_t width_, count_ = 0, row_ = 0;
  const KeptActivations<T> kept_;
  T* z_ = nullptr;
  std::vector<T*> output_;
  Waiting waiting_[kNodeRows];
};

// table: [rows, transitions] errors of the group's rows; null: the tile has all transitions, and writes scores itself.
template <typename T>
void score_tile(const HeatBathProblem<T>& problem, const SplitLibrary<T>& library, const HeatBathTile& tile,
                const KeptActivations<T>& kept, double* table, T* scores) {
  Arena& arena = worker_arena();
  const ReceiverGroup& group = *tile.group;
  const SplitNodeModule<T>& module = library.node[group.node_type];
  const int64_t features = library.features, width = padded<T>(module.first_width());
  const int64_t chunk = tile.chunk(), rows = rows_of(problem, group);
  std::vector<Assignments> assignments;
  for (int64_t v = group.first_node; v < group.last_node; ++v) assignments.emplace_back(problem, v);
  const GroupTransitions<T> transitions(problem, group);
  const uint8_t* pairs = pairs_of(arena, problem, group, assignments);
  MessageTable<T> messages(arena, problem, library, group, transitions, pairs, chunk,
                           kept ? Outputs::none : Outputs::last);
  const int64_t first_row = problem.row_offset[group.first_node];
  RowErrors<T> errors(arena, problem, rows, table);
  RowBlock<T> block(arena, problem, module, step_scale_of(problem, group.system), kept);
  T* state = arena.take<T>(padded<T>(features));
  std::vector<FirstLayerSums<T>> sums;
  std::vector<int64_t> place;  // of the next transition among those in which a receiver is compared
  for (int64_t j = 0; j < group.receivers(); ++j) {
    sums.emplace_back(arena, static_cast<int64_t>(assignments[j].types().size()), width);
    place.push_back(transitions.compared_before(std::min(tile.begin, transitions.count()), group.first_node + j));
  }
  const int64_t end = std::min(tile.end, transitions.count());
  for (int64_t l = tile.begin; l < end; l += chunk) {
    const int64_t count = std::min(chunk, end - l);
    if (kept) messages.place_outputs(kept, l);
    messages.run(l, count);
    block.start(l * rows);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t j = 0; j < group.receivers(); ++j) {
        const int64_t v = group.first_node + j;
        if (!transitions.is_compared(l + t, v)) continue;
        const int64_t offset = (v - transitions.node_base()) * features;
        std::copy_n(transitions.before(l + t) + offset, features, state);
        module.own.apply(state, 1, sums[j].own(), false);
        const int64_t row = problem.row_offset[v] - first_row;
        const int64_t first_edge = problem.graph.in_offset[v] - group.first_edge;
        messages.add_held(assignments[j].types(), first_edge, t, sums[j].own());
        if (assignments[j].rows() > 0) assignments[j].go(0);
        for (int64_t a = 0; a < assignments[j].rows(); ++a) {
          const int64_t changed = a == 0 ? 0 : assignments[j].advance();
          T* z = block.next(row + a, place[j], transitions.before(l + t) + offset, transitions.after(l + t) + offset);
          sums[j].add_up(messages, first_edge, assignments[j].types(), changed, t, z, !module.rest.layers.empty());
          if (block.full()) block.flush(errors);
        }
        place[j] += 1;
      }
    }
    block.flush(errors);
  }
  if (table) return;
  for (int64_t v = group.first_node; v < group.last_node; ++v) {
    const double compared = static_cast<double>(transitions.compared(v));
    for (int64_t row = problem.row_offset[v]; row < problem.row_offset[v + 1]; ++row) {
      scores[row] = compared > 0 ? static_cast<T>(errors.total(row - first_row) / compared) : T(0);
    }
  }
}

// Adds up the errors that several tiles left in a table [rows, transitions], in the order of a tile that has them all.
template <typename T>
void add_up_table(const HeatBathProblem<T>& problem, const ReceiverGroup& group, const double* table, T* scores) {
  const GroupTransitions<T> transitions(problem, group);
  for (int64_t v = group.first_node; v < group.last_node; ++v) {
    const int64_t compared = transitions.compared(v);
    for (int64_t row = problem.row_offset[v]; row < problem.row_offset[v + 1]; ++row, table += problem.transitions) {
      ErrorSum<T> sum;
      for (int64_t i = 0; i < compared; ++i) sum.add(problem.error, table[i]);
      scores[row] = compared > 0 ? static_cast<T>(sum.total() / static_cast<double>(compared)) : T(0);
    }
  }
}

template <typename T>
void heat_bath_scores_variant(const HeatBathProblem<T>& problem, T* scores, const Execution& execution) {
  if (problem.graph.systems == 0) return;
  const auto packed = PackedCache<SplitLibrary<T>, T>::get(problem.library);
  const SplitLibrary<T>& library = *packed;
  const HeatBathPlan<T> plan = has_table(problem) ? HeatBathPlan<T>(problem, problem.kept ? kLearnedRows : kScoredRows)
                                                  : HeatBathPlan<T>::by_receivers(problem);
  const bool split = plan.tiles().size() > plan.groups().size();
  std::vector<double> table(split ? errors_of(problem) : 0);
  const auto table_of = [&](const ReceiverGroup& group) {
    return split ? table.data() + problem.row_offset[group.first_node] * problem.transitions : nullptr;
  };
  parallel_for(execution.threads, static_cast<int64_t>(plan.tiles().size()), [&](int64_t i, int) {
    const HeatBathTile& tile = plan.tiles()[i];
    score_tile(problem, library, tile, plan.kept(tile), table_of(*tile.group), scores);
  });
  if (!split) return;
  parallel_for(execution.threads, static_cast<int64_t>(plan.groups().size()),
               [&](int64_t i, int) { add_up_table(problem, plan.groups()[i], table_of(plan.groups()[i]), scores); });
}

template <typename T>
int64_t heat_bath_kept_variant(const HeatBathProblem<T>& problem, const Execution& execution) {
  if (problem.graph.systems == 0 || !has_table(problem)) return 0;
  if (execution.precision != Precision::fp32) return 0;  // the gradient is that of exact scores
  const int64_t values = HeatBathPlan<T>(problem).kept_values();
  const bool narrow = std::max(problem.library.message(), problem.library.node_sizes[1]) < kNarrowLayers;
  return values * static_cast<int64_t>(sizeof(T)) <= (narrow ? kMostKeptOfNarrow : kMostKept) ? values : 0;
}

}  // namespace

int64_t heat_bath_kept(const HeatBathProblem<float>& problem, const Execution& execution) {
  return heat_bath_kept_variant(problem, execution);
}
int64_t heat_bath_kept(const HeatBathProblem<double>& problem, const Execution& execution) {
  return heat_bath_kept_variant(problem, execution);
}
void heat_bath_scores(const HeatBathProblem<float>& problem, float* scores, const Execution& execution) {
  heat_bath_scores_variant(problem, scores, execution);
}
void heat_bath_scores(const HeatBathProblem<double>& problem, double* scores, const Execution& execution) {
  heat_bath_scores_variant(problem, scores, execution);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
