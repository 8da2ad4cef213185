#include "ops/linear.h"

#include "cpu/aligned_vector.h"
#include "cpu/arena.h"
#include "cpu/matmul.h"
#include "cpu/thread_pool.h"
#include "cpu/weight_gradient.h"

namespace nri::cpu::NRI_CPU_VARIANT {
namespace {

constexpr int64_t kTileRows = 96;       // rows that a thread takes at a time
constexpr int64_t kRowsTogether = 512;  // rows of a panel that stay near the core while weights' gradients are added up
constexpr int64_t kPanel = 64;          // columns that a thread takes at a time, a multiple of every panel

// Memory that stays with the calling thread: fresh pages would cost as much as the work of a small layer.
template <typename T>
T* packed_room(int64_t count) {
  thread_local AlignedVector<T> kept;
  if (static_cast<int64_t>(kept.size()) < count) kept.resize(count);
  return kept.data();
}

// A [depth, columns] matrix, element (k, c) at source[k * depth_stride + c * column_stride], packed for products.
template <typename T>
const T* pack(const T* source, int64_t depth, int64_t columns, int64_t depth_stride, int64_t column_stride,
              int threads) {
  T* packed = packed_room<T>(depth * padded<T>(columns));
  parallel_for(threads, (columns + kPanel - 1) / kPanel, [&](int64_t panel, int) {
    const int64_t first = panel * kPanel;
    pack_panels(source + first * column_stride, depth, std::min(kPanel, columns - first), depth_stride, column_stride,
                packed + first * depth);
  });
  return packed;
}

// result [rows, columns] = left [rows, depth] * packed, from the bias [padded(columns)] on if there is one.
template <typename T, Start kStart>
void multiply_rows(int64_t rows, int64_t depth, int64_t columns, const T* left, const T* packed, const T* bias,
                   T* result, int threads) {
  const int64_t stride = padded<T>(columns);
  parallel_for(threads, (rows + kTileRows - 1) / kTileRows, [&](int64_t tile, int) {
    const int64_t first = tile * kTileRows, count = std::min(kTileRows, rows - first);
    T* to = stride == columns ? result + first * columns : worker_arena().take<T>(count * stride);
    multiply<T, kStart, Finish::plain>(
        {count, stride, depth, left + first * depth, depth, packed, to, stride, bias, nullptr, 0});
    for (int64_t r = 0; stride != columns && r < count; ++r) {
      std::copy_n(to + r * stride, columns, result + (first + r) * columns);
    }
  });
}

template <typename T>
void linear_variant(const LinearLayer<T>& layer, const T* bias, T* output, const Execution& execution) {
  if (layer.rows == 0) return;
  AlignedVector<T> padded_bias(padded<T>(layer.out));
  if (bias) std::copy_n(bias, layer.out, padded_bias.data());
  const T* packed = pack(layer.weight, layer.in, layer.out, int64_t{1}, layer.in, execution.threads);
  multiply_rows<T, Start::bias>(layer.rows, layer.in, layer.out, layer.input, packed, padded_bias.data(), output,
                                execution.threads);
}

// Columns first .. first + columns - 1 of the weights' gradient, added up over chunks of rows.
template <typename T>
void add_columns(const LinearLayer<T>& layer, const T* output_gradient, int64_t first, int64_t columns,
                 T* weight_gradient) {
  const int64_t width = padded<T>(columns), most = std::min(kRowsTogether, layer.rows);
  Arena& arena = worker_arena();
  T* sum = arena.take<T>(layer.out * width);
  T* inputs = arena.take<T>(most * width);
  std::fill_n(sum, layer.out * width, T(0));
  std::fill_n(inputs, most * width, T(0));
  for (int64_t row = 0; row < layer.rows; row += kRowsTogether) {
    const int64_t count = std::min(kRowsTogether, layer.rows - row);
    for (int64_t r = 0; r < count; ++r) {
      std::copy_n(layer.input + (row + r) * layer.in + first, columns, inputs + r * width);
    }
    const RowPairs<T> pairs{output_gradient + row * layer.out, inputs, count};
    add_outer_products(&pairs, size_t{1}, layer.out, layer.out, width, width, sum, width);
  }
  for (int64_t o = 0; o < layer.out; ++o) std::copy_n(sum + o * width, columns, weight_gradient + o * layer.in + first);
}

template <typename T>
void linear_gradient_variant(const LinearLayer<T>& layer, const T* output_gradient, T* input_gradient,
                             T* weight_gradient, T* bias_gradient, const Execution& execution) {
  parallel_for(execution.threads, (layer.in + kPanel - 1) / kPanel, [&](int64_t panel, int) {
    const int64_t first = panel * kPanel;
    add_columns(layer, output_gradient, first, std::min(kPanel, layer.in - first), weight_gradient);
  });
  parallel_for(execution.threads, bias_gradient ? (layer.out + kPanel - 1) / kPanel : 0, [&](int64_t panel, int) {
    const int64_t first = panel * kPanel, end = std::min(layer.out, first + kPanel);
    std::fill(bias_gradient + first, bias_gradient + end, T(0));
    for (int64_t r = 0; r < layer.rows; ++r) {
      for (int64_t o = first; o < end; ++o) bias_gradient[o] += output_gradient[r * layer.out + o];
    }
  });
  if (!input_gradient || layer.rows == 0) return;
  const T* packed = pack(layer.weight, layer.out, layer.in, layer.in, int64_t{1}, execution.threads);
  multiply_rows<T, Start::zero>(layer.rows, layer.out, layer.in, output_gradient, packed, nullptr, input_gradient,
                                execution.threads);
}

}  // namespace

void linear(const LinearLayer<float>& layer, const float* bias, float* output, const Execution& execution) {
  linear_variant(layer, bias, output, execution);
}
void linear(const LinearLayer<double>& layer, const double* bias, double* output, const Execution& execution) {
  linear_variant(layer, bias, output, execution);
}
void linear_gradient(const LinearLayer<float>& layer, const float* output_gradient, float* input_gradient,
                     float* weight_gradient, float* bias_gradient, const Execution& execution) {
  linear_gradient_variant(layer, output_gradient, input_gradient, weight_gradient, bias_gradient, execution);
}
void linear_gradient(const LinearLayer<double>& layer, const double* output_gradient, double* input_gradient,
                     double* weight_gradient, double* bias_gradient, const Execution& execution) {
  linear_gradient_variant(layer, output_gradient, input_gradient, weight_gradient, bias_gradient, execution);
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
