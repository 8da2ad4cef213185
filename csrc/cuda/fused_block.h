// What a block of the fused kernels has in shared memory, and how it comes there: sorting a tile's rows by module.
#pragma once

#include "cuda/fused_tile.h"
#include "cuda/mma.h"
#include "cuda/rollout_states.h"

namespace nri::cuda::fused {

// What a roll-out leaves for the way back: [rollouts of the launch, steps + 1, nodes, features] states, the recorded
// ones first, and [rollouts of the launch, steps, nodes, message] receivers' sums; steps and nodes of the longest and
// the largest roll-out.
struct KeptSteps {
  float* states;
  float* sums;
  int64_t steps, nodes;

  // The first of a roll-out's states before step `step`, and of its receivers' sums in that step.
  __device__ float* states_of(int64_t rollout, int64_t step, int features) const {
    return states + (rollout * (steps + 1) + step) * nodes * features;
  }
  __device__ float* sums_of(int64_t rollout, int64_t step, int message) const {
    return sums + (rollout * steps + step) * nodes * message;
  }
};

// The arguments of a kernel.
struct EnergyJob {
  FusedLibrary library;
  TileShape shape;
  SharedLayout layout;
  SortingLayout sorting;
  SystemRange range;
  Segments segments;
  ErrorView<float> error;
  int64_t rollouts;   // pairs * systems of the range, or the end of those that are run
  int64_t all_edges;  // of the mega-graph
  TrajectoryView<float> trajectories;
  const uint8_t* edge_types;  // [structures, all_edges]
  const uint8_t* node_types;  // [V], or null
  const uint8_t* observed;    // [V], or null
  const float* parameters;
  const uint32_t* packed;
  double* sums;                      // [rollouts] of errors
  int64_t first_rollout = 0;         // of those that are run
  const float* cotangent = nullptr;  // [B], or null: systems whose cotangent is zero take no part
  KeptSteps kept{};
};

// The arrays of SharedLayout. Addresses are worked out where they are used: all of them together would take the
// registers that the products' sums need.
struct Block {
  using Cursor = ChunkCursor;

  const SharedLayout& layout;
  int64_t first;  // roll-out of the job
  int rollouts;
  int thread;

  __device__ explicit Block(const EnergyJob& job)
      : layout(job.layout),
        first(job.first_rollout + static_cast<int64_t>(blockIdx.x) * job.shape.rollouts),
        rollouts(
            static_cast<int>(job.rollouts - first < job.shape.rollouts ? job.rollouts - first : job.shape.rollouts)),
        thread(static_cast<int>(threadIdx.x)) {}

  __device__ uint32_t* activations() const { return at<uint32_t>(layout.activations); }
  __device__ uint32_t* ring() const { return at<uint32_t>(layout.ring); }
  __device__ double* errors() const { return at<double>(layout.errors); }
  __device__ int64_t* place() const { return at<int64_t>(layout.place); }
  __device__ int64_t* first_node() const { return at<int64_t>(layout.first_node); }
  __device__ int64_t* first_edge() const { return at<int64_t>(layout.first_edge); }
  __device__ float* sums() const { return at<float>(layout.sums); }
  __device__ float* states() const { return at<float>(layout.states); }
  __device__ float* scale() const { return at<float>(layout.scale); }
  __device__ int32_t* length() const { return at<int32_t>(layout.length); }
  __device__ Pass* passes() const { return at<Pass>(layout.passes); }
  __device__ int32_t* counts() const { return at<int32_t>(layout.counts); }
  __device__ uint16_t* node_begin() const { return at<uint16_t>(layout.node_begin); }
  __device__ uint16_t* edge_begin() const { return at<uint16_t>(layout.edge_begin); }
  __device__ uint16_t* in_begin() const { return at<uint16_t>(layout.in_begin); }
  __device__ uint16_t* edge_row() const { return at<uint16_t>(layout.edge_row); }
  __device__ uint8_t* sender() const { return at<uint8_t>(layout.sender); }
  __device__ uint8_t* receiver() const { return at<uint8_t>(layout.receiver); }
  __device__ uint8_t* node() const { return at<uint8_t>(layout.node); }
  __device__ uint8_t* rollout() const { return at<uint8_t>(layout.rollout); }

  __device__ int nodes() const { return node_begin()[rollouts]; }
  __device__ int edges() const { return edge_begin()[rollouts]; }
  __device__ int entities(int rollout) const { return node_begin()[rollout + 1] - node_begin()[rollout]; }

