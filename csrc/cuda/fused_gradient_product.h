// The gradient of a layer's weights over the rows of a pass: cotangents of the output times the input, on tensor cores
// as three products in TF32, with sums in registers that are then added to a lane in device memory.
#pragma once

#include "cuda/fused_product.h"

namespace nri::cuda::fused {

// Warps share a slice of the weights as a grid, 16 outputs by 8 inputs a product, dealt out in turns. Where a layer has
// more inputs than a slice, there are several, equal ones.
template <int kWidest>
struct WeightGrid {
  static constexpr int kRows = kWidest == 256 ? 8 : 4;
  static constexpr int kColumns = kThreads / kWarpLanes / kRows;
  static constexpr int kRowProducts = kWidest / 16 / kRows;                            // of a warp
  static constexpr int kColumnProducts = kWidest == 64 ? 5 : kWidest == 128 ? 9 : 12;  // of a warp
  static constexpr int kMostColumns = kColumns * kColumnProducts;                      // products, of a slice
  static_assert(kWidest > 128 || kMostColumns * 8 >= kWidest + kMostFeatures, "one slice");
};

struct Slice {
  int begin, end;  // products of 8 inputs
};

NRI_HOST_DEVICE constexpr int count_slices(int products, int most) { return (products + most - 1) / most; }

NRI_HOST_DEVICE constexpr Slice nth_slice(int n, int products, int most) {
  const int slices = count_slices(products, most);
  return {products * n / slices, products * (n + 1) / slices};
}

template <int kWidest>
class WeightGradient {
  using Grid = WeightGrid<kWidest>;
  static constexpr int kReads = Grid::kColumnProducts < 6 ? Grid::kColumnProducts : 6;  // of products, at a time

 public:
  // cotangents: of the layer's output, `rows` of them up to the next multiple of 8, zero in those that are none
  // input: of the layer, as many rows
  __device__ WeightGradient(int thread, const FusedLayer& layer, int rows, const uint32_t* cotangents,
                            int cotangent_stride, const uint32_t* input, int input_stride)
      : layer_(layer),
        rows_(rows),
        cotangents_(cotangents),
        cotangent_stride_(cotangent_stride),
        input_(input),
        input_stride_(input_stride) {
    const int warp = thread / kWarpLanes, lane = thread % kWarpLanes;
    warp_row_ = warp % Grid::kRows;
    warp_column_ = warp / Grid::kRows;
    group_ = lane / 4;
    place_ = lane % 4;
    mine_ = share_of(layer.outputs / 16, warp_row_, Grid::kRows);
  }

  // Adds to the first columns of weight [outputs, stride] and to bias [outputs], if it is given: they belong to this
  // block.
  __device__ void add(float* weight, int stride, float* bias, int columns) {
    const int products = columns / 8, slices = count_slices(products, Grid::kMostColumns);
    for (int n = 0; n < slices; ++n) {
      const Slice slice = nth_slice(n, products, Grid::kMostColumns);
      first_ = slice.begin;
      across_ = share_of(slice.end - slice.begin, warp_column_, Grid::kColumns);
      const bool with_bias = bias != nullptr && n == 0 && warp_column_ == 0;
      multiply();
      add_weights(weight, stride);
      if (with_bias) add_biases(bias);
    }
  }

 private:
  // Rows of the pass are the depth of the products.
  __device__ void multiply() {
    NRI_CUDA_UNROLL
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      bias_[i][0] = bias_[i][1] = 0.0f;
      NRI_CUDA_UNROLL
      for (int j = 0; j < Grid::kColumnProducts; ++j) {
        NRI_CUDA_UNROLL
        for (int k = 0; k < 4; ++k) sum_[i][j][k] = 0.0f;
      }
    }
    const uint32_t* cotangents = cotangents_ + place_ * cotangent_stride_ + warp_row_ * 16 + group_;
    const uint32_t* input = input_ + place_ * input_stride_ + column_of_product(0) + group_;
    for (int row = 0; row < rows_; row += 8) {
      add_rows(cotangents, input);
      cotangents += 8 * cotangent_stride_;
      input += 8 * input_stride_;
    }
  }

