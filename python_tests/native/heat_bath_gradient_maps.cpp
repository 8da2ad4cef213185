// The plain functions of the fused heat bath's gradient, each against its definition by brute force.
// heat_bath_gradient_maps NAME runs one check; without a name, it lists them.
#include <algorithm>

#include "cuda/fused_heat_bath_gradient_tile.h"
#include "heat_bath_checks.h"

namespace {

// Those of fp32 whose rows have layers behind the sums of projections.
std::vector<FusedLibrary> gradient_libraries() {
  std::vector<FusedLibrary> all;
  for (FusedLibrary& library : libraries()) {
    if (library.precision == Precision::fp32 && library.node.layers > 1) all.push_back(library);
  }
  all.push_back(library_of(Precision::fp32, {32, 16}, {32, 16, 16}, 2, 1));  // inputs are wider than any layer
  for (FusedLibrary& library : all) library.widest = heat_bath_gradient_library(library).widest;
  return all;
}

// A stage's products with the weights that they stand for: module, layer, and the transposed or not.
struct Factor {
  bool of_nodes, back;
  int layer;
};

std::vector<Factor> stage(const FusedLibrary& library, int which) {
  std::vector<Factor> factors;
  const int edges = library.edge.layers, nodes = library.node.layers;
  if (which == 1) {
    for (int l = 1; l < nodes; ++l) factors.push_back({true, false, l});
    for (int l = nodes - 1; l > 0; --l) factors.push_back({true, true, l});
    return factors;
  }
  for (int l = 0; l < edges; ++l) factors.push_back({false, false, l});
  factors.push_back({true, which == 2, 0});
  for (int l = edges - 1; which == 2 && l > 0; --l) factors.push_back({false, true, l});
  return factors;
}

// The chunks that a cursor visits are those of the rounds' stages in the order of the kernel's loops, and each word is
// the weight that the product wants there.
void check_cursor() {
  for (const FusedLibrary& library : gradient_libraries()) {
    const HeatBathGradientLibrary gradient = heat_bath_gradient_library(library);
    for (const HeatBathSchedule& schedule :
         {schedule_of(library, 5, 2, 80, 64, false), schedule_of(library, 4, 4, 3, 16, true),
          schedule_of(library, 1, 1, 300, 64, false), schedule_of(library, 3, 1, 0, 32, true)}) {
      HeatBathGradientCursor cursor;
      cursor.begin(gradient, &schedule, 0, schedule.rounds());
      const auto expect_stage = [&](int which, int edge_module) {
        for (const Factor& factor : stage(library, which)) {
          const FusedModule& module = factor.of_nodes ? library.node : library.edge;
          const FusedLayer& layer = module.layer[factor.layer];
          const bool projection = factor.of_nodes && factor.layer == 0;
          const int inputs = projection ? library.message : layer.in;
          const int in = factor.back ? layer.out : inputs, out = factor.back ? inputs : layer.out;
          const int64_t weights = module.parameter_of(factor.of_nodes ? schedule.module : edge_module) + layer.weight;
          for (int chunk = 0; chunk < (in + kChunkWords - 1) / kChunkWords; ++chunk) {
            EXPECT(cursor.steps > 0 && cursor.outputs % 16 == 0 && cursor.outputs >= out);
            EXPECT(cursor.outputs <= gradient.widest && cursor.word * 4 % kCopyBytes == 0);
            for (int output = 0; output < cursor.outputs; ++output) {
              for (int w = 0; w < kChunkWords; ++w) {
                const int input = chunk * kChunkWords + w;
                const int64_t expected = output >= out || input >= in ? -1
                                         : factor.back                ? weights + input * layer.in + output
                                                                      : weights + output * layer.in + input;
                EXPECT(parameter_of_word(library, gradient, cursor.word + output * kChunkWords + w) == expected);
              }
            }
            cursor.next(gradient, &schedule, 0);
          }
        }
      };
      for (int round = 0; round < schedule.rounds(); ++round) {
        const int transitions = schedule.transitions_of(round);
        const auto expect_messages = [&](int which) {
          for (int m = 0; m < library.edge.modules; ++m) {
            for (int p = 0; p < count_passes(transitions * schedule.messages(m), schedule.pass_rows); ++p) {
              expect_stage(which, m);
            }
          }
        };
        expect_messages(0);
        for (int p = 0; p < count_passes(transitions * schedule.rows, schedule.pass_rows); ++p) expect_stage(1, 0);
        expect_messages(2);
      }
      EXPECT(cursor.steps == 0);
    }
  }
}

// What a product reads and writes has room in its slot, and slots and arrays follow one another without overlap.
void check_shared_memory() {
  for (const FusedLibrary& library : gradient_libraries()) {
    const HeatBathGradientLibrary gradient = heat_bath_gradient_library(library);
    for (const HeatBathShape& shape : {HeatBathShape{1, 0, 1, 16, 0, 1}, HeatBathShape{5, 20, 12, 64, 4, 100}}) {
      const HeatBathGradientLayout layout = heat_bath_gradient_layout(library, gradient, shape);
      const int projection = gradient.cotangent_slot();
      for (const bool of_nodes : {false, true}) {
        const FusedModule& module = of_nodes ? library.node : library.edge;
        const GradientModule& back = gradient.module_of(of_nodes);
        int end = 0;
        for (int l = of_nodes ? 1 : 0; l <= (of_nodes ? module.layers : projection); ++l) {
          EXPECT(back.before[l] == end && back.stride[l] % 16 == 8);
          end += back.stride[l];
          if (l < module.layers) {
            EXPECT(back.stride[l] >= std::max(module.layer[l].words(), lane_columns(module.layer[l])));
          }
          if (l > 0 && l <= module.layers) EXPECT(back.stride[l] >= module.layer[l - 1].outputs);
        }
        EXPECT(back.row_words == end && int64_t{4} * shape.rows * end <= layout.tile.ring);
      }
      EXPECT(gradient.edge.stride[projection - 1] >= round_up(library.message, kChunkWords));
      EXPECT(gradient.edge.stride[projection] >= library.node.layer[0].outputs);
      EXPECT(layout.tile.stride == gradient.node.stride[1] && gradient.node.before[1] == 0);
      EXPECT(layout.tile.stride >= layout.tile.width);                     // sums of projections end up there
      EXPECT(4 * 16 * gradient.node.row_words >= 4 * 2 * kMostReceivers);  // while receivers are read
      EXPECT(layout.cotangents == layout.tile.bytes && layout.cotangents % 16 == 0);
      EXPECT(layout.compared == layout.cotangents + 4 * shape.room * layout.tile.width);
      EXPECT(layout.bytes >= layout.compared + 4 * shape.receivers);
    }
  }
}

// What is planned fits, has room for a transition of any tile, and follows from library and batch alone.
void check_plan() {
  for (const FusedLibrary& library : gradient_libraries()) {
    const HeatBathGradientLibrary gradient = heat_bath_gradient_library(library);
    const HeatBathCosts costs = gradient_costs(library, gradient);
    const int64_t bytes = gradient_shared_bytes(gradient.widest);
    for (const HeatBathSizes& some : sizes()) {
      const HeatBathPlan plan = plan_tiles(costs, some, lanes_of(gradient), bytes);
      const HeatBathShape& shape = plan.shape;
      EXPECT((shape.rows > 0) == fits(costs, some, bytes));
      if (some.nodes <= 10) EXPECT(shape.rows > 0);
      if (shape.rows == 0) continue;
      EXPECT(heat_bath_gradient_layout(library, gradient, shape).bytes <= bytes);
      EXPECT(shape.rows % 16 == 0 && shape.rows <= gradient_pass_rows(gradient.widest));
      EXPECT(shape.room >= shape.edges * library.edge.modules + shape.receivers && shape.room < kNoRow);
      EXPECT(plan.cut.systems == some.systems && plan.cut.transitions == some.transitions);
    }
  }
}

const Check kChecks[] = {{"cursor", check_cursor}, {"shared_memory", check_shared_memory}, {"plan", check_plan}};

}  // namespace

int main(int count, char** arguments) { return run_checks(kChecks, count, arguments); }
