// Proposals from a table of probabilities on the CPU: systems are dealt out in chunks.
#include "ops/propose_from_table.h"

#include <algorithm>

#include "common/table_proposal.h"
#include "cpu/thread_pool.h"

namespace nri::cpu {
namespace {

constexpr int64_t kSystemsPerChunk = 16;

template <typename Body>
void for_each_system(const Execution& execution, int64_t systems, const Body& body) {
  parallel_for(execution.threads, (systems + kSystemsPerChunk - 1) / kSystemsPerChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min(systems, (chunk + 1) * kSystemsPerChunk);
    for (int64_t system = chunk * kSystemsPerChunk; system < end; ++system) body(system);
  });
}

}  // namespace

void propose_from_table(const GraphView& graph, const DrawView& draws, const ProposalTable& table, ProposalKind kind,
                        const uint8_t* edge_types, const uint8_t* node_types, uint8_t* proposed_edge_types,
                        uint8_t* proposed_node_types, double* log_ratio, const Execution& execution) {
  std::copy(edge_types, edge_types + graph.edges, proposed_edge_types);
  if (node_types && proposed_node_types) std::copy(node_types, node_types + graph.nodes, proposed_node_types);
  for_each_system(execution, graph.systems, [&](int64_t system) {
    TableProposal proposal(graph, draws, table, system, proposed_edge_types, proposed_node_types);
    log_ratio[system] = proposal.draw_in_place(kind);
  });
}

void blur(const GraphView& graph, const DrawView& draws, double share, bool whole_entity, uint8_t* blurred,
          const Execution& execution) {
  for_each_system(execution, graph.systems,
                  [&](int64_t system) { blur_system(graph, draws, share, whole_entity, system, blurred); });
}

}  // namespace nri::cpu
