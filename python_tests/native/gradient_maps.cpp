// The plain functions of the fused gradient: layouts, maps and schedules, each against its definition by brute force,
// and its product against plain arithmetic.   gradient_maps NAME runs one check; without a name, it lists them.
#include <algorithm>
#include <cmath>
#include <random>

#include "cuda/fused_gradient_product.h"
#include "cuda/fused_gradient_tile.h"
#include "cuda/fused_runs.h"
#include "fused_checks.h"

namespace {

// Those of fp32: gradients have no other precision.
std::vector<FusedLibrary> fp32_libraries() {
  std::vector<FusedLibrary> all;
  for (const FusedLibrary& library : libraries()) {
    if (library.precision == Precision::fp32) all.push_back(library);
  }
  all.push_back(library_of(Precision::fp32, {32, 16}, {32, 16}, 2, 1));  // inputs are wider than any layer
  all.push_back(library_of(Precision::fp32, {32, 200, 256}, {272, 16}, 64, 64));
  return all;
}

int64_t parameters_of(const FusedLibrary& library) {
  return library.node.first_parameter + library.node.modules * library.node.parameters;
}

// A pass's products forwards and backwards hold every weight of their layers, in their places; the rest is padding.
void check_packed_weights() {
  for (const FusedLibrary& library : fp32_libraries()) {
    const GradientLibrary gradient = gradient_library(library);
    std::vector<int64_t> expected(gradient.all_words, -1);
    int64_t word = 0;
    for (const bool of_nodes : {false, true}) {
      const FusedModule& module = of_nodes ? library.node : library.edge;
      const GradientModule& back = gradient.module_of(of_nodes);
      EXPECT(back.products <= kMostProducts);
      for (int m = 0; m < module.modules; ++m) {
        EXPECT(back.word_of(m) == word);
        std::vector<int> seen_back(module.layers, 0);
        for (int p = 0; p < back.products; ++p) {
          const FusedLayer& product = back.product[p];
          const FusedLayer& layer = module.layer[back.source[p]];
          const bool forwards = p < back.forwards;
          EXPECT(forwards ? back.source[p] == p : back.source[p] <= back.source[p - (p > back.forwards)]);
          EXPECT(product.in == (forwards ? layer.in : layer.out));
          EXPECT(product.outputs % 16 == 0 && product.outputs >= product.out && product.outputs <= gradient.widest);
          EXPECT(gradient.widest <= kWidest && product.words() >= product.in);
          if (!forwards) {
            EXPECT(back.first_input[p] == seen_back[back.source[p]]);
            seen_back[back.source[p]] += product.out;
          }
          for (int output = 0; output < product.out; ++output) {
            for (int input = 0; input < product.in; ++input) {
              const int row = forwards ? output : input, column = forwards ? input : back.first_input[p] + output;
              expected[word + packed_place(product, output, input)] =
                  module.parameter_of(m) + layer.weight + row * layer.in + column;
            }
          }
          word += product.chunks * product.chunk_words();
        }
        for (int l = 0; l < module.layers; ++l) EXPECT(seen_back[l] == module.layer[l].in);
        EXPECT(back.forwards == module.layers - of_nodes);
      }
    }
    EXPECT(word == gradient.all_words);
    for (int64_t w = 0; w < word; ++w) EXPECT(parameter_of_word(library, gradient, w) == expected[w]);
  }
}

// Every parameter has a place of its own, where the product that adds to it looks for it.
void check_lanes() {
  for (const FusedLibrary& library : fp32_libraries()) {
    const GradientLibrary gradient = gradient_library(library);
    int64_t sums = 0;
    for (const FusedModule* module : {&library.edge, &library.node}) {
      for (const FusedLayer* layer : layers_of(*module)) {
        sums += module->modules * int64_t{layer->outputs} * (lane_columns(*layer) + 1);
      }
    }
    EXPECT(sums == gradient.all_sums);
    std::set<int64_t> places;
    for (const bool of_nodes : {false, true}) {
      const FusedModule& module = of_nodes ? library.node : library.edge;
      const GradientModule& back = gradient.module_of(of_nodes);
      for (int m = 0; m < module.modules; ++m) {
        for (int l = 0; l < module.layers; ++l) {
          const FusedLayer& layer = module.layer[l];
          const int64_t first = module.parameter_of(m), columns = lane_columns(layer);
          EXPECT(columns % 8 == 0 && columns >= layer.in && back.lane_weight[l] % 2 == 0);
          for (int output = 0; output < layer.out; ++output) {
            for (int input = 0; input < layer.in; ++input) {
              const int64_t place = lane_place(library, gradient, first + layer.weight + output * layer.in + input);
              EXPECT(place == back.lane_of(m) + back.lane_weight[l] + output * columns + input);
              EXPECT(places.insert(place).second);
            }
            const int64_t place = lane_place(library, gradient, first + layer.bias + output);
            EXPECT(place == back.lane_of(m) + back.lane_bias[l] + output && places.insert(place).second);
          }
          EXPECT(back.lane_weight[l] + layer.outputs * columns == back.lane_bias[l]);
          EXPECT(back.lane_bias[l] + layer.outputs == (l + 1 < module.layers ? back.lane_weight[l + 1] : back.lane));
        }
      }
    }
    EXPECT(static_cast<int64_t>(places.size()) == parameters_of(library));
    EXPECT(*places.rbegin() < gradient.all_sums);
    EXPECT(lanes_of(gradient) >= 1 && lanes_of(gradient) * gradient.all_sums * 4 <= kLaneBytes);
  }
}

// The chunks that a cursor visits are those of the passes' products, nodes before edges, step after step.
void check_cursor() {
  for (const FusedLibrary& library : fp32_libraries()) {
    const GradientLibrary gradient = gradient_library(library);
    std::vector<Pass> passes;
    for (int m = 0; m < library.edge.modules; ++m) passes.push_back(nth_pass(0, m, false, 0, 20, 128));
    if (library.edge.modules > 0) passes.push_back(passes.back());  // a module of two passes
    const int edges = static_cast<int>(passes.size());
    for (int m = library.node.modules - 1; m >= 0; --m) passes.push_back(nth_pass(0, m, true, 0, 20, 128));
    const int count = static_cast<int>(passes.size());
    const std::vector<Pass> listed = passes;
    put_nodes_first(passes.data(), count);
    for (int p = 0; p < count; ++p) {
      const Pass &pass = passes[p], &expected = listed[(edges + p) % count];
      EXPECT(pass.module == expected.module && pass.of_nodes == expected.of_nodes);
    }
    GradientCursor cursor;
    cursor.begin(gradient, passes.data(), count, 3);
    for (int step = 3; step > 0; --step) {
      for (const Pass& pass : passes) {
        const GradientModule& module = gradient.module_of(pass.of_nodes != 0);
        for (int p = 0; p < module.products; ++p) {
          for (int chunk = 0; chunk < module.product[p].chunks; ++chunk) {
            EXPECT(cursor.steps == step && cursor.outputs == module.product[p].outputs);
            EXPECT(cursor.word == module.word_of(pass.module) + module.product[p].first +
                                      packed_place(module.product[p], 0, chunk * kChunkWords));
            EXPECT(cursor.word * 4 % kCopyBytes == 0);
            cursor.next(gradient, passes.data(), count);
          }
        }
      }
    }
    EXPECT(cursor.steps == 0);
    cursor.begin(gradient, nullptr, 0, 3);
    EXPECT(cursor.steps == 0);
  }
}

// A layer's input has room in its slot, and slots and arrays follow one another without overlap.
void check_shared_memory() {
  for (const FusedLibrary& library : fp32_libraries()) {
    const GradientLibrary gradient = gradient_library(library);
    for (const TileShape shape :
         {TileShape{1, 1, 0, 16}, TileShape{3, 15, 60, 32, 16}, TileShape{12, 60, 240, 64, 48}}) {
      const GradientLayout layout = gradient_layout(library, gradient, shape);
      for (const bool of_nodes : {false, true}) {
        const FusedModule& module = of_nodes ? library.node : library.edge;
        const GradientModule& back = gradient.module_of(of_nodes);
        const int rows = of_nodes ? shape.node_rows : shape.rows;
        for (int l = 0; l <= module.layers; ++l) {
          EXPECT(back.before[l] == (l == 0 ? 0 : back.before[l - 1] + back.stride[l - 1]));
          EXPECT(l == module.layers ||
                 back.stride[l] >= std::max(module.layer[l].words(), lane_columns(module.layer[l])));
          EXPECT(l == 0 || back.stride[l] >= module.layer[l - 1].outputs);
          EXPECT(back.stride[l] % 16 == 8);
        }
        EXPECT(back.row_words == back.before[module.layers] + back.stride[module.layers]);
        EXPECT(int64_t{4} * rows * back.row_words <= layout.tile.ring);
      }
      int64_t end = layout.tile.bytes;
      const std::vector<std::pair<int, int64_t>> arrays = {{layout.factor, 8 * shape.rollouts},
                                                           {layout.cotangents, 4 * shape.nodes * library.features},
                                                           {layout.inputs, 8 * shape.edges * library.features},
                                                           {layout.out_begin, 2 * (shape.nodes + 1)},
                                                           {layout.out_row, 2 * shape.edges}};
      for (const auto& [begin, bytes] : arrays) {
        EXPECT(begin >= end && begin % 16 == 0);
        end = begin + bytes;
      }
      EXPECT(end <= layout.bytes);
    }
  }
}

// What is planned fits, takes every system of the run, and follows from library and batch alone.
void check_plan() {
  for (const FusedLibrary& given : fp32_libraries()) {
    const GradientLibrary gradient = gradient_library(given);
    FusedLibrary library = given;
    library.widest = gradient.widest;
    for (const int64_t nodes : {1, 2, 5, 10, 31, 128, 129}) {
      const int64_t edges = nodes * (nodes - 1) > 2000 ? nodes : nodes * (nodes - 1);
      const bool fitting = gradient_tile(library, gradient, nodes, edges, 1).rollouts == 1;
      EXPECT(nodes <= kMostNodes || !fitting);
      if (nodes <= 5) EXPECT(fitting);
      for (const int64_t rollouts : {int64_t{1}, int64_t{100}, int64_t{2400000}, int64_t{1} << 40}) {
        const TileShape shape = plan_gradient_tiles(library, gradient, {nodes, edges, rollouts});
        EXPECT((shape.rollouts > 0) == fitting);
        if (!fitting) continue;
        EXPECT(shape.nodes == shape.rollouts * nodes && shape.nodes <= kMostNodes);
        EXPECT(shape.edges == shape.rollouts * edges && shape.edges <= kMostEdges);
        for (const int rows : {shape.rows, shape.node_rows}) {
          EXPECT(rows % 16 == 0 && rows > 0 && rows <= gradient_pass_rows(gradient.widest));
        }
        const GradientLayout layout = gradient_layout(library, gradient, shape);
        EXPECT(layout.bytes <= gradient_shared_bytes(gradient.widest));
        EXPECT(sorting_layout(library, shape).bytes <= layout.tile.ring);
        const int64_t lanes = lanes_of(gradient);
        EXPECT(rollouts <= lanes ? shape.rollouts == 1 : shape.rollouts <= (rollouts + lanes - 1) / lanes);
      }
    }
  }
}

void check_grids() {
  check_grid<64, gradient_pass_rows(64)>();
  check_grid<128, gradient_pass_rows(128)>();
  check_grid<256, gradient_pass_rows(256)>();
}

template <int kWidest>
void check_slices_of() {
  using Grid = WeightGrid<kWidest>;
  static_assert(Grid::kRows * Grid::kColumns * kWarpLanes == kThreads);
  for (int products = 1; products <= (kWidest + kMostFeatures) / 8; ++products) {
    const int slices = count_slices(products, Grid::kMostColumns);
    int next = 0;
    for (int n = 0; n < slices; ++n) {
      const Slice slice = nth_slice(n, products, Grid::kMostColumns);
      EXPECT(slice.begin == next && slice.end > next && slice.end - slice.begin <= Grid::kMostColumns);
      next = slice.end;
      std::set<int> seen;
      for (int column = 0; column < Grid::kColumns; ++column) {
        const int across = share_of(slice.end - slice.begin, column, Grid::kColumns);
        EXPECT(across <= Grid::kColumnProducts);
        for (int j = 0; j < across; ++j) seen.insert(slice.begin + column + Grid::kColumns * j);
      }
      EXPECT(static_cast<int>(seen.size()) == slice.end - slice.begin && *seen.begin() == slice.begin);
    }
    EXPECT(next == products);
  }
  for (int outputs = 16; outputs <= kWidest; outputs += 16) {
    for (int row = 0; row < Grid::kRows; ++row) EXPECT(share_of(outputs / 16, row, Grid::kRows) <= Grid::kRowProducts);
  }
}

void check_slices() {
  check_slices_of<64>();
  check_slices_of<128>();
  check_slices_of<256>();
}

// Four rows of eight neighbours are read at a time, 4 bytes each.
void check_banks() {
  for (int words = 8; words <= 400; words += 8) {
    const int stride = activation_stride(words);
    std::set<int> banks;
    for (int lane = 0; lane < kWarpLanes; ++lane) banks.insert((lane % 4 * stride + lane / 4) % 32);
    EXPECT(static_cast<int>(banks.size()) == kWarpLanes);
  }
}

template <int kWidest>
__global__ void gradient_kernel(FusedLayer layer, int rows, const uint32_t* cotangents, int cotangent_stride,
                                const uint32_t* input, int input_stride, float* weight, float* bias, int columns) {
  WeightGradient<kWidest>(static_cast<int>(threadIdx.x), layer, rows, cotangents, cotangent_stride, input, input_stride)
      .add(weight, columns, bias, columns);
}

// Against sums in double: what is added is as right as fp32, and what was there before stays.
template <int kWidest>
void check_product_of(int in, int out, int rows) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  FusedLayer layer{};
  layer.in = in;
  layer.out = out;
  layer.outputs = round_up(out, 16);
  const int columns = lane_columns(layer), padded = round_up(rows, 16);
  const int cotangent_stride = activation_stride(layer.outputs), input_stride = activation_stride(columns);
  std::vector<uint32_t> cotangents(padded * cotangent_stride, bits_of(NAN)), input(padded * input_stride, bits_of(NAN));
  for (int row = 0; row < padded; ++row) {
    for (int o = 0; o < layer.outputs; ++o) {
      cotangents[row * cotangent_stride + o] = bits_of(row < rows && o < out ? normal(generator) : 0.0f);
    }
    for (int i = 0; i < columns; ++i) input[row * input_stride + i] = bits_of(i < in ? normal(generator) : 0.0f);
  }
  std::vector<float> weight(layer.outputs * columns), bias(layer.outputs);
  for (float& value : weight) value = normal(generator);
  for (float& value : bias) value = normal(generator);
  const std::vector<float> weight_before = weight, bias_before = bias;
  const Execution here{1, 0, nullptr, Precision::fp32};
  launch("gradient", gradient_kernel<kWidest>, 1, kThreads, here, layer, rows, cotangents.data(), cotangent_stride,
         input.data(), input_stride, weight.data(), bias.data(), columns);
  const auto at = [](const std::vector<uint32_t>& words, int place) { return double{float_of(words[place])}; };
  for (int o = 0; o < layer.outputs; ++o) {
    double sum = bias_before[o];
    for (int row = 0; row < rows; ++row) sum += at(cotangents, row * cotangent_stride + o);
    EXPECT(std::fabs(bias[o] - sum) < 1e-6 * (10 + rows));
    for (int i = 0; i < columns; ++i) {
      double expected = weight_before[o * columns + i];
      for (int row = 0; row < rows; ++row) {
        expected += at(cotangents, row * cotangent_stride + o) * at(input, row * input_stride + i);
      }
      EXPECT(std::fabs(weight[o * columns + i] - expected) < 1e-6 * (10 + rows));
    }
  }
}

