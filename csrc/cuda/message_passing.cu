#include "cuda/message_passing.h"

namespace nri::cuda {
namespace {

template <typename T>
__device__ inline bool skipped(const TypeSource<T>& types, const SystemRange& range, int64_t pair, int64_t node) {
  const int64_t system = range.system_of_node[node - range.first_node];
  if (types.cotangent != nullptr && types.cotangent[system] == T(0)) return true;
  if (types.present == nullptr) return false;
  const int64_t start = pair / types.structures * types.length;
  return types.present[flag_place(range, types.frames, system, start, node)] == 0;
}

template <typename T>
__global__ void edge_keys(int64_t rows, SystemRange range, TypeSource<T> types, int64_t first_type, uint16_t* keys) {
  const int64_t row = global_index();
  if (row >= rows) return;
  const int64_t edge = range.first_edge + row % range.edges;
  const int64_t pair = types.first_pair + row / range.edges;
  const int64_t type = types.edge_types[pair % types.structures * types.all_edges + edge];
  const bool idle = type < first_type || skipped(types, range, pair, range.receiver[edge]) ||
                    (types.present != nullptr && skipped(types, range, pair, range.sender[edge]));
  keys[row] = idle ? kSkipRow : static_cast<uint16_t>(type - first_type);
}

template <typename T>
__global__ void node_keys(int64_t rows, SystemRange range, TypeSource<T> types, uint16_t* keys) {
  const int64_t row = global_index();
  if (row >= rows) return;
  const int64_t node = range.first_node + row % range.nodes;
  const uint16_t type = types.node_types == nullptr ? uint16_t{0} : types.node_types[node];
  keys[row] = skipped(types, range, types.first_pair + row / range.nodes, node) ? kSkipRow : type;
}

// input [slots, 2 D]: the sender's state, then the receiver's.
template <typename T>
__global__ void edge_inputs(int64_t elements, SlotView slots, SystemRange range, int64_t features, const T* x,
                            T* input) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t slot = index / (2 * features);
  const int64_t column = index % (2 * features);
  const int64_t row = slots.row[slot];
  if (row < 0) {
    input[index] = T(0);
    return;
  }
  const int64_t edge = range.first_edge + row % range.edges;
  const int64_t node = (column < features ? range.sender[edge] : range.receiver[edge]) - range.first_node;
  input[index] = x[(row / range.edges * range.nodes + node) * features + column % features];
}

// input [slots, message + D]: the sum of the incoming messages in CSR order, then the state.
template <typename T>
__global__ void node_inputs(int64_t elements, SlotView slots, SystemRange range, int64_t features, int64_t message,
                            const int64_t* edge_slot, const T* messages, const T* x, T* input) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t slot = index / (message + features);
  const int64_t column = index % (message + features);
  const int64_t row = slots.row[slot];
  T value = 0;
  if (row >= 0 && column >= message) {
    value = x[row * features + column - message];
  } else if (row >= 0) {
    const int64_t replica = row / range.nodes;
    const int64_t node = range.first_node + row % range.nodes;
    for (int64_t edge = range.in_offset[node]; edge < range.in_offset[node + 1]; ++edge) {
      const int64_t from = edge_slot[replica * range.edges + edge - range.first_edge];
      if (from >= 0) value += messages[from * message + column];
    }
  }
  input[index] = value;
}

template <typename T>
__global__ void advance_states(int64_t elements, SlotView slots, SystemRange range, int64_t features,
                               const T* step_scale, const T* x, const T* change, T* next) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t row = index / features;
  const int64_t slot = slots.slot_of_row[row];
  const T scale = step_scale_of(step_scale, range.system_of_node[row % range.nodes]);
  next[index] = slot < 0 ? x[index] : x[index] + scale * change[slot * features + index % features];
}

}  // namespace

template <typename T>
MessagePassing<T>::MessagePassing(const LibraryView<T>& library, const SystemRange& range,
                                  const std::vector<int64_t>& edge_groups, const std::vector<int64_t>& node_groups,
                                  int64_t replicas, const Execution& execution)
    : library_(library),
      range_(range),
      execution_(execution),
      edge_layers_(edge_module(library)),
      node_layers_(node_module(library)),
      edge_rows_(edge_groups, replicas, edge_layers_.classes, execution),
      node_rows_(node_groups, replicas, node_layers_.classes, execution),
      all_edge_slots_(RowBuckets::slots(replicas * range.edges, edge_slots().buckets)),
      all_node_slots_(RowBuckets::slots(replicas * range.nodes, node_slots().buckets)) {}

