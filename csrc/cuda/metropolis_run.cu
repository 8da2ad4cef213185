// Compiled without contraction of a * b + c, like the CPU's, so that the draws and decisions agree to the bit. The
// number of the sweep lies in device memory, and so does all else that changes from sweep to sweep: a sweep is always
// the same launches.
#include "common/metropolis_sweep.h"
#include "cuda/repeated.h"
#include "cuda/workspace.h"
#include "ops/metropolis_run.h"

namespace nri::cuda {
namespace {

constexpr int kThreadsPerChain = 32;
constexpr int kThreadsOfTotal = 128;

// What a sweep works on, [chains, ...].
template <typename T>
struct SweepView {
  int64_t* number;      // [1] of the sweep under way
  uint8_t* edge_types;  // proposed
  uint8_t* node_types;
  T* energy;  // of the proposals
  double* log_ratio;
  uint8_t* event;
};

struct Places {
  int64_t first_node, end_node, first_edge, end_edge;
};

__device__ inline Places places_of(const GraphView& graph, int64_t system) {
  const int64_t first_node = graph.node_offset[system], end_node = graph.node_offset[system + 1];
  return {first_node, end_node, graph.in_offset[first_node], graph.in_offset[end_node]};
}

// Of a block, side by side.
__device__ inline void copy_between(const uint8_t* from, int64_t first, int64_t end, uint8_t* to) {
  for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) to[i] = from[i];
}

__device__ inline void swap_between(uint8_t* a, uint8_t* b, int64_t first, int64_t end) {
  for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) {
    const uint8_t value = a[i];
    a[i] = b[i];
    b[i] = value;
  }
}

template <typename T>
__global__ void propose_sweep_kernel(int64_t chains_of_systems, MetropolisRun<T> run, SweepView<T> work) {
  const int64_t index = global_index();
  if (index >= chains_of_systems) return;
  const GraphView& graph = run.problem.graph;
  const int64_t chain = index / graph.systems;
  uint8_t* const nodes = run.node_types == nullptr ? nullptr : work.node_types + chain * graph.nodes;
  work.log_ratio[index] =
      propose_in_place(run, work.number[0], chain, index % graph.systems, work.edge_types + chain * graph.edges, nodes);
}

// One block a chain of a system: every thread comes to the same decision, then they copy side by side.
template <typename T>
__global__ void decide_sweep_kernel(MetropolisRun<T> run, SweepView<T> work) {
  const GraphView& graph = run.problem.graph;
  const int64_t index = blockIdx.x, chain = index / graph.systems, system = index % graph.systems;
  const T proposed = in_units(run, system, work.energy[index]);
  const Decision decision = decide_on(run, work.number[0], chain, system, proposed, work.log_ratio[index]);
  __syncthreads();  // all have read the energy
  if (threadIdx.x == 0) {
    count_decision(decision, run.counts + index * kCounts);
    work.event[index] = decision == Decision::accepted_worsening ? kWorsened : kNothing;
    if (is_accepted(decision)) run.energy[index] = proposed;
  }
  if (!is_accepted(decision)) return;
  const Places places = places_of(graph, system);
  const int64_t edges = chain * graph.edges, nodes = chain * graph.nodes;
  copy_between(work.edge_types + edges, places.first_edge, places.end_edge, run.edge_types + edges);
  if (run.node_types == nullptr) return;
  copy_between(work.node_types + nodes, places.first_node, places.end_node, run.node_types + nodes);
}

// One block a system.
template <typename T>
__global__ void keep_best_kernel(MetropolisRun<T> run) {
  const GraphView& graph = run.problem.graph;
  const int64_t system = blockIdx.x;
  int64_t best = -1;
  T lowest = run.best_energy[system];
  for (int64_t chain = 0; chain < run.chains; ++chain) {
    const T energy = run.energy[chain * graph.systems + system];
    if (!is_better(energy, lowest)) continue;
    best = chain;
    lowest = energy;
  }
  __syncthreads();  // all have read the energy
  if (best < 0) return;
  if (threadIdx.x == 0) run.best_energy[system] = lowest;
  const Places places = places_of(graph, system);
  copy_between(run.edge_types + best * graph.edges, places.first_edge, places.end_edge, run.best_edge_types);
  if (run.node_types == nullptr || run.best_node_types == nullptr) return;
  copy_between(run.node_types + best * graph.nodes, places.first_node, places.end_node, run.best_node_types);
}

// One block a pair of chains of a system.
template <typename T>
__global__ void exchange_kernel(MetropolisRun<T> run, SweepView<T> work) {
  const GraphView& graph = run.problem.graph;
  const int64_t system = blockIdx.x % graph.systems;
  const int64_t chain = first_pair(run, work.number[0]) + 2 * (blockIdx.x / graph.systems);
  if (chain + 1 >= run.chains) return;
  const bool swap = decide_swap(run, work.number[0], chain, system);
  __syncthreads();  // all have read the energies
  if (!swap) return;
  if (threadIdx.x == 0) {
    T* const energy = run.energy + chain * graph.systems + system;
    const T value = energy[0];
    energy[0] = energy[graph.systems];
    energy[graph.systems] = value;
    work.event[chain * graph.systems + system] |= kSwapped;
  }
  const Places places = places_of(graph, system);
  uint8_t* const edges = run.edge_types + chain * graph.edges;
  swap_between(edges, edges + graph.edges, places.first_edge, places.end_edge);
  if (run.node_types == nullptr) return;
  uint8_t* const nodes = run.node_types + chain * graph.nodes;
  swap_between(nodes, nodes + graph.nodes, places.first_node, places.end_node);
}

