// Lanes: device memory to which one block at a time adds its tile's share of the weights' gradient, and the weights as
// such blocks read them. Tile t of a run belongs to lane t % count(), one tile after another, so a launch has one tile
// for each lane at most.
#pragma once

#include "cuda/fused_gradient_layers.h"
#include "cuda/workspace.h"

namespace nri::cuda::fused {

class GradientLanes {
 public:
  GradientLanes() = default;
  GradientLanes(const FusedLibrary& library, const GradientLibrary& gradient, int64_t count, const float* parameters,
                const Execution& execution);

  bool is_there() const { return count_ > 0; }
  int64_t count() const { return count_; }
  const uint32_t* packed() const { return packed_.data(); }
  float* sums() const { return sums_.data(); }  // [count, all_sums]

  // total [parameters] += the lanes.
  void add_to(double* total, int64_t parameters, const Execution& execution) const;

 private:
  FusedLibrary library_{};
  GradientLibrary gradient_{};
  int64_t count_ = 0;
  Buffer<uint32_t> packed_;
  Buffer<float> sums_;
};

}  // namespace nri::cuda::fused