  // The small products first, as on the way forwards.
  __device__ void add_rows(const uint32_t* cotangents, const uint32_t* input) {
    uint32_t high[Grid::kRowProducts][4], low[Grid::kRowProducts][4];
    NRI_CUDA_UNROLL
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      if (i >= mine_) continue;
      const uint32_t* const upper = cotangents + Grid::kRows * 16 * i;
      const uint32_t* const lower = upper + 4 * cotangent_stride_;
      const uint32_t a[4] = {upper[0], upper[8], lower[0], lower[8]};
      bias_[i][0] += float_of(a[0]) + float_of(a[2]);
      bias_[i][1] += float_of(a[1]) + float_of(a[3]);
      split(a, high[i], low[i]);
    }
    NRI_CUDA_UNROLL
    for (int j = 0; j < Grid::kColumnProducts; ++j) {
      if (j >= across_) continue;
      const uint32_t* const words = input + Grid::kColumns * 8 * j;
      const uint32_t b[2] = {words[0], words[4 * input_stride_]};
      uint32_t b_high[2], b_low[2];
      split(b, b_high, b_low);
      NRI_CUDA_UNROLL
      for (int i = 0; i < Grid::kRowProducts; ++i) {
        if (i < mine_) multiply_tf32(sum_[i][j], low[i], b_high);
      }
      NRI_CUDA_UNROLL
      for (int i = 0; i < Grid::kRowProducts; ++i) {
        if (i < mine_) multiply_tf32(sum_[i][j], high[i], b_low);
      }
      NRI_CUDA_UNROLL
      for (int i = 0; i < Grid::kRowProducts; ++i) {
        if (i < mine_) multiply_tf32(sum_[i][j], high[i], b_high);
      }
    }
  }

  // Several reads before the writes: memory answers once, not once a product.
  __device__ void add_weights(float* weight, int stride) const {
    NRI_CUDA_UNROLL
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      if (i >= mine_) continue;
      float* const row = weight + output_of(i) * stride + column_of_product(0) + 2 * place_;
      NRI_CUDA_UNROLL
      for (int first = 0; first < Grid::kColumnProducts; first += kReads) {
        uint2 before[kReads][2];
        NRI_CUDA_UNROLL
        for (int n = 0; n < kReads; ++n) {
          if (first + n >= Grid::kColumnProducts || first + n >= across_) continue;
          before[n][0] = *pair(row, first + n);
          before[n][1] = *pair(row + 8 * stride, first + n);
        }
        NRI_CUDA_UNROLL
        for (int n = 0; n < kReads; ++n) {
          const int j = first + n;
          if (j >= Grid::kColumnProducts || j >= across_) continue;
          *pair(row, j) = sum_of(before[n][0], sum_[i][j][0], sum_[i][j][1]);
          *pair(row + 8 * stride, j) = sum_of(before[n][1], sum_[i][j][2], sum_[i][j][3]);
        }
      }
    }
  }

  // The four lanes that share an output have every fourth row: one more product, with ones, adds theirs up.
  __device__ void add_biases(float* bias) const {
    const uint32_t one[2] = {group_ == 0 ? bits_of(1.0f) : 0u, 0u};
    NRI_CUDA_UNROLL
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      if (i >= mine_) continue;
      const uint32_t parts[4] = {bits_of(bias_[i][0]), bits_of(bias_[i][1]), 0u, 0u};
      uint32_t high[4], low[4];
      split(parts, high, low);
      float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      multiply_tf32(sum, low, one);
      multiply_tf32(sum, high, one);
      if (place_ != 0) continue;
      bias[output_of(i)] += sum[0];
      bias[output_of(i) + 8] += sum[2];
    }
  }

  __device__ int output_of(int i) const { return (warp_row_ + Grid::kRows * i) * 16 + group_; }
  __device__ int column_of_product(int j) const { return (first_ + warp_column_ + Grid::kColumns * j) * 8; }
  __device__ static uint2* pair(float* row, int j) { return reinterpret_cast<uint2*>(row + Grid::kColumns * 8 * j); }
  __device__ static uint2 sum_of(uint2 before, float first, float second) {
    return make_uint2(bits_of(float_of(before.x) + first), bits_of(float_of(before.y) + second));
  }

  const FusedLayer& layer_;
  int rows_;
  const uint32_t* cotangents_;
  int cotangent_stride_;
  const uint32_t* input_;
  int input_stride_;
  int warp_row_, warp_column_, group_, place_;
  int mine_, across_;  // products of this warp
  int first_;          // product of the slice's first inputs
  float sum_[Grid::kRowProducts][Grid::kColumnProducts][4];
  float bias_[Grid::kRowProducts][2];
};

}  // namespace nri::cuda::fused
