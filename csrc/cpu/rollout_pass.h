// A tile of roll-outs on its way forwards and back: the activations that the gradient needs, and the gradient itself.
#pragma once

#include "cpu/rollout_tile.h"
#include "cpu/transition_error.h"

namespace nri::cpu::NRI_CPU_VARIANT {

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

// What the tiles of one call share.
template <typename T>
struct RolloutCall {
  const RolloutProblem<T>& problem;
  const PackedLibrary<T>& library;
  const Segments segments;
  const std::vector<double>& compared;  // [B] predictions that are compared
  T* start_gradient = nullptr;          // [segments, V, D]: gradients of the states that roll-outs start from; or null
  T* state_gradient = nullptr;          // gradients of the recorded states as targets; or null
};

// Some roll-outs under their structures, the longest first. They run forwards at once; the arena keeps what was
// computed.
template <typename T>
class RolloutPass {
 public:
  // edge_types: [structures, E]; node_types: [V] or null
  // room: bytes that activations may take
  RolloutPass(Arena& arena, const RolloutCall<T>& call, const Rollout* rollouts, int64_t count,
              const uint8_t* edge_types, const uint8_t* node_types, int64_t room)
      : arena_(arena),
        call_(call),
        rollouts_(rollouts),
        count_(count),
        length_(rollouts[0].length),
        features_(call.library.features) {
    for (int64_t running = count, step = 0; running > 0;) {
      const int64_t end = rollouts[running - 1].length;
      const LibraryView<T>& library = call.problem.library;
      phases_.push_back({step, end, running,
                         Wiring<T>(arena, call.problem.graph, library.edge_types, library.node_types, rollouts, running,
                                   edge_types, node_types, call.problem.trajectories.step_scale)});
      step = end;
      while (running > 0 && rollouts[running - 1].length == end) running -= 1;
    }
    const Wiring<T>& wiring = phases_[0].wiring;
    together_ = std::min(length_, steps_together(wiring));
    kept_.emplace_back(arena, call.library, wiring, true);
    const int64_t bytes = length_ * kept_[0].values() * static_cast<int64_t>(sizeof(T));
    keeps_all_ = bytes <= room;
    for (int64_t t = 1; !keeps_all_ && t < together_; ++t) kept_.emplace_back(arena, call.library, wiring, true);
    state_.push_back(arena.take<T>(wiring.nodes * features_));
    for (int64_t i = 0; i < count; ++i) copy_starts(wiring, i, features_, recorded_start(rollouts[i]), state_[0]);
    for (const Phase& phase : phases_) {
      for (int64_t t = phase.begin; t < phase.end; ++t) {
        if (keeps_all_ && t > 0) kept_.emplace_back(arena, call.library, phase.wiring, true);
        state_.push_back(arena.take<T>(phase.wiring.nodes * features_));
        message_passing_step(call.library, phase.wiring, state_[t], state_[t + 1], kept_[keeps_all_ ? t : 0]);
      }
    }
  }

  // sums [segments, B]: adds the errors of every roll-out's transitions, step by step, entity by entity
  void add_errors(double* sums) const {
    for (int64_t i = 0; i < count_; ++i) {
      const Rollout& r = rollouts_[i];
      double& sum = sums[r.segment * call_.problem.graph.systems + r.system];
      for (int64_t t = 1; t <= r.length; ++t) {
        for_compared(call_.problem, call_.segments, phases_[0].wiring, r, i, t, [&](int64_t v, const T* target) {
          sum += transition_error(call_.problem.error, features_, state_[t] + v * features_, target);
        });
      }
    }
  }

