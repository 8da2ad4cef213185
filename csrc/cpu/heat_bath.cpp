#include "ops/heat_bath.h"

#include <type_traits>

#include "cpu/heat_bath_messages.h"
#include "cpu/thread_pool.h"
#include "cpu/transition_error.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

// Sums of errors per row. The robust error's logarithms are taken of the product over a few of a row's transitions,
// which in double cannot leave the range while single errors are floats.
template <typename T>
class ErrorSums {
 public:
  ErrorSums(Arena& arena, const ErrorView<T>& error, int64_t rows)
      : error_(error),
        sum_(arena.take<double>(rows)),
        product_(arena.take<double>(rows)),
        factors_(arena.take<uint8_t>(rows)) {
    std::fill_n(sum_, rows, 0.0);
    std::fill_n(product_, rows, 1.0);
    std::fill_n(factors_, rows, uint8_t{0});
  }

  void add(int64_t row, int64_t features, const T* predicted, const T* recorded) {
    const double e = weighted_error(error_, features, predicted, recorded);
    if (error_.kind == ErrorKind::squared) {
      sum_[row] += e;
      return;
    }
    product_[row] *= error_.scale_squared + e;
    if (++factors_[row] < kFactors) return;
    sum_[row] += std::log(product_[row]);
    product_[row] = 1.0;
    factors_[row] = 0;
  }

  double total(int64_t row) const { return factors_[row] ? sum_[row] + std::log(product_[row]) : sum_[row]; }

 private:
  static constexpr uint8_t kFactors = std::is_same_v<T, float> ? 4 : 1;
  const ErrorView<T>& error_;
  double *sum_, *product_;
  uint8_t* factors_;  // of a row's product
};

// Rows of the node module waiting to be run and compared.
template <typename T>
class RowBlock {
 public:
  RowBlock(Arena& arena, const SplitNodeModule<T>& module, int64_t features, T step_scale)
      : module_(module),
        features_(features),
        step_scale_(step_scale),
        width_(padded<T>(module.first_width())),
        z_(arena.take<T>(kNodeRows * width_)) {
    const int64_t widest = std::max(module.rest.widest(), width_);
    T* spare[2] = {arena.take<T>(kNodeRows * widest), arena.take<T>(kNodeRows * widest)};
    for (size_t l = 0; l < module.rest.layers.size(); ++l) output_.push_back(spare[l % 2]);
  }

  bool full() const { return count_ == kNodeRows; }
  T* next(int64_t row, const T* state, const T* recorded) {
    waiting_[count_] = {row, state, recorded};
    return z_ + width_ * count_++;
  }

  void flush(ErrorSums<T>& errors) {
    module_.rest.forward(z_, count_, output_.data());
    const T* change = output_.empty() ? z_ : output_.back();
    const int64_t stride = output_.empty() ? width_ : padded<T>(features_);
    std::vector<T> predicted(features_);
    for (int64_t i = 0; i < count_; ++i) {
      for (int64_t d = 0; d < features_; ++d) {
        predicted[d] = waiting_[i].state[d] + step_scale_ * change[i * stride + d];
      }
      errors.add(waiting_[i].row, features_, predicted.data(), waiting_[i].recorded);
    }
    count_ = 0;
  }

 private:
  struct Waiting {
    int64_t row;
    const T *state, *recorded;
  };
  const SplitNodeModule<T>& module_;
  int64_t features_;
  T step_scale_;
  int64_t width_, count_ = 0;
  T* z_;
  std::vector<T*> output_;
  Waiting waiting_[kNodeRows];
};

// Which (type, edge) pairs the rows read: [K, edges of the group].
template <typename T>
const uint8_t* pairs_read(Arena& arena, const HeatBathProblem<T>& problem, const ReceiverGroup& group,
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

template <typename T>
void score_group(const HeatBathProblem<T>& problem, const SplitLibrary<T>& library, const ReceiverGroup& group,
                 T* scores) {
  Arena& arena = worker_arena();
  const SplitNodeModule<T>& module = library.node[group.node_type];
  const int64_t features = library.features, width = padded<T>(module.first_width());
  const int64_t chunk = std::min(problem.transitions, transitions_in_chunk(group));
  std::vector<Assignments> assignments;
  for (int64_t v = group.first_node; v < group.last_node; ++v) assignments.emplace_back(problem, v);
  MessageTable<T> table(arena, problem, library, group, pairs_read(arena, problem, group, assignments), chunk, false);
  const int64_t first_row = problem.row_offset[group.first_node];
  ErrorSums<T> errors(arena, problem.error, problem.row_offset[group.last_node] - first_row);
  RowBlock<T> block(arena, module, features, step_scale_of(problem, group.system));
  T* state = arena.take<T>(padded<T>(features));
  std::vector<FirstLayerSums<T>> sums;
  for (const Assignments& assignment : assignments) {
    sums.emplace_back(arena, static_cast<int64_t>(assignment.types().size()), width);
  }
  for (int64_t l = 0; l < table.transitions(); l += chunk) {
    const int64_t count = std::min(chunk, table.transitions() - l);
    table.run(l, count);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t j = 0; j < group.receivers(); ++j) {
        const int64_t v = group.first_node + j;
        if (!table.is_compared(l + t, v)) continue;
        const int64_t offset = (v - table.node_base()) * features;
        std::copy_n(table.state_before(l + t) + offset, features, state);
        module.own.apply(state, 1, sums[j].own(), false);
        const int64_t row = problem.row_offset[v] - first_row;
        const int64_t first_edge = problem.graph.in_offset[v] - group.first_edge;
        table.add_held(assignments[j].types(), first_edge, t, sums[j].own());
        if (assignments[j].rows() > 0) assignments[j].go(0);
        for (int64_t a = 0; a < assignments[j].rows(); ++a) {
          const int64_t changed = a == 0 ? 0 : assignments[j].advance();
          T* z = block.next(row + a, table.state_before(l + t) + offset, table.state_after(l + t) + offset);
          sums[j].add_up(table, first_edge, assignments[j].types(), changed, t, z, !module.rest.layers.empty());
          if (block.full()) block.flush(errors);
        }
      }
    }
  }
  block.flush(errors);
  for (int64_t v = group.first_node; v < group.last_node; ++v) {
    const double transitions = static_cast<double>(table.compared(v));
    for (int64_t row = problem.row_offset[v]; row < problem.row_offset[v + 1]; ++row) {
      scores[row] = transitions > 0 ? static_cast<T>(errors.total(row - first_row) / transitions) : T(0);
    }
  }
}

template <typename T>
void heat_bath_scores_variant(const HeatBathProblem<T>& problem, T* scores, const Execution& execution) {
  if (problem.graph.systems == 0) return;
  const auto packed = PackedCache<SplitLibrary<T>, T>::get(problem.library);
  const SplitLibrary<T>& library = *packed;
  const std::vector<ReceiverGroup> groups =
      group_receivers(problem, problem.graph.systems < kFewSystems ? 1 : kGroupRows);
  parallel_for(execution.threads, static_cast<int64_t>(groups.size()),
               [&](int64_t i, int) { score_group(problem, library, groups[i], scores); });
}

}  // namespace

void heat_bath_scores(const HeatBathProblem<float>& problem, float* scores, const Execution& execution) {
  heat_bath_scores_variant(problem, scores, execution);
}
void heat_bath_scores(const HeatBathProblem<double>& problem, double* scores, const Execution& execution) {
  heat_bath_scores_variant(problem, scores, execution);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
