// Rows sorted by the module that works on them, so that a tile of rows shares its weights. Rows are [replicas, items];
// a row's key is the module (class) it goes through, or kSkipRow. Items fall into consecutive groups, and a bucket
// holds the rows of one class in one group, in the order of the rows. Buckets begin at multiples of kTileRows, so that
// no tile is shared. Sorting is stable and needs no word from the host: the same rows get the same order every time.
//
// Groups exist for the sums over rows of the parameter gradient: a group's sum does not depend on what else is in work.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/workspace.h"

namespace nri::cuda {

constexpr int64_t kTileRows = 64;
constexpr uint16_t kSkipRow = 0xFFFF;

// What kernels see. A slot is a place in the sorted order, padding included.
struct SlotView {
  int64_t slots;               // upper bound known to the host, a multiple of kTileRows
  int64_t rows;                // replicas * items
  int64_t classes;             // bucket = group * classes + class
  int64_t buckets;             // groups * classes
  const int64_t* row;          // [slots] row in this slot, or -1
  const int64_t* slot_of_row;  // [rows] slot of this row, or -1 when it is skipped
  const int32_t* tile_bucket;  // [slots / kTileRows] or -1 when the tile is unused
  const int64_t* start;        // [buckets + 1] first slot
  const int64_t* count;        // [buckets] rows, padding excluded
};

class RowBuckets {
 public:
  // item_offset [groups + 1] begins with 0 and ends with the number of items.
  RowBuckets(const std::vector<int64_t>& item_offset, int64_t replicas, int64_t classes, const Execution& execution);

  uint16_t* keys() const { return keys_.data(); }  // [replicas, items], to be written by the caller
  void assign(int64_t replicas);                   // sorts the rows of the first `replicas` replicas
  const SlotView& view() const { return view_; }

  // Slots for so many rows, and bytes of the arrays held here.
  static int64_t slots(int64_t rows, int64_t buckets);
  static int64_t bytes(int64_t rows, int64_t groups, int64_t classes);

 private:
  Execution execution_;
  int64_t items_;
  int64_t groups_;
  int64_t pieces_;  // strips of rows per replica
  Buffer<int64_t> item_offset_;
  Buffer<int64_t> piece_offset_;
  Buffer<uint16_t> keys_;
  Buffer<int64_t> strip_count_;
  Buffer<int64_t> row_;
  Buffer<int64_t> slot_of_row_;
  Buffer<int32_t> tile_bucket_;
  Buffer<int64_t> start_;
  Buffer<int64_t> count_;
  SlotView view_{};
};

}  // namespace nri::cuda
