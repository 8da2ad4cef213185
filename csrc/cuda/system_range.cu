#include "cuda/outgoing.h"
#include "cuda/system_range.h"

namespace nri::cuda {
namespace {

__global__ void find_systems(int64_t nodes, int64_t first_node, int64_t systems, const int64_t* node_offset,
                             int64_t* system_of_node) {
  const int64_t node = global_index();
  if (node < nodes) system_of_node[node] = find_range(node_offset, systems, first_node + node);
}

// Lists a node's outgoing edges from place `list` on, or only counts them where `list` is null. A receiver's senders
// ascend, so its edge from this node is found by bisection.
__device__ int64_t collect_outgoing(const SystemRange& range, int64_t index, int64_t* list) {
  const int64_t node = range.first_node + index;
  const int64_t system = range.system_of_node[index];
  int64_t found = 0;
  for (int64_t to = range.node_offset[system]; to < range.node_offset[system + 1]; ++to) {
    const int64_t end = range.in_offset[to + 1];
    int64_t low = range.in_offset[to];
    for (int64_t high = end; low < high;) {
      const int64_t middle = (low + high) / 2;
      if (range.sender[middle] < node) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    for (; low < end && range.sender[low] == node; ++low) {
      if (list != nullptr) list[found] = low - range.first_edge;
      ++found;
    }
  }
  return found;
}

__global__ void count_outgoing(int64_t nodes, SystemRange range, int64_t* offset) {
  const int64_t index = global_index();
  if (index < nodes) offset[index] = collect_outgoing(range, index, nullptr);
}

// A system has as many outgoing as incoming edges, so its part of the list begins where its edges do.
__global__ void place_outgoing(int64_t systems, SystemRange range, int64_t* offset) {
  const int64_t index = global_index();
  if (index >= systems) return;
  const int64_t system = range.first_system + index;
  const int64_t end = range.node_offset[system + 1];
  int64_t place = range.in_offset[range.node_offset[system]] - range.first_edge;
  for (int64_t node = range.node_offset[system]; node < end; ++node) {
    const int64_t count = offset[node - range.first_node];
    offset[node - range.first_node] = place;
    place += count;
  }
  if (index == systems - 1) offset[range.nodes] = place;
}

__global__ void list_outgoing(int64_t nodes, SystemRange range, const int64_t* offset, int64_t* edge) {
  const int64_t index = global_index();
  if (index < nodes) collect_outgoing(range, index, edge + offset[index]);
}

}  // namespace

SystemRangeHolder::SystemRangeHolder(const GraphView& graph, int64_t first_system, int64_t end_system,
                                     const Execution& execution) {
  const int64_t first_node = graph.host_node_offset[first_system];
  const int64_t nodes = ranges::nodes(graph, first_system, end_system);
  system_of_node_ = Buffer<int64_t>(nodes, execution);
  view_ = {first_system,
           end_system - first_system,
           first_node,
           nodes,
           graph.host_edge_offset[first_system],
           ranges::edges(graph, first_system, end_system),
           graph.node_offset,
           graph.in_offset,
           graph.sender,
           graph.receiver,
           system_of_node_.data()};
  launch_elements("find_systems", find_systems, nodes, execution, first_node, graph.systems, graph.node_offset,
                  system_of_node_.data());
}

OutgoingHolder::OutgoingHolder(const SystemRange& range, const Execution& execution)
    : offset_(range.nodes + 1, execution), edge_(range.edges, execution) {
  launch_elements("count_outgoing", count_outgoing, range.nodes, execution, range, offset_.data());
  launch_elements("place_outgoing", place_outgoing, range.systems, execution, range, offset_.data());
  launch_elements("list_outgoing", list_outgoing, range.edges == 0 ? 0 : range.nodes, execution, range, offset_.data(),
                  edge_.data());
}

}  // namespace nri::cuda
