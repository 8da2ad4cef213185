#include "ops/rollout_energy.h"

#include "cpu/rollout_tile.h"
#include "cpu/thread_pool.h"
#include "cpu/transition_error.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

// Tiles small enough for every thread to get work; the cut changes no result.
template <typename T>
std::vector<int64_t> balanced_tiles(const GraphView& graph, const Segments& segments,
                                    const std::vector<Rollout>& rollouts, int64_t edge_rows,
                                    const PackedLibrary<T>& library, int threads) {
  const int64_t share = edge_rows / (2 * std::max(threads, 1)) + 1;
  return cut_into_tiles(graph, segments, rollouts, std::min(tile_rows(library), std::max<int64_t>(share, 24)));
}

// sum[i]: the errors of roll-out i's transitions, added up step by step, entity by entity
template <typename T>
void run_tile(const RolloutProblem<T>& problem, const PackedLibrary<T>& library, const Segments& segments,
              const Rollout* rollouts, int64_t count, const uint8_t* edge_types, double* sum) {
  Arena& arena = worker_arena();
  const GraphView& graph = problem.graph;
  const int64_t features = library.features;
  const Wiring<T> wiring(arena, graph, problem.library.edge_types, problem.library.node_types, rollouts, count,
                         edge_types, problem.node_types);
  const StepActivations<T> room(arena, library, wiring, false);
  T* state = arena.take<T>(wiring.nodes * features);
  for (int64_t i = 0; i < count; ++i) {
    const Rollout& r = rollouts[i];
    const int64_t entities = wiring.first_node[i + 1] - wiring.first_node[i];
    std::copy_n(recorded_state(graph, problem.trajectories, features, r.system, segments.start(r.segment)),
                entities * features, state + wiring.first_node[i] * features);
    sum[i] = 0;
  }
  const int64_t length = segments.length(rollouts[0].segment);
  for (int64_t t = 1; t <= length; ++t) {
    message_passing_step(library, wiring, state, state, room);
    for (int64_t i = 0; i < count; ++i) {
      const Rollout& r = rollouts[i];
      const T* recorded =
          recorded_state(graph, problem.trajectories, features, r.system, segments.start(r.segment) + t);
      const uint8_t* observed = observed_entities(problem, r.system);
      for (int64_t v = wiring.first_node[i]; v < wiring.first_node[i + 1]; ++v, recorded += features) {
        if (observed && !*observed++) continue;
        sum[i] += transition_error(problem.error, features, state + v * features, recorded);
      }
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
  // Segment after segment, so that neighbours have the same length and can share a tile.
  std::vector<Rollout> rollouts;
  rollouts.reserve(structures * segments.count * graph.systems);
  for (int64_t c = 0; c < structures; ++c) {
    for (int64_t s = 0; s < segments.count; ++s) {
      for (int64_t b = 0; b < graph.systems; ++b) rollouts.push_back({c, b, s});
    }
  }
  const int64_t edge_rows = structures * segments.count * graph.edges;
  const std::vector<int64_t> bounds = balanced_tiles(graph, segments, rollouts, edge_rows, library, execution.threads);
  std::vector<double> sums(rollouts.size());
  parallel_for(execution.threads, static_cast<int64_t>(bounds.size()) - 1, [&](int64_t tile, int) {
    const int64_t first = bounds[tile];
    run_tile(problem, library, segments, rollouts.data() + first, bounds[tile + 1] - first, edge_types,
             sums.data() + first);
  });
  for (int64_t c = 0; c < structures; ++c) {
    for (int64_t b = 0; b < graph.systems; ++b) {
      double total = 0;
      for (int64_t s = 0; s < segments.count; ++s) total += sums[(c * segments.count + s) * graph.systems + b];
      energy[c * graph.systems + b] = mean_error(problem, b, total);
    }
  }
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
  for (int64_t b = 0; b < graph.systems; ++b) rollouts.push_back({0, b, 0});
  const std::vector<int64_t> bounds = balanced_tiles(graph, Segments(problem.horizon + 1, problem.horizon), rollouts,
                                                     graph.edges, library, execution.threads);
  parallel_for(execution.threads, static_cast<int64_t>(bounds.size()) - 1, [&](int64_t tile, int) {
    Arena& arena = worker_arena();
    const int64_t first = bounds[tile], count = bounds[tile + 1] - first;
    const Wiring<T> wiring(arena, graph, problem.library.edge_types, problem.library.node_types,
                           rollouts.data() + first, count, problem.edge_types, problem.node_types);
    const StepActivations<T> room(arena, library, wiring, false);
    T* state = arena.take<T>(wiring.nodes * features);
    std::copy_n(problem.initial + graph.node_offset[first] * features, wiring.nodes * features, state);
    for (int64_t t = 0; t < problem.horizon; ++t) {
      message_passing_step(library, wiring, state, state, room);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t node = wiring.first_node[i], entities = wiring.first_node[i + 1] - node;
        T* block = states + problem.horizon * graph.node_offset[first + i] * features;
        std::copy_n(state + node * features, entities * features, block + t * entities * features);
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
