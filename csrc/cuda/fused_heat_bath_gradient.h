// The gradient of heat-bath scores in one kernel: a block works out the messages of a tile of receivers as scores do,
// runs the rows that count there and back, adds what each sent back to a message up beside the messages' projections,
// and walks the messages back. Activations never leave shared memory; weights' gradients go to the tile's lane.
//
// Products are made of three in TF32, as those of roll-outs' gradients are, whatever ops.scoring_precision says.
#pragma once

#include <functional>

#include "cuda/fused_heat_bath_gradient_tile.h"
#include "cuda/fused_lanes.h"
#include "ops/heat_bath.h"

namespace nri::cuda::fused {

// The part of one call that goes through the fused kernel.
class HeatBathGradient {
 public:
  // cotangent: as in ops/heat_bath.h
  HeatBathGradient(const HeatBathProblem<float>& problem, const float* cotangent, const Execution& execution);

  // Cuts the systems into runs of those that go through the fused kernel and of those that do not, and calls
  // work(first_system, end_system, fused) for each.
  void for_runs(const std::function<void(int64_t, int64_t, bool)>& work) const;

  // A run of systems that for_runs() said are fused.
  void run(int64_t first_system, int64_t end_system);

  // total [P] += the parameters' gradient of all runs.
  void add_to(double* total) const;

 private:
  void run_tiles(const HeatBathPlan& plan, int64_t first_system, int64_t first_tile, int64_t end_tile) const;

  HeatBathProblem<float> problem_;
  const float* cotangent_;
  Execution execution_;
  FusedLibrary library_;  // with the widest product of the way back
  HeatBathGradientLibrary gradient_;
  bool usable_;  // the library can be laid out, and the device has what tiles are planned for
  GradientLanes lanes_;
};

}  // namespace nri::cuda::fused
