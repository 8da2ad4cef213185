// The plain functions of the fused kernels: layouts, maps and schedules, each against its definition by brute force,
// and the emulated instructions against plain arithmetic.   fused_maps NAME runs one check; without a name, it lists
// them.
#include <cmath>
#include <random>

#include "cuda/fused_product.h"
#include "fused_checks.h"

namespace {

// Every word of the packed weights is one place of one layer, and a layer's inputs are all there.
void check_packed_weights() {
  for (const FusedLibrary& library : libraries()) {
    int64_t expected = 0;
    for (const FusedModule* module : {&library.edge, &library.node}) {
      EXPECT(module->first_word == expected);
      for (int m = 0; m < module->modules; ++m) {
        EXPECT(module->word_of(m) == expected);
        for (const FusedLayer* layer : layers_of(*module)) {
          EXPECT(module->word_of(m) + layer->first == expected);
          std::set<int64_t> places;
          for (int output = 0; output < layer->outputs; ++output) {
            for (int word = 0; word < layer->words(); ++word) places.insert(packed_place(*layer, output, word));
          }
          EXPECT(*places.begin() == 0);
          EXPECT(static_cast<int64_t>(places.size()) == layer->outputs * layer->words());
          EXPECT(*places.rbegin() + 1 == static_cast<int64_t>(places.size()));
          EXPECT(layer->outputs % 16 == 0 && layer->outputs >= layer->out && layer->outputs <= kWidest);
          expected += static_cast<int64_t>(places.size());
        }
      }
    }
    EXPECT(expected == library.all_words);
  }
}

// x w is made of high(x) high(w), low(x) high(w) and high(x) low(w) for a state, of one product for everything else.
void check_columns() {
  for (const FusedLibrary& library : libraries()) {
    for (const FusedModule* module : {&library.edge, &library.node}) {
      for (const FusedLayer* layer : layers_of(*module)) {
        std::vector<std::multiset<int>> parts(layer->in);
        const int columns = layer->words() * columns_of_word(library.precision);
        for (int c = 0; c < columns; ++c) {
          const Column column = column_of(*layer, c);
          if (column.part != Part::nothing) parts[column.input].insert(static_cast<int>(column.part));
        }
        for (int i = 0; i < layer->in; ++i) {
          const std::multiset<int> expected =
              i < layer->in - layer->exact ? std::multiset<int>{0} : std::multiset<int>{1, 2, 3};
          EXPECT(parts[i] == expected);
        }
        const bool first = layer == &module->layer[0] && library.precision != Precision::fp32;
        EXPECT(layer->exact == (first ? (module == &library.edge ? 2 : 1) * library.features : 0));
      }
      // what a layer reads is what the one before it writes, padding included
      for (int l = 1; l < module->layers; ++l) {
        EXPECT(module->layer[l].words() * columns_of_word(library.precision) <= module->layer[l - 1].outputs);
      }
    }
  }
}

void check_passes() {
  for (int most = 16; most <= kPassRows; most += 16) {
    for (int rows = 0; rows <= 700; ++rows) {
      int next = 40;
      for (int n = 0; n < count_passes(rows, most); ++n) {
        const Pass pass = nth_pass(n, 3, true, 40, rows, most);
        EXPECT(pass.first == next && pass.rows > 0 && pass.rows <= most && pass.module == 3 && pass.of_nodes == 1);
        next += pass.rows;
      }
      EXPECT(next == 40 + rows);
      EXPECT(count_passes(rows, most) <= rows / most + 1);
    }
  }
}

void check_rollouts() {
  int64_t index = 0;
  for (int64_t segment = 0; segment < 4; ++segment) {
    for (int64_t structure = 0; structure < 3; ++structure) {
      for (int64_t system = 0; system < 5; ++system, ++index) {
        const Rollout rollout = rollout_of(index, 5, 3);
        EXPECT(rollout.system == system && rollout.structure == structure && rollout.segment == segment);
      }
    }
  }
  const Rollout last = rollout_of(int64_t{50000} * 1024 * 99 - 1, 50000, 1024);  // more than 2^32 of them
  EXPECT(last.system == 49999 && last.structure == 1023 && last.segment == 98);
}

// The chunks that a cursor visits are those of the passes' layers, in order, step after step.
void check_cursor() {
  for (const FusedLibrary& library : libraries()) {
    std::vector<Pass> passes;
    for (int m = 0; m < library.edge.modules; ++m) passes.push_back(nth_pass(0, m, false, 0, 20, 128));
    if (library.edge.modules > 0) passes.push_back(passes[0]);  // a module of two passes
    for (int m = library.node.modules - 1; m >= 0; --m) passes.push_back(nth_pass(0, m, true, 0, 20, 128));
    ChunkCursor cursor;
    cursor.begin(library, passes.data(), static_cast<int>(passes.size()), 3);
    for (int step = 3; step > 0; --step) {
      for (const Pass& pass : passes) {
        const FusedModule& module = pass.of_nodes ? library.node : library.edge;
        for (const FusedLayer* layer : layers_of(module)) {
          for (int chunk = 0; chunk < layer->chunks; ++chunk) {
            EXPECT(cursor.steps == step);
            EXPECT(cursor.outputs == layer->outputs);
            EXPECT(cursor.word == module.word_of(pass.module) + layer->first + packed_place(*layer, 0, chunk * 8));
            EXPECT(cursor.word * 4 % kCopyBytes == 0);
            cursor.next(library, passes.data(), static_cast<int>(passes.size()));
          }
        }
      }
    }
    EXPECT(cursor.steps == 0);
    cursor.begin(library, nullptr, 0, 3);
    EXPECT(cursor.steps == 0);
  }
}

// Arrays follow one another without overlap, aligned, inside what was planned for.
void check_shared_memory() {
  for (const FusedLibrary& library : libraries()) {
    for (const TileShape shape : {TileShape{1, 1, 0, 16}, TileShape{3, 15, 60, 32}, TileShape{24, 120, 480, 128}}) {
      const SharedLayout at = shared_layout(library, shape);
      const int stages = ring_stages(library.widest);
      const std::vector<std::pair<int, int64_t>> arrays = {
          {at.activations, int64_t{4} * shape.rows * at.stride},
          {at.ring, int64_t{4} * stages * library.widest * kChunkWords},
          {at.errors, 8 * shape.nodes},
          {at.place, 8 * shape.rollouts},
          {at.first_node, 8 * shape.rollouts},
          {at.first_edge, 8 * shape.rollouts},
          {at.sums, 4 * shape.nodes * library.message},
          {at.states, 4 * shape.nodes * library.features},
          {at.scale, 4 * shape.rollouts},
          {at.length, 4 * shape.rollouts},
          {at.passes, static_cast<int64_t>(sizeof(Pass)) * most_passes(library, shape)},
          {at.counts, 8},
          {at.node_begin, 2 * (shape.rollouts + 1)},
          {at.edge_begin, 2 * (shape.rollouts + 1)},
          {at.in_begin, 2 * (shape.nodes + 1)},
          {at.edge_row, 2 * shape.edges},
          {at.sender, shape.edges},
          {at.receiver, shape.edges},
          {at.node, shape.nodes},
          {at.rollout, shape.nodes}};
      int64_t end = 0;
      for (const auto& [begin, bytes] : arrays) {
        EXPECT(begin >= end && begin % 16 == 0);
        end = begin + bytes;
      }
      EXPECT(end <= at.bytes);
      // a row has room for every layer's input and for what a layer writes
      for (const FusedModule* module : {&library.edge, &library.node}) {
        for (const FusedLayer* layer : layers_of(*module)) {
          EXPECT(layer->words() <= at.stride);
          EXPECT(layer->outputs / columns_of_word(library.precision) <= at.stride);
        }
      }
      // more passes than this there cannot be, however types fall
      int passes = 0;
      for (int m = 0; m < library.edge.modules; ++m) passes += count_passes(m == 0 ? shape.edges : 1, shape.rows);
      EXPECT(passes <= most_passes(library, shape) - library.node.modules + 1);
      const SortingLayout sorting = sorting_layout(library, shape);
      const int modules = library.edge.modules + library.node.modules;
      EXPECT(sorting.totals >= sorting.counts + 2 * shape.rollouts * modules && sorting.totals % 2 == 0);
      EXPECT(sorting.edge >= sorting.totals + 2 * modules && sorting.node >= sorting.edge + shape.edges);
      EXPECT(sorting.bytes >= sorting.node + shape.nodes);
    }
  }
}

// What is planned fits the device, takes every system of the run, and a system fits or not by itself.
void check_plan() {
  for (const FusedLibrary& library : libraries()) {
    for (const int64_t bytes : {232448, 166912, 101376}) {
      for (const int64_t nodes : {1, 2, 5, 10, 31, 128, 129}) {
        const int64_t edges = nodes * (nodes - 1) > 2000 ? nodes : nodes * (nodes - 1);
        const bool fitting = fits(library, nodes, edges, bytes);
        EXPECT(nodes <= kMostNodes || !fitting);
        if (nodes <= 10 || (nodes <= kMostNodes && library.widest <= 128 && bytes == 232448)) EXPECT(fitting);
        for (const int64_t rollouts : {1, 100, 100000}) {
          const TileShape shape = plan_tiles(library, {nodes, edges, rollouts}, 132, bytes);
          EXPECT((shape.rollouts > 0) == fitting);
          if (!fitting) continue;
          EXPECT(shape.nodes == shape.rollouts * nodes && shape.nodes <= kMostNodes);
          EXPECT(shape.edges == shape.rollouts * edges && shape.edges <= kMostEdges);
          EXPECT(shape.rows % 16 == 0 && shape.rows > 0 && shape.rows <= kPassRows);
          const SharedLayout layout = shared_layout(library, shape);
          EXPECT(layout.bytes <= bytes);
          EXPECT(sorting_layout(library, shape).bytes <= layout.ring);
          EXPECT((rollouts + shape.rollouts - 1) / shape.rollouts >= std::min<int64_t>(rollouts, 67));
        }
      }
    }
  }
}

// Times that shared memory is read or written for one instruction of a warp: 32 banks of 4 bytes, 8-byte accesses by
// half warps.   word(lane): the first word of its access
template <typename Word>
int passes_through_banks(int words, const Word& word) {
  int worst = 0;
  const int lanes = kWarpLanes / words;
  for (int first = 0; first < kWarpLanes; first += lanes) {
    std::set<int> at[32];
    for (int lane = first; lane < first + lanes; ++lane) {
      for (int w = 0; w < words; ++w) at[(word(lane) + w) % 32].insert(word(lane) + w);
    }
    for (const auto& bank : at) worst = std::max(worst, static_cast<int>(bank.size()));
  }
  return worst;
}

void check_banks() {
  for (int words = 8; words <= 400; words += 8) {
    const int stride = activation_stride(words);
    EXPECT(stride >= words && stride <= words + 8 && stride % 2 == 0);
    const auto of_input = [&](int lane) { return lane / 4 * stride + 2 * (lane % 4); };
    EXPECT(passes_through_banks(2, of_input) == 1);  // inputs read, results of TF32 and fp32 written
    const auto of_pair = [&](int lane) { return lane / 4 * stride + lane % 4; };
    EXPECT(passes_through_banks(1, of_pair) <= 2);  // results of bf16 written
  }
  const auto of_weights = [](int lane) { return lane / 4 * kChunkWords + 2 * (lane % 4); };
  EXPECT(passes_through_banks(2, of_weights) == 1);
}

void check_grids() {
  check_grid<64, kPassRows>();
  check_grid<128, kPassRows>();
  check_grid<256, kPassRows>();
}

// ---- The emulated instructions --------------------------------------------------------------------------------------

const Execution kHere{1, 0, nullptr, Precision::fp32};

float random_number(std::mt19937& generator) { return std::normal_distribution<float>()(generator); }

__global__ void product_kernel(bool bf16, const uint32_t* a, const uint32_t* b, float* d) {
  const int group = static_cast<int>(threadIdx.x) / 4, place = static_cast<int>(threadIdx.x) % 4;
  // a [16 rows, 8 words], b [8 columns, 8 words], d [16, 8]
  const uint32_t mine[4] = {a[group * 8 + place], a[(group + 8) * 8 + place], a[group * 8 + place + 4],
                            a[(group + 8) * 8 + place + 4]};
  const uint32_t weights[2] = {b[group * 8 + place], b[group * 8 + place + 4]};
  float* results[4] = {d + group * 8 + 2 * place, d + group * 8 + 2 * place + 1, d + (group + 8) * 8 + 2 * place,
                       d + (group + 8) * 8 + 2 * place + 1};
  float sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = *results[i];
  bf16 ? multiply_bf16(sums, mine, weights) : multiply_tf32(sums, mine, weights);
  for (int i = 0; i < 4; ++i) *results[i] = sums[i];
}

// Whole numbers, so that every sum is exact.
void check_products() {
  std::mt19937 generator(1);
  const auto whole = [&] { return static_cast<float>(static_cast<int>(generator() % 17) - 8); };
  for (const bool bf16 : {false, true}) {
    const int each = bf16 ? 2 : 1;
    std::vector<float> a(16 * 8 * each), b(8 * 8 * each), d(16 * 8);
    for (auto* values : {&a, &b, &d}) {
      for (float& value : *values) value = whole();
    }
    std::vector<double> expected(d.begin(), d.end());
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        for (int k = 0; k < 8 * each; ++k)
          expected[row * 8 + column] += a[row * 8 * each + k] * b[column * 8 * each + k];
      }
    }
    const auto words = [&](const std::vector<float>& values) {
      std::vector<uint32_t> result;
      for (size_t i = 0; i < values.size(); i += each) {
        result.push_back(bf16 ? to_bf16_pair(values[i], values[i + 1]) : to_tf32(values[i]));
      }
      return result;
    };
    const std::vector<uint32_t> a_words = words(a), b_words = words(b);
    launch("product", product_kernel, 1, 32, kHere, bf16, a_words.data(), b_words.data(), d.data());
    for (size_t i = 0; i < d.size(); ++i) EXPECT(d[i] == expected[i]);
  }
}

