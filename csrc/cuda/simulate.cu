// Compiled without contraction of a * b + c, like the CPU's, so that the bits agree.
#include <algorithm>

#include "common/simulators.h"
#include "cuda/workspace.h"
#include "ops/simulate.h"

namespace nri::cuda {
namespace {

__global__ void simulate_kernel(int64_t count, SimulateProblem problem, int64_t first, double* states, uint8_t* edges,
                                uint8_t* node_types, double* scratch) {
  const int64_t index = global_index();
  if (index >= count) return;
  const int64_t system = first + index;
  const int64_t entities = problem.entities;
  simulators::simulate_system(problem, system, states + system * problem.steps * entities * 4,
                              edges + system * entities * entities, node_types + system * entities,
                              scratch == nullptr ? nullptr : scratch + index, count);
}

}  // namespace

void simulate(const SimulateProblem& problem, double* states, uint8_t* edges, uint8_t* node_types,
              const Execution& execution) {
  if (problem.systems == 0) return;
  const int64_t scratch_bytes = simulators::scratch_size(problem) * static_cast<int64_t>(sizeof(double));
  int64_t chunk = problem.systems;
  if (scratch_bytes > 0) {
    chunk = std::clamp(workspace_budget(execution) / scratch_bytes, int64_t{1}, problem.systems);
  }
  for (int64_t first = 0; first < problem.systems;) {
    const int64_t count = std::min(chunk, problem.systems - first);
    try {
      const Buffer<double> scratch(count * simulators::scratch_size(problem), execution);
      launch_elements("simulate", simulate_kernel, count, execution, problem, first, states, edges, node_types,
                      scratch.data());
      first += count;
    } catch (const OutOfMemory&) {
      if (chunk == 1) throw;
      chunk = (chunk + 1) / 2;
    }
  }
}

}  // namespace nri::cuda
