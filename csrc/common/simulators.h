// One simulated system, from its random draws to its last frame: the text that every backend runs (physics, units and
// shapes: ops/simulate.h). Arithmetic is IEEE in a fixed order, transcendental functions are portable_math.h's.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "common/simulator_bodies.h"
#include "common/simulator_draws.h"
#include "common/simulator_oscillators.h"
#include "ops/simulate.h"

namespace nri {
namespace simulators {

template <int kEntities>
NRI_HOST_DEVICE inline void simulate_sized(const SimulateProblem& problem, int64_t system, const uint8_t* edges,
                                           const uint8_t* node_types, double* states, double* scratch, int64_t stride) {
  using Kind = SimulatorKind;
  switch (problem.kind) {
    case Kind::springs:
      return simulate_bodies<kEntities, Kind::springs>(problem, system, edges, node_types, states, scratch, stride);
    case Kind::charged:
      return simulate_bodies<kEntities, Kind::charged>(problem, system, edges, node_types, states, scratch, stride);
    case Kind::springs3:
      return simulate_bodies<kEntities, Kind::springs3>(problem, system, edges, node_types, states, scratch, stride);
    case Kind::springs_mass:
      return simulate_bodies<kEntities, Kind::springs_mass>(problem, system, edges, node_types, states, scratch,
                                                            stride);
    case Kind::kuramoto:
    case Kind::kuramoto_directed:
      return simulate_oscillators<kEntities>(problem, system, edges, states, scratch, stride);
  }
}

// Scratch that one system needs, in doubles; 0 for the sizes that live in local arrays.
NRI_HOST_DEVICE inline int64_t scratch_size(const SimulateProblem& problem) {
  if (problem.entities == 5 || problem.entities == 10) return 0;
  return (kBodyColumns > kOscillatorColumns ? kBodyColumns : kOscillatorColumns) * problem.entities;
}

// Simulates the call's s-th system, 0 <= s < problem.systems.
// states: [T, N, 4], edges: [N, N] and node_types: [N] of this system alone, overwritten.
// scratch: number i of the scratch_size(problem) numbers lies at scratch[i * stride], so that the threads of a GPU can
//   interleave theirs; may be null if the size is 0.
NRI_HOST_DEVICE inline void simulate_system(const SimulateProblem& problem, int64_t s, double* states, uint8_t* edges,
                                            uint8_t* node_types, double* scratch, int64_t stride) {
  const int64_t system = problem.first_system + s;
  draw_edges(problem, system, edges);
  draw_node_types(problem, system, node_types);
  if (problem.entities == 5) return simulate_sized<5>(problem, system, edges, node_types, states, scratch, stride);
  if (problem.entities == 10) return simulate_sized<10>(problem, system, edges, node_types, states, scratch, stride);
  simulate_sized<0>(problem, system, edges, node_types, states, scratch, stride);
}

}  // namespace simulators
}  // namespace nri
