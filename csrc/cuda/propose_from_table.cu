// Compiled without contraction of a * b + c, like the CPU's, so that the draws agree to the bit. One thread a system.
#include "common/table_proposal.h"
#include "cuda/workspace.h"
#include "ops/propose_from_table.h"

namespace nri::cuda {
namespace {

__global__ void propose_kernel(int64_t systems, GraphView graph, DrawView draws, ProposalTable table, ProposalKind kind,
                               uint8_t* edge_types, uint8_t* node_types, double* log_ratio) {
  const int64_t system = global_index();
  if (system >= systems) return;
  TableProposal proposal(graph, draws, table, system, edge_types, node_types);
  log_ratio[system] = proposal.draw_in_place(kind);
}

__global__ void blur_kernel(int64_t systems, GraphView graph, DrawView draws, double share, bool whole_entity,
                            uint8_t* blurred) {
  const int64_t system = global_index();
  if (system >= systems) return;
  blur_system(graph, draws, share, whole_entity, system, blurred);
}

}  // namespace

void propose_from_table(const GraphView& graph, const DrawView& draws, const ProposalTable& table, ProposalKind kind,
                        const uint8_t* edge_types, const uint8_t* node_types, uint8_t* proposed_edge_types,
                        uint8_t* proposed_node_types, double* log_ratio, const Execution& execution) {
  copy_values(proposed_edge_types, edge_types, graph.edges, execution);
  copy_values(proposed_node_types, node_types, graph.nodes, execution);
  launch_elements("propose_from_table", propose_kernel, graph.systems, execution, graph, draws, table, kind,
                  proposed_edge_types, proposed_node_types, log_ratio);
}

void blur(const GraphView& graph, const DrawView& draws, double share, bool whole_entity, uint8_t* blurred,
          const Execution& execution) {
  launch_elements("blur", blur_kernel, graph.systems, execution, graph, draws, share, whole_entity, blurred);
}

}  // namespace nri::cuda
