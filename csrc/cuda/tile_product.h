// A block's part of a layer: 64 rows by a panel of columns of left times right. Sums run
// over the depth in ascending order, eight terms at a time on tensor cores, so that an element's bits depend on its row
// and its column alone.
//
// float: tensor cores, each product made of three in TF32 (fused_words.h), which is as exact as fp32 or nearly so and
// several times as fast. double: multiply-adds of the threads' own.
#pragma once

#include "cuda/fused_words.h"
#include "cuda/plans.h"

namespace nri::cuda {

// One factor's terms of a stage in shared memory, two stages in turns.
template <typename T, int kCount, bool kByDepth>
struct StagedFactor {
  using Layout = StagedLayout<kCount, kByDepth>;
  T value[2][Layout::kWords];

  __device__ T at(int buffer, int row, int term) const { return value[buffer][Layout::place(row, term)]; }
};

// Columns of a block: wide enough that inputs are read few times, no more sums than registers hold.
template <typename T>
constexpr int kWidePanel = 64;
template <>
constexpr int kWidePanel<double> = 32;

// A factor in global memory: its row m's term k at first[m * row_stride + k * term_stride], for rows below `rows`; of
// row `ones` all terms are 1, of all others 0.
template <typename T>
struct Factor {
  const T* first;
  int64_t row_stride, term_stride;
  int64_t rows;
  int64_t ones = -1;
};

// A factor's terms on their way from global memory: read while the stage before is multiplied, stored after it.
template <typename T, int kCount, int kThreads, bool kByDepth>
class FactorReader {
 public:
  using Staged = StagedFactor<T, kCount, kByDepth>;
  using Layout = StagedLayout<kCount, kByDepth>;

  __device__ explicit FactorReader(const Factor<T>& factor)
      : row_(static_cast<int>(threadIdx.x) / (kByDepth ? Layout::kLine : 1) % kCount),
        term_(static_cast<int>(threadIdx.x) / (kByDepth ? 1 : Layout::kLine) % kProductDepth),
        from_(factor.first + row_ * factor.row_stride + term_ * factor.term_stride),
        step_(kByDepth ? kStep * factor.row_stride : kStep * factor.term_stride),
        stage_(kProductDepth * factor.term_stride),
        rows_(factor.rows),
        ones_(factor.ones) {}

  // The next stage's; `terms` are left.
  __device__ void read(int64_t terms) {
    const T* place = from_;
    NRI_CUDA_UNROLL
    for (int i = 0; i < kShare; ++i, place += step_) {
      const int row = row_ + (kByDepth ? i * kStep : 0), term = term_ + (kByDepth ? 0 : i * kStep);
      value_[i] = T(0);
      if (term < terms) value_[i] = row < rows_ ? *place : T(row == ones_ ? 1 : 0);
    }
    from_ += stage_;
  }
  __device__ void store(Staged* staged, int buffer) const {
    NRI_CUDA_UNROLL
    for (int i = 0; i < kShare; ++i) {
      const int row = row_ + (kByDepth ? i * kStep : 0), term = term_ + (kByDepth ? 0 : i * kStep);
      staged->value[buffer][Layout::place(row, term)] = value_[i];
    }
  }

 private:
  static constexpr int kShare = kCount * kProductDepth / kThreads;
  static constexpr int kStep = kThreads / Layout::kLine;  // lines that the threads read at a time
  static_assert(kStep * Layout::kLine == kThreads && kShare * kThreads == kCount * kProductDepth,
                "nothing is left over");

  int row_, term_;
  const T* from_;
  int64_t step_, stage_;
  int64_t rows_, ones_;
  T value_[kShare];
};

// The threads' sums, and how they grow by a stage.
template <typename T, int kColumns>
class TileSums;

template <int kColumns>
class TileSums<double, kColumns> {
  static constexpr int kPerThread = kColumns / 8;

 public:
  static constexpr int kThreads = 64;
  static constexpr int kBlocks = 4;  // that a processor's registers are shared by, at least

  template <typename Left, typename Right>
  __device__ void add(const Left& left, const Right& right, int buffer) {
    NRI_CUDA_UNROLL_BY(4)
    for (int k = 0; k < kProductDepth; ++k) {
      double row[8], column[kPerThread];
      NRI_CUDA_UNROLL
      for (int i = 0; i < 8; ++i) row[i] = left.at(buffer, tile_row(thread(), i), k);
      NRI_CUDA_UNROLL
      for (int j = 0; j < kPerThread; ++j) column[j] = right.at(buffer, tile_column<kPerThread>(thread(), j), k);
      NRI_CUDA_UNROLL
      for (int i = 0; i < 8; ++i) {
        NRI_CUDA_UNROLL
        for (int j = 0; j < kPerThread; ++j) sum_[i][j] += row[i] * column[j];
      }
    }
  }

