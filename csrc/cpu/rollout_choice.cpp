#include "ops/rollout_choice.h"

#include <cmath>
#include <limits>

#include "cpu/gradient_lanes.h"
#include "cpu/metropolis_choice.h"
#include "cpu/rollout_pass.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

constexpr int64_t kStructures = 2;

// Every system's roll-outs, long ones first; under the first structure.
template <typename T>
std::vector<std::vector<Rollout>> rollouts_of_systems(const RolloutProblem<T>& problem, const Segments& segments) {
  std::vector<std::vector<Rollout>> systems(problem.graph.systems);
  for (const Rollout& rollout : list_rollouts(problem, segments, 1, [](int64_t) { return true; })) {
    systems[rollout.system].push_back(rollout);
  }
  return systems;
}

// Runs one system under a structure; its tiles stay in the arena for the way back.
template <typename T>
std::vector<RolloutPass<T>> run_structure(Arena& arena, const RolloutCall<T>& call, const RolloutChoice<T>& choice,
                                          const std::vector<Rollout>& rollouts, int64_t structure, double* sums) {
  const uint8_t* nodes = choice.node_types ? choice.node_types + structure * call.problem.graph.nodes : nullptr;
  const uint8_t* edges = choice.edge_types + structure * call.problem.graph.edges;
  const std::vector<int64_t> bounds = cut_into_tiles(rollouts, gradient_tile_rows(call.library), Lengths::any);
  std::vector<RolloutPass<T>> passes;
  passes.reserve(bounds.size() - 1);
  int64_t room = kMostKept;
  for (size_t tile = 0; tile + 1 < bounds.size(); ++tile) {
    const Rollout* first = rollouts.data() + bounds[tile];
    passes.emplace_back(arena, call, first, bounds[tile + 1] - bounds[tile], edges, nodes, &room);
    passes.back().add_errors(sums);
  }
  return passes;
}

template <typename T>
void rollout_choice_variant(const RolloutChoice<T>& choice, T* energy, T* parameter_gradient,
                            const Execution& execution) {
  const RolloutProblem<T>& problem = choice.problem;
  const int64_t systems = problem.graph.systems;
  const auto packed = PackedCache<PackedLibrary<T>, T>::get(problem.library);
  const PackedLibrary<T>& library = *packed;
  const Segments segments(problem.trajectories.steps, problem.rollout);
  const std::vector<std::vector<Rollout>> rollouts = rollouts_of_systems(problem, segments);
  const std::vector<double> compared = compared_predictions(problem);
  const RolloutCall<T> call{problem, library, segments, compared};
  const std::vector<T> cotangent(systems, T(1) / static_cast<T>(systems));
  std::vector<double> sums(kStructures * segments.count * systems);
  const T* total =
      GradientLanes<T>::sum(library.gradient_size, execution.threads, systems, [&](int64_t b, T* parameters) {
        Arena& arena = worker_arena();
        std::vector<RolloutPass<T>> passes[kStructures];
        for (int64_t c = 0; c < kStructures; ++c) {
          passes[c] = run_structure(arena, call, choice, rollouts[b], c, sums.data() + c * segments.count * systems);
          energy[c * systems + b] = mean_error<T>(compared, segments, sums.data(), c, b);
        }
        const Decision decision =
            decide_system(choice.draws, b, choice.temperature[0], choice.log_ratio, energy[b], energy[systems + b]);
        const int64_t chosen = is_accepted(decision) ? 1 : 0;
        if (!(std::abs(energy[chosen * systems + b]) <= std::numeric_limits<T>::max())) return;
        for (RolloutPass<T>& pass : passes[chosen]) pass.backward(cotangent.data(), parameters);
      });
  library.unpad(total, parameter_gradient);
}

}  // namespace

void rollout_choice(const RolloutChoice<float>& choice, float* energy, float* parameter_gradient,
                    const Execution& execution) {
  rollout_choice_variant(choice, energy, parameter_gradient, execution);
}
void rollout_choice(const RolloutChoice<double>& choice, double* energy, double* parameter_gradient,
                    const Execution& execution) {
  rollout_choice_variant(choice, energy, parameter_gradient, execution);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
