"""Gradients of roll-out energies by the fused CUDA kernels, in float32, against the oracle in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cases import Case, assert_close, assert_same_bits, make_case
from torch import Tensor

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.energies import heat_bath_scores, rollout_energy

# Of the largest entry. Plain float32 is off by as much: sums of a hundred and more products, one after another.
TOLERANCE = 2e-5
SHAPES: dict[str, dict[str, Any]] = {
    "ragged": {"sizes": [3, 1, 5, 2], "message": 20, "edge_hidden": (33,), "node_hidden": (24, 17)},
    "three types, one silent": {"sizes": [3, 1, 4], "edge_types": 3, "node_types": 3, "silent": True},
    "only the silent type": {"sizes": [3, 2], "edge_types": 1, "silent": True},
    "single layers": {"sizes": [3, 1, 4], "edge_hidden": (), "node_hidden": ()},
    "relative": {"sizes": [3, 4], "features": 4, "relative": (0, 1)},
    "several passes": {"sizes": [5] * 14, "keep": 2.0, "edge_types": 1, "node_types": 1, "edge_hidden": (20, 9)},
    "more inputs than outputs": {"sizes": [4, 2], "features": 16, "message": 6, "edge_hidden": (), "node_hidden": ()},
    "64 wide": {"sizes": [4, 3], "message": 64, "edge_hidden": (64,), "node_hidden": (64,), "features": 16},
    "128 wide": {"sizes": [4, 2], "message": 128, "edge_hidden": (35,), "node_hidden": (100,), "features": 15},
    "256 wide": {"sizes": [4], "message": 256, "edge_hidden": (9,), "node_hidden": (200, 10), "features": 7},
    "no edges": {"sizes": [3, 1], "keep": -1.0},
}


@pytest.fixture
def fused(backend: torch.device) -> torch.device:
    """A backend that has the fused kernels."""
    if not ops.uses_cuda_kernels(torch.empty(0, device=backend)):
        pytest.skip("the fused kernels are CUDA's")
    return backend


def shaped_case(shape: str, **more: Any) -> Case:
    torch.manual_seed(4)
    return make_case(torch.float32, **({"steps": 12} | SHAPES[shape] | more))


def in_double(case: Case) -> Case:
    """The same numbers in float64, on the CPU."""
    library = copy.deepcopy(case.library).double()
    return Case(library, case.graph, [x.double() for x in case.trajectories], case.edge_types, case.node_types)


def gradients(energy: Tensor, case: Case, cotangent: Tensor) -> list[Tensor]:
    """In the recorded states, one after another, then in the parameters."""
    inputs = [*case.trajectories, *case.library.parameters()]
    found = torch.autograd.grad(energy, inputs, cotangent.to(energy), allow_unused=True)
    filled = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
    states = len(case.trajectories)
    return [torch.cat([x.flatten() for x in filled[:states]]), *filled[states:]]


def arguments_of(case: Case, rollout: int) -> tuple[Any, ...]:
    return case.library, case.graph, case.trajectories, case.edge_types, case.node_types, rollout


def of_kernels(case: Case, rollout: int, cotangent: Tensor, *error: Any, **options: Any) -> list[Tensor]:
    for x in case.trajectories:
        x.requires_grad_()
    return gradients(rollout_energy(*arguments_of(case, rollout), *error, **options), case, cotangent)


def of_oracle(case: Case, rollout: int, cotangent: Tensor, *error: Any, **options: Any) -> list[Tensor]:
    exact = in_double(case)
    for x in exact.trajectories:
        x.requires_grad_()
    return gradients(reference.rollout_energy(*arguments_of(exact, rollout), *error, **options), exact, cotangent)


def check(got: list[Tensor], expected: list[Tensor], tolerance: float = TOLERANCE) -> None:
    for g, e in zip(got, expected, strict=True):
        assert_close(g.double(), e, tolerance)


@pytest.mark.parametrize("rollout", [1, 3, 10])  # 11 transitions: the last roll-out is whole, shorter, much shorter
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_autograd_of_oracle(fused: torch.device, shape: str, rollout: int) -> None:
    case = shaped_case(shape)
    weight, cotangent = torch.rand(case.library.features), torch.randn(case.graph.systems)
    squared = of_oracle(case, rollout, cotangent)
    robust = of_oracle(case, rollout, cotangent, 0.1, weight.double())
    on = case.on(fused)
    check(of_kernels(on, rollout, cotangent), squared)
    check(of_kernels(on, rollout, cotangent, "robust", 0.1, weight.to(fused)), robust)


def test_masks_and_time_steps(fused: torch.device) -> None:
    case = shaped_case("ragged")
    present = [torch.rand(x.shape[:2]) > 0.3 for x in case.trajectories]
    present[2][:, 1] = False
    present[0][5:] = False
    scale, cotangent = torch.rand(4) + 0.5, torch.randn(4)
    for rollout in (1, 3, 10):
        expected = of_oracle(case, rollout, cotangent, 0.1, present=present, step_scale=scale.double())
        holes = case.on(fused)
        mask = [p.to(fused) for p in present]
        holes.trajectories = [
            torch.where(p[..., None], x, torch.nan) for p, x in zip(mask, holes.trajectories, strict=True)
        ]
        options = {"present": mask, "step_scale": scale.to(fused)}
        check(of_kernels(holes, rollout, cotangent, "robust", 0.1, **options), expected)


def test_unobserved_entities(fused: torch.device) -> None:
    case = shaped_case("ragged")
    seen = torch.tensor([1, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1], dtype=torch.bool)
    cotangent = torch.randn(4)
    expected = of_oracle(case, 3, cotangent, None, None, seen)
    check(of_kernels(case.on(fused), 3, cotangent, observed=seen.to(fused)), expected)


def many_systems(device: torch.device, count: int = 90) -> tuple[Case, Tensor]:
    """More roll-outs than the emulated device's lanes take at once, and more than its memory holds."""
    case = shaped_case("several passes", sizes=[5] * count, keep=0.8, edge_types=2, node_types=2, features=2)
    return case.on(device), torch.randn(count)


