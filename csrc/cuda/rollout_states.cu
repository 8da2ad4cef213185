#include "cuda/rollout_states.h"
#include "cuda/transition_error.h"

namespace nri::cuda {
namespace {

template <typename T>
__global__ void gather_starts_kernel(int64_t elements, SystemRange range, Segments segments, int64_t features,
                                     int64_t first_pair, const T* states, T* x) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t row = index / features;
  const int64_t node = row % range.nodes;
  const int64_t frame = (first_pair + row / range.nodes) / segments.structures * segments.length;
  x[index] =
      states[state_place(range, segments.frames, features, range.system_of_node[node], frame, range.first_node + node) +
             index % features];
}

template <typename T>
__global__ void add_errors_kernel(int64_t elements, SystemRange range, Segments segments, ErrorView<T> error,
                                  const uint8_t* observed, int64_t features, int64_t first_pair, int64_t step,
                                  const T* states, const T* x, double* sums, int64_t sums_stride) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t replica = index / range.systems;
  const int64_t system = range.first_system + index % range.systems;
  const int64_t pair = first_pair + replica;
  const int64_t frame = pair / segments.structures * segments.length + step + 1;
  double sum = 0;
  for (int64_t node = range.node_offset[system]; node < range.node_offset[system + 1]; ++node) {
    if (observed != nullptr && observed[node] == 0) continue;
    const T* predicted = x + (replica * range.nodes + node - range.first_node) * features;
    const T* recorded = states + state_place(range, segments.frames, features, system, frame, node);
    sum += transition_error(error, weighted_square(error, predicted, recorded, features));
  }
  sums[pair * sums_stride + index % range.systems] += sum;
}

template <typename T>
__global__ void mean_errors_kernel(int64_t elements, SystemRange range, Segments segments, const uint8_t* observed,
                                   int64_t all_systems, const double* sums, int64_t sums_stride, T* energy) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t structure = index / range.systems;
  const int64_t system = range.first_system + index % range.systems;
  double sum = 0;
  for (int64_t segment = 0; segment < segments.count; ++segment) {
    sum += sums[(segment * segments.structures + structure) * sums_stride + index % range.systems];
  }
  const int64_t entities = count_observed(observed, range.node_offset[system], range.node_offset[system + 1]);
  const double compared = static_cast<double>((segments.frames - 1) * entities);
  energy[structure * all_systems + system] = entities == 0 ? T(0) : static_cast<T>(sum / compared);
}

}  // namespace

template <typename T>
void gather_starts(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                   int64_t first_pair, int64_t pairs, T* x, const Execution& execution) {
  const int64_t features = problem.library.features;
  launch_elements("gather_starts", gather_starts_kernel<T>, pairs * range.nodes * features, execution, range, segments,
                  features, first_pair, problem.trajectories.states, x);
}

template <typename T>
void add_errors(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                int64_t first_pair, int64_t pairs, int64_t step, const T* x, double* sums, int64_t sums_stride,
                const Execution& execution) {
  launch_elements("add_errors", add_errors_kernel<T>, pairs * range.systems, execution, range, segments, problem.error,
                  problem.observed, problem.library.features, first_pair, step, problem.trajectories.states, x, sums,
                  sums_stride);
}

template <typename T>
void mean_errors(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                 const double* sums, int64_t sums_stride, T* energy, const Execution& execution) {
  launch_elements("mean_errors", mean_errors_kernel<T>, segments.structures * range.systems, execution, range, segments,
                  problem.observed, problem.graph.systems, sums, sums_stride, energy);
}

#define NRI_INSTANTIATE(T)                                                                                             \
  template void gather_starts(const RolloutProblem<T>&, const SystemRange&, const Segments&, int64_t, int64_t, T*,     \
                              const Execution&);                                                                       \
  template void add_errors(const RolloutProblem<T>&, const SystemRange&, const Segments&, int64_t, int64_t, int64_t,   \
                           const T*, double*, int64_t, const Execution&);                                              \
  template void mean_errors(const RolloutProblem<T>&, const SystemRange&, const Segments&, const double*, int64_t, T*, \
                            const Execution&);
NRI_INSTANTIATE(float)
NRI_INSTANTIATE(double)
#undef NRI_INSTANTIATE

}  // namespace nri::cuda
