"""Roll-out energies, their gradients and forecasts, against the plain-torch oracle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from cases import TOLERANCE, Case, assert_close, assert_same_bits, make_case
from torch import Tensor

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.energies import forecast, rollout_energy

SIZES = [3, 1, 4, 2]  # entities of the systems, few because the oracle is slow
SHAPES = {
    "ragged": {"sizes": SIZES},
    "one edge type": {"sizes": SIZES, "edge_types": 1},
    "three edge types": {"sizes": SIZES, "edge_types": 3, "node_types": 3},
    "silent": {"sizes": SIZES, "edge_types": 3, "silent": True},
    "only the silent type": {"sizes": SIZES, "edge_types": 1, "silent": True},
    "relative": {"sizes": SIZES, "features": 4, "relative": (0, 1)},
    "single layers": {"sizes": SIZES, "edge_hidden": (), "node_hidden": ()},
    "deep and wide": {"sizes": [4, 1, 2], "edge_hidden": (33, 17, 70), "node_hidden": (40,), "message": 34},
    "complete": {"sizes": [4, 4], "keep": 2.0},
    "no edges": {"sizes": [3, 1], "keep": -1.0},
}


def shaped_case(shape: str, dtype: torch.dtype = torch.float64) -> Case:
    """The case of a shape: the same numbers in either type, exact in both, whatever was drawn before."""
    torch.manual_seed(1)
    case = make_case(torch.float32, **SHAPES[shape])
    case.library.to(dtype)
    return dataclasses.replace(case, trajectories=[x.to(dtype) for x in case.trajectories])


@dataclass(frozen=True)
class Expected:
    """What the oracle says in float64, computed once for all backends and types."""

    squared: Tensor
    robust: Tensor
    weight: Tensor  # of the features in the robust error
    cotangent: Tensor  # of the robust energies
    gradients: list[Tensor]  # in the trajectories, then in the parameters


@cache
def oracle(shape: str, rollout: int) -> Expected:
    case = shaped_case(shape)
    weight = torch.rand(case.library.features).double()
    cotangent = torch.randn(case.graph.systems, dtype=torch.float64)
    states = [x.requires_grad_() for x in case.trajectories]
    arguments = (case.library, case.graph, states, case.edge_types, case.node_types, rollout)
    with torch.no_grad():
        squared = reference.rollout_energy(*arguments)
    robust = reference.rollout_energy(*arguments, 0.1, weight)
    inputs = [*states, *case.library.parameters()]
    gradients = torch.autograd.grad(robust, inputs, cotangent, allow_unused=True)
    filled = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)]
    return Expected(squared, robust.detach(), weight, cotangent, filled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rollout", [1, 3, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_energy_equals_oracle(backend: torch.device, shape: str, rollout: int, dtype: torch.dtype) -> None:
    expected = oracle(shape, rollout)
    case = shaped_case(shape, dtype).on(backend)
    arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, rollout)
    assert_close(rollout_energy(*arguments).double(), expected.squared, TOLERANCE[dtype])
    weight = expected.weight.to(backend, dtype)
    assert_close(rollout_energy(*arguments, "robust", 0.1, weight).double(), expected.robust, TOLERANCE[dtype])


def test_several_structures_in_one_call(backend: torch.device) -> None:
    case = make_case(edge_types=3).on(backend)
    types = torch.randint(3, (5, case.graph.edges), dtype=torch.uint8, device=backend)
    together = rollout_energy(case.library, case.graph, case.trajectories, types, case.node_types, 3)
    for one, energy in zip(types, together, strict=True):
        alone = rollout_energy(case.library, case.graph, case.trajectories, one, case.node_types, 3)
        assert_same_bits(energy, alone)


@pytest.mark.parametrize("rollout", [1, 3, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_autograd_of_oracle(backend: torch.device, shape: str, rollout: int) -> None:
    expected = oracle(shape, rollout)
    case = shaped_case(shape).on(backend)
    states = [x.requires_grad_() for x in case.trajectories]
    arguments = (case.library, case.graph, states, case.edge_types, case.node_types, rollout)
    energy = rollout_energy(*arguments, "robust", 0.1, expected.weight.to(backend))
    inputs = [*states, *case.library.parameters()]
    got = torch.autograd.grad(energy, inputs, expected.cotangent.to(backend), allow_unused=True)
    for g, e, x in zip(got, expected.gradients, inputs, strict=True):
        assert_close(torch.zeros_like(x) if g is None else g, e, 1e-10)


def test_gradient_of_a_long_rollout(backend: torch.device) -> None:
    """So long that the CPU kernel keeps states only and runs each step again on the way back."""
    torch.manual_seed(3)
    case = make_case(sizes=[5] * 6, keep=2.0, steps=121, message=64, edge_hidden=(96,), node_hidden=(64,))
    with torch.no_grad():
        for parameter in case.library.parameters():
            parameter *= 0.5  # so that states do not run away
    arguments = (case.graph, case.edge_types, case.node_types, 120)
    states = torch.stack(case.trajectories).requires_grad_()
    parameters = list(case.library.parameters())
    energy = reference.rollout_energy(case.library, arguments[0], list(states), *arguments[1:])
    expected = torch.autograd.grad(energy.sum(), [states, *parameters])
    on = case.on(backend)
    states = torch.stack(on.trajectories).requires_grad_()
    energy = rollout_energy(on.library, on.graph, states, on.edge_types, on.node_types, rollout=120)
    actual = torch.autograd.grad(energy.sum(), [states, *on.library.parameters()])
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, b, 1e-9)


def test_weights_changed_in_place_are_seen(backend: torch.device) -> None:
    """Kernels keep weights that they have repacked, but only as long as they are the same."""
    case = make_case().on(backend)
    parameters = case.library.flat_parameters().detach().clone()
    states = torch.cat([x.flatten() for x in case.trajectories])
    error = ops.ErrorMeasure(torch.ones(case.library.features, dtype=torch.float64, device=backend))

    def energies(weights: Tensor) -> Tensor:
        types = case.edge_types[None], case.node_types
        return ops.rollout_energy(case.library, weights, case.graph, states, 8, *types, 3, error)

    before = energies(parameters)
    parameters[-1] += 0.25
    after = energies(parameters)
    assert not torch.equal(before, after)
    assert_same_bits(after, energies(parameters.clone()))
    parameters[-1] -= 0.25
    assert_same_bits(before, energies(parameters))


def test_gradcheck() -> None:
    case = make_case(sizes=[3, 2], steps=4, features=2, message=3, edge_hidden=(3,), node_hidden=(4,))
    states = torch.cat([x.flatten() for x in case.trajectories]).requires_grad_()
    shapes = [x.shape for x in case.trajectories]
    names, values = zip(*case.library.named_parameters(), strict=True)

    def energy(states: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        parts = states.split([shape.numel() for shape in shapes])
        trajectories = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        arguments = (case.graph, trajectories, case.edge_types, case.node_types, 2, "robust", 0.2)
        library = _Replaced(case.library, dict(zip(names, parameters, strict=True)))
        return torch.func.functional_call(library, {}, arguments)

    assert torch.autograd.gradcheck(energy, (states, *values), eps=1e-6, atol=1e-7)


class _Replaced(torch.nn.Module):
    """Energies of a library whose parameters are exchanged for the call."""

    def __init__(self, library: nf.ModuleLibrary, parameters: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._call = (library, parameters)

    def forward(self, *arguments: object) -> torch.Tensor:
        library, parameters = self._call
        with torch.nn.utils.stateless._reparametrize_module(library, parameters):
            return rollout_energy(library, *arguments)  # type: ignore[arg-type]


def test_systems_with_zero_cotangent_are_skipped(backend: torch.device) -> None:
    case = make_case().on(backend)
    case.trajectories[2][:] = 1e200  # overflows: its gradient would be NaN
    energy = rollout_energy(case.library, case.graph, case.trajectories, case.edge_types, case.node_types, 3)
    cotangent = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64, device=backend)
    gradients = torch.autograd.grad(energy, list(case.library.parameters()), cotangent, allow_unused=True)
    assert all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
    assert not bool(torch.isfinite(energy[2]))


@pytest.mark.parametrize("shape", SHAPES)
def test_forecast_equals_oracle(backend: torch.device, shape: str) -> None:
    case = shaped_case(shape)
    initial = torch.cat([x[0] for x in case.trajectories])
    with torch.no_grad():
        expected = reference.forecast(case.library, case.graph, initial, case.edge_types, case.node_types, 4)
    there = case.on(backend)
    got = forecast(there.library, there.graph, initial.to(backend), there.edge_types, there.node_types, 4)
    assert_close(got.flatten(), torch.cat([x.flatten() for x in expected]), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_energy_does_not_know_its_batch(backend: torch.device, dtype: torch.dtype) -> None:
    sizes = [5] * 9
    case = make_case(dtype, sizes=sizes, keep=2.0, edge_hidden=(33,), message=20).on(backend)
    graph = nf.MegaGraph.complete(9, 5, backend)
    states = torch.stack(case.trajectories)
    types = graph.adjacency(case.edge_types)
    together = rollout_energy(case.library, graph, states, types, rollout=3)
    order = torch.randperm(9)
    shuffled = rollout_energy(case.library, graph, states[order], types[order], rollout=3)
    assert_same_bits(shuffled, together[order])
    for part in (slice(0, 1), slice(1, 4), slice(4, 9)):
        split = nf.MegaGraph.complete(len(range(9)[part]), 5, backend)
        assert_same_bits(rollout_energy(case.library, split, states[part], types[part], rollout=3), together[part])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_results_do_not_know_the_threads(dtype: torch.dtype) -> None:
    case = make_case(dtype, sizes=[5] * 40, keep=2.0, edge_hidden=(33,), message=20)
    before, results = ops.get_threads(), []
    try:
        for threads in (1, 2, 5):
            ops.set_threads(threads)
            energy = rollout_energy(case.library, case.graph, case.trajectories, case.edge_types, case.node_types, 3)
            results.append([energy, *torch.autograd.grad(energy.sum(), list(case.library.parameters()))])
    finally:
        ops.set_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_same_bits(a, b)
