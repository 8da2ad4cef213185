// Simulators on the CPU: one system at a time on every thread.
#include "ops/simulate.h"

#include <algorithm>
#include <vector>

#include "common/simulators.h"
#include "cpu/thread_pool.h"

namespace nri::cpu {

void simulate(const SimulateProblem& problem, double* states, uint8_t* edges, uint8_t* node_types,
              const Execution& execution) {
  if (problem.systems == 0) return;
  const int64_t states_per_system = problem.steps * problem.entities * simulators::kFeatures;
  const int64_t edges_per_system = problem.entities * problem.entities;
  const int64_t scratch_per_worker = simulators::scratch_size(problem);
  std::vector<double> scratch(static_cast<size_t>(std::max(execution.threads, 1) * scratch_per_worker));
  parallel_for(execution.threads, problem.systems, [&](int64_t s, int worker) {
    simulators::simulate_system(problem, s, states + s * states_per_system, edges + s * edges_per_system,
                                node_types + s * problem.entities, scratch.data() + worker * scratch_per_worker, 1);
  });
}

}  // namespace nri::cpu