void check_product() {
  check_product_of<64>(8, 64, 64);
  check_product_of<64>(80, 5, 37);
  check_product_of<128>(131, 100, 16);
  check_product_of<256>(260, 256, 23);
  check_product_of<256>(1, 1, 1);
}

// Every system is in one run, runs alternate or are cut where a tile could not hold the largest of both kinds.
void check_runs() {
  std::mt19937 generator(4);
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t systems = generator() % 12;
    std::vector<int64_t> nodes{0}, edges{0};
    for (int64_t b = 0; b < systems; ++b) {
      nodes.push_back(nodes.back() + 1 + generator() % 9);
      edges.push_back(edges.back() + generator() % 9);
    }
    GraphView graph{};
    graph.systems = systems;
    graph.host_node_offset = nodes.data();
    graph.host_edge_offset = edges.data();
    const auto fits = [](int64_t n, int64_t e) { return n + e <= 10; };
    int64_t next = 0;
    for_runs(graph, fits, [&](int64_t first, int64_t end, bool fused, const LargestSystem& largest) {
      EXPECT(first == next && end > first && end <= systems);
      next = end;
      LargestSystem expected;
      for (int64_t b = first; b < end; ++b) {
        EXPECT(fits(nodes[b + 1] - nodes[b], edges[b + 1] - edges[b]) == fused);
        expected = expected.with(graph, b);
      }
      if (fused) EXPECT(fits(expected.nodes, expected.edges) && largest.nodes == expected.nodes);
    });
    EXPECT(next == systems);
  }
}

const Check kChecks[] = {{"packed_weights", check_packed_weights},
                         {"lanes", check_lanes},
                         {"cursor", check_cursor},
                         {"shared_memory", check_shared_memory},
                         {"plan", check_plan},
                         {"grids", check_grids},
                         {"slices", check_slices},
                         {"banks", check_banks},
                         {"product", check_product},
                         {"runs", check_runs}};

}  // namespace

int main(int count, char** arguments) { return run_checks(kChecks, count, arguments); }
