// The kernels between the layers on the way back through a step of message passing.
#pragma once

#include "cuda/outgoing.h"
#include "cuda/rollout_states.h"
#include "cuda/row_buckets.h"
#include "cuda/transition_error.h"

namespace nri::cuda {

// cotangents [rows, D] += the energy's slope at the states x after `step` + 1 steps; the recorded states that x is
// compared with get the opposite.
template <typename T>
__global__ void add_error_slopes(int64_t rows, SystemRange range, Segments segments, ErrorView<T> error,
                                 TrajectoryView<T> trajectories, const uint8_t* observed, const int64_t* compared,
                                 int64_t features, int64_t first_pair, int64_t step, const T* cotangent, const T* x,
                                 T* cotangents, T* state_gradient) {
  const int64_t row = global_index();
  if (row >= rows) return;
  const int64_t node = row % range.nodes;
  const int64_t system = range.system_of_node[node];
  if (cotangent[system] == T(0)) return;
  const int64_t start = (first_pair + row / range.nodes) * segments.length;
  const int64_t frame = start + step + 1;
  if (!is_compared(range, trajectories, observed, system, start, frame, range.first_node + node)) return;
  const int64_t place = state_place(range, segments.frames, features, system, frame, range.first_node + node);
  const T* predicted = x + row * features;
  const T* recorded = trajectories.states + place;
  const double e = weighted_square(error, predicted, recorded, features);
  const double scale =
      static_cast<double>(cotangent[system]) * transition_error_slope(error, e) / static_cast<double>(compared[system]);
  for (int64_t d = 0; d < features; ++d) {
    const T slope = static_cast<T>(scale * weighted_square_slope(error, predicted, recorded, features, d));
    cotangents[row * features + d] += slope;
    if (state_gradient != nullptr) state_gradient[place + d] -= slope;
  }
}

// The cotangent of the node modules' output is step_scale times that of the next state.   output [node slots, D]
template <typename T>
__global__ void node_output_cotangents(int64_t elements, SlotView slots, SystemRange range, int64_t features,
                                       const T* step_scale, const T* cotangents, T* output) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t row = slots.row[index / features];
  if (row < 0) {
    output[index] = T(0);
    return;
  }
  const T scale = step_scale_of(step_scale, range.system_of_node[row % range.nodes]);
  output[index] = scale * cotangents[row * features + index % features];
}

// cotangents += what reaches the state through the node modules' input, which is [node slots, message + D].
template <typename T>
__global__ void add_node_inputs(int64_t elements, SlotView slots, int64_t features, int64_t message, const T* input,
                                T* cotangents) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t slot = slots.slot_of_row[index / features];
  if (slot >= 0) cotangents[index] += input[slot * (message + features) + message + index % features];
}

// A message's cotangent is that of its receiver's sum, where the message is positive.   output [edge slots, message]
template <typename T>
__global__ void edge_output_cotangents(int64_t elements, SlotView slots, SystemRange range, int64_t features,
                                       int64_t message, const int64_t* node_slot, const T* input, const T* messages,
                                       T* output) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t row = slots.row[index / message];
  T value = 0;
  if (row >= 0 && messages[index] > T(0)) {
    const int64_t receiver = range.receiver[range.first_edge + row % range.edges] - range.first_node;
    const int64_t slot = node_slot[row / range.edges * range.nodes + receiver];
    value = input[slot * (message + features) + index % message];
  }
  output[index] = value;
}

// cotangents += what reaches the state through the edge modules' input [edge slots, 2 D]: as a receiver, then as a
// sender.
template <typename T>
__global__ void add_edge_inputs(int64_t elements, SystemRange range, Outgoing outgoing, int64_t features,
                                const int64_t* edge_slot, const T* input, T* cotangents) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t row = index / features;
  const int64_t d = index % features;
  const int64_t node = row % range.nodes;
  const int64_t* slot_of_edge = edge_slot + row / range.nodes * range.edges;
  T sum = 0;
  for (int64_t edge = range.in_offset[range.first_node + node]; edge < range.in_offset[range.first_node + node + 1];
       ++edge) {
    const int64_t slot = slot_of_edge[edge - range.first_edge];
    if (slot >= 0) sum += input[slot * 2 * features + features + d];
  }
  for (int64_t i = outgoing.offset[node]; i < outgoing.offset[node + 1]; ++i) {
    const int64_t slot = slot_of_edge[outgoing.edge[i]];
    if (slot >= 0) sum += input[slot * 2 * features + d];
  }
  cotangents[index] += sum;
}

// The recorded states that the segments start from get what is left of the cotangents.
template <typename T>
__global__ void add_start_gradients(int64_t elements, SystemRange range, Segments segments, int64_t features,
                                    int64_t first_pair, const T* cotangents, T* state_gradient) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t row = index / features;
  const int64_t node = row % range.nodes;
  const int64_t frame = (first_pair + row / range.nodes) * segments.length;
  state_gradient[state_place(range, segments.frames, features, range.system_of_node[node], frame,
                             range.first_node + node) +
                 index % features] += cotangents[index];
}

}  // namespace nri::cuda
