#include "cuda/chunks.h"
#include "cuda/fused_heat_bath.h"
#include "cuda/fused_heat_bath_gradient.h"
#include "cuda/gradient_units.h"
#include "cuda/heat_bath_kernels.h"
#include "cuda/module_gradient.h"
#include "ops/heat_bath.h"

namespace nri::cuda {
namespace {

// compared [nodes] = in how many of the problem's transitions each receiver is compared.
__global__ void count_compared_transitions(int64_t nodes, HeatBathView view, int64_t* compared) {
  const int64_t node = global_index();
  if (node >= nodes) return;
  int64_t count = view.transitions;
  for (int64_t l = 0; l < view.transitions && view.present != nullptr; ++l) {
    count -= !is_compared(view, view.range.first_node + node, l);
  }
  compared[node] = count;
}

// Rows of systems first .. end - 1.
template <typename T>
int64_t rows_of(const HeatBathProblem<T>& problem, int64_t first, int64_t end) {
  return problem.host_row_offset[end] - problem.host_row_offset[first];
}

// Item offsets of RowBuckets for each kind of row.
struct Groups {
  std::vector<int64_t> messages{0}, nodes{0}, rows{0};
};

// Scores and gradient of some systems and transitions.
template <typename T>
class HeatBathChunk {
 public:
  HeatBathChunk(const HeatBathProblem<T>& problem, const Unit& span, const Groups& groups, int64_t replicas, bool kept,
                const Execution& execution)
      : problem_(problem),
        execution_(execution),
        features_(problem.library.features),
        message_(problem.library.message()),
        edge_module_(edge_module(problem.library)),
        node_module_(node_module(problem.library)),
        width_(node_module_.first().out),
        holder_(problem.graph, span.first_system, span.end_system, execution),
        node_of_row_(rows_of(problem, span.first_system, span.end_system), execution),
        compared_(holder_.view().nodes, execution),
        edge_rows_(groups.messages, replicas, edge_module_.classes, execution),
        projection_rows_(groups.messages, replicas, node_module_.classes, execution),
        node_rows_(groups.nodes, replicas, node_module_.classes, execution),
        rows_(groups.rows, replicas, node_module_.classes, execution) {
    view_ = {holder_.view(),
             problem.trajectories.present,
             problem.trajectories.steps,
             problem.transitions,
             problem.start,
             problem.rows,
             problem.library.edge_types,
             problem.library.first_type(),
             edge_module_.classes,
             node_of_row_.count(),
             problem.host_row_offset[span.first_system],
             problem.row_offset,
             problem.edge_types,
             problem.stride,
             problem.held_weight,
             problem.node_types,
             node_of_row_.data()};
    const auto allocate = [&](int64_t count) {
      memory_.emplace_back(count, execution);
      return memory_.back().data();
    };
    const int64_t messages = RowBuckets::slots(replicas * groups.messages.back(), edge_rows_.view().buckets);
    const int64_t projections = RowBuckets::slots(replicas * groups.messages.back(), projection_rows_.view().buckets);
    const int64_t nodes = RowBuckets::slots(replicas * view_.range.nodes, node_rows_.view().buckets);
    const int64_t rows = RowBuckets::slots(replicas * view_.rows, rows_.view().buckets);
    x_ = allocate(replicas * view_.range.nodes * features_);
    fill_layers(edge_, problem.library.edge_sizes, 0, edge_module_, messages, kept, allocate);
    fill_layers(row_, problem.library.node_sizes, 1, node_module_, rows, kept, allocate);
    projection_input_ = allocate(projections * message_);
    projection_ = allocate(projections * width_);
    base_input_ = allocate(nodes * features_);
    base_ = allocate(nodes * width_);
    if (!kept) return;
    const int64_t scratch = std::max({rows * node_module_.widest, messages * edge_module_.widest,
                                      projections * std::max(message_, width_), nodes * width_});
    for (T*& array : scratch_) array = allocate(scratch);
  }