// How many of the events have happened, to thread 0.
__device__ inline int64_t total_of_block(const uint8_t* event, int64_t count, SweepEvent wanted) {
  __shared__ int64_t partial[kThreadsOfTotal];
  int64_t sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += (event[i] & wanted) != 0 ? 1 : 0;
  __syncthreads();  // the last total has been read
  partial[threadIdx.x] = sum;
  __syncthreads();
  int64_t total = 0;
  for (int i = 0; threadIdx.x == 0 && i < kThreadsOfTotal; ++i) total += partial[i];
  return total;
}

// One block: what the sweep came to, and on to the next.
template <typename T>
__global__ void finish_kernel(MetropolisRun<T> run, SweepView<T> work) {
  const int64_t systems = run.problem.graph.systems, all = run.chains * systems;
  if (run.acceptance != nullptr) {
    const int64_t worsened = total_of_block(work.event, all, kWorsened);
    if (threadIdx.x == 0) {
      run.acceptance[kEpochProposed] += static_cast<double>(all);
      run.acceptance[kEpochWorsening] += static_cast<double>(worsened);
      if (run.epoch_is_sweep) end_epoch(run.acceptance, run.ceiling);
    }
  }
  if (run.exchange && run.exchanged != nullptr) {
    for (int64_t chain = 0; chain + 1 < run.chains; ++chain) {
      const int64_t swapped = total_of_block(work.event + chain * systems, systems, kSwapped);
      if (threadIdx.x == 0) run.exchanged[chain] += swapped;
    }
  }
  if (threadIdx.x == 0) work.number[0] += 1;
}

__global__ void end_epoch_kernel(double* acceptance, const double* ceiling) { end_epoch(acceptance, ceiling[0]); }

template <typename T>
void evaluate(const MetropolisRun<T>& run, const SweepView<T>& work, const Execution& execution) {
  const GraphView& graph = run.problem.graph;
  RolloutProblem<T> problem = run.problem;
  problem.node_types = nullptr;
  if (run.node_types == nullptr) {
    rollout_energy(problem, run.chains, work.edge_types, work.energy, execution);
    return;
  }
  for (int64_t chain = 0; chain < run.chains; ++chain) {
    problem.node_types = work.node_types + chain * graph.nodes;
    rollout_energy(problem, 1, work.edge_types + chain * graph.edges, work.energy + chain * graph.systems, execution);
  }
}

template <typename T>
void run_all(const MetropolisRun<T>& run, const Execution& execution) {
  const GraphView& graph = run.problem.graph;
  const int64_t all = run.chains * graph.systems;
  if (all == 0) return;
  const Buffer<int64_t> number(1, execution);
  const Buffer<uint8_t> edge_types(run.chains * graph.edges, execution);
  const Buffer<uint8_t> node_types(run.node_types == nullptr ? 0 : run.chains * graph.nodes, execution);
  const Buffer<T> energy(all, execution);
  const Buffer<double> log_ratio(all, execution);
  const Buffer<uint8_t> event(all, execution);
  number.fill(0);
  const SweepView<T> work{number.data(), edge_types.data(), node_types.data(),
                          energy.data(), log_ratio.data(),  event.data()};
  repeat(run.sweeps, execution, [&](const Execution& own) {
    copy_values(work.edge_types, run.edge_types, edge_types.count(), own);
    copy_values(work.node_types, run.node_types, node_types.count(), own);
    launch_elements("propose", propose_sweep_kernel<T>, all, own, run, work);
    evaluate(run, work, own);
    launch("decide", decide_sweep_kernel<T>, all, kThreadsPerChain, own, run, work);
    if (run.best_energy != nullptr) {
      launch("keep_best", keep_best_kernel<T>, graph.systems, kThreadsPerChain, own, run);
    }
    if (run.exchange) {
      launch("exchange", exchange_kernel<T>, run.chains / 2 * graph.systems, kThreadsPerChain, own, run, work);
    }
    launch("finish", finish_kernel<T>, 1, kThreadsOfTotal, own, run, work);
  });
}

}  // namespace

void metropolis_run(const MetropolisRun<float>& run, const Execution& execution) { run_all(run, execution); }
void metropolis_run(const MetropolisRun<double>& run, const Execution& execution) { run_all(run, execution); }

void end_acceptance_epoch(double* acceptance, const double* ceiling, const Execution& execution) {
  launch("end_acceptance_epoch", end_epoch_kernel, 1, 1, execution, acceptance, ceiling);
}

}  // namespace nri::cuda
