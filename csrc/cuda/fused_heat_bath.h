// Heat-bath scores in one kernel: a block works out all messages of a tile of receivers, projects them, and runs their
// rows, everything in shared memory and products on tensor cores (fused_heat_bath_tile.h). A second kernel takes the
// means over transitions.
#pragma once

#include <functional>

#include "ops/heat_bath.h"

namespace nri::cuda::fused {

// Cuts the systems into runs of those that go through the fused kernels and of those that do not, and calls
// work(first_system, end_system, fused) for each. A system's own size decides, so that its bits do not depend on the
// batch.
void for_runs(const HeatBathProblem<float>& problem, const Execution& execution,
              const std::function<void(int64_t, int64_t, bool)>& work);

// Scores of a run of systems that for_runs() said are fused.
void heat_bath_scores(const HeatBathProblem<float>& problem, int64_t first_system, int64_t end_system, float* scores,
                      const Execution& execution);

}  // namespace nri::cuda::fused
