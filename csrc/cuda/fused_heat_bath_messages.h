// The messages of a heat bath's tile in shared memory, and what a receiver's rows have in common: where they come from,
// and where their projections go.
#pragma once

#include "cuda/fused_heat_bath_rows.h"

namespace nri::cuda::fused {

__device__ inline Pass pass_of(const RowRange& range) { return {0, static_cast<uint16_t>(range.rows), 0, 0}; }

// Where the messages of a pass come from and where their projections go. A sender that is absent sends nothing, and a
// receiver that is not compared needs nothing.
__device__ inline void list_messages(const HeatBathJob& job, const HeatBathBlock& block, int module,
                                     const RowRange& range, int first_transition) {
  const int i = block.thread;
  if (i >= range.rows) return;
  const HeatBathSchedule& schedule = *block.passes();
  const int count = schedule.messages(module), index = range.first + i;
  const int transition = index / count, message = schedule.begin[module] + index % count;
  const int edge = block.edge()[message], receiver = block.receiver()[edge];
  const int64_t place = block.place(job, receiver, first_transition + transition);
  const int64_t from = place + block.sender()[edge], to = place + block.local()[receiver];
  const bool sent =
      is_present(job.problem.trajectories.present, from) && is_compared(job, to, block.entities()[receiver]);
  block.sender_place()[i] = sent ? from : -1;
  block.receiver_place()[i] = sent ? to : -1;
  block.unit()[i] = static_cast<uint16_t>(transition * schedule.begin[job.library.edge.modules] + message);
}

// The input of the message in a row of the pass.
__device__ inline float message_input(const HeatBathJob& job, const HeatBathBlock& block, int row, int input) {
  const int features = job.library.features;
  const bool of_sender = input < features;
  const int64_t place = (of_sender ? block.sender_place() : block.receiver_place())[row];
  if (place < 0) return 0.0f;
  return job.problem.trajectories.states[place * features + (of_sender ? input : input - features)];
}

// What all rows of a receiver have in common: its own state through the node module's first layer, in plain fp32, and
// the means that its held edges send. Zero of who is not compared. A thread takes a column.
__device__ inline void add_bases(const HeatBathJob& job, const HeatBathBlock& block, int first_transition,
                                 int transitions) {
  const int width = block.layout.width, column = block.thread % width, groups = kThreads / width;
  const int group = block.thread / width, features = job.library.features, receivers = block.receivers();
  if (group >= groups) return;
  const HeatBathSchedule& schedule = *block.passes();
  const FusedLayer& layer = job.library.node.layer[0];
  const float* const parameters = job.problem.library.parameters + job.library.node.parameter_of(schedule.module);
  const int messages = schedule.begin[job.library.edge.modules];
  const bool padding = column >= layer.out;
  const float bias = padding ? 0.0f : parameters[layer.bias + column];
  float weight[kMostFeatures];
  NRI_CUDA_UNROLL
  for (int d = 0; d < kMostFeatures; ++d) {
    weight[d] = padding || d >= features
                    ? 0.0f
                    : parameters[layer.weight + static_cast<int64_t>(column) * layer.in + job.library.message + d];
  }
  for (int unit = group; unit < transitions * receivers; unit += groups) {
    const int transition = unit / receivers, j = unit % receivers;
    const int64_t place = block.place(job, j, first_transition + transition) + block.local()[j];
    float value = 0.0f;
    if (is_compared(job, place, block.entities()[j])) {
      const float* const state = job.problem.trajectories.states + place * features;
      value = bias;
      NRI_CUDA_UNROLL
      for (int d = 0; d < kMostFeatures; ++d) {
        if (d < features) value += weight[d] * state[d];
      }
      const int begin = block.in_begin()[j], end = block.in_begin()[j + 1];
      for (int e = begin; e < end && block.free()[j] < end - begin; ++e) {
        if (block.type()[e] != kHeldEdge) continue;
        const int64_t edge = block.first_edge()[j] + e - begin;
        for (int type = job.library.first_type; type < job.problem.library.edge_types; ++type) {
          const uint16_t projection = projection_of(job, block, e, type, transition);
          if (projection == kNoRow) continue;
          value += job.problem.held_weight[edge * job.problem.library.edge_types + type] *
                   block.projection(projection)[column];
        }
      }
    }
    block.projection(schedule.each * messages + unit)[column] = value;
  }
}

}  // namespace nri::cuda::fused
