// The tiles of the unfused kernels' products: who sums what, where terms are staged, and the products themselves as the
// emulation runs them, against plain arithmetic.   tile_maps NAME runs one check; without a name, it lists them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

// The kernels themselves: launched on matrices of the test's own.
#include "cuda/typed_linear.cu"  // NOLINT(bugprone-suspicious-include)
#include "fused_checks.h"

namespace {

using namespace nri;
using namespace nri::cuda;

using Places = std::map<std::pair<int, int>, int>;  // (row, column) -> how often it is summed

void expect_covered_once(const Places& places, int columns) {
  EXPECT(places.size() == static_cast<size_t>(kProductRows * columns));
  for (const auto& [place, times] : places) {
    EXPECT(times == 1);
    EXPECT(place.first >= 0 && place.first < kProductRows && place.second >= 0 && place.second < columns);
  }
}

template <int kPerThread>
Places of_threads() {
  Places places;
  for (int thread = 0; thread < 64; ++thread) {
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < kPerThread; ++j) ++places[{tile_row(thread, i), tile_column<kPerThread>(thread, j)}];
    }
  }
  return places;
}

template <int kColumns>
Places of_tensor_cores() {
  using Grid = TensorGrid<kColumns>;
  Places places;
  for (int thread = 0; thread < Grid::kThreads; ++thread) {
    for (int i = 0; i < Grid::kRowProducts; ++i) {
      for (int j = 0; j < Grid::kColumnProducts; ++j) {
        for (int n = 0; n < 4; ++n) ++places[{Grid::row(thread, i, n), Grid::column(thread, j, n)}];
      }
    }
  }
  return places;
}

void check_coverage() {
  expect_covered_once(of_threads<1>(), 8);
  expect_covered_once(of_threads<4>(), 32);
  expect_covered_once(of_tensor_cores<8>(), 8);
  expect_covered_once(of_tensor_cores<64>(), 64);
  expect_covered_once(of_tensor_cores<128>(), 128);
}

template <int kCount, bool kByDepth>
void expect_staged(bool without_conflicts) {
  using Layout = StagedLayout<kCount, kByDepth>;
  std::set<int> words;
  for (int row = 0; row < kCount; ++row) {
    for (int term = 0; term < kProductDepth; ++term) words.insert(Layout::place(row, term));
  }
  EXPECT(words.size() == static_cast<size_t>(kCount * kProductDepth));
  EXPECT(*words.begin() >= 0 && *words.rbegin() < Layout::kWords);
  std::set<int> banks;
  for (int lane = 0; lane < 32; ++lane) banks.insert(Layout::place(lane / 4, lane % 4) % 32);
  EXPECT(banks.size() == 32 || !without_conflicts);
}

void check_staging() {
  expect_staged<8, true>(true);
  expect_staged<8, false>(false);
  expect_staged<32, true>(true);
  expect_staged<64, true>(true);
  expect_staged<64, false>(true);
  expect_staged<128, true>(true);
  expect_staged<128, false>(true);
}

// Two modules' rows: 100 of the first in two tiles, 64 of the second in one, and a tile that is not used.
struct Rows {
  static constexpr int64_t kSlots = 256, kUsed = 192;
  std::vector<int32_t> bucket{0, 0, 1, -1};
  std::vector<int64_t> start{0, 128, 192}, count{100, 64};

  SlotView view() const {
    SlotView slots{};
    slots.slots = kSlots;
    slots.classes = slots.buckets = 2;
    slots.tile_bucket = bucket.data();
    slots.start = start.data();
    slots.count = count.data();
    return slots;
  }
};

template <typename T>
std::vector<T> random_numbers(int64_t count, int seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(normal(generator));
  return values;
}

// The sum and the sum of magnitudes, which rounding is a share of.
struct Sum {
  double value = 0, size = 0;
  void add(double term) {
    value += term;
    size += std::fabs(term);
  }
};

template <typename T>
void expect_near(T got, const Sum& expected) {
  const double tolerance = std::is_same_v<T, float> ? 1e-6 : 1e-14;
  EXPECT(std::fabs(got - expected.value) <= tolerance * (expected.size + 1e-30));
}

