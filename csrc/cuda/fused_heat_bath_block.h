// What a block of the fused heat bath has in shared memory, and how it comes there: the tile's receivers of one type,
// the messages that their rows read, and the transitions in which one of them is compared.
#pragma once

#include "cuda/fused_heat_bath_tile.h"
#include "cuda/mma.h"
#include "ops/heat_bath.h"

namespace nri::cuda::fused {

// Which rows a receiver has, where not all of them count.
struct ActiveRows {
  const int32_t* assignment;  // [rows of the range] of each receiver its active ones, in order; null: all are
  const int32_t* count;       // [nodes from first_node on] of each receiver
  int64_t first_node;
};

// The arguments of a kernel.
struct HeatBathJob {
  FusedLibrary library;
  FusedLayer projection;
  HeatBathShape shape;
  HeatBathLayout layout;
  HeatBathCut cut;
  HeatBathProblem<float> problem;
  int64_t first_system;  // of the range
  int64_t first_row;
  int64_t rows;
  const uint32_t* packed;
  double* errors;  // [transitions, rows]; of who is not compared: nothing. Or null
  ActiveRows active{};
  int64_t first_tile = 0;
};

// Addresses are worked out where they are used, as in Block.
struct HeatBathBlock {
  using Cursor = HeatBathCursor;

  const HeatBathLayout& layout;
  int thread;

  __device__ explicit HeatBathBlock(const HeatBathJob& job)
      : layout(job.layout), thread(static_cast<int>(threadIdx.x)) {}

  __device__ uint32_t* activations() const { return at<uint32_t>(layout.activations); }
  __device__ uint32_t* ring() const { return at<uint32_t>(layout.ring); }
  __device__ float* projection(int index) const { return at<float>(layout.projections) + index * layout.width; }
  __device__ int64_t* sender_place() const { return at<int64_t>(layout.sender_place); }
  __device__ int64_t* receiver_place() const { return at<int64_t>(layout.receiver_place); }
  __device__ int64_t* first_state() const { return at<int64_t>(layout.first_state); }
  __device__ int64_t* first_start() const { return at<int64_t>(layout.first_start); }
  __device__ int64_t* first_node() const { return at<int64_t>(layout.first_node); }
  __device__ int64_t* first_edge() const { return at<int64_t>(layout.first_edge); }
  __device__ int64_t* first_row() const { return at<int64_t>(layout.first_row); }
  __device__ int32_t* entities() const { return at<int32_t>(layout.entities); }
  __device__ int32_t* local() const { return at<int32_t>(layout.local); }
  __device__ int32_t* row_begin() const { return at<int32_t>(layout.row_begin); }
  __device__ float* scale() const { return at<float>(layout.scale); }
  __device__ int32_t* sender() const { return at<int32_t>(layout.sender); }
  __device__ int32_t* transition() const { return at<int32_t>(layout.transition); }
  __device__ HeatBathSchedule* passes() const { return at<HeatBathSchedule>(layout.schedule); }
  __device__ int32_t* counts() const { return at<int32_t>(layout.counts); }
  __device__ uint16_t* in_begin() const { return at<uint16_t>(layout.in_begin); }
  __device__ uint16_t* free() const { return at<uint16_t>(layout.free); }
  __device__ uint16_t* message() const { return at<uint16_t>(layout.message); }
  __device__ uint16_t* edge() const { return at<uint16_t>(layout.edge); }
  __device__ uint16_t* unit() const { return at<uint16_t>(layout.unit); }
  __device__ uint16_t* count() const { return at<uint16_t>(layout.count); }
  __device__ uint16_t* leading() const { return at<uint16_t>(layout.leading); }
  __device__ uint16_t* term() const { return at<uint16_t>(layout.term); }
  __device__ uint8_t* receiver() const { return at<uint8_t>(layout.receiver); }
  __device__ uint8_t* type() const { return at<uint8_t>(layout.type); }

  __device__ int receivers() const { return counts()[2]; }

  // Where a receiver's system is before a transition of the tile's list: the place of its first state.
  __device__ int64_t place(const HeatBathJob& job, int receiver, int transition) const {
    const int64_t start = job.problem.start[first_start()[receiver] + this->transition()[transition]];
    return first_state()[receiver] + start * entities()[receiver];
  }

