// Simulators of NRI's three benchmark families (Kipf et al., ICML 2018), physically equivalent, any number of entities,
// and three variants with more to tell apart.
//
// springs, charged: 2-D bodies in a box of half-width 5, dt 0.001, one frame every 100 steps, frame i after step
//   100 (i + 1). v += dt F(x) once; then per step: x += dt v; reflect at the walls; record if due; v += dt F(x).
//   Each summed force component is clipped to +-100.
//   springs: F_i = -0.1 sum_j e_ij (x_i - x_j), e symmetric, 0 or 1 with probability 1/2; positions ~ N(0, 0.5^2).
//   charged: F_i = sum_j q_i q_j (x_i - x_j) / r^3, q = -1 or +1 with probability 1/2; positions ~ N(0, 1).
//   springs3: as springs, with e 0, 0.5 or 1 with probability 1/3 each (the three values that NRI's simulator knows).
//   springs_mass: as springs, in a viscous medium: dv_i/dt = (F_i - 0.1 v_i) / m_i, m = 1 or 3 with probability 1/2.
//   The
//     drag shows what a body is also where no spring pulls at it.
//   Initial velocities: Gaussian direction, norm 0.5.
//   states [S, T, N, 4]: x, y, vx, vy.   edges [S, N, N]: springs and springs_mass 0 / 1; springs3 0 / 1 / 2; charged
//   0 / 1 for q_i q_j = -1 / +1; zero diagonal.   node_types [S, N]: springs_mass 0 / 1 for m = 1 / 3; otherwise 0.
// kuramoto: dphi_i/dt = w_i + sum_j k_ij sin(phi_j - phi_i), k symmetric, 0 or 1 with probability 1/2, w uniform in
//   [1, 10), phi(0) uniform in [0, 2 pi), Runge-Kutta of order 4 with dt 0.01, one frame every 10th step.
//   kuramoto_directed: as kuramoto, k_ij and k_ji independent of each other.
//   states: dphi/dt, sin phi, phi, w.   edges 0 / 1; [i, j] is k_ji: whether i acts on j.   node_types 0.
//
// Draws are Philox by (seed; the split's stream, system), arithmetic is IEEE with portable_math.h and no contraction:
// the same bits on every device. System s of the call is system first_system + s of the stream.
#pragma once

#include "common/streams.h"
#include "common/views.h"

namespace nri {

enum class SimulatorKind : int32_t {
  springs = 0,
  charged = 1,
  kuramoto = 2,
  springs3 = 3,
  springs_mass = 4,
  kuramoto_directed = 5,
};

struct SimulateProblem {
  SimulatorKind kind;
  int64_t systems;   // S
  int64_t entities;  // N >= 1
  int64_t steps;     // T >= 1 recorded frames
  uint64_t seed;
  Stream stream;         // simulate_train, simulate_valid or simulate_test
  int64_t first_system;  // >= 0
};

// states: [S, T, N, 4] double     edges: [S, N, N] uint8     node_types: [S, N] uint8     all overwritten
namespace cpu {
void simulate(const SimulateProblem& problem, double* states, uint8_t* edges, uint8_t* node_types,
              const Execution& execution);
}
namespace cuda {
void simulate(const SimulateProblem& problem, double* states, uint8_t* edges, uint8_t* node_types,
              const Execution& execution);
}

}  // namespace nri