@pytest.mark.parametrize("rollout", [2, 11])
def test_many_tiles_in_each_lane(fused: torch.device, rollout: int) -> None:
    case, cotangent = many_systems(fused)
    check(of_kernels(case, rollout, cotangent), of_oracle(case.on(torch.device("cpu")), rollout, cotangent))


def test_the_same_bits_every_time(fused: torch.device) -> None:
    case, cotangent = many_systems(fused)
    first = of_kernels(case, 2, cotangent)
    for a, b in zip(of_kernels(case, 2, cotangent), first, strict=True):
        assert_same_bits(a, b)


def test_a_systems_state_gradient_does_not_know_its_batch(fused: torch.device) -> None:
    case, cotangent = many_systems(fused, 9)
    graph, states = nf.MegaGraph.complete(9, 5, fused), torch.stack(case.trajectories).detach()
    types = torch.randint(2, (graph.edges,), dtype=torch.uint8, device=fused)
    types = graph.adjacency(types)
    cotangent = cotangent.to(fused)

    def of_states(chosen: Tensor) -> Tensor:
        part = nf.MegaGraph.complete(len(chosen), 5, fused)
        mine = states[chosen].requires_grad_()
        energy = rollout_energy(case.library, part, mine, types[chosen], rollout=3)
        return torch.autograd.grad(energy, mine, cotangent[chosen])[0]

    together = of_states(torch.arange(9))
    for chosen in (torch.randperm(9), torch.tensor([4]), torch.arange(2, 7)):
        assert_same_bits(of_states(chosen), together[chosen])


