// Parameter gradients, added up in an order that does not know how many threads there are: tile t belongs to lane
// t mod kLanes, a lane takes its tiles in order and sums them in its own array, and the lanes are added in order.
#pragma once

#include <algorithm>
#include <functional>

#include "cpu/aligned_vector.h"
#include "cpu/simd.h"
#include "cpu/thread_pool.h"

namespace nri::cpu::NRI_CPU_VARIANT {

constexpr int64_t kGradientLanes = 32;

// The lanes' arrays stay with the calling thread from call to call: fresh memory would have to be mapped page by page,
// which for a small batch takes as long as its arithmetic.
template <typename T>
class GradientLanes {
 public:
  // run(tile, gradients) adds tile's gradient to `gradients` [size], a multiple of a vector. Returns the sum over all
  // tiles, valid until the thread's next call.
  static const T* sum(int64_t size, int threads, int64_t tiles,
                      const std::function<void(int64_t tile, T* gradients)>& run) {
    thread_local AlignedVector<T> kept;
    if (static_cast<int64_t>(kept.size() * sizeof(T)) > kMostKept) AlignedVector<T>().swap(kept);
    const int64_t stride = (size + kLine - 1) / kLine * kLine;
    const int64_t lanes = std::max<int64_t>(1, std::min(tiles, kGradientLanes));
    if (static_cast<int64_t>(kept.size()) < lanes * stride) kept.resize(lanes * stride);
    T* values = kept.data();
    parallel_for(threads, lanes, [&](int64_t lane, int) {
      T* own = values + lane * stride;
      std::fill_n(own, size, T(0));
      for (int64_t tile = lane; tile < tiles; tile += lanes) run(tile, own);
    });
    parallel_for(threads, (size + kPiece - 1) / kPiece, [&](int64_t piece, int) {
      const int64_t first = piece * kPiece, count = std::min(kPiece, size - first);
      for (int64_t lane = 1; lane < lanes; ++lane) {
        const T* other = values + lane * stride + first;
        for (int64_t i = 0; i < count; ++i) values[first + i] += other[i];
      }
    });
    return values;
  }

 private:
  static constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  static constexpr int64_t kPiece = 16384;  // values that a thread adds up over the lanes at a time
  static constexpr int64_t kMostKept = int64_t{128} << 20;
};

}  // namespace nri::cpu::NRI_CPU_VARIANT
