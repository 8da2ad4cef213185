// Views: a pointer and the sizes that give it meaning. The core owns no memory of its caller's.
//
// Every operation receives views whose pointers live on one device: host memory for the CPU backend, device memory
// for the CUDA backend. Members and
// parameters named or marked host are host memory always. Views are checked by the caller
// (nri_fast/ops/) before they get here; the core trusts their indices.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace nri {

// The mega-graph: all systems side by side, edges sorted by receiver (CSR). A system's nodes are consecutive, and so
// are its edges, because no edge leaves its system.
struct GraphView {
  int64_t systems;             // B
  int64_t nodes;               // V, all systems together
  int64_t edges;               // E, all systems together
  const int64_t* node_offset;  // [B + 1] system b holds nodes node_offset[b] .. node_offset[b + 1] - 1
  const int64_t* in_offset;    // [V + 1] node v receives edges in_offset[v] .. in_offset[v + 1] - 1
  const int64_t* sender;       // [E] global node id of the edge's sender, ascending for each receiver
  const int64_t* receiver;     // [E] global node id of the edge's receiver, ascending
  // The same offsets once more in host memory, so that a backend can plan its chunks without a synchronisation.
  const int64_t* host_node_offset;  // host [B + 1]
  const int64_t* host_edge_offset;  // host [B + 1] system b holds edges host_edge_offset[b] .. - 1
};

// Weights of all modules in one array. For edge type k = first_type .. edge_types - 1, then node type m = 0 ..
// node_types - 1: for each layer its weight [out, in] row by row, then its bias [out]. ReLU follows every layer of an
// edge module and every layer but the last of a node module. With `silent`, edge type 0 sends a zero message and has
// no weights (first_type = 1).
template <typename T>
struct LibraryView {
  int64_t features;           // D
  int64_t edge_types;         // K, the silent one included
  int64_t node_types;         // M
  bool silent;                // type 0 sends nothing
  int64_t edge_layers;        // number of linear layers of an edge module, >= 1
  const int64_t* edge_sizes;  // host [edge_layers + 1] 2 D, hidden ..., message
  int64_t node_layers;        // number of linear layers of a node module, >= 1
  const int64_t* node_sizes;  // host [node_layers + 1] message + D, hidden ..., D
  const T* parameters;        // [P]

  int64_t message() const { return edge_sizes[edge_layers]; }
  int64_t first_type() const { return silent ? 1 : 0; }
  int64_t parameter_count() const {
    return (edge_types - first_type()) * weights_of(edge_layers, edge_sizes) +
           node_types * weights_of(node_layers, node_sizes);
  }

 private:
  static int64_t weights_of(int64_t layers, const int64_t* sizes) {
    int64_t count = 0;
    for (int64_t l = 0; l < layers; ++l) count += sizes[l + 1] * (sizes[l] + 1);
    return count;
  }
};

// Recorded states. System b's block starts at steps * node_offset[b] * features and is [steps, N_b, features], so a
// mega-graph of equal systems is simply [B, steps, N, features].
//
// Entities come and go, frames are lost, and some recordings are shorter than others: such states are absent, and never
// read. An entity takes part in a roll-out, or in a transition, if its state is present where that starts. One that
// does not take part sends no message (under no type), gets none, and has no prediction. A prediction is compared where
// the entity takes part and its state at the predicted step is present.
//
// Time steps may differ between systems: one step of message passing changes a state by step_scale times what the node
// module says.
template <typename T>
struct TrajectoryView {
  int64_t steps;           // T, the same for every system; a shorter recording is absent behind its end
  const T* states;         // [sum over b of steps * N_b * features]
  const uint8_t* present;  // [sum over b of steps * N_b] zero where the state is absent; or null: all are present
  const T* step_scale;     // [B] a system's time step over that which the modules are made for; or null: all 1
};

NRI_HOST_DEVICE inline bool is_present(const uint8_t* present, int64_t place) {
  return present == nullptr || present[place] != 0;
}

// How one transition's error is measured. e = mean over features of weight[d] * (predicted - recorded)^2.
//   squared: e            robust: log(scale_squared + e)
enum class ErrorKind : int32_t { squared = 0, robust = 1 };

template <typename T>
struct ErrorView {
  ErrorKind kind;
  double scale_squared;  // robust only, > 0
  const T* weight;       // [features], all ones for the plain mean squared error
};

// What products of fp32 numbers are made of where energies and scores are computed. fp32: nothing is rounded that plain
// fp32 would not round, or about so. tf32, bf16: factors are rounded to 11 or 8 bits of mantissa, sums are fp32. A
// backend that has no such kernel for an operation computes it in fp32; float64 is never rounded.
enum class Precision : int32_t { fp32 = 0, tf32 = 1, bf16 = 2 };

// Where and how an operation runs. threads is read by the CPU backend, stream (a cudaStream_t), ordinal and fused by
// the CUDA one.
struct Execution {
  int32_t threads;
  int32_t ordinal;
  void* stream;
  Precision precision;
  bool fused = true;  // kernels that keep activations in shared memory are used, where there are such
};

}  // namespace nri
