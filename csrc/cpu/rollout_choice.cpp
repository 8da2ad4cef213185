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

// Numbers that a row of a module leaves for the way back.
template <typename T>
int64_t values_of_row(const Mlp<T>& module) {
  int64_t values = module.layers.empty() ? 0 : padded<T>(module.layers[0].in);
  for (const Layer<T>& layer : module.layers) values += padded<T>(layer.out);
  return values;
}

// One system: both structures' energies, the choice between them, and the way back of the one chosen.
template <typename T>
class SystemChoice {
 public:
  SystemChoice(const RolloutCall<T>& call, const RolloutChoice<T>& choice, const std::vector<Rollout>& rollouts)
      : call_(call),
        choice_(choice),
        rollouts_(rollouts),
        bounds_(cut_into_tiles(rollouts, gradient_tile_rows(call.library), Lengths::any)) {
    const int64_t edge = values_of_row(call.library.edge.back()), node = values_of_row(call.library.node.back());
    int64_t values = 0;
    for (const Rollout& r : rollouts) values += r.length * (r.edges * edge + r.nodes * node);
    fits_ = values * static_cast<int64_t>(sizeof(T)) <= kMostKept;
  }

  // Adds the errors under a structure to sums [segments, B]. What was computed stays, if it fits.
  void run(int64_t structure, double* sums) {
    for (int64_t tile = 0; tile < tiles(); ++tile) {
      if (!fits_) {
        run_tile(worker_arena(), structure, tile, 0).add_errors(sums);
        continue;
      }
      passes_[structure].push_back(run_tile(arena_, structure, tile, kMuch));
      passes_[structure].back().add_errors(sums);
    }
  }

  void backward(int64_t structure, const T* cotangent, T* parameters) {
    for (RolloutPass<T>& pass : passes_[structure]) pass.backward(cotangent, parameters);
    for (int64_t tile = 0; !fits_ && tile < tiles(); ++tile) {
      run_tile(worker_arena(), structure, tile, kMostKept).backward(cotangent, parameters);
    }
  }

 private:
  static constexpr int64_t kMuch = std::numeric_limits<int64_t>::max();

  int64_t tiles() const { return static_cast<int64_t>(bounds_.size()) - 1; }

  RolloutPass<T> run_tile(Arena& arena, int64_t structure, int64_t tile, int64_t room) const {
    const GraphView& graph = call_.problem.graph;
    const uint8_t* nodes = choice_.node_types ? choice_.node_types + structure * graph.nodes : nullptr;
    const int64_t first = bounds_[tile];
    return RolloutPass<T>(arena, call_, rollouts_.data() + first, bounds_[tile + 1] - first,
                          choice_.edge_types + structure * graph.edges, nodes, room);
  }

  const RolloutCall<T>& call_;
  const RolloutChoice<T>& choice_;
  const std::vector<Rollout>& rollouts_;
  const std::vector<int64_t> bounds_;
  Arena& arena_ = worker_arena();
  bool fits_;
  std::vector<RolloutPass<T>> passes_[kStructures];  // that stay
};

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
  const auto choose = [&](int64_t b, T* parameters) {
    SystemChoice<T> system(call, choice, rollouts[b]);
    for (int64_t c = 0; c < kStructures; ++c) {
      system.run(c, sums.data() + c * segments.count * systems);
      energy[c * systems + b] = mean_error<T>(compared, segments, sums.data(), c, b);
    }
    const Decision decision =
        decide_system(choice.draws, b, choice.temperature[0], choice.log_ratio, energy[b], energy[systems + b]);
    const int64_t chosen = is_accepted(decision) ? 1 : 0;
    if (!(std::abs(energy[chosen * systems + b]) <= std::numeric_limits<T>::max())) return;
    system.backward(chosen, cotangent.data(), parameters);
  };
  const T* total = GradientLanes<T>::sum(library.gradient_size, execution.threads, systems, choose);
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
