// Bodies in a box: springs and charged particles (physics, units and shapes: ops/simulate.h).
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "common/simulator_draws.h"
#include "common/simulator_storage.h"
#include "ops/simulate.h"

namespace nri {
namespace simulators {

constexpr double kBodyTimeStep = 0.001;
constexpr int64_t kBodyStepsPerFrame = 100;
constexpr double kHalfWidth = 5.0;
constexpr double kForceLimit = 100.0;
constexpr double kInitialSpeed = 0.5;
constexpr double kSpringStiffness = 0.1;
constexpr double kSpringPositionSpread = 0.5;
constexpr double kChargedPositionSpread = 1.0;
constexpr double kHeavyMass = 3.0;
constexpr double kDrag = 0.1;
// Below this squared distance a charged force is far beyond the clip; the bound only keeps 1 / r^3 finite.
constexpr double kSmallestSquaredDistance = 1e-60;

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

// states: [T, N, 4]; scratch: kBodyColumns * N numbers if kEntities is 0.
constexpr int64_t kBodyColumns = 7;

template <int kEntities, SimulatorKind kKind>
NRI_HOST_DEVICE inline void simulate_bodies(const SimulateProblem& problem, int64_t system, const uint8_t* edges,
                                            const uint8_t* node_types, double* states, double* scratch,
                                            int64_t stride) {
  constexpr bool kCharged = kKind == SimulatorKind::charged;
  constexpr bool kMasses = kKind == SimulatorKind::springs_mass;
  // The stiffest spring has the highest type.
  constexpr double kStiffness = kKind == SimulatorKind::springs3 ? 0.5 * kSpringStiffness : kSpringStiffness;
  const int64_t n = kEntities > 0 ? kEntities : problem.entities;
  const Couplings<kEntities> coupling(edges, n, kCharged ? 2.0 : -kStiffness, kCharged ? -1.0 : 0.0);
  Column<kEntities> x(scratch, stride, n, 0), y(scratch, stride, n, 1);
  Column<kEntities> vx(scratch, stride, n, 2), vy(scratch, stride, n, 3);
  Column<kEntities> fx(scratch, stride, n, 4), fy(scratch, stride, n, 5), inverse_mass(scratch, stride, n, 6);

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
    inverse_mass[i] = kMasses && node_types[i] == 1 ? 1.0 / kHeavyMass : 1.0;
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
        double ax = clip_force(fx[i]);
        double ay = clip_force(fy[i]);
        if (kMasses) {
          ax = inverse_mass[i] * (ax - kDrag * vx[i]);
          ay = inverse_mass[i] * (ay - kDrag * vy[i]);
        }
        vx[i] += kBodyTimeStep * ax;
        vy[i] += kBodyTimeStep * ay;
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

}  // namespace simulators
}  // namespace nri
