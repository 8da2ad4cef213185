#include "cuda/typed_linear.h"

namespace nri::cuda {
namespace {

constexpr int kThreads = 64;  // 8 x 8 threads share a tile; each keeps 8 rows of it and kPerThread columns
constexpr int kDepth = 16;    // terms of the sums that are staged at a time
constexpr int kTile = static_cast<int>(kTileRows);

// The rows and columns of a tile that this thread sums.
__device__ inline int own_row(int i) { return tile_row(static_cast<int>(threadIdx.x), i); }

template <int kPerThread>
__device__ inline int own_column(int j) {
  return tile_column<kPerThread>(static_cast<int>(threadIdx.x), j);
}

// sum[i][j] += left(own_row(i), k) * right(own_column(j), k) for k = 0 .. depth - 1, in this order. The flags tell
// which index runs over neighbouring addresses.
template <typename T, int kPerThread, bool kLeftByRow, bool kRightByColumn, typename Left, typename Right>
__device__ inline void multiply_tile(int64_t depth, const Left& left, const Right& right, T (&sum)[8][kPerThread]) {
  constexpr int kColumns = 8 * kPerThread;
  alignas(16) __shared__ T a[2][kDepth][kTile + 4];
  alignas(16) __shared__ T b[2][kDepth][kColumns + 4];
  const int64_t stages = (depth + kDepth - 1) / kDepth;
  const auto load = [&](int64_t stage) {
    const int buffer = static_cast<int>(stage & 1);
    NRI_CUDA_UNROLL_BY(4)  // no more: the addresses of all 16 do not fit in the registers
    for (int n = 0; n < kTile * kDepth / kThreads; ++n) {
      const int index = n * kThreads + static_cast<int>(threadIdx.x);
      const int m = kLeftByRow ? index % kTile : index / kDepth;
      const int k = kLeftByRow ? index / kTile : index % kDepth;
      a[buffer][k][m] = stage * kDepth + k < depth ? left(m, stage * kDepth + k) : T(0);
    }
    NRI_CUDA_UNROLL_BY(4)
    for (int n = 0; n < kColumns * kDepth / kThreads; ++n) {
      const int index = n * kThreads + static_cast<int>(threadIdx.x);
      const int m = kRightByColumn ? index % kColumns : index / kDepth;
      const int k = kRightByColumn ? index / kColumns : index % kDepth;
      b[buffer][k][m] = stage * kDepth + k < depth ? right(m, stage * kDepth + k) : T(0);
    }
  };
  if (stages > 0) load(0);
  for (int64_t stage = 0; stage < stages; ++stage) {
    __syncthreads();
    if (stage + 1 < stages) load(stage + 1);
    const int buffer = static_cast<int>(stage & 1);
    NRI_CUDA_UNROLL_BY(4)
    for (int k = 0; k < kDepth; ++k) {
      T row[8];
      T column[kPerThread];
      NRI_CUDA_UNROLL
      for (int i = 0; i < 8; ++i) row[i] = a[buffer][k][own_row(i)];
      NRI_CUDA_UNROLL
      for (int j = 0; j < kPerThread; ++j) column[j] = b[buffer][k][own_column<kPerThread>(j)];
      NRI_CUDA_UNROLL
      for (int i = 0; i < 8; ++i) {
        NRI_CUDA_UNROLL
        for (int j = 0; j < kPerThread; ++j) sum[i][j] += row[i] * column[j];
      }
    }
  }
}

template <typename T, int kPerThread>
__global__ void __launch_bounds__(kThreads)
    linear_kernel(SlotView slots, Layer layer, const T* parameters, const T* x, T* y) {
  constexpr int kColumns = 8 * kPerThread;
  const int64_t column_tiles = ceil_div(layer.out, kColumns);
  const int64_t tile = blockIdx.x / column_tiles;
  const int64_t first_column = blockIdx.x % column_tiles * kColumns;
  const int32_t bucket = slots.tile_bucket[tile];
  if (bucket < 0) return;
  const int64_t shift = bucket % slots.classes * layer.module_stride;
  const T* weight = parameters + layer.weight + shift;
  const T* tile_x = x + tile * kTileRows * layer.in;
  T sum[8][kPerThread] = {};
  multiply_tile<T, kPerThread, false, false>(
      layer.in, [&](int m, int64_t k) { return tile_x[m * layer.in + k]; },
      [&](int m, int64_t k) {
        return first_column + m < layer.out ? weight[(first_column + m) * layer.row_stride + k] : T(0);
      },
      sum);
  NRI_CUDA_UNROLL
  for (int j = 0; j < kPerThread; ++j) {
    const int64_t column = first_column + own_column<kPerThread>(j);
    if (column >= layer.out) continue;
    const T bias = layer.bias < 0 ? T(0) : parameters[layer.bias + shift + column];
    NRI_CUDA_UNROLL
    for (int i = 0; i < 8; ++i) {
      const T value = sum[i][j] + bias;
      const bool cut = layer.relu && value < T(0);  // a NaN passes
      y[(tile * kTileRows + own_row(i)) * layer.out + column] = cut ? T(0) : value;
    }
  }
}

template <typename T, int kPerThread>
__global__ void __launch_bounds__(kThreads)
    input_gradient_kernel(SlotView slots, Layer layer, const T* parameters, const T* dy, const T* rectified, T* dx) {
  constexpr int kColumns = 8 * kPerThread;
  const int64_t column_tiles = ceil_div(layer.in, kColumns);
  const int64_t tile = blockIdx.x / column_tiles;
  const int64_t first_column = blockIdx.x % column_tiles * kColumns;
  const int32_t bucket = slots.tile_bucket[tile];
  if (bucket < 0) return;
  const T* weight = parameters + layer.weight + bucket % slots.classes * layer.module_stride;
  const T* tile_dy = dy + tile * kTileRows * layer.out;
  T sum[8][kPerThread] = {};
  multiply_tile<T, kPerThread, false, true>(
      layer.out, [&](int m, int64_t k) { return tile_dy[m * layer.out + k]; },
      [&](int m, int64_t k) {
        return first_column + m < layer.in ? weight[k * layer.row_stride + first_column + m] : T(0);
      },
      sum);
  NRI_CUDA_UNROLL
  for (int j = 0; j < kPerThread; ++j) {
    const int64_t column = first_column + own_column<kPerThread>(j);
    if (column >= layer.in) continue;
    NRI_CUDA_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int64_t place = (tile * kTileRows + own_row(i)) * layer.in + column;
      const bool cut = rectified != nullptr && !(rectified[place] > T(0));
      dx[place] = cut ? T(0) : sum[i][j];
    }
  }
}

// Rows of the tile are outputs, columns are inputs; the bias is one more input that is always 1.
template <typename T>
__global__ void __launch_bounds__(kThreads) weight_gradient_kernel(SlotView slots, Layer layer, const T* dy, const T* x,
                                                                   T* group_gradients, int64_t group_stride) {
  const int64_t columns = layer.in + (layer.bias < 0 ? 0 : 1);
  const int64_t column_tiles = ceil_div(columns, kTile);
  const int64_t row_tiles = ceil_div(layer.out, kTile);
  const int64_t first_column = blockIdx.x % column_tiles * kTile;
  const int64_t first_row = blockIdx.x / column_tiles % row_tiles * kTile;
  const int64_t bucket = blockIdx.x / column_tiles / row_tiles;
  const int64_t depth = slots.count[bucket];
  if (depth == 0) return;
  const T* bucket_dy = dy + slots.start[bucket] * layer.out;
  const T* bucket_x = x + slots.start[bucket] * layer.in;
  T sum[8][8] = {};
  multiply_tile<T, 8, true, true>(
      depth,
      [&](int m, int64_t k) { return first_row + m < layer.out ? bucket_dy[k * layer.out + first_row + m] : T(0); },
      [&](int m, int64_t k) {
        const int64_t column = first_column + m;
        return column < layer.in ? bucket_x[k * layer.in + column] : T(column == layer.in ? 1 : 0);
      },
      sum);
  const int64_t shift = bucket % slots.classes * layer.module_stride;
  T* gradient = group_gradients + bucket / slots.classes * group_stride + shift;
  NRI_CUDA_UNROLL
  for (int i = 0; i < 8; ++i) {
    const int64_t row = first_row + own_row(i);
    if (row >= layer.out) continue;
    NRI_CUDA_UNROLL
    for (int j = 0; j < 8; ++j) {
      const int64_t column = first_column + own_column<8>(j);
      if (column >= columns) continue;
      gradient[column < layer.in ? layer.weight + row * layer.row_stride + column : layer.bias + row] += sum[i][j];
    }
  }
}

}  // namespace

