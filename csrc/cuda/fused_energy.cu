#include "cuda/chunks.h"
#include "cuda/fused_device.h"
#include "cuda/fused_energy.h"
#include "cuda/fused_product.h"
#include "cuda/fused_rows.h"
#include "cuda/fused_runs.h"
#include "cuda/fused_weights.h"
#include "cuda/transition_error.h"

namespace nri::cuda::fused {
namespace {

// Adds the messages of a pass to their receivers' sums, in the order of the edges. A warp takes a receiver.
template <Precision kPrecision, int kWidest>
__device__ void add_messages(const Block& block, const Pass& pass, int message) {
  constexpr int kColumns = columns_of_word(kPrecision);
  constexpr int kWords = kWidest / kColumns / kWarpLanes;  // of a lane
  const int lane = block.thread % kWarpLanes, nodes = block.nodes();
  for (int v = block.thread / kWarpLanes; v < nodes; v += kWarps) {
    float sum[kWords][kColumns];
    float* const sums = block.sums() + v * message;
    NRI_CUDA_UNROLL
    for (int w = 0; w < kWords; ++w) {
      NRI_CUDA_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        const int column = (lane + kWarpLanes * w) * kColumns + i;
        sum[w][i] = column < message ? sums[column] : 0.0f;
      }
    }
    for (int e = block.in_begin()[v]; e < block.in_begin()[v + 1]; ++e) {
      const int row = block.edge_row()[e] - pass.first;  // far beyond for kNoRow
      if (row < 0 || row >= pass.rows) continue;
      const uint32_t* const words = block.activations() + row * block.layout.stride + lane;
      NRI_CUDA_UNROLL
      for (int w = 0; w < kWords; ++w) {
        if ((lane + kWarpLanes * w) * kColumns >= message) continue;
        const uint32_t word = words[kWarpLanes * w];
        if (kPrecision == Precision::bf16) {
          sum[w][0] += low_bf16(word);
          sum[w][kColumns - 1] += high_bf16(word);
        } else {
          sum[w][0] += float_of(word);
        }
      }
    }
    NRI_CUDA_UNROLL
    for (int w = 0; w < kWords; ++w) {
      NRI_CUDA_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        const int column = (lane + kWarpLanes * w) * kColumns + i;
        if (column < message) sums[column] = sum[w][i];
      }
    }
  }
}

// Edges of one module: inputs, layers, messages into sums. Ends with a barrier.
template <Precision kPrecision, int kWidest>
__device__ void run_edges(const EnergyJob& job, const Block& block, const Pass& pass, WeightRing<kWidest>& ring) {
  const FusedModule& module = job.library.edge;
  const int features = job.library.features;
  gather<kPrecision>(block, pass, module.layer[0], [&](int row, int input) {
    const bool of_sender = input < features;
    const int node = (of_sender ? block.sender() : block.receiver())[pass.first + row];
    return block.states()[node * features + (of_sender ? input : input - features)];
  });
  for (int l = 0; l < module.layers; ++l) {
    LayerProduct<kPrecision, kWidest> product(block, pass, module.layer[l]);
    product.run(job.parameters + module.parameter_of(pass.module) + module.layer[l].bias, ring);
    store<kPrecision>(block, product, l + 1 == module.layers);
  }
  __syncthreads();
  add_messages<kPrecision, kWidest>(block, pass, job.library.message);
  __syncthreads();
}

// Sums and states are kept while their roll-out lasts.
__device__ inline void keep_sum(const EnergyJob& job, const Block& block, int step, int v, int input, float sum) {
  const int g = block.rollout()[v], local = v - block.node_begin()[g], message = job.library.message;
  if (step > block.length()[g]) return;
  job.kept.sums_of(block.first + g - job.first_rollout, step - 1, message)[local * message + input] = sum;
}