  static int64_t bytes(const HeatBathProblem<T>& problem, const Unit& span, int64_t units, bool kept) {
    const ModuleLayers edge = edge_module(problem.library);
    const ModuleLayers node = node_module(problem.library);
    const int64_t replicas = span.replicas();
    const int64_t nodes = ranges::nodes(problem.graph, span.first_system, span.end_system);
    const int64_t messages = ranges::edges(problem.graph, span.first_system, span.end_system) * edge.classes;
    const int64_t rows = rows_of(problem, span.first_system, span.end_system);
    const auto groups = [&](int64_t items) { return kept ? most_groups(items, replicas, units) : 1; };
    const auto slots = [&](int64_t items, int64_t classes) {
      return RowBuckets::slots(replicas * items, groups(items) * classes);
    };
    const auto index_bytes = [&](int64_t items, int64_t classes) {
      return RowBuckets::bytes(replicas * items, groups(items), classes);
    };
    const int64_t width = node.first().out;
    const int64_t edge_slots = slots(messages, edge.classes);
    const int64_t projection_slots = slots(messages, node.classes);
    const int64_t row_slots = slots(rows, node.classes);
    const int64_t node_slots = slots(nodes, node.classes);
    int64_t values = edge_slots * (kept ? edge.all_widths : 2 * edge.widest) +
                     row_slots * (kept ? node.all_widths : 2 * node.widest) +
                     projection_slots * (problem.library.message() + width) +
                     (node_slots + replicas * nodes) * (problem.library.features + width);
    if (kept) {
      values += 2 * (row_slots * node.widest + edge_slots * edge.widest + projection_slots * node.widest);
      values += std::max({groups(messages), groups(nodes), groups(rows)}) * node.end;
    }
    return values * static_cast<int64_t>(sizeof(T)) + index_bytes(messages, edge.classes) +
           index_bytes(messages, node.classes) + index_bytes(nodes, node.classes) + index_bytes(rows, node.classes) +
           (2 * nodes + 2 * rows) * static_cast<int64_t>(sizeof(int64_t));
  }

  // Buckets the rows of transitions first_transition and following, unless they are already; without those of zero
  // cotangent, if one is given.
  void assign(int64_t first_transition, int64_t replicas, const T* cotangent) {
    if (replicas_ == 0) {
      find_nodes_of_rows(view_, problem_.graph.nodes, node_of_row_.data(), execution_);
      launch_elements("count_compared_transitions", count_compared_transitions, view_.range.nodes, execution_, view_,
                      compared_.data());
    } else if (replicas == replicas_ && view_.present == nullptr) {
      return;  // who is there is all that tells transitions apart
    }
    heat_bath_keys(view_, first_transition, replicas, cotangent, edge_rows_.keys(), projection_rows_.keys(),
                   node_rows_.keys(), rows_.keys(), execution_);
    for (RowBuckets* buckets : {&edge_rows_, &projection_rows_, &node_rows_, &rows_}) buckets->assign(replicas);
    replicas_ = replicas;
  }

  // Predictions of every row in transitions first_transition and following.
  void forward(int64_t first_transition) {
    const T* parameters = problem_.library.parameters;
    const SlotView& messages = edge_rows_.view();
    const SlotView& projections = projection_rows_.view();
    const SlotView& nodes = node_rows_.view();
    const SlotView& rows = rows_.view();
    launch_elements("gather_transitions", gather_transitions<T>, replicas_ * view_.range.nodes * features_, execution_,
                    view_.range, problem_.trajectories, features_, problem_.transitions, first_transition,
                    problem_.start, x_);
    launch_elements("message_inputs", message_inputs<T>, messages.slots * 2 * features_, execution_, messages, view_,
                    features_, x_, edge_[0]);
    for (int64_t i = 0; i < edge_module_.depth(); ++i) {
      typed_linear<T>(messages, edge_module_.layers[i], parameters, edge_[i], edge_[i + 1], execution_);
    }
    launch_elements("reorder", reorder<T>, projections.slots * message_, execution_, projections, messages.slot_of_row,
                    message_, edge_.back(), nullptr, projection_input_);
    typed_linear<T>(projections, message_columns(), parameters, projection_input_, projection_, execution_);
    launch_elements("reorder", reorder<T>, nodes.slots * features_, execution_, nodes, nullptr, features_, x_, nullptr,
                    base_input_);
    typed_linear<T>(nodes, state_columns(), parameters, base_input_, base_, execution_);
    sum_projections<T>(view_, rows, projections, nodes, width_, node_module_.first().relu, projection_, base_, row_[1],
                       execution_);
    for (int64_t i = 1; i < node_module_.depth(); ++i) {
      typed_linear<T>(rows, node_module_.layers[i], parameters, row_[i], row_[i + 1], execution_);
    }
    launch_elements("predict", predict<T>, rows.slots * features_, execution_, rows, view_, features_,
                    problem_.trajectories.step_scale, x_, row_.back());
  }

  void add_errors(int64_t first_transition, double* sums) const {
    launch_elements("add_row_errors", add_row_errors<T>, view_.rows, execution_, rows_.view(), view_,
                    problem_.trajectories, problem_.error, features_, problem_.transitions, first_transition, replicas_,
                    problem_.start, row_.back(), sums);
  }

  void write_means(const double* sums, T* scores) const {
    launch_elements("write_scores", write_scores<T>, view_.rows, execution_, view_, compared_.data(), sums,
                    scores + view_.first_row);
  }

