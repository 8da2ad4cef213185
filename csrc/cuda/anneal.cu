// Compiled without contraction of a * b + c, like the CPU's, so that the draws and decisions agree to the bit.
#include "common/metropolis.h"
#include "common/philox.h"
#include "common/random_proposal.h"
#include "cuda/workspace.h"
#include "ops/anneal.h"

namespace nri::cuda {
namespace {

constexpr double kLargest = 1.7976931348623157e308;

__device__ inline bool is_finite(double value) { return fabs(value) <= kLargest; }

__global__ void propose_kernel(int64_t systems, GraphView graph, DrawView draws, const int64_t* reverse,
                               int64_t edge_types_count, int64_t node_types_count, uint8_t* edge_types,
                               uint8_t* node_types) {
  const int64_t system = global_index();
  if (system >= systems) return;
  change_at_random(graph, draws, reverse, edge_types_count, node_types_count, system, edge_types, node_types);
}

// One block a system: every thread comes to the same decision, then they copy side by side.
template <typename T>
__global__ void decide_kernel(GraphView graph, DrawView draws, const T* temperature, const double* log_ratio,
                              const T* proposed_energy, const uint8_t* proposed_edge_types,
                              const uint8_t* proposed_node_types, T* energy, uint8_t* edge_types, uint8_t* node_types,
                              int64_t* counts) {
  const int64_t system = blockIdx.x;
  const Philox4 bits = draw(draws.seed, Stream::accept, draws.system_ids[system], draws.step, 0);
  const T proposed = proposed_energy[system];
  const Decision decision =
      decide(static_cast<double>(energy[system]), static_cast<double>(proposed), static_cast<double>(temperature[0]),
             uniform(bits.x, bits.y), log_ratio == nullptr ? 0.0 : log_ratio[system]);
  const bool accepted = decision == Decision::accepted || decision == Decision::accepted_worsening;
  __syncthreads();  // all have read the energy
  if (threadIdx.x == 0) {
    int64_t* row = counts + system * kCounts;
    row[kProposed] += 1;
    if (accepted) row[kAccepted] += 1;
    if (decision == Decision::accepted_worsening) row[kAcceptedWorsening] += 1;
    if (decision == Decision::not_finite) row[kNotFinite] += 1;
    if (accepted) energy[system] = proposed;
  }
  if (!accepted) return;
  const int64_t first_node = graph.node_offset[system];
  const int64_t end_node = graph.node_offset[system + 1];
  const int64_t end_edge = graph.in_offset[end_node];
  for (int64_t edge = graph.in_offset[first_node] + threadIdx.x; edge < end_edge; edge += blockDim.x) {
    edge_types[edge] = proposed_edge_types[edge];
  }
  if (node_types == nullptr || proposed_node_types == nullptr) return;
  for (int64_t node = first_node + threadIdx.x; node < end_node; node += blockDim.x) {
    node_types[node] = proposed_node_types[node];
  }
}

// The first of the lowest finite scores, or -1.
template <typename T>
__device__ inline int64_t lowest(const T* scores, int64_t count) {
  int64_t best = -1;
  for (int64_t a = 0; a < count; ++a) {
    const double score = static_cast<double>(scores[a]);
    if (is_finite(score) && (best < 0 || score < static_cast<double>(scores[best]))) best = a;
  }
  return best;
}

__device__ inline double boltzmann(double lowest_score, double score, double temperature) {
  return is_finite(score) ? portable_exp((lowest_score - score) / temperature) : 0.0;
}

// A row drawn by the inverse of the cumulative sum, or -1 when no score is finite.
template <typename T>
__device__ inline int64_t draw_row(const T* scores, int64_t count, double temperature, double u) {
  const int64_t best = lowest(scores, count);
  if (best < 0 || !(temperature > 0)) return best;
  const double lowest_score = static_cast<double>(scores[best]);
  double total = 0;
  for (int64_t a = 0; a < count; ++a) total += boltzmann(lowest_score, static_cast<double>(scores[a]), temperature);
  double cumulative = 0;
  int64_t last = best;
  for (int64_t a = 0; a < count; ++a) {
    const double weight = boltzmann(lowest_score, static_cast<double>(scores[a]), temperature);
    cumulative += weight;
    if (cumulative > u * total) return a;
    if (weight > 0) last = a;
  }
  return last;
}

template <typename T>
__global__ void sample_kernel(int64_t receivers, GraphView graph, DrawView draws, int64_t edge_types_count,
                              int64_t node_types_count, const int64_t* row_offset, const int64_t* stride,
                              const T* scores, const double* temperature, uint8_t* edge_types, uint8_t* node_types) {
  const int64_t node = global_index();
  if (node >= receivers) return;
  const int64_t rows = row_offset[node + 1] - row_offset[node];
  if (rows <= 1) return;
  const int64_t system = find_range(graph.node_offset, graph.systems, node);
  const Philox4 bits = draw(draws.seed, Stream::heat_bath, draws.system_ids[system], draws.step,
                            static_cast<uint32_t>(node - graph.node_offset[system]));
  const double u = uniform(bits.x, bits.y);
  const int64_t drawn = draw_row(scores + row_offset[node], rows, temperature[0], u);
  if (drawn < 0) return;
  const int64_t block = rows / node_types_count;
  if (node_types_count > 1) node_types[node] = static_cast<uint8_t>(drawn / block);
  for (int64_t edge = graph.in_offset[node]; edge < graph.in_offset[node + 1]; ++edge) {
    if (stride[edge] > 0) edge_types[edge] = static_cast<uint8_t>(drawn % block / stride[edge] % edge_types_count);
  }
}

template <typename T>
__global__ void responsibilities_kernel(int64_t receivers, const int64_t* row_offset, int64_t group, const T* scores,
                                        const double* temperature, T* weights) {
  constexpr double kSmallest = 0x1p-24;
  const int64_t node = global_index();
  if (node >= receivers) return;
  const int64_t end = row_offset[node + 1];
  const int64_t count = group > 0 ? group : end - row_offset[node];
  if (count == 0) return;
  for (int64_t first = row_offset[node]; first < end; first += count) {
    const int64_t best = lowest(scores + first, count);
    for (int64_t a = 0; a < count; ++a) weights[first + a] = T(0);
    if (best < 0) continue;
    if (!(temperature[0] > 0)) {
      weights[first + best] = T(1);
      continue;
    }
    const double lowest_score = static_cast<double>(scores[first + best]);
    double total = 0;
    for (int64_t a = 0; a < count; ++a) {
      const double weight = boltzmann(lowest_score, static_cast<double>(scores[first + a]), temperature[0]);
      if (weight >= kSmallest) total += weight;
    }
    for (int64_t a = 0; a < count; ++a) {
      const double weight = boltzmann(lowest_score, static_cast<double>(scores[first + a]), temperature[0]);
      if (weight >= kSmallest) weights[first + a] = static_cast<T>(weight / total);
    }
  }
}

}  // namespace

void metropolis_propose(const GraphView& graph, const DrawView& draws, const int64_t* reverse, int64_t edge_types_count,
                        int64_t node_types_count, const uint8_t* edge_types, const uint8_t* node_types,
                        uint8_t* proposed_edge_types, uint8_t* proposed_node_types, const Execution& execution) {
  copy_values(proposed_edge_types, edge_types, graph.edges, execution);
  copy_values(proposed_node_types, node_types, graph.nodes, execution);
  launch_elements("metropolis_propose", propose_kernel, graph.systems, execution, graph, draws, reverse,
                  edge_types_count, node_types_count, proposed_edge_types, proposed_node_types);
}

#define NRI_DEFINE(T)                                                                                                  \
  void metropolis_decide(const GraphView& graph, const DrawView& draws, const T* temperature, const double* log_ratio, \
                         const T* proposed_energy, const uint8_t* proposed_edge_types,                                 \
                         const uint8_t* proposed_node_types, T* energy, uint8_t* edge_types, uint8_t* node_types,      \
                         int64_t* counts, const Execution& execution) {                                                \
    launch("metropolis_decide", decide_kernel<T>, graph.systems, 32, execution, graph, draws, temperature, log_ratio,  \
           proposed_energy, proposed_edge_types, proposed_node_types, energy, edge_types, node_types, counts);         \
  }                                                                                                                    \
  void heat_bath_sample(const GraphView& graph, const DrawView& draws, int64_t edge_types_count,                       \
                        int64_t node_types_count, const int64_t* row_offset, const int64_t* stride, const T* scores,   \
                        const double* temperature, uint8_t* edge_types, uint8_t* node_types,                           \
                        const Execution& execution) {                                                                  \
    launch_elements("heat_bath_sample", sample_kernel<T>, graph.nodes, execution, graph, draws, edge_types_count,      \
                    node_types_count, row_offset, stride, scores, temperature, edge_types, node_types);                \
  }                                                                                                                    \
  void responsibilities(int64_t receivers, const int64_t* row_offset, int64_t group, const T* scores,                  \
                        const double* temperature, T* weights, const Execution& execution) {                           \
    launch_elements("responsibilities", responsibilities_kernel<T>, receivers, execution, row_offset, group, scores,   \
                    temperature, weights);                                                                             \
  }
NRI_DEFINE(float)
NRI_DEFINE(double)
#undef NRI_DEFINE

}  // namespace nri::cuda
