// Parameter gradients, added up in an order that does not know how many threads there are: tile t belongs to lane
// t mod kLanes, a lane takes its tiles in order and sums them in its own array, and the lanes are added in order.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "cpu/simd.h"
#include "cpu/thread_pool.h"

namespace nri::cpu::NRI_CPU_VARIANT {

constexpr int64_t kGradientLanes = 32;

// run(tile, gradients) adds tile's gradient to `gradients` [size]; returns the sum over all tiles.
template <typename T>
std::vector<T> sum_gradients(int64_t size, int threads, int64_t tiles,
                             const std::function<void(int64_t tile, T* gradients)>& run) {
  const int64_t lanes = std::min(tiles, kGradientLanes);
  std::vector<std::vector<T>> sums(lanes);
  parallel_for(threads, lanes, [&](int64_t lane, int) {
    sums[lane].assign(size, T(0));
    for (int64_t tile = lane; tile < tiles; tile += lanes) run(tile, sums[lane].data());
  });
  std::vector<T> total(size, T(0));
  for (const std::vector<T>& lane : sums) {
    for (int64_t i = 0; i < size; ++i) total[i] += lane[i];
  }
  return total;
}

}  // namespace nri::cpu::NRI_CPU_VARIANT
