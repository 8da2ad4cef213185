// The gradient of roll-out energies in two kernels: one runs the roll-outs forwards as energies are computed and keeps
// each step's states and receivers' sums; in the other a block walks a tile of whole roll-outs back, step by step,
// computes a pass's activations again in shared memory, and adds the weights' gradients to its tile's lane.
//
// Products are made of three in TF32, whatever ops.scoring_precision says: that is for numbers that are compared with
// each other. Steps of an optimiser follow small differences of a gradient's summands, and in a long roll-out rounded
// ones add up.
#pragma once

#include <functional>

#include "cuda/fused_lanes.h"
#include "cuda/rollout_states.h"

namespace nri::cuda::fused {

// The part of one call that goes through the fused kernels.
class RolloutGradient {
 public:
  // edge_types, cotangent, state_gradient: as in ops/rollout_gradient.h   compared: [B] predictions that are compared
  RolloutGradient(const RolloutProblem<float>& problem, const uint8_t* edge_types, const float* cotangent,
                  const int64_t* compared, float* state_gradient, const Execution& execution);

  // Cuts the systems into runs of those that go through the fused kernels and of those that do not, as for_runs() of
  // fused_energy.h does.
  void for_runs(const std::function<void(int64_t, int64_t, bool)>& work) const;

  // A run of systems that for_runs() said are fused.   sums: [segments, systems of the run] of errors
  void run(int64_t first_system, int64_t end_system, double* sums);

  // total [P] += the parameters' gradient of all runs.
  void add_to(double* total) const;

 private:
  struct Run;
  void run_tiles(const Run& run, int64_t first_tile, int64_t end_tile, double* sums) const;

  RolloutProblem<float> problem_;
  Segments segments_;
  const uint8_t* edge_types_;
  const float* cotangent_;
  const int64_t* compared_;
  float* state_gradient_;
  Execution execution_;
  FusedLibrary library_;  // for the way forwards
  FusedLibrary widened_;  // the same, with the widest product of the way back
  GradientLibrary gradient_;
  bool usable_;              // the library can be laid out, and the device has what tiles are planned for
  Buffer<uint32_t> packed_;  // for the way forwards
  GradientLanes lanes_;
};

}  // namespace nri::cuda::fused
