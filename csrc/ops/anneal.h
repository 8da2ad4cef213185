// Annealing: the random parts of a bounce. Draws are Philox, named by (seed; stream, system id, step), hence the same
// on every device and in every batch; decisions use portable_math.h and differ between devices only where energies do.
#pragma once

#include "common/views.h"

namespace nri {

// Names the draws of a bounce. `system_ids` are the systems' places in the whole data set, not in the batch.
struct DrawView {
  uint64_t seed;
  int64_t step;               // 0 .. 2^32 - 1
  const int64_t* system_ids;  // [B]
};

// Columns of a counts table.
enum MetropolisCount : int { kProposed = 0, kAccepted = 1, kAcceptedWorsening = 2, kNotFinite = 3, kCounts = 4 };

// metropolis_propose: for every system, one random edge gets a random other type, or one random entity does: the place
// is uniform over the system's edges (when edge_types_count > 1) and entities (when node_types_count > 1) together, the
// new type uniform over the others. A system with no place to change keeps its structure.
//   reverse [E], or null: where it is given, both directions of a pair are one place and change together, from the type
//   of the later edge (common/tied_edges.h).
//   edge_types [E], node_types [V] -> proposed_edge_types [E], proposed_node_types [V] (overwritten; node arrays may be
//   null when node_types_count == 1).
//
// metropolis_decide: keeps or discards each system's proposal by common/metropolis.h, in place.
//   energy [B] and the type arrays are updated where accepted; counts [B, kCounts] are added to.
//   temperature [1] lies where the other arrays lie. log_ratio [B], or null for 0: how much likelier the way back is
//   than the way there (ops/propose_from_table.h).
//
// heat_bath_sample: draws every receiver's row from softmax(-score / temperature) by the inverse of its cumulative sum,
//   or, at temperature 0, takes the lowest score (the first of equals); temperature [1] lies where the other arrays do.
//   Rows with a NaN score have probability zero; a receiver with no finite score keeps its types.
//   The rows are the blocks of ops/heat_bath.h under each of the receiver's own types, the node type slowest. The drawn
//   row's types are written to the receiver's free edges (stride > 0) in edge_types [E], and to node_types [V] (may be
//   null when node_types_count == 1).
//
// responsibilities: softmax(-score / temperature) over each receiver's rows (blocks), or over each edge's K rows
//   (conditionals: `group` = K, blocks: `group` = 0). Rows below 2^-24 of the largest are set to exactly zero, so that
//   the gradient skips them. NaN scores get zero.   scores, weights: [row_offset[V]]
#define NRI_DECLARE_ANNEAL(T)                                                                                          \
  void metropolis_decide(const GraphView& graph, const DrawView& draws, const T* temperature, const double* log_ratio, \
                         const T* proposed_energy, const uint8_t* proposed_edge_types,                                 \
                         const uint8_t* proposed_node_types, T* energy, uint8_t* edge_types, uint8_t* node_types,      \
                         int64_t* counts, const Execution& execution);                                                 \
  void heat_bath_sample(const GraphView& graph, const DrawView& draws, int64_t edge_types_count,                       \
                        int64_t node_types_count, const int64_t* row_offset, const int64_t* stride, const T* scores,   \
                        const double* temperature, uint8_t* edge_types, uint8_t* node_types,                           \
                        const Execution& execution);                                                                   \
  void responsibilities(int64_t receivers, const int64_t* row_offset, int64_t group, const T* scores,                  \
                        const double* temperature, T* weights, const Execution& execution);

#define NRI_DECLARE_PROPOSE                                                                                      \
  void metropolis_propose(const GraphView& graph, const DrawView& draws, const int64_t* reverse,                 \
                          int64_t edge_types_count, int64_t node_types_count, const uint8_t* edge_types,         \
                          const uint8_t* node_types, uint8_t* proposed_edge_types, uint8_t* proposed_node_types, \
                          const Execution& execution);

namespace cpu {
NRI_DECLARE_PROPOSE
NRI_DECLARE_ANNEAL(float)
NRI_DECLARE_ANNEAL(double)
}  // namespace cpu
namespace cuda {
NRI_DECLARE_PROPOSE
NRI_DECLARE_ANNEAL(float)
NRI_DECLARE_ANNEAL(double)
}  // namespace cuda
#undef NRI_DECLARE_ANNEAL
#undef NRI_DECLARE_PROPOSE

}  // namespace nri
