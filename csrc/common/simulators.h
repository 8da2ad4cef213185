// One simulated system, from its random draws to its last frame: the text that every backend runs (physics, units and
// shapes: ops/simulate.h). Arithmetic is IEEE in a fixed order, transcendental functions are portable_math.h's.
//
// The common sizes, 5 and 10 entities, keep a system in local arrays of fixed size (registers on a GPU); any other size
// works in scratch memory that the caller provides.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "common/philox.h"
#include "common/portable_math.h"
#include "ops/simulate.h"

#if defined(__CUDA_ARCH__)
#define NRI_UNROLL _Pragma("unroll")
#else
#define NRI_UNROLL
#endif

namespace nri {
namespace simulators {

// Draw indices of a system, all with step 0. An entity's draw is base + entity, a pair's (i < j) is base + pair_index.
enum DrawBase : uint32_t {
  kDrawPosition = 0x00000000u,  // two uniforms: the two coordinates by Box-Muller
  kDrawVelocity = 0x10000000u,  // z, w: the angle of the initial velocity
  kDrawCharge = 0x20000000u,    // highest bit of x: the sign
  kDrawPhase = 0x30000000u,     // x, y: initial phase; z, w: intrinsic frequency
  kDrawRelation = 0x80000000u,  // highest bit of x: is the pair related?
};

constexpr double kBodyTimeStep = 0.001;
constexpr int64_t kBodyStepsPerFrame = 100;
constexpr double kHalfWidth = 5.0;
constexpr double kForceLimit = 100.0;
constexpr double kInitialSpeed = 0.5;
constexpr double kSpringStiffness = 0.1;
constexpr double kSpringPositionSpread = 0.5;
constexpr double kChargedPositionSpread = 1.0;
// Below this squared distance a charged force is far beyond the clip; the bound only keeps 1 / r^3 finite.
constexpr double kSmallestSquaredDistance = 1e-60;
constexpr double kPhaseTimeStep = 0.01;
constexpr int64_t kPhaseStepsPerFrame = 10;
constexpr double kTwoPi = 6.283185307179586;
constexpr int64_t kFeatures = 4;

// Place of the pair (i, j), i < j, among the entities' pairs in row order.
NRI_HOST_DEVICE inline int64_t pair_index(int64_t i, int64_t j, int64_t entities) {
  return i * (2 * entities - i - 1) / 2 + (j - i - 1);
}

// One number per entity: a local array, or (kEntities = 0) a strided piece of the caller's scratch memory.
template <int kEntities>
class Column {
 public:
  NRI_HOST_DEVICE Column(double*, int64_t, int64_t, int64_t) {}
  NRI_HOST_DEVICE double& operator[](int64_t i) { return values_[i]; }

 private:
  double values_[kEntities];
};

template <>
class Column<0> {
 public:
  NRI_HOST_DEVICE Column(double* scratch, int64_t stride, int64_t entities, int64_t number)
      : values_(scratch + number * entities * stride), stride_(stride) {}
  NRI_HOST_DEVICE double& operator[](int64_t i) { return values_[i * stride_]; }

 private:
  double* values_;
  int64_t stride_;
};

// How strongly a pair acts, slope * edge + offset: kept per pair, or (kEntities = 0) read off the edges every time.
template <int kEntities>
class Couplings {
 public:
  NRI_HOST_DEVICE Couplings(const uint8_t* edges, int64_t, double slope, double offset) {
    NRI_UNROLL
    for (int64_t i = 0; i < kEntities; ++i) {
      NRI_UNROLL
      for (int64_t j = i + 1; j < kEntities; ++j) {
        values_[pair_index(i, j, kEntities)] = slope * edges[i * kEntities + j] + offset;
      }
    }
  }
  NRI_HOST_DEVICE double operator()(int64_t i, int64_t j) const { return values_[pair_index(i, j, kEntities)]; }

 private:
  double values_[kEntities * (kEntities - 1) / 2];
};

template <>
class Couplings<0> {
 public:
  NRI_HOST_DEVICE Couplings(const uint8_t* edges, int64_t entities, double slope, double offset)
      : edges_(edges), entities_(entities), slope_(slope), offset_(offset) {}
  NRI_HOST_DEVICE double operator()(int64_t i, int64_t j) const { return slope_ * edges_[i * entities_ + j] + offset_; }

