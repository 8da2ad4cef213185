#include "cuda/fused_lanes.h"
#include "cuda/mma.h"

namespace nri::cuda::fused {
namespace {

__global__ void pack_products(int64_t words, const __grid_constant__ FusedLibrary library,
                              const __grid_constant__ GradientLibrary gradient, const float* parameters,
                              uint32_t* packed) {
  const int64_t index = global_index();
  if (index >= words) return;
  const int64_t parameter = parameter_of_word(library, gradient, index);
  packed[index] = parameter < 0 ? 0u : bits_of(parameters[parameter]);
}

constexpr int kLaneParts = 8;  // of the lanes: each is added up by itself, then the parts in order

__global__ void add_lanes(int64_t parameters, const __grid_constant__ FusedLibrary library,
                          const __grid_constant__ GradientLibrary gradient, int64_t lanes, const float* sums,
                          double* total) {
  __shared__ double part_sums[kLaneParts][kWarpLanes];
  const int part = static_cast<int>(threadIdx.x) / kWarpLanes, lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int64_t parameter = static_cast<int64_t>(blockIdx.x) * kWarpLanes + lane;
  double sum = 0.0;
  if (parameter < parameters) {
    const float* const mine = sums + lane_place(library, gradient, parameter);
    for (int64_t n = part; n < lanes; n += kLaneParts) sum += static_cast<double>(mine[n * gradient.all_sums]);
  }
  part_sums[part][lane] = sum;
  __syncthreads();
  if (part != 0 || parameter >= parameters) return;
  sum = total[parameter];
  for (int n = 0; n < kLaneParts; ++n) sum += part_sums[n][lane];
  total[parameter] = sum;
}

}  // namespace

GradientLanes::GradientLanes(const FusedLibrary& library, const GradientLibrary& gradient, int64_t count,
                             const float* parameters, const Execution& execution)
    : library_(library),
      gradient_(gradient),
      count_(count),
      packed_(gradient.all_words, execution),
      sums_(count * gradient.all_sums, execution) {
  launch_elements("pack_products", pack_products, gradient.all_words, execution, library, gradient, parameters,
                  packed_.data());
  sums_.fill(0);
}

void GradientLanes::add_to(double* total, int64_t parameters, const Execution& execution) const {
  if (count_ == 0) return;
  launch("add_lanes", add_lanes, ceil_div(parameters, kWarpLanes), kLaneParts * kWarpLanes, execution, parameters,
         library_, gradient_, count_, sums_.data(), total);
}

}  // namespace nri::cuda::fused
