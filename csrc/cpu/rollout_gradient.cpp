#include "ops/rollout_gradient.h"

#include "cpu/gradient_lanes.h"
#include "cpu/rollout_tile.h"
#include "cpu/transition_error.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

// A tile keeps all its steps' activations for the way back if they take no more than this. Otherwise it keeps its
// states, from which each step is run once more: the same bits for a third more work, and memory that hardly grows with
// the roll-out.
constexpr int64_t kMostKept = int64_t{8} << 20;

// Weights' gradients are added up over so many steps together that the rows of a layer take about this: the sums, which
// for wide modules lie far from the core, are read and written once for all of these steps.
constexpr int64_t kRowsTogether = int64_t{256} << 10;

// Room for the gradients that travel backwards through one step.
template <typename T>
struct StepGradients {
  Activations<T> edge, node;  // output[l]: gradient of layer l's output; input: of the module's input
  StepGradients(Arena& arena, const PackedLibrary<T>& library, const Wiring<T>& wiring)
      : edge(arena, library.edge.back(), wiring.edges, true), node(arena, library.node.back(), wiring.nodes, true) {}
};

// Rows first .. first + rows - 1 of a step, which ran through one module.
template <typename T>
MlpPass<T> pass_through(const Activations<T>& kept, const Activations<T>& gradients, int64_t first, int64_t rows,
                        int64_t input_stride) {
  return {kept.input + first * input_stride, rows, kept.from_row(first), gradients.from_row(first)};
}

// Takes the gradient of the state after a step, in `gradient` [nodes, D], back to the state before it, in place. The
// gradients of all layers' outputs are left in `room`.
template <typename T>
void message_passing_step_backward(const PackedLibrary<T>& library, const Wiring<T>& wiring,
                                   const StepActivations<T>& kept, const StepGradients<T>& room, T* gradient) {
  const int64_t features = library.features, message = library.message;
  const int64_t message_stride = padded<T>(message), pair_stride = padded<T>(2 * features);
  const int64_t node_stride = padded<T>(message + features), change_stride = padded<T>(features);

  for (int64_t v = 0; v < wiring.nodes; ++v) {
    T* change = room.node.output.back() + wiring.node_row[v] * change_stride;
    for (int64_t d = 0; d < features; ++d) change[d] = wiring.step_scale[v] * gradient[v * features + d];
  }
  for (size_t m = 0; m < library.node.size(); ++m) {
    const int64_t first = wiring.node_group[m], rows = wiring.node_group[m + 1] - first;
    if (rows == 0) continue;
    library.node[m].backward(pass_through(kept.node, room.node, first, rows, node_stride),
                             room.node.input + first * node_stride, nullptr);
  }
  for (int64_t v = 0; v < wiring.nodes; ++v) {
    const T* own = room.node.input + wiring.node_row[v] * node_stride + message;
    for (int64_t d = 0; d < features; ++d) gradient[v * features + d] += own[d];
  }
  if (library.edge.back().layers.empty()) return;  // a lone silent type
  for (int64_t v = 0; v < wiring.nodes; ++v) {
    const T* sum_gradient = room.node.input + wiring.node_row[v] * node_stride;
    for (int64_t e = wiring.in_begin[v]; e < wiring.in_begin[v + 1]; ++e) {
      const int64_t offset = wiring.edge_row[e] * message_stride;
      mask_row(sum_gradient, kept.edge.output.back() + offset, message_stride, room.edge.output.back() + offset);
    }
  }
  for (size_t k = 0; k < library.edge.size(); ++k) {
    const int64_t first = wiring.edge_group[k], rows = wiring.edge_group[k + 1] - first;
    T* pairs = room.edge.input + first * pair_stride;
    if (library.edge[k].layers.empty()) {
      std::fill_n(pairs, rows * pair_stride, T(0));
    } else if (rows) {
      library.edge[k].backward(pass_through(kept.edge, room.edge, first, rows, pair_stride), pairs, nullptr);
    }
  }
  for (int64_t v = 0; v < wiring.nodes; ++v) {
    for (int64_t e = wiring.in_begin[v]; e < wiring.in_begin[v + 1]; ++e) {
      const T* pair = room.edge.input + wiring.edge_row[e] * pair_stride;
      T* from = gradient + wiring.sender[e] * features;
      T* into = gradient + v * features;
      for (int64_t d = 0; d < features; ++d) from[d] += pair[d];
      for (int64_t d = 0; d < features; ++d) into[d] += pair[features + d];
    }
  }
}

