#include "cuda/rollout_states.h"
#include "cuda/transition_error.h"

namespace nri::cuda {
namespace {

template <typename T>
__global__ void count_compared_kernel(int64_t systems, TrajectoryView<T> trajectories, const int64_t* node_offset,
                                      const uint8_t* observed, int64_t rollout, int64_t* compared) {
  const int64_t system = global_index();
  if (system >= systems) return;
  compared[system] = count_compared(trajectories, observed, rollout, node_offset[system], node_offset[system + 1]);
}

template <typename T>
__global__ void gather_starts_kernel(int64_t elements, SystemRange range, Segments segments, int64_t features,
                                     int64_t first_pair, const uint8_t* present, const T* states, T* x) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t row = index / features;
  const int64_t node = row % range.nodes;
  const int64_t frame = (first_pair + row / range.nodes) / segments.structures * segments.length;
  const int64_t place = flag_place(range, segments.frames, range.system_of_node[node], frame, range.first_node + node);
  x[index] = is_present(present, place) ? states[place * features + index % features] : T(0);
}

template <typename T>
__global__ void add_errors_kernel(int64_t elements, SystemRange range, Segments segments, ErrorView<T> error,
                                  TrajectoryView<T> trajectories, const uint8_t* observed, int64_t features,
                                  int64_t first_pair, int64_t step, const T* x, double* sums, int64_t sums_stride) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t replica = index / range.systems;
  const int64_t system = range.first_system + index % range.systems;
  const int64_t pair = first_pair + replica;
  const int64_t start = pair / segments.structures * segments.length;
  const int64_t frame = start + step + 1;
  double sum = 0;
  for (int64_t node = range.node_offset[system]; node < range.node_offset[system + 1]; ++node) {
    if (!is_compared(range, trajectories, observed, system, start, frame, node)) continue;
    const T* predicted = x + (replica * range.nodes + node - range.first_node) * features;
    const T* recorded = trajectories.states + state_place(range, segments.frames, features, system, frame, node);
    sum += transition_error(error, weighted_square(error, predicted, recorded, features));
  }
  sums[pair * sums_stride + index % range.systems] += sum;
}

template <typename T>
__global__ void mean_errors_kernel(int64_t elements, SystemRange range, Segments segments, const int64_t* compared,
                                   int64_t all_systems, const double* sums, int64_t sums_stride, T* energy) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t structure = index / range.systems;
  const int64_t system = range.first_system + index % range.systems;
  double sum = 0;
  for (int64_t segment = 0; segment < segments.count; ++segment) {
    sum += sums[(segment * segments.structures + structure) * sums_stride + index % range.systems];
  }
  const int64_t count = compared[system];
  energy[structure * all_systems + system] = count == 0 ? T(0) : static_cast<T>(sum / static_cast<double>(count));
}

}  // namespace

template <typename T>
Buffer<int64_t> compared_predictions(const RolloutProblem<T>& problem, const Execution& execution) {
  const GraphView& graph = problem.graph;
  Buffer<int64_t> compared(graph.systems, execution);
  launch_elements("count_compared", count_compared_kernel<T>, graph.systems, execution, problem.trajectories,
                  graph.node_offset, problem.observed, problem.rollout, compared.data());
  return compared;
}

template <typename T>
void gather_starts(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                   int64_t first_pair, int64_t pairs, T* x, const Execution& execution) {
  const int64_t features = problem.library.features;
  launch_elements("gather_starts", gather_starts_kernel<T>, pairs * range.nodes * features, execution, range, segments,
                  features, first_pair, problem.trajectories.present, problem.trajectories.states, x);
}

template <typename T>
void add_errors(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                int64_t first_pair, int64_t pairs, int64_t step, const T* x, double* sums, int64_t sums_stride,
                const Execution& execution) {
  launch_elements("add_errors", add_errors_kernel<T>, pairs * range.systems, execution, range, segments, problem.error,
                  problem.trajectories, problem.observed, problem.library.features, first_pair, step, x, sums,
                  sums_stride);
}

template <typename T>
void mean_errors(const RolloutProblem<T>& problem, const SystemRange& range, const Segments& segments,
                 const int64_t* compared, const double* sums, int64_t sums_stride, T* energy,
                 const Execution& execution) {
  launch_elements("mean_errors", mean_errors_kernel<T>, segments.structures * range.systems, execution, range, segments,
                  compared, problem.graph.systems, sums, sums_stride, energy);
}

#define NRI_INSTANTIATE(T)                                                                                           \
  template void gather_starts(const RolloutProblem<T>&, const SystemRange&, const Segments&, int64_t, int64_t, T*,   \
                              const Execution&);                                                                     \
  template void add_errors(const RolloutProblem<T>&, const SystemRange&, const Segments&, int64_t, int64_t, int64_t, \
                           const T*, double*, int64_t, const Execution&);                                            \
  template void mean_errors(const RolloutProblem<T>&, const SystemRange&, const Segments&, const int64_t*,           \
                            const double*, int64_t, T*, const Execution&);                                           \
  template Buffer<int64_t> compared_predictions(const RolloutProblem<T>&, const Execution&);
NRI_INSTANTIATE(float)
NRI_INSTANTIATE(double)
#undef NRI_INSTANTIATE

}  // namespace nri::cuda
