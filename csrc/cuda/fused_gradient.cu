#include "cuda/fused_device.h"
#include "cuda/fused_energy.h"
#include "cuda/fused_gradient.h"
#include "cuda/fused_gradient_pass.h"
#include "cuda/fused_gradient_tile.h"
#include "cuda/fused_runs.h"
#include "cuda/fused_weights.h"
#include "cuda/transition_error.h"

namespace nri::cuda::fused {
namespace {

// The arguments of the kernel that walks back.
struct GradientJob {
  EnergyJob tile;  // its library's widest is that of the gradient, its layout that of the way back
  GradientLibrary library;
  GradientLayout layout;
  const uint32_t* packed;
  const int64_t* compared;
  float* lanes;                     // [lane_count, all_sums]
  uint32_t first_lane, lane_count;  // of the launch's first tile; in all
  float* state_gradient;            // or null
  float* starts;  // [rollouts of the launch, nodes, features] cotangents of the states they start from, or null
};
static_assert(sizeof(GradientJob) <= 4096, "arguments of a kernel");

struct GradientBlock : Block {
  using Cursor = GradientCursor;

  const GradientLayout& back;

  __device__ explicit GradientBlock(const GradientJob& job) : Block(job.tile), back(job.layout) {}

  __device__ double* factor() const { return array<double>(back.factor); }
  __device__ float* cotangents() const { return array<float>(back.cotangents); }
  __device__ float* inputs() const { return array<float>(back.inputs); }
  __device__ uint16_t* out_begin() const { return array<uint16_t>(back.out_begin); }
  __device__ uint16_t* out_row() const { return array<uint16_t>(back.out_row); }

