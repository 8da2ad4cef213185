// Plans and index maps of the CUDA kernels as plain functions: which systems make up a chunk or a unit of work, and
// which thread works on which part of a tile. No CUDA in here, so that tests reach them (csrc/bindings.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/host_device.h"

namespace nri::cuda {

// The last of least, .., most for which fits(n) holds, or `least`; larger ones never fit better.
template <typename Fits>
int64_t last_fitting(int64_t least, int64_t most, const Fits& fits) {
  if (fits(most)) return most;
  while (most - least > 1) {
    const int64_t middle = (least + most) / 2;
    if (fits(middle)) {
      least = middle;
    } else {
      most = middle;
    }
  }
  return least;
}

struct SystemChunk {
  int64_t first_system, end_system;
  int64_t replicas;  // how many at a time
};

// Takes systems while all their replicas fit; a system that is too large alone has its replicas taken in parts.
// bytes(chunk) estimates the workspace of a chunk.
template <typename Bytes>
SystemChunk plan_chunk(int64_t first_system, int64_t systems, int64_t replicas, int64_t budget, const Bytes& bytes) {
  const int64_t end = last_fitting(first_system + 1, systems, [&](int64_t end_system) {
    return bytes(SystemChunk{first_system, end_system, replicas}) <= budget;
  });
  SystemChunk chunk{first_system, end, replicas};
  while (chunk.replicas > 1 && bytes(chunk) > budget) chunk.replicas = (chunk.replicas + 1) / 2;
  return chunk;
}

struct Unit {
  int64_t first_system, end_system;
  int64_t first_replica, end_replica;

  int64_t replicas() const { return end_replica - first_replica; }
};

// Runs of systems with about `group_rows` rows each; a system with more than `split_rows` has its replicas dealt out to
// several units. rows(system): the most rows of any kind that one replica of the system has.
template <typename Rows>
std::vector<Unit> plan_units(int64_t systems, int64_t replicas, int64_t group_rows, int64_t split_rows,
                             const Rows& rows) {
  std::vector<Unit> units;
  int64_t first = 0;
  int64_t pending = 0;
  for (int64_t system = 0; system < systems; ++system) {
    const int64_t own = std::max(rows(system), int64_t{1});
    if (own * replicas > split_rows && replicas > 1) {
      if (first < system) units.push_back({first, system, 0, replicas});
      const int64_t step = std::max(split_rows / own, int64_t{1});
      for (int64_t r = 0; r < replicas; r += step) {
        units.push_back({system, system + 1, r, std::min(r + step, replicas)});
      }
      first = system + 1;
      pending = 0;
      continue;
    }
    pending += own * replicas;
    if (pending >= group_rows) {
      units.push_back({first, system + 1, 0, replicas});
      first = system + 1;
      pending = 0;
    }
  }
  if (first < systems) units.push_back({first, systems, 0, replicas});
  return units;
}

// Appends the ends of the groups, of about `group_rows` rows, into which a unit's items are dealt.
inline void append_groups(std::vector<int64_t>& item_offset, int64_t items, const Unit& unit, int64_t group_rows) {
  const int64_t begin = item_offset.back();
  const int64_t groups = std::max((items * unit.replicas() + group_rows - 1) / group_rows, int64_t{1});
  for (int64_t g = 1; g <= groups; ++g) item_offset.push_back(begin + items * g / groups);
}

// A layer's product is cut into tiles, 64 rows by a panel of columns, a block each. The terms of its sums are staged in
// shared memory, so many at a time.
constexpr int kProductRows = 64;
constexpr int kProductDepth = 16;

// Where a factor's staged terms lie: kCount rows (columns) of kProductDepth terms. kByDepth: a row's terms side by
// side, as they are where they come from; otherwise a term's rows. Either way the lanes of a warp, which read eight
// rows of four terms each, meet 32 different banks (kCount >= 32).
template <int kCount, bool kByDepth>
struct StagedLayout {
  static constexpr int kLine = kByDepth ? kProductDepth : kCount;  // neighbours in memory
  static constexpr int kStride = kByDepth ? kProductDepth + 4 : kCount + 8;
  static constexpr int kWords = (kByDepth ? kCount : kProductDepth) * kStride;

  NRI_HOST_DEVICE static constexpr int place(int row, int term) {
    return kByDepth ? row * kStride + term : term * kStride + row;
  }
};

// Where threads multiply and add by themselves, 8 x 8 of them share a tile of 8 * kPerThread columns. Each keeps 8 rows
// and kPerThread columns, in runs of four, so that neighbours read neighbouring banks: its i-th row, its j-th column.
NRI_HOST_DEVICE constexpr int tile_row(int thread, int i) { return (i / 4) * 32 + thread / 8 * 4 + i % 4; }

template <int kPerThread>
NRI_HOST_DEVICE constexpr int tile_column(int thread, int j) {
  return kPerThread == 1 ? thread % 8 : thread % 8 * 4 + j;
}

// Where tensor cores multiply, 16 rows by 8 columns a product, warps share a tile as a grid, in which neighbours take
// the tile's products in turns. A lane holds four results of each (mma.h).
template <int kColumns>
struct TensorGrid {
  static constexpr int kRowWarps = kColumns == 8 ? 4 : 2;
  static constexpr int kColumnWarps = kColumns == 8 ? 1 : kColumns / 32;
  static constexpr int kThreads = kRowWarps * kColumnWarps * 32;
  static constexpr int kRowProducts = kProductRows / 16 / kRowWarps;   // of a warp
  static constexpr int kColumnProducts = kColumns / 8 / kColumnWarps;  // of a warp

  NRI_HOST_DEVICE static constexpr int first_row(int thread, int i) {
    return (thread / 32 % kRowWarps + kRowWarps * i) * 16;
  }
  NRI_HOST_DEVICE static constexpr int first_column(int thread, int j) {
    return (thread / 32 / kRowWarps + kColumnWarps * j) * 8;
  }
  // Of the n-th of a lane's four results.
  NRI_HOST_DEVICE static constexpr int row(int thread, int i, int n) {
    return first_row(thread, i) + n / 2 * 8 + thread % 32 / 4;
  }
  NRI_HOST_DEVICE static constexpr int column(int thread, int j, int n) {
    return first_column(thread, j) + thread % 4 * 2 + n % 2;
  }
};

}  // namespace nri::cuda
