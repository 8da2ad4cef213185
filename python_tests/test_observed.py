"""Roll-out energies that count only observed entities: against the oracle, and blind to what nobody observed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from cases import TOLERANCE, Case, assert_close, assert_same_bits, make_case
from torch import Tensor

import nri_fast as nf
from nri_fast import reference
from nri_fast.energies import rollout_energy

SIZES, STEPS = [3, 1, 4, 2], 8
OBSERVED = torch.tensor([1, 0, 1, 1, 0, 1, 0, 1, 0, 1], dtype=torch.bool)  # some of every system
NAN = float("nan")


def shaped_case(dtype: torch.dtype = torch.float64) -> Case:
    """The same numbers in either type, exact in both."""
    torch.manual_seed(1)
    case = make_case(torch.float32, SIZES, steps=STEPS, edge_types=3)
    case.library.to(dtype)
    return dataclasses.replace(case, trajectories=[x.to(dtype) for x in case.trajectories])


def of_hidden(trajectories: list[Tensor], change: Tensor, steps: list[int]) -> list[Tensor]:
    """Trajectories whose unobserved entities' states at these steps are `change`."""
    changed = [x.detach().clone() for x in trajectories]
    for x, seen in zip(changed, OBSERVED.to(change.device).split(SIZES), strict=True):
        for step in steps:
            x[step, ~seen] = change.to(x.dtype)
    return changed


def unread(rollout: int) -> list[int]:
    """Steps that no roll-out starts from."""
    return [t for t in range(STEPS) if t == STEPS - 1 or t % rollout]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rollout", [1, 3, 7])
def test_energy_equals_oracle(backend: torch.device, rollout: int, dtype: torch.dtype) -> None:
    plain, case = shaped_case(), shaped_case(dtype).on(backend)
    weight = torch.rand(plain.library.features).double()
    seen = OBSERVED.to(backend)
    for error, scale_squared, w in [("squared", None, None), ("robust", 0.1, weight)]:
        with torch.no_grad():
            expected = reference.rollout_energy(
                plain.library,
                plain.graph,
                plain.trajectories,
                plain.edge_types,
                plain.node_types,
                rollout,
                scale_squared,
                w,
                OBSERVED,
            )
        arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, rollout)
        w = None if w is None else w.to(backend, dtype)
        got = rollout_energy(*arguments, error, scale_squared, w, seen)
        assert_close(got.double(), expected, TOLERANCE[dtype])
        assert bool((got != rollout_energy(*arguments, error, scale_squared, w)).any())