  void backward(int64_t first_transition, const T* cotangent, T* group_sums, int64_t parameters_count) {
    const T* parameters = problem_.library.parameters;
    const SlotView& messages = edge_rows_.view();
    const SlotView& projections = projection_rows_.view();
    const SlotView& nodes = node_rows_.view();
    const SlotView& rows = rows_.view();
    Cotangents<T> work{scratch_[0], scratch_[1]};
    launch_elements("row_error_slopes", row_error_slopes<T>, rows.slots, execution_, rows, view_, problem_.trajectories,
                    problem_.error, features_, problem_.transitions, first_transition, problem_.start, compared_.data(),
                    cotangent, row_.back(), work.current);
    backward_layers(rows, node_module_, 1, InputCotangent::rectified, parameters, row_, work, group_sums,
                    parameters_count, execution_);
    spread_to_bases<T>(view_, rows, nodes, width_, work.current, work.spare, execution_);
    typed_linear_weight_gradient<T>(nodes, state_columns(), work.spare, base_input_, group_sums, parameters_count,
                                    execution_);
    spread_to_projections<T>(view_, rows, projections, width_, work.current, work.spare, execution_);
    typed_linear_weight_gradient<T>(projections, message_columns(), work.spare, projection_input_, group_sums,
                                    parameters_count, execution_);
    typed_linear_input_gradient<T>(projections, message_columns(), parameters, work.spare, nullptr, work.current,
                                   execution_);
    launch_elements("reorder", reorder<T>, messages.slots * message_, execution_, messages, projections.slot_of_row,
                    message_, work.current, edge_.back(), work.spare);
    std::swap(work.current, work.spare);
    backward_layers(messages, edge_module_, 0, InputCotangent::unwanted, parameters, edge_, work, group_sums,
                    parameters_count, execution_);
  }

 private:
  // list[i] is the input of layer i; those before `first` are not needed. Kept, or taking turns in two arrays.
  template <typename Allocate>
  static void fill_layers(std::vector<T*>& list, const int64_t* sizes, int64_t first, const ModuleLayers& module,
                          int64_t slots, bool kept, const Allocate& allocate) {
    list.assign(first, nullptr);
    T* turns[2] = {nullptr, nullptr};
    for (int64_t i = first; i <= module.depth(); ++i) {
      if (kept) {
        list.push_back(allocate(slots * sizes[i]));
        continue;
      }
      T*& array = turns[i % 2];
      if (array == nullptr) array = allocate(slots * module.widest);
      list.push_back(array);
    }
  }

  Layer message_columns() const { return columns_of(node_module_.first(), 0, message_, false); }
  Layer state_columns() const { return columns_of(node_module_.first(), message_, features_, true); }

