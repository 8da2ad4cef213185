// However a batch is cut into tiles, rounds and passes, its scores are the same to the bit: the fused heat bath is run
// on the host with plans of every kind.   heat_bath_cuts NAME runs one check; without a name, it lists them.
#include <cmath>
#include <random>

#include "cuda/fused_heat_bath.cu"
#include "cuda/fused_weights.cu"
#include "fused_checks.h"

namespace {

constexpr int64_t kFeatures = 3, kTypes = 3, kNodeTypes = 2, kFrames = 9, kTransitions = 6, kWidth = 20;

// Systems of several sizes, complete but for a few edges, with absences, step scales and node types.
struct Batch {
  std::vector<int64_t> node_offset{0}, in_offset{0}, edge_offset{0}, sender, receiver, start, row_offset{0}, rows{0};
  std::vector<int64_t> stride;
  std::vector<uint8_t> present, node_types, edge_types;
  std::vector<float> states, step_scale, held_weight, parameters, weight;
  std::vector<int64_t> edge_sizes{2 * kFeatures, 17, 12}, node_sizes{12 + kFeatures, kWidth, 9, kFeatures};

  explicit Batch(bool conditionals) {
    std::mt19937 generator(5);
    std::normal_distribution<float> normal;
    for (const int64_t nodes : {4, 1, 5, 3, 4, 2, 4}) {
      const int64_t first = node_offset.back();
      for (int64_t v = 0; v < nodes; ++v) {
        const size_t begin = sender.size();
        for (int64_t u = 0; u < nodes; ++u) {
          if (u == v || generator() % 6 == 0) continue;
          sender.push_back(first + u);
          receiver.push_back(first + v);
          edge_types.push_back(static_cast<uint8_t>(generator() % kTypes));
          for (int64_t k = 0; k < kTypes; ++k) held_weight.push_back(static_cast<float>(generator() % 4) / 4);
        }
        in_offset.push_back(static_cast<int64_t>(sender.size()));
        int64_t count = 1;
        stride.resize(sender.size());
        for (size_t e = sender.size(); e-- > begin;) {
          const bool held = generator() % 4 == 0;
          stride[e] = held ? 0 : count;
          if (!held) count *= kTypes;
        }
        const auto degree = static_cast<int64_t>(sender.size() - begin);
        row_offset.push_back(row_offset.back() + (conditionals ? degree * kTypes : count));
        node_types.push_back(static_cast<uint8_t>(generator() % kNodeTypes));
      }
      node_offset.push_back(first + nodes);
      edge_offset.push_back(static_cast<int64_t>(sender.size()));
      rows.push_back(row_offset.back());
      step_scale.push_back(0.5f + std::fabs(normal(generator)));
      for (int64_t l = 0; l < kTransitions; ++l) start.push_back(static_cast<int64_t>(generator() % (kFrames - 1)));
      for (int64_t i = 0; i < kFrames * nodes; ++i) {
        present.push_back(generator() % 5 != 0);
        for (int64_t d = 0; d < kFeatures; ++d) states.push_back(present.back() ? normal(generator) : NAN);
      }
    }
    const LibraryView<float> sizes = library();
    for (int64_t i = 0; i < sizes.parameter_count(); ++i) parameters.push_back(0.4f * normal(generator));
    weight.assign(kFeatures, 0.7f);
  }

  LibraryView<float> library() const {
    return {kFeatures,
            kTypes,
            kNodeTypes,
            true,
            static_cast<int64_t>(edge_sizes.size()) - 1,
            edge_sizes.data(),
            static_cast<int64_t>(node_sizes.size()) - 1,
            node_sizes.data(),
            parameters.data()};
  }

  int64_t systems() const { return static_cast<int64_t>(node_offset.size()) - 1; }

  HeatBathProblem<float> problem(bool conditionals, bool all_present) const {
    return {library(),
            {systems(), node_offset.back(), static_cast<int64_t>(sender.size()), node_offset.data(), in_offset.data(),
             sender.data(), receiver.data(), node_offset.data(), edge_offset.data()},
            {kFrames, states.data(), all_present ? nullptr : present.data(), step_scale.data()},
            {ErrorKind::robust, 0.1, weight.data()},
            conditionals ? HeatBathRows::conditionals : HeatBathRows::blocks,
            kTransitions,
            start.data(),
            node_types.data(),
            edge_types.data(),
            row_offset.data(),
            stride.data(),
            held_weight.data(),
            rows.data(),
            nullptr};
  }
};

// Scores under a plan, with just the room that it asks for.
std::vector<float> scores_under(const HeatBathProblem<float>& problem, const FusedLibrary& library,
                                const HeatBathPlan& plan, const Execution& execution) {
  const Buffer<uint32_t> packed = packed_weights(library, problem.library.parameters, execution);
  std::vector<float> scores(problem.host_row_offset[problem.graph.systems], NAN);
  score_systems(problem, library, packed, plan, 0, problem.graph.systems, scores.data(), execution);
  return scores;
}

void check(bool conditionals) {
  const Batch batch(conditionals);
  const HeatBathProblem<float> problem = batch.problem(conditionals, false);
  for (const Precision precision : kPrecisions) {
    const Execution execution{1, 0, nullptr, precision};
    FusedLibrary library;
    EXPECT(lay_out(problem.library, precision, &library));
    HeatBathSizes sizes = no_systems(problem);
    for (int64_t b = 0; b < problem.graph.systems; ++b) sizes = with(sizes, problem, b);
    std::vector<float> expected;
    int plans = 0;
    for (const int64_t together : {1, 3, 7}) {
      for (const int64_t parts : {1, 2, 5}) {
        if (together > 1 && parts > 1) continue;
        for (const int64_t each : {1, 4, 6}) {
          for (const int rows : {16, 48}) {
            const int64_t receivers = together * ((sizes.nodes + parts - 1) / parts);
            const int64_t edges = std::min(together * sizes.edges, receivers * sizes.degree());
            HeatBathPlan plan{{sizes.systems, together, parts, kTransitions, each, kNodeTypes},
                              shape_within(scoring_costs(library), sizes, receivers, edges, each, rows, 232448)};
            EXPECT(plan.shape.rows == rows);
            if (rows == 48) plan.shape.room = plan.shape.edges * library.edge.modules + plan.shape.receivers;
            const std::vector<float> scores = scores_under(problem, library, plan, execution);
            if (expected.empty()) expected = scores;
            EXPECT(scores.size() == expected.size());
            for (size_t i = 0; i < scores.size(); ++i) EXPECT(scores[i] == expected[i]);  // a NaN is not
            ++plans;
          }
        }
      }
    }
    EXPECT(plans == 30);
    EXPECT(std::set<float>(expected.begin(), expected.end()).size() > expected.size() / 2);
  }
}

void check_blocks() { check(false); }
void check_conditionals() { check(true); }

const Check kChecks[] = {{"blocks", check_blocks}, {"conditionals", check_conditionals}};

}  // namespace

int main(int count, char** arguments) { return run_checks(kChecks, count, arguments); }
