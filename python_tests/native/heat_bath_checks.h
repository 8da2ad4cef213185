// Problems that the checks of the heat bath's kernels share.
#pragma once

#include "cuda/fused_heat_bath_tile.h"
#include "fused_checks.h"

namespace {

HeatBathSchedule schedule_of(const FusedLibrary& library, int transitions, int each, int rows, int pass_rows,
                             bool some_empty) {
  HeatBathSchedule schedule{transitions, each, rows, pass_rows, library.node.modules - 1, {}};
  for (int m = 0; m < library.edge.modules; ++m) {
    schedule.begin[m + 1] = schedule.begin[m] + (some_empty && m % 2 == 0 ? 0 : 13 + m);
  }
  return schedule;
}

std::vector<HeatBathSizes> sizes() {
  std::vector<HeatBathSizes> all;
  for (const int64_t systems : {1, 64, 4096}) {
    for (const int64_t transitions : {1, 12, 500}) {
      for (const int64_t nodes : {1, 5, 10, 31, 200}) {
        const int64_t edges = nodes * (nodes - 1);
        if (nodes <= 10) {
          all.push_back({nodes, edges, nodes << (nodes - 1), systems, transitions, 2, 1, false});
        }
        all.push_back({nodes, edges, 2 * edges, systems, transitions, 2, 2, true});
        all.push_back({nodes, nodes - 1, 16 * nodes, systems, transitions, 2, 1, false});  // a few neighbours
        all.push_back({nodes, edges, nodes, systems, transitions, 1, 1, false});           // one type
      }
    }
  }
  return all;
}

}  // namespace