// What a step leaves for the weights' gradients.
template <typename T>
struct StepPass {
  const StepActivations<T>* kept;
  const StepGradients<T>* gradients;
};

// Adds the gradients of all modules' weights over some steps that have been taken back.
template <typename T>
void add_weight_gradients(const PackedLibrary<T>& library, const Wiring<T>& wiring,
                          const std::vector<StepPass<T>>& steps, T* parameters) {
  std::vector<MlpPass<T>> passes;
  for (size_t m = 0; m < library.node.size(); ++m) {
    const int64_t first = wiring.node_group[m], rows = wiring.node_group[m + 1] - first;
    passes.clear();
    for (const StepPass<T>& step : steps) {
      passes.push_back(pass_through(step.kept->node, step.gradients->node, first, rows,
                                    padded<T>(library.message + library.features)));
    }
    library.node[m].add_gradients(passes, parameters);
  }
  for (size_t k = 0; k < library.edge.size(); ++k) {
    const int64_t first = wiring.edge_group[k], rows = wiring.edge_group[k + 1] - first;
    if (rows == 0 || library.edge[k].layers.empty()) continue;
    passes.clear();
    for (const StepPass<T>& step : steps) {
      passes.push_back(
          pass_through(step.kept->edge, step.gradients->edge, first, rows, padded<T>(2 * library.features)));
    }
    library.edge[k].add_gradients(passes, parameters);
  }
}

// One call's problem, shared by its tiles.
template <typename T>
struct GradientCall {
  const RolloutProblem<T>& problem;
  const PackedLibrary<T>& library;
  const Segments segments;
  const std::vector<Rollout>& rollouts;
  const uint8_t* edge_types;
  const T* cotangent;
  const std::vector<double>& compared;  // [B] predictions that are compared
  double* sums;                         // [segments, B] as in the forward operation
  T* start_gradient;                    // [segments, V, D]: gradients of the states that roll-outs start from; or null
  T* state_gradient;                    // gradients of the recorded states as targets; or null