template <typename T>
int64_t MessagePassing<T>::bytes(const LibraryView<T>& library, int64_t nodes, int64_t edges, int64_t replicas,
                                 int64_t edge_groups, int64_t node_groups, bool kept) {
  const ModuleLayers edge = edge_module(library);
  const ModuleLayers node = node_module(library);
  const int64_t edge_slots = RowBuckets::slots(replicas * edges, edge_groups * edge.classes);
  const int64_t node_slots = RowBuckets::slots(replicas * nodes, node_groups * node.classes);
  const int64_t values = kept ? edge_slots * edge.all_widths + node_slots * node.all_widths
                              : 2 * std::max(edge_slots * edge.widest, node_slots * node.widest);
  return values * static_cast<int64_t>(sizeof(T)) + RowBuckets::bytes(replicas * edges, edge_groups, edge.classes) +
         RowBuckets::bytes(replicas * nodes, node_groups, node.classes);
}

template <typename T>
Activations<T> MessagePassing<T>::activations(bool kept) const {
  Activations<T> result;
  const int64_t edge_depth = edge_layers_.depth();
  const int64_t node_depth = node_layers_.depth();
  if (!kept) {
    const int64_t count = std::max(all_edge_slots_ * edge_layers_.widest, all_node_slots_ * node_layers_.widest);
    result.memory.emplace_back(count, execution_);
    result.memory.emplace_back(count, execution_);
    for (int64_t i = 0; i <= edge_depth; ++i) result.edge.push_back(result.memory[i % 2].data());
    for (int64_t i = 0; i <= node_depth; ++i) result.node.push_back(result.memory[(edge_depth + 1 + i) % 2].data());
    return result;
  }
  const auto keep = [&](int64_t slots, int64_t width, std::vector<T*>& list) {
    result.memory.emplace_back(slots * width, execution_);
    list.push_back(result.memory.back().data());
  };
  for (int64_t i = 0; i <= edge_depth; ++i) keep(all_edge_slots_, library_.edge_sizes[i], result.edge);
  for (int64_t i = 0; i <= node_depth; ++i) keep(all_node_slots_, library_.node_sizes[i], result.node);
  return result;
}

template <typename T>
void MessagePassing<T>::assign(const TypeSource<T>& types, int64_t replicas) {
  launch_elements("edge_keys", edge_keys<T>, replicas * range_.edges, execution_, range_, types, library_.first_type(),
                  edge_rows_.keys());
  launch_elements("node_keys", node_keys<T>, replicas * range_.nodes, execution_, range_, types, node_rows_.keys());
  edge_rows_.assign(replicas);
  node_rows_.assign(replicas);
}

template <typename T>
void MessagePassing<T>::forward(const T* x, const Activations<T>& activations) const {
  const SlotView& edges = edge_slots();
  const SlotView& nodes = node_slots();
  const int64_t features = library_.features;
  const int64_t message = library_.message();
  launch_elements("edge_inputs", edge_inputs<T>, edges.slots * 2 * features, execution_, edges, range_, features, x,
                  activations.edge[0]);
  for (int64_t i = 0; i < edge_layers_.depth(); ++i) {
    typed_linear(edges, edge_layers_.layers[i], library_.parameters, activations.edge[i], activations.edge[i + 1],
                 execution_);
  }
  launch_elements("node_inputs", node_inputs<T>, nodes.slots * (message + features), execution_, nodes, range_,
                  features, message, edges.slot_of_row, activations.edge.back(), x, activations.node[0]);
  for (int64_t i = 0; i < node_layers_.depth(); ++i) {
    typed_linear(nodes, node_layers_.layers[i], library_.parameters, activations.node[i], activations.node[i + 1],
                 execution_);
  }
}

template <typename T>
void MessagePassing<T>::advance(const T* step_scale, const T* x, const Activations<T>& activations, T* next) const {
  launch_elements("advance_states", advance_states<T>, node_slots().rows * library_.features, execution_, node_slots(),
                  range_, library_.features, step_scale, x, activations.node.back(), next);
}

template class MessagePassing<float>;
template class MessagePassing<double>;

}  // namespace nri::cuda
