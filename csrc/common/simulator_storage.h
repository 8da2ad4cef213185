// What a system's simulation keeps: in local arrays of fixed size for the common sizes, 5 and 10 entities (registers on
// a GPU), in scratch memory that the caller provides for any other.
#pragma once

#include <cstdint>

#include "common/host_device.h"

#if defined(__CUDA_ARCH__)
#define NRI_UNROLL _Pragma("unroll")
#else
#define NRI_UNROLL
#endif

namespace nri {
namespace simulators {

constexpr int64_t kFeatures = 4;

// Place of the pair (i, j), i < j, among the entities' pairs in row order.
NRI_HOST_DEVICE inline int64_t pair_index(int64_t i, int64_t j, int64_t entities) {
  return i * (2 * entities - i - 1) / 2 + (j - i - 1);
}

// One number per entity: a local array, or (kEntities = 0) a strided piece of the caller's scratch memory.
template <int kEntities>
class Column {
 public:
  NRI_HOST_DEVICE Column(double*, int64_t, int64_t, int64_t) {}
  NRI_HOST_DEVICE double& operator[](int64_t i) { return values_[i]; }

 private:
  double values_[kEntities];
};

template <>
class Column<0> {
 public:
  NRI_HOST_DEVICE Column(double* scratch, int64_t stride, int64_t entities, int64_t number)
      : values_(scratch + number * entities * stride), stride_(stride) {}
  NRI_HOST_DEVICE double& operator[](int64_t i) { return values_[i * stride_]; }

 private:
  double* values_;
  int64_t stride_;
};

// How strongly a pair acts, slope * edge + offset: kept per pair, or (kEntities = 0) read off the edges every time.
template <int kEntities>
class Couplings {
 public:
  NRI_HOST_DEVICE Couplings(const uint8_t* edges, int64_t, double slope, double offset) {
    NRI_UNROLL
    for (int64_t i = 0; i < kEntities; ++i) {
      NRI_UNROLL
      for (int64_t j = i + 1; j < kEntities; ++j) {
        values_[pair_index(i, j, kEntities)] = slope * edges[i * kEntities + j] + offset;
      }
    }
  }
  NRI_HOST_DEVICE double operator()(int64_t i, int64_t j) const { return values_[pair_index(i, j, kEntities)]; }

 private:
  double values_[kEntities * (kEntities - 1) / 2];
};

template <>
class Couplings<0> {
 public:
  NRI_HOST_DEVICE Couplings(const uint8_t* edges, int64_t entities, double slope, double offset)
      : edges_(edges), entities_(entities), slope_(slope), offset_(offset) {}
  NRI_HOST_DEVICE double operator()(int64_t i, int64_t j) const { return slope_ * edges_[i * entities_ + j] + offset_; }

 private:
  const uint8_t* edges_;
  int64_t entities_;
  double slope_, offset_;
};

}  // namespace simulators
}  // namespace nri
