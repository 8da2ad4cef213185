// Coupled phase oscillators (physics, units and shapes: ops/simulate.h).
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "common/portable_math.h"
#include "common/simulator_draws.h"
#include "common/simulator_storage.h"
#include "ops/simulate.h"

namespace nri {
namespace simulators {

constexpr double kPhaseTimeStep = 0.01;
constexpr int64_t kPhaseStepsPerFrame = 10;

// By the Runge-Kutta method of order 4. states: [T, N, 4]; scratch: kOscillatorColumns * N numbers if kEntities is 0.
constexpr int64_t kOscillatorColumns = 7;

template <int kEntities>
NRI_HOST_DEVICE inline void simulate_oscillators(const SimulateProblem& problem, int64_t system, const uint8_t* edges,
                                                 double* states, double* scratch, int64_t stride) {
  const int64_t n = kEntities > 0 ? kEntities : problem.entities;
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
          const double pull = sine[j] * cosine[i] - cosine[j] * sine[i];
          rate[i] += edges[j * n + i] * pull;
          rate[j] -= edges[i * n + j] * pull;
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

}  // namespace simulators
}  // namespace nri