  template <typename Use>
  __device__ void for_own(const Use& use) const {
    NRI_CUDA_UNROLL
    for (int j = 0; j < kPerThread; ++j) {
      NRI_CUDA_UNROLL
      for (int i = 0; i < 8; ++i) use(tile_row(thread(), i), tile_column<kPerThread>(thread(), j), sum_[i][j]);
    }
  }

 private:
  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  double sum_[8][kPerThread] = {};
};

template <int kColumns>
class TileSums<float, kColumns> {
  using Grid = TensorGrid<kColumns>;

 public:
  static constexpr int kThreads = Grid::kThreads;
  static constexpr int kBlocks = 512 / kThreads;

  template <typename Left, typename Right>
  __device__ void add(const Left& left, const Right& right, int buffer) {
    const int lane_row = thread() % kWarpLanes / 4, place = thread() % 4;
    NRI_CUDA_UNROLL
    for (int k = place; k < kProductDepth; k += 8) {
      uint32_t high[Grid::kRowProducts][4], low[Grid::kRowProducts][4];
      NRI_CUDA_UNROLL
      for (int i = 0; i < Grid::kRowProducts; ++i) {
        const int row = Grid::first_row(thread(), i) + lane_row;
        const uint32_t a[4] = {bits_of(left.at(buffer, row, k)), bits_of(left.at(buffer, row + 8, k)),
                               bits_of(left.at(buffer, row, k + 4)), bits_of(left.at(buffer, row + 8, k + 4))};
        fused::split(a, high[i], low[i]);
      }
      NRI_CUDA_UNROLL
      for (int j = 0; j < Grid::kColumnProducts; ++j) {
        const int column = Grid::first_column(thread(), j) + lane_row;
        const uint32_t b[2] = {bits_of(right.at(buffer, column, k)), bits_of(right.at(buffer, column, k + 4))};
        uint32_t b_high[2], b_low[2];
        fused::split(b, b_high, b_low);
        // The small products first; that of both remainders is beyond fp32.
        NRI_CUDA_UNROLL
        for (int i = 0; i < Grid::kRowProducts; ++i) multiply_tf32(sum_[i][j], low[i], b_high);
        NRI_CUDA_UNROLL
        for (int i = 0; i < Grid::kRowProducts; ++i) multiply_tf32(sum_[i][j], high[i], b_low);
        NRI_CUDA_UNROLL
        for (int i = 0; i < Grid::kRowProducts; ++i) multiply_tf32(sum_[i][j], high[i], b_high);
      }
    }
  }

  template <typename Use>
  __device__ void for_own(const Use& use) const {
    NRI_CUDA_UNROLL
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      NRI_CUDA_UNROLL
      for (int j = 0; j < Grid::kColumnProducts; ++j) {
        NRI_CUDA_UNROLL
        for (int n = 0; n < 4; ++n) use(Grid::row(thread(), i, n), Grid::column(thread(), j, n), sum_[i][j][n]);
      }
    }
  }

 private:
  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  float sum_[Grid::kRowProducts][Grid::kColumnProducts][4] = {};
};

// Adds the sum over terms k < depth of left(row, k) * right(column, k) to the sums. The flags tell whether neighbouring
// terms lie side by side, or neighbouring rows (columns).
template <bool kLeftByDepth, bool kRightByDepth, typename T, int kColumns>
__device__ inline void multiply_tile(int64_t depth, const Factor<T>& left, const Factor<T>& right,
                                     TileSums<T, kColumns>* sums) {
  constexpr int kThreads = TileSums<T, kColumns>::kThreads;
  using Rows = FactorReader<T, kProductRows, kThreads, kLeftByDepth>;
  using Columns = FactorReader<T, kColumns, kThreads, kRightByDepth>;
  __shared__ typename Rows::Staged staged_rows;
  __shared__ typename Columns::Staged staged_columns;
  Rows rows(left);
  Columns columns(right);
  rows.read(depth);
  columns.read(depth);
  int buffer = 0;
  for (int64_t terms = depth; terms > 0; terms -= kProductDepth, buffer ^= 1) {
    rows.store(&staged_rows, buffer);
    columns.store(&staged_columns, buffer);
    __syncthreads();  // and nobody multiplies what the other buffer held before
    if (terms > kProductDepth) {
      rows.read(terms - kProductDepth);
      columns.read(terms - kProductDepth);
    }
    sums->add(staged_rows, staged_columns, buffer);
  }
}

}  // namespace nri::cuda
