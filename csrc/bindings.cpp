// The only file that sees Python. Functions take addresses and sizes as integers; nri_fast/ops/ is the only caller,
// has checked them, and keeps the memory alive. The interpreter lock is released while an operation runs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>

#include "common/philox.h"
#include "common/portable_math.h"
#include "cuda/plans.h"
#include "ops/anneal.h"
#include "ops/heat_bath.h"
#include "ops/linear.h"
#include "ops/machine.h"
#include "ops/metropolis_run.h"
#include "ops/propose_from_table.h"
#include "ops/rollout_choice.h"
#include "ops/rollout_energy.h"
#include "ops/rollout_gradient.h"
#include "ops/simulate.h"

namespace py = pybind11;
using py::arg;

namespace {

using Address = uintptr_t;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Where to run: the backend, and its Execution.
struct Place {
  bool cuda;
  nri::Execution execution;
};

// A library without its weights.
struct Layout {
  int64_t features, edge_types, node_types;
  bool silent;
  std::vector<int64_t> edge_sizes, node_sizes;

  template <typename T>
  nri::LibraryView<T> with(Address parameters) const {
    return {features,
            edge_types,
            node_types,
            silent,
            static_cast<int64_t>(edge_sizes.size()) - 1,
            edge_sizes.data(),
            static_cast<int64_t>(node_sizes.size()) - 1,
            node_sizes.data(),
            at<const T>(parameters)};
  }
};

struct ErrorMeasure {
  bool robust;
  double scale_squared;
  Address weight;

  template <typename T>
  nri::ErrorView<T> view() const {
    return {robust ? nri::ErrorKind::robust : nri::ErrorKind::squared, scale_squared, at<const T>(weight)};
  }
};

struct Trajectories {
  int64_t steps;
  Address states, present, step_scale;

  template <typename T>
  nri::TrajectoryView<T> view() const {
    return {steps, at<const T>(states), at<const uint8_t>(present), at<const T>(step_scale)};
  }
};

// Calls body(T{}) with the scalar type of the call's tensors.
template <typename Body>
void in_precision(bool float64, const Body& body) {
  const py::gil_scoped_release unlocked;
  float64 ? body(double{}) : body(float{});
}

nri::DrawView draws(uint64_t seed, int64_t step, Address system_ids) {
  return {seed, step, at<const int64_t>(system_ids)};
}

#define NRI_ON(place, call) ((place).cuda ? nri::cuda::call : nri::cpu::call)

void rollout_energy(const Place& place, bool float64, const Layout& layout, Address parameters,
                    const nri::GraphView& graph, const Trajectories& trajectories, const ErrorMeasure& error,
                    int64_t rollout, Address node_types, Address observed, int64_t structures, Address edge_types,
                    Address energy) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    const nri::RolloutProblem<T> problem{layout.with<T>(parameters),
                                         graph,
                                         trajectories.view<T>(),
                                         error.view<T>(),
                                         rollout,
                                         at<const uint8_t>(node_types),
                                         at<const uint8_t>(observed)};
    NRI_ON(place, rollout_energy(problem, structures, at<const uint8_t>(edge_types), at<T>(energy), place.execution));
  });
}

void rollout_gradient(const Place& place, bool float64, const Layout& layout, Address parameters,
                      const nri::GraphView& graph, const Trajectories& trajectories, const ErrorMeasure& error,
                      int64_t rollout, Address node_types, Address observed, Address edge_types, Address cotangent,
                      Address energy, Address parameter_gradient, Address state_gradient) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    const nri::RolloutProblem<T> problem{layout.with<T>(parameters),
                                         graph,
                                         trajectories.view<T>(),
                                         error.view<T>(),
                                         rollout,
                                         at<const uint8_t>(node_types),
                                         at<const uint8_t>(observed)};
    NRI_ON(place, rollout_gradient(problem, at<const uint8_t>(edge_types), at<const T>(cotangent), at<T>(energy),
                                   at<T>(parameter_gradient), at<T>(state_gradient), place.execution));
  });
}

void rollout_choice(const Place& place, bool float64, const Layout& layout, Address parameters,
                    const nri::GraphView& graph, const Trajectories& trajectories, const ErrorMeasure& error,
                    int64_t rollout, Address edge_types, Address node_types, uint64_t seed, int64_t step,
                    Address system_ids, Address temperature, Address log_ratio, Address energy,
                    Address parameter_gradient) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    const nri::RolloutChoice<T> choice{
        {layout.with<T>(parameters), graph, trajectories.view<T>(), error.view<T>(), rollout, nullptr, nullptr},
        at<const uint8_t>(edge_types),
        at<const uint8_t>(node_types),
        draws(seed, step, system_ids),
        at<const T>(temperature),
        at<const double>(log_ratio)};
    nri::cpu::rollout_choice(choice, at<T>(energy), at<T>(parameter_gradient), place.execution);
  });
}

