// The transitions that a group of receivers takes part in, and the states before and after them.
#pragma once

#include "cpu/heat_bath_tile.h"

namespace nri::cpu::NRI_CPU_VARIANT {

// Those in which a receiver of the group is compared are numbered from 0 on.
template <typename T>
class GroupTransitions {
 public:
  GroupTransitions(const HeatBathProblem<T>& problem, const ReceiverGroup& group)
      : problem_(problem), group_(group), compared_(group.receivers()) {
    for (int64_t l = 0; l < problem.transitions; ++l) {
      place_.push_back(l);
      bool any = false;
      for (int64_t j = 0; j < group.receivers(); ++j) {
        const bool here = is_compared(count() - 1, group.first_node + j);
        compared_[j] += here;
        any = any || here;
      }
      if (!any) place_.pop_back();
    }
  }

  int64_t count() const { return static_cast<int64_t>(place_.size()); }
  // In how many of them this receiver is compared.
  int64_t compared(int64_t node) const { return compared_[node - group_.first_node]; }
  // In how many of those in front of this one.
  int64_t compared_before(int64_t number, int64_t node) const {
    int64_t count = 0;
    for (int64_t i = 0; i < number; ++i) count += is_compared(i, node);
    return count;
  }
  bool is_compared(int64_t number, int64_t node) const {
    return is_present(present_at(number), node - node_base()) && is_present(present_after(number), node - node_base());
  }

  // State of the whole system before and after transition `number`.
  const T* before(int64_t number) const {
    return problem_.trajectories.states + first_state(number) * problem_.library.features;
  }
  const T* after(int64_t number) const { return before(number) + entities() * problem_.library.features; }
  // Who is there before the transition; null: everybody.
  const uint8_t* present_at(int64_t number) const {
    return problem_.trajectories.present ? problem_.trajectories.present + first_state(number) : nullptr;
  }
  int64_t node_base() const { return problem_.graph.node_offset[group_.system]; }

 private:
  int64_t entities() const { return problem_.graph.node_offset[group_.system + 1] - node_base(); }
  int64_t first_state(int64_t number) const {
    const int64_t step = problem_.start[group_.system * problem_.transitions + place_[number]];
    return problem_.trajectories.steps * node_base() + step * entities();
  }
  const uint8_t* present_after(int64_t number) const {
    return problem_.trajectories.present ? present_at(number) + entities() : nullptr;
  }

  const HeatBathProblem<T>& problem_;
  const ReceiverGroup& group_;
  std::vector<int64_t> place_;     // in the problem's list
  std::vector<int64_t> compared_;  // [receivers of the group]
};

}  // namespace nri::cpu::NRI_CPU_VARIANT