 private:
  template <typename T>
  __device__ static T* array(int offset) {
    return reinterpret_cast<T*>(dynamic_shared() + offset);
  }
};

__device__ inline Slot slot_of(const GradientJob& job, const GradientBlock& block, const Pass& pass, int l) {
  const TileShape& shape = job.tile.shape;
  return {block.thread, block.activations(), pass.of_nodes != 0 ? shape.node_rows : shape.rows,
          job.library.module_of(pass.of_nodes != 0), l};
}

template <int kWidest>
using Ring = WeightRing<kWidest, GradientJob, GradientBlock>;
// The order of passes, who sends where, and by how much a prediction's error counts. Ends with a barrier.
__device__ inline void prepare(const GradientJob& job, const GradientBlock& block) {
  const int nodes = block.nodes(), features = job.tile.library.features;
  for (int i = block.thread; i < nodes * features; i += kThreads) block.cotangents()[i] = 0.0f;
  for (int g = block.thread; g < block.rollouts; g += kThreads) {
    const Rollout rollout = rollout_of(block.first + g, job.tile.range.systems, 1);
    const int64_t system = job.tile.range.first_system + rollout.system, compared = job.compared[system];
    block.factor()[g] =
        compared == 0 ? 0.0 : static_cast<double>(job.tile.cotangent[system]) / static_cast<double>(compared);
  }
  const auto for_outgoing = [&](int v, const auto& use) {
    const int g = block.rollout()[v];
    for (int e = block.edge_begin()[g]; e < block.edge_begin()[g + 1]; ++e) {
      const uint16_t row = block.edge_row()[e];
      if (row != kNoRow && block.sender()[row] == v) use(row);
    }
  };
  for (int v = block.thread; v < nodes; v += kThreads) {
    int edges = 0;
    for_outgoing(v, [&](uint16_t) { ++edges; });
    block.out_begin()[v] = static_cast<uint16_t>(edges);
  }
  __syncthreads();
  if (block.thread == 0) {
    put_nodes_first(block.passes(), block.counts()[0]);
    int edges = 0;
    for (int v = 0; v < nodes; ++v) {
      const int more = block.out_begin()[v];
      block.out_begin()[v] = static_cast<uint16_t>(edges);
      edges += more;
    }
    block.out_begin()[nodes] = static_cast<uint16_t>(edges);
  }
  __syncthreads();
  for (int v = block.thread; v < nodes; v += kThreads) {
    int next = block.out_begin()[v];
    for_outgoing(v, [&](uint16_t row) { block.out_row()[next++] = row; });
  }
  __syncthreads();
}

// A step that a roll-out does not have is a step of zero cotangents, from states that it has.
__device__ inline int kept_step(const GradientBlock& block, int g, int step) {
  return step < block.length()[g] ? step : 0;
}

// The states before step `step`, and the slopes of the errors after it.
__device__ inline void begin_step(const GradientJob& job, const GradientBlock& block, int step) {
  const EnergyJob& tile = job.tile;
  const int nodes = block.nodes(), features = tile.library.features;
  const int64_t shift = block.first - tile.first_rollout;
  for (int i = block.thread; i < nodes * features; i += kThreads) {
    const int g = block.rollout()[i / features];
    const float* const kept = tile.kept.states_of(shift + g, kept_step(block, g, step), features);
    block.states()[i] = kept[i - block.node_begin()[g] * features];
  }
  for (int v = block.thread; v < nodes; v += kThreads) {
    const int g = block.rollout()[v], local = v - block.node_begin()[g];
    if (step >= block.length()[g]) continue;
    if (tile.observed != nullptr && tile.observed[block.first_node()[g] + local] == 0) continue;
    const int64_t start = block.place()[g] + local, now = start + static_cast<int64_t>(step + 1) * block.entities(g);
    if (!is_present(tile.trajectories.present, start) || !is_present(tile.trajectories.present, now)) continue;
    const float* const predicted = tile.kept.states_of(shift + g, step + 1, features) + local * features;
    const float* const recorded = tile.trajectories.states + now * features;
    const double e = weighted_square(tile.error, predicted, recorded, features);
    const double scale = block.factor()[g] * transition_error_slope(tile.error, e);
    for (int d = 0; d < features; ++d) {
      const float slope =
          static_cast<float>(scale * weighted_square_slope(tile.error, predicted, recorded, features, d));
      block.cotangents()[v * features + d] += slope;
      // of one roll-out only: a state is predicted once
      if (job.state_gradient != nullptr) job.state_gradient[now * features + d] = -slope;
    }
  }
}

template <int kWidest>
__device__ void run_forwards(const GradientJob& job, const GradientBlock& block, const Pass& pass, int layers,
                             Ring<kWidest>& ring) {
  const FusedModule& module = ChunkCursor::module_of(job.tile.library, pass);
  for (int l = 0; l < layers; ++l) {
    run_layer<kWidest>(slot_of(job, block, pass, l), slot_of(job, block, pass, l + 1), pass, module.layer[l],
                       job.tile.parameters + module.parameter_of(pass.module) + module.layer[l].bias, ring);
  }
}

// From the cotangents of the last layer's output to those of the first one's input, one by one: use(row of the pass,
// input, value). A layer's input gives way to its cotangent.
template <int kWidest, typename Use>
__device__ void run_back(const GradientJob& job, const GradientBlock& block, const Pass& pass, Ring<kWidest>& ring,
                         const Use& use) {
  const FusedModule& module = ChunkCursor::module_of(job.tile.library, pass);
  const GradientModule& back = job.library.module_of(pass.of_nodes != 0);
  float* const lane = job.lanes + (job.first_lane + blockIdx.x) % job.lane_count * job.library.all_sums;
  for (int p = back.forwards; p < back.products; ++p) {
    const int l = back.source[p];
    const Slot cotangents = slot_of(job, block, pass, l + 1), input = slot_of(job, block, pass, l);
    if (back.first_input[p] == 0) {
      const FusedLayer& layer = module.layer[l];
      add_weight_gradient<kWidest>(cotangents, input, pass, layer, lane_layer(lane, back, pass.module, layer, l));
    }
    if (l > 0) {
      run_layer_back<kWidest>(cotangents, input, pass, back.product[p], ring);
      continue;
    }
    SlotProduct<kWidest> product(cotangents, pass, back.product[p]);
    product.run(ring);
    product.for_results([&](int row, int column, float first, float second) {
      if (row >= pass.rows) return;
      const int place = back.first_input[p] + column, wanted = back.product[p].out;
      if (column < wanted) use(row, place, first);
      if (column + 1 < wanted) use(row, place + 1, second);
    });
  }
}

// Nodes of one module: the cotangents of their next states become those of their states and of their receivers' sums.
template <int kWidest>
__device__ void run_nodes_back(const GradientJob& job, const GradientBlock& block, const Pass& pass, int step,
                               Ring<kWidest>& ring) {
  const FusedModule& module = job.tile.library.node;
  const int features = job.tile.library.features, message = job.tile.library.message;
  const auto node_of = [&](int row) { return static_cast<int>(block.node()[pass.first + row]); };
  gather<Precision::fp32>(slot_of(job, block, pass, 0), pass, module.layer[0], [&](int row, int input) {
    const int node = node_of(row), g = block.rollout()[node];
    if (input >= message) return block.states()[node * features + input - message];
    const float* const kept =
        job.tile.kept.sums_of(block.first + g - job.tile.first_rollout, kept_step(block, g, step), message);
    return kept[(node - block.node_begin()[g]) * message + input];
  });
  const Slot output = slot_of(job, block, pass, module.layers);
  const int outputs = module.layer[module.layers - 1].outputs;
  for (int i = block.thread; i < round_up(pass.rows, 16) * outputs; i += kThreads) {
    const int row = i / outputs, column = i % outputs;
    float value = 0.0f;
    if (row < pass.rows && column < features) {
      const int node = node_of(row);
      value = block.scale()[block.rollout()[node]] * block.cotangents()[node * features + column];
    }
    output.words[row * output.layout.stride + column] = bits_of(value);
  }
  run_forwards<kWidest>(job, block, pass, module.layers - 1, ring);
  run_back<kWidest>(job, block, pass, ring, [&](int row, int input, float value) {
    const int node = node_of(row);
    if (input < message) {
      block.sums()[node * message + input] = value;
    } else {
      block.cotangents()[node * features + input - message] += value;
    }
  });
}

// Edges of one module: the cotangents of their receivers' sums become those of the modules' inputs.
template <int kWidest>
__device__ void run_edges_back(const GradientJob& job, const GradientBlock& block, const Pass& pass,
                               Ring<kWidest>& ring) {
  const FusedModule& module = job.tile.library.edge;
  const int features = job.tile.library.features, message = job.tile.library.message;
  gather<Precision::fp32>(slot_of(job, block, pass, 0), pass, module.layer[0], [&](int row, int input) {
    const bool of_sender = input < features;
    const int node = (of_sender ? block.sender() : block.receiver())[pass.first + row];
    return block.states()[node * features + (of_sender ? input : input - features)];
  });
  const int last = module.layers - 1;
  run_forwards<kWidest>(job, block, pass, last, ring);
  {
    const Slot input = slot_of(job, block, pass, last), output = slot_of(job, block, pass, module.layers);
    SlotProduct<kWidest> product(input, pass, module.layer[last]);
    product.run(job.tile.parameters + module.parameter_of(pass.module) + module.layer[last].bias, ring);
    product.for_results([&](int row, int column, float first, float second) {
      const bool is_row = row < pass.rows;
      const float* const sums = block.sums() + (is_row ? block.receiver()[pass.first + row] : 0) * message;
      *output.pair(row, column) =
          make_uint2(bits_of(is_row && column < message && first > 0.0f ? sums[column] : 0.0f),
                     bits_of(is_row && column + 1 < message && second > 0.0f ? sums[column + 1] : 0.0f));
    });
  }
  run_back<kWidest>(job, block, pass, ring, [&](int row, int input, float value) {
    block.inputs()[(pass.first + row) * 2 * features + input] = value;
  });
}

// A state's cotangent gathers what reached it as a receiver, then as a sender, in the graph's order.
__device__ inline void add_inputs(const GradientJob& job, const GradientBlock& block) {
  const int features = job.tile.library.features, nodes = block.nodes();
  for (int i = block.thread; i < nodes * features; i += kThreads) {
    const int v = i / features, d = i % features;
    float sum = 0.0f;
    for (int e = block.in_begin()[v]; e < block.in_begin()[v + 1]; ++e) {
      const uint16_t row = block.edge_row()[e];
      if (row != kNoRow) sum += block.inputs()[row * 2 * features + features + d];
    }
    for (int e = block.out_begin()[v]; e < block.out_begin()[v + 1]; ++e) {
      sum += block.inputs()[block.out_row()[e] * 2 * features + d];
    }
    block.cotangents()[i] += sum;
  }
}

template <int kWidest>
__global__ void __launch_bounds__(kThreads, blocks_of(kWidest))
    fused_gradient_kernel(const __grid_constant__ GradientJob job) {
  const GradientBlock block(job);
  TileSorter(job.tile, block).run();
  prepare(job, block);
  Ring<kWidest> ring(job, block);
  for (int step = block.counts()[1] - 1; step >= 0; --step) {
    begin_step(job, block, step);
    __syncthreads();
    for (int p = 0; p < block.counts()[0]; ++p) {
      const Pass pass = block.passes()[p];
      if (pass.of_nodes) {
        run_nodes_back<kWidest>(job, block, pass, step, ring);
      } else {
        run_edges_back<kWidest>(job, block, pass, ring);
      }
    }
    __syncthreads();
    add_inputs(job, block);
    __syncthreads();
  }
  wait_for_copies<0>();
  if (job.starts == nullptr) return;
  const int features = job.tile.library.features;
  for (int i = block.thread; i < block.nodes() * features; i += kThreads) {
    const int g = block.rollout()[i / features];
    float* const starts = job.starts + (block.first + g - job.tile.first_rollout) * job.tile.kept.nodes * features;
    starts[i - block.node_begin()[g] * features] = block.cotangents()[i];
  }
}

using Kernel = void (*)(GradientJob);

Kernel kernel_for(int widest) {
  return widest <= 64    ? fused_gradient_kernel<64>
         : widest <= 128 ? fused_gradient_kernel<128>
                         : fused_gradient_kernel<256>;
}

// The recorded states that roll-outs start from get what is left of the cotangents.   starts [rollouts, nodes, D]
__global__ void add_starts(int64_t elements, SystemRange range, Segments segments, int64_t first_rollout, int64_t nodes,
                           int64_t features, const float* starts, float* state_gradient) {
  const int64_t index = global_index();
  if (index >= elements) return;
  const int64_t local = index / features % nodes;
  const Rollout rollout = rollout_of(first_rollout + index / features / nodes, range.systems, 1);
  const int64_t system = range.first_system + rollout.system, begin = range.node_offset[system];
  if (local >= range.node_offset[system + 1] - begin) return;
  state_gradient[state_place(range, segments.frames, features, system, rollout.segment * segments.length,
                             begin + local) +
                 index % features] += starts[index];
}

}  // namespace

// What the tiles of a run of systems have in common.
struct RolloutGradient::Run {
  SystemRange range;
  Systems systems;
  TileShape shape;