void check_rounding() {
  std::mt19937 generator(2);
  for (int i = 0; i < 100000; ++i) {
    const float value = random_number(generator) * std::exp(8 * random_number(generator));
    int exponent;
    std::frexp(value, &exponent);
    const float tf32 = float_of(to_tf32(value)), half_ulp = std::ldexp(1.0f, exponent - 12);
    EXPECT((to_tf32(value) & 0x1fffu) == 0 && std::fabs(tf32 - value) <= half_ulp);
    const uint32_t pair = to_bf16_pair(value, -value);
    EXPECT(low_bf16(pair) == -high_bf16(pair) && std::fabs(low_bf16(pair) - value) <= std::ldexp(1.0f, exponent - 9));
    const uint32_t words[1] = {bits_of(value)};
    uint32_t high[1], low[1];
    split(words, high, low);
    EXPECT(std::fabs(float_of(high[0]) + float_of(low[0]) - value) <= std::ldexp(1.0f, exponent - 23));
  }
  EXPECT(low_bf16(to_bf16_pair(1.00390625f, 0)) == 1.0f &&
         low_bf16(to_bf16_pair(1.01171875f, 0)) == 1.015625f);  // ties
  const float infinity = INFINITY;
  EXPECT(float_of(to_tf32(infinity)) == infinity && low_bf16(to_bf16_pair(infinity, 0)) == infinity);
  EXPECT(std::isnan(float_of(to_tf32(NAN))) && std::isnan(low_bf16(to_bf16_pair(NAN, 0))));
}

