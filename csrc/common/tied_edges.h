// Where both directions of a pair have one type, a proposal changes both. Of the two edges the later one leads: what is
// drawn for it holds for the other as well. An edge without a reverse leads itself.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace nri {

class TiedEdges {
 public:
  // reverse: [E] the edge the other way round, -1 where there is none; null: every edge has a type of its own.
  NRI_HOST_DEVICE explicit TiedEdges(const int64_t* reverse) : reverse_(reverse) {}

  NRI_HOST_DEVICE bool leads(int64_t edge) const { return reverse_ == nullptr || reverse_[edge] < edge; }

  NRI_HOST_DEVICE int64_t leader(int64_t edge) const { return leads(edge) ? edge : reverse_[edge]; }

  NRI_HOST_DEVICE int64_t leaders(int64_t begin, int64_t end) const {
    if (reverse_ == nullptr) return end - begin;
    int64_t count = 0;
    for (int64_t e = begin; e < end; ++e) count += leads(e) ? 1 : 0;
    return count;
  }

  // Leader number `place` of those from `begin` on.
  NRI_HOST_DEVICE int64_t leader_at(int64_t begin, int64_t place) const {
    if (reverse_ == nullptr) return begin + place;
    int64_t edge = begin;
    for (int64_t left = place;; ++edge) {
      if (leads(edge) && left-- == 0) return edge;
    }
  }

  // Gives a leader a type, and the edge that follows it.
  NRI_HOST_DEVICE void set(uint8_t* types, int64_t edge, uint8_t type) const {
    types[edge] = type;
    if (reverse_ != nullptr && reverse_[edge] >= 0) types[reverse_[edge]] = type;
  }

 private:
  const int64_t* reverse_;
};

}  // namespace nri
