// Which systems go through the fused kernels of the heat bath. A system's own size decides, so that its bits do not
// depend on the batch.
#pragma once

#include <map>
#include <tuple>

#include "cuda/fused_heat_bath_tile.h"
#include "cuda/system_range.h"
#include "ops/heat_bath.h"

namespace nri::cuda::fused {

inline HeatBathSizes no_systems(const HeatBathProblem<float>& problem) {
  return {0,
          0,
          0,
          0,
          problem.transitions,
          problem.library.edge_types,
          problem.library.node_types,
          problem.rows == HeatBathRows::conditionals};
}

// The same, and one system more.
inline HeatBathSizes with(HeatBathSizes sizes, const HeatBathProblem<float>& problem, int64_t system) {
  const GraphView& graph = problem.graph;
  const int64_t* const row = problem.host_row_offset;
  sizes.nodes = std::max(sizes.nodes, ranges::nodes(graph, system, system + 1));
  sizes.edges = std::max(sizes.edges, ranges::edges(graph, system, system + 1));
  sizes.rows = std::max(sizes.rows, row[system + 1] - row[system]);
  sizes.systems += 1;
  return sizes;
}

inline HeatBathSizes sizes_of(const HeatBathProblem<float>& problem, int64_t first_system, int64_t end_system) {
  HeatBathSizes sizes = no_systems(problem);
  for (int64_t b = first_system; b < end_system; ++b) sizes = with(sizes, problem, b);
  return sizes;
}

// Cuts the systems into runs of those that fit and of those that do not, and calls work(first_system, end_system,
// fused) for each. fits(sizes): monotone in nodes, edges and rows.
template <typename Fits, typename Work>
void for_runs(const HeatBathProblem<float>& problem, const Fits& fits, const Work& work) {
  const int64_t systems = problem.graph.systems;
  const HeatBathSizes none = no_systems(problem);
  std::map<std::tuple<int64_t, int64_t, int64_t>, bool> known;
  const auto is_fused = [&](const HeatBathSizes& sizes) {
    const auto size = std::make_tuple(sizes.nodes, sizes.edges, sizes.rows);
    const auto found = known.find(size);
    if (found != known.end()) return found->second;
    return known[size] = fits(sizes);
  };
  for (int64_t first = 0; first < systems;) {
    HeatBathSizes run = with(none, problem, first);
    const bool fused = is_fused(run);
    int64_t end = first + 1;
    for (; end < systems; ++end) {
      // What is as large as the largest of a run in each respect has to fit, too; then each of them does.
      const HeatBathSizes next = with(fused ? run : none, problem, end);
      if (is_fused(next) != fused) break;
      run = next;
    }
    work(first, end, fused);
    first = end;
  }
}

}  // namespace nri::cuda::fused