__global__ void copy_kernel(const float* from, float* seen) {
  float* const room = reinterpret_cast<float*>(dynamic_shared());
  const int t = static_cast<int>(threadIdx.x);
  copy_async(room + 4 * t, from + 4 * t);
  close_copy_group();
  close_copy_group();
  wait_for_copies<2>();  // for none
  seen[t] = room[4 * t];
  wait_for_copies<1>();
  __syncthreads();
  seen[blockDim.x + t] = room[4 * (blockDim.x - 1 - t)];
}

__global__ void forgetful_kernel(const float* from) {
  copy_async(dynamic_shared(), from);
  close_copy_group();
}

__global__ void divided_kernel() {
  if (threadIdx.x % 2 == 0) __syncwarp();
}

// A copy is there when it was waited for, and not before; what a device would not forgive is an error.
void check_copies() {
  std::vector<float> numbers(256), seen(128);
  for (int i = 0; i < 256; ++i) numbers[i] = static_cast<float>(i);
  const float* const from = numbers.data();
  launch_shared("copy", copy_kernel, 1, 64, 1024, kHere, from, seen.data());
  for (int t = 0; t < 64; ++t) EXPECT(std::isnan(seen[t]) && seen[64 + t] == 4 * (63 - t));
  const auto fails = [](const auto& run) {
    try {
      run();
    } catch (const std::logic_error&) {
      return true;
    }
    return false;
  };
  EXPECT(fails([&] { launch_shared("forgetful", forgetful_kernel, 1, 1, 16, kHere, from); }));
  EXPECT(fails([&] { launch("divided", divided_kernel, 1, 32, kHere); }));
}

