// One system's proposal from a table of probabilities: the arithmetic that every backend shares, to the bit.
#pragma once

#include "common/philox.h"
#include "common/portable_math.h"
#include "common/tied_edges.h"
#include "ops/propose_from_table.h"

namespace nri {

class TableProposal {
 public:
  NRI_HOST_DEVICE TableProposal(const GraphView& graph, const DrawView& draws, const ProposalTable& table,
                                int64_t system, uint8_t* edge_types, uint8_t* node_types)
      : graph_(graph),
        draws_(draws),
        table_(table),
        tied_(table.reverse),
        system_(system),
        first_node_(graph.node_offset[system]),
        end_node_(graph.node_offset[system + 1]),
        first_edge_(graph.in_offset[first_node_]),
        end_edge_(graph.in_offset[end_node_]),
        edge_types_(edge_types),
        node_types_(node_types) {}

  // Changes the system's types in place and returns the log ratio.
  NRI_HOST_DEVICE double draw_in_place(ProposalKind kind) {
    if (first_node_ == end_node_) return 0.0;
    if (kind == ProposalKind::edge) return change_one();
    if (kind == ProposalKind::system) return redraw_entities(first_node_, end_node_, false);
    const Philox4 bits = random(0);
    const int64_t node = first_node_ + uniform_index(bits.x, bits.y, end_node_ - first_node_);
    return redraw_entities(node, node + 1, kind == ProposalKind::flip);
  }

 private:
  NRI_HOST_DEVICE Philox4 random(int64_t index) const {
    return draw(draws_.seed, Stream::propose_from_table, draws_.system_ids[system_], draws_.step,
                static_cast<uint32_t>(index));
  }

  NRI_HOST_DEVICE static double weight(const double* row, int64_t type) {
    const double p = row[type];
    return p >= 1e-300 && p <= 1.7976931348623157e308 ? p : 0.0;
  }

  NRI_HOST_DEVICE static double log_or_minus_infinity(double x) {
    return x > 0 ? portable_log(x) : double_from_bits(0xFFF0000000000000u);
  }

  NRI_HOST_DEVICE bool may_change(int64_t edge) const {
    return table_.may_change == nullptr || table_.may_change[edge] != 0;
  }
  NRI_HOST_DEVICE const double* edge_row(int64_t e) const { return table_.edge_probability + e * table_.edge_types; }
  NRI_HOST_DEVICE const double* node_row(int64_t v) const { return table_.node_probability + v * table_.node_types; }
  NRI_HOST_DEVICE bool has_node_types() const { return table_.node_types > 1 && node_types_ != nullptr; }

  // What has one type to change: a leading edge, with the one that follows it, or an entity.
  struct Place {
    const double* row;
    int64_t count;
    int64_t draw;  // names its draw where everything is redrawn
    int64_t edge;  // or -1
    int64_t node;
  };

  NRI_HOST_DEVICE Place place_of_edge(int64_t e) const {
    return {edge_row(e), table_.edge_types, 1 + e - first_edge_, e, -1};
  }
  NRI_HOST_DEVICE Place place_of_node(int64_t v) const {
    return {node_row(v), table_.node_types, 1 + (end_edge_ - first_edge_) + v - first_node_, -1, v};
  }
  NRI_HOST_DEVICE uint8_t type_of(const Place& place) const {
    return place.edge >= 0 ? edge_types_[place.edge] : node_types_[place.node];
  }
  NRI_HOST_DEVICE void set_type(const Place& place, int64_t type) {
    if (place.edge >= 0) {
      tied_.set(edge_types_, place.edge, static_cast<uint8_t>(type));
    } else {
      node_types_[place.node] = static_cast<uint8_t>(type);
    }
  }

  // Calls visit(place) for everything that may change, edges before entities.
  template <typename Visit>
  NRI_HOST_DEVICE void for_each_place(const Visit& visit) {
    for (int64_t e = first_edge_; e < end_edge_; ++e) {
      if (tied_.leads(e) && may_change(e)) visit(place_of_edge(e));
    }
    if (!has_node_types()) return;
    for (int64_t v = first_node_; v < end_node_; ++v) visit(place_of_node(v));
  }

  // Sum of the weights of all single changes.
  NRI_HOST_DEVICE double total_of_changes() {
    double total = 0;
    for_each_place([&](const Place& place) {
      const int64_t now = type_of(place);
      for (int64_t t = 0; t < place.count; ++t) {
        if (t != now) total += weight(place.row, t);
      }
    });
    return total;
  }

