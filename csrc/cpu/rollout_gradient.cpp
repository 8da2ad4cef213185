#include "ops/rollout_gradient.h"

#include "cpu/gradient_lanes.h"
#include "cpu/rollout_pass.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

template <typename T>
void rollout_gradient_variant(const RolloutProblem<T>& problem, const uint8_t* edge_types, const T* cotangent,
                              T* energy, T* parameter_gradient, T* state_gradient, const Execution& execution) {
  const GraphView& graph = problem.graph;
  const auto packed = PackedCache<PackedLibrary<T>, T>::get(problem.library);
  const PackedLibrary<T>& library = *packed;
  const int64_t features = library.features;
  const Segments segments(problem.trajectories.steps, problem.rollout);
  const std::vector<Rollout> rollouts =
      list_rollouts(problem, segments, 1, [&](int64_t b) { return cotangent[b] != T(0); });
  const std::vector<double> compared = compared_predictions(problem);
  std::vector<double> sums(segments.count * graph.systems);
  std::vector<T> start_gradient;
  if (state_gradient) {
    std::fill_n(state_gradient, problem.trajectories.steps * graph.nodes * features, T(0));
    start_gradient.resize(segments.count * graph.nodes * features);
  }
  const RolloutCall<T> call{
      problem, library, segments, compared, state_gradient ? start_gradient.data() : nullptr, state_gradient};
  // The cut into tiles decides the order of summation, so it looks at the batch alone.
  const std::vector<int64_t> bounds = cut_into_tiles(rollouts, gradient_tile_rows(library));
  const T* total =
      GradientLanes<T>::sum(library.gradient_size, execution.threads, static_cast<int64_t>(bounds.size()) - 1,
                            [&](int64_t tile, T* parameters) {
                              const int64_t first = bounds[tile];
                              RolloutPass<T> pass(worker_arena(), call, rollouts.data() + first,
                                                  bounds[tile + 1] - first, edge_types, problem.node_types, kMostKept);
                              pass.backward(cotangent, parameters);
                              pass.add_errors(sums.data());
                            });
  library.unpad(total, parameter_gradient);

  for (int64_t s = 0; state_gradient && s < segments.count; ++s) {
    for (int64_t b = 0; b < graph.systems; ++b) {
      const T* own = start_gradient.data() + (s * graph.nodes + graph.node_offset[b]) * features;
      const int64_t entities = graph.node_offset[b + 1] - graph.node_offset[b];
      T* into = state_gradient +
                (problem.trajectories.steps * graph.node_offset[b] + segments.start(s) * entities) * features;
      for (int64_t i = 0; i < entities * features; ++i) into[i] += own[i];
    }
  }
  if (energy) mean_errors(compared, segments, 1, sums, energy);
}

}  // namespace

void rollout_gradient(const RolloutProblem<float>& problem, const uint8_t* edge_types, const float* cotangent,
                      float* energy, float* parameter_gradient, float* state_gradient, const Execution& execution) {
  rollout_gradient_variant(problem, edge_types, cotangent, energy, parameter_gradient, state_gradient, execution);
}
void rollout_gradient(const RolloutProblem<double>& problem, const uint8_t* edge_types, const double* cotangent,
                      double* energy, double* parameter_gradient, double* state_gradient, const Execution& execution) {
  rollout_gradient_variant(problem, edge_types, cotangent, energy, parameter_gradient, state_gradient, execution);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