 private:
  const uint8_t* edges_;
  int64_t entities_;
  double slope_, offset_;
};

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

// edges: [N, N], symmetric with a zero diagonal.
NRI_HOST_DEVICE inline void draw_edges(const SimulateProblem& problem, int64_t system, uint8_t* edges) {
  const int64_t n = problem.entities;
  const bool charged = problem.kind == SimulatorKind::charged;
  // Charges wait on the diagonal until every pair has been compared.
  for (int64_t i = 0; i < n; ++i) {
    edges[i * n + i] = charged ? coin(system_draw(problem, system, kDrawCharge, i)) : 0;
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i + 1; j < n; ++j) {
      const uint8_t edge = charged ? static_cast<uint8_t>(edges[i * n + i] == edges[j * n + j])
                                   : coin(system_draw(problem, system, kDrawRelation, pair_index(i, j, n)));
      edges[i * n + j] = edge;
      edges[j * n + i] = edge;
    }
  }
  for (int64_t i = 0; i < n; ++i) edges[i * n + i] = 0;
}

NRI_HOST_DEVICE inline double clip_force(double f) {
  return f > kForceLimit ? kForceLimit : (f < -kForceLimit ? -kForceLimit : f);
}

NRI_HOST_DEVICE inline void reflect(double& position, double& velocity) {
  if (position > kHalfWidth) {
    position = 2.0 * kHalfWidth - position;
    velocity = -fabs(velocity);
  } else if (position < -kHalfWidth) {
    position = -2.0 * kHalfWidth - position;
    velocity = fabs(velocity);
  }
}

// Springs and charged bodies. states: [T, N, 4]; scratch: 6 N numbers if kEntities is 0.
template <int kEntities, bool kCharged>
NRI_HOST_DEVICE inline void simulate_bodies(const SimulateProblem& problem, int64_t system, const uint8_t* edges,
                                            double* states, double* scratch, int64_t stride) {
  const int64_t n = kEntities > 0 ? kEntities : problem.entities;
  const Couplings<kEntities> coupling(edges, n, kCharged ? 2.0 : -kSpringStiffness, kCharged ? -1.0 : 0.0);
  Column<kEntities> x(scratch, stride, n, 0), y(scratch, stride, n, 1);
  Column<kEntities> vx(scratch, stride, n, 2), vy(scratch, stride, n, 3);
  Column<kEntities> fx(scratch, stride, n, 4), fy(scratch, stride, n, 5);

  const double spread = kCharged ? kChargedPositionSpread : kSpringPositionSpread;
  NRI_UNROLL
  for (int64_t i = 0; i < n; ++i) {
    double a, b;
    gaussian_pair(system_draw(problem, system, kDrawPosition, i), &a, &b);
    x[i] = spread * a;
    y[i] = spread * b;
    // A Gaussian direction is a uniform angle.
    const Philox4 bits = system_draw(problem, system, kDrawVelocity, i);
    portable_sincos(kTwoPi * uniform(bits.z, bits.w), &a, &b);
    vx[i] = kInitialSpeed * b;
    vy[i] = kInitialSpeed * a;
  }

  for (int64_t frame = 0; frame < problem.steps; ++frame) {
    for (int64_t step = 0; step < kBodyStepsPerFrame; ++step) {
      NRI_UNROLL
      for (int64_t i = 0; i < n; ++i) fx[i] = fy[i] = 0.0;
      NRI_UNROLL
      for (int64_t i = 0; i < n; ++i) {
        NRI_UNROLL
        for (int64_t j = i + 1; j < n; ++j) {
          const double dx = x[i] - x[j];
          const double dy = y[i] - y[j];
          double strength = coupling(i, j);
          if (kCharged) {
            double r2 = dx * dx + dy * dy;
            r2 = r2 < kSmallestSquaredDistance ? kSmallestSquaredDistance : r2;
            strength = strength / (r2 * sqrt(r2));
          }
          const double px = strength * dx;
          const double py = strength * dy;
          fx[i] += px;
          fy[i] += py;
          fx[j] -= px;
          fy[j] -= py;
        }
      }
      NRI_UNROLL
      for (int64_t i = 0; i < n; ++i) {
        vx[i] += kBodyTimeStep * clip_force(fx[i]);
        vy[i] += kBodyTimeStep * clip_force(fy[i]);
        x[i] += kBodyTimeStep * vx[i];
        y[i] += kBodyTimeStep * vy[i];
        reflect(x[i], vx[i]);
        reflect(y[i], vy[i]);
      }
    }
    NRI_UNROLL
    for (int64_t i = 0; i < n; ++i) {
      double* out = states + (frame * n + i) * kFeatures;
      out[0] = x[i];
      out[1] = y[i];
      out[2] = vx[i];
      out[3] = vy[i];
    }
  }
}

// Phase oscillators, the Runge-Kutta method of order 4. states: [T, N, 4]; scratch: 7 N numbers if kEntities is 0.
template <int kEntities>
NRI_HOST_DEVICE inline void simulate_oscillators(const SimulateProblem& problem, int64_t system, const uint8_t* edges,
                                                 double* states, double* scratch, int64_t stride) {
  const int64_t n = kEntities > 0 ? kEntities : problem.entities;
  const Couplings<kEntities> coupling(edges, n, 1.0, 0.0);
  Column<kEntities> frequency(scratch, stride, n, 0), phase(scratch, stride, n, 1), trial(scratch, stride, n, 2);
  Column<kEntities> rate(scratch, stride, n, 3), rate_sum(scratch, stride, n, 4);
  Column<kEntities> sine(scratch, stride, n, 5), cosine(scratch, stride, n, 6);

  NRI_UNROLL
  for (int64_t i = 0; i < n; ++i) {
    const Philox4 bits = system_draw(problem, system, kDrawPhase, i);
    phase[i] = kTwoPi * uniform(bits.x, bits.y);
    frequency[i] = 1.0 + 9.0 * uniform(bits.z, bits.w);
    trial[i] = phase[i];
    rate_sum[i] = 0.0;
  }

  const int64_t last = problem.steps * kPhaseStepsPerFrame;
  for (int64_t step = 0;; ++step) {
    for (int stage = 0; stage < 4; ++stage) {
      NRI_UNROLL
      for (int64_t i = 0; i < n; ++i) {
        portable_sincos(trial[i], &sine[i], &cosine[i]);
        rate[i] = frequency[i];
      }
      NRI_UNROLL
      for (int64_t i = 0; i < n; ++i) {
        NRI_UNROLL
        for (int64_t j = i + 1; j < n; ++j) {
          // sin(phi_j - phi_i), from one sine and one cosine per oscillator
          const double pull = coupling(i, j) * (sine[j] * cosine[i] - cosine[j] * sine[i]);
          rate[i] += pull;
          rate[j] -= pull;
        }
      }
      if (stage == 0) {
        if (step > 0 && step % kPhaseStepsPerFrame == 0) {
          const int64_t frame = step / kPhaseStepsPerFrame - 1;
          NRI_UNROLL
          for (int64_t i = 0; i < n; ++i) {
            double* out = states + (frame * n + i) * kFeatures;
            out[0] = rate[i];
            out[1] = sine[i];
            out[2] = phase[i];
            out[3] = frequency[i];
          }
          if (step == last) return;
        }
      }
      const double weight = (stage == 1 || stage == 2) ? 2.0 : 1.0;
      const double ahead = (stage == 2) ? kPhaseTimeStep : 0.5 * kPhaseTimeStep;
      NRI_UNROLL
      for (int64_t i = 0; i < n; ++i) {
        rate_sum[i] += weight * rate[i];
        if (stage < 3) {
          trial[i] = phase[i] + ahead * rate[i];
        } else {
          phase[i] += (kPhaseTimeStep / 6.0) * rate_sum[i];
          trial[i] = phase[i];
          rate_sum[i] = 0.0;
        }
      }
    }
  }
}

template <int kEntities>
NRI_HOST_DEVICE inline void simulate_sized(const SimulateProblem& problem, int64_t system, const uint8_t* edges,
                                           double* states, double* scratch, int64_t stride) {
  switch (problem.kind) {
    case SimulatorKind::springs:
      return simulate_bodies<kEntities, false>(problem, system, edges, states, scratch, stride);
    case SimulatorKind::charged:
      return simulate_bodies<kEntities, true>(problem, system, edges, states, scratch, stride);
    case SimulatorKind::kuramoto:
      return simulate_oscillators<kEntities>(problem, system, edges, states, scratch, stride);
  }
}

// Scratch that one system needs, in doubles; 0 for the sizes that live in local arrays.
NRI_HOST_DEVICE inline int64_t scratch_size(const SimulateProblem& problem) {
  if (problem.entities == 5 || problem.entities == 10) return 0;
  return (problem.kind == SimulatorKind::kuramoto ? 7 : 6) * problem.entities;
}

// Simulates the call's s-th system, 0 <= s < problem.systems.
// states: [T, N, 4] and edges: [N, N] of this system alone, overwritten.
// scratch: number i of the scratch_size(problem) numbers lies at scratch[i * stride], so that the threads of a GPU can
//   interleave theirs; may be null if the size is 0.
NRI_HOST_DEVICE inline void simulate_system(const SimulateProblem& problem, int64_t s, double* states, uint8_t* edges,
                                            double* scratch, int64_t stride) {
  const int64_t system = problem.first_system + s;
  draw_edges(problem, system, edges);
  if (problem.entities == 5) return simulate_sized<5>(problem, system, edges, states, scratch, stride);
  if (problem.entities == 10) return simulate_sized<10>(problem, system, edges, states, scratch, stride);
  simulate_sized<0>(problem, system, edges, states, scratch, stride);
}

}  // namespace simulators
}  // namespace nri

#undef NRI_UNROLL
