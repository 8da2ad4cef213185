// The rows of a heat bath in shared memory: which projections make up a row, and their sums, which are the inputs of
// the layers behind the node module's first.
#pragma once

#include "cuda/fused_heat_bath_block.h"
#include "cuda/fused_rows.h"

namespace nri::cuda::fused {

constexpr int kOwnTerms = 2;  // of a row; the terms before them are shared by edge_types^2 rows

// A row of a round: its transition, its receiver, its number among the receiver's, and that of the row before it among
// those that count, or -1.
struct HeatBathRow {
  int transition, receiver, assignment, before;
};

__device__ inline HeatBathRow row_of(const HeatBathJob& job, const HeatBathBlock& block, int index) {
  const int rows = block.passes()->rows;
  HeatBathRow row{index / rows, 0, index % rows, -1};
  const int32_t* const begin = block.row_begin();
  for (int high = block.receivers(); high - row.receiver > 1;) {
    const int middle = (row.receiver + high) / 2;
    if (begin[middle] <= row.assignment) {
      row.receiver = middle;
    } else {
      high = middle;
    }
  }
  row.assignment -= begin[row.receiver];
  row.before = row.assignment - 1;
  if (job.active.assignment != nullptr) {
    const int32_t* const active = job.active.assignment + block.first_row()[row.receiver];
    row.before = row.assignment == 0 ? -1 : active[row.assignment - 1];
    row.assignment = active[row.assignment];
  }
  return row;
}

// The projection of a tile's edge under a type in a transition of the round, or kNoRow.
__device__ inline uint16_t projection_of(const HeatBathJob& job, const HeatBathBlock& block, int edge, int type,
                                         int transition) {
  const int module = type - job.library.first_type, modules = job.library.edge.modules;
  if (module < 0) return kNoRow;
  const uint16_t message = block.message()[edge * modules + module];
  return message == kNoRow ? kNoRow : static_cast<uint16_t>(transition * block.passes()->begin[modules] + message);
}

// Notes what the rows of a pass are sums of. `leading`: of blocks, whether all but the last kOwnTerms terms are those
// of the row before; of conditionals, the edge whose type varies.
__device__ inline void list_terms(const HeatBathJob& job, const HeatBathBlock& block, const RowRange& range) {
  const int i = block.thread, types = static_cast<int>(job.problem.library.edge_types);
  if (i >= range.rows) return;
  const HeatBathRow row = row_of(job, block, range.first + i);
  const int first = block.in_begin()[row.receiver];
  uint16_t* const term = block.term() + i * job.shape.terms;
  block.unit()[i] = static_cast<uint16_t>(row.transition * block.receivers() + row.receiver);
  if (job.problem.rows == HeatBathRows::conditionals) {
    const int edge = row.assignment / types;
    block.leading()[i] = static_cast<uint16_t>(edge);
    term[0] = projection_of(job, block, first + edge, row.assignment % types, row.transition);
    return;
  }
  int left = row.assignment, place = block.free()[row.receiver];
  block.count()[i] = static_cast<uint16_t>(place);
  block.leading()[i] = row.before >= 0 && row.before / (types * types) == row.assignment / (types * types);
  for (int e = block.in_begin()[row.receiver + 1]; place > 0;) {
    if (block.type()[--e] == kHeldEdge) continue;
    term[--place] = projection_of(job, block, e, left % types, row.transition);
    left /= types;
  }
}

// Adds up the rows of a pass: a base, then projections in the order of the edges. A warp takes rows one after another.
template <Precision kPrecision, int kWidest>
class HeatBathRowSums {
 public:
  __device__ HeatBathRowSums(const HeatBathJob& job, const HeatBathBlock& block)
      : job_(job), block_(block), lane_(block.thread % kWarpLanes) {}

  // What is beyond the pass's rows stays as it is: nobody reads what becomes of it.
  __device__ void run(const RowRange& range) {
    const int share = (range.rows + kWarps - 1) / kWarps, first = block_.thread / kWarpLanes * share;
    const int end = first + share < range.rows ? first + share : range.rows;
    const bool conditionals = job_.problem.rows == HeatBathRows::conditionals;
    for (int row = first; row < end; ++row) {
      if (conditionals) {
        add_conditional(row, row == first);
      } else {
        add_assignment(row, row == first);
      }
      store_sum(row);
    }
  }