__device__ inline void keep_states(const EnergyJob& job, const Block& block, int step) {
  const int features = job.library.features, nodes = block.nodes();
  for (int i = block.thread; i < nodes * features; i += kThreads) {
    const int v = i / features, g = block.rollout()[v];
    if (step > block.length()[g]) continue;
    float* const kept = job.kept.states_of(block.first + g - job.first_rollout, step, features);
    kept[i - block.node_begin()[g] * features] = block.states()[i];
  }
}

// Nodes of one module: inputs (which leaves their sums at zero for the next step), layers, new states.
template <Precision kPrecision, int kWidest, bool kKeep>
__device__ void run_nodes(const EnergyJob& job, const Block& block, const Pass& pass, int step,
                          WeightRing<kWidest>& ring) {
  const FusedModule& module = job.library.node;
  const int features = job.library.features, message = job.library.message;
  gather<kPrecision>(block, pass, module.layer[0], [&](int row, int input) {
    const int node = block.node()[pass.first + row];
    if (input >= message) return block.states()[node * features + input - message];
    const float sum = block.sums()[node * message + input];
    block.sums()[node * message + input] = 0.0f;
    if (kKeep) keep_sum(job, block, step, node, input, sum);
    return sum;
  });
  for (int l = 0; l < module.layers; ++l) {
    LayerProduct<kPrecision, kWidest> product(block, pass, module.layer[l]);
    product.run(job.parameters + module.parameter_of(pass.module) + module.layer[l].bias, ring);
    if (l + 1 < module.layers) {
      store<kPrecision>(block, product, false);
      continue;
    }
    product.for_results([&](int row, int column, float first, float second) {
      if (row >= pass.rows) return;
      const int node = block.node()[pass.first + row];
      const float scale = block.scale()[block.rollout()[node]];
      float* const state = block.states() + node * features;
      if (column < features) state[column] += scale * first;
      if (column + 1 < features) state[column + 1] += scale * second;
    });
  }
}

// The error of a tile node's state after so many steps; zero where nothing is compared.
__device__ inline double error_of(const EnergyJob& job, const Block& block, int v, int step) {
  const int g = block.rollout()[v], local = v - block.node_begin()[g], features = job.library.features;
  if (step > block.length()[g]) return 0.0;
  if (job.observed != nullptr && job.observed[block.first_node()[g] + local] == 0) return 0.0;
  const int64_t start = block.place()[g] + local, now = start + static_cast<int64_t>(step) * block.entities(g);
  const TrajectoryView<float>& trajectories = job.trajectories;
  if (!is_present(trajectories.present, start) || !is_present(trajectories.present, now)) return 0.0;
  const float* const recorded = trajectories.states + now * features;
  return transition_error(job.error, weighted_square(job.error, block.states() + v * features, recorded, features));
}

template <Precision kPrecision, int kWidest, bool kKeep>
__global__ void __launch_bounds__(kThreads, blocks_of(kWidest))
    fused_energy_kernel(const __grid_constant__ EnergyJob job) {
  const Block block(job);
  TileSorter(job, block).run();
  WeightRing<kWidest> ring(job, block);
  const int passes = block.counts()[0], steps = block.counts()[1], nodes = block.nodes(), mine = block.thread;
  double sum = 0.0;  // of roll-out `mine`
  if (kKeep) keep_states(job, block, 0);
  for (int step = 1; step <= steps; ++step) {
    for (int p = 0; p < passes; ++p) {
      const Pass pass = block.passes()[p];
      if (pass.of_nodes) {
        run_nodes<kPrecision, kWidest, kKeep>(job, block, pass, step, ring);
      } else {
        run_edges<kPrecision>(job, block, pass, ring);
      }
    }
    __syncthreads();
    for (int v = block.thread; v < nodes; v += kThreads) block.errors()[v] = error_of(job, block, v, step);
    if (kKeep) keep_states(job, block, step);
    __syncthreads();
    if (mine >= block.rollouts) continue;
    for (int v = block.node_begin()[mine]; v < block.node_begin()[mine + 1]; ++v) sum += block.errors()[v];
  }
  wait_for_copies<0>();
  if (mine < block.rollouts) job.sums[block.first + mine] = sum;
}