  NRI_HOST_DEVICE double change_one() {
    const double total = total_of_changes();
    if (!(total > 0) || total > 1.7976931348623157e308) return 0.0;
    const Philox4 bits = random(0);
    const double target = uniform(bits.x, bits.y) * total;
    double cumulative = 0, there = 0, back = 0;
    Place chosen{};
    int64_t drawn = 0;
    bool found = false;
    for_each_place([&](const Place& place) {
      const int64_t now = type_of(place);
      for (int64_t t = 0; t < place.count && !found; ++t) {
        const double w = t == now ? 0.0 : weight(place.row, t);
        if (!(w > 0)) continue;
        chosen = place;  // rounding may leave the target unreached: then the last change that has any weight
        drawn = t;
        there = w;
        back = weight(place.row, now);
        cumulative += w;
        found = cumulative > target;
      }
    });
    set_type(chosen, drawn);
    if (!(back > 0)) return log_or_minus_infinity(0.0);
    return portable_log(back) - portable_log(total_of_changes()) - portable_log(there) + portable_log(total);
  }

  NRI_HOST_DEVICE double redraw_entities(int64_t begin, int64_t end, bool change_all) {
    double log_ratio = 0;
    const bool one = end - begin == 1;  // every pair of one entity has one edge into it
    for (int64_t e = graph_.in_offset[begin]; e < graph_.in_offset[end]; ++e) {
      if (!one && !tied_.leads(e)) continue;
      const int64_t leader = tied_.leader(e);
      if (may_change(leader)) log_ratio += redraw(place_of_edge(leader), change_all);
    }
    if (!has_node_types()) return log_ratio;
    for (int64_t v = begin; v < end; ++v) log_ratio += redraw(place_of_node(v), change_all);
    return log_ratio;
  }

  // Redraws one type from its row, the current one left out with `change`, and returns its part of the log ratio.
  NRI_HOST_DEVICE double redraw(const Place& place, bool change) {
    const int64_t now = type_of(place);
    double total = 0, total_back = 0;
    for (int64_t t = 0; t < place.count; ++t) {
      if (!(change && t == now)) total += weight(place.row, t);
    }
    if (!(total > 0) || total > 1.7976931348623157e308) return 0.0;
    const Philox4 bits = random(place.draw);
    const double target = uniform(bits.x, bits.y) * total;
    double cumulative = 0;
    int64_t drawn = now;
    for (int64_t t = 0; t < place.count; ++t) {
      const double w = change && t == now ? 0.0 : weight(place.row, t);
      if (!(w > 0)) continue;
      drawn = t;
      cumulative += w;
      if (cumulative > target) break;
    }
    if (drawn == now) return 0.0;
    for (int64_t t = 0; t < place.count; ++t) {
      if (!(change && t == drawn)) total_back += weight(place.row, t);
    }
    const double there = weight(place.row, drawn), back = weight(place.row, now);
    set_type(place, drawn);
    if (!(back > 0)) return log_or_minus_infinity(0.0);
    return portable_log(back) - portable_log(total_back) - portable_log(there) + portable_log(total);
  }

  const GraphView& graph_;
  const DrawView& draws_;
  const ProposalTable& table_;
  const TiedEdges tied_;
  const int64_t system_, first_node_, end_node_, first_edge_, end_edge_;
  uint8_t* const edge_types_;
  uint8_t* const node_types_;
};

// Marks the system's blurred edges.
NRI_HOST_DEVICE inline void blur_system(const GraphView& graph, const DrawView& draws, double share, bool whole_entity,
                                        int64_t system, uint8_t* blurred) {
  const int64_t first_node = graph.node_offset[system], end_node = graph.node_offset[system + 1];
  const int64_t first_edge = graph.in_offset[first_node], end_edge = graph.in_offset[end_node];
  int64_t entity = -1;
  if (whole_entity && end_node > first_node) {
    const Philox4 bits = draw(draws.seed, Stream::blur, draws.system_ids[system], draws.step, 0);
    entity = first_node + uniform_index(bits.x, bits.y, end_node - first_node);
  }
  for (int64_t e = first_edge; e < end_edge; ++e) {
    if (whole_entity) {
      blurred[e] = graph.receiver[e] == entity ? 1 : 0;
    } else {
      const Philox4 bits = draw(draws.seed, Stream::blur, draws.system_ids[system], draws.step,
                                static_cast<uint32_t>(1 + e - first_edge));
      blurred[e] = uniform(bits.x, bits.y) < share ? 1 : 0;
    }
  }
}

}  // namespace nri
