// Which roll-outs an operation runs: the segments of recordings, who takes part in them, and what is compared.
#pragma once

#include <algorithm>
#include <vector>

#include "ops/rollout_energy.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// One roll-out: a system under a structure, restarted at step segment * R of its recording.
struct Rollout {
  int64_t structure, system, segment;
  int64_t length;          // steps to run
  const uint8_t* present;  // [entities of the system] zero: takes no part; or null: all do
  int64_t nodes, edges;    // entities that take part, and edges between them

  Rollout(const GraphView& graph, int64_t structure_, int64_t system_, int64_t segment_, int64_t length_,
          const uint8_t* present_)
      : structure(structure_), system(system_), segment(segment_), length(length_), present(present_) {
    const int64_t first = graph.node_offset[system], end = graph.node_offset[system + 1];
    nodes = end - first;
    edges = graph.in_offset[end] - graph.in_offset[first];
    if (!present) return;
    nodes = edges = 0;
    for (int64_t v = first; v < end; ++v) {
      if (!present[v - first]) continue;
      nodes += 1;
      for (int64_t e = graph.in_offset[v]; e < graph.in_offset[v + 1]; ++e)
        edges += present[graph.sender[e] - first] != 0;
    }
  }
};

// How a recording is cut into roll-outs.
struct Segments {
  int64_t count, rollout, steps;
  Segments(int64_t steps_, int64_t rollout_)
      : count((steps_ - 1 + rollout_ - 1) / rollout_), rollout(rollout_), steps(steps_) {}
  int64_t start(int64_t segment) const { return segment * rollout; }
  int64_t length(int64_t segment) const { return std::min(rollout, steps - 1 - start(segment)); }
};

template <typename T>
const T* recorded_state(const GraphView& graph, const TrajectoryView<T>& trajectories, int64_t features, int64_t system,
                        int64_t step) {
  const int64_t entities = graph.node_offset[system + 1] - graph.node_offset[system];
  return trajectories.states + (trajectories.steps * graph.node_offset[system] + step * entities) * features;
}

// Whose states a system has at a step, the first entity first; null: everybody's.
template <typename T>
const uint8_t* present_entities(const GraphView& graph, const TrajectoryView<T>& trajectories, int64_t system,
                                int64_t step) {
  if (!trajectories.present) return nullptr;
  const int64_t first = graph.node_offset[system], entities = graph.node_offset[system + 1] - first;
  return trajectories.present + trajectories.steps * first + step * entities;
}

// Which of a system's entities are observed, the first first; null: all are.
template <typename T>
const uint8_t* observed_entities(const RolloutProblem<T>& problem, int64_t system) {
  return problem.observed ? problem.observed + problem.graph.node_offset[system] : nullptr;
}

// How many steps of a segment there are up to its last prediction that is compared.
template <typename T>
int64_t steps_to_compare(const RolloutProblem<T>& problem, const Segments& segments, int64_t system, int64_t segment) {
  int64_t length = segments.length(segment);
  if (!problem.trajectories.present) return length;
  const GraphView& graph = problem.graph;
  const int64_t entities = graph.node_offset[system + 1] - graph.node_offset[system];
  const uint8_t* starts = present_entities(graph, problem.trajectories, system, segments.start(segment));
  const uint8_t* observed = observed_entities(problem, system);
  for (; length > 0; --length) {
    const uint8_t* then = starts + length * entities;
    for (int64_t v = 0; v < entities; ++v) {
      if (starts[v] && then[v] && is_present(observed, v)) return length;
    }
  }
  return 0;
}

// The roll-outs of those systems that `wanted` names, under so many structures; without those in which nothing is
// compared. Segment after segment, so that neighbours have the same length and can share a tile.
template <typename T, typename Wanted>
std::vector<Rollout> list_rollouts(const RolloutProblem<T>& problem, const Segments& segments, int64_t structures,
                                   const Wanted& wanted) {
  const GraphView& graph = problem.graph;
  std::vector<Rollout> rollouts;
  rollouts.reserve(structures * segments.count * graph.systems);
  for (int64_t c = 0; c < structures; ++c) {
    for (int64_t s = 0; s < segments.count; ++s) {
      for (int64_t b = 0; b < graph.systems; ++b) {
        const int64_t length = wanted(b) ? steps_to_compare(problem, segments, b, s) : 0;
        if (length == 0) continue;
        const uint8_t* present = present_entities(graph, problem.trajectories, b, segments.start(s));
        rollouts.emplace_back(graph, c, b, s, length, present);
      }
    }
  }
  if (problem.trajectories.present) {
    std::stable_sort(rollouts.begin(), rollouts.end(),
                     [](const Rollout& a, const Rollout& b) { return a.length > b.length; });
  }
  return rollouts;
}

// [B] predictions of each system that are compared.
template <typename T>
std::vector<double> compared_predictions(const RolloutProblem<T>& problem) {
  const int64_t* offset = problem.graph.node_offset;
  std::vector<double> counts;
  for (int64_t b = 0; b < problem.graph.systems; ++b) {
    const int64_t count =
        count_compared(problem.trajectories, problem.observed, problem.rollout, offset[b], offset[b + 1]);
    counts.push_back(static_cast<double>(count));
  }
  return counts;
}

// The energy of system b under structure c, from `sums` [structures, segments, B] of errors: segment after segment.
template <typename T>
T mean_error(const std::vector<double>& compared, const Segments& segments, const double* sums, int64_t c, int64_t b) {
  const int64_t systems = static_cast<int64_t>(compared.size());
  double total = 0;
  for (int64_t s = 0; s < segments.count; ++s) total += sums[(c * segments.count + s) * systems + b];
  return compared[b] > 0 ? static_cast<T>(total / compared[b]) : T(0);
}

// energy [structures, B]
template <typename T>
void mean_errors(const std::vector<double>& compared, const Segments& segments, int64_t structures,
                 const std::vector<double>& sums, T* energy) {
  const int64_t systems = static_cast<int64_t>(compared.size());
  for (int64_t c = 0; c < structures; ++c) {
    for (int64_t b = 0; b < systems; ++b) {
      energy[c * systems + b] = mean_error<T>(compared, segments, sums.data(), c, b);
    }
  }
}

enum class Lengths { one, any };  // of the roll-outs in a tile

// Cuts a list of roll-outs into tiles of about `target` edge rows; entry t and t + 1 bound tile t.
inline std::vector<int64_t> cut_into_tiles(const std::vector<Rollout>& rollouts, int64_t target,
                                           Lengths lengths = Lengths::one) {
  std::vector<int64_t> bounds;
  int64_t rows = 0;
  const int64_t count = static_cast<int64_t>(rollouts.size());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t more = std::max(rollouts[i].edges, rollouts[i].nodes);
    const bool differs = i > 0 && lengths == Lengths::one && rollouts[i].length != rollouts[i - 1].length;
    if (i == 0 || rows + more > target || differs) {
      bounds.push_back(i);
      rows = 0;
    }
    rows += more;
  }
  bounds.push_back(count);
  return bounds;
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
