#include "cuda/heat_bath_rows.h"

namespace nri::cuda {
namespace {

constexpr int64_t kHeld = -1;  // in place of a type: the edge's message is a mean over types, the same in every row

// The type that a receiver's row gives to its i-th incoming edge, edge number `edge` of the mega-graph.
__device__ inline int64_t type_in_row(const HeatBathView& view, int64_t row, int64_t i, int64_t edge) {
  const int64_t count = view.edge_types_count;
  if (view.kind == HeatBathRows::conditionals) return row / count == i ? row % count : view.edge_types[edge];
  const int64_t stride = view.stride[edge];
  return stride > 0 ? row / stride % count : kHeld;
}

// How much an edge's message under a type counts in the rows that use it: all of it, or a held edge's weight.
__device__ inline float weight_of(const HeatBathView& view, int64_t edge, int64_t type) {
  if (view.kind == HeatBathRows::conditionals || view.stride[edge] > 0) return 1.0f;
  return view.held_weight[edge * view.edge_types_count + type];
}

// Calls use(row) for the rows of an edge's receiver (numbered within the range) that use its message under this type.
template <typename Use>
__device__ inline void for_rows_of_message(const HeatBathView& view, int64_t edge, int64_t type, const Use& use) {
  const int64_t node = view.range.receiver[edge];
  const int64_t first_edge = view.range.in_offset[node];
  const int64_t begin = view.row_offset[node];
  const int64_t count = view.row_offset[node + 1] - begin;
  for (int64_t row = 0; row < count; ++row) {
    const int64_t given = type_in_row(view, row, edge - first_edge, edge);
    if (given == type || given == kHeld) use(begin + row - view.first_row);
  }
}

__device__ inline uint16_t node_key(const HeatBathView& view, int64_t node) {
  return view.node_types == nullptr ? uint16_t{0} : view.node_types[node];
}

template <typename T>
__global__ void message_keys(int64_t items, HeatBathView view, int64_t first_transition, int64_t replicas,
                             const T* cotangent, uint16_t* edge_keys, uint16_t* projection_keys) {
  const int64_t item = global_index();
  if (item >= items) return;
  const int64_t edge = view.range.first_edge + item / view.classes;
  const int64_t key = item % view.classes;
  bool used = cotangent == nullptr;
  if (weight_of(view, edge, view.first_type + key) == 0.0f) {
    used = false;
  } else if (!used) {
    for_rows_of_message(view, edge, view.first_type + key,
                        [&](int64_t row) { used = used || cotangent[view.first_row + row] != T(0); });
  }
  const int64_t sender = view.range.sender[edge], receiver = view.range.receiver[edge];
  for (int64_t r = 0; r < replicas; ++r) {
    const int64_t transition = first_transition + r;
    const bool sent = used && takes_part(view, sender, transition) && is_compared(view, receiver, transition);
    edge_keys[r * items + item] = sent ? static_cast<uint16_t>(key) : kSkipRow;
    projection_keys[r * items + item] = sent ? node_key(view, receiver) : kSkipRow;
  }
}

template <typename T>
__global__ void receiver_keys(int64_t nodes, HeatBathView view, int64_t first_transition, int64_t replicas,
                              const T* cotangent, uint16_t* node_keys) {
  const int64_t index = global_index();
  if (index >= nodes) return;
  const int64_t node = view.range.first_node + index;
  bool used = cotangent == nullptr;
  for (int64_t row = view.row_offset[node]; !used && row < view.row_offset[node + 1]; ++row) {
    used = cotangent[row] != T(0);
  }
  for (int64_t r = 0; r < replicas; ++r) {
    const bool here = used && is_compared(view, node, first_transition + r);
    node_keys[r * nodes + index] = here ? node_key(view, node) : kSkipRow;
  }
}

template <typename T>
__global__ void row_keys_kernel(int64_t elements, HeatBathView view, int64_t first_transition, const T* cotangent,
                                uint16_t* row_keys) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t row = index % view.rows;
  const int64_t node = view.node_of_row[row];
  const bool used = (cotangent == nullptr || cotangent[view.first_row + row] != T(0)) &&
                    is_compared(view, node, first_transition + index / view.rows);
  row_keys[index] = used ? node_key(view, node) : kSkipRow;
}

__global__ void find_nodes_kernel(int64_t rows, HeatBathView view, int64_t nodes, int64_t* node_of_row) {
  const int64_t row = global_index();
  if (row < rows) node_of_row[row] = find_range(view.row_offset, nodes, view.first_row + row);
}

template <typename T>
__global__ void sum_projections_kernel(int64_t elements, HeatBathView view, SlotView rows, SlotView projections,
                                       SlotView nodes, int64_t width, bool rectify, const T* projection, const T* base,
                                       T* sums) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t column = index % width;
  const int64_t place = rows.row[index / width];
  if (place < 0) {
    sums[index] = T(0);
    return;
  }
  const int64_t replica = place / view.rows;
  const int64_t node = view.node_of_row[place % view.rows];
  const int64_t row = place % view.rows + view.first_row - view.row_offset[node];
  const int64_t first_edge = view.range.in_offset[node];
  const int64_t degree = view.range.in_offset[node + 1] - first_edge;
  const int64_t first_item = (replica * view.range.edges + first_edge - view.range.first_edge) * view.classes;
  const int64_t* slot_of_node = nodes.slot_of_row + replica * view.range.nodes;
  T value = base[slot_of_node[node - view.range.first_node] * width + column];
  for (int64_t i = 0; i < degree; ++i) {
    const int64_t given = type_in_row(view, row, i, first_edge + i);
    const int64_t* slot = projections.slot_of_row + first_item + i * view.classes - view.first_type;
    if (given != kHeld) {
      if (given >= view.first_type && slot[given] >= 0) value += projection[slot[given] * width + column];
      continue;
    }
    for (int64_t type = view.first_type; type < view.edge_types_count; ++type) {
      if (slot[type] < 0) continue;  // of weight zero, or from a sender that is absent
      const float weight = weight_of(view, first_edge + i, type);
      value += static_cast<T>(weight) * projection[slot[type] * width + column];
    }
  }
  sums[index] = rectify && value < T(0) ? T(0) : value;  // a NaN passes
}