def test_systems_with_zero_cotangent_are_skipped(fused: torch.device) -> None:
    case = shaped_case("ragged").on(fused)
    cotangent = torch.tensor([1.0, -1.0, 0.0, 2.0])
    before = of_kernels(case, 3, cotangent)
    case.trajectories[2] = torch.full_like(case.trajectories[2], 3e38)  # overflows: its gradient would be NaN
    for a, b in zip(of_kernels(case, 3, cotangent), before, strict=True):
        assert_same_bits(a, b)


def test_a_roll_out_that_ended_adds_nothing(fused: torch.device) -> None:
    """Modules that grow without bound after the last recorded step: beside longer roll-outs, the short one waits."""
    case = shaped_case("ragged", steps=12)
    with torch.no_grad():
        for parameter in case.library.parameters():
            parameter.mul_(3.0)
    cotangent = torch.randn(4)
    expected = of_oracle(case, 10, cotangent)
    assert max(float(g.abs().max()) for g in expected) > 1e6
    check(of_kernels(case.on(fused), 10, cotangent), expected, 1e-3)


def test_systems_too_large_for_a_tile(fused: torch.device) -> None:
    """They take the unfused kernels, beside others that do not."""
    torch.manual_seed(5)
    case = make_case(torch.float32, sizes=[4, 130, 2, 3], keep=0.02, steps=4)
    cotangent = torch.randn(4)
    check(of_kernels(case.on(fused), 2, cotangent), of_oracle(case, 2, cotangent))


def test_systems_with_many_entities_and_systems_with_many_edges(fused: torch.device) -> None:
    """Each fits a tile; one as large as both in every respect would not."""
    torch.manual_seed(6)
    case = make_case(torch.float32, sizes=[2], steps=3, message=200, node_hidden=(256,), edge_hidden=())
    pairs = [(i, j) for i in range(28) for j in range(28) if i != j]
    index = torch.tensor([(0, 1), *((i + 90, j + 90) for i, j in pairs)]).T
    sizes = [90, 28]
    graph = nf.MegaGraph.from_edge_index(index, sizes)
    types = torch.randint(2, (graph.edges,), dtype=torch.uint8)
    nodes = torch.randint(2, (graph.nodes,), dtype=torch.uint8)
    case = Case(case.library, graph, [torch.randn(3, n, 3) for n in sizes], types, nodes)
    cotangent = torch.randn(2)
    check(of_kernels(case.on(fused), 2, cotangent), of_oracle(case, 2, cotangent))


def test_layer_by_layer_agrees(fused: torch.device) -> None:
    """The switch takes energies, scores and both gradients to other kernels, which say the same up to rounding."""
    case = shaped_case("64 wide", sizes=[4, 3, 5, 2, 4, 3]).on(fused)

    def everything() -> list[Tensor]:
        cotangent = torch.ones(case.graph.systems)
        energy = rollout_energy(*arguments_of(case, 3))
        scores = heat_bath_scores(case.library, case.graph, case.trajectories, node_types=case.node_types)
        of_scores = torch.autograd.grad(scores.sum(), list(case.library.parameters()))
        return [energy, *gradients(energy, case, cotangent)[1:], scores.flatten(), *of_scores]

    for x in case.trajectories:
        x.requires_grad_()
    together = everything()
    with ops.layer_by_layer():
        apart = everything()
    check(apart, [x.double() for x in together], 1e-4)
    count = len(list(case.library.parameters()))
    for some in (slice(0, 1), slice(1, 1 + count), slice(1 + count, 2 + count), slice(2 + count, None)):
        assert any(not torch.equal(a, b) for a, b in zip(apart[some], together[some], strict=True))


def test_libraries_too_wide_for_a_tile(fused: torch.device) -> None:
    case = shaped_case("ragged", node_hidden=(260,))
    cotangent = torch.randn(4)
    check(of_kernels(case.on(fused), 3, cotangent), of_oracle(case, 3, cotangent))
