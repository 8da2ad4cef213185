// The rows of a heat bath: which type each row gives to each incoming edge, and the sums that this implies between
// rows, projected messages and receivers. Message items are [edges, classes]: an edge under one non-silent type. All
// arrays of the device hold one or more transitions (replicas) of a range of systems.
#pragma once

#include "cuda/row_buckets.h"
#include "cuda/system_range.h"
#include "ops/heat_bath.h"

namespace nri::cuda {

struct HeatBathView {
  SystemRange range;
  const uint8_t* present;  // the caller's, or null
  int64_t frames;          // recorded steps
  int64_t transitions;     // a system's
  const int64_t* start;    // [B, transitions] the caller's
  HeatBathRows kind;
  int64_t edge_types_count;
  int64_t first_type;
  int64_t classes;  // edge_types_count - first_type
  int64_t rows;     // of the range
  int64_t first_row;
  const int64_t* row_offset;   // [V + 1] the caller's
  const uint8_t* edge_types;   // the caller's, for conditionals
  const int64_t* stride;       // the caller's, for blocks
  const float* held_weight;    // the caller's, for held edges
  const uint8_t* node_types;   // the caller's, or null
  const int64_t* node_of_row;  // [rows] global
};

// Whether a node is there before a transition, and whether its prediction is compared.   node: global
__device__ inline bool takes_part(const HeatBathView& view, int64_t node, int64_t transition, int64_t later = 0) {
  if (view.present == nullptr) return true;
  const int64_t system = view.range.system_of_node[node - view.range.first_node];
  const int64_t frame = view.start[system * view.transitions + transition] + later;
  return view.present[flag_place(view.range, view.frames, system, frame, node)] != 0;
}
__device__ inline bool is_compared(const HeatBathView& view, int64_t node, int64_t transition) {
  return takes_part(view, node, transition) && takes_part(view, node, transition, 1);
}

// Keys of all replicas, which are transitions first_transition and following: rows of who is not compared are skipped,
// and messages of senders that are absent. Where a cotangent is given, rows whose own is zero are skipped, and so are
// messages and receivers that only such rows use: what is in them must not touch the gradient.
template <typename T>
void heat_bath_keys(const HeatBathView& view, int64_t first_transition, int64_t replicas, const T* cotangent,
                    uint16_t* edge_keys, uint16_t* projection_keys, uint16_t* node_keys, uint16_t* row_keys,
                    const Execution& execution);

void find_nodes_of_rows(const HeatBathView& view, int64_t nodes, int64_t* node_of_row, const Execution& execution);

// sums [row slots, width] = base of the receiver + projections of its messages in CSR order; ReLU if `rectify`.
template <typename T>
void sum_projections(const HeatBathView& view, const SlotView& rows, const SlotView& projections, const SlotView& nodes,
                     int64_t width, bool rectify, const T* projection, const T* base, T* sums,
                     const Execution& execution);

// The transpose of the above: base [node slots, width] and projection [projection slots, width] from sums.
template <typename T>
void spread_to_bases(const HeatBathView& view, const SlotView& rows, const SlotView& nodes, int64_t width,
                     const T* sums, T* base, const Execution& execution);
template <typename T>
void spread_to_projections(const HeatBathView& view, const SlotView& rows, const SlotView& projections, int64_t width,
                           const T* sums, T* projection, const Execution& execution);

}  // namespace nri::cuda