  int64_t tiles() const { return ceil_div(systems.rollouts, shape.rollouts); }
};

RolloutGradient::RolloutGradient(const RolloutProblem<float>& problem, const uint8_t* edge_types,
                                 const float* cotangent, const int64_t* compared, float* state_gradient,
                                 const Execution& execution)
    : problem_(problem),
      segments_(problem.trajectories.steps, problem.rollout, 1),
      edge_types_(edge_types),
      cotangent_(cotangent),
      compared_(compared),
      state_gradient_(state_gradient),
      execution_(execution),
      usable_(execution.fused && lay_out(problem.library, Precision::fp32, &library_)) {
  if (!usable_) return;
  gradient_ = gradient_library(library_);
  widened_ = library_;
  widened_.widest = gradient_.widest;
  usable_ = gradient_.widest <= kWidest && shared_bytes(execution) >= gradient_shared_bytes(gradient_.widest);
}

void RolloutGradient::for_runs(const std::function<void(int64_t, int64_t, bool)>& work) const {
  const GraphView& graph = problem_.graph;
  if (!usable_) {
    if (graph.systems > 0) work(0, graph.systems, false);
    return;
  }
  const int64_t bytes = shared_bytes(execution_);
  fused::for_runs(
      graph,
      [&](int64_t nodes, int64_t edges) {
        return fits(library_, nodes, edges, bytes) && gradient_tile(widened_, gradient_, nodes, edges, 1).rollouts == 1;
      },
      [&](int64_t first, int64_t end, bool fused, const LargestSystem&) { work(first, end, fused); });
}

void RolloutGradient::run(int64_t first_system, int64_t end_system, double* sums) {
  const GraphView& graph = problem_.graph;
  if (!lanes_.is_there()) {
    packed_ = packed_weights(library_, problem_.library.parameters, execution_);
    lanes_ = GradientLanes(library_, gradient_, lanes_of(gradient_), problem_.library.parameters, execution_);
  }
  LargestSystem largest;
  for (int64_t b = first_system; b < end_system; ++b) largest = largest.with(graph, b);
  Run run{ranges::view(graph, first_system, end_system), {largest.nodes, largest.edges, 0}, {}};
  run.systems.rollouts = segments_.count * run.range.systems;
  run.shape = plan_gradient_tiles(widened_, gradient_, run.systems);
  const int64_t features = problem_.library.features, message = problem_.library.message();
  const int64_t of_step = largest.nodes * (features + message) * static_cast<int64_t>(sizeof(float));
  const int64_t of_tile = std::max<int64_t>((segments_.length + 2) * of_step * run.shape.rollouts, 1);
  // A launch has a tile for each lane at most: tiles of one lane follow one another.
  int64_t together = std::clamp<int64_t>(workspace_budget(execution_) / of_tile, 1, lanes_.count());
  for (int64_t first = 0; first < run.tiles();) {
    const int64_t end = std::min(first + together, run.tiles());
    try {
      run_tiles(run, first, end, sums);
      first = end;
    } catch (const OutOfMemory&) {
      if (together == 1) throw;
      together = (together + 1) / 2;
    }
  }
}

void RolloutGradient::run_tiles(const Run& run, int64_t first_tile, int64_t end_tile, double* sums) const {
  const int64_t features = problem_.library.features, message = problem_.library.message();
  const int64_t first = first_tile * run.shape.rollouts;
  const int64_t end = std::min(end_tile * run.shape.rollouts, run.systems.rollouts), rollouts = end - first;
  const int64_t nodes = run.systems.nodes, steps = segments_.length;
  const Buffer<float> states(rollouts * (steps + 1) * nodes * features, execution_);
  const Buffer<float> receiver_sums(rollouts * steps * nodes * message, execution_);
  const Buffer<float> starts(state_gradient_ == nullptr ? 0 : rollouts * nodes * features, execution_);
  EnergyJob tile{library_,
                 {},
                 {},
                 {},
                 run.range,
                 segments_,
                 problem_.error,
                 end,
                 problem_.graph.edges,
                 problem_.trajectories,
                 edge_types_,
                 problem_.node_types,
                 problem_.observed,
                 problem_.library.parameters,
                 packed_.data(),
                 sums,
                 first,
                 cotangent_,
                 {states.data(), receiver_sums.data(), steps, nodes}};
  run_and_keep(tile, {nodes, run.systems.edges, rollouts}, execution_);
  tile.library = widened_;
  tile.shape = run.shape;
  const GradientLayout layout = gradient_layout(widened_, gradient_, run.shape);
  tile.layout = layout.tile;
  tile.sorting = sorting_layout(widened_, run.shape);
  const int64_t lanes = lanes_.count();
  const GradientJob job{tile,
                        gradient_,
                        layout,
                        lanes_.packed(),
                        compared_,
                        lanes_.sums(),
                        static_cast<uint32_t>(first_tile % lanes),
                        static_cast<uint32_t>(lanes),
                        state_gradient_,
                        starts.data()};
  launch_shared("fused_gradient", kernel_for(gradient_.widest), end_tile - first_tile, kThreads, layout.bytes,
                execution_, job);
  if (state_gradient_ == nullptr) return;
  launch_elements("add_starts", add_starts, rollouts * nodes * features, execution_, run.range, segments_, first, nodes,
                  features, starts.data(), state_gradient_);
}

void RolloutGradient::add_to(double* total) const {
  lanes_.add_to(total, problem_.library.parameter_count(), execution_);
}

}  // namespace nri::cuda::fused