void forecast(const Place& place, bool float64, const Layout& layout, Address parameters, const nri::GraphView& graph,
              Address initial, int64_t horizon, Address edge_types, Address node_types, Address present,
              Address step_scale, Address states) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    const nri::ForecastProblem<T> problem{layout.with<T>(parameters),    graph,
                                          at<const T>(initial),          horizon,
                                          at<const uint8_t>(edge_types), at<const uint8_t>(node_types),
                                          at<const uint8_t>(present),    at<const T>(step_scale)};
    NRI_ON(place, forecast(problem, at<T>(states), place.execution));
  });
}

// Scores when `cotangent` is null, otherwise their gradient; `output` is scores or parameter gradient. Without output:
// the number of values that `kept` has to hold.
int64_t heat_bath(const Place& place, bool float64, const Layout& layout, Address parameters,
                  const nri::GraphView& graph, const Trajectories& trajectories, const ErrorMeasure& error,
                  bool conditionals, int64_t transitions, Address start, Address node_types, Address edge_types,
                  Address row_offset, Address stride, Address held_weight, Address host_row_offset, Address kept,
                  Address cotangent, Address output) {
  int64_t values = 0;
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    const nri::HeatBathProblem<T> problem{layout.with<T>(parameters),
                                          graph,
                                          trajectories.view<T>(),
                                          error.view<T>(),
                                          conditionals ? nri::HeatBathRows::conditionals : nri::HeatBathRows::blocks,
                                          transitions,
                                          at<const int64_t>(start),
                                          at<const uint8_t>(node_types),
                                          at<const uint8_t>(edge_types),
                                          at<const int64_t>(row_offset),
                                          at<const int64_t>(stride),
                                          at<const float>(held_weight),
                                          at<const int64_t>(host_row_offset),
                                          at<T>(kept)};
    if (!output) {
      if (!place.cuda) values = nri::cpu::heat_bath_kept(problem, place.execution);
    } else if (cotangent) {
      NRI_ON(place, heat_bath_gradient(problem, at<const T>(cotangent), at<T>(output), place.execution));
    } else {
      NRI_ON(place, heat_bath_scores(problem, at<T>(output), place.execution));
    }
  });
  return values;
}

void linear(const Place& place, bool float64, int64_t rows, int64_t in, int64_t out, Address input, Address weight,
            Address bias, Address output) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    const nri::LinearLayer<T> layer{rows, in, out, at<const T>(input), at<const T>(weight)};
    nri::cpu::linear(layer, at<const T>(bias), at<T>(output), place.execution);
  });
}

void linear_gradient(const Place& place, bool float64, int64_t rows, int64_t in, int64_t out, Address input,
                     Address weight, Address output_gradient, Address input_gradient, Address weight_gradient,
                     Address bias_gradient) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    const nri::LinearLayer<T> layer{rows, in, out, at<const T>(input), at<const T>(weight)};
    nri::cpu::linear_gradient(layer, at<const T>(output_gradient), at<T>(input_gradient), at<T>(weight_gradient),
                              at<T>(bias_gradient), place.execution);
  });
}

void metropolis_propose(const Place& place, const nri::GraphView& graph, uint64_t seed, int64_t step,
                        Address system_ids, Address reverse, int64_t edge_type_count, int64_t node_type_count,
                        Address edge_types, Address node_types, Address proposed_edge_types,
                        Address proposed_node_types) {
  const py::gil_scoped_release unlocked;
  NRI_ON(place,
         metropolis_propose(graph, draws(seed, step, system_ids), at<const int64_t>(reverse), edge_type_count,
                            node_type_count, at<const uint8_t>(edge_types), at<const uint8_t>(node_types),
                            at<uint8_t>(proposed_edge_types), at<uint8_t>(proposed_node_types), place.execution));
}

