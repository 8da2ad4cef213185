// Picks the kernels compiled for this processor, once, and forwards every call to them.
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/thread_pool.h"
#include "cpu/variants.h"
#include "ops/heat_bath.h"
#include "ops/linear.h"
#include "ops/machine.h"
#include "ops/rollout_choice.h"
#include "ops/rollout_gradient.h"

namespace nri::cpu {

#define NRI_DECLARE_SCORING(T)                                                                  \
  void rollout_energy(const RolloutProblem<T>&, int64_t, const uint8_t*, T*, const Execution&); \
  void heat_bath_scores(const HeatBathProblem<T>&, T*, const Execution&);
#define NRI_DECLARE_KERNELS(T)                                                                             \
  NRI_DECLARE_SCORING(T)                                                                                   \
  void forecast(const ForecastProblem<T>&, T*, const Execution&);                                          \
  void rollout_gradient(const RolloutProblem<T>&, const uint8_t*, const T*, T*, T*, T*, const Execution&); \
  void rollout_choice(const RolloutChoice<T>&, T*, T*, const Execution&);                                  \
  void linear(const LinearLayer<T>&, const T*, T*, const Execution&);                                      \
  void linear_gradient(const LinearLayer<T>&, const T*, T*, T*, T*, const Execution&);                     \
  int64_t heat_bath_kept(const HeatBathProblem<T>&, const Execution&);                                     \
  void heat_bath_gradient(const HeatBathProblem<T>&, const T*, T*, const Execution&);
#define NRI_DECLARE_VARIANT(variant) \
  namespace variant {                \
  int64_t fma_block();               \
  NRI_DECLARE_KERNELS(float)         \
  NRI_DECLARE_KERNELS(double)        \
  }
NRI_FOR_EACH_VARIANT(NRI_DECLARE_VARIANT)
namespace avx512bf16 {  // products in bf16, for scoring
NRI_DECLARE_SCORING(float)
NRI_DECLARE_SCORING(double)
}  // namespace avx512bf16

namespace {

struct Variant {
  const char* name;
  bool (*runs_here)();
};

// Best first.
const std::vector<Variant>& variants() {
  static const std::vector<Variant> list{
#if defined(NRI_HAVE_AVX512)
      {"avx512",
       [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("fma");
       }},
#endif
#if defined(NRI_HAVE_AVX2)
      {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
      {"generic", [] { return true; }},
  };
  return list;
}

std::string choose() {
  const char* wish = std::getenv("NRI_FAST_CPU_VARIANT");
  for (const Variant& variant : variants()) {
    if (wish && *wish && std::string(wish) != variant.name) continue;
    if (variant.runs_here()) return variant.name;
    if (wish && *wish) {
      throw std::runtime_error(std::string("NRI_FAST_CPU_VARIANT=") + wish + ": this processor lacks its instructions");
    }
  }
  throw std::runtime_error(std::string("NRI_FAST_CPU_VARIANT=") + wish + ": no such variant was built");
}

}  // namespace

std::vector<std::string> built_variants() {
  std::vector<std::string> names;
  for (const Variant& variant : variants()) names.emplace_back(variant.name);
  return names;
}

std::string chosen_variant() {
  static const std::string name = choose();
  return name;
}

bool bf16_available() {
#if defined(NRI_HAVE_AVX512BF16)
  return chosen_variant() == "avx512" && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

namespace {

// Whether a call of scalar type T is one for the bf16 kernels.
template <typename T>
bool in_bf16(const Execution& execution) {
  if (execution.precision == Precision::fp32) return false;
  if (!std::is_same_v<T, float>) throw std::invalid_argument("precision: expected float32 tensors, got float64");
  if (execution.precision == Precision::tf32) throw std::invalid_argument("tf32: expected a GPU, got a processor");
  if (!bf16_available()) throw std::runtime_error("bf16: this processor or this build has no such kernels");
  return true;
}

enum class Chosen { generic, avx2, avx512 };

Chosen chosen() {
  static const Chosen value = chosen_variant() == "avx512" ? Chosen::avx512
                              : chosen_variant() == "avx2" ? Chosen::avx2
                                                           : Chosen::generic;
  return value;
}

}  // namespace

#if defined(NRI_HAVE_AVX512)
#define NRI_AVX512_CASE(call) \
  case Chosen::avx512:        \
    return avx512::call;
#else
#define NRI_AVX512_CASE(call)
#endif
#if defined(NRI_HAVE_AVX2)
#define NRI_AVX2_CASE(call) \
  case Chosen::avx2:        \
    return avx2::call;
#else
#define NRI_AVX2_CASE(call)
#endif
#if defined(NRI_HAVE_AVX512BF16)
#define NRI_SCORE(T, call) \
  if (in_bf16<T>(execution)) return avx512bf16::call;
#else
#define NRI_SCORE(T, call) in_bf16<T>(execution);
#endif
#define NRI_DISPATCH(call)  \
  switch (chosen()) {       \
    NRI_AVX512_CASE(call)   \
    NRI_AVX2_CASE(call)     \
    default:                \
      return generic::call; \
  }

#define NRI_DEFINE_KERNELS(T)                                                                                         \
  int64_t heat_bath_kept(const HeatBathProblem<T>& problem, const Execution& execution) {                             \
    NRI_DISPATCH(heat_bath_kept(problem, execution))                                                                  \
  }                                                                                                                   \
  void rollout_energy(const RolloutProblem<T>& problem, int64_t structures, const uint8_t* edge_types, T* energy,     \
                      const Execution& execution) {                                                                   \
    NRI_SCORE(T, rollout_energy(problem, structures, edge_types, energy, execution))                                  \
    NRI_DISPATCH(rollout_energy(problem, structures, edge_types, energy, execution))                                  \
  }                                                                                                                   \
  void forecast(const ForecastProblem<T>& problem, T* states, const Execution& execution) {                           \
    NRI_DISPATCH(forecast(problem, states, execution))                                                                \
  }                                                                                                                   \
  void rollout_gradient(const RolloutProblem<T>& problem, const uint8_t* edge_types, const T* cotangent, T* energy,   \
                        T* parameter_gradient, T* state_gradient, const Execution& execution) {                       \
    NRI_DISPATCH(                                                                                                     \
        rollout_gradient(problem, edge_types, cotangent, energy, parameter_gradient, state_gradient, execution))      \
  }                                                                                                                   \
  void linear(const LinearLayer<T>& layer, const T* bias, T* output, const Execution& execution) {                    \
    NRI_DISPATCH(linear(layer, bias, output, execution))                                                              \
  }                                                                                                                   \
  void linear_gradient(const LinearLayer<T>& layer, const T* output_gradient, T* input_gradient, T* weight_gradient,  \
                       T* bias_gradient, const Execution& execution) {                                                \
    NRI_DISPATCH(linear_gradient(layer, output_gradient, input_gradient, weight_gradient, bias_gradient, execution))  \
  }                                                                                                                   \
  void rollout_choice(const RolloutChoice<T>& choice, T* energy, T* parameter_gradient, const Execution& execution) { \
    NRI_DISPATCH(rollout_choice(choice, energy, parameter_gradient, execution))                                       \
  }                                                                                                                   \
  void heat_bath_scores(const HeatBathProblem<T>& problem, T* scores, const Execution& execution) {                   \
    NRI_SCORE(T, heat_bath_scores(problem, scores, execution))                                                        \
    NRI_DISPATCH(heat_bath_scores(problem, scores, execution))                                                        \
  }                                                                                                                   \
  void heat_bath_gradient(const HeatBathProblem<T>& problem, const T* cotangent, T* parameter_gradient,               \
                          const Execution& execution) {                                                               \
    NRI_DISPATCH(heat_bath_gradient(problem, cotangent, parameter_gradient, execution))                               \
  }
NRI_DEFINE_KERNELS(float)
NRI_DEFINE_KERNELS(double)

namespace {

int64_t fma_block() { NRI_DISPATCH(fma_block()) }

}  // namespace

int64_t fma_operations(int threads, int64_t blocks) {
  std::atomic<int64_t> operations{0};
  parallel_for(threads, blocks, [&](int64_t, int) { operations += fma_block(); });
  return operations;
}

}  // namespace nri::cpu
