#include "cuda/fused_device.h"
#include "cuda/fused_gradient_pass.h"
#include "cuda/fused_heat_bath_gradient.h"
#include "cuda/fused_heat_bath_messages.h"
#include "cuda/fused_heat_bath_runs.h"
#include "cuda/transition_error.h"

namespace nri::cuda::fused {
namespace {

// The arguments of the kernel.
struct HeatBathGradientJob {
  HeatBathJob tile;  // its library's widest is that of the gradient, its layout that of the gradient's tiles
  HeatBathGradientLibrary library;
  HeatBathGradientLayout layout;
  const uint32_t* packed;
  const float* cotangent;  // [rows] of the range
  float* lanes;            // [tiles of the launch, all_sums]

  __device__ float* lane() const { return lanes + blockIdx.x * library.all_sums; }
};
static_assert(sizeof(HeatBathGradientJob) <= 4096, "arguments of a kernel");

struct HeatBathGradientBlock : HeatBathBlock {
  using Cursor = HeatBathGradientCursor;

  const HeatBathGradientLayout& back;

  __device__ explicit HeatBathGradientBlock(const HeatBathGradientJob& job)
      : HeatBathBlock(job.tile), back(job.layout) {}

  // Of a projection or a base, as projection() counts them.
  __device__ float* cotangent(int index) const {
    return reinterpret_cast<float*>(dynamic_shared() + back.cotangents) + index * layout.width;
  }
  __device__ int32_t* compared() const { return reinterpret_cast<int32_t*>(dynamic_shared() + back.compared); }
};

template <int kWidest>
using Ring = WeightRing<kWidest, HeatBathGradientJob, HeatBathGradientBlock>;

__device__ inline Slot slot_of(const HeatBathGradientJob& job, const HeatBathGradientBlock& block, bool of_nodes,
                               int l) {
  return {block.thread, block.activations(), job.tile.shape.rows, job.library.module_of(of_nodes), l};
}

// In how many of all transitions each receiver is compared. Ends with a barrier.
__device__ inline void count_compared(const HeatBathGradientJob& job, const HeatBathGradientBlock& block) {
  const HeatBathProblem<float>& problem = job.tile.problem;
  for (int j = block.thread; j < block.receivers(); j += kThreads) {
    int compared = 0;
    for (int64_t l = 0; l < problem.transitions; ++l) {
      const int64_t start = problem.start[block.first_start()[j] + l];
      const int64_t place = block.first_state()[j] + start * block.entities()[j] + block.local()[j];
      compared += is_compared(job.tile, place, block.entities()[j]);
    }
    block.compared()[j] = compared;
  }
  __syncthreads();
}

// Messages of one edge module: every layer's input stays. Begins after a barrier.
template <int kWidest>
__device__ void run_messages(const HeatBathGradientJob& job, const HeatBathGradientBlock& block, int edge_module,
                             const RowRange& range, const Pass& pass, int first_transition, Ring<kWidest>& ring) {
  const FusedModule& module = job.tile.library.edge;
  list_messages(job.tile, block, edge_module, range, first_transition);
  __syncthreads();
  gather<Precision::fp32>(slot_of(job, block, false, 0), pass, module.layer[0],
                          [&](int row, int input) { return message_input(job.tile, block, row, input); });
  for (int l = 0; l < module.layers; ++l) {
    run_layer<kWidest>(slot_of(job, block, false, l), slot_of(job, block, false, l + 1), pass, module.layer[l],
                       job.tile.problem.library.parameters + module.parameter_of(edge_module) + module.layer[l].bias,
                       ring);
  }
}

// Ends with a barrier.
template <int kWidest>
__device__ void project_messages(const HeatBathGradientJob& job, const HeatBathGradientBlock& block, int edge_module,
                                 const RowRange& range, int first_transition, Ring<kWidest>& ring) {
  const Pass pass = pass_of(range);
  run_messages<kWidest>(job, block, edge_module, range, pass, first_transition, ring);
  const Slot messages = slot_of(job, block, false, job.library.edge_layers);
  SlotProduct<kWidest> product(messages, pass, job.tile.projection);
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

// The changes of state of a pass of rows give way to their cotangents: zero of who is not compared, and in rows and
// columns that are padding.
__device__ inline void turn_errors(const HeatBathGradientJob& job, const HeatBathGradientBlock& block,
                                   const RowRange& range, int first_transition, const Slot& output, int outputs) {
  const int i = block.thread, features = job.tile.library.features;
  if (i >= round_up(range.rows, 16)) return;
  float* const change = reinterpret_cast<float*>(output.row(i));
  int wanted = 0;
  if (i < range.rows) {
    const HeatBathRow row = row_of(job.tile, block, range.first + i);
    const int j = row.receiver, entities = block.entities()[j];
    const int64_t place = block.place(job.tile, j, first_transition + row.transition) + block.local()[j];
    if (is_compared(job.tile, place, entities)) {
      const ErrorView<float>& error = job.tile.problem.error;
      const float* const state = job.tile.problem.trajectories.states + place * features;
      const float* const recorded = state + static_cast<int64_t>(entities) * features;
      const float scale = block.scale()[j];
      for (int d = 0; d < features; ++d) change[d] = state[d] + scale * change[d];
      const double e = weighted_square(error, change, recorded, features);
      const double factor = static_cast<double>(job.cotangent[block.first_row()[j] + row.assignment]) /
                            static_cast<double>(block.compared()[j]) * static_cast<double>(scale) *
                            transition_error_slope(error, e);
      for (int d = 0; d < features; ++d) {
        change[d] = static_cast<float>(factor * weighted_square_slope(error, change, recorded, features, d));
      }
      wanted = features;
    }
  }
  for (int column = wanted; column < outputs; ++column) change[column] = 0.0f;
}

// What the rows of a pass send back to the projections and the base that they are sums of. A thread takes a column, and
// of the edges into a receiver every so-manieth: a projection belongs to one of them, so no two threads meet.
__device__ inline void spread_rows(const HeatBathGradientJob& job, const HeatBathGradientBlock& block,
                                   const RowRange& range, const Slot& sums) {
  const int width = block.layout.width, column = block.thread % width;
  const int group = block.thread / width, groups = kThreads / width;
  if (group >= groups) return;
  const HeatBathSchedule& schedule = *block.passes();
  const int bases = schedule.each * schedule.begin[job.tile.library.edge.modules];
  const bool conditionals = job.tile.problem.rows == HeatBathRows::conditionals;
  for (int row = 0; row < range.rows; ++row) {
    const float value = float_of(sums.row(row)[column]);
    const int unit = block.unit()[row];
    if (group == 0) block.cotangent(bases + unit)[column] += value;
    const auto send = [&](uint16_t projection) {
      if (projection != kNoRow) block.cotangent(projection)[column] += value;
    };
    const uint16_t* const term = block.term() + row * job.tile.shape.terms;
    if (!conditionals) {
      for (int t = group; t < block.count()[row]; t += groups) send(term[t]);
      continue;
    }
    const int transition = unit / block.receivers(), receiver = unit % block.receivers();
    const int begin = block.in_begin()[receiver], degree = block.in_begin()[receiver + 1] - begin;
    for (int t = group; t < degree; t += groups) {
      send(t == block.leading()[row] ? term[0]
                                     : projection_of(job.tile, block, begin + t, block.type()[begin + t], transition));
    }
  }
}

// Rows that products read beside the pass's.
__device__ inline void clear_padding(const Slot& input, const RowRange& range, int words) {
  const int padding = (round_up(range.rows, 16) - range.rows) * words;
  for (int i = input.thread; i < padding; i += kThreads) input.row(range.rows + i / words)[i % words] = 0u;
}

// Rows: forwards, and back to the sums of projections. Begins and ends with a barrier.
template <int kWidest>
__device__ void run_rows(const HeatBathGradientJob& job, const HeatBathGradientBlock& block, const RowRange& range,
                         int first_transition, Ring<kWidest>& ring) {
  const FusedModule& module = job.tile.library.node;
  const GradientModule& back = job.library.node;
  const int last = module.layers - 1, of_type = block.passes()->module;
  const Pass pass = pass_of(range);
  const auto bias_of = [&](int l) {
    return job.tile.problem.library.parameters + module.parameter_of(of_type) + module.layer[l].bias;
  };
  list_terms(job.tile, block, range);
  clear_padding(slot_of(job, block, true, 1), range, module.layer[1].words());
  __syncthreads();
  HeatBathRowSums<Precision::fp32, kWidest>(job.tile, block).run(range);
  for (int l = 1; l < last; ++l) {
    run_layer<kWidest>(slot_of(job, block, true, l), slot_of(job, block, true, l + 1), pass, module.layer[l],
                       bias_of(l), ring);
  }
  {
    const Slot input = slot_of(job, block, true, last), output = slot_of(job, block, true, module.layers);
    SlotProduct<kWidest> product(input, pass, module.layer[last]);
    product.run(bias_of(last), ring);
    product.for_results([&](int row, int column, float first, float second) {
      float* const change = reinterpret_cast<float*>(output.row(row)) + column;
      if (column < job.tile.library.features) change[0] = first;
      if (column + 1 < job.tile.library.features) change[1] = second;
    });
  }
  __syncthreads();
  turn_errors(job, block, range, first_transition, slot_of(job, block, true, module.layers),
              module.layer[last].outputs);
  for (int l = last; l > 0; --l) {
    const Slot cotangents = slot_of(job, block, true, l + 1), input = slot_of(job, block, true, l);
    const FusedLayer& layer = module.layer[l];
    add_weight_gradient<kWidest>(cotangents, input, pass, layer, lane_layer(job.lane(), back, of_type, layer, l));
    run_layer_back<kWidest>(cotangents, input, pass, back.product[back.forwards + last - l], ring);
  }
  __syncthreads();
  spread_rows(job, block, range, slot_of(job, block, true, 1));
  __syncthreads();
}

// What held edges send is part of a receiver's base, so their projections get their share of its cotangent.
__device__ inline void spread_to_held(const HeatBathGradientJob& job, const HeatBathGradientBlock& block,
                                      int transitions) {
  const int width = block.layout.width, column = block.thread % width;
  const int group = block.thread / width, groups = kThreads / width, receivers = block.receivers();
  if (group >= groups) return;
  const HeatBathProblem<float>& problem = job.tile.problem;
  const int64_t types = problem.library.edge_types;
  const int bases = block.passes()->each * block.passes()->begin[job.tile.library.edge.modules];
  for (int unit = 0; unit < transitions * receivers; ++unit) {
    const int j = unit % receivers, begin = block.in_begin()[j], end = block.in_begin()[j + 1];
    if (block.free()[j] == end - begin) continue;
    const float cotangent = block.cotangent(bases + unit)[column];
    for (int e = begin + group; e < end; e += groups) {
      if (block.type()[e] != kHeldEdge) continue;
      for (int type = job.tile.library.first_type; type < types; ++type) {
        const uint16_t projection = projection_of(job.tile, block, e, type, unit / receivers);
        if (projection == kNoRow) continue;
        block.cotangent(projection)[column] +=
            problem.held_weight[(block.first_edge()[j] + e - begin) * types + type] * cotangent;
      }
    }
  }
}

// The bias of the node module's first layer and its weights for states, in plain fp32. A thread takes a column, and
// every so-manieth feature.
__device__ inline void add_own(const HeatBathGradientJob& job, const HeatBathGradientBlock& block, int first_transition,
                               int transitions) {
  const int width = block.layout.width, column = block.thread % width;
  const int group = block.thread / width, groups = kThreads / width;
  const FusedLayer& layer = job.tile.library.node.layer[0];
  if (group >= groups || column >= layer.out) return;
  const HeatBathSchedule& schedule = *block.passes();
  const int features = job.tile.library.features, receivers = block.receivers();
  const int bases = schedule.each * schedule.begin[job.tile.library.edge.modules];
  const LaneLayer to = lane_layer(job.lane(), job.library.node, schedule.module, layer, 0);
  for (int d = group; d <= features; d += groups) {
    float sum = 0.0f;
    for (int unit = 0; unit < transitions * receivers; ++unit) {
      const int j = unit % receivers;
      const int64_t place = block.place(job.tile, j, first_transition + unit / receivers) + block.local()[j];
      if (!is_compared(job.tile, place, block.entities()[j])) continue;
      const float cotangent = block.cotangent(bases + unit)[column];
      sum += d == features ? cotangent : cotangent * job.tile.problem.trajectories.states[place * features + d];
    }
    (d == features ? to.bias[column] : to.weight[column * to.stride + job.tile.library.message + d]) += sum;
  }
}

// Messages of one edge module: forwards once more, and back from the cotangents of their projections. Begins after a
// barrier.
template <int kWidest>
__device__ void run_messages_back(const HeatBathGradientJob& job, const HeatBathGradientBlock& block, int edge_module,
                                  const RowRange& range, int first_transition, Ring<kWidest>& ring) {
  const FusedModule& module = job.tile.library.edge;
  const GradientModule &back = job.library.edge, &node = job.library.node;
  const int layers = module.layers, of_type = block.passes()->module;
  const FusedLayer& projection = job.tile.projection;
  const Pass pass = pass_of(range);
  run_messages<kWidest>(job, block, edge_module, range, pass, first_transition, ring);
  const Slot sent = slot_of(job, block, false, layers);
  const Slot cotangents = slot_of(job, block, false, job.library.cotangent_slot());
  for (int i = block.thread; i < round_up(range.rows, 16) * projection.outputs; i += kThreads) {
    const int row = i / projection.outputs, column = i % projection.outputs;
    const bool is_sent = row < range.rows && block.sender_place()[row] >= 0;
    cotangents.row(row)[column] = bits_of(is_sent ? block.cotangent(block.unit()[row])[column] : 0.0f);
  }
  LaneLayer to = lane_layer(job.lane(), node, of_type, job.tile.library.node.layer[0], 0);
  to.columns = round_up(job.tile.library.message, 8);
  to.bias = nullptr;  // the receivers' own
  add_weight_gradient<kWidest>(cotangents, sent, pass, projection, to);
  run_layer_back<kWidest>(cotangents, sent, pass, node.product[job.library.projection_back()], ring);
  for (int l = layers - 1; l >= 0; --l) {
    const Slot output = slot_of(job, block, false, l + 1), input = slot_of(job, block, false, l);
    const FusedLayer& layer = module.layer[l];
    add_weight_gradient<kWidest>(output, input, pass, layer, lane_layer(job.lane(), back, edge_module, layer, l));
    if (l > 0) run_layer_back<kWidest>(output, input, pass, back.product[back.forwards + layers - 1 - l], ring);
  }
  __syncthreads();
}

template <int kWidest>
__global__ void __launch_bounds__(kThreads, blocks_of(kWidest))
    fused_heat_bath_gradient_kernel(const __grid_constant__ HeatBathGradientJob job) {
  const HeatBathGradientBlock block(job);
  TileReader(job.tile, block).run();
  count_compared(job, block);
  Ring<kWidest> ring(job, block);
  const HeatBathSchedule& schedule = *block.passes();
  const int modules = job.tile.library.edge.modules;
  for (int round = 0; round < schedule.rounds(); ++round) {
    const int first = round * schedule.each, transitions = schedule.transitions_of(round);
    const int units = schedule.each * (schedule.begin[modules] + block.receivers());
    for (int i = block.thread; i < units * block.layout.width; i += kThreads) block.cotangent(0)[i] = 0.0f;
    const auto for_messages = [&](const auto& run) {
      for (int m = 0; m < modules; ++m) {
        const int rows = transitions * schedule.messages(m);
        for (int p = 0; p < count_passes(rows, schedule.pass_rows); ++p) run(m, nth_range(p, rows, schedule.pass_rows));
      }
    };
    for_messages([&](int m, const RowRange& range) { project_messages<kWidest>(job, block, m, range, first, ring); });
    add_bases(job.tile, block, first, transitions);
    __syncthreads();
    const int rows = transitions * schedule.rows;
    for (int p = 0; p < count_passes(rows, schedule.pass_rows); ++p) {
      run_rows<kWidest>(job, block, nth_range(p, rows, schedule.pass_rows), first, ring);
    }
    spread_to_held(job, block, transitions);
    add_own(job, block, first, transitions);
    __syncthreads();
    for_messages([&](int m, const RowRange& range) { run_messages_back<kWidest>(job, block, m, range, first, ring); });
  }
  wait_for_copies<0>();
}

using Kernel = void (*)(HeatBathGradientJob);

Kernel kernel_for(int widest) {
  return widest <= 64    ? fused_heat_bath_gradient_kernel<64>
         : widest <= 128 ? fused_heat_bath_gradient_kernel<128>
                         : fused_heat_bath_gradient_kernel<256>;
}

// Of each receiver the rows whose cotangent is not zero, in order, and their number.
//   assignment: [rows of the nodes]   count: [nodes]
__global__ void list_active_rows(int64_t nodes, int64_t first_node, const int64_t* row_offset, const float* cotangent,
                                 int32_t* assignment, int32_t* count) {
  const int64_t index = global_index();
  if (index >= nodes) return;
  const int64_t first_row = row_offset[first_node];
  const int64_t begin = row_offset[first_node + index], end = row_offset[first_node + index + 1];
  int32_t* const list = assignment + begin - first_row;
  int32_t found = 0;
  for (int64_t row = begin; row < end; ++row) {
    if (cotangent[row] != 0.0f) list[found++] = static_cast<int32_t>(row - begin);
  }
  count[index] = found;
}

}  // namespace

HeatBathGradient::HeatBathGradient(const HeatBathProblem<float>& problem, const float* cotangent,
                                   const Execution& execution)
    : problem_(problem),
      cotangent_(cotangent),
      execution_(execution),
      usable_(execution.fused && lay_out(problem.library, Precision::fp32, &library_) && library_.node.layers > 1) {
  if (!usable_) return;
  gradient_ = heat_bath_gradient_library(library_);
  library_.widest = gradient_.widest;
  usable_ = gradient_.widest <= kWidest && shared_bytes(execution) >= gradient_shared_bytes(gradient_.widest);
}

void HeatBathGradient::for_runs(const std::function<void(int64_t, int64_t, bool)>& work) const {
  if (!usable_) return work(0, problem_.graph.systems, false);
  const HeatBathCosts costs = gradient_costs(library_, gradient_);
  const int64_t bytes = gradient_shared_bytes(gradient_.widest);
  fused::for_runs(problem_, [&](const HeatBathSizes& sizes) { return fits(costs, sizes, bytes); }, work);
}

void HeatBathGradient::run(int64_t first_system, int64_t end_system) {
  if (problem_.host_row_offset[first_system] == problem_.host_row_offset[end_system]) return;
  if (!lanes_.is_there()) {
    lanes_ = GradientLanes(library_, gradient_, lanes_of(gradient_), problem_.library.parameters, execution_);
  }
  const HeatBathPlan plan =
      plan_tiles(gradient_costs(library_, gradient_), sizes_of(problem_, first_system, end_system), lanes_.count(),
                 gradient_shared_bytes(gradient_.widest));
  for (int64_t first = 0; first < plan.cut.tiles(); first += lanes_.count()) {  // so each launch begins with lane 0
    run_tiles(plan, first_system, first, std::min(first + lanes_.count(), plan.cut.tiles()));
  }
}

void HeatBathGradient::run_tiles(const HeatBathPlan& plan, int64_t first_system, int64_t first_tile,
                                 int64_t end_tile) const {
  const GraphView& graph = problem_.graph;
  const int64_t first = first_system + tile_of(first_tile, plan.cut).first_system;
  const int64_t end = first_system + tile_of(end_tile - 1, plan.cut).end_system;
  const int64_t first_row = problem_.host_row_offset[first], rows = problem_.host_row_offset[end] - first_row;
  if (rows == 0) return;
  const int64_t first_node = graph.host_node_offset[first], nodes = graph.host_node_offset[end] - first_node;
  const Buffer<int32_t> assignment(rows, execution_), count(nodes, execution_);
  launch_elements("list_active_rows", list_active_rows, nodes, execution_, first_node, problem_.row_offset, cotangent_,
                  assignment.data(), count.data());
  const HeatBathGradientLayout layout = heat_bath_gradient_layout(library_, gradient_, plan.shape);
  HeatBathJob tile{library_,     projection_layer(library_),
                   plan.shape,   layout.tile,
                   plan.cut,     problem_,
                   first_system, first_row,
                   rows,         nullptr,
                   nullptr};
  tile.active = {assignment.data(), count.data(), first_node};
  tile.first_tile = first_tile;
  const HeatBathGradientJob job{tile, gradient_, layout, lanes_.packed(), cotangent_ + first_row, lanes_.sums()};
  launch_shared("fused_heat_bath_gradient", kernel_for(gradient_.widest), end_tile - first_tile, kThreads, layout.bytes,
                execution_, job);
}

void HeatBathGradient::add_to(double* total) const {
  lanes_.add_to(total, problem_.library.parameter_count(), execution_);
}

}  // namespace nri::cuda::fused