template <typename T>
void typed_linear(const SlotView& slots, const Layer& layer, const T* parameters, const T* x, T* y,
                  const Execution& execution) {
  const int64_t tiles = slots.slots / kTileRows;
  if (layer.out <= 8) {
    launch("typed_linear", linear_kernel<T, 1>, tiles, kThreads, execution, slots, layer, parameters, x, y);
  } else {
    launch("typed_linear", linear_kernel<T, 8>, tiles * ceil_div(layer.out, 64), kThreads, execution, slots, layer,
           parameters, x, y);
  }
}

template <typename T>
void typed_linear_input_gradient(const SlotView& slots, const Layer& layer, const T* parameters, const T* dy,
                                 const T* rectified, T* dx, const Execution& execution) {
  const int64_t tiles = slots.slots / kTileRows;
  if (layer.in <= 8) {
    launch("typed_linear_input_gradient", input_gradient_kernel<T, 1>, tiles, kThreads, execution, slots, layer,
           parameters, dy, rectified, dx);
  } else {
    launch("typed_linear_input_gradient", input_gradient_kernel<T, 8>, tiles * ceil_div(layer.in, 64), kThreads,
           execution, slots, layer, parameters, dy, rectified, dx);
  }
}

template <typename T>
void typed_linear_weight_gradient(const SlotView& slots, const Layer& layer, const T* dy, const T* x,
                                  T* group_gradients, int64_t group_stride, const Execution& execution) {
  if (slots.slots == 0) return;
  const int64_t tiles = ceil_div(layer.out, kTile) * ceil_div(layer.in + (layer.bias < 0 ? 0 : 1), kTile);
  launch("typed_linear_weight_gradient", weight_gradient_kernel<T>, slots.buckets * tiles, kThreads, execution, slots,
         layer, dy, x, group_gradients, group_stride);
}

#define NRI_INSTANTIATE(T)                                                                                   \
  template void typed_linear(const SlotView&, const Layer&, const T*, const T*, T*, const Execution&);       \
  template void typed_linear_input_gradient(const SlotView&, const Layer&, const T*, const T*, const T*, T*, \
                                            const Execution&);                                               \
  template void typed_linear_weight_gradient(const SlotView&, const Layer&, const T*, const T*, T*, int64_t, \
                                             const Execution&);
NRI_INSTANTIATE(float)
NRI_INSTANTIATE(double)
#undef NRI_INSTANTIATE

}  // namespace nri::cuda
