// A Metropolis choice between two structures of every system, and the gradient of the mean energy of those chosen. What
// both energies were computed from is at hand when the choice is made, so that the gradient need not run a system
// again: a fifth less work than the energies and the gradient one after the other. CPU only.
//
// Energies are those of ops/rollout_energy.h, to the bit, and the choice is what metropolis_decide (ops/anneal.h) makes
// of them with the same draws, temperature and log ratio. Systems whose chosen energy is not finite take no part in the
// gradient, which is that of the others' sum over the number of all systems.
//
// Determinism: energies and choices depend on the system alone; the gradient is a sum over systems in an order fixed by
// the batch, never by the number of threads. Aliasing: none allowed. Empty input: a gradient of zero.
// Memory: a system's activations under both structures, a few MiB a thread. A system with more runs the structure that
// is chosen once more instead.
#pragma once

#include "ops/anneal.h"
#include "ops/rollout_energy.h"

namespace nri {

template <typename T>
struct RolloutChoice {
  RolloutProblem<T> problem;  // its node_types are not read
  const uint8_t* edge_types;  // [2, E] the structure held, and the one proposed
  const uint8_t* node_types;  // [2, V], or null: all zero
  DrawView draws;
  const T* temperature;     // [1]
  const double* log_ratio;  // [B], or null: all zero
};

// energy: [2, B]   parameter_gradient: [P], laid out as LibraryView::parameters
#define NRI_DECLARE_ROLLOUT_CHOICE(T) \
  void rollout_choice(const RolloutChoice<T>& choice, T* energy, T* parameter_gradient, const Execution& execution);

namespace cpu {
NRI_DECLARE_ROLLOUT_CHOICE(float)
NRI_DECLARE_ROLLOUT_CHOICE(double)
}  // namespace cpu
#undef NRI_DECLARE_ROLLOUT_CHOICE

}  // namespace nri
