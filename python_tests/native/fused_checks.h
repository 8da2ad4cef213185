// What the checks of plain functions of the fused kernels have in common: libraries to check them with, and a way to
// run one by its name.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "cuda/fused_product.h"

namespace {

using namespace nri;
using namespace nri::cuda;
using namespace nri::cuda::fused;

#define EXPECT(condition)                                                 \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                       \
    }                                                                     \
  } while (false)

const Precision kPrecisions[] = {Precision::fp32, Precision::tf32, Precision::bf16};

FusedLibrary library_of(Precision precision, std::vector<int64_t> edge, std::vector<int64_t> node, int64_t edge_types,
                        int64_t node_types, bool silent = false) {
  const LibraryView<float> view{edge[0] / 2,
                                edge_types,
                                node_types,
                                silent,
                                static_cast<int64_t>(edge.size()) - 1,
                                edge.data(),
                                static_cast<int64_t>(node.size()) - 1,
                                node.data(),
                                nullptr};
  FusedLibrary library;
  EXPECT(lay_out(view, precision, &library));
  return library;
}

FusedLibrary paper(Precision precision, int64_t width) {
  return library_of(precision, {8, width, width, width}, {width + 4, width, width, width, 4}, 2, 1);
}

std::vector<FusedLibrary> libraries() {
  std::vector<FusedLibrary> all;
  for (const Precision precision : kPrecisions) {
    for (const int64_t width : {64, 128, 256}) all.push_back(paper(precision, width));
    all.push_back(library_of(precision, {6, 7, 5}, {8, 9, 6, 3}, 3, 2));
    all.push_back(library_of(precision, {2, 33, 17, 70, 34}, {35, 40, 1}, 2, 3, true));
    all.push_back(library_of(precision, {32, 20}, {36, 16}, 1, 1, true));  // nothing but the silent type
  }
  return all;
}

std::vector<const FusedLayer*> layers_of(const FusedModule& module) {
  std::vector<const FusedLayer*> layers;
  for (int l = 0; l < module.layers; ++l) layers.push_back(&module.layer[l]);
  return layers;
}

// Every 16 x 8 block of a layer's results belongs to one warp.
template <int kWidest, int kMostRows>
void check_grid() {
  using Grid = WarpGrid<kWidest, kMostRows>;
  static_assert(Grid::kRows * Grid::kColumns * kWarpLanes == kThreads);
  for (int rows = 1; rows <= kMostRows / 16; ++rows) {
    for (int columns = 1; columns <= kWidest / 8; ++columns) {
      std::set<std::pair<int, int>> seen;
      for (int warp = 0; warp < kThreads / kWarpLanes; ++warp) {
        const int row = warp % Grid::kRows, column = warp / Grid::kRows;
        const int mine = share_of(rows, row, Grid::kRows), across = share_of(columns, column, Grid::kColumns);
        EXPECT(mine <= Grid::kRowProducts && across <= Grid::kColumnProducts);
        for (int i = 0; i < mine; ++i) {
          for (int j = 0; j < across; ++j) seen.insert({row + Grid::kRows * i, column + Grid::kColumns * j});
        }
      }
      EXPECT(static_cast<int>(seen.size()) == rows * columns);
      EXPECT(seen.rbegin()->first == rows - 1);
    }
  }
}

using Check = std::pair<const char*, void (*)()>;

template <size_t kCount>
int run_checks(const Check (&checks)[kCount], int count, char** arguments) {
  for (const auto& [name, check] : checks) {
    if (count < 2) std::printf("%s\n", name);
    if (count < 2 || std::strcmp(arguments[1], name) != 0) continue;
    check();
    return 0;
  }
  return count < 2 ? 0 : 2;
}

}  // namespace
