#include <limits>

#include "cuda/chunks.h"
#include "cuda/message_passing.h"
#include "cuda/rollout_states.h"
#include "ops/rollout_energy.h"

namespace nri::cuda {
namespace {

// Workspace of a chunk of a roll-out with so many pairs in all.
template <typename T>
int64_t chunk_bytes(const LibraryView<T>& library, const GraphView& graph, int64_t all_pairs,
                    const SystemChunk& chunk) {
  const int64_t nodes = ranges::nodes(graph, chunk.first_system, chunk.end_system);
  const int64_t edges = ranges::edges(graph, chunk.first_system, chunk.end_system);
  return MessagePassing<T>::bytes(library, nodes, edges, chunk.replicas, 1, 1, false) +
         chunk.replicas * nodes * library.features * static_cast<int64_t>(sizeof(T)) +
         all_pairs * (chunk.end_system - chunk.first_system) * static_cast<int64_t>(sizeof(double));
}

template <typename T>
__global__ void copy_states(int64_t elements, SystemRange range, int64_t frames, int64_t frame, int64_t features,
                            const uint8_t* present, T absent, const T* x, T* states) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t node = index / features;
  states[state_place(range, frames, features, range.system_of_node[node], frame, range.first_node + node) +
         index % features] = is_present(present, range.first_node + node) ? x[index] : absent;
}

template <typename T>
void rollout_energy_impl(const RolloutProblem<T>& problem, int64_t structures, const uint8_t* edge_types, T* energy,
                         const Execution& execution) {
  const GraphView& graph = problem.graph;
  if (structures == 0) return;
  const Segments segments(problem.trajectories.steps, problem.rollout, structures);
  const TrajectoryView<T>& trajectories = problem.trajectories;
  const Buffer<int64_t> compared = compared_predictions(problem, execution);
  const auto bytes = [&](const SystemChunk& chunk) {
    return chunk_bytes(problem.library, graph, segments.pairs(), chunk);
  };
  for_system_chunks(graph.systems, segments.pairs(), execution, bytes, [&](const SystemChunk& chunk) {
    const SystemRangeHolder holder(graph, chunk.first_system, chunk.end_system, execution);
    const SystemRange& range = holder.view();
    MessagePassing<T> step(problem.library, range, {0, range.edges}, {0, range.nodes}, chunk.replicas, execution);
    const Activations<T> activations = step.activations(false);
    const Buffer<T> x(chunk.replicas * range.nodes * problem.library.features, execution);
    const Buffer<double> sums(segments.pairs() * range.systems, execution);
    sums.fill(0);
    for (int64_t pair = 0; pair < segments.pairs(); pair += chunk.replicas) {
      const int64_t pairs = std::min(chunk.replicas, segments.pairs() - pair);
      gather_starts(problem, range, segments, pair, pairs, x.data(), execution);
      int64_t assigned = 0;
      for (int64_t r = 0; r < segments.length; ++r) {
        const int64_t active = segments.active(pair, pairs, r);
        if (active == 0) break;
        if (active != assigned) {
          step.assign({edge_types, structures, graph.edges, pair, problem.node_types, nullptr, trajectories.present,
                       segments.frames, segments.length},
                      active);
          assigned = active;
        }
        step.forward(x.data(), activations);
        step.advance(trajectories.step_scale, x.data(), activations, x.data());
        add_errors(problem, range, segments, pair, active, r, x.data(), sums.data(), range.systems, execution);
      }
    }
    mean_errors(problem, range, segments, compared.data(), sums.data(), range.systems, energy, execution);
  });
}

template <typename T>
void forecast_impl(const ForecastProblem<T>& problem, T* states, const Execution& execution) {
  const GraphView& graph = problem.graph;
  const int64_t features = problem.library.features;
  const auto bytes = [&](const SystemChunk& chunk) { return chunk_bytes(problem.library, graph, 1, chunk); };
  for_system_chunks(graph.systems, 1, execution, bytes, [&](const SystemChunk& chunk) {
    const SystemRangeHolder holder(graph, chunk.first_system, chunk.end_system, execution);
    const SystemRange& range = holder.view();
    MessagePassing<T> step(problem.library, range, {0, range.edges}, {0, range.nodes}, 1, execution);
    const Activations<T> activations = step.activations(false);
    const Buffer<T> x(range.nodes * features, execution);
    step.assign({problem.edge_types, 1, graph.edges, 0, problem.node_types, nullptr, problem.present, 1, 1}, 1);
    const T* current = problem.initial + range.first_node * features;
    for (int64_t r = 0; r < problem.horizon; ++r) {
      step.forward(current, activations);
      step.advance(problem.step_scale, current, activations, x.data());
      current = x.data();
      launch_elements("copy_states", copy_states<T>, range.nodes * features, execution, range, problem.horizon, r,
                      features, problem.present, std::numeric_limits<T>::quiet_NaN(), current, states);
    }
  });
}

}  // namespace

#define NRI_DEFINE(T)                                                                                             \
  void rollout_energy(const RolloutProblem<T>& problem, int64_t structures, const uint8_t* edge_types, T* energy, \
                      const Execution& execution) {                                                               \
    rollout_energy_impl(problem, structures, edge_types, energy, execution);                                      \
  }                                                                                                               \
  void forecast(const ForecastProblem<T>& problem, T* states, const Execution& execution) {                       \
    forecast_impl(problem, states, execution);                                                                    \
  }
NRI_DEFINE(float)
NRI_DEFINE(double)
#undef NRI_DEFINE

}  // namespace nri::cuda