using Kernel = void (*)(EnergyJob);

template <Precision kPrecision, bool kKeep = false>
Kernel kernel_for(int widest) {
  return widest <= 64    ? fused_energy_kernel<kPrecision, 64, kKeep>
         : widest <= 128 ? fused_energy_kernel<kPrecision, 128, kKeep>
                         : fused_energy_kernel<kPrecision, 256, kKeep>;
}

Kernel kernel_for(const FusedLibrary& library) {
  return library.precision == Precision::fp32   ? kernel_for<Precision::fp32>(library.widest)
         : library.precision == Precision::tf32 ? kernel_for<Precision::tf32>(library.widest)
                                                : kernel_for<Precision::bf16>(library.widest);
}

}  // namespace

void for_runs(const RolloutProblem<float>& problem, const Execution& execution,
              const std::function<void(int64_t, int64_t, bool)>& work) {
  FusedLibrary library;
  if (!execution.fused || !lay_out(problem.library, execution.precision, &library)) {
    return work(0, problem.graph.systems, false);
  }
  const int64_t bytes = shared_bytes(execution);
  for_runs(
      problem.graph, [&](int64_t nodes, int64_t edges) { return fits(library, nodes, edges, bytes); },
      [&](int64_t first, int64_t end, bool fused, const LargestSystem&) { work(first, end, fused); });
}

void run_and_keep(const EnergyJob& given, const Systems& systems, const Execution& execution) {
  EnergyJob job = given;
  job.shape = plan_tiles(job.library, systems, processors(execution), shared_bytes(execution));
  job.layout = shared_layout(job.library, job.shape);
  job.sorting = sorting_layout(job.library, job.shape);
  launch_shared("fused_energy", kernel_for<Precision::fp32, true>(job.library.widest),
                ceil_div(systems.rollouts, job.shape.rollouts), kThreads, job.layout.bytes, execution, job);
}

void rollout_energy(const RolloutProblem<float>& problem, int64_t first_system, int64_t end_system, int64_t structures,
                    const uint8_t* edge_types, float* energy, const Execution& execution) {
  const GraphView& graph = problem.graph;
  FusedLibrary library;
  lay_out(problem.library, execution.precision, &library);
  const Buffer<uint32_t> packed = packed_weights(library, problem.library.parameters, execution);
  const Buffer<int64_t> compared = compared_predictions(problem, execution);
  const Segments segments(problem.trajectories.steps, problem.rollout, structures);
  const auto bytes = [&](const SystemChunk& chunk) {
    return segments.pairs() * (chunk.end_system - chunk.first_system) * static_cast<int64_t>(sizeof(double));
  };
  for_system_chunks(first_system, end_system, 1, execution, bytes, [&](const SystemChunk& chunk) {
    const SystemRange range = ranges::view(graph, chunk.first_system, chunk.end_system);
    LargestSystem largest;
    for (int64_t b = chunk.first_system; b < chunk.end_system; ++b) largest = largest.with(graph, b);
    const Systems systems{largest.nodes, largest.edges, segments.pairs() * range.systems};
    const TileShape shape = plan_tiles(library, systems, processors(execution), shared_bytes(execution));
    const SharedLayout layout = shared_layout(library, shape);
    const Buffer<double> sums(systems.rollouts, execution);
    const EnergyJob job{library,
                        shape,
                        layout,
                        sorting_layout(library, shape),
                        range,
                        segments,
                        problem.error,
                        systems.rollouts,
                        graph.edges,
                        problem.trajectories,
                        edge_types,
                        problem.node_types,
                        problem.observed,
                        problem.library.parameters,
                        packed.data(),
                        sums.data()};
    launch_shared("fused_energy", kernel_for(library), ceil_div(systems.rollouts, shape.rollouts), kThreads,
                  layout.bytes, execution, job);
    mean_errors(problem, range, segments, compared.data(), sums.data(), range.systems, energy, execution);
  });
}

}  // namespace nri::cuda::fused
