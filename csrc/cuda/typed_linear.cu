#include <type_traits>

#include "cuda/tile_product.h"
#include "cuda/typed_linear.h"

namespace nri::cuda {
namespace {

static_assert(kTileRows == kProductRows, "a block takes a tile");

template <typename T, int kColumns>
__global__ void __launch_bounds__(TileSums<T, kColumns>::kThreads, TileSums<T, kColumns>::kBlocks)
    linear_kernel(SlotView slots, Layer layer, const T* parameters, const T* x, T* y) {
  const int64_t column_tiles = ceil_div(layer.out, kColumns);
  const int64_t tile = blockIdx.x / column_tiles;
  const int64_t first_column = blockIdx.x % column_tiles * kColumns;
  const int32_t bucket = slots.tile_bucket[tile];
  if (bucket < 0) return;
  const int64_t shift = bucket % slots.classes * layer.module_stride;
  TileSums<T, kColumns> sums;
  const T* weight = parameters + layer.weight + shift + first_column * layer.row_stride;
  multiply_tile<true, true>(layer.in, Factor<T>{x + tile * kTileRows * layer.in, layer.in, 1, kTileRows},
                            Factor<T>{weight, layer.row_stride, 1, layer.out - first_column}, &sums);
  sums.for_own([&](int m, int n, T sum) {
    const int64_t column = first_column + n;
    if (column >= layer.out) return;
    const T value = sum + (layer.bias < 0 ? T(0) : parameters[layer.bias + shift + column]);
    const bool cut = layer.relu && value < T(0);  // a NaN passes
    y[(tile * kTileRows + m) * layer.out + column] = cut ? T(0) : value;
  });
}

template <typename T, int kColumns>
__global__ void __launch_bounds__(TileSums<T, kColumns>::kThreads, TileSums<T, kColumns>::kBlocks)
    input_gradient_kernel(SlotView slots, Layer layer, const T* parameters, const T* dy, const T* rectified, T* dx) {
  const int64_t column_tiles = ceil_div(layer.in, kColumns);
  const int64_t tile = blockIdx.x / column_tiles;
  const int64_t first_column = blockIdx.x % column_tiles * kColumns;
  const int32_t bucket = slots.tile_bucket[tile];
  if (bucket < 0) return;
  TileSums<T, kColumns> sums;
  const T* weight = parameters + layer.weight + bucket % slots.classes * layer.module_stride + first_column;
  multiply_tile<true, false>(layer.out, Factor<T>{dy + tile * kTileRows * layer.out, layer.out, 1, kTileRows},
                             Factor<T>{weight, 1, layer.row_stride, layer.in - first_column}, &sums);
  sums.for_own([&](int m, int n, T sum) {
    const int64_t column = first_column + n;
    if (column >= layer.in) return;
    const int64_t place = (tile * kTileRows + m) * layer.in + column;
    const bool cut = rectified != nullptr && !(rectified[place] > T(0));
    dx[place] = cut ? T(0) : sum;
  });
}

// Rows of the tile are outputs, columns are inputs; the bias is one more input that is always 1.
template <typename T>
__global__ void __launch_bounds__(TileSums<T, kWidePanel<T>>::kThreads, TileSums<T, kWidePanel<T>>::kBlocks)
    weight_gradient_kernel(SlotView slots, Layer layer, const T* dy, const T* x, T* group_gradients,
                           int64_t group_stride) {
  const int64_t columns = layer.in + (layer.bias < 0 ? 0 : 1);
  const int64_t column_tiles = ceil_div(columns, kWidePanel<T>);
  const int64_t row_tiles = ceil_div(layer.out, kProductRows);
  const int64_t first_column = blockIdx.x % column_tiles * kWidePanel<T>;
  const int64_t first_row = blockIdx.x / column_tiles % row_tiles * kProductRows;
  const int64_t bucket = blockIdx.x / column_tiles / row_tiles;
  const int64_t depth = slots.count[bucket];
  if (depth == 0) return;
  const T* outputs = dy + slots.start[bucket] * layer.out + first_row;
  const T* inputs = x + slots.start[bucket] * layer.in + first_column;
  const int64_t left = layer.in - first_column;
  TileSums<T, kWidePanel<T>> sums;
  multiply_tile<false, false>(depth, Factor<T>{outputs, 1, layer.out, layer.out - first_row},
                              Factor<T>{inputs, 1, layer.in, left, left}, &sums);
  const int64_t shift = bucket % slots.classes * layer.module_stride;
  T* gradient = group_gradients + bucket / slots.classes * group_stride + shift;
  sums.for_own([&](int m, int n, T sum) {
    const int64_t row = first_row + m, column = first_column + n;
    if (row >= layer.out || column >= columns) return;
    gradient[column < layer.in ? layer.weight + row * layer.row_stride + column : layer.bias + row] += sum;
  });
}

// Calls use(columns of a block as a constant).
template <typename T, typename Use>
void with_panel(int64_t columns, const Use& use) {
  if (columns <= 8) return use(std::integral_constant<int, 8>{});
  if constexpr (std::is_same_v<T, float>) {
    if (columns > 64) return use(std::integral_constant<int, 128>{});
  }
  use(std::integral_constant<int, kWidePanel<T>>{});
}

}  // namespace

template <typename T>
void typed_linear(const SlotView& slots, const Layer& layer, const T* parameters, const T* x, T* y,
                  const Execution& execution) {
  const int64_t tiles = slots.slots / kTileRows;
  with_panel<T>(layer.out, [&](auto panel) {
    constexpr int kColumns = decltype(panel)::value;
    launch("typed_linear", linear_kernel<T, kColumns>, tiles * ceil_div(layer.out, kColumns),
           TileSums<T, kColumns>::kThreads, execution, slots, layer, parameters, x, y);
  });
}

template <typename T>
void typed_linear_input_gradient(const SlotView& slots, const Layer& layer, const T* parameters, const T* dy,
                                 const T* rectified, T* dx, const Execution& execution) {
  const int64_t tiles = slots.slots / kTileRows;
  with_panel<T>(layer.in, [&](auto panel) {
    constexpr int kColumns = decltype(panel)::value;
    launch("typed_linear_input_gradient", input_gradient_kernel<T, kColumns>, tiles * ceil_div(layer.in, kColumns),
           TileSums<T, kColumns>::kThreads, execution, slots, layer, parameters, dy, rectified, dx);
  });
}

template <typename T>
void typed_linear_weight_gradient(const SlotView& slots, const Layer& layer, const T* dy, const T* x,
                                  T* group_gradients, int64_t group_stride, const Execution& execution) {
  if (slots.slots == 0) return;
  const int64_t columns = layer.in + (layer.bias < 0 ? 0 : 1);
  const int64_t tiles = ceil_div(layer.out, kProductRows) * ceil_div(columns, kWidePanel<T>);
  launch("typed_linear_weight_gradient", weight_gradient_kernel<T>, slots.buckets * tiles,
         TileSums<T, kWidePanel<T>>::kThreads, execution, slots, layer, dy, x, group_gradients, group_stride);
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
