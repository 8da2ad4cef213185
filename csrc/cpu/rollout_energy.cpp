#include "ops/rollout_energy.h"

#include <limits>

#include "cpu/rollout_tile.h"
#include "cpu/thread_pool.h"
#include "cpu/transition_error.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

// Tiles small enough for every thread to get work; the cut changes no result.
template <typename T>
std::vector<int64_t> balanced_tiles(const std::vector<Rollout>& rollouts, const PackedLibrary<T>& library,
                                    int threads) {
  int64_t edge_rows = 0;
  for (const Rollout& rollout : rollouts) edge_rows += rollout.edges;
  const int64_t share = edge_rows / (2 * std::max(threads, 1)) + 1;
  return cut_into_tiles(rollouts, std::min(tile_rows(library), std::max<int64_t>(share, 24)));
}

// sums [structures, segments, B]: the errors of a roll-out's transitions, added up step by step, entity by entity
template <typename T>
void run_tile(const RolloutProblem<T>& problem, const PackedLibrary<T>& library, const Segments& segments,
              const Rollout* rollouts, int64_t count, const uint8_t* edge_types, double* sums) {
  Arena& arena = worker_arena();
  const GraphView& graph = problem.graph;
  const int64_t features = library.features;
  const Wiring<T> wiring(arena, graph, problem.library.edge_types, problem.library.node_types, rollouts, count,
                         edge_types, problem.node_types, problem.trajectories.step_scale);
  const StepActivations<T> room(arena, library, wiring, false);
  T* state = arena.take<T>(wiring.nodes * features);
  for (int64_t i = 0; i < count; ++i) {
    const Rollout& r = rollouts[i];
    const int64_t start = segments.start(r.segment);
    copy_starts(wiring, i, features, recorded_state(graph, problem.trajectories, features, r.system, start), state);
  }
  for (int64_t t = 1; t <= rollouts[0].length; ++t) {
    message_passing_step(library, wiring, state, state, room);
    for (int64_t i = 0; i < count; ++i) {
      const Rollout& r = rollouts[i];
      double& sum = sums[(r.structure * segments.count + r.segment) * graph.systems + r.system];
      for_compared(problem, segments, wiring, r, i, t, [&](int64_t v, const T* recorded) {
        sum += transition_error(problem.error, features, state + v * features, recorded);
      });
    }
  }
}

}  // namespace

template <typename T>
void rollout_energy_variant(const RolloutProblem<T>& problem, int64_t structures, const uint8_t* edge_types, T* energy,
                            const Execution& execution) {
  const GraphView& graph = problem.graph;
  if (structures == 0 || graph.systems == 0) return;
  const auto packed = PackedCache<PackedLibrary<T>, T>::get(problem.library);
  const PackedLibrary<T>& library = *packed;
  const Segments segments(problem.trajectories.steps, problem.rollout);
  const std::vector<Rollout> rollouts = list_rollouts(problem, segments, structures, [](int64_t) { return true; });
  const std::vector<int64_t> bounds = balanced_tiles(rollouts, library, execution.threads);
  std::vector<double> sums(structures * segments.count * graph.systems);
  parallel_for(execution.threads, static_cast<int64_t>(bounds.size()) - 1, [&](int64_t tile, int) {
    const int64_t first = bounds[tile];
    run_tile(problem, library, segments, rollouts.data() + first, bounds[tile + 1] - first, edge_types, sums.data());
  });
  mean_errors(compared_predictions(problem), segments, structures, sums, energy);
}

template <typename T>
void forecast_variant(const ForecastProblem<T>& problem, T* states, const Execution& execution) {
  const GraphView& graph = problem.graph;
  if (graph.systems == 0) return;
  const auto packed = PackedCache<PackedLibrary<T>, T>::get(problem.library);
  const PackedLibrary<T>& library = *packed;
  const int64_t features = library.features;
  std::vector<Rollout> rollouts;
  rollouts.reserve(graph.systems);
  for (int64_t b = 0; b < graph.systems; ++b) {
    const uint8_t* present = problem.present ? problem.present + graph.node_offset[b] : nullptr;
    rollouts.emplace_back(graph, 0, b, 0, problem.horizon, present);
  }
  if (problem.present) {
    const int64_t values = problem.horizon * graph.nodes * features;
    std::fill_n(states, values, std::numeric_limits<T>::quiet_NaN());
  }
  const std::vector<int64_t> bounds = balanced_tiles(rollouts, library, execution.threads);
  parallel_for(execution.threads, static_cast<int64_t>(bounds.size()) - 1, [&](int64_t tile, int) {
    Arena& arena = worker_arena();
    const int64_t first = bounds[tile], count = bounds[tile + 1] - first;
    const Wiring<T> wiring(arena, graph, problem.library.edge_types, problem.library.node_types,
                           rollouts.data() + first, count, problem.edge_types, problem.node_types, problem.step_scale);
    const StepActivations<T> room(arena, library, wiring, false);
    T* state = arena.take<T>(wiring.nodes * features);
    for (int64_t i = 0; i < count; ++i) {
      copy_starts(wiring, i, features, problem.initial + graph.node_offset[first + i] * features, state);
    }
    for (int64_t t = 0; t < problem.horizon; ++t) {
      message_passing_step(library, wiring, state, state, room);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t begin = graph.node_offset[first + i], entities = graph.node_offset[first + i + 1] - begin;
        T* step = states + (problem.horizon * begin + t * entities) * features;
        for (int64_t v = wiring.first_node[i]; v < wiring.first_node[i + 1]; ++v) {
          copy_state(state + v * features, features, step + wiring.entity[v] * features);
        }
      }
    }
  });
}

void rollout_energy(const RolloutProblem<float>& problem, int64_t structures, const uint8_t* edge_types, float* energy,
                    const Execution& execution) {
  rollout_energy_variant(problem, structures, edge_types, energy, execution);
}
void rollout_energy(const RolloutProblem<double>& problem, int64_t structures, const uint8_t* edge_types,
                    double* energy, const Execution& execution) {
  rollout_energy_variant(problem, structures, edge_types, energy, execution);
}
void forecast(const ForecastProblem<float>& problem, float* states, const Execution& execution) {
  forecast_variant(problem, states, execution);
}
void forecast(const ForecastProblem<double>& problem, double* states, const Execution& execution) {
  forecast_variant(problem, states, execution);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