template <typename T>
void expect_products(int64_t in, int64_t out) {
  const Rows rows;
  const int64_t module = in * out + out;
  const auto parameters = random_numbers<T>(2 * module, 1), x = random_numbers<T>(Rows::kSlots * in, 2);
  const auto dy = random_numbers<T>(Rows::kSlots * out, 3), rectified = random_numbers<T>(Rows::kSlots * in, 4);
  std::vector<T> y(Rows::kSlots * out, T(7)), dx(Rows::kSlots * in, T(7)), gradient(2 * module);
  const Layer layer{in, out, 0, in, in * out, module, true};
  const Execution here{};
  typed_linear<T>(rows.view(), layer, parameters.data(), x.data(), y.data(), here);
  typed_linear_input_gradient<T>(rows.view(), layer, parameters.data(), dy.data(), rectified.data(), dx.data(), here);
  typed_linear_weight_gradient<T>(rows.view(), layer, dy.data(), x.data(), gradient.data(), 2 * module, here);
  for (int64_t r = 0; r < Rows::kSlots; ++r) {
    const T* const weight = parameters.data() + (r < rows.start[1] ? 0 : module);
    for (int64_t o = 0; o < out; ++o) {
      Sum sum;
      for (int64_t i = 0; i < in; ++i) sum.add(static_cast<double>(weight[o * in + i]) * x[r * in + i]);
      sum.add(weight[in * out + o]);
      if (sum.value < 0) sum.value = 0;
      r < Rows::kUsed ? expect_near(y[r * out + o], sum) : expect_near(y[r * out + o], {7.0, 0.0});
    }
    for (int64_t i = 0; i < in; ++i) {
      Sum sum;
      for (int64_t o = 0; o < out; ++o) sum.add(static_cast<double>(weight[o * in + i]) * dy[r * out + o]);
      if (!(rectified[r * in + i] > T(0))) sum.value = 0;
      r < Rows::kUsed ? expect_near(dx[r * in + i], sum) : expect_near(dx[r * in + i], {7.0, 0.0});
    }
  }
  for (int64_t m = 0; m < 2; ++m) {
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t i = 0; i <= in; ++i) {
        Sum sum;
        for (int64_t r = rows.start[m]; r < rows.start[m] + rows.count[m]; ++r) {
          sum.add(static_cast<double>(dy[r * out + o]) * (i < in ? x[r * in + i] : T(1)));
        }
        expect_near(gradient[m * module + (i < in ? o * in + i : in * out + o)], sum);
      }
    }
  }
}

void check_products() {
  for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {8, 64}, {64, 8}, {17, 70}, {68, 33}, {100, 4}, {130, 65}, {31, 200}}) {
    expect_products<float>(in, out);
    expect_products<double>(in, out);
  }
}

// A row's bits do not depend on its place in a tile, nor on its neighbours.
void check_places() {
  const Rows rows;
  const int64_t in = 40, out = 70;
  const auto parameters = random_numbers<float>(2 * (in * out + out), 1);
  auto x = random_numbers<float>(Rows::kSlots * in, 2);
  std::copy_n(x.begin(), in, x.begin() + 37 * in);
  std::fill_n(x.begin() + 36 * in, in, std::nanf(""));
  std::vector<float> y(Rows::kSlots * out);
  const Layer layer{in, out, 0, in, in * out, in * out + out, false};
  typed_linear<float>(rows.view(), layer, parameters.data(), x.data(), y.data(), Execution{});
  EXPECT(std::memcmp(y.data(), y.data() + 37 * out, out * sizeof(float)) == 0);
  EXPECT(std::isnan(y[36 * out]));
}

const std::pair<const char*, void (*)()> kChecks[] = {
    {"coverage", check_coverage}, {"staging", check_staging}, {"products", check_products}, {"places", check_places}};

}  // namespace

int main(int count, char** arguments) {
  for (const auto& [name, check] : kChecks) {
    if (count < 2) std::printf("%s\n", name);
    if (count < 2 || std::strcmp(arguments[1], name) != 0) continue;
    check();
    return 0;
  }
  return count < 2 ? 0 : 2;
}