// Sums of 256 products by three TF32 products are as near to the exact ones as fp32 gets.
void check_split_products() {
  std::mt19937 generator(3);
  double split_error = 0, plain_error = 0, rounded_error = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    double exact = 0, size = 0;
    float plain = 0, split_sum = 0, rounded = 0;
    for (int k = 0; k < 256; ++k) {
      const float x = random_number(generator), w = random_number(generator);
      const uint32_t words[2] = {bits_of(x), bits_of(w)};
      uint32_t high[2], low[2];
      split(words, high, low);
      const float xh = float_of(high[0]), xl = float_of(low[0]), wh = float_of(high[1]), wl = float_of(low[1]);
      exact += static_cast<double>(x) * w;
      size += std::fabs(static_cast<double>(x) * w);
      plain += x * w;
      split_sum += xl * wh;
      split_sum += xh * wl;
      split_sum += xh * wh;
      rounded += xh * wh;
    }
    plain_error = std::max(plain_error, std::fabs(plain - exact) / size);
    split_error = std::max(split_error, std::fabs(split_sum - exact) / size);
    rounded_error = std::max(rounded_error, std::fabs(rounded - exact) / size);
  }
  std::printf("fp32 %.3g, three TF32 products %.3g, one %.3g\n", plain_error, split_error, rounded_error);
  EXPECT(split_error < 2 * plain_error && split_error > 0);
  EXPECT(rounded_error > 20 * split_error);
}

const Check kChecks[] = {{"packed_weights", check_packed_weights},
                         {"columns", check_columns},
                         {"passes", check_passes},
                         {"rollouts", check_rollouts},
                         {"cursor", check_cursor},
                         {"shared_memory", check_shared_memory},
                         {"plan", check_plan},
                         {"banks", check_banks},
                         {"grids", check_grids},
                         {"products", check_products},
                         {"rounding", check_rounding},
                         {"copies", check_copies},
                         {"split_products", check_split_products}};

}  // namespace

int main(int count, char** arguments) { return run_checks(kChecks, count, arguments); }
