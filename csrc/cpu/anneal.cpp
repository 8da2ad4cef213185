// The random parts of a bounce on the CPU. Work is dealt out in chunks big enough to be worth a thread's while; small
// batches stay on the calling thread.
#include "ops/anneal.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/philox.h"
#include "common/portable_math.h"
#include "common/random_proposal.h"
#include "cpu/metropolis_choice.h"
#include "cpu/system_parts.h"
#include "cpu/thread_pool.h"

namespace nri::cpu {
namespace {

constexpr int64_t kSystemsPerChunk = 64;
constexpr int64_t kReceiversPerChunk = 128;

// Calls body(begin, end) for consecutive ranges that cover 0 .. count - 1.
template <typename Body>
void parallel_chunks(const Execution& execution, int64_t count, int64_t chunk, const Body& body) {
  parallel_for(execution.threads, (count + chunk - 1) / chunk,
               [&](int64_t index, int) { body(index * chunk, std::min(count, (index + 1) * chunk)); });
}

bool finite(double value) { return std::fabs(value) <= std::numeric_limits<double>::max(); }

// The first of the lowest finite scores, or -1 if none is finite.
template <typename T>
int64_t lowest_row(const T* scores, int64_t rows) {
  int64_t lowest = -1;
  for (int64_t a = 0; a < rows; ++a) {
    if (finite(scores[a]) && (lowest < 0 || scores[a] < scores[lowest])) lowest = a;
  }
  return lowest;
}

// A row drawn from softmax(-scores / temperature) with the uniform u, or -1 if no score is finite. `weights` is
// scratch.
template <typename T>
int64_t draw_row(const T* scores, int64_t rows, double temperature, double u, std::vector<double>& weights) {
  const int64_t lowest = lowest_row(scores, rows);
  if (lowest < 0 || !(temperature > 0)) return lowest;
  const double base = scores[lowest];
  weights.resize(static_cast<size_t>(rows));
  double total = 0;
  for (int64_t a = 0; a < rows; ++a) {
    weights[a] = finite(scores[a]) ? portable_exp((base - scores[a]) / temperature) : 0.0;
    total += weights[a];
  }
  int64_t drawn = lowest;
  double cumulative = 0;
  for (int64_t a = 0; a < rows; ++a) {
    if (weights[a] == 0) continue;
    drawn = a;  // rounding may leave u * total unreached: then the last row that has any weight
    cumulative += weights[a];
    if (cumulative > u * total) break;
  }
  return drawn;
}

template <typename T>
void softmax_rows(const T* scores, int64_t rows, double temperature, T* weights, std::vector<double>& exponentials) {
  std::fill(weights, weights + rows, T(0));
  const int64_t lowest = lowest_row(scores, rows);
  if (lowest < 0) return;
  if (!(temperature > 0)) {
    weights[lowest] = T(1);
    return;
  }
  const double base = scores[lowest];
  exponentials.resize(static_cast<size_t>(rows));
  double total = 0;
  for (int64_t a = 0; a < rows; ++a) {
    const double exponent = finite(scores[a]) ? (base - scores[a]) / temperature : -std::numeric_limits<double>::max();
    // e^-17 < 2^-24: rows that far up would be zeroed anyway, and most are once the temperature is low.
    const double value = exponent < -17.0 ? 0.0 : portable_exp(exponent);
    exponentials[a] = value < 0x1p-24 ? 0.0 : value;
    total += exponentials[a];
  }
  for (int64_t a = 0; a < rows; ++a) weights[a] = static_cast<T>(exponentials[a] / total);
}

}  // namespace

void metropolis_propose(const GraphView& graph, const DrawView& draws, const int64_t* reverse, int64_t edge_types_count,
                        int64_t node_types_count, const uint8_t* edge_types, const uint8_t* node_types,
                        uint8_t* proposed_edge_types, uint8_t* proposed_node_types, const Execution& execution) {
  const bool has_nodes = node_types && proposed_node_types;
  parallel_chunks(execution, graph.systems, kSystemsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const Range nodes = nodes_of(graph, b);
      const Range edges = edges_of(graph, b);
      copy_range(edge_types, edges, proposed_edge_types);
      if (has_nodes) copy_range(node_types, nodes, proposed_node_types);
      change_at_random(graph, draws, reverse, edge_types_count, node_types_count, b, proposed_edge_types,
                       has_nodes ? proposed_node_types : nullptr);
    }
  });
}

Decision decide_system(const DrawView& draws, int64_t system, double temperature, const double* log_ratio,
                       double energy, double proposed_energy) {
  const Philox4 bits = draw(draws.seed, Stream::accept, draws.system_ids[system], draws.step, 0);
  return decide(energy, proposed_energy, temperature, uniform(bits.x, bits.y), log_ratio ? log_ratio[system] : 0.0);
}

