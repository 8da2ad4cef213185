// Stands in for the CUDA backend in a build without CUDA.
#include <stdexcept>

#include "ops/anneal.h"
#include "ops/heat_bath.h"
#include "ops/machine.h"
#include "ops/rollout_gradient.h"
#include "ops/simulate.h"

namespace nri::cuda {
namespace {

[[noreturn]] void refuse() {
  throw std::runtime_error("nri_fast was built without CUDA support (" NRI_FAST_CUDA_ABSENT
                           "): move the tensors to the CPU, or rebuild with NRI_FAST_CUDA=on");
}

}  // namespace

#define NRI_REFUSE(T)                                                                                                 \
  void rollout_energy(const RolloutProblem<T>&, int64_t, const uint8_t*, T*, const Execution&) { refuse(); }          \
  void forecast(const ForecastProblem<T>&, T*, const Execution&) { refuse(); }                                        \
  void rollout_gradient(const RolloutProblem<T>&, const uint8_t*, const T*, T*, T*, T*, const Execution&) {           \
    refuse();                                                                                                         \
  }                                                                                                                   \
  void heat_bath_scores(const HeatBathProblem<T>&, T*, const Execution&) { refuse(); }                                \
  void heat_bath_gradient(const HeatBathProblem<T>&, const T*, T*, const Execution&) { refuse(); }                    \
  void metropolis_decide(const GraphView&, const DrawView&, const T*, const T*, const uint8_t*, const uint8_t*, T*,   \
                         uint8_t*, uint8_t*, int64_t*, const Execution&) {                                            \
    refuse();                                                                                                         \
  }                                                                                                                   \
  void heat_bath_sample(const GraphView&, const DrawView&, int64_t, bool, const int64_t*, const T*, double, uint8_t*, \
                        const Execution&) {                                                                           \
    refuse();                                                                                                         \
  }                                                                                                                   \
  void responsibilities(int64_t, const int64_t*, int64_t, const T*, double, T*, const Execution&) { refuse(); }
NRI_REFUSE(float)
NRI_REFUSE(double)

void metropolis_propose(const GraphView&, const DrawView&, int64_t, int64_t, const uint8_t*, const uint8_t*, uint8_t*,
                        uint8_t*, const Execution&) {
  refuse();
}

void simulate(const SimulateProblem&, double*, uint8_t*, const Execution&) { refuse(); }

Build build() { return Build::none; }
std::vector<std::string> architectures() { return {}; }
int device_count() { return 0; }
std::string device_problem() { return NRI_FAST_CUDA_ABSENT; }

}  // namespace nri::cuda