  void run_tile(int64_t first, int64_t count, T* parameters) const {
    Arena& arena = worker_arena();
    const GraphView& graph = problem.graph;
    const int64_t features = library.features;
    const Wiring<T> wiring(arena, graph, problem.library.edge_types, problem.library.node_types,
                           rollouts.data() + first, count, edge_types, problem.node_types,
                           problem.trajectories.step_scale);
    const int64_t length = rollouts[first].length;
    std::vector<StepActivations<T>> kept{StepActivations<T>(arena, library, wiring, true)};
    const bool keep_all = length * kept[0].values() * static_cast<int64_t>(sizeof(T)) <= kMostKept;
    const int64_t together = std::min(length, steps_together(wiring));
    for (int64_t t = 1; t < (keep_all ? length : together); ++t) kept.emplace_back(arena, library, wiring, true);
    std::vector<StepGradients<T>> gradients;
    for (int64_t t = 0; t < together; ++t) gradients.emplace_back(arena, library, wiring);

    std::vector<T*> state{arena.take<T>(wiring.nodes * features)};
    for (int64_t i = 0; i < count; ++i) {
      copy_starts(wiring, i, features, recorded_start(rollouts[first + i]), state[0]);
    }
    for (int64_t t = 0; t < length; ++t) {
      state.push_back(arena.take<T>(wiring.nodes * features));
      message_passing_step(library, wiring, state[t], state[t + 1], kept[keep_all ? t : 0]);
    }

    T* gradient = arena.take<T>(wiring.nodes * features);
    T* again = arena.take<T>(wiring.nodes * features);
    std::fill_n(gradient, wiring.nodes * features, T(0));
    std::vector<StepPass<T>> passes;
    for (int64_t t = length; t > 0; --t) {
      for (int64_t i = 0; i < count; ++i) add_error_gradient(wiring, first, i, t, state[t], gradient);
      const StepActivations<T>& step = kept[keep_all ? t - 1 : passes.size()];
      const StepGradients<T>& room = gradients[passes.size()];
      if (!keep_all) message_passing_step(library, wiring, state[t - 1], again, step);
      message_passing_step_backward(library, wiring, step, room, gradient);
      passes.push_back({&step, &room});
      if (static_cast<int64_t>(passes.size()) < together && t > 1) continue;
      add_weight_gradients(library, wiring, passes, parameters);
      passes.clear();
    }
    for (int64_t i = 0; start_gradient && i < count; ++i) {
      const Rollout& r = rollouts[first + i];
      T* own = start_gradient + (r.segment * graph.nodes + graph.node_offset[r.system]) * features;
      for (int64_t v = wiring.first_node[i]; v < wiring.first_node[i + 1]; ++v) {
        copy_state(gradient + v * features, features, own + wiring.entity[v] * features);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      const Rollout& r = rollouts[first + i];
      double& sum = sums[r.segment * graph.systems + r.system];
      for (int64_t t = 1; t <= length; ++t) {
        for_compared(problem, segments, wiring, r, i, t, [&](int64_t v, const T* target) {
          sum += transition_error(problem.error, features, state[t] + v * features, target);
        });
      }
    }
  }

 private:
  int64_t steps_together(const Wiring<T>& wiring) const {
    const int64_t widest = std::max(library.edge.back().widest(), library.node.back().widest());
    const int64_t step = std::max(wiring.edges, wiring.nodes) * widest * static_cast<int64_t>(sizeof(T));
    return std::max<int64_t>(1, kRowsTogether / std::max<int64_t>(1, step));
  }

  const T* recorded_start(const Rollout& r) const {
    return recorded_state(problem.graph, problem.trajectories, library.features, r.system, segments.start(r.segment));
  }

  // Adds the gradient of the error that roll-out i's t-th prediction makes.
  void add_error_gradient(const Wiring<T>& wiring, int64_t first, int64_t i, int64_t t, const T* state,
                          T* gradient) const {
    const Rollout& r = rollouts[first + i];
    const int64_t features = library.features;
    const double factor = static_cast<double>(cotangent[r.system]) / compared[r.system];
    std::vector<T> own(features);
    for_compared(problem, segments, wiring, r, i, t, [&](int64_t v, const T* target) {
      transition_error_gradient(problem.error, features, state + v * features, target, factor, own.data());
      for (int64_t d = 0; d < features; ++d) gradient[v * features + d] += own[d];
      if (!state_gradient) return;
      T* part = state_gradient + (target - problem.trajectories.states);
      for (int64_t d = 0; d < features; ++d) part[d] = -own[d];
    });
  }
};

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
  const GradientCall<T> call{problem,       library,     segments,
                             rollouts,      edge_types,  cotangent,
                             compared,      sums.data(), state_gradient ? start_gradient.data() : nullptr,
                             state_gradient};
  // The cut into tiles decides the order of summation, so it looks at the batch alone.
  const std::vector<int64_t> bounds = cut_into_tiles(rollouts, std::min<int64_t>(tile_rows(library), 128));
  const T* total = GradientLanes<T>::sum(
      library.gradient_size, execution.threads, static_cast<int64_t>(bounds.size()) - 1,
      [&](int64_t tile, T* parameters) { call.run_tile(bounds[tile], bounds[tile + 1] - bounds[tile], parameters); });
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