 private:
  template <typename T>
  __device__ static T* at(int offset) {
    return reinterpret_cast<T*>(dynamic_shared() + offset);
  }
};

// The last roll-out that begins at or before `item`.
__device__ inline int find_rollout(const uint16_t* begin, int rollouts, int item) {
  int low = 0;
  for (int high = rollouts; high - low > 1;) {
    const int middle = (low + high) / 2;
    if (begin[middle] <= item) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Sorts a tile's rows by module, those of absent entities left out, roll-out after roll-out and in the graph's order
// inside one.
class TileSorter {
 public:
  __device__ TileSorter(const EnergyJob& job, const Block& block)
      : job_(job), block_(block), modules_(job.library.edge.modules + job.library.node.modules) {
    unsigned char* const room = reinterpret_cast<unsigned char*>(block.activations());
    counts_ = reinterpret_cast<uint16_t*>(room + job.sorting.counts);
    totals_ = reinterpret_cast<uint16_t*>(room + job.sorting.totals);
    edge_ = room + job.sorting.edge;
    node_ = room + job.sorting.node;
  }

  // Ends with a barrier.
  __device__ void run() {
    place_rollouts();
    __syncthreads();
    if (block_.thread == 0) number_rows();
    __syncthreads();
    read_nodes();
    read_edges();
    __syncthreads();
    for (int i = block_.thread; i < block_.rollouts * modules_; i += kThreads) count(i / modules_, i % modules_);
    __syncthreads();
    for (int m = block_.thread; m < modules_; m += kThreads) accumulate(m);
    __syncthreads();
    if (block_.thread == 0) list_passes();
    __syncthreads();
    place_rows();
    __syncthreads();
  }

 private:
  __device__ void place_rollouts() {
    const int g = block_.thread;
    if (g >= block_.rollouts) return;
    const SystemRange& range = job_.range;
    const Segments& segments = job_.segments;
    const Rollout rollout = rollout_of(block_.first + g, range.systems, segments.structures);
    const int64_t system = range.first_system + rollout.system;
    const int64_t begin = range.node_offset[system], end = range.node_offset[system + 1];
    const int64_t start = rollout.segment * segments.length, left = segments.frames - 1 - start;
    block_.node_begin()[g] = static_cast<uint16_t>(end - begin);
    block_.edge_begin()[g] = static_cast<uint16_t>(range.in_offset[end] - range.in_offset[begin]);
    block_.place()[g] = segments.frames * begin + start * (end - begin);
    block_.scale()[g] = step_scale_of(job_.trajectories.step_scale, system);
    block_.first_node()[g] = begin;
    block_.first_edge()[g] = range.in_offset[begin];
    const bool idle = job_.cotangent != nullptr && job_.cotangent[system] == 0.0f;
    block_.length()[g] = idle ? 0 : static_cast<int32_t>(left < segments.length ? left : segments.length);
  }

  // Sizes become places.
  __device__ void number_rows() {
    int nodes = 0, edges = 0, longest = 0;
    for (int g = 0; g < block_.rollouts; ++g) {
      const int more_nodes = block_.node_begin()[g], more_edges = block_.edge_begin()[g];
      block_.node_begin()[g] = static_cast<uint16_t>(nodes);
      block_.edge_begin()[g] = static_cast<uint16_t>(edges);
      nodes += more_nodes;
      edges += more_edges;
      longest = block_.length()[g] > longest ? block_.length()[g] : longest;
    }
    block_.node_begin()[block_.rollouts] = static_cast<uint16_t>(nodes);
    block_.edge_begin()[block_.rollouts] = static_cast<uint16_t>(edges);
    block_.in_begin()[nodes] = static_cast<uint16_t>(edges);
    block_.counts()[1] = longest;
  }

  __device__ void read_nodes() {
    const int features = job_.library.features, message = job_.library.message, nodes = block_.nodes();
    for (int v = block_.thread; v < nodes; v += kThreads) {
      const int g = find_rollout(block_.node_begin(), block_.rollouts, v), local = v - block_.node_begin()[g];
      const int64_t node = block_.first_node()[g] + local;
      block_.rollout()[v] = static_cast<uint8_t>(g);
      block_.in_begin()[v] =
          static_cast<uint16_t>(block_.edge_begin()[g] + job_.range.in_offset[node] - block_.first_edge()[g]);
      const int64_t start = block_.place()[g] + local;
      const bool absent = block_.length()[g] == 0 || !is_present(job_.trajectories.present, start);
      const uint8_t type = job_.node_types == nullptr ? uint8_t{0} : job_.node_types[node];
      node_[v] = absent ? kNoModule : type;
      for (int d = 0; d < features; ++d) {
        block_.states()[v * features + d] = absent ? 0.0f : job_.trajectories.states[start * features + d];
      }
    }
    for (int i = block_.thread; i < nodes * message; i += kThreads) block_.sums()[i] = 0.0f;
  }

  __device__ int64_t edge_of(int e, int g) const { return block_.first_edge()[g] + e - block_.edge_begin()[g]; }

  __device__ void read_edges() {
    const int64_t structures = job_.segments.structures;
    for (int e = block_.thread; e < block_.edges(); e += kThreads) {
      const int g = find_rollout(block_.edge_begin(), block_.rollouts, e);
      const Rollout rollout = rollout_of(block_.first + g, job_.range.systems, structures);
      const int type = job_.edge_types[rollout.structure * job_.all_edges + edge_of(e, g)];
      const int64_t start = block_.place()[g] - block_.first_node()[g];
      const bool idle = block_.length()[g] == 0 || type < job_.library.first_type ||
                        !is_present(job_.trajectories.present, start + job_.range.sender[edge_of(e, g)]) ||
                        !is_present(job_.trajectories.present, start + job_.range.receiver[edge_of(e, g)]);
      edge_[e] = idle ? kNoModule : static_cast<uint8_t>(type - job_.library.first_type);
    }
  }

  // The items of a roll-out that may go through module m, numbered through: edge modules first, then node modules.
  __device__ void count(int g, int m) {
    const bool of_nodes = m >= job_.library.edge.modules;
    const uint16_t* begin = of_nodes ? block_.node_begin() : block_.edge_begin();
    const uint8_t* module = of_nodes ? node_ : edge_;
    const int wanted = of_nodes ? m - job_.library.edge.modules : m;
    int rows = 0;
    for (int i = begin[g]; i < begin[g + 1]; ++i) rows += module[i] == wanted;
    counts_[g * modules_ + m] = static_cast<uint16_t>(rows);
  }

  __device__ void accumulate(int m) {
    int rows = 0;
    for (int g = 0; g < block_.rollouts; ++g) {
      const int more = counts_[g * modules_ + m];
      counts_[g * modules_ + m] = static_cast<uint16_t>(rows);
      rows += more;
    }
    totals_[m] = static_cast<uint16_t>(rows);
  }

  __device__ void list_passes() {
    int passes = 0, first = 0;
    for (int m = 0; m < modules_; ++m) {
      const bool of_nodes = m >= job_.library.edge.modules;
      if (m == job_.library.edge.modules) first = 0;
      const int rows = totals_[m], module = of_nodes ? m - job_.library.edge.modules : m;
      const int most = of_nodes ? job_.shape.node_rows : job_.shape.rows;
      for (int n = 0; n < count_passes(rows, most); ++n) {
        block_.passes()[passes++] = nth_pass(n, module, of_nodes, first, rows, most);
      }
      totals_[m] = static_cast<uint16_t>(first);
      first += rows;
    }
    block_.counts()[0] = passes;
  }

  // Row of item i of roll-out g, which begins at item `begin`.
  __device__ int row_of(const uint8_t* module, int i, int begin, int g, int m) const {
    int row = totals_[m] + counts_[g * modules_ + m];
    for (int before = begin; before < i; ++before) row += module[before] == module[i];
    return row;
  }

  __device__ void place_rows() {
    for (int v = block_.thread; v < block_.nodes(); v += kThreads) {
      if (node_[v] == kNoModule) continue;
      const int g = block_.rollout()[v];
      block_.node()[row_of(node_, v, block_.node_begin()[g], g, job_.library.edge.modules + node_[v])] =
          static_cast<uint8_t>(v);
    }
    for (int e = block_.thread; e < block_.edges(); e += kThreads) {
      if (edge_[e] == kNoModule) {
        block_.edge_row()[e] = kNoRow;
        continue;
      }
      const int g = find_rollout(block_.edge_begin(), block_.rollouts, e);
      const int row = row_of(edge_, e, block_.edge_begin()[g], g, edge_[e]);
      const int64_t edge = edge_of(e, g), shift = block_.node_begin()[g] - block_.first_node()[g];
      block_.edge_row()[e] = static_cast<uint16_t>(row);
      block_.sender()[row] = static_cast<uint8_t>(job_.range.sender[edge] + shift);
      block_.receiver()[row] = static_cast<uint8_t>(job_.range.receiver[edge] + shift);
    }
  }

  const EnergyJob& job_;
  const Block& block_;
  int modules_;
  uint16_t* counts_;
  uint16_t* totals_;
  uint8_t* edge_;
  uint8_t* node_;
};

}  // namespace nri::cuda::fused