  // Adds the gradient of the sum of cotangent [B] * energy to `parameters`. Once.
  void backward(const T* cotangent, T* parameters) {
    const Wiring<T>& wiring = phases_[0].wiring;
    T* gradient = arena_.take<T>(wiring.nodes * features_);
    T* again = arena_.take<T>(wiring.nodes * features_);
    std::fill_n(gradient, wiring.nodes * features_, T(0));
    std::vector<StepGradients<T>> rooms;
    for (int64_t t = 0; t < together_; ++t) rooms.emplace_back(arena_, call_.library, wiring);
    for (size_t p = phases_.size(); p-- > 0;) phase_backward(phases_[p], cotangent, rooms, gradient, again, parameters);
    for (int64_t i = 0; call_.start_gradient && i < count_; ++i) {
      const GraphView& graph = call_.problem.graph;
      const Rollout& r = rollouts_[i];
      T* own = call_.start_gradient + (r.segment * graph.nodes + graph.node_offset[r.system]) * features_;
      for (int64_t v = wiring.first_node[i]; v < wiring.first_node[i + 1]; ++v) {
        copy_state(gradient + v * features_, features_, own + wiring.entity[v] * features_);
      }
    }
  }

 private:
  // Steps begin + 1 .. end, in which the same roll-outs run: short ones leave, and with them the last nodes.
  struct Phase {
    int64_t begin, end, running;
    Wiring<T> wiring;
  };

  int64_t steps_together(const Wiring<T>& wiring) const {
    const int64_t widest = std::max(call_.library.edge.back().widest(), call_.library.node.back().widest());
    const int64_t step = std::max(wiring.edges, wiring.nodes) * widest * static_cast<int64_t>(sizeof(T));
    return std::max<int64_t>(1, kRowsTogether / std::max<int64_t>(1, step));
  }

  void phase_backward(const Phase& phase, const T* cotangent, const std::vector<StepGradients<T>>& rooms, T* gradient,
                      T* again, T* parameters) {
    std::vector<StepPass<T>> passes;
    for (int64_t t = phase.end; t > phase.begin; --t) {
      for (int64_t i = 0; i < phase.running; ++i) add_error_gradient(i, t, cotangent, gradient);
      const StepActivations<T>& step = kept_[keeps_all_ ? t - 1 : passes.size()];
      const StepGradients<T>& room = rooms[passes.size()];
      if (!keeps_all_) message_passing_step(call_.library, phase.wiring, state_[t - 1], again, step);
      message_passing_step_backward(call_.library, phase.wiring, step, room, gradient);
      passes.push_back({&step, &room});
      if (static_cast<int64_t>(passes.size()) < together_ && t > phase.begin + 1) continue;
      add_weight_gradients(call_.library, phase.wiring, passes, parameters);
      passes.clear();
    }
  }

  const T* recorded_start(const Rollout& r) const {
    const int64_t start = call_.segments.start(r.segment);
    return recorded_state(call_.problem.graph, call_.problem.trajectories, features_, r.system, start);
  }

  // Adds the gradient of the error that roll-out i's t-th prediction makes.
  void add_error_gradient(int64_t i, int64_t t, const T* cotangent, T* gradient) const {
    const RolloutProblem<T>& problem = call_.problem;
    const Rollout& r = rollouts_[i];
    const double factor = static_cast<double>(cotangent[r.system]) / call_.compared[r.system];
    std::vector<T> own(features_);
    for_compared(problem, call_.segments, phases_[0].wiring, r, i, t, [&](int64_t v, const T* target) {
      transition_error_gradient(problem.error, features_, state_[t] + v * features_, target, factor, own.data());
      for (int64_t d = 0; d < features_; ++d) gradient[v * features_ + d] += own[d];
      if (!call_.state_gradient) return;
      T* part = call_.state_gradient + (target - problem.trajectories.states);
      for (int64_t d = 0; d < features_; ++d) part[d] = -own[d];
    });
  }

  Arena& arena_;
  const RolloutCall<T>& call_;
  const Rollout* rollouts_;
  const int64_t count_, length_, features_;
  std::vector<Phase> phases_;
  int64_t together_;  // steps whose weights' gradients are added up together
  bool keeps_all_;
  std::vector<StepActivations<T>> kept_;  // of all steps, or room for those taken together
  std::vector<T*> state_;                 // [length of the longest + 1] of [nodes that run, D]
};

// Edge rows of a tile of the gradient.
template <typename T>
int64_t gradient_tile_rows(const PackedLibrary<T>& library) {
  return std::min<int64_t>(tile_rows(library), 128);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