 private:
  static constexpr int kColumns = columns_of_word(kPrecision);
  static constexpr int kWords = kWidest / kColumns / kWarpLanes;  // of a lane
  using Values = float[kWords][kColumns];

  __device__ int column(int word) const { return (lane_ + kWarpLanes * word) * kColumns; }

  __device__ void add(Values& sum, int projection) const {
    if (projection == kNoRow) return;
    const float* const values = block_.projection(projection);
    NRI_CUDA_UNROLL
    for (int w = 0; w < kWords; ++w) {
      if (column(w) >= block_.layout.width) continue;
      NRI_CUDA_UNROLL
      for (int i = 0; i < kColumns; ++i) sum[w][i] += values[column(w) + i];
    }
  }

  __device__ void start(int unit) {
    const HeatBathSchedule& schedule = *block_.passes();
    const int messages = schedule.begin[job_.library.edge.modules];
    const float* const base = block_.projection(schedule.each * messages + unit);
    NRI_CUDA_UNROLL
    for (int w = 0; w < kWords; ++w) {
      NRI_CUDA_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        leading_[w][i] = column(w) < block_.layout.width ? base[column(w) + i] : 0.0f;
      }
    }
  }

  __device__ void take_leading() {
    NRI_CUDA_UNROLL
    for (int w = 0; w < kWords; ++w) {
      NRI_CUDA_UNROLL
      for (int i = 0; i < kColumns; ++i) sum_[w][i] = leading_[w][i];
    }
  }

  __device__ void add_assignment(int row, bool first) {
    const int count = block_.count()[row];
    const int leading = count > kOwnTerms ? count - kOwnTerms : 0;
    const uint16_t* const term = block_.term() + row * job_.shape.terms;
    if (first || block_.leading()[row] == 0) {
      start(block_.unit()[row]);
      for (int i = 0; i < leading; ++i) add(leading_, term[i]);
    }
    take_leading();
    for (int i = leading; i < count; ++i) add(sum_, term[i]);
  }

  // Edges before the one whose type varies have the same part in the rows of all types.
  __device__ void add_conditional(int row, bool first) {
    const int unit = block_.unit()[row], varying = block_.leading()[row];
    const int transition = unit / block_.receivers(), receiver = unit % block_.receivers();
    const int begin = block_.in_begin()[receiver], end = block_.in_begin()[receiver + 1];
    const auto current = [&](int edge) { return projection_of(job_, block_, edge, block_.type()[edge], transition); };
    if (first || unit != block_.unit()[row - 1]) {
      start(unit);
      reached_ = 0;
    }
    for (; reached_ < varying; ++reached_) add(leading_, current(begin + reached_));
    take_leading();
    add(sum_, block_.term()[row * job_.shape.terms]);
    for (int edge = begin + varying + 1; edge < end; ++edge) add(sum_, current(edge));
  }

  // As the next layer's input, or, where there is none, as the change of the receiver's state.
  __device__ void store_sum(int row) const {
    uint32_t* const place = block_.activations() + row * block_.layout.stride;
    if (job_.library.node.layers == 1) {
      NRI_CUDA_UNROLL
      for (int w = 0; w < kWords; ++w) {
        NRI_CUDA_UNROLL
        for (int i = 0; i < kColumns; ++i) {
          if (column(w) + i < job_.library.features) place[column(w) + i] = bits_of(sum_[w][i]);
        }
      }
      return;
    }
    NRI_CUDA_UNROLL
    for (int w = 0; w < kWords; ++w) {
      if (column(w) >= block_.layout.width) continue;
      const float first = sum_[w][0], second = sum_[w][kColumns - 1];
      place[column(w) / kColumns] =
          word_of<kPrecision>(first < 0.0f ? 0.0f : first, second < 0.0f ? 0.0f : second);  // a NaN passes
    }
  }

  const HeatBathJob& job_;
  const HeatBathBlock& block_;
  const int lane_;
  int reached_ = 0;  // edges whose current type is in the leading part
  Values leading_, sum_;
};

}  // namespace nri::cuda::fused