 private:
  template <typename T>
  __device__ static T* at(int offset) {
    return reinterpret_cast<T*>(dynamic_shared() + offset);
  }
};

// Whether the state at `place`, and the same entity's one step later, are both there.
__device__ inline bool is_compared(const HeatBathJob& job, int64_t place, int64_t entities) {
  const uint8_t* const present = job.problem.trajectories.present;
  return is_present(present, place) && is_present(present, place + entities);
}

// Reads what a tile is about.
class TileReader {
 public:
  __device__ TileReader(const HeatBathJob& job, const HeatBathBlock& block)
      : job_(job), block_(block), tile_(tile_of(job.first_tile + static_cast<int64_t>(blockIdx.x), job.cut)) {
    const int64_t* const offset = job.problem.graph.node_offset + job.first_system;
    first_node_ = offset[tile_.first_system];
    end_node_ = offset[tile_.end_system];
    if (job.cut.parts > 1) {
      const int64_t count = end_node_ - first_node_;
      end_node_ = first_node_ + first_of_part(count, tile_.part + 1, job.cut.parts);
      first_node_ += first_of_part(count, tile_.part, job.cut.parts);
    }
  }

  // Ends with a barrier.
  __device__ void run() {
    const int modules = job_.library.edge.modules;
    measure_receivers();
    __syncthreads();
    if (block_.thread == 0) number_receivers();
    __syncthreads();
    read_receivers();
    __syncthreads();
    read_edges();
    mark_transitions();
    __syncthreads();
    for (int m = block_.thread; m < modules; m += kThreads) block_.passes()->begin[m + 1] = list_messages(m, 0, false);
    __syncthreads();
    if (block_.thread == 0) plan();
    __syncthreads();
    for (int m = block_.thread; m < modules; m += kThreads) list_messages(m, block_.passes()->begin[m], true);
    __syncthreads();
  }

 private:
  // While receivers are read, the room of the activations holds in-degrees and rows of all of the tile's nodes.
  __device__ int32_t* degrees() const { return reinterpret_cast<int32_t*>(block_.activations()); }
  __device__ int32_t* rows() const { return degrees() + kMostReceivers; }

  __device__ int32_t rows_of(int64_t node) const {
    const ActiveRows& active = job_.active;
    if (active.assignment != nullptr) return active.count[node - active.first_node];
    return static_cast<int32_t>(job_.problem.row_offset[node + 1] - job_.problem.row_offset[node]);
  }

  __device__ void measure_receivers() {
    const HeatBathProblem<float>& problem = job_.problem;
    for (int i = block_.thread; i < end_node_ - first_node_; i += kThreads) {
      const int64_t node = first_node_ + i;
      const bool mine = problem.node_types == nullptr || problem.node_types[node] == tile_.node_type;
      degrees()[i] = static_cast<int32_t>(problem.graph.in_offset[node + 1] - problem.graph.in_offset[node]);
      rows()[i] = mine ? rows_of(node) : 0;
    }
  }

  // Those that have rows, in order.
  __device__ void number_receivers() {
    int receivers = 0, edges = 0, row = 0;
    for (int i = 0; i < end_node_ - first_node_; ++i) {
      if (rows()[i] == 0) continue;
      block_.local()[receivers] = i;
      block_.in_begin()[receivers] = static_cast<uint16_t>(edges);
      block_.row_begin()[receivers] = row;
      edges += degrees()[i];
      row += rows()[i];
      ++receivers;
    }
    block_.in_begin()[receivers] = static_cast<uint16_t>(edges);
    block_.row_begin()[receivers] = row;
    block_.counts()[2] = receivers;
  }

  __device__ void read_receivers() {
    const HeatBathProblem<float>& problem = job_.problem;
    for (int j = block_.thread; j < block_.receivers(); j += kThreads) {
      const int64_t node = first_node_ + block_.local()[j];
      const int64_t first = job_.first_system + tile_.first_system;
      const int64_t* const offset = problem.graph.node_offset + first;
      const int64_t system = first + find_range(offset, tile_.end_system - tile_.first_system, node);
      const int64_t begin = problem.graph.node_offset[system];
      block_.first_state()[j] = problem.trajectories.steps * begin;
      block_.first_start()[j] = system * problem.transitions;
      block_.first_node()[j] = begin;
      block_.first_edge()[j] = problem.graph.in_offset[node];
      block_.first_row()[j] = problem.row_offset[node] - job_.first_row;
      block_.entities()[j] = static_cast<int32_t>(problem.graph.node_offset[system + 1] - begin);
      block_.local()[j] = static_cast<int32_t>(node - begin);
      block_.scale()[j] = problem.trajectories.step_scale == nullptr ? 1.0f : problem.trajectories.step_scale[system];
      int free = 0;
      for (int e = block_.in_begin()[j]; e < block_.in_begin()[j + 1]; ++e) {
        const int64_t edge = block_.first_edge()[j] + e - block_.in_begin()[j];
        block_.receiver()[e] = static_cast<uint8_t>(j);
        free += problem.rows == HeatBathRows::conditionals || problem.stride[edge] > 0;
      }
      block_.free()[j] = static_cast<uint16_t>(free);
    }
  }

  // A tile's edge in the mega-graph.
  __device__ int64_t edge_of(int e) const {
    const int j = block_.receiver()[e];
    return block_.first_edge()[j] + e - block_.in_begin()[j];
  }

