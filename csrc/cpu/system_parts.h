// Where a system's nodes and edges lie in flat arrays of types.
#pragma once

#include <algorithm>

#include "common/views.h"

namespace nri::cpu {

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

inline Range nodes_of(const GraphView& graph, int64_t system) {
  return {graph.node_offset[system], graph.node_offset[system + 1]};
}

inline Range edges_of(const GraphView& graph, int64_t system) {
  const Range nodes = nodes_of(graph, system);
  return {graph.in_offset[nodes.begin], graph.in_offset[nodes.end]};
}

inline void copy_range(const uint8_t* from, const Range& range, uint8_t* to) {
  std::copy(from + range.begin, from + range.end, to + range.begin);
}

}  // namespace nri::cpu