namespace {

template <typename T>
void decide_all(const GraphView& graph, const DrawView& draws, const T* temperature, const double* log_ratio,
                const T* proposed_energy, const uint8_t* proposed_edge_types, const uint8_t* proposed_node_types,
                T* energy, uint8_t* edge_types, uint8_t* node_types, int64_t* counts, const Execution& execution) {
  parallel_chunks(execution, graph.systems, kSystemsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const Decision decision = decide_system(draws, b, temperature[0], log_ratio, energy[b], proposed_energy[b]);
      const bool accepted = is_accepted(decision);
      int64_t* count = counts + b * kCounts;
      count[kProposed] += 1;
      count[kAccepted] += accepted;
      count[kAcceptedWorsening] += decision == Decision::accepted_worsening;
      count[kNotFinite] += decision == Decision::not_finite;
      if (!accepted) continue;
      energy[b] = proposed_energy[b];
      copy_range(proposed_edge_types, edges_of(graph, b), edge_types);
      if (node_types && proposed_node_types) copy_range(proposed_node_types, nodes_of(graph, b), node_types);
    }
  });
}

template <typename T>
void sample_all(const GraphView& graph, const DrawView& draws, int64_t edge_types_count, int64_t node_types_count,
                const int64_t* row_offset, const int64_t* stride, const T* scores, double temperature,
                uint8_t* edge_types, uint8_t* node_types, const Execution& execution) {
  parallel_chunks(execution, graph.systems, kSystemsPerChunk, [&](int64_t begin, int64_t end) {
    std::vector<double> weights;
    for (int64_t b = begin; b < end; ++b) {
      const Range nodes = nodes_of(graph, b);
      for (int64_t v = nodes.begin; v < nodes.end; ++v) {
        const Range incoming{graph.in_offset[v], graph.in_offset[v + 1]};
        const int64_t rows = row_offset[v + 1] - row_offset[v];
        if (rows <= 1) continue;
        const Philox4 bits = draw(draws.seed, Stream::heat_bath, draws.system_ids[b], draws.step,
                                  static_cast<uint32_t>(v - nodes.begin));
        const double u = uniform(bits.x, bits.y);
        const int64_t drawn = draw_row(scores + row_offset[v], rows, temperature, u, weights);
        if (drawn < 0) continue;
        const int64_t block = rows / node_types_count;
        if (node_types_count > 1) node_types[v] = static_cast<uint8_t>(drawn / block);
        for (int64_t e = incoming.begin; e < incoming.end; ++e) {
          if (stride[e] > 0) edge_types[e] = static_cast<uint8_t>(drawn % block / stride[e] % edge_types_count);
        }
      }
    }
  });
}

template <typename T>
void responsibilities_all(int64_t receivers, const int64_t* row_offset, int64_t group, const T* scores,
                          double temperature, T* weights, const Execution& execution) {
  parallel_chunks(execution, receivers, kReceiversPerChunk, [&](int64_t begin, int64_t end) {
    std::vector<double> exponentials;
    for (int64_t v = begin; v < end; ++v) {
      const int64_t rows = group > 0 ? group : row_offset[v + 1] - row_offset[v];
      for (int64_t row = row_offset[v]; row < row_offset[v + 1]; row += rows) {
        softmax_rows(scores + row, rows, temperature, weights + row, exponentials);
      }
    }
  });
}

}  // namespace

#define NRI_DEFINE_ANNEAL(T)                                                                                           \
  void metropolis_decide(const GraphView& graph, const DrawView& draws, const T* temperature, const double* log_ratio, \
                         const T* proposed_energy, const uint8_t* proposed_edge_types,                                 \
                         const uint8_t* proposed_node_types, T* energy, uint8_t* edge_types, uint8_t* node_types,      \
                         int64_t* counts, const Execution& execution) {                                                \
    decide_all(graph, draws, temperature, log_ratio, proposed_energy, proposed_edge_types, proposed_node_types,        \
               energy, edge_types, node_types, counts, execution);                                                     \
  }                                                                                                                    \
  void heat_bath_sample(const GraphView& graph, const DrawView& draws, int64_t edge_types_count,                       \
                        int64_t node_types_count, const int64_t* row_offset, const int64_t* stride, const T* scores,   \
                        const double* temperature, uint8_t* edge_types, uint8_t* node_types,                           \
                        const Execution& execution) {                                                                  \
    sample_all(graph, draws, edge_types_count, node_types_count, row_offset, stride, scores, temperature[0],           \
               edge_types, node_types, execution);                                                                     \
  }                                                                                                                    \
  void responsibilities(int64_t receivers, const int64_t* row_offset, int64_t group, const T* scores,                  \
                        const double* temperature, T* weights, const Execution& execution) {                           \
    responsibilities_all(receivers, row_offset, group, scores, temperature[0], weights, execution);                    \
  }

NRI_DEFINE_ANNEAL(float)
NRI_DEFINE_ANNEAL(double)
#undef NRI_DEFINE_ANNEAL

}  // namespace nri::cpu