void metropolis_decide(const Place& place, bool float64, const nri::GraphView& graph, uint64_t seed, int64_t step,
                       Address system_ids, Address temperature, Address log_ratio, Address proposed_energy,
                       Address proposed_edge_types, Address proposed_node_types, Address energy, Address edge_types,
                       Address node_types, Address counts) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    NRI_ON(place, metropolis_decide(graph, draws(seed, step, system_ids), at<const T>(temperature),
                                    at<const double>(log_ratio), at<const T>(proposed_energy),
                                    at<const uint8_t>(proposed_edge_types), at<const uint8_t>(proposed_node_types),
                                    at<T>(energy), at<uint8_t>(edge_types), at<uint8_t>(node_types),
                                    at<int64_t>(counts), place.execution));
  });
}

void propose_from_table(const Place& place, const nri::GraphView& graph, uint64_t seed, int64_t step,
                        Address system_ids, int kind, int64_t edge_type_count, int64_t node_type_count,
                        Address edge_probability, Address node_probability, Address may_change, Address reverse,
                        Address edge_types, Address node_types, Address proposed_edge_types,
                        Address proposed_node_types, Address log_ratio) {
  const py::gil_scoped_release unlocked;
  const nri::ProposalTable table{edge_type_count,
                                 node_type_count,
                                 at<const double>(edge_probability),
                                 at<const double>(node_probability),
                                 at<const uint8_t>(may_change),
                                 at<const int64_t>(reverse)};
  NRI_ON(place, propose_from_table(graph, draws(seed, step, system_ids), table, static_cast<nri::ProposalKind>(kind),
                                   at<const uint8_t>(edge_types), at<const uint8_t>(node_types),
                                   at<uint8_t>(proposed_edge_types), at<uint8_t>(proposed_node_types),
                                   at<double>(log_ratio), place.execution));
}

void metropolis_run(const Place& place, bool float64, const Layout& layout, Address parameters,
                    const nri::GraphView& graph, const Trajectories& trajectories, const ErrorMeasure& error,
                    int64_t rollout, uint64_t seed, int64_t step, Address system_ids, int64_t sweeps, int64_t chains,
                    int64_t stride, const std::vector<nri::ProposalSource>& proposals, bool hastings, bool exchange,
                    Address temperature, Address acceptance, bool epoch_is_sweep, double ceiling, Address unit,
                    Address energy, Address edge_types, Address node_types, Address counts, Address exchanged,
                    Address best_energy, Address best_edge_types, Address best_node_types) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    nri::MetropolisRun<T> run{
        {layout.with<T>(parameters), graph, trajectories.view<T>(), error.view<T>(), rollout, nullptr, nullptr},
        draws(seed, step, system_ids),
        sweeps,
        chains,
        stride,
        static_cast<int64_t>(proposals.size()),
        {},
        hastings,
        exchange,
        at<const double>(temperature),
        at<double>(acceptance),
        epoch_is_sweep,
        ceiling,
        at<const T>(unit),
        at<T>(energy),
        at<uint8_t>(edge_types),
        at<uint8_t>(node_types),
        at<int64_t>(counts),
        at<int64_t>(exchanged),
        at<T>(best_energy),
        at<uint8_t>(best_edge_types),
        at<uint8_t>(best_node_types)};
    std::copy(proposals.begin(), proposals.end(), run.proposal);
    NRI_ON(place, metropolis_run(run, place.execution));
  });
}

void end_acceptance_epoch(const Place& place, Address acceptance, Address ceiling) {
  const py::gil_scoped_release unlocked;
  NRI_ON(place, end_acceptance_epoch(at<double>(acceptance), at<const double>(ceiling), place.execution));
}

void blur(const Place& place, const nri::GraphView& graph, uint64_t seed, int64_t step, Address system_ids,
          double share, bool whole_entity, Address blurred) {
  const py::gil_scoped_release unlocked;
  NRI_ON(place, blur(graph, draws(seed, step, system_ids), share, whole_entity, at<uint8_t>(blurred), place.execution));
}

void heat_bath_sample(const Place& place, bool float64, const nri::GraphView& graph, uint64_t seed, int64_t step,
                      Address system_ids, int64_t edge_type_count, int64_t node_type_count, Address row_offset,
                      Address stride, Address scores, Address temperature, Address edge_types, Address node_types) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    NRI_ON(place, heat_bath_sample(graph, draws(seed, step, system_ids), edge_type_count, node_type_count,
                                   at<const int64_t>(row_offset), at<const int64_t>(stride), at<const T>(scores),
                                   at<const double>(temperature), at<uint8_t>(edge_types), at<uint8_t>(node_types),
                                   place.execution));
  });
}

