// A simulated system's random numbers: who is related to whom, what each entity is, where everything begins.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "common/philox.h"
#include "common/portable_math.h"
#include "common/simulator_storage.h"
#include "ops/simulate.h"

namespace nri {
namespace simulators {

// Draw indices of a system, all with step 0. An entity's draw is base + entity, a pair's (i < j) is base + pair_index.
enum DrawBase : uint32_t {
  kDrawPosition = 0x00000000u,  // two uniforms: the two coordinates by Box-Muller
  kDrawVelocity = 0x10000000u,  // z, w: the angle of the initial velocity
  kDrawCharge = 0x20000000u,    // highest bit of x: the sign
  kDrawPhase = 0x30000000u,     // x, y: initial phase; z, w: intrinsic frequency
  kDrawMass = 0x40000000u,      // highest bit of x: is the body heavy?
  kDrawRelation = 0x80000000u,  // x: the type of the edge i -> j; directed, y: of j -> i
};

constexpr double kTwoPi = 6.283185307179586;

NRI_HOST_DEVICE inline Philox4 system_draw(const SimulateProblem& problem, int64_t system, uint32_t base, int64_t i) {
  return draw(problem.seed, problem.stream, system, 0, base + static_cast<uint32_t>(i));
}

NRI_HOST_DEVICE inline uint8_t coin(Philox4 bits) { return static_cast<uint8_t>(bits.x >> 31); }

// Two independent standard Gaussians (Box and Muller). The logarithm sees (0, 1], never zero.
NRI_HOST_DEVICE inline void gaussian_pair(Philox4 bits, double* first, double* second) {
  const double radius = sqrt(-2.0 * portable_log(1.0 - uniform(bits.x, bits.y)));
  double sine, cosine;
  portable_sincos(kTwoPi * uniform(bits.z, bits.w), &sine, &cosine);
  *first = radius * cosine;
  *second = radius * sine;
}

// A type from 0 to count - 1; for two types the highest bit decides.
NRI_HOST_DEVICE inline uint8_t type_below(uint32_t count, uint32_t bits) {
  return static_cast<uint8_t>((static_cast<uint64_t>(bits) * count) >> 32);
}

// edges: [N, N], with a zero diagonal; [i, j] belongs to the edge from i to j.
NRI_HOST_DEVICE inline void draw_edges(const SimulateProblem& problem, int64_t system, uint8_t* edges) {
  const int64_t n = problem.entities;
  const bool charged = problem.kind == SimulatorKind::charged;
  const bool directed = problem.kind == SimulatorKind::kuramoto_directed;
  const uint32_t types = problem.kind == SimulatorKind::springs3 ? 3 : 2;
  // Charges wait on the diagonal until every pair has been compared.
  for (int64_t i = 0; i < n; ++i) {
    edges[i * n + i] = charged ? coin(system_draw(problem, system, kDrawCharge, i)) : 0;
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i + 1; j < n; ++j) {
      if (charged) {
        edges[i * n + j] = edges[j * n + i] = static_cast<uint8_t>(edges[i * n + i] == edges[j * n + j]);
        continue;
      }
      const Philox4 bits = system_draw(problem, system, kDrawRelation, pair_index(i, j, n));
      edges[i * n + j] = type_below(types, bits.x);
      edges[j * n + i] = directed ? type_below(types, bits.y) : edges[i * n + j];
    }
  }
  for (int64_t i = 0; i < n; ++i) edges[i * n + i] = 0;
}

// types: [N], 0 for all entities where the kind knows one type only.
NRI_HOST_DEVICE inline void draw_node_types(const SimulateProblem& problem, int64_t system, uint8_t* types) {
  const bool masses = problem.kind == SimulatorKind::springs_mass;
  for (int64_t i = 0; i < problem.entities; ++i) {
    types[i] = masses ? coin(system_draw(problem, system, kDrawMass, i)) : 0;
  }
}

}  // namespace simulators
}  // namespace nri
