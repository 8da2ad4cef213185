// What happens to one chain of one system in a sweep: the arithmetic that every backend shares, to the bit.
#pragma once

#include "common/metropolis.h"
#include "common/random_proposal.h"
#include "common/table_proposal.h"
#include "ops/metropolis_run.h"

namespace nri {

// What a decision and an exchange leave for the end of the sweep.
enum SweepEvent : uint8_t { kNothing = 0, kWorsened = 1, kSwapped = 2 };

template <typename T>
NRI_HOST_DEVICE DrawView draws_of(const MetropolisRun<T>& run, int64_t sweep, int64_t place) {
  return {run.draws.seed, run.draws.step + sweep * run.stride + place, run.draws.system_ids};
}

// Changes the chain's types [E], [V], copies of those that it holds, in place; returns the log ratio to decide with.
template <typename T>
NRI_HOST_DEVICE double propose_in_place(const MetropolisRun<T>& run, int64_t sweep, int64_t chain, int64_t system,
                                        uint8_t* edge_types, uint8_t* node_types) {
  const GraphView& graph = run.problem.graph;
  const DrawView draws = draws_of(run, sweep, chain);
  const ProposalSource& source = run.proposal[draws.step % run.proposals];
  if (source.random) {
    change_at_random(graph, draws, source.table.reverse, source.table.edge_types, source.table.node_types, system,
                     edge_types, node_types);
    return 0.0;
  }
  TableProposal proposal(graph, draws, source.table, system, edge_types, node_types);
  const double log_ratio = proposal.draw_in_place(source.kind);
  return run.hastings ? log_ratio : 0.0;
}

template <typename T>
NRI_HOST_DEVICE T in_units(const MetropolisRun<T>& run, int64_t system, T energy) {
  return run.unit == nullptr ? energy : energy / run.unit[system];
}

// Decides on a proposal of this energy, in the run's units. Changes nothing.
template <typename T>
NRI_HOST_DEVICE Decision decide_on(const MetropolisRun<T>& run, int64_t sweep, int64_t chain, int64_t system,
                                   T proposed, double log_ratio) {
  const DrawView draws = draws_of(run, sweep, chain);
  const Philox4 bits = draw(draws.seed, Stream::accept, draws.system_ids[system], draws.step, 0);
  const double temperature =
      run.temperature != nullptr ? run.temperature[sweep * run.chains + chain] : run.acceptance[kTemperature];
  return decide(static_cast<double>(run.energy[chain * run.problem.graph.systems + system]),
                static_cast<double>(proposed), static_cast<double>(static_cast<T>(temperature)),
                uniform(bits.x, bits.y), log_ratio);
}

NRI_HOST_DEVICE inline void count_decision(Decision decision, int64_t* counts) {
  counts[kProposed] += 1;
  if (is_accepted(decision)) counts[kAccepted] += 1;
  if (decision == Decision::accepted_worsening) counts[kAcceptedWorsening] += 1;
  if (decision == Decision::not_finite) counts[kNotFinite] += 1;
}

// The lower chain of the first pair that may swap in this sweep.
template <typename T>
NRI_HOST_DEVICE int64_t first_pair(const MetropolisRun<T>& run, int64_t sweep) {
  return (run.draws.step + sweep * run.stride) / run.stride % 2;
}

// Whether chains `chain` and `chain` + 1 of the system swap: the Metropolis rule at temperature 1.
template <typename T>
NRI_HOST_DEVICE bool decide_swap(const MetropolisRun<T>& run, int64_t sweep, int64_t chain, int64_t system) {
  const DrawView draws = draws_of(run, sweep, run.chains + chain);
  const Philox4 bits = draw(draws.seed, Stream::accept, draws.system_ids[system], draws.step, 0);
  const double* temperature = run.temperature + sweep * run.chains + chain;
  const T* energy = run.energy + chain * run.problem.graph.systems + system;
  const T rise =
      (energy[0] - energy[run.problem.graph.systems]) * static_cast<T>(1.0 / temperature[1] - 1.0 / temperature[0]);
  return is_accepted(decide(0.0, static_cast<double>(rise), 1.0, uniform(bits.x, bits.y)));
}

// Whether an energy takes the best one's place.
template <typename T>
NRI_HOST_DEVICE bool is_better(T energy, T best) {
  return energy < best || (best != best && energy == energy);
}

}  // namespace nri
