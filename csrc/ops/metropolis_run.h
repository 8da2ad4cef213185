// A run of Metropolis sweeps in one call. In a sweep every chain of every system gets one proposal, its roll-out energy
// and a decision, by the rules of ops/anneal.h and ops/propose_from_table.h and with their draws: a run holds, bit for
// bit, what their calls one by one would hold, and so do two runs one after the other, the second from the step at
// which the first ended. Between sweeps nothing is asked of the host and nothing waits for it.
//
// Sweep s = 0, 1, ... of chain c draws at step draws.step + s * stride + c; the exchange of chain a with its neighbour
// draws at draws.step + s * stride + chains + a. Steps stay below 2^32.
//
// Determinism: a system's chains depend on nothing but the system, unless the temperature is driven by acceptance,
// which all chains together decide. Aliasing: none allowed. Empty input (no sweeps, no systems) returns at once.
#pragma once

#include "common/acceptance.h"
#include "ops/propose_from_table.h"
#include "ops/rollout_energy.h"

namespace nri {

constexpr int64_t kMostProposals = 4;

// Where the proposals of a step come from.
struct ProposalSource {
  bool random;  // a random change, as metropolis_propose makes it: of the table only counts and `reverse` are read
  ProposalKind kind;    // otherwise, of propose_from_table
  ProposalTable table;  // its counts of types are the library's
};

template <typename T>
struct MetropolisRun {
  RolloutProblem<T> problem;                // its node_types are not read
  DrawView draws;                           // step: of the first sweep's first chain
  int64_t sweeps;                           // S
  int64_t chains;                           // C >= 1
  int64_t stride;                           // steps from sweep to sweep, at least as many as a sweep draws at
  int64_t proposals;                        // 1 .. kMostProposals
  ProposalSource proposal[kMostProposals];  // step n takes number n mod `proposals`
  bool hastings;                            // acceptance carries how likely the way back is, beside the way there
  // After the decisions neighbouring chains swap structures with probability min(1, exp((1 / T_a - 1 / T_b) (E_a -
  // E_b))): pairs (0, 1), (2, 3), ... in sweeps of even number, which is step / stride, the others in odd ones. An
  // energy that is not finite is never swapped. Temperatures must be positive and given in a table.
  bool exchange;
  // One of the two. The state is that of common/acceptance.h: it gives all chains' temperature and takes their counts;
  // with `epoch_is_sweep` it is brought up to date after every sweep, never raised past `ceiling`.
  const double* temperature;  // [S, C], or null
  double* acceptance;         // [kAcceptancePlaces], or null
  bool epoch_is_sweep;
  double ceiling;
  const T* unit;        // [B] that energies are divided by, or null
  T* energy;            // [C, B] of the chains' structures, in those units; in and out
  uint8_t* edge_types;  // [C, E] in and out
  uint8_t* node_types;  // [C, V] in and out; or null where there is one node type
  int64_t* counts;      // [C, B, kCounts], added to
  int64_t* exchanged;   // [C - 1] swaps of all systems together, added to; or null
  // The structures of lowest energy that any chain of a system has held, the first of equals; in and out, or all null.
  T* best_energy;            // [B]
  uint8_t* best_edge_types;  // [E]
  uint8_t* best_node_types;  // [V], or null
};

// end_acceptance_epoch: brings the state of common/acceptance.h up to date after an epoch; ceiling [1] lies where the
// state lies.
#define NRI_DECLARE_METROPOLIS_RUN(T) void metropolis_run(const MetropolisRun<T>& run, const Execution& execution);

namespace cpu {
NRI_DECLARE_METROPOLIS_RUN(float)
NRI_DECLARE_METROPOLIS_RUN(double)
void end_acceptance_epoch(double* acceptance, const double* ceiling, const Execution& execution);
}  // namespace cpu
namespace cuda {
NRI_DECLARE_METROPOLIS_RUN(float)
NRI_DECLARE_METROPOLIS_RUN(double)
void end_acceptance_epoch(double* acceptance, const double* ceiling, const Execution& execution);
}  // namespace cuda
#undef NRI_DECLARE_METROPOLIS_RUN

}  // namespace nri
