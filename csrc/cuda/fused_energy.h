// Roll-out energies in one kernel: a block runs a tile of roll-outs from beginning to end, its activations in shared
// memory, its products on tensor cores, and writes one sum of errors a roll-out (fused_tile.h, fused_layers.h).
#pragma once

#include <functional>

#include "ops/rollout_energy.h"

namespace nri::cuda::fused {

struct EnergyJob;
struct Systems;

// Cuts the systems into runs of those that go through the fused kernels and of those that do not, and calls
// work(first_system, end_system, fused) for each. A system's own size decides, so that its bits do not depend on the
// batch.
void for_runs(const RolloutProblem<float>& problem, const Execution& execution,
              const std::function<void(int64_t, int64_t, bool)>& work);

// Energies of a run of systems that for_runs() said are fused.
void rollout_energy(const RolloutProblem<float>& problem, int64_t first_system, int64_t end_system, int64_t structures,
                    const uint8_t* edge_types, float* energy, const Execution& execution);

// Runs the roll-outs first_rollout .. rollouts - 1 of a job in fp32 and keeps their steps for the way back; tiles are
// planned here. systems: the largest, and how many roll-outs are run.
void run_and_keep(const EnergyJob& job, const Systems& systems, const Execution& execution);

}  // namespace nri::cuda::fused