void responsibilities(const Place& place, bool float64, int64_t receivers, Address row_offset, int64_t group,
                      Address scores, Address temperature, Address weights) {
  in_precision(float64, [&](auto scalar) {
    using T = decltype(scalar);
    NRI_ON(place, responsibilities(receivers, at<const int64_t>(row_offset), group, at<const T>(scores),
                                   at<const double>(temperature), at<T>(weights), place.execution));
  });
}

void simulate(const Place& place, int kind, int64_t systems, int64_t entities, int64_t steps, uint64_t seed, int split,
              int64_t first_system, Address states, Address edges, Address node_types) {
  const py::gil_scoped_release unlocked;
  const auto stream =
      static_cast<nri::Stream>(static_cast<uint32_t>(nri::Stream::simulate_train) + static_cast<uint32_t>(split));
  const nri::SimulateProblem problem{
      static_cast<nri::SimulatorKind>(kind), systems, entities, steps, seed, stream, first_system};
  NRI_ON(place, simulate(problem, at<double>(states), at<uint8_t>(edges), at<uint8_t>(node_types), place.execution));
}

const char* cuda_build() {
  switch (nri::cuda::build()) {
    case nri::cuda::Build::device:
      return "device";
    case nri::cuda::Build::emulated:
      return "emulated";
    default:
      return "none";
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Kernels of nri_fast: addresses in, addresses out. Use nri_fast.ops or the functions above it.";

  py::enum_<nri::Precision>(m, "Precision")
      .value("fp32", nri::Precision::fp32)
      .value("tf32", nri::Precision::tf32)
      .value("bf16", nri::Precision::bf16);
  py::class_<Place>(m, "Place")
      .def(py::init([](bool cuda, int threads, int ordinal, Address stream, nri::Precision precision, bool fused) {
             return Place{cuda, {threads, ordinal, at<void>(stream), precision, fused}};
           }),
           arg("cuda"), arg("threads"), arg("ordinal"), arg("stream"), arg("precision") = nri::Precision::fp32,
           arg("fused") = true);
  py::class_<Layout>(m, "Layout")
      .def(py::init([](int64_t features, int64_t edge_types, int64_t node_types, bool silent,
                       std::vector<int64_t> edge_sizes, std::vector<int64_t> node_sizes) {
             return Layout{features, edge_types, node_types, silent, std::move(edge_sizes), std::move(node_sizes)};
           }),
           arg("features"), arg("edge_types"), arg("node_types"), arg("silent"), arg("edge_sizes"), arg("node_sizes"));
  py::class_<nri::GraphView>(m, "Graph")
      .def(py::init([](int64_t systems, int64_t nodes, int64_t edges, Address node_offset, Address in_offset,
                       Address sender, Address receiver, Address host_node_offset, Address host_edge_offset) {
             return nri::GraphView{systems,
                                   nodes,
                                   edges,
                                   at<const int64_t>(node_offset),
                                   at<const int64_t>(in_offset),
                                   at<const int64_t>(sender),
                                   at<const int64_t>(receiver),
                                   at<const int64_t>(host_node_offset),
                                   at<const int64_t>(host_edge_offset)};
           }),
           arg("systems"), arg("nodes"), arg("edges"), arg("node_offset"), arg("in_offset"), arg("sender"),
           arg("receiver"), arg("host_node_offset"), arg("host_edge_offset"));
  py::class_<Trajectories>(m, "Trajectories")
      .def(py::init([](int64_t steps, Address states, Address present, Address step_scale) {
             return Trajectories{steps, states, present, step_scale};
           }),
           arg("steps"), arg("states"), arg("present") = 0, arg("step_scale") = 0);
  py::class_<ErrorMeasure>(m, "ErrorMeasure")
      .def(py::init([](bool robust, double scale_squared, Address weight) {
             return ErrorMeasure{robust, scale_squared, weight};
           }),
           arg("robust"), arg("scale_squared"), arg("weight"));

  py::class_<nri::ProposalSource>(m, "ProposalSource")
      .def(py::init([](int kind, int64_t edge_types, int64_t node_types, Address edge_probability,
                       Address node_probability, Address reverse) {
             return nri::ProposalSource{kind < 0,
                                        static_cast<nri::ProposalKind>(kind < 0 ? 0 : kind),
                                        {edge_types, node_types, at<const double>(edge_probability),
                                         at<const double>(node_probability), nullptr, at<const int64_t>(reverse)}};
           }),
           arg("kind"), arg("edge_types"), arg("node_types"), arg("edge_probability"), arg("node_probability"),
           arg("reverse"));

  m.def("rollout_energy", &rollout_energy, arg("place"), arg("float64"), arg("layout"), arg("parameters"), arg("graph"),
        arg("trajectories"), arg("error"), arg("rollout"), arg("node_types"), arg("observed"), arg("structures"),
        arg("edge_types"), arg("energy"));
  m.def("rollout_gradient", &rollout_gradient, arg("place"), arg("float64"), arg("layout"), arg("parameters"),
        arg("graph"), arg("trajectories"), arg("error"), arg("rollout"), arg("node_types"), arg("observed"),
        arg("edge_types"), arg("cotangent"), arg("energy"), arg("parameter_gradient"), arg("state_gradient"));
  m.def("rollout_choice", &rollout_choice, arg("place"), arg("float64"), arg("layout"), arg("parameters"), arg("graph"),
        arg("trajectories"), arg("error"), arg("rollout"), arg("edge_types"), arg("node_types"), arg("seed"),
        arg("step"), arg("system_ids"), arg("temperature"), arg("log_ratio"), arg("energy"), arg("parameter_gradient"));
  m.def("forecast", &forecast, arg("place"), arg("float64"), arg("layout"), arg("parameters"), arg("graph"),
        arg("initial"), arg("horizon"), arg("edge_types"), arg("node_types"), arg("present"), arg("step_scale"),
        arg("states"));
  m.def("heat_bath", &heat_bath, arg("place"), arg("float64"), arg("layout"), arg("parameters"), arg("graph"),
        arg("trajectories"), arg("error"), arg("conditionals"), arg("transitions"), arg("start"), arg("node_types"),
        arg("edge_types"), arg("row_offset"), arg("stride"), arg("held_weight"), arg("host_row_offset"), arg("kept"),
        arg("cotangent"), arg("output"));
  m.def("linear", &linear, arg("place"), arg("float64"), arg("row_count"), arg("inputs"), arg("outputs"), arg("rows"),
        arg("weight"), arg("bias"), arg("output"));
  m.def("linear_gradient", &linear_gradient, arg("place"), arg("float64"), arg("row_count"), arg("inputs"),
        arg("outputs"), arg("rows"), arg("weight"), arg("output_gradient"), arg("input_gradient"),
        arg("weight_gradient"), arg("bias_gradient"));
  m.def("metropolis_propose", &metropolis_propose, arg("place"), arg("graph"), arg("seed"), arg("step"),
        arg("system_ids"), arg("reverse"), arg("edge_type_count"), arg("node_type_count"), arg("edge_types"),
        arg("node_types"), arg("proposed_edge_types"), arg("proposed_node_types"));
  m.def("metropolis_decide", &metropolis_decide, arg("place"), arg("float64"), arg("graph"), arg("seed"), arg("step"),
        arg("system_ids"), arg("temperature"), arg("log_ratio"), arg("proposed_energy"), arg("proposed_edge_types"),
        arg("proposed_node_types"), arg("energy"), arg("edge_types"), arg("node_types"), arg("counts"));
  m.def("propose_from_table", &propose_from_table, arg("place"), arg("graph"), arg("seed"), arg("step"),
        arg("system_ids"), arg("kind"), arg("edge_type_count"), arg("node_type_count"), arg("edge_probability"),
        arg("node_probability"), arg("may_change"), arg("reverse"), arg("edge_types"), arg("node_types"),
        arg("proposed_edge_types"), arg("proposed_node_types"), arg("log_ratio"));
  m.def("metropolis_run", &metropolis_run, arg("place"), arg("float64"), arg("layout"), arg("parameters"), arg("graph"),
        arg("trajectories"), arg("error"), arg("rollout"), arg("seed"), arg("step"), arg("system_ids"), arg("sweeps"),
        arg("chains"), arg("stride"), arg("proposals"), arg("hastings"), arg("exchange"), arg("temperature"),
        arg("acceptance"), arg("epoch_is_sweep"), arg("ceiling"), arg("unit"), arg("energy"), arg("edge_types"),
        arg("node_types"), arg("counts"), arg("exchanged"), arg("best_energy"), arg("best_edge_types"),
        arg("best_node_types"));
  m.def("end_acceptance_epoch", &end_acceptance_epoch, arg("place"), arg("acceptance"), arg("ceiling"));
  m.def("blur", &blur, arg("place"), arg("graph"), arg("seed"), arg("step"), arg("system_ids"), arg("share"),
        arg("whole_entity"), arg("blurred"));
  m.def("heat_bath_sample", &heat_bath_sample, arg("place"), arg("float64"), arg("graph"), arg("seed"), arg("step"),
        arg("system_ids"), arg("edge_type_count"), arg("node_type_count"), arg("row_offset"), arg("stride"),
        arg("scores"), arg("temperature"), arg("edge_types"), arg("node_types"));
  m.def("responsibilities", &responsibilities, arg("place"), arg("float64"), arg("receivers"), arg("row_offset"),
        arg("group"), arg("scores"), arg("temperature"), arg("weights"));
  m.def("simulate", &simulate, arg("place"), arg("kind"), arg("systems"), arg("entities"), arg("steps"), arg("seed"),
        arg("split"), arg("first_system"), arg("states"), arg("edges"), arg("node_types"));

  m.def("built_variants", &nri::cpu::built_variants);
  m.def("bf16_available", &nri::cpu::bf16_available);
  m.def("chosen_variant", &nri::cpu::chosen_variant);
  m.def("hardware_threads", &nri::cpu::hardware_threads);
  m.def("fma_operations", &nri::cpu::fma_operations, arg("threads"), arg("blocks"),
        py::call_guard<py::gil_scoped_release>());
  m.def("cuda_build", &cuda_build);
  m.def("cuda_architectures", &nri::cuda::architectures);
  m.def("cuda_device_count", &nri::cuda::device_count);
  m.def("cuda_device_problem", &nri::cuda::device_problem);
  m.def("cuda_refuse_allocations", &nri::cuda::refuse_allocations, arg("largest"));

  // The CUDA kernels' plans and index maps, open to tests.
  m.def(
      "plan_chunks",
      [](const std::vector<int64_t>& needed, int64_t replicas, int64_t budget) {
        std::vector<std::array<int64_t, 3>> chunks;
        const auto bytes = [&](const nri::cuda::SystemChunk& chunk) {
          int64_t sum = 0;
          for (int64_t b = chunk.first_system; b < chunk.end_system; ++b) sum += needed[b];
          return sum * chunk.replicas;
        };
        const auto systems = static_cast<int64_t>(needed.size());
        for (int64_t first = 0; first < systems; first = chunks.back()[1]) {
          const nri::cuda::SystemChunk chunk = nri::cuda::plan_chunk(first, systems, replicas, budget, bytes);
          chunks.push_back({chunk.first_system, chunk.end_system, chunk.replicas});
        }
        return chunks;
      },
      arg("needed"), arg("replicas"), arg("budget"));
  m.def(
      "plan_units",
      [](const std::vector<int64_t>& rows, int64_t replicas, int64_t group_rows, int64_t split_rows) {
        std::vector<std::array<int64_t, 4>> units;
        const auto of_system = [&](int64_t system) { return rows[system]; };
        const auto systems = static_cast<int64_t>(rows.size());
        for (const auto& unit : nri::cuda::plan_units(systems, replicas, group_rows, split_rows, of_system)) {
          units.push_back({unit.first_system, unit.end_system, unit.first_replica, unit.end_replica});
        }
        return units;
      },
      arg("rows"), arg("replicas"), arg("group_rows"), arg("split_rows"));
  m.def(
      "group_ends",
      [](int64_t items, int64_t replicas, int64_t group_rows) {
        std::vector<int64_t> offset{0};
        nri::cuda::append_groups(offset, items, {0, 1, 0, replicas}, group_rows);
        return offset;
      },
      arg("items"), arg("replicas"), arg("group_rows"));

  // The shared arithmetic, open to tests.
  m.def("portable_exp", py::vectorize([](double x) { return nri::portable_exp(x); }), arg("x"));
  m.def("portable_log", py::vectorize([](double x) { return nri::portable_log(x); }), arg("x"));
  m.def("portable_sin", py::vectorize([](double x) {
          double sine, cosine;
          nri::portable_sincos(x, &sine, &cosine);
          return sine;
        }),
        arg("x"));
  m.def("portable_cos", py::vectorize([](double x) {
          double sine, cosine;
          nri::portable_sincos(x, &sine, &cosine);
          return cosine;
        }),
        arg("x"));
  m.def(
      "philox4x32_10",
      [](std::array<uint32_t, 4> counter, uint64_t key) {
        const nri::Philox4 bits = nri::philox4x32_10({counter[0], counter[1], counter[2], counter[3]}, key);
        return std::array<uint32_t, 4>{bits.x, bits.y, bits.z, bits.w};
      },
      arg("counter"), arg("key"));
}
