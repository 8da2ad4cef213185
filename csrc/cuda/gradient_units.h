// How a parameter gradient is cut up. The sum over rows runs in three levels, all fixed by the batch alone and never
// by the memory at hand: rows of one group are summed in order, a unit is a run of groups, units follow one another.
// A chunk of work is a run of whole units, so its size changes no bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cuda/workspace.h"

namespace nri::cuda {

#if defined(NRI_CUDA_EMULATED)
constexpr int64_t kGroupRows = 96;  // so that small tests have several groups and units
constexpr int64_t kSplitRows = 384;
#else
constexpr int64_t kGroupRows = 1024;   // rows that one partial sum covers, more or less
constexpr int64_t kSplitRows = 65536;  // a system with more rows has its replicas dealt out to several units
#endif

// rows(system): the most rows of any kind that one replica of the system has.
template <typename Rows>
std::vector<Unit> plan_units(int64_t systems, int64_t replicas, const Rows& rows) {
  return plan_units(systems, replicas, kGroupRows, kSplitRows, rows);
}

// Appends the ends of the groups into which a unit's items are dealt.
inline void append_groups(std::vector<int64_t>& item_offset, int64_t items, const Unit& unit) {
  append_groups(item_offset, items, unit, kGroupRows);
}

// At most how many groups append_groups makes of so many units.
inline int64_t most_groups(int64_t items, int64_t replicas, int64_t units) {
  return items * replicas / kGroupRows + units;
}

// Consecutive units with the same replicas.
using Chunk = std::vector<Unit>;

// Calls work(chunk, span) for chunks whose estimate bytes(span, units) fits; smaller ones when memory runs out. `span`
// is the chunk as one unit.
template <typename Bytes, typename Work>
void for_unit_chunks(const std::vector<Unit>& units, const Execution& execution, const Bytes& bytes, const Work& work) {
  int64_t budget = workspace_budget(execution);
  const int64_t count = static_cast<int64_t>(units.size());
  for (int64_t first = 0; first < count;) {
    const auto together = [&](int64_t end) {
      return Unit{units[first].first_system, units[end - 1].end_system, units[first].first_replica,
                  units[first].end_replica};
    };
    int64_t end = first + 1;
    while (end < count && units[end].first_system == units[end - 1].end_system &&
           units[end].first_replica == units[first].first_replica &&
           units[end].end_replica == units[first].end_replica) {
      ++end;
    }
    end = last_fitting(first + 1, end, [&](int64_t last) { return bytes(together(last), last - first) <= budget; });
    const Unit span = together(end);
    const Chunk chunk(units.begin() + first, units.begin() + end);
    try {
      work(chunk, span);
      first = end;
    } catch (const OutOfMemory&) {
      if (chunk.size() == 1) throw;
      budget = smaller_budget(budget);
    }
  }
}

// The gradient under way: per-group sums of the chunk in work, and the total of the chunks done, in double.
template <typename T>
class GradientSum {
 public:
  GradientSum(int64_t parameters, const Execution& execution) : execution_(execution), total_(parameters, execution) {
    total_.fill(0);
  }
  int64_t parameters() const { return total_.count(); }
  double* total() const { return total_.data(); }
  // Zeroed memory [groups, parameters] for a chunk.
  Buffer<T> group_sums(int64_t groups) const {
    Buffer<T> sums(groups * parameters(), execution_);
    sums.fill(0);
    return sums;
  }
  void add(const Buffer<T>& group_sums) const;  // group after group
  void write(T* parameter_gradient) const;

 private:
  Execution execution_;
  Buffer<double> total_;
};

}  // namespace nri::cuda