@pytest.mark.parametrize("rollout", [1, 3, 7])
def test_gradient_equals_autograd_of_oracle(backend: torch.device, rollout: int) -> None:
    plain, case = shaped_case(), shaped_case().on(backend)
    cotangent = torch.randn(len(SIZES), dtype=torch.float64)
    states = [x.requires_grad_() for x in plain.trajectories]
    expected = reference.rollout_energy(
        plain.library, plain.graph, states, plain.edge_types, plain.node_types, rollout, 0.1, None, OBSERVED
    )
    inputs = [*states, *plain.library.parameters()]
    gradients = torch.autograd.grad(expected, inputs, cotangent, allow_unused=True)
    there = [x.detach().to(backend).requires_grad_() for x in case.trajectories]
    energy = rollout_energy(
        case.library,
        case.graph,
        there,
        case.edge_types,
        case.node_types,
        rollout,
        "robust",
        0.1,
        observed=OBSERVED.to(backend),
    )
    places = [*there, *case.library.parameters()]
    got = torch.autograd.grad(energy, places, cotangent.to(backend), allow_unused=True)
    for g, e, x in zip(got, gradients, places, strict=True):
        assert_close(*(torch.zeros_like(x) if v is None else v.to(x.device) for v in (g, e)), 1e-10)
    for g, seen in zip(got, OBSERVED.to(backend).split(SIZES), strict=False):
        assert bool((g[unread(rollout)][:, ~seen] == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rollout", [1, 3, 7])
def test_what_is_recorded_of_the_unobserved_changes_nothing(
    backend: torch.device, rollout: int, dtype: torch.dtype
) -> None:
    case = shaped_case(dtype).on(backend)
    results = []
    for change in (0.0, -3.5, NAN, float("inf")):
        changed = of_hidden(case.trajectories, torch.tensor(change, device=backend), unread(rollout))
        states = [x.requires_grad_() for x in changed]
        energy = rollout_energy(
            case.library,
            case.graph,
            states,
            case.edge_types,
            case.node_types,
            rollout,
            observed=OBSERVED.to(backend),
        )
        results.append([energy, *torch.autograd.grad(energy.sum(), [*states, *case.library.parameters()])])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize("rollout", [1, 3, 7])
def test_a_mask_of_ones_is_no_mask(backend: torch.device, rollout: int) -> None:
    case = shaped_case(torch.float32).on(backend)
    arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, rollout)
    everyone = torch.ones(case.graph.nodes, dtype=torch.uint8, device=backend)
    got, expected = rollout_energy(*arguments, observed=everyone), rollout_energy(*arguments)
    assert_same_bits(got, expected)
    parameters = list(case.library.parameters())
    for a, b in zip(
        torch.autograd.grad(got.sum(), parameters), torch.autograd.grad(expected.sum(), parameters), strict=True
    ):
        assert_same_bits(a, b)


def test_gradcheck_of_an_unobserved_initial_state() -> None:
    case = make_case(sizes=[3, 2], steps=5, features=2, message=3, edge_hidden=(3,), node_hidden=(4,))
    seen = torch.tensor([1, 0, 1, 1, 0], dtype=torch.uint8)
    recorded = [x[1:] for x in case.trajectories]

    def energy(first: Tensor, second: Tensor) -> Tensor:
        states = [torch.cat([x[None], rest]) for x, rest in zip((first, second), recorded, strict=True)]
        return rollout_energy(case.library, case.graph, states, case.edge_types, case.node_types, 4, observed=seen)

    starts = [x[0].clone().requires_grad_() for x in case.trajectories]
    assert torch.autograd.gradcheck(energy, starts, eps=1e-6, atol=1e-7)


def test_batch_split_does_not_matter(backend: torch.device) -> None:
    case = make_case(torch.float32, sizes=[4] * 6, keep=2.0, node_types=1).on(backend)
    graph, states = nf.MegaGraph.complete(6, 4, backend), torch.stack(case.trajectories)
    types = graph.adjacency(case.edge_types)
    seen = torch.rand(6, 4, device=backend) < 0.6
    seen[:, 0] = True
    together = rollout_energy(case.library, graph, states, types, rollout=3, observed=seen)
    for part in (slice(0, 1), slice(1, 6)):
        alone = nf.MegaGraph.complete(len(range(6)[part]), 4, backend)
        one = rollout_energy(case.library, alone, states[part], types[part], rollout=3, observed=seen[part])
        assert_same_bits(one, together[part])


@pytest.mark.parametrize("step", range(STEPS))
def test_the_observed_must_be_finite(step: int) -> None:
    case = shaped_case()
    case.trajectories[2][step, 1, 2] = NAN  # entity 5 of all
    arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, 3)
    with pytest.raises(ValueError, match=f"system 2, step {step}, entity 1, feature 2 is nan"):
        rollout_energy(*arguments, observed=OBSERVED)


@pytest.mark.parametrize("step", [0, 3, 6])
def test_starts_of_the_unobserved_must_be_finite(step: int) -> None:
    case = shaped_case()
    case.trajectories[2][step, 0, 1] = NAN
    arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, 3)
    with pytest.raises(ValueError, match=f"system 2, step {step}, entity 0, feature 1 is nan"):
        rollout_energy(*arguments, observed=OBSERVED)


def test_bad_masks() -> None:
    case = shaped_case()
    arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, 3)
    nobody = OBSERVED.clone()
    nobody[8:] = False
    with pytest.raises(
        ValueError, match="observed: expected at least one entity of every system, got none of system 3"
    ):
        rollout_energy(*arguments, observed=nobody)
    with pytest.raises(ValueError, match=r"observed: expected shape \[10\], got \[9\]"):
        rollout_energy(*arguments, observed=OBSERVED[1:])
    with pytest.raises(TypeError, match=r"observed: expected torch.bool or torch.uint8, got torch.int64"):
        rollout_energy(*arguments, observed=OBSERVED.long())
