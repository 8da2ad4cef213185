// A layer's product over the rows of a pass: weights come chunk by chunk through a ring in shared memory, sums stay in
// registers, and results take the place of the inputs.
#pragma once

#include "cuda/fused_block.h"
#include "cuda/fused_words.h"

namespace nri::cuda::fused {

// Warps share the sums as a grid; a warp's products are interleaved with the others', so that short passes and narrow
// layers leave no warp with more than its share.
// kMostRows: of a pass.
template <int kWidest, int kMostRows = kPassRows>
struct WarpGrid {
  static constexpr int kRows = kWidest == 64 ? 4 : 2;
  static constexpr int kColumns = kThreads / kWarpLanes / kRows;
  static constexpr int kRowProducts = kMostRows / 16 / kRows;     // of a warp
  static constexpr int kColumnProducts = kWidest / 8 / kColumns;  // of a warp
};

// Of `count` products dealt in turns to `warps` warps, those of warp w.
NRI_HOST_DEVICE constexpr int share_of(int count, int warp, int warps) { return (count - warp + warps - 1) / warps; }

// Job and Tile: of the kernel. The tile's Cursor knows in which order its passes read their weights.
template <int kWidest, typename Job = EnergyJob, typename Tile = Block>
class WeightRing {
 public:
  static constexpr int kStages = ring_stages(kWidest);

  __device__ WeightRing(const Job& job, const Tile& block) : job_(job), block_(block), passes_(block.counts()[0]) {
    cursor_.begin(job.library, block.passes(), passes_, block.counts()[1]);
    NRI_CUDA_UNROLL
    for (int i = 0; i < kStages - 1; ++i) request();
  }

  // The next chunk's weights, readable up to the next call, which all threads make together: it is a barrier.
  __device__ const uint32_t* next() {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // everyone's part has landed, and the slot of the chunk before this one is free
    request();
    const uint32_t* const weights = slot(read_);
    read_ = read_ + 1 == kStages ? 0 : read_ + 1;
    return weights;
  }

 private:
  __device__ uint32_t* slot(int index) const { return block_.ring() + index * job_.library.widest * kChunkWords; }

  // One group of copies, empty at the end.
  __device__ void request() {
    if (cursor_.steps > 0) {
      constexpr int kWords = kCopyBytes / 4;
      const uint32_t* const from = job_.packed + cursor_.word;
      uint32_t* const to = slot(write_);
      for (int i = block_.thread; i < cursor_.outputs * (kChunkWords / kWords); i += kThreads) {
        copy_async(to + i * kWords, from + i * kWords);
      }
      cursor_.next(job_.library, block_.passes(), passes_);
    }
    close_copy_group();
    write_ = write_ + 1 == kStages ? 0 : write_ + 1;
  }

  const Job& job_;
  const Tile& block_;
  int passes_;
  typename Tile::Cursor cursor_;
  int read_ = 0;
  int write_ = 0;
};

template <Precision kPrecision, int kWidest, typename Tile = Block, int kMostRows = kPassRows>
class LayerProduct {
  using Grid = WarpGrid<kWidest, kMostRows>;

 public:
  __device__ LayerProduct(const Tile& block, const Pass& pass, const FusedLayer& layer) : block_(block), layer_(layer) {
    const int warp = block.thread / kWarpLanes, lane = block.thread % kWarpLanes;
    warp_row_ = warp % Grid::kRows;
    warp_column_ = warp / Grid::kRows;
    group_ = lane / 4;
    place_ = lane % 4;
    rows_ = share_of((pass.rows + 15) / 16, warp_row_, Grid::kRows);
    columns_ = share_of(layer.outputs / 8, warp_column_, Grid::kColumns);
  }

  // Sums begin as biases; products follow from the input's first column to its last. Ends with a barrier.
  template <typename Ring>
  __device__ void run(const float* bias, Ring& ring) {
    start([&](int column) { return column < layer_.out ? bias[column] : 0.0f; });
    multiply(ring);
  }

  // Without biases.
  template <typename Ring>
  __device__ void run(Ring& ring) {
    start([](int) { return 0.0f; });
    multiply(ring);
  }

  // Calls use(row of the pass, column, value, value of the next column) for the thread's sums.
  template <typename Use>
  __device__ void for_results(const Use& use) const {
    NRI_CUDA_UNROLL
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      if (i >= rows_) continue;
      NRI_CUDA_UNROLL
      for (int j = 0; j < Grid::kColumnProducts; ++j) {
        if (j >= columns_) continue;
        use(row_of(i), column_of_product(j), sum_[i][j][0], sum_[i][j][1]);
        use(row_of(i) + 8, column_of_product(j), sum_[i][j][2], sum_[i][j][3]);
      }
    }
  }