  __device__ void read_edges() {
    const HeatBathProblem<float>& problem = job_.problem;
    const int edges = block_.in_begin()[block_.receivers()], modules = job_.library.edge.modules;
    const bool conditionals = problem.rows == HeatBathRows::conditionals;
    for (int e = block_.thread; e < edges; e += kThreads) {
      const int64_t edge = edge_of(e);
      block_.sender()[e] = static_cast<int32_t>(problem.graph.sender[edge] - block_.first_node()[block_.receiver()[e]]);
      const bool held = !conditionals && problem.stride[edge] == 0;
      block_.type()[e] = held ? kHeldEdge : conditionals ? problem.edge_types[edge] : uint8_t{0};
      for (int m = 0; m < modules; ++m) {  // a message of no weight is none
        const int64_t weight = edge * problem.library.edge_types + job_.library.first_type + m;
        block_.message()[e * modules + m] = held && problem.held_weight[weight] == 0.0f ? kNoRow : uint16_t{0};
      }
    }
    if (job_.active.assignment == nullptr) return;
    __syncthreads();  // all current types are there
    for (int i = block_.thread; i < edges * modules; i += kThreads) {
      const int e = i / modules;
      if (block_.type()[e] != kHeldEdge || conditionals) {
        if (!is_read(e, job_.library.first_type + i % modules)) block_.message()[i] = kNoRow;
      }
    }
  }

  // Whether one of its receiver's active rows gives an edge that is not held this type.
  __device__ bool is_read(int e, int type) const {
    const HeatBathProblem<float>& problem = job_.problem;
    const int j = block_.receiver()[e], types = static_cast<int>(problem.library.edge_types);
    const bool conditionals = problem.rows == HeatBathRows::conditionals;
    const int64_t stride = conditionals ? 1 : problem.stride[edge_of(e)];
    const int32_t* const active = job_.active.assignment + block_.first_row()[j];
    const int rows = block_.row_begin()[j + 1] - block_.row_begin()[j], place = e - block_.in_begin()[j];
    for (int r = 0; r < rows; ++r) {
      const int varying = active[r] / types == place ? active[r] % types : block_.type()[e];
      if ((conditionals ? varying : static_cast<int>(active[r] / stride) % types) == type) return true;
    }
    return false;
  }

  // Those of the tile's transitions in which nobody is compared are marked.
  __device__ void mark_transitions() {
    for (int i = block_.thread; i < tile_.end_transition - tile_.first_transition; i += kThreads) {
      block_.transition()[i] = static_cast<int32_t>(tile_.first_transition + i);
      bool compared = false;
      for (int j = 0; j < block_.receivers() && !compared; ++j) {
        compared = is_compared(job_, block_.place(job_, j, i) + block_.local()[j], block_.entities()[j]);
      }
      if (!compared) block_.transition()[i] = -1;
    }
  }

  // Numbers the messages of an edge module from `first` on, and notes their edges. Returns how many there are.
  __device__ int list_messages(int module, int first, bool number) {
    const int edges = block_.in_begin()[block_.receivers()], modules = job_.library.edge.modules;
    int count = 0;
    for (int e = 0; e < edges; ++e) {
      uint16_t& message = block_.message()[e * modules + module];
      if (message == kNoRow) continue;
      if (number) {
        message = static_cast<uint16_t>(first + count);
        block_.edge()[first + count] = static_cast<uint16_t>(e);
      }
      ++count;
    }
    return count;
  }

  __device__ void plan() {
    HeatBathSchedule& schedule = *block_.passes();
    const int modules = job_.library.edge.modules, receivers = block_.receivers();
    int transitions = 0;
    for (int i = 0; i < tile_.end_transition - tile_.first_transition; ++i) {
      if (block_.transition()[i] >= 0) block_.transition()[transitions++] = block_.transition()[i];
    }
    schedule.begin[0] = 0;
    for (int m = 0; m < modules; ++m) schedule.begin[m + 1] += schedule.begin[m];
    schedule.transitions = transitions;
    schedule.rows = block_.row_begin()[receivers];
    schedule.pass_rows = job_.shape.rows;
    schedule.module = tile_.node_type;
    schedule.each = 0;  // nothing to do
    if (transitions > 0) {
      const int most = job_.shape.room / (schedule.begin[modules] + receivers);
      schedule.each = count_passes(transitions, count_passes(transitions, most));  // rounds of about one size
    }
    block_.counts()[0] = job_.projection.chunks;
    block_.counts()[1] = schedule.rounds();
  }

  const HeatBathJob& job_;
  const HeatBathBlock& block_;
  const HeatBathTile tile_;
  int64_t first_node_, end_node_;
};

}  // namespace nri::cuda::fused
