// One system's random change: the arithmetic that every backend shares, to the bit.
#pragma once

#include "common/philox.h"
#include "common/tied_edges.h"
#include "ops/anneal.h"

namespace nri {

// Uniform over the types 0 .. count - 1 without the current one.
NRI_HOST_DEVICE inline uint8_t other_type(const Philox4& bits, int64_t count, uint8_t current) {
  const int64_t other = uniform_index(bits.z, bits.w, count - 1);
  return static_cast<uint8_t>(other + (other >= current ? 1 : 0));
}

// Gives one random edge (a pair, where edges are tied) or entity of the system another type, in place; nothing where
// there is no place to change. node_types may be null: entities then take no part.
NRI_HOST_DEVICE inline void change_at_random(const GraphView& graph, const DrawView& draws, const int64_t* reverse,
                                             int64_t edge_types_count, int64_t node_types_count, int64_t system,
                                             uint8_t* edge_types, uint8_t* node_types) {
  const TiedEdges tied(reverse);
  const int64_t first_node = graph.node_offset[system], end_node = graph.node_offset[system + 1];
  const int64_t first_edge = graph.in_offset[first_node];
  const int64_t edge_places = edge_types_count > 1 ? tied.leaders(first_edge, graph.in_offset[end_node]) : 0;
  const int64_t node_places = node_types_count > 1 && node_types != nullptr ? end_node - first_node : 0;
  if (edge_places + node_places == 0) return;
  const Philox4 bits = draw(draws.seed, Stream::propose, draws.system_ids[system], draws.step, 0);
  const int64_t place = uniform_index(bits.x, bits.y, edge_places + node_places);
  if (place < edge_places) {
    const int64_t edge = tied.leader_at(first_edge, place);
    tied.set(edge_types, edge, other_type(bits, edge_types_count, edge_types[edge]));
  } else {
    uint8_t& type = node_types[first_node + place - edge_places];
    type = other_type(bits, node_types_count, type);
  }
}

}  // namespace nri
