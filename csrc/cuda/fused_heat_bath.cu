#include "cuda/chunks.h"
#include "cuda/fused_device.h"
#include "cuda/fused_heat_bath.h"
#include "cuda/fused_heat_bath_messages.h"
#include "cuda/fused_heat_bath_runs.h"
#include "cuda/fused_product.h"
#include "cuda/fused_weights.h"
#include "cuda/transition_error.h"

namespace nri::cuda::fused {
namespace {

template <int kWidest>
using HeatBathRing = WeightRing<kWidest, HeatBathJob, HeatBathBlock>;

template <Precision kPrecision, int kWidest>
using HeatBathProduct = LayerProduct<kPrecision, kWidest, HeatBathBlock>;

// Messages of one edge module: states in, projections out. Begins after a barrier, and ends with one.
template <Precision kPrecision, int kWidest>
__device__ void run_messages(const HeatBathJob& job, const HeatBathBlock& block, int edge_module, const RowRange& range,
                             int first_transition, HeatBathRing<kWidest>& ring) {
  const FusedModule& module = job.library.edge;
  const Pass pass = pass_of(range);
  list_messages(job, block, edge_module, range, first_transition);
  __syncthreads();
  gather<kPrecision>(block, pass, module.layer[0],
                     [&](int row, int input) { return message_input(job, block, row, input); });
  for (int l = 0; l < module.layers; ++l) {
    HeatBathProduct<kPrecision, kWidest> product(block, pass, module.layer[l]);
    product.run(job.problem.library.parameters + module.parameter_of(edge_module) + module.layer[l].bias, ring);
    store<kPrecision>(block, product, false);
  }
  HeatBathProduct<kPrecision, kWidest> product(block, pass, job.projection);
  product.run(ring);
  product.for_results([&](int row, int column, float first, float second) {
    if (row >= range.rows) return;
    const bool sent = block.sender_place()[row] >= 0;
    float* const to = block.projection(block.unit()[row]) + column;
    to[0] = sent ? first : 0.0f;
    to[1] = sent ? second : 0.0f;
  });
  __syncthreads();
}

// The errors of a pass of rows, whose changes of state lie in the activations.
__device__ inline void write_errors(const HeatBathJob& job, const HeatBathBlock& block, const RowRange& range,
                                    int first_transition) {
  const int i = block.thread, features = job.library.features;
  if (i >= range.rows) return;
  const HeatBathRow row = row_of(job, block, range.first + i);
  const int j = row.receiver, entities = block.entities()[j];
  const int64_t place = block.place(job, j, first_transition + row.transition) + block.local()[j];
  if (!is_compared(job, place, entities)) return;
  const float* const state = job.problem.trajectories.states + place * features;
  const float scale = block.scale()[j];
  float* const predicted = reinterpret_cast<float*>(block.activations() + i * block.layout.stride);
  for (int d = 0; d < features; ++d) predicted[d] = state[d] + scale * predicted[d];
  const double e = weighted_square(job.problem.error, predicted, state + entities * features, features);
  const int64_t table_row = block.first_row()[j] + row.assignment;
  job.errors[block.transition()[first_transition + row.transition] * job.rows + table_row] =
      transition_error(job.problem.error, e);
}

// Rows: sums of projections in, errors out. Begins after a barrier; activations are read to its end.
template <Precision kPrecision, int kWidest>
__device__ void run_rows(const HeatBathJob& job, const HeatBathBlock& block, const RowRange& range,
                         int first_transition, HeatBathRing<kWidest>& ring) {
  const FusedModule& module = job.library.node;
  const Pass pass = pass_of(range);
  list_terms(job, block, range);
  __syncthreads();
  HeatBathRowSums<kPrecision, kWidest>(job, block).run(range);
  for (int l = 1; l < module.layers; ++l) {
    HeatBathProduct<kPrecision, kWidest> product(block, pass, module.layer[l]);
    product.run(job.problem.library.parameters + module.parameter_of(block.passes()->module) + module.layer[l].bias,
                ring);
    if (l + 1 < module.layers) {
      store<kPrecision>(block, product, false);
      continue;
    }
    product.for_results([&](int row, int column, float first, float second) {
      float* const change = reinterpret_cast<float*>(block.activations() + row * block.layout.stride) + column;
      if (column < job.library.features) change[0] = first;
      if (column + 1 < job.library.features) change[1] = second;
    });
  }
  __syncthreads();
  write_errors(job, block, range, first_transition);
}

template <Precision kPrecision, int kWidest>
__global__ void __launch_bounds__(kThreads, blocks_of(kWidest))
    fused_heat_bath_kernel(const __grid_constant__ HeatBathJob job) {
  const HeatBathBlock block(job);
  TileReader(job, block).run();
  HeatBathRing<kWidest> ring(job, block);
  const HeatBathSchedule& schedule = *block.passes();
  for (int round = 0; round < schedule.rounds(); ++round) {
    const int first = round * schedule.each, transitions = schedule.transitions_of(round);
    for (int m = 0; m < job.library.edge.modules; ++m) {
      const int rows = transitions * schedule.messages(m);
      for (int p = 0; p < count_passes(rows, schedule.pass_rows); ++p) {
        run_messages<kPrecision>(job, block, m, nth_range(p, rows, schedule.pass_rows), first, ring);
      }
    }
    add_bases(job, block, first, transitions);
    __syncthreads();
    const int rows = transitions * schedule.rows;
    for (int p = 0; p < count_passes(rows, schedule.pass_rows); ++p) {
      run_rows<kPrecision>(job, block, nth_range(p, rows, schedule.pass_rows), first, ring);
    }
    __syncthreads();
  }
  wait_for_copies<0>();
}

// score = mean of a row's errors over the transitions in which its receiver is compared, in their order.
__global__ void mean_row_errors(int64_t rows, int64_t first_row, HeatBathProblem<float> problem, const double* errors,
                                float* scores) {
  const int64_t row = global_index();
  if (row >= rows) return;
  const uint8_t* const present = problem.trajectories.present;
  int64_t node = 0, entities = 0, first = 0;
  const int64_t* start = nullptr;
  if (present != nullptr) {
    node = find_range(problem.row_offset, problem.graph.nodes, first_row + row);
    const int64_t system = find_range(problem.graph.node_offset, problem.graph.systems, node);
    const int64_t begin = problem.graph.node_offset[system];
    entities = problem.graph.node_offset[system + 1] - begin;
    first = problem.trajectories.steps * begin + node - begin;
    start = problem.start + system * problem.transitions;
  }
  double sum = 0.0;
  int64_t compared = 0;
  for (int64_t l = 0; l < problem.transitions; ++l) {
    if (present != nullptr) {
      const int64_t place = first + start[l] * entities;
      if (present[place] == 0 || present[place + entities] == 0) continue;
    }
    sum += errors[l * rows + row];
    ++compared;
  }
  scores[first_row + row] = compared == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(compared));
}

using Kernel = void (*)(HeatBathJob);

template <Precision kPrecision>
Kernel kernel_for(int widest) {
  return widest <= 64    ? fused_heat_bath_kernel<kPrecision, 64>
         : widest <= 128 ? fused_heat_bath_kernel<kPrecision, 128>
                         : fused_heat_bath_kernel<kPrecision, 256>;
}

Kernel kernel_for(const FusedLibrary& library) {
  return library.precision == Precision::fp32   ? kernel_for<Precision::fp32>(library.widest)
         : library.precision == Precision::tf32 ? kernel_for<Precision::tf32>(library.widest)
                                                : kernel_for<Precision::bf16>(library.widest);
}

// Scores of a chunk of systems, cut as planned.
void score_systems(const HeatBathProblem<float>& problem, const FusedLibrary& library, const Buffer<uint32_t>& packed,
                   const HeatBathPlan& plan, int64_t first_system, int64_t end_system, float* scores,
                   const Execution& execution) {
  const int64_t first_row = problem.host_row_offset[first_system];
  const int64_t rows = problem.host_row_offset[end_system] - first_row;
  const HeatBathLayout layout = heat_bath_layout(library, plan.shape);
  const Buffer<double> errors(rows * problem.transitions, execution);
  const HeatBathJob job{library,      projection_layer(library),
                        plan.shape,   layout,
                        plan.cut,     problem,
                        first_system, first_row,
                        rows,         packed.data(),
                        errors.data()};
  launch_shared("fused_heat_bath", kernel_for(library), plan.cut.tiles(), kThreads, layout.bytes, execution, job);
  launch_elements("mean_row_errors", mean_row_errors, rows, execution, first_row, problem, errors.data(), scores);
}

}  // namespace

