// Sweeps on the CPU: one crossing of the border for all of them. Chains of systems are dealt out in chunks big enough
// to be worth a thread's while; a small batch stays on the calling thread.
#include "ops/metropolis_run.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/metropolis_sweep.h"
#include "cpu/system_parts.h"
#include "cpu/thread_pool.h"

namespace nri::cpu {
namespace {

constexpr int64_t kChainsPerChunk = 32;

template <typename T>
class Sweeps {
 public:
  Sweeps(const MetropolisRun<T>& run, const Execution& execution)
      : run_(run),
        graph_(run.problem.graph),
        execution_(execution),
        edge_types_(static_cast<size_t>(run.chains * graph_.edges)),
        node_types_(run.node_types ? static_cast<size_t>(run.chains * graph_.nodes) : 0),
        energy_(static_cast<size_t>(run.chains * graph_.systems)),
        log_ratio_(energy_.size()),
        event_(energy_.size()) {}

  void sweep(int64_t number) {
    for_each_chain([&](int64_t chain, int64_t system) { propose(number, chain, system); });
    evaluate();
    for_each_chain([&](int64_t chain, int64_t system) { decide_and_commit(number, chain, system); });
    if (run_.best_energy) keep_best();
    if (run_.exchange) exchange(number);
    finish();
  }

 private:
  // Calls body(chain, system) for all of them.
  template <typename Body>
  void for_each_chain(const Body& body) {
    const int64_t count = run_.chains * graph_.systems;
    parallel_for(execution_.threads, (count + kChainsPerChunk - 1) / kChainsPerChunk, [&](int64_t chunk, int) {
      const int64_t end = std::min(count, (chunk + 1) * kChainsPerChunk);
      for (int64_t i = chunk * kChainsPerChunk; i < end; ++i) body(i / graph_.systems, i % graph_.systems);
    });
  }

  uint8_t* edges_of_chain(uint8_t* types, int64_t chain) const { return types + chain * graph_.edges; }
  uint8_t* nodes_of_chain(uint8_t* types, int64_t chain) const {
    return run_.node_types ? types + chain * graph_.nodes : nullptr;
  }

  void propose(int64_t number, int64_t chain, int64_t system) {
    uint8_t* const edges = edges_of_chain(edge_types_.data(), chain);
    uint8_t* const nodes = nodes_of_chain(node_types_.data(), chain);
    copy_range(edges_of_chain(run_.edge_types, chain), edges_of(graph_, system), edges);
    if (nodes) copy_range(nodes_of_chain(run_.node_types, chain), nodes_of(graph_, system), nodes);
    log_ratio_[chain * graph_.systems + system] = propose_in_place(run_, number, chain, system, edges, nodes);
  }

  void evaluate() {
    RolloutProblem<T> problem = run_.problem;
    problem.node_types = nullptr;
    if (!run_.node_types) {
      rollout_energy(problem, run_.chains, edge_types_.data(), energy_.data(), execution_);
      return;
    }
    for (int64_t chain = 0; chain < run_.chains; ++chain) {
      problem.node_types = nodes_of_chain(node_types_.data(), chain);
      rollout_energy(problem, 1, edges_of_chain(edge_types_.data(), chain), energy_.data() + chain * graph_.systems,
                     execution_);
    }
  }

  void decide_and_commit(int64_t number, int64_t chain, int64_t system) {
    const int64_t place = chain * graph_.systems + system;
    const T proposed = in_units(run_, system, energy_[place]);
    const Decision decision = decide_on(run_, number, chain, system, proposed, log_ratio_[place]);
    count_decision(decision, run_.counts + place * kCounts);
    event_[place] = decision == Decision::accepted_worsening ? kWorsened : kNothing;
    if (!is_accepted(decision)) return;
    run_.energy[place] = proposed;
    copy_range(edges_of_chain(edge_types_.data(), chain), edges_of(graph_, system),
               edges_of_chain(run_.edge_types, chain));
    if (!run_.node_types) return;
    copy_range(nodes_of_chain(node_types_.data(), chain), nodes_of(graph_, system),
               nodes_of_chain(run_.node_types, chain));
  }

  void keep_best() {
    for (int64_t chain = 0; chain < run_.chains; ++chain) {
      for (int64_t system = 0; system < graph_.systems; ++system) {
        const T energy = run_.energy[chain * graph_.systems + system];
        if (!is_better(energy, run_.best_energy[system])) continue;
        run_.best_energy[system] = energy;
        copy_range(edges_of_chain(run_.edge_types, chain), edges_of(graph_, system), run_.best_edge_types);
        if (!run_.best_node_types || !run_.node_types) continue;
        copy_range(nodes_of_chain(run_.node_types, chain), nodes_of(graph_, system), run_.best_node_types);
      }
    }
  }

  static void swap_ranges(uint8_t* types, int64_t size, const Range& range) {
    std::swap_ranges(types + range.begin, types + range.end, types + size + range.begin);
  }

  void exchange(int64_t number) {
    for (int64_t chain = first_pair(run_, number); chain + 1 < run_.chains; chain += 2) {
      for (int64_t system = 0; system < graph_.systems; ++system) {
        if (!decide_swap(run_, number, chain, system)) continue;
        T* const energy = run_.energy + chain * graph_.systems + system;
        std::swap(energy[0], energy[graph_.systems]);
        swap_ranges(edges_of_chain(run_.edge_types, chain), graph_.edges, edges_of(graph_, system));
        if (run_.node_types) {
          swap_ranges(nodes_of_chain(run_.node_types, chain), graph_.nodes, nodes_of(graph_, system));
        }
        if (run_.exchanged) run_.exchanged[chain] += 1;
      }
    }
  }

  void finish() {
    if (!run_.acceptance) return;
    run_.acceptance[kEpochProposed] += static_cast<double>(event_.size());
    run_.acceptance[kEpochWorsening] += static_cast<double>(std::count(event_.begin(), event_.end(), kWorsened));
    if (run_.epoch_is_sweep) end_epoch(run_.acceptance, run_.ceiling);
  }

  const MetropolisRun<T>& run_;
  const GraphView& graph_;
  const Execution& execution_;
  std::vector<uint8_t> edge_types_, node_types_;  // proposed
  std::vector<T> energy_;                         // of the proposals
  std::vector<double> log_ratio_;
  std::vector<uint8_t> event_;
};

template <typename T>
void run_all(const MetropolisRun<T>& run, const Execution& execution) {
  if (run.problem.graph.systems == 0) return;
  Sweeps<T> sweeps(run, execution);
  for (int64_t number = 0; number < run.sweeps; ++number) sweeps.sweep(number);
}

}  // namespace

void metropolis_run(const MetropolisRun<float>& run, const Execution& execution) { run_all(run, execution); }
void metropolis_run(const MetropolisRun<double>& run, const Execution& execution) { run_all(run, execution); }

void end_acceptance_epoch(double* acceptance, const double* ceiling, const Execution&) {
  end_epoch(acceptance, ceiling[0]);
}

}  // namespace nri::cpu
