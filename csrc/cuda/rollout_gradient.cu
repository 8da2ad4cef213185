#include "cuda/fused_gradient.h"
#include "cuda/gradient_units.h"
#include "cuda/message_passing.h"
#include "cuda/module_gradient.h"
#include "cuda/rollout_gradient_kernels.h"
#include "ops/rollout_gradient.h"

namespace nri::cuda {
namespace {

template <typename T>
struct Outputs {
  const int64_t* compared;  // [B] predictions of each system that are compared
  double* error_sums;       // [segments, B], or null
  T* state_gradient;        // or null
};

// Backpropagation through time for one chunk. States are kept for every step, activations are computed again.
template <typename T>
class ChunkGradient {
 public:
  ChunkGradient(const RolloutProblem<T>& problem, const Segments& segments, const uint8_t* edge_types,
                const T* cotangent, const Chunk& chunk, const Unit& span, const Execution& execution)
      : problem_(problem),
        segments_(segments),
        edge_types_(edge_types),
        cotangent_(cotangent),
        execution_(execution),
        first_(span.first_replica),
        replicas_(span.replicas()),
        steps_(steps(segments, span)),
        holder_(problem.graph, span.first_system, span.end_system, execution),
        range_(holder_.view()),
        outgoing_(range_, execution),
        step_(problem.library, range_, groups(chunk, &ranges::edges), groups(chunk, &ranges::nodes), replicas_,
              execution),
        activations_(step_.activations(true)),
        stride_(replicas_ * range_.nodes * problem.library.features),
        states_((steps_ + 1) * stride_, execution),
        cotangents_(stride_, execution),
        scratch_{Buffer<T>(scratch_count(), execution), Buffer<T>(scratch_count(), execution)} {}

  int64_t groups() const {
    const int64_t edge_classes = std::max(step_.edge_slots().classes, int64_t{1});
    return std::max(step_.edge_slots().buckets / edge_classes, step_.node_slots().buckets / step_.node_slots().classes);
  }

  void run(const Outputs<T>& outputs, T* group_sums, int64_t parameters) {
    gather_starts(problem_, range_, segments_, first_, replicas_, states_.data(), execution_);
    const bool all_systems = outputs.error_sums != nullptr;
    for (int64_t r = 0; r < steps_; ++r) {
      const int64_t active = assign(r, all_systems);
      step_.forward(state(r), activations_);
      step_.advance(problem_.trajectories.step_scale, state(r), activations_, state(r + 1));
      if (!all_systems) continue;
      add_errors(problem_, range_, segments_, first_, active, r, state(r + 1), outputs.error_sums + range_.first_system,
                 problem_.graph.systems, execution_);
    }
    cotangents_.fill(0);
    for (int64_t r = steps_ - 1; r >= 0; --r) {
      const int64_t active = assign(r, false);
      const int64_t features = problem_.library.features;
      launch_elements("add_error_slopes", add_error_slopes<T>, active * range_.nodes, execution_, range_, segments_,
                      problem_.error, problem_.trajectories, problem_.observed, outputs.compared, features, first_, r,
                      cotangent_, state(r + 1), cotangents_.data(), outputs.state_gradient);
      step_.forward(state(r), activations_);
      backward(active, group_sums, parameters);
    }
    if (outputs.state_gradient == nullptr) return;
    launch_elements("add_start_gradients", add_start_gradients<T>, stride_, execution_, range_, segments_,
                    problem_.library.features, first_, cotangents_.data(), outputs.state_gradient);
  }

  static int64_t bytes(const RolloutProblem<T>& problem, const Segments& segments, const Unit& span, int64_t units,
                       int64_t parameters) {
    const int64_t nodes = ranges::nodes(problem.graph, span.first_system, span.end_system);
    const int64_t edges = ranges::edges(problem.graph, span.first_system, span.end_system);
    const int64_t edge_groups = most_groups(edges, span.replicas(), units);
    const int64_t node_groups = most_groups(nodes, span.replicas(), units);
    const ModuleLayers edge = edge_module(problem.library);
    const ModuleLayers node = node_module(problem.library);
    const int64_t scratch =
        std::max(RowBuckets::slots(span.replicas() * edges, edge_groups * edge.classes) * edge.widest,
                 RowBuckets::slots(span.replicas() * nodes, node_groups * node.classes) * node.widest);
    const int64_t states = (steps(segments, span) + 2) * span.replicas() * nodes * problem.library.features;
    return MessagePassing<T>::bytes(problem.library, nodes, edges, span.replicas(), edge_groups, node_groups, true) +
           (2 * scratch + states + std::max(edge_groups, node_groups) * parameters) * static_cast<int64_t>(sizeof(T)) +
           (edges + 2 * nodes) * static_cast<int64_t>(sizeof(int64_t));
  }

