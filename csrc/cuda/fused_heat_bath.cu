#include <map>
#include <tuple>

#include "cuda/chunks.h"
#include "cuda/fused_device.h"
#include "cuda/fused_heat_bath.h"
#include "cuda/fused_heat_bath_rows.h"
#include "cuda/fused_product.h"
#include "cuda/fused_weights.h"
#include "cuda/transition_error.h"

namespace nri::cuda::fused {
namespace {

template <int kWidest>
using HeatBathRing = WeightRing<kWidest, HeatBathJob, HeatBathBlock>;

template <Precision kPrecision, int kWidest>
using HeatBathProduct = LayerProduct<kPrecision, kWidest, HeatBathBlock>;

__device__ inline Pass pass_of(const RowRange& range) { return {0, static_cast<uint16_t>(range.rows), 0, 0}; }

// Where the messages of a pass come from and where their projections go. A sender that is absent sends nothing, and a
// receiver that is not compared needs nothing.
__device__ inline void list_messages(const HeatBathJob& job, const HeatBathBlock& block, int module,
                                     const RowRange& range, int first_transition) {
  const int i = block.thread;
  if (i >= range.rows) return;
  const HeatBathSchedule& schedule = *block.passes();
  const int count = schedule.messages(module), index = range.first + i;
  const int transition = index / count, message = schedule.begin[module] + index % count;
  const int edge = block.edge()[message], receiver = block.receiver()[edge];
  const int64_t place = block.place(job, receiver, first_transition + transition);
  const int64_t from = place + block.sender()[edge], to = place + block.local()[receiver];
  const bool sent =
      is_present(job.problem.trajectories.present, from) && is_compared(job, to, block.entities()[receiver]);
  block.sender_place()[i] = sent ? from : -1;
  block.receiver_place()[i] = sent ? to : -1;
  block.unit()[i] = static_cast<uint16_t>(transition * schedule.begin[job.library.edge.modules] + message);
}

// Messages of one edge module: states in, projections out. Begins after a barrier, and ends with one.
template <Precision kPrecision, int kWidest>
__device__ void run_messages(const HeatBathJob& job, const HeatBathBlock& block, int edge_module, const RowRange& range,
                             int first_transition, HeatBathRing<kWidest>& ring) {
  const FusedModule& module = job.library.edge;
  const int features = job.library.features;
  const Pass pass = pass_of(range);
  list_messages(job, block, edge_module, range, first_transition);
  __syncthreads();
  gather<kPrecision>(block, pass, module.layer[0], [&](int row, int input) {
    const bool of_sender = input < features;
    const int64_t place = (of_sender ? block.sender_place() : block.receiver_place())[row];
    if (place < 0) return 0.0f;
    return job.problem.trajectories.states[place * features + (of_sender ? input : input - features)];
  });
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

// What all rows of a receiver have in common: its own state through the node module's first layer, in plain fp32, and
// the means that its held edges send. Zero of who is not compared. A thread takes a column.
__device__ inline void add_bases(const HeatBathJob& job, const HeatBathBlock& block, int first_transition,
                                 int transitions) {
  const int width = block.layout.width, column = block.thread % width, groups = kThreads / width;
  const int group = block.thread / width, features = job.library.features, receivers = block.receivers();
  if (group >= groups) return;
  const HeatBathSchedule& schedule = *block.passes();
  const FusedLayer& layer = job.library.node.layer[0];
  const float* const parameters = job.problem.library.parameters + job.library.node.parameter_of(schedule.module);
  const int messages = schedule.begin[job.library.edge.modules];
  const bool padding = column >= layer.out;
  const float bias = padding ? 0.0f : parameters[layer.bias + column];
  float weight[kMostFeatures];
  NRI_CUDA_UNROLL
  for (int d = 0; d < kMostFeatures; ++d) {
    weight[d] = padding || d >= features
                    ? 0.0f
                    : parameters[layer.weight + static_cast<int64_t>(column) * layer.in + job.library.message + d];
  }
  for (int unit = group; unit < transitions * receivers; unit += groups) {
    const int transition = unit / receivers, j = unit % receivers;
    const int64_t place = block.place(job, j, first_transition + transition) + block.local()[j];
    float value = 0.0f;
    if (is_compared(job, place, block.entities()[j])) {
      const float* const state = job.problem.trajectories.states + place * features;
      value = bias;
      NRI_CUDA_UNROLL
      for (int d = 0; d < kMostFeatures; ++d) {
        if (d < features) value += weight[d] * state[d];
      }
      const int begin = block.in_begin()[j], end = block.in_begin()[j + 1];
      for (int e = begin; e < end && block.free()[j] < end - begin; ++e) {
        if (block.type()[e] != kHeldEdge) continue;
        const int64_t edge = block.first_edge()[j] + e - begin;
        for (int type = job.library.first_type; type < job.problem.library.edge_types; ++type) {
          const uint16_t projection = projection_of(job, block, e, type, transition);
          if (projection == kNoRow) continue;
          value += job.problem.held_weight[edge * job.problem.library.edge_types + type] *
                   block.projection(projection)[column];
        }
      }
    }
    block.projection(schedule.each * messages + unit)[column] = value;
  }
}

// The errors of a pass of rows, whose changes of state lie in the activations.
__device__ inline void write_errors(const HeatBathJob& job, const HeatBathBlock& block, const RowRange& range,
                                    int first_transition) {
  const int i = block.thread, features = job.library.features;
  if (i >= range.rows) return;
  const HeatBathRow row = row_of(block, range.first + i);
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

HeatBathSizes no_systems(const HeatBathProblem<float>& problem) {
  return {0,
          0,
          0,
          0,
          problem.transitions,
          problem.library.edge_types,
          problem.library.node_types,
          problem.rows == HeatBathRows::conditionals};
}

// The same, and one system more.
HeatBathSizes with(HeatBathSizes sizes, const HeatBathProblem<float>& problem, int64_t system) {
  const GraphView& graph = problem.graph;
  const int64_t* const row = problem.host_row_offset;
  sizes.nodes = std::max(sizes.nodes, ranges::nodes(graph, system, system + 1));
  sizes.edges = std::max(sizes.edges, ranges::edges(graph, system, system + 1));
  sizes.rows = std::max(sizes.rows, row[system + 1] - row[system]);
  sizes.systems += 1;
  return sizes;
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
  const int64_t systems = problem.graph.systems;
  if (systems == 0) return;
  FusedLibrary library;
  if (!lay_out(problem.library, execution.precision, &library)) return work(0, systems, false);
  const int64_t bytes = shared_bytes(execution);
  const HeatBathSizes none = no_systems(problem);
  std::map<std::tuple<int64_t, int64_t, int64_t>, bool> known;
  const auto is_fused = [&](const HeatBathSizes& sizes) {
    const auto size = std::make_tuple(sizes.nodes, sizes.edges, sizes.rows);
    const auto found = known.find(size);
    if (found != known.end()) return found->second;
    return known[size] = fits(library, sizes, bytes);
  };
  for (int64_t first = 0; first < systems;) {
    HeatBathSizes run = with(none, problem, first);
    const bool fused = is_fused(run);
    int64_t end = first + 1;
    for (; end < systems; ++end) {
      // What is as large as the largest of a run in each respect has to fit, too; then each of them does.
      const HeatBathSizes next = with(fused ? run : none, problem, end);
      if (is_fused(next) != fused) break;
      run = next;
    }
    work(first, end, fused);
    first = end;
  }
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
    HeatBathSizes sizes = no_systems(problem);
    for (int64_t b = chunk.first_system; b < chunk.end_system; ++b) sizes = with(sizes, problem, b);
    const HeatBathPlan plan = plan_heat_bath(library, sizes, processors(execution), shared_bytes(execution));
    score_systems(problem, library, packed, plan, chunk.first_system, chunk.end_system, scores, execution);
  });
}

}  // namespace nri::cuda::fused
