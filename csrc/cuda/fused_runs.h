// Which systems go through fused kernels. A system's own size decides, so that its bits do not depend on the batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "common/views.h"

namespace nri::cuda::fused {

// The largest number of entities and of edges among some systems.
struct LargestSystem {
  int64_t nodes = 0;
  int64_t edges = 0;

  LargestSystem with(const GraphView& graph, int64_t system) const {
    return {std::max(nodes, graph.host_node_offset[system + 1] - graph.host_node_offset[system]),
            std::max(edges, graph.host_edge_offset[system + 1] - graph.host_edge_offset[system])};
  }
};

// Cuts the systems into runs of those that fit and of those that do not, and calls work(first_system, end_system,
// fused, largest) for each. fits(nodes, edges): monotone in both. A tile is planned for the largest of a run in either
// respect, so that has to fit, too: a system with many entities and one with many edges may need a run each.
template <typename Fits, typename Work>
void for_runs(const GraphView& graph, const Fits& fits, const Work& work) {
  std::map<std::pair<int64_t, int64_t>, bool> known;
  const auto is_fused = [&](const LargestSystem& size) {
    const auto key = std::make_pair(size.nodes, size.edges);
    const auto found = known.find(key);
    if (found != known.end()) return found->second;
    return known[key] = fits(size.nodes, size.edges);
  };
  for (int64_t first = 0; first < graph.systems;) {
    LargestSystem run = LargestSystem().with(graph, first);
    const bool fused = is_fused(run);
    int64_t end = first + 1;
    for (; end < graph.systems; ++end) {
      const LargestSystem next = (fused ? run : LargestSystem()).with(graph, end);
      if (is_fused(next) != fused) break;
      run = next;
    }
    work(first, end, fused, run);
    first = end;
  }
}

}  // namespace nri::cuda::fused
