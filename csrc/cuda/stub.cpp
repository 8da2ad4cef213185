// Stands in for the CUDA kernels in builds without a CUDA compiler.
#include <stdexcept>

#include "ops/anneal.h"
#include "ops/heat_bath.h"
#include "ops/machine.h"
#include "ops/metropolis_run.h"
#include "ops/propose_from_table.h"
#include "ops/rollout_energy.h"
#include "ops/rollout_gradient.h"
#include "ops/simulate.h"

namespace nri::cuda {
namespace {

#ifndef NRI_FAST_CUDA_ABSENT
#define NRI_FAST_CUDA_ABSENT "its build compiled no CUDA kernels"
#endif

constexpr const char* kProblem = "nri_fast was built without CUDA support: " NRI_FAST_CUDA_ABSENT;

[[noreturn]] void not_built() { throw std::runtime_error(kProblem); }

}  // namespace

Build build() { return Build::none; }
std::vector<std::string> architectures() { return {}; }
int device_count() { return 0; }
void refuse_allocations(uint64_t) {}
std::string device_problem() { return kProblem; }

void simulate(const SimulateProblem&, double*, uint8_t*, uint8_t*, const Execution&) { not_built(); }

void metropolis_propose(const GraphView&, const DrawView&, const int64_t*, int64_t, int64_t, const uint8_t*,
                        const uint8_t*, uint8_t*, uint8_t*, const Execution&) {
  not_built();
}

void propose_from_table(const GraphView&, const DrawView&, const ProposalTable&, ProposalKind, const uint8_t*,
                        const uint8_t*, uint8_t*, uint8_t*, double*, const Execution&) {
  not_built();
}

void blur(const GraphView&, const DrawView&, double, bool, uint8_t*, const Execution&) { not_built(); }

void end_acceptance_epoch(double*, const double*, const Execution&) { not_built(); }

#define NRI_DEFINE(T)                                                                                                  \
  void rollout_energy(const RolloutProblem<T>&, int64_t, const uint8_t*, T*, const Execution&) { not_built(); }        \
  void forecast(const ForecastProblem<T>&, T*, const Execution&) { not_built(); }                                      \
  void rollout_gradient(const RolloutProblem<T>&, const uint8_t*, const T*, T*, T*, T*, const Execution&) {            \
    not_built();                                                                                                       \
  }                                                                                                                    \
  void metropolis_run(const MetropolisRun<T>&, const Execution&) { not_built(); }                                      \
  void heat_bath_scores(const HeatBathProblem<T>&, T*, const Execution&) { not_built(); }                              \
  void heat_bath_gradient(const HeatBathProblem<T>&, const T*, T*, const Execution&) { not_built(); }                  \
  void metropolis_decide(const GraphView&, const DrawView&, const T*, const double*, const T*, const uint8_t*,         \
                         const uint8_t*, T*, uint8_t*, uint8_t*, int64_t*, const Execution&) {                         \
    not_built();                                                                                                       \
  }                                                                                                                    \
  void heat_bath_sample(const GraphView&, const DrawView&, int64_t, int64_t, const int64_t*, const int64_t*, const T*, \
                        const double*, uint8_t*, uint8_t*, const Execution&) {                                         \
    not_built();                                                                                                       \
  }                                                                                                                    \
  void responsibilities(int64_t, const int64_t*, int64_t, const T*, const double*, T*, const Execution&) {             \
    not_built();                                                                                                       \
  }
NRI_DEFINE(float)
NRI_DEFINE(double)
#undef NRI_DEFINE

}  // namespace nri::cuda
