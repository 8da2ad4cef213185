// One step of message passing over the systems of a range, in several replicas at once (structures, segments of a
// roll-out, transitions). Node rows are [replicas, nodes], edge rows [replicas, edges].
#pragma once

#include <vector>

#include "cuda/row_buckets.h"
#include "cuda/system_range.h"
#include "cuda/typed_linear.h"

namespace nri::cuda {

// Which types the rows have. Replica p uses structure (first_pair + p) mod structures.
template <typename T>
struct TypeSource {
  const uint8_t* edge_types;  // [structures, all_edges]
  int64_t structures;
  int64_t all_edges;
  int64_t first_pair;
  const uint8_t* node_types;  // [V], or null: all zero
  const T* cotangent;         // [B]: systems with zero are skipped; null: none is
  // Who takes part: flags laid out as TrajectoryView::present, `frames` of them an entity, of which the frame that a
  // pair starts from counts. Null: everybody.
  const uint8_t* present;
  int64_t frames;
  int64_t length;  // frames from one start to the next
};

// Activations of one step, in slot order: edge[0] holds the modules' input, edge[i] the output of layer i - 1.
template <typename T>
struct Activations {
  std::vector<T*> edge;
  std::vector<T*> node;
  std::vector<Buffer<T>> memory;
};

template <typename T>
class MessagePassing {
 public:
  // edge_groups and node_groups: item offsets for RowBuckets.
  MessagePassing(const LibraryView<T>& library, const SystemRange& range, const std::vector<int64_t>& edge_groups,
                 const std::vector<int64_t>& node_groups, int64_t replicas, const Execution& execution);

  // Memory for one step: two arrays that take turns, or (kept) one for every layer, as a gradient needs.
  Activations<T> activations(bool kept) const;

  // Buckets the rows of the first `replicas` replicas.
  void assign(const TypeSource<T>& types, int64_t replicas);

  // Fills the activations from the states x [replicas, nodes, D]; the last node activation is the change of the state.
  void forward(const T* x, const Activations<T>& activations) const;

  // next = x + step_scale * change for the assigned replicas; next may be x. step_scale: [B] or null.
  void advance(const T* step_scale, const T* x, const Activations<T>& activations, T* next) const;

  const SlotView& edge_slots() const { return edge_rows_.view(); }
  const SlotView& node_slots() const { return node_rows_.view(); }
  const ModuleLayers& edge_layers() const { return edge_layers_; }
  const ModuleLayers& node_layers() const { return node_layers_; }
  int64_t all_edge_slots() const { return all_edge_slots_; }
  int64_t all_node_slots() const { return all_node_slots_; }

  // Bytes of buckets and activations.
  static int64_t bytes(const LibraryView<T>& library, int64_t nodes, int64_t edges, int64_t replicas,
                       int64_t edge_groups, int64_t node_groups, bool kept);

 private:
  LibraryView<T> library_;
  SystemRange range_;
  Execution execution_;
  ModuleLayers edge_layers_;
  ModuleLayers node_layers_;
  RowBuckets edge_rows_;
  RowBuckets node_rows_;
  int64_t all_edge_slots_;
  int64_t all_node_slots_;
};

}  // namespace nri::cuda
