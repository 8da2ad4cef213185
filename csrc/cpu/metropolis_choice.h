// The decision of metropolis_decide for one system, for kernels that go on from it. It is compiled where it is decided,
// without contraction: an operation that foresees a decision has to come to the same one.
#pragma once

#include "common/metropolis.h"
#include "ops/anneal.h"

namespace nri::cpu {

// log_ratio: [B], or null: all zero
Decision decide_system(const DrawView& draws, int64_t system, double temperature, const double* log_ratio,
                       double energy, double proposed_energy);

}  // namespace nri::cpu