 private:
  static int64_t steps(const Segments& segments, const Unit& span) {
    return span.first_replica + 1 < segments.count ? segments.length : segments.last_length();
  }

  template <typename Items>
  std::vector<int64_t> groups(const Chunk& chunk, const Items& items) const {
    std::vector<int64_t> item_offset{0};
    for (const Unit& unit : chunk) {
      append_groups(item_offset, items(problem_.graph, unit.first_system, unit.end_system), unit);
    }
    return item_offset;
  }

  int64_t scratch_count() const {
    return std::max(step_.all_edge_slots() * step_.edge_layers().widest,
                    step_.all_node_slots() * step_.node_layers().widest);
  }

  T* state(int64_t r) const { return states_.data() + r * stride_; }

  // Buckets the rows of the segments that run in step r, unless they are already. Without `all_systems`, those of zero
  // cotangent are left out.
  int64_t assign(int64_t r, bool all_systems) {
    const int64_t active = segments_.active(first_, replicas_, r);
    if (active != assigned_ || all_systems != assigned_all_) {
      step_.assign(
          {edge_types_, 1, problem_.graph.edges, first_, problem_.node_types, all_systems ? nullptr : cotangent_,
           problem_.trajectories.present, segments_.frames, segments_.length},
          active);
      assigned_ = active;
      assigned_all_ = all_systems;
    }
    return active;
  }

  // Turns the cotangents of the states after a step into those of the states before it.
  void backward(int64_t active, T* group_sums, int64_t parameters) {
    const SlotView& edges = step_.edge_slots();
    const SlotView& nodes = step_.node_slots();
    const int64_t features = problem_.library.features;
    const int64_t message = problem_.library.message();
    const int64_t elements = active * range_.nodes * features;
    Cotangents<T> work{scratch_[0].data(), scratch_[1].data()};
    launch_elements("node_output_cotangents", node_output_cotangents<T>, nodes.slots * features, execution_, nodes,
                    range_, features, problem_.trajectories.step_scale, cotangents_.data(), work.current);
    backward_layers(nodes, step_.node_layers(), 0, InputCotangent::plain, problem_.library.parameters,
                    activations_.node, work, group_sums, parameters, execution_);
    launch_elements("add_node_inputs", add_node_inputs<T>, elements, execution_, nodes, features, message, work.current,
                    cotangents_.data());
    launch_elements("edge_output_cotangents", edge_output_cotangents<T>, edges.slots * message, execution_, edges,
                    range_, features, message, nodes.slot_of_row, work.current, activations_.edge.back(), work.spare);
    std::swap(work.current, work.spare);
    backward_layers(edges, step_.edge_layers(), 0, InputCotangent::plain, problem_.library.parameters,
                    activations_.edge, work, group_sums, parameters, execution_);
    launch_elements("add_edge_inputs", add_edge_inputs<T>, elements, execution_, range_, outgoing_.view(), features,
                    edges.slot_of_row, work.current, cotangents_.data());
  }

