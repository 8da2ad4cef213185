"""Arguments that are wrong, odd or empty: a clear error that says what came, or the right answer."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from cases import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import nri_fast as nf
from nri_fast import energies

SYSTEMS, STEPS, N, D = 3, 5, 3, 2
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def library() -> nf.ModuleLibrary:
    return nf.ModuleLibrary(D, 2, 2, 4, (4,), (4,))


@pytest.fixture
def graph() -> nf.MegaGraph:
    return nf.MegaGraph.complete(SYSTEMS, N)


@pytest.fixture
def states() -> Tensor:
    return torch.randn(SYSTEMS, STEPS, N, D)


def types_of(graph: nf.MegaGraph, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.arange(graph.edges).remainder(2).to(dtype)


def call(function: str, library: Any, graph: nf.MegaGraph, states: Any, types: Any, nodes: Any = None) -> Tensor:
    """One call of each public function that takes all of these."""
    if function == "energy":
        return nf.rollout_energy(library, graph, states, types, nodes, rollout=2)
    if function == "blocks":
        return nf.heat_bath_scores(library, graph, states, None, nodes)
    assert function == "conditionals"
    return nf.heat_bath_scores(library, graph, states, types, nodes)


ALL = pytest.mark.parametrize("function", ["energy", "blocks", "conditionals"])
TYPED = pytest.mark.parametrize("function", ["energy", "conditionals"])


# ---- trajectories ----


@ALL
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x: x[0], ValueError, r"trajectories: expected shape \[3, any, 3, 2\], got \[5, 3, 2\]"),
        (lambda x: x[None], ValueError, r"trajectories: expected shape .* got \[1, 3, 5, 3, 2\]"),
        (lambda x: x[:2], ValueError, r"trajectories: expected shape .* got \[2, 5, 3, 2\]"),
        (lambda x: x[..., :1], ValueError, r"trajectories: expected shape .* got \[3, 5, 3, 1\]"),
        (lambda x: x[:, :, :2], ValueError, r"trajectories: expected shape .* got \[3, 5, 2, 2\]"),
        (lambda x: x[:, :1], ValueError, "trajectories: expected at least [23] steps, got 1"),
        (lambda x: x[:, :0], ValueError, "trajectories: expected at least [23] steps, got 0"),
        (lambda x: x.double(), TypeError, "trajectories: expected torch.float32, got torch.float64"),
        (lambda x: x.half(), TypeError, "trajectories: expected torch.float32, got torch.float16"),
        (lambda x: x.long(), TypeError, "trajectories: expected torch.float32, got torch.int64"),
        (lambda x: x.to("meta"), ValueError, "trajectories: expected on cpu, got meta"),
        (lambda x: x.numpy(), TypeError, r"trajectories\[0\]: expected a tensor, got ndarray"),
        (lambda x: x.tolist(), TypeError, r"trajectories\[0\]: expected a tensor, got list"),
        (lambda x: [*x, x[0]], ValueError, "trajectories: expected 3 systems, got 4"),
        (lambda x: [], ValueError, "trajectories: expected 3 systems, got 0"),
        (
            lambda x: [x[0], x[1, :, :2], x[2]],
            ValueError,
            r"trajectories\[1\]: expected shape \[any, 3, 2\], got \[5, 2, 2\]",
        ),
        (lambda x: [x[0], x[1].double(), x[2]], TypeError, r"trajectories\[1\]: expected torch.float32"),
    ],
)
def test_wrong_trajectories(function, wrong, error, message, library, graph, states):
    with pytest.raises(error, match=message):
        call(function, library, graph, wrong(states), types_of(graph))


@ALL
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 3, 2, 1), (2, 4, 1, 0)])
def test_numbers_that_are_not_finite_are_placed(function, value, place, library, graph, states):
    states[place] = value
    system, step, entity, feature = place
    where = f"trajectories: system {system}, step {step}, entity {entity}, feature {feature} is {value}"
    with pytest.raises(ValueError, match=re.escape(where)):
        call(function, library, graph, states, types_of(graph))


def test_infinities_that_cancel_are_found(library, graph, states):
    states[1, 2, 0, 0], states[1, 2, 1, 0] = INF, -INF
    with pytest.raises(ValueError, match="system 1, step 2, entity 0, feature 0 is inf"):
        nf.rollout_energy(library, graph, states, types_of(graph), rollout=2)


def test_finite_states_whose_sum_overflows_are_allowed(library, graph):
    states = torch.full((SYSTEMS, STEPS, N, D), 3e38)
    assert nf.rollout_energy(library, graph, states, types_of(graph), rollout=2).shape == (SYSTEMS,)


def test_numbers_that_are_not_finite_are_placed_in_ragged_systems(library):
    sizes = [2, 1, 4]
    graph = nf.MegaGraph.complete_ragged(sizes)
    states = [torch.randn(STEPS, n, D) for n in sizes]
    states[2][3, 1, 0] = NAN
    with pytest.raises(ValueError, match="system 2, step 3, entity 1, feature 0 is nan"):
        nf.rollout_energy(library, graph, states, types_of(graph), rollout=2)


@pytest.mark.parametrize("rollout", [4, 5])
def test_one_step_more_than_the_rollout_is_needed(rollout, library, graph, states):
    if rollout < STEPS:
        assert nf.rollout_energy(library, graph, states, types_of(graph), rollout=rollout).shape == (SYSTEMS,)
        return
    with pytest.raises(ValueError, match="trajectories: expected at least 6 steps, got 5"):
        nf.rollout_energy(library, graph, states, types_of(graph), rollout=rollout)


@pytest.mark.parametrize("rollout", [0, -1])
def test_rollouts_have_a_step(rollout, library, graph, states):
    with pytest.raises(ValueError, match="rollout: expected at least 1"):
        nf.rollout_energy(library, graph, states, types_of(graph), rollout=rollout)


@ALL
def test_zero_systems(function, library):
    graph = nf.MegaGraph.complete(0, N)
    with pytest.raises(ValueError, match="trajectories: expected at least one system, got none"):
        call(function, library, graph, torch.zeros(0, STEPS, N, D), types_of(graph))
    with pytest.raises(ValueError, match="trajectories: expected at least one system, got none"):
        call(function, library, nf.MegaGraph.complete_ragged([]), [], types_of(graph))


@ALL
def test_ragged_systems_are_no_tensor(function, library, states):
    graph = nf.MegaGraph.complete_ragged([2, 3])
    with pytest.raises(ValueError, match="the systems differ in size"):
        call(function, library, graph, states, types_of(graph))


# ---- types ----


@TYPED
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("value", [-1, -128, 2, 127])
def test_edge_types_out_of_range_are_placed(function, value, dtype, library, graph, states):
    types = types_of(graph, dtype)
    types[13] = value  # the second of the edges into entity 0 of system 2 is number 13
    expected = f"edge_types: system 2, edge 2 -> 0 has type {value}, expected 0 to 1"
    with pytest.raises(IndexError, match=expected):
        call(function, library, graph, states, types)
    adjacency = torch.zeros(SYSTEMS, N, N, dtype=dtype)
    adjacency[2, 2, 0] = value
    with pytest.raises(IndexError, match=expected):
        call(function, library, graph, states, adjacency)


@pytest.mark.parametrize("value", [2**40, -(2**40), 256, 2**32, -256])
def test_types_that_fit_only_after_wrapping_are_out_of_range(value, library, graph, states):
    types = types_of(graph)
    types[13] = value
    with pytest.raises(IndexError, match=f"system 2, edge 2 -> 0 has type {value},"):
        nf.rollout_energy(library, graph, states, types, rollout=2)
    nodes = torch.zeros(SYSTEMS, N, dtype=torch.int64)
    nodes[1, 2] = value
    with pytest.raises(IndexError, match=f"node_types: system 1, entity 2 has type {value}, expected 0 to 1"):
        nf.rollout_energy(library, graph, states, types_of(graph), nodes, rollout=2)


def test_edge_types_out_of_range_are_placed_in_ragged_systems(library):
    sizes = [2, 1, 4]
    graph = nf.MegaGraph.complete_ragged(sizes)
    types = types_of(graph, torch.uint8)
    types[2 + 4] = 7  # system 2: edges 2 to 4 go to its entity 0, so this is the second one to its entity 1
    with pytest.raises(IndexError, match="system 2, edge 2 -> 1 has type 7, expected 0 to 1"):
        nf.rollout_energy(library, graph, [torch.randn(STEPS, n, D) for n in sizes], types, rollout=2)


def test_types_out_of_range_in_the_last_of_several_structures(library, graph, states):
    types = types_of(graph).repeat(4, 1)
    types[3, 13] = 2
    with pytest.raises(IndexError, match="system 2, edge 2 -> 0 has type 2, expected 0 to 1"):
        nf.rollout_energy(library, graph, states, types, rollout=2)


@ALL
@pytest.mark.parametrize("value", [-1, 2, 255])
def test_node_types_out_of_range_are_placed(function, value, library, graph, states):
    nodes = torch.zeros(SYSTEMS, N, dtype=torch.int64)
    nodes[2, 1] = value
    with pytest.raises(IndexError, match=f"node_types: system 2, entity 1 has type {value}, expected 0 to 1"):
        call(function, library, graph, states, types_of(graph), nodes)


@TYPED
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda t: t.float(), TypeError, "edge_types: expected an integer tensor, got torch.float32"),
        (lambda t: t.to(torch.complex64), TypeError, "edge_types: expected an integer tensor, got torch.complex64"),
        (lambda t: t.numpy(), TypeError, "edge_types: expected an integer tensor, got ndarray"),
        (lambda t: t.to("meta"), ValueError, "edge_types: expected on cpu, got meta"),
        (lambda t: t[:-1], ValueError, r"edge_types: expected shape \[18\], got \[17\]"),
        (lambda t: t[0], ValueError, r"edge_types: expected .* got shape \[\]"),
        (lambda t: t.view(2, 9), ValueError, r"edge_types: expected shape \[any, 18\], got \[2, 9\]"),
        (lambda t: t.new_zeros(3, 3, 2), ValueError, r"adjacency: expected .*\[3, 3, 3\].*, got \[3, 3, 2\]"),
        (lambda t: t.new_zeros(2, 3, 3), ValueError, r"adjacency: expected .*\[3, 3, 3\].*, got \[2, 3, 3\]"),
        (lambda t: t.new_zeros(1, 1, 3, 3, 3), ValueError, r"edge_types: expected .* got shape \[1, 1, 3, 3, 3\]"),
    ],
)
def test_wrong_edge_types(function, wrong, error, message, library, graph, states):
    with pytest.raises(error, match=message):
        call(function, library, graph, states, wrong(types_of(graph)))


@ALL
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (torch.zeros(3, 3), TypeError, "node_types: expected an integer tensor, got torch.float32"),
        ([0] * 9, TypeError, "node_types: expected an integer tensor, got list"),
        (torch.zeros(8, dtype=torch.int64), ValueError, r"node_types: expected shape \[9\] or \[3, 3\], got \[8\]"),
        (torch.zeros(1, 9, dtype=torch.int64), ValueError, r"node_types: expected shape .* got \[1, 9\]"),
        (torch.zeros(9, dtype=torch.int64, device="meta"), ValueError, "node_types: expected on cpu, got meta"),
    ],
)
def test_wrong_node_types(function, wrong, error, message, library, graph, states):
    with pytest.raises(error, match=message):
        call(function, library, graph, states, types_of(graph), wrong)


def test_node_types_with_systems_and_entities_exchanged(library):
    graph = nf.MegaGraph.complete(2, 3)
    nodes = torch.zeros(3, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"node_types: expected shape \[6\] or \[2, 3\], got \[3, 2\]"):
        nf.rollout_energy(library, graph, torch.randn(2, STEPS, 3, D), types_of(graph), nodes, rollout=2)


def test_conditionals_take_one_structure(library, graph, states):
    with pytest.raises(ValueError, match="edge_types: expected one structure"):
        nf.heat_bath_scores(library, graph, states, types_of(graph).repeat(2, 1))
    with pytest.raises(ValueError, match="edge_types: expected one structure"):
        energies.forecast(library, graph, states[:, 0], types_of(graph).repeat(2, 1))


def test_as_many_types_as_a_byte_names():
    library = nf.ModuleLibrary(D, 255, 1, 2, (), ())
    graph = nf.MegaGraph.complete(1, 2)
    states = torch.randn(1, 3, 2, D)
    alone = nf.rollout_energy(library, graph, states, torch.tensor([254, 254], dtype=torch.uint8), rollout=1)
    assert_same_bits(nf.rollout_energy(library, graph, states, torch.tensor([254, 254]), rollout=1), alone)
    for bad in (255, -1):
        with pytest.raises(IndexError, match=f"has type {bad}, expected 0 to 254"):
            nf.rollout_energy(library, graph, states, torch.tensor([0, bad]), rollout=1)


# ---- other arguments ----


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"error": "absolute"}, ValueError, "error: expected 'squared' or 'robust', got 'absolute'"),
        ({"error": "robust"}, ValueError, "scale_squared: expected with error='robust' only, got None"),
        ({"scale_squared": 0.1}, ValueError, "scale_squared: expected with error='robust' only"),
        ({"error": "robust", "scale_squared": 0.0}, ValueError, "scale_squared: expected a positive number, got 0.0"),
        ({"error": "robust", "scale_squared": NAN}, ValueError, "scale_squared: expected a positive number, got nan"),
        ({"error": "robust", "scale_squared": INF}, ValueError, "scale_squared: expected a positive number, got inf"),
        ({"weight": torch.ones(3)}, ValueError, r"weight: expected shape \[2\], got \[3\]"),
        ({"weight": torch.ones(2).double()}, TypeError, "weight: expected torch.float32, got torch.float64"),
        ({"weight": torch.tensor([1, NAN])}, ValueError, "weight: expected finite numbers, at least 0"),
        ({"weight": torch.tensor([1, -1.0])}, ValueError, "weight: expected finite numbers, at least 0"),
        ({"weight": [1.0, 1.0]}, TypeError, "weight: expected a tensor, got list"),
    ],
)
def test_wrong_errors(arguments, error, message, library, graph, states):
    with pytest.raises(error, match=message):
        nf.rollout_energy(library, graph, states, types_of(graph), rollout=2, **arguments)
    with pytest.raises(error, match=message):
        nf.heat_bath_scores(library, graph, states, **arguments)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (torch.zeros(3, 2), TypeError, "transitions: expected torch.int64, got torch.float32"),
        (torch.zeros(3, 2, dtype=torch.int32), TypeError, "transitions: expected torch.int64, got torch.int32"),
        (torch.zeros(2, 2, dtype=torch.int64), ValueError, r"transitions: expected shape \[3, any\], got \[2, 2\]"),
        (torch.zeros(3, 0, dtype=torch.int64), ValueError, "transitions: expected at least one per system, got none"),
        (torch.tensor([[0], [0], [4]]), IndexError, r"transitions\[2, 0\]: 4, expected 0 to 3"),
        (torch.tensor([[0], [-1], [0]]), IndexError, r"transitions\[1, 0\]: -1, expected 0 to 3"),
        (torch.tensor([[0], [2**62], [0]]), IndexError, r"transitions\[1, 0\]: 4611686018427387904, expected"),
    ],
)
def test_wrong_transitions(wrong, error, message, library, graph, states):
    with pytest.raises(error, match=message):
        nf.heat_bath_scores(library, graph, states, transitions=wrong)


@ALL
def test_modules_in_half_precision_are_refused(function, library, graph, states):
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(TypeError, match=f"library: expected torch.float32 or torch.float64, got {dtype}"):
            call(function, library.to(dtype), graph, states.to(dtype), types_of(graph))


@pytest.mark.parametrize(
    ("initial", "horizon", "error", "message"),
    [
        (torch.zeros(2, N, D), 3, ValueError, r"initial: expected shape \[3, 3, 2\], got \[2, 3, 2\]"),
        (torch.zeros(8, D), 3, ValueError, r"initial: expected shape \[9, 2\], got \[8, 2\]"),
        (torch.zeros(9, D).double(), 3, TypeError, "initial: expected torch.float32, got torch.float64"),
        (torch.zeros(9, D, device="meta"), 3, ValueError, "initial: expected on cpu, got meta"),
        (torch.tensor(NAN).expand(9, D), 3, ValueError, r"initial\[0, 0\]: expected finite numbers"),
        (torch.zeros(9, D), 0, ValueError, "horizon: expected at least 1, got 0"),
    ],
)
def test_wrong_forecasts(initial, horizon, error, message, library, graph):
    with pytest.raises(error, match=message):
        energies.forecast(library, graph, initial, types_of(graph), horizon=horizon)


def test_forecast_of_no_systems(library):
    graph = nf.MegaGraph.complete(0, N)
    with pytest.raises(ValueError, match="expected at least one system, got none"):
        energies.forecast(library, graph, torch.zeros(0, D), types_of(graph))


def test_forecast_places_types_out_of_range(library, graph, states):
    types = types_of(graph)
    types[13] = 5
    with pytest.raises(IndexError, match="edge_types: system 2, edge 2 -> 0 has type 5"):
        energies.forecast(library, graph, states[:, 0], types)


# ---- odd, but right ----


@settings(deadline=None, max_examples=25)
@given(
    permutation=st.permutations(range(4)),
    step=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    types_dtype=st.sampled_from([torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16]),
    shift=st.integers(0, 3),
)
def test_strides_change_nothing(permutation, step, dtype, types_dtype, shift):
    torch.manual_seed(0)
    library = nf.ModuleLibrary(D, 2, 1, 4, (4,), (4,)).to(dtype)
    graph = nf.MegaGraph.complete(SYSTEMS, N)
    states = torch.randn(SYSTEMS, STEPS, N, D, dtype=dtype)
    types = torch.randint(2, (SYSTEMS, N, N))
    expected = nf.rollout_energy(library, graph, states, types, rollout=2)
    scores = nf.heat_bath_scores(library, graph, states)
    forecasts = energies.forecast(library, graph, states[:, 0], types, horizon=3)

    inverse = sorted(range(4), key=permutation.__getitem__)
    odd = states.permute(permutation).contiguous().permute(inverse)  # same values, other strides
    wide = odd.new_full((*odd.shape[:3], shift + step * D), NAN)  # between the values stand NaNs, which nobody may read
    wide[..., shift::step][..., :D] = odd
    odd = wide[..., shift::step][..., :D]
    odd_types = types.to(types_dtype).transpose(1, 2).contiguous().transpose(1, 2)
    assert_same_bits(nf.rollout_energy(library, graph, odd, odd_types, rollout=2), expected)
    assert_same_bits(nf.heat_bath_scores(library, graph, odd), scores)
    assert_same_bits(energies.forecast(library, graph, odd[:, 0], odd_types, horizon=3), forecasts)
    assert_same_bits(nf.rollout_energy(library, graph, list(odd), odd_types, rollout=2), expected)


def test_expanded_and_reversed_arguments(backend):
    library = nf.ModuleLibrary(D, 2, 2, 4, (4,), (4,)).to(backend)
    graph = nf.MegaGraph.complete(SYSTEMS, N, backend)
    one = torch.randn(1, STEPS, N, D, device=backend)
    types = torch.ones(1, dtype=torch.uint8, device=backend).expand(graph.edges)
    nodes = torch.tensor([[1], [0], [1]], device=backend).expand(SYSTEMS, N)
    weight = torch.tensor([2.0, 9.0, 0.5, 9.0], device=backend)[::2]
    got = nf.rollout_energy(library, graph, one.expand(SYSTEMS, -1, -1, -1), types, nodes, 2, weight=weight)
    expected = nf.rollout_energy(
        library, graph, one.repeat(SYSTEMS, 1, 1, 1), types.clone(), nodes.clone(), 2, weight=weight.clone()
    )
    assert_same_bits(got, expected)
    assert torch.equal(got[0], got[2])
    assert not torch.equal(got[0], got[1])


def test_gradients_of_strided_trajectories_are_strided_back(library, graph, states):
    strided = states.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0).requires_grad_()
    plain = states.clone().requires_grad_()
    for x in (strided, plain):
        nf.rollout_energy(library, graph, x, types_of(graph), rollout=2).sum().backward()
    assert_same_bits(strided.grad, plain.grad)


def test_one_entity(backend):
    library = nf.ModuleLibrary(D, 2, 1, 4, (4,), (4,)).to(backend)
    graph = nf.MegaGraph.complete(2, 1, backend)
    states = torch.randn(2, STEPS, 1, D, device=backend)
    no_message = torch.zeros(2, STEPS - 1, 1, 4, device=backend)
    change = library.node_module(0)(torch.cat([no_message, states[:, :-1]], -1))
    expected = ((states[:, :-1] + change - states[:, 1:]) ** 2).mean((1, 2, 3))
    for types in (torch.zeros(0, dtype=torch.uint8), torch.zeros(2, 1, 1, dtype=torch.int64)):
        energy = nf.rollout_energy(library, graph, states, types.to(backend), rollout=1)
        torch.testing.assert_close(energy, expected, rtol=1e-5, atol=0)
    scores = nf.heat_bath_scores(library, graph, states)
    assert scores.shape == (2, 1, 1)
    torch.testing.assert_close(scores.flatten(), expected, rtol=1e-5, atol=0)
    assert nf.heat_bath_scores(library, graph, states, types.to(backend)).shape == (2, 1, 0, 2)


def test_no_edges_at_all(backend):
    library = nf.ModuleLibrary(D, 2, 1, 4, (4,), (4,)).to(backend)
    graph = nf.MegaGraph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64, device=backend), [2, 3])
    states = [torch.randn(STEPS, n, D, device=backend) for n in (2, 3)]
    alone = nf.MegaGraph.complete(5, 1, backend)  # without edges every entity is alone
    entities = torch.cat([x.transpose(0, 1) for x in states])[:, :, None]
    types = torch.zeros(0, dtype=torch.uint8, device=backend)
    each = nf.rollout_energy(library, alone, entities, types, rollout=2)
    energy = nf.rollout_energy(library, graph, states, types, rollout=2)
    torch.testing.assert_close(energy, torch.stack([each[:2].mean(), each[2:].mean()]), rtol=1e-5, atol=0)
    assert nf.heat_bath_scores(library, graph, states).shape == (5,)


def test_types_that_nobody_uses_have_no_gradient_and_no_say(library, graph, states):
    types = torch.zeros(graph.edges, dtype=torch.uint8)
    nf.rollout_energy(library, graph, states, types, rollout=2).sum().backward()
    used, unused = [*library.edge[0].parameters()], [*library.edge[1].parameters(), *library.node[1].parameters()]
    assert any(bool(p.grad.any()) for p in used)
    assert not any(bool(p.grad.any()) for p in unused)
    before = nf.rollout_energy(library, graph, states, types, rollout=2)
    with torch.no_grad():
        for p in unused:
            p.fill_(NAN)
    assert_same_bits(nf.rollout_energy(library, graph, states, types, rollout=2), before)


def test_zero_structures(library, graph, states):
    types = types_of(graph).new_zeros(0, graph.edges)
    assert nf.rollout_energy(library, graph, states, types, rollout=2).shape == (0, SYSTEMS)