template <typename T>
__global__ void spread_to_bases_kernel(int64_t elements, HeatBathView view, SlotView rows, SlotView nodes,
                                       int64_t width, const T* sums, T* base) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t place = nodes.row[index / width];
  T value = 0;
  if (place >= 0) {
    const int64_t* slot_of_row = rows.slot_of_row + place / view.range.nodes * view.rows;
    const int64_t node = view.range.first_node + place % view.range.nodes;
    for (int64_t row = view.row_offset[node]; row < view.row_offset[node + 1]; ++row) {
      const int64_t slot = slot_of_row[row - view.first_row];
      if (slot >= 0) value += sums[slot * width + index % width];
    }
  }
  base[index] = value;
}

template <typename T>
__global__ void spread_to_projections_kernel(int64_t elements, HeatBathView view, SlotView rows, SlotView projections,
                                             int64_t width, const T* sums, T* projection) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t place = projections.row[index / width];
  T value = 0;
  if (place >= 0) {
    const int64_t items = view.range.edges * view.classes;
    const int64_t* slot_of_row = rows.slot_of_row + place / items * view.rows;
    const int64_t item = place % items;
    const int64_t edge = view.range.first_edge + item / view.classes, type = view.first_type + item % view.classes;
    for_rows_of_message(view, edge, type, [&](int64_t row) {
      const int64_t slot = slot_of_row[row];
      if (slot >= 0) value += sums[slot * width + index % width];
    });
    value *= static_cast<T>(weight_of(view, edge, type));
  }
  projection[index] = value;
}

}  // namespace

template <typename T>
void heat_bath_keys(const HeatBathView& view, int64_t first_transition, int64_t replicas, const T* cotangent,
                    uint16_t* edge_keys, uint16_t* projection_keys, uint16_t* node_keys, uint16_t* row_keys,
                    const Execution& execution) {
  launch_elements("message_keys", message_keys<T>, view.range.edges * view.classes, execution, view, first_transition,
                  replicas, cotangent, edge_keys, projection_keys);
  launch_elements("receiver_keys", receiver_keys<T>, view.range.nodes, execution, view, first_transition, replicas,
                  cotangent, node_keys);
  launch_elements("row_keys", row_keys_kernel<T>, replicas * view.rows, execution, view, first_transition, cotangent,
                  row_keys);
}

void find_nodes_of_rows(const HeatBathView& view, int64_t nodes, int64_t* node_of_row, const Execution& execution) {
  launch_elements("find_nodes_of_rows", find_nodes_kernel, view.rows, execution, view, nodes, node_of_row);
}

template <typename T>
void sum_projections(const HeatBathView& view, const SlotView& rows, const SlotView& projections, const SlotView& nodes,
                     int64_t width, bool rectify, const T* projection, const T* base, T* sums,
                     const Execution& execution) {
  launch_elements("sum_projections", sum_projections_kernel<T>, rows.slots * width, execution, view, rows, projections,
                  nodes, width, rectify, projection, base, sums);
}

template <typename T>
void spread_to_bases(const HeatBathView& view, const SlotView& rows, const SlotView& nodes, int64_t width,
                     const T* sums, T* base, const Execution& execution) {
  launch_elements("spread_to_bases", spread_to_bases_kernel<T>, nodes.slots * width, execution, view, rows, nodes,
                  width, sums, base);
}

template <typename T>
void spread_to_projections(const HeatBathView& view, const SlotView& rows, const SlotView& projections, int64_t width,
                           const T* sums, T* projection, const Execution& execution) {
  launch_elements("spread_to_projections", spread_to_projections_kernel<T>, projections.slots * width, execution, view,
                  rows, projections, width, sums, projection);
}

#define NRI_INSTANTIATE(T)                                                                                             \
  template void heat_bath_keys(const HeatBathView&, int64_t, int64_t, const T*, uint16_t*, uint16_t*, uint16_t*,       \
                               uint16_t*, const Execution&);                                                           \
  template void sum_projections(const HeatBathView&, const SlotView&, const SlotView&, const SlotView&, int64_t, bool, \
                                const T*, const T*, T*, const Execution&);                                             \
  template void spread_to_bases(const HeatBathView&, const SlotView&, const SlotView&, int64_t, const T*, T*,          \
                                const Execution&);                                                                     \
  template void spread_to_projections(const HeatBathView&, const SlotView&, const SlotView&, int64_t, const T*, T*,    \
                                      const Execution&);
NRI_INSTANTIATE(float)
NRI_INSTANTIATE(double)
#undef NRI_INSTANTIATE

}  // namespace nri::cuda
