#include "cuda/row_buckets.h"

namespace nri::cuda {
namespace {

constexpr int64_t kStripRows = 64;  // consecutive items of one replica and one group: one thread's share
constexpr int kScanThreads = 128;

struct Strips {
  int64_t replicas;
  int64_t items;
  int64_t groups;
  int64_t classes;
  const int64_t* item_offset;   // [groups + 1]
  const int64_t* piece_offset;  // [groups + 1] strips per replica before the group
  const uint16_t* keys;         // [replicas, items]
  int64_t* count;               // group by group: [classes, replicas * the group's strips per replica]
};

struct Strip {
  int64_t group;
  int64_t first_row;
  int64_t end_row;
  int64_t* count;        // of class 0
  int64_t count_stride;  // from class to class
};

__device__ Strip locate(const Strips& strips, int64_t index) {
  // Strips are numbered group by group, within a group replica by replica.
  int64_t low = 0;
  int64_t high = strips.groups;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (strips.piece_offset[middle] * strips.replicas <= index) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int64_t pieces = strips.piece_offset[low + 1] - strips.piece_offset[low];
  const int64_t before = strips.piece_offset[low] * strips.replicas;
  const int64_t within = index - before;
  const int64_t replica = within / pieces;
  const int64_t first = strips.item_offset[low] + (within % pieces) * kStripRows;
  const int64_t end =
      first + kStripRows < strips.item_offset[low + 1] ? first + kStripRows : strips.item_offset[low + 1];
  return {low, replica * strips.items + first, replica * strips.items + end,
          strips.count + before * strips.classes + within, pieces * strips.replicas};
}

__global__ void count_strips(int64_t count, Strips strips) {
  const int64_t index = global_index();
  if (index >= count) return;
  const Strip strip = locate(strips, index);
  for (int64_t c = 0; c < strips.classes; ++c) strip.count[c * strip.count_stride] = 0;
  for (int64_t row = strip.first_row; row < strip.end_row; ++row) {
    const uint16_t key = strips.keys[row];
    if (key != kSkipRow) ++strip.count[key * strip.count_stride];
  }
}

// Exclusive prefix sums of values[0 .. count), each rounded up to a multiple of `unit`. Returns the total to thread 0.
__device__ int64_t scan_block(const int64_t* values, int64_t count, int64_t unit, int64_t* sums) {
  __shared__ int64_t partial[kScanThreads];
  const int64_t span = ceil_div(count, kScanThreads);
  const int64_t first = threadIdx.x * span < count ? threadIdx.x * span : count;
  const int64_t end = first + span < count ? first + span : count;
  int64_t sum = 0;
  for (int64_t i = first; i < end; ++i) sum += ceil_div(values[i], unit) * unit;
  partial[threadIdx.x] = sum;
  __syncthreads();
  int64_t before = 0;
  for (unsigned t = 0; t < threadIdx.x; ++t) before += partial[t];
  const int64_t total = before + sum;
  for (int64_t i = first; i < end; ++i) {
    const int64_t value = ceil_div(values[i], unit) * unit;
    sums[i] = before;
    before += value;
  }
  return total;
}

// One block a bucket: turns the counts of its strips into places within the bucket.
__global__ void scan_strips(Strips strips, int64_t* bucket_count) {
  const int64_t group = blockIdx.x / strips.classes;
  const int64_t within = blockIdx.x % strips.classes;
  const int64_t pieces = strips.piece_offset[group + 1] - strips.piece_offset[group];
  int64_t* count = strips.count + strips.replicas * (strips.piece_offset[group] * strips.classes + within * pieces);
  const int64_t total = scan_block(count, strips.replicas * pieces, 1, count);
  if (threadIdx.x == kScanThreads - 1) bucket_count[blockIdx.x] = total;
}

__global__ void scan_buckets(int64_t buckets, const int64_t* bucket_count, int64_t* start) {
  const int64_t total = scan_block(bucket_count, buckets, kTileRows, start);
  if (threadIdx.x == kScanThreads - 1) start[buckets] = total;
}

__global__ void place_rows(int64_t count, Strips strips, const int64_t* start, int64_t* row_of_slot,
                           int64_t* slot_of_row) {
  const int64_t index = global_index();
  if (index >= count) return;
  const Strip strip = locate(strips, index);
  for (int64_t row = strip.first_row; row < strip.end_row; ++row) {
    const uint16_t key = strips.keys[row];
    int64_t slot = -1;
    if (key != kSkipRow) {
      slot = start[strip.group * strips.classes + key] + strip.count[key * strip.count_stride]++;
      row_of_slot[slot] = row;
    }
    slot_of_row[row] = slot;
  }
}

__global__ void label_tiles(int64_t tiles, int64_t buckets, const int64_t* start, int32_t* tile_bucket) {
  const int64_t tile = global_index();
  if (tile >= tiles) return;
  const int64_t slot = tile * kTileRows;
  tile_bucket[tile] = slot < start[buckets] ? static_cast<int32_t>(find_range(start, buckets, slot)) : -1;
}

}  // namespace

int64_t RowBuckets::slots(int64_t rows, int64_t buckets) {
  return rows == 0 || buckets == 0 ? 0 : (rows / kTileRows + buckets) * kTileRows;
}

int64_t RowBuckets::bytes(int64_t rows, int64_t groups, int64_t classes) {
  const int64_t strips = rows / kStripRows + groups;
  return rows * 10 + slots(rows, groups * classes) * 9 + strips * classes * 8 + groups * (classes + 1) * 16;
}

RowBuckets::RowBuckets(const std::vector<int64_t>& item_offset, int64_t replicas, int64_t classes,
                       const Execution& execution)
    : execution_(execution), items_(item_offset.back()), groups_(static_cast<int64_t>(item_offset.size()) - 1) {
  std::vector<int64_t> piece_offset{0};
  for (int64_t g = 0; g < groups_; ++g) {
    piece_offset.push_back(piece_offset.back() + ceil_div(item_offset[g + 1] - item_offset[g], kStripRows));
  }
  pieces_ = piece_offset.back();
  const int64_t rows = replicas * items_;
  const int64_t buckets = groups_ * classes;
  const int64_t all_slots = slots(rows, buckets);
  item_offset_ = Buffer<int64_t>(item_offset, execution);
  piece_offset_ = Buffer<int64_t>(piece_offset, execution);
  keys_ = Buffer<uint16_t>(rows, execution);
  strip_count_ = Buffer<int64_t>(replicas * pieces_ * classes, execution);
  row_ = Buffer<int64_t>(all_slots, execution);
  slot_of_row_ = Buffer<int64_t>(rows, execution);
  tile_bucket_ = Buffer<int32_t>(all_slots / kTileRows, execution);
  start_ = Buffer<int64_t>(buckets + 1, execution);
  count_ = Buffer<int64_t>(buckets, execution);
  view_ = {0, 0, classes, buckets, row_.data(), slot_of_row_.data(), tile_bucket_.data(), start_.data(), count_.data()};
}

void RowBuckets::assign(int64_t replicas) {
  view_.rows = replicas * items_;
  view_.slots = slots(view_.rows, view_.buckets);
  if (view_.rows == 0) return;
  if (view_.classes == 0) {
    slot_of_row_.fill(0xFF);
    return;
  }
  const Strips strips{
      replicas,           items_, groups_, view_.classes, item_offset_.data(), piece_offset_.data(), keys_.data(),
      strip_count_.data()};
  const int64_t strip_total = replicas * pieces_;
  row_.fill(0xFF);
  launch_elements("count_strips", count_strips, strip_total, execution_, strips);
  launch("scan_strips", scan_strips, view_.buckets, kScanThreads, execution_, strips, count_.data());
  launch("scan_buckets", scan_buckets, 1, kScanThreads, execution_, view_.buckets, count_.data(), start_.data());
  launch_elements("place_rows", place_rows, strip_total, execution_, strips, start_.data(), row_.data(),
                  slot_of_row_.data());
  launch_elements("label_tiles", label_tiles, view_.slots / kTileRows, execution_, view_.buckets, start_.data(),
                  tile_bucket_.data());
}

}  // namespace nri::cuda
