// Where the segments of a roll-out start, and how far their states are from the recorded ones. A pair is a segment and
// a structure, numbered segment by segment, so that the last segment, which may be shorter, comes last.
#pragma once

#include <algorithm>

#include "cuda/system_range.h"
#include "ops/rollout_energy.h"

namespace nri::cuda {

struct Segments {
  int64_t frames;      // T
  int64_t length;      // steps of every segment but the last
  int64_t count;       // S
  int64_t structures;  // pairs = S * structures

  Segments(int64_t recorded, int64_t rollout, int64_t structure_count)
      : frames(recorded),
        length(std::min(rollout, recorded - 1)),
        count(ceil_div(recorded - 1, length)),
        structures(structure_count) {}

  int64_t pairs() const { return count * structures; }
  int64_t last_length() const { return frames - 1 - (count - 1) * length; }
  // How many of the pairs first, .., first + chunk - 1 still run in step `step` of their segment; they come first.
  int64_t active(int64_t first, int64_t chunk, int64_t step) const {
    if (step < last_length()) return chunk;
    return std::clamp((count - 1) * structures - first, int64_t{0}, chunk);
  }
};

// [B] predictions of each system that are compared.
template <typename T>
Buffer<int64_t> compared_predictions(const RolloutProblem<T>& problem, const Execution& execution);

// Whether a node's prediction of `frame`, from `start`, is compared.   node: global
template <typename T>
__device__ inline bool is_compared(const SystemRange& range, const TrajectoryView<T>& trajectories,
                                   const uint8_t* observed, int64_t system, int64_t start, int64_t frame,
                                   int64_t node) {
  if (observed != nullptr && observed[node] == 0) return false;
  const uint8_t* present = trajectories.present;
  return present == nullptr || (present[flag_place(range, trajectories.steps, system, start, node)] != 0 &&
                                present[flag_place(range, trajectories.steps, system, frame, node)] != 0);
}

// x [pairs in work, nodes, D] = the recorded states at the pairs' starts; zero where they are absent.
template <typename T>
void gather_starts(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                   int64_t first_pair, int64_t pairs, T* x, const Execution& execution);

// sums [pair, system] += the error, summed over the entities compared, of the states x after `step` + 1 steps.
// `sums` begins at the range's first system and at pair 0.
template <typename T>
void add_errors(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                int64_t first_pair, int64_t pairs, int64_t step, const T* x, double* sums, int64_t sums_stride,
                const Execution& execution);

// energy [structures, B], of the range's systems: the mean over the predictions compared, of which each system has
// compared [B].
template <typename T>
void mean_errors(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                 const int64_t* compared, const double* sums, int64_t sums_stride, T* energy,
                 const Execution& execution);

}  // namespace nri::cuda