void for_runs(const HeatBathProblem<float>& problem, const Execution& execution,
              const std::function<void(int64_t, int64_t, bool)>& work) {
  FusedLibrary library;
  if (!execution.fused || !lay_out(problem.library, execution.precision, &library)) {
    return work(0, problem.graph.systems, false);
  }
  const HeatBathCosts costs = scoring_costs(library);
  const int64_t bytes = shared_bytes(execution);
  for_runs(problem, [&](const HeatBathSizes& sizes) { return fits(costs, sizes, bytes); }, work);
}

void heat_bath_scores(const HeatBathProblem<float>& problem, int64_t first_system, int64_t end_system, float* scores,
                      const Execution& execution) {
  const int64_t* const row = problem.host_row_offset;
  FusedLibrary library;
  lay_out(problem.library, execution.precision, &library);
  const Buffer<uint32_t> packed = packed_weights(library, problem.library.parameters, execution);
  const auto bytes = [&](const SystemChunk& chunk) {
    return (row[chunk.end_system] - row[chunk.first_system]) * problem.transitions *
           static_cast<int64_t>(sizeof(double));
  };
  for_system_chunks(first_system, end_system, 1, execution, bytes, [&](const SystemChunk& chunk) {
    if (row[chunk.first_system] == row[chunk.end_system]) return;
    const HeatBathSizes sizes = sizes_of(problem, chunk.first_system, chunk.end_system);
    const HeatBathPlan plan = plan_heat_bath(library, sizes, processors(execution), shared_bytes(execution));
    score_systems(problem, library, packed, plan, chunk.first_system, chunk.end_system, scores, execution);
  });
}

}  // namespace nri::cuda::fused
