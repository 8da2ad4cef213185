// Gradient of sum over b of cotangent[b] * energy[b] (energy of ops/rollout_energy.h, one structure) in the modules'
// parameters and in the recorded states. A recorded state counts in both of its roles: as the start of a roll-out and
// as the value that predictions are compared with. Frame 0 is only ever a start. Unobserved entities' recorded states
// are starts only: their gradient is zero in every frame that no roll-out starts from. That of an absent state is zero.
//
// Determinism: the parameter gradient is a sum over systems in an order fixed by the batch alone, never by the number
// of threads; a system's state gradient depends on that system only. Systems with a zero cotangent are skipped.
// Precision: that of fp32 or float64, whatever the execution's says, which is for energies and scores.
// Aliasing: none allowed. Outputs are overwritten.
// Memory (CPU): besides every step's states, activations of a tile of roll-outs, a few MiB a thread however long they
// are.
#pragma once

#include "ops/rollout_energy.h"

namespace nri {

// edge_types:         [E]
// cotangent:          [B]
// energy:             [B], or null; without meaning for systems whose cotangent is zero
// parameter_gradient: [P], laid out as LibraryView::parameters
// state_gradient:     laid out as TrajectoryView::states, or null when it is not wanted
#define NRI_DECLARE_ROLLOUT_GRADIENT(T)                                                                             \
  void rollout_gradient(const RolloutProblem<T>& problem, const uint8_t* edge_types, const T* cotangent, T* energy, \
                        T* parameter_gradient, T* state_gradient, const Execution& execution);

namespace cpu {
NRI_DECLARE_ROLLOUT_GRADIENT(float)
NRI_DECLARE_ROLLOUT_GRADIENT(double)
}  // namespace cpu
namespace cuda {
NRI_DECLARE_ROLLOUT_GRADIENT(float)
NRI_DECLARE_ROLLOUT_GRADIENT(double)
}  // namespace cuda
#undef NRI_DECLARE_ROLLOUT_GRADIENT

}  // namespace nri
