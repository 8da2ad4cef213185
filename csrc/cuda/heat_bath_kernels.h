// The kernels around the layers of a heat bath: states in, errors out.
#pragma once

#include "cuda/heat_bath_rows.h"
#include "cuda/transition_error.h"

namespace nri::cuda {

// x [transitions in work, nodes, D] = the recorded states that the transitions start from.
template <typename T>
__global__ void gather_transitions(int64_t elements, SystemRange range, TrajectoryView<T> trajectories,
                                   int64_t features, int64_t transitions, int64_t first_transition,
                                   const int64_t* start, T* x) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t place = index / features;
  const int64_t node = place % range.nodes;
  const int64_t system = range.system_of_node[node];
  const int64_t frame = start[system * transitions + first_transition + place / range.nodes];
  const int64_t flag = flag_place(range, trajectories.steps, system, frame, range.first_node + node);
  x[index] = is_present(trajectories.present, flag) ? trajectories.states[flag * features + index % features] : T(0);
}

// input [message slots, 2 D]: the sender's state, then the receiver's.
template <typename T>
__global__ void message_inputs(int64_t elements, SlotView slots, HeatBathView view, int64_t features, const T* x,
                               T* input) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t column = index % (2 * features);
  const int64_t place = slots.row[index / (2 * features)];
  if (place < 0) {
    input[index] = T(0);
    return;
  }
  const SystemRange& range = view.range;
  const int64_t items = range.edges * view.classes;
  const int64_t edge = range.first_edge + place % items / view.classes;
  const int64_t node = (column < features ? range.sender[edge] : range.receiver[edge]) - range.first_node;
  input[index] = x[(place / items * range.nodes + node) * features + column % features];
}

// to [slots, width] = from, which is in the order of from_slot_of_row, or of the rows themselves where that is null.
// Where `rectified` [slots, width] is given, zero wherever it is not positive.
template <typename T>
__global__ void reorder(int64_t elements, SlotView slots, const int64_t* from_slot_of_row, int64_t width, const T* from,
                        const T* rectified, T* to) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t place = slots.row[index / width];
  T value = 0;
  if (place >= 0 && (rectified == nullptr || rectified[index] > T(0))) {
    value = from[(from_slot_of_row == nullptr ? place : from_slot_of_row[place]) * width + index % width];
  }
  to[index] = value;
}

// change [row slots, D] becomes the receiver's state + step_scale * change: the prediction.
template <typename T>
__global__ void predict(int64_t elements, SlotView slots, HeatBathView view, int64_t features, const T* step_scale,
                        const T* x, T* change) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t place = slots.row[index / features];
  if (place < 0) return;
  const int64_t node = view.node_of_row[place % view.rows] - view.range.first_node;
  const T scale = step_scale_of(step_scale, view.range.system_of_node[node]);
  change[index] =
      x[(place / view.rows * view.range.nodes + node) * features + index % features] + scale * change[index];
}

// What a prediction is compared with.
template <typename T>
__device__ inline const T* recorded_state(const HeatBathView& view, const TrajectoryView<T>& trajectories,
                                          int64_t features, int64_t transitions, const int64_t* start, int64_t row,
                                          int64_t transition) {
  const int64_t node = view.node_of_row[row];
  const int64_t system = view.range.system_of_node[node - view.range.first_node];
  return trajectories.states + state_place(view.range, trajectories.steps, features, system,
                                           start[system * transitions + transition] + 1, node);
}

template <typename T>
__global__ void add_row_errors(int64_t rows, SlotView slots, HeatBathView view, TrajectoryView<T> trajectories,
                               ErrorView<T> error, int64_t features, int64_t transitions, int64_t first_transition,
                               int64_t replicas, const int64_t* start, const T* prediction, double* sums) {
  const int64_t row = global_index();
  if (row >= rows) return;
  double sum = sums[row];
  for (int64_t r = 0; r < replicas; ++r) {
    const int64_t slot = slots.slot_of_row[r * view.rows + row];
    if (slot < 0) continue;  // nothing to compare with
    const T* recorded = recorded_state(view, trajectories, features, transitions, start, row, first_transition + r);
    const T* predicted = prediction + slot * features;
    sum += transition_error(error, weighted_square(error, predicted, recorded, features));
  }
  sums[row] = sum;
}

template <typename T>
__global__ void write_scores(int64_t rows, HeatBathView view, const int64_t* compared, const double* sums, T* scores) {
  const int64_t row = global_index();
  if (row >= rows) return;
  const int64_t count = compared[view.node_of_row[row] - view.range.first_node];
  scores[row] = count == 0 ? T(0) : static_cast<T>(sums[row] / static_cast<double>(count));
}

// output [row slots, D] = cotangent of the prediction.
template <typename T>
__global__ void row_error_slopes(int64_t elements, SlotView slots, HeatBathView view, TrajectoryView<T> trajectories,
                                 ErrorView<T> error, int64_t features, int64_t transitions, int64_t first_transition,
                                 const int64_t* start, const int64_t* compared, const T* cotangent, const T* prediction,
                                 T* output) {
  const int64_t slot = global_index();
  if (slot >= elements) return;
  const int64_t place = slots.row[slot];
  if (place < 0) {
    for (int64_t d = 0; d < features; ++d) output[slot * features + d] = T(0);
    return;
  }
  const int64_t row = place % view.rows;
  const T* recorded =
      recorded_state(view, trajectories, features, transitions, start, row, first_transition + place / view.rows);
  const T* predicted = prediction + slot * features;
  const int64_t node = view.node_of_row[row] - view.range.first_node;
  const T step_scale = step_scale_of(trajectories.step_scale, view.range.system_of_node[node]);
  const double scale = static_cast<double>(cotangent[view.first_row + row]) / static_cast<double>(compared[node]) *
                       static_cast<double>(step_scale) *
                       transition_error_slope(error, weighted_square(error, predicted, recorded, features));
  for (int64_t d = 0; d < features; ++d) {
    output[slot * features + d] =
        static_cast<T>(scale * weighted_square_slope(error, predicted, recorded, features, d));
  }
}

}  // namespace nri::cuda
