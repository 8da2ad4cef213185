// A run of consecutive systems of the mega-graph: what one chunk of work holds. Nodes and edges are numbered from the
// run's first in the arrays of a chunk, globally in the arrays of the caller.
#pragma once

#include "cuda/workspace.h"

namespace nri::cuda {

struct SystemRange {
  int64_t first_system, systems;
  int64_t first_node, nodes;
  int64_t first_edge, edges;
  // The caller's arrays, in global numbers.
  const int64_t* node_offset;
  const int64_t* in_offset;
  const int64_t* sender;
  const int64_t* receiver;
  const int64_t* system_of_node;  // [nodes] global system of the range's nodes
};

namespace ranges {

inline int64_t nodes(const GraphView& graph, int64_t first, int64_t end) {
  return graph.host_node_offset[end] - graph.host_node_offset[first];
}

inline int64_t edges(const GraphView& graph, int64_t first, int64_t end) {
  return graph.host_edge_offset[end] - graph.host_edge_offset[first];
}

// Without the node-to-system map.
inline SystemRange view(const GraphView& graph, int64_t first, int64_t end) {
  return {first,
          end - first,
          graph.host_node_offset[first],
          nodes(graph, first, end),
          graph.host_edge_offset[first],
          edges(graph, first, end),
          graph.node_offset,
          graph.in_offset,
          graph.sender,
          graph.receiver,
          nullptr};
}

}  // namespace ranges

// Owns the node-to-system map of a range.
class SystemRangeHolder {
 public:
  SystemRangeHolder(const GraphView& graph, int64_t first_system, int64_t end_system, const Execution& execution);
  const SystemRange& view() const { return view_; }

 private:
  Buffer<int64_t> system_of_node_;
  SystemRange view_;
};

// Place of a node's flag in arrays laid out as TrajectoryView::present.   node: global
__device__ inline int64_t flag_place(const SystemRange& range, int64_t frames, int64_t system, int64_t frame,
                                     int64_t node) {
  const int64_t begin = range.node_offset[system];
  const int64_t entities = range.node_offset[system + 1] - begin;
  return frames * begin + frame * entities + (node - begin);
}

// Address of a node's state in arrays laid out as TrajectoryView::states.   node: global
__device__ inline int64_t state_place(const SystemRange& range, int64_t frames, int64_t features, int64_t system,
                                      int64_t frame, int64_t node) {
  return flag_place(range, frames, system, frame, node) * features;
}

template <typename T>
__device__ inline T step_scale_of(const T* step_scale, int64_t system) {
  return step_scale == nullptr ? T(1) : step_scale[system];
}

}  // namespace nri::cuda