  RolloutProblem<T> problem_;
  Segments segments_;
  const uint8_t* edge_types_;
  const T* cotangent_;
  Execution execution_;
  int64_t first_;
  int64_t replicas_;
  int64_t steps_;
  SystemRangeHolder holder_;
  SystemRange range_;
  OutgoingHolder outgoing_;
  MessagePassing<T> step_;
  Activations<T> activations_;
  int64_t stride_;  // elements of one step's states
  Buffer<T> states_;
  Buffer<T> cotangents_;
  Buffer<T> scratch_[2];
  int64_t assigned_ = -1;
  bool assigned_all_ = false;
};

// What is asked of a call besides the parameters' gradient.
template <typename T>
struct Call {
  const RolloutProblem<T>& problem;
  Segments segments;
  const uint8_t* edge_types;
  const T* cotangent;
  const int64_t* compared;
  T* energy;
  T* state_gradient;
  const Execution& execution;
};

// Systems first_system .. end_system - 1, layer by layer.
template <typename T>
void run_unfused(const Call<T>& call, int64_t first_system, int64_t end_system, const GradientSum<T>& gradient) {
  const GraphView& graph = call.problem.graph;
  const Segments& segments = call.segments;
  const Buffer<double> error_sums(call.energy == nullptr ? 0 : segments.count * graph.systems, call.execution);
  error_sums.fill(0);
  const auto rows = [&](int64_t system) {
    return std::max(ranges::edges(graph, first_system + system, first_system + system + 1),
                    ranges::nodes(graph, first_system + system, first_system + system + 1));
  };
  std::vector<Unit> units = plan_units(end_system - first_system, segments.count, rows);
  for (Unit& unit : units) {
    unit.first_system += first_system;
    unit.end_system += first_system;
  }
  for_unit_chunks(
      units, call.execution,
      [&](const Unit& span, int64_t count) {
        return ChunkGradient<T>::bytes(call.problem, segments, span, count, gradient.parameters());
      },
      [&](const Chunk& chunk, const Unit& span) {
        ChunkGradient<T> work(call.problem, segments, call.edge_types, call.cotangent, chunk, span, call.execution);
        const Buffer<T> group_sums = gradient.group_sums(work.groups());
        work.run({call.compared, error_sums.data(), call.state_gradient}, group_sums.data(), gradient.parameters());
        gradient.add(group_sums);
      });
  if (call.energy == nullptr) return;
  mean_errors(call.problem, ranges::view(graph, first_system, end_system), segments, call.compared,
              error_sums.data() + first_system, graph.systems, call.energy, call.execution);
}

void run_all(const Call<double>& call, const GradientSum<double>& gradient) {
  run_unfused(call, 0, call.problem.graph.systems, gradient);
}

void run_all(const Call<float>& call, const GradientSum<float>& gradient) {
  fused::RolloutGradient fused(call.problem, call.edge_types, call.cotangent, call.compared, call.state_gradient,
                               call.execution);
  fused.for_runs([&](int64_t first_system, int64_t end_system, bool is_fused) {
    if (!is_fused) return run_unfused(call, first_system, end_system, gradient);
    const Buffer<double> error_sums(call.segments.count * (end_system - first_system), call.execution);
    fused.run(first_system, end_system, error_sums.data());
    if (call.energy == nullptr) return;
    mean_errors(call.problem, ranges::view(call.problem.graph, first_system, end_system), call.segments, call.compared,
                error_sums.data(), end_system - first_system, call.energy, call.execution);
  });
  fused.add_to(gradient.total());
}

template <typename T>
void rollout_gradient_impl(const RolloutProblem<T>& problem, const uint8_t* edge_types, const T* cotangent, T* energy,
                           T* parameter_gradient, T* state_gradient, const Execution& execution) {
  const GraphView& graph = problem.graph;
  const GradientSum<T> gradient(node_module(problem.library).end, execution);
  if (graph.systems > 0) {
    const Segments segments(problem.trajectories.steps, problem.rollout, 1);
    if (state_gradient != nullptr) {
      fill_zero(state_gradient, segments.frames * graph.nodes * problem.library.features, execution);
    }
    const Buffer<int64_t> compared = compared_predictions(problem, execution);
    run_all(Call<T>{problem, segments, edge_types, cotangent, compared.data(), energy, state_gradient, execution},
            gradient);
  }
  gradient.write(parameter_gradient);
}

}  // namespace

#define NRI_DEFINE(T)                                                                                               \
  void rollout_gradient(const RolloutProblem<T>& problem, const uint8_t* edge_types, const T* cotangent, T* energy, \
                        T* parameter_gradient, T* state_gradient, const Execution& execution) {                     \
    rollout_gradient_impl(problem, edge_types, cotangent, energy, parameter_gradient, state_gradient, execution);   \
  }
NRI_DEFINE(float)
NRI_DEFINE(double)
#undef NRI_DEFINE

}  // namespace nri::cuda
