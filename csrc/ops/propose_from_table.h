// Proposals of a Metropolis chain that are drawn from a table of probabilities (a network's, a heat bath's), with the
// probabilities of going there and back. Draws are Philox, named by (seed; stream, system id, step): see ops/anneal.h.
#pragma once

#include "common/views.h"
#include "ops/anneal.h"

namespace nri {

// What a proposal changes.
//   edge:   one (edge, type) or (entity, type), drawn in proportion to its probability, current types left out
//   node:   an entity, drawn uniformly; all its incoming edges, and its own type, are redrawn from their probabilities
//   flip:   as node, but with current types left out: everything drawn changes
//   system: every edge and every entity of the system is redrawn from its probabilities
// Where both directions of a pair are tied to one type (`reverse`), the pair takes an edge's place: the later of the
// two edges gives its row of probabilities, its type and its leave to change (common/tied_edges.h). `node` and `flip`
// then redraw all pairs of the entity.
enum class ProposalKind : int32_t { edge = 0, node = 1, flip = 2, system = 3 };

struct ProposalTable {
  int64_t edge_types;              // K
  int64_t node_types;              // M; with 1, entities take no part
  const double* edge_probability;  // [E, K]
  const double* node_probability;  // [V, M], or null where node_types == 1
  const uint8_t* may_change;       // [E] edges with 0 keep their types; null: all may change
  const int64_t* reverse;          // [E] the edge the other way round, or -1: tied to one type; null: none is tied
};

// propose_from_table: one proposal for every system.
//   edge_types [E], node_types [V] -> proposed_edge_types [E], proposed_node_types [V] (overwritten; node arrays may be
//   null where node_types == 1), log_ratio [B] = log of the probability of proposing the old structure from the new one
//   over that of proposing the new one from the old. Entries below 1e-300, infinite or NaN count as 0. Where nothing
//   can be drawn the structure stays and log_ratio is 0; where there is no way back it is minus infinity. Sums run over
//   a system's edges, then its entities, in order: the result is bit-equal on every device and in every batch. No
//   argument may overlap another. Empty input: nothing happens.
//
// blur: which edges a structure encoder must not see. [E] 0 or 1, overwritten.
//   whole_entity false: each edge with probability `share`. true: the incoming edges of one entity, drawn uniformly.
#define NRI_DECLARE_PROPOSE_FROM_TABLE                                                                        \
  void propose_from_table(const GraphView& graph, const DrawView& draws, const ProposalTable& table,          \
                          ProposalKind kind, const uint8_t* edge_types, const uint8_t* node_types,            \
                          uint8_t* proposed_edge_types, uint8_t* proposed_node_types, double* log_ratio,      \
                          const Execution& execution);                                                        \
  void blur(const GraphView& graph, const DrawView& draws, double share, bool whole_entity, uint8_t* blurred, \
            const Execution& execution);

namespace cpu {
NRI_DECLARE_PROPOSE_FROM_TABLE
}  // namespace cpu
namespace cuda {
NRI_DECLARE_PROPOSE_FROM_TABLE
}  // namespace cuda
#undef NRI_DECLARE_PROPOSE_FROM_TABLE

}  // namespace nri
