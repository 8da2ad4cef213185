// Cuts the work of an operation without sums over systems into chunks that fit into memory.
#pragma once

#include "cuda/workspace.h"

namespace nri::cuda {

// Calls work(chunk) until systems first_system .. end_system - 1 are done, with smaller chunks when memory runs out.
// `work` allocates before it writes any result.
template <typename Bytes, typename Work>
void for_system_chunks(int64_t first_system, int64_t end_system, int64_t replicas, const Execution& execution,
                       const Bytes& bytes, const Work& work) {
  if (first_system == end_system) return;
  int64_t budget = workspace_budget(execution);
  for (int64_t first = first_system; first < end_system;) {
    const SystemChunk chunk = plan_chunk(first, end_system, replicas, budget, bytes);
    try {
      work(chunk);
      first = chunk.end_system;
    } catch (const OutOfMemory&) {
      if (chunk.end_system == first + 1 && chunk.replicas == 1) throw;
      budget = smaller_budget(budget);
    }
  }
}

}  // namespace nri::cuda