  HeatBathProblem<T> problem_;
  Execution execution_;
  int64_t features_;
  int64_t message_;
  ModuleLayers edge_module_;
  ModuleLayers node_module_;
  int64_t width_;  // outputs of the node module's first layer
  SystemRangeHolder holder_;
  Buffer<int64_t> node_of_row_;
  Buffer<int64_t> compared_;  // [nodes] transitions
  RowBuckets edge_rows_, projection_rows_, node_rows_, rows_;
  HeatBathView view_;
  int64_t replicas_ = 0;
  std::vector<Buffer<T>> memory_;
  std::vector<T*> edge_, row_;
  T *x_, *projection_input_, *projection_, *base_input_, *base_;
  T* scratch_[2] = {nullptr, nullptr};
};

// Scores of systems first_system .. end_system - 1.
template <typename T>
void heat_bath_scores_of(const HeatBathProblem<T>& problem, int64_t first_system, int64_t end_system, T* scores,
                         const Execution& execution) {
  const GraphView& graph = problem.graph;
  const auto bytes = [&](const SystemChunk& chunk) {
    return HeatBathChunk<T>::bytes(problem, {chunk.first_system, chunk.end_system, 0, chunk.replicas}, 1, false);
  };
  for_system_chunks(first_system, end_system, problem.transitions, execution, bytes, [&](const SystemChunk& chunk) {
    const Unit span{chunk.first_system, chunk.end_system, 0, chunk.replicas};
    const int64_t classes = problem.library.edge_types - problem.library.first_type();
    const int64_t rows = rows_of(problem, span.first_system, span.end_system);
    const Groups groups{{0, ranges::edges(graph, span.first_system, span.end_system) * classes},
                        {0, ranges::nodes(graph, span.first_system, span.end_system)},
                        {0, rows}};
    HeatBathChunk<T> work(problem, span, groups, chunk.replicas, false, execution);
    const Buffer<double> sums(rows, execution);
    sums.fill(0);
    for (int64_t first = 0; first < problem.transitions; first += chunk.replicas) {
      work.assign(first, std::min(chunk.replicas, problem.transitions - first), nullptr);
      work.forward(first);
      work.add_errors(first, sums.data());
    }
    work.write_means(sums.data(), scores);
  });
}

void heat_bath_scores_impl(const HeatBathProblem<double>& problem, double* scores, const Execution& execution) {
  heat_bath_scores_of(problem, 0, problem.graph.systems, scores, execution);
}

void heat_bath_scores_impl(const HeatBathProblem<float>& problem, float* scores, const Execution& execution) {
  fused::for_runs(problem, execution, [&](int64_t first_system, int64_t end_system, bool is_fused) {
    const auto run = is_fused ? fused::heat_bath_scores : heat_bath_scores_of<float>;
    run(problem, first_system, end_system, scores, execution);
  });
}

// The gradient of systems first_system .. end_system - 1, layer by layer.
template <typename T>
void heat_bath_gradient_of(const HeatBathProblem<T>& problem, int64_t first_system, int64_t end_system,
                           const T* cotangent, const GradientSum<T>& gradient, const Execution& execution) {
  if (rows_of(problem, first_system, end_system) == 0) return;
  const GraphView& graph = problem.graph;
  const int64_t classes = problem.library.edge_types - problem.library.first_type();
  const auto messages = [&](int64_t first, int64_t end) { return ranges::edges(graph, first, end) * classes; };
  const auto nodes = [&](int64_t first, int64_t end) { return ranges::nodes(graph, first, end); };
  const auto rows = [&](int64_t first, int64_t end) { return rows_of(problem, first, end); };
  const auto most_rows = [&](int64_t system) {
    const int64_t first = first_system + system, end = first + 1;
    return std::max({messages(first, end), nodes(first, end), rows(first, end)});
  };
  std::vector<Unit> units = plan_units(end_system - first_system, problem.transitions, most_rows);
  for (Unit& unit : units) {
    unit.first_system += first_system;
    unit.end_system += first_system;
  }
  for_unit_chunks(
      units, execution,
      [&](const Unit& span, int64_t count) { return HeatBathChunk<T>::bytes(problem, span, count, true); },
      [&](const Chunk& chunk, const Unit& span) {
        Groups groups;
        for (const Unit& unit : chunk) {
          append_groups(groups.messages, messages(unit.first_system, unit.end_system), unit);
          append_groups(groups.nodes, nodes(unit.first_system, unit.end_system), unit);
          append_groups(groups.rows, rows(unit.first_system, unit.end_system), unit);
        }
        HeatBathChunk<T> work(problem, span, groups, span.replicas(), true, execution);
        const size_t most = std::max({groups.messages.size(), groups.nodes.size(), groups.rows.size()}) - 1;
        const Buffer<T> group_sums = gradient.group_sums(static_cast<int64_t>(most));
        work.assign(span.first_replica, span.replicas(), cotangent);
        work.forward(span.first_replica);
        work.backward(span.first_replica, cotangent, group_sums.data(), gradient.parameters());
        gradient.add(group_sums);
      });
}

void add_gradient(const HeatBathProblem<double>& problem, const double* cotangent, const GradientSum<double>& gradient,
                  const Execution& execution) {
  heat_bath_gradient_of(problem, 0, problem.graph.systems, cotangent, gradient, execution);
}

void add_gradient(const HeatBathProblem<float>& problem, const float* cotangent, const GradientSum<float>& gradient,
                  const Execution& execution) {
  fused::HeatBathGradient fused(problem, cotangent, execution);
  fused.for_runs([&](int64_t first_system, int64_t end_system, bool is_fused) {
    if (is_fused) return fused.run(first_system, end_system);
    heat_bath_gradient_of(problem, first_system, end_system, cotangent, gradient, execution);
  });
  fused.add_to(gradient.total());
}

template <typename T>
void heat_bath_gradient_impl(const HeatBathProblem<T>& problem, const T* cotangent, T* parameter_gradient,
                             const Execution& execution) {
  const GradientSum<T> gradient(node_module(problem.library).end, execution);
  if (problem.graph.systems > 0) add_gradient(problem, cotangent, gradient, execution);
  gradient.write(parameter_gradient);
}

}  // namespace

#define NRI_DEFINE(T)                                                                                   \
  void heat_bath_scores(const HeatBathProblem<T>& problem, T* scores, const Execution& execution) {     \
    heat_bath_scores_impl(problem, scores, execution);                                                  \
  }                                                                                                     \
  void heat_bath_gradient(const HeatBathProblem<T>& problem, const T* cotangent, T* parameter_gradient, \
                          const Execution& execution) {                                                 \
    heat_bath_gradient_impl(problem, cotangent, parameter_gradient, execution);                         \
  }
NRI_DEFINE(float)
NRI_DEFINE(double)
#undef NRI_DEFINE

}  // namespace nri::cuda