 private:
  template <typename Ring>
  __device__ void multiply(Ring& ring) {
    const uint32_t* input = block_.activations() + row_of(0) * block_.layout.stride + 2 * place_;
    for (int chunk = 0; chunk < layer_.chunks; ++chunk, input += kChunkWords) {
      const uint32_t* const weights =
          ring.next() + warp_column_ * (8 * kChunkWords) + group_ * kChunkWords + 2 * place_;
      add_chunk(input, weights);
    }
    __syncthreads();  // nobody reads the inputs any more
  }

  __device__ int row_of(int i) const { return (warp_row_ + Grid::kRows * i) * 16 + group_; }
  __device__ int column_of_product(int j) const { return (warp_column_ + Grid::kColumns * j) * 8 + 2 * place_; }

  // first_of(column): what a column's sums begin as
  template <typename First>
  __device__ void start(const First& first_of) {
    NRI_CUDA_UNROLL
    for (int j = 0; j < Grid::kColumnProducts; ++j) {
      const int column = column_of_product(j);
      const float first = first_of(column), second = first_of(column + 1);
      NRI_CUDA_UNROLL
      for (int i = 0; i < Grid::kRowProducts; ++i) {
        sum_[i][j][0] = sum_[i][j][2] = first;
        sum_[i][j][1] = sum_[i][j][3] = second;
      }
    }
  }

  // A thread's two words of a row, and of an output, are neighbours: the products' words `place` and `place` + 4. Which
  // column of the input is which of the product's does not matter as long as both factors agree.
  __device__ void add_chunk(const uint32_t* input, const uint32_t* weights) {
    uint32_t a[Grid::kRowProducts][4];
    NRI_CUDA_UNROLL
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      if (i >= rows_) continue;
      const uint32_t* const low = input + Grid::kRows * 16 * i * block_.layout.stride;
      const uint2 upper_rows = *reinterpret_cast<const uint2*>(low);
      const uint2 lower_rows = *reinterpret_cast<const uint2*>(low + 8 * block_.layout.stride);
      a[i][0] = upper_rows.x;
      a[i][1] = lower_rows.x;
      a[i][2] = upper_rows.y;
      a[i][3] = lower_rows.y;
    }
    if (kPrecision == Precision::fp32) {
      add_split(a, weights);
    } else {
      NRI_CUDA_UNROLL
      for (int j = 0; j < Grid::kColumnProducts; ++j) {
        if (j >= columns_) continue;
        uint32_t b[2];
        read_weights(weights, j, b);
        NRI_CUDA_UNROLL
        for (int i = 0; i < Grid::kRowProducts; ++i) {
          if (i < rows_) multiply_words<kPrecision>(sum_[i][j], a[i], b);
        }
      }
    }
  }

  // Three products in TF32, the small ones first; that of both remainders is beyond fp32.
  __device__ void add_split(const uint32_t (&a)[Grid::kRowProducts][4], const uint32_t* weights) {
    uint32_t high[Grid::kRowProducts][4], low[Grid::kRowProducts][4];
    NRI_CUDA_UNROLL
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      if (i < rows_) split(a[i], high[i], low[i]);
    }
    NRI_CUDA_UNROLL
    for (int j = 0; j < Grid::kColumnProducts; ++j) {
      if (j >= columns_) continue;
      uint32_t b[2], b_high[2], b_low[2];
      read_weights(weights, j, b);
      split(b, b_high, b_low);
      NRI_CUDA_UNROLL
      for (int i = 0; i < Grid::kRowProducts; ++i) {
        if (i < rows_) multiply_tf32(sum_[i][j], low[i], b_high);
      }
      NRI_CUDA_UNROLL
      for (int i = 0; i < Grid::kRowProducts; ++i) {
        if (i < rows_) multiply_tf32(sum_[i][j], high[i], b_low);
      }
      NRI_CUDA_UNROLL
      for (int i = 0; i < Grid::kRowProducts; ++i) {
        if (i < rows_) multiply_tf32(sum_[i][j], high[i], b_high);
      }
    }
  }

  __device__ static void read_weights(const uint32_t* weights, int j, uint32_t (&b)[2]) {
    const uint2 words = *reinterpret_cast<const uint2*>(weights + Grid::kColumns * 8 * kChunkWords * j);
    b[0] = words.x;
    b[1] = words.y;
  }

  const Tile& block_;
  const FusedLayer& layer_;
  int warp_row_, warp_column_, group_, place_;
  int rows_, columns_;  // products of this warp
  float sum_[Grid::kRowProducts][Grid::kColumnProducts][4];
};

}  // namespace nri::cuda::fused
