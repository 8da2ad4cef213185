"""Entities that come and go, recordings of different lengths and time steps: in every operation, on every backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import TOLERANCE, Case, assert_close, assert_same_bits, make_case
from torch import Tensor

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.energies import compared_transitions, forecast, heat_bath_scores, rollout_energy

SIZES = [3, 1, 4, 2]
STEPS = 8
ROWS = ["blocks", "held", "conditionals"]


@dataclasses.dataclass
class Holes:
    """A case with a mask and time steps; the absent states are NaN for the kernels and 0 for the oracle."""

    case: Case
    present: list[Tensor]
    scale: Tensor

    @property
    def clean(self) -> list[Tensor]:
        """States with zeros where they are absent."""
        return [x.nan_to_num(0.0) for x in self.case.trajectories]

    def on(self, device: torch.device) -> Holes:
        """The same on another device."""
        return Holes(self.case.on(device), [p.to(device) for p in self.present], self.scale.to(device))


def make_holes(dtype: torch.dtype = torch.float64, share: float = 0.3, **shape: Any) -> Holes:
    """Random holes; one entity is absent throughout, one recording ends early, the last has nothing to compare."""
    torch.manual_seed(2)
    case = make_case(torch.float32, **({"sizes": SIZES, "steps": STEPS} | shape))
    case.library.to(dtype)
    present = [torch.rand(x.shape[:2]) >= share for x in case.trajectories]
    present[2][:, 1] = False
    present[0][5:] = False
    present[-1][1::2] = False
    states = [torch.where(p[..., None], x, torch.nan) for x, p in zip(case.trajectories, present, strict=True)]
    case = dataclasses.replace(case, trajectories=[x.to(dtype) for x in states])
    return Holes(case, present, (torch.rand(len(present)) + 0.5).to(dtype))


def energies(holes: Holes, rollout: int, **more: Any) -> Tensor:
    case = holes.case
    arguments = (case.library, case.graph, case.trajectories, case.edge_types, case.node_types, rollout)
    return rollout_energy(*arguments, present=holes.present, step_scale=holes.scale, **more)


def oracle_energies(holes: Holes, states: list[Tensor], rollout: int, *error: Any) -> Tensor:
    case = holes.case
    arguments = (case.library, case.graph, states, case.edge_types, case.node_types, rollout)
    return reference.rollout_energy(*arguments, *error, present=holes.present, step_scale=holes.scale)


def choice(holes: Holes, rows: str) -> dict[str, Any]:
    """What says which rows a heat bath has."""
    case = holes.case
    if rows == "conditionals":
        return {"edge_types": case.edge_types}
    if rows == "blocks":
        return {}
    generator = torch.Generator().manual_seed(5)
    free = torch.rand(case.graph.edges, generator=generator) < 0.5
    weight = torch.rand(case.graph.edges, case.library.edge_types, generator=generator)
    return {"free": free.to(case.graph.device), "held_weight": weight.to(case.graph.device)}


def scores(holes: Holes, rows: str, transitions: Tensor | None = None, **more: Any) -> Tensor:
    case = holes.case
    arguments = (case.library, case.graph, case.trajectories)
    mask = {"present": holes.present, "step_scale": holes.scale}
    chosen = choice(holes, rows)
    return heat_bath_scores(
        *arguments, node_types=case.node_types, transitions=transitions, **chosen, **mask, **more
    ).flatten()


# Against the oracle, NaN wherever a state is absent ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rollout", [1, 3, 7])
def test_energy_equals_oracle(backend: torch.device, rollout: int, dtype: torch.dtype) -> None:
    exact, holes = make_holes(), make_holes(dtype).on(backend)
    with torch.no_grad():
        expected = oracle_energies(exact, exact.clean, rollout)
        robust = oracle_energies(exact, exact.clean, rollout, 0.1)
    got = energies(holes, rollout)
    assert_close(got.double(), expected, TOLERANCE[dtype])
    assert_close(energies(holes, rollout, error="robust", scale_squared=0.1).double(), robust, TOLERANCE[dtype])
    assert rollout > 1 or got[-1] == 0


@pytest.mark.parametrize("rollout", [1, 3])
def test_observed_entities_that_are_absent_at_times(backend: torch.device, rollout: int) -> None:
    exact, holes = make_holes(), make_holes().on(backend)
    observed = torch.ones(sum(SIZES), dtype=torch.bool)
    observed[[0, 5]] = False
    case = exact.case
    arguments = (case.library, case.graph, exact.clean, case.edge_types, case.node_types, rollout, None, None, observed)
    with torch.no_grad():
        expected = reference.rollout_energy(*arguments, exact.present, exact.scale)
    assert_close(energies(holes, rollout, observed=observed.to(backend)), expected, 1e-12)


@pytest.mark.parametrize("rollout", [1, 3, 7])
def test_gradient_equals_autograd_of_oracle(backend: torch.device, rollout: int) -> None:
    exact, holes = make_holes(), make_holes().on(backend)
    cotangent = torch.randn(len(SIZES), dtype=torch.float64)
    clean = [x.requires_grad_() for x in exact.clean]
    inputs = [*clean, *exact.case.library.parameters()]
    expected = torch.autograd.grad(oracle_energies(exact, clean, rollout, 0.1), inputs, cotangent, allow_unused=True)
    states = [x.requires_grad_() for x in holes.case.trajectories]
    inputs = [*states, *holes.case.library.parameters()]
    got = torch.autograd.grad(
        energies(holes, rollout, error="robust", scale_squared=0.1), inputs, cotangent.to(backend), allow_unused=True
    )
    for g, e, x in zip(got, expected, inputs, strict=True):
        e = torch.zeros_like(x).cpu() if e is None else e
        assert_close(torch.zeros_like(x) if g is None else g, e, 1e-10)


def test_gradients_are_those_of_finite_differences(backend: torch.device) -> None:
    holes = make_holes(message=3, edge_hidden=(4,), node_hidden=(4,)).on(backend)
    states = [torch.where(p[..., None], x, 0.0) for x, p in zip(holes.case.trajectories, holes.present, strict=True)]
    library = holes.case.library
    weights = [p.detach().clone().requires_grad_() for p in library.parameters()]
    names = [name for name, _ in library.named_parameters()]

    def energy(*values: Tensor) -> Tensor:
        given = dataclasses.replace(holes.case, trajectories=list(values[: len(states)]))
        parameters = dict(zip(names, values[len(states) :], strict=True))
        wired = _Wired(library)
        given = dataclasses.replace(holes, case=given)
        return torch.func.functional_call(wired, {f"library.{n}": v for n, v in parameters.items()}, (given, 3))

    assert torch.autograd.gradcheck(energy, [*[x.requires_grad_() for x in states], *weights])


class _Wired(torch.nn.Module):
    def __init__(self, library: nf.ModuleLibrary) -> None:
        super().__init__()
        self.library = library

    def forward(self, holes: Holes, rollout: int) -> Tensor:
        return energies(dataclasses.replace(holes, case=dataclasses.replace(holes.case, library=self.library)), rollout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_scores_and_their_gradient_equal_oracle(backend: torch.device, rows: str, dtype: torch.dtype) -> None:
    exact, holes = make_holes(), make_holes(dtype).on(backend)
    case, chosen = exact.case, choice(exact, rows)
    transitions = torch.randint(STEPS - 1, (len(SIZES), 5))
    current = chosen.pop("edge_types", None)
    expected = reference.heat_bath_scores(
        *(case.library, case.graph, exact.clean, transitions, current, case.node_types, 0.1),
        **chosen,
        present=exact.present,
        step_scale=exact.scale,
    )
    got = scores(holes, rows, transitions.to(backend), error="robust", scale_squared=0.1)
    assert_close(got.double(), expected.detach(), TOLERANCE[dtype])
    assert bool((expected == 0).any())  # some receiver is never compared
    if dtype == torch.float32:
        return
    cotangent = torch.randn_like(expected)
    inputs = list(case.library.parameters())
    wanted = torch.autograd.grad(expected, inputs, cotangent, allow_unused=True)
    found = torch.autograd.grad(got, list(holes.case.library.parameters()), cotangent.to(backend), allow_unused=True)
    for g, e, p in zip(found, wanted, inputs, strict=True):
        assert_close(torch.zeros_like(p) if g is None else g, torch.zeros_like(p) if e is None else e, 1e-10)


def test_forecast_equals_oracle(backend: torch.device) -> None:
    exact, holes = make_holes(), make_holes().on(backend)
    part = torch.cat([p[0] for p in exact.present])
    initial = torch.cat([x[0] for x in exact.clean])
    case = exact.case
    with torch.no_grad():
        expected = reference.forecast(
            case.library, case.graph, initial, case.edge_types, case.node_types, 4, part, exact.scale
        )
    case = holes.case
    got = forecast(
        *(case.library, case.graph, torch.cat([x[0] for x in case.trajectories]), case.edge_types, case.node_types, 4),
        present=part.to(backend),
        step_scale=holes.scale,
    )
    flat = torch.cat([x.flatten() for x in expected])
    assert_same_bits(got.isnan(), flat.isnan())
    assert_close(got.nan_to_num(0.0), flat.nan_to_num(0.0), 1e-12)


# To the bit -------------------------------------------------------------------------------------------------------


def everything_about(
    library: nf.ModuleLibrary, graph: nf.MegaGraph, states: Tensor, types: Tensor, **mask: Any
) -> dict[str, Tensor]:
    """Energies, scores and gradients, of structures [systems, N, N]."""
    states = states.detach().requires_grad_()
    energy = rollout_energy(library, graph, states, types, rollout=3, error="robust", scale_squared=0.1, **mask)
    gradient = torch.autograd.grad(energy.sum(), [states, *library.parameters()])
    with torch.no_grad():
        score = heat_bath_scores(library, graph, states, error="robust", scale_squared=0.1, **mask)
        pairs = heat_bath_scores(library, graph, states, types, **mask)
    return {"energy": energy.detach(), "states": gradient[0], "library": gradient[1], "score": score, "pairs": pairs}


@pytest.fixture
def uniform(backend: torch.device) -> tuple[nf.ModuleLibrary, Tensor, Tensor]:
    library = nf.ModuleLibrary(4, 2, 1, 20, (33,), (40,)).to(backend)
    return library, torch.randn(6, 11, 5, 4, device=backend), torch.randint(2, (6, 5, 5), device=backend)


def test_a_system_without_an_absent_entity(backend: torch.device, uniform: Any) -> None:
    library, states, types = uniform
    stay = [0, 1, 2, 4]
    cut = everything_about(
        library, nf.MegaGraph.complete(6, 4, backend), states[:, :, stay], types[:, stay][:, :, stay]
    )
    present = torch.ones(6, 11, 5, dtype=torch.bool, device=backend)
    present[:, :, 3] = False
    planted = torch.where(present[..., None], states, torch.nan)
    full = everything_about(library, nf.MegaGraph.complete(6, 5, backend), planted, types, present=present)
    assert_same_bits(full["energy"], cut["energy"])
    assert_same_bits(full["states"][:, :, stay], cut["states"])
    assert not full["states"][:, :, 3].any()
    assert_close(full["library"], cut["library"], 1e-5)
    # In the blocks of entity 4, entity 3 is the last sender, in the others the one before: both of its types are alike.
    blocks = full["score"][:, stay].view(6, 4, 2, 2, 2, 2)
    for place, entity in enumerate(stay):
        absent = 3 if entity == 4 else 2
        for kind in range(2):
            found = blocks[:, place].select(1 + absent, kind).reshape(6, 8)
            assert_same_bits(found, cut["score"][:, place])
    others = torch.tensor([[j for j in range(4) if (j + (j >= i)) != 3] for i in stay], device=backend)
    pairs = full["pairs"][:, stay].gather(2, others[None, :, :, None].expand(6, -1, -1, 2))
    assert_same_bits(pairs, cut["pairs"])


def test_a_recording_that_is_absent_from_some_step_on(backend: torch.device, uniform: Any) -> None:
    library, states, types = uniform
    graph = nf.MegaGraph.complete(6, 5, backend)
    cut = everything_about(library, graph, states[:, :8], types)
    present = torch.ones(6, 11, 5, dtype=torch.bool, device=backend)
    present[:, 8:] = False
    full = everything_about(library, graph, torch.where(present[..., None], states, torch.nan), types, present=present)
    for name in ("energy", "score", "pairs"):
        assert_same_bits(full[name], cut[name])
    assert_same_bits(full["states"][:, :8], cut["states"])
    assert not full["states"][:, 8:].any()
    assert_close(full["library"], cut["library"], 1e-5)
    listed = rollout_energy(library, graph, [states[0], *states[1:, :8]], types, rollout=3)
    assert_same_bits(listed[1:], rollout_energy(library, graph, states[:, :8], types, rollout=3)[1:])
    assert_same_bits(listed[:1], rollout_energy(library, graph, states, types, rollout=3)[:1])


def test_masks_and_scales_that_say_nothing_change_nothing(backend: torch.device, uniform: Any) -> None:
    library, states, types = uniform
    graph = nf.MegaGraph.complete(6, 5, backend)
    plain = everything_about(library, graph, states, types)
    ones = torch.ones(6, 11, 5, dtype=torch.uint8, device=backend)
    for mask in ({"present": ones}, {"step_scale": torch.ones(6, device=backend)}):
        said = everything_about(library, graph, states, types, **mask)
        for name, values in plain.items():
            assert_same_bits(said[name], values)


def test_a_scale_is_a_scale_of_the_node_modules_output(backend: torch.device, uniform: Any) -> None:
    library, states, types = uniform
    graph = nf.MegaGraph.complete(6, 5, backend)
    half = everything_about(library, graph, states, types, step_scale=torch.full((6,), 0.5, device=backend))
    library.change_scale.mul_(0.5)  # a power of two: no rounding
    for name, values in everything_about(library, graph, states, types).items():
        if name == "library":
            continue  # a gradient by the weights in front of the scale
        assert_same_bits(half[name], values)


def test_results_do_not_know_batch_order_nor_threads(backend: torch.device, uniform: Any) -> None:
    library, states, types = uniform
    present = torch.rand(6, 11, 5, device=backend) < 0.7
    states = torch.where(present[..., None], states, torch.nan)
    scale = torch.rand(6, device=backend) + 0.5
    graph = nf.MegaGraph.complete(6, 5, backend)
    together = everything_about(library, graph, states, types, present=present, step_scale=scale)
    some = [4, 0, 2]
    part = everything_about(
        *(library, nf.MegaGraph.complete(3, 5, backend), states[some], types[some]),
        present=present[some],
        step_scale=scale[some],
    )
    # More than sixteen systems are grouped in another way by the CPU's heat bath.
    many = [4, 0, 2] * 6
    crowd = everything_about(
        *(library, nf.MegaGraph.complete(18, 5, backend), states[many], types[many]),
        present=present[many],
        step_scale=scale[many],
    )
    for name in ("energy", "states", "score", "pairs"):
        assert_same_bits(part[name], together[name][some])
        assert_same_bits(crowd[name], together[name][many])
    before = ops.get_threads()
    try:
        ops.set_threads(1)
        alone = everything_about(library, graph, states, types, present=present, step_scale=scale)
    finally:
        ops.set_threads(before)
    for name, values in together.items():
        assert_same_bits(alone[name], values)


# What scores weigh ------------------------------------------------------------------------------------------------


def test_scores_weighed_by_compared_transitions_make_up_energies(backend: torch.device, uniform: Any) -> None:
    library, states, types = uniform
    graph = nf.MegaGraph.complete(6, 5, backend)
    present = torch.rand(6, 11, 5, device=backend) < 0.7
    score = heat_bath_scores(library, graph, states, present=present)
    weight = compared_transitions(graph, present, None).view(6, 5)
    assert torch.equal(weight, (present[:, 1:] & present[:, :-1]).sum(1))
    flat = graph.flatten_types(types).reshape(6, 5, 4)
    row = (flat * torch.tensor([8, 4, 2, 1], device=backend)).sum(-1, keepdim=True)
    mean = (score.gather(2, row)[..., 0] * weight).sum(1) / weight.sum(1)
    assert_close(mean, rollout_energy(library, graph, states, types, rollout=1, present=present), 1e-5)


# Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"present": torch.ones(2, 4, 3)}, TypeError, "present: expected torch.bool or torch.uint8, got torch.float32"),
        ({"present": torch.ones(2, 5, 3).bool()}, ValueError, r"present: expected shape \[2, 4, 3\], got \[2, 5, 3\]"),
        ({"present": [torch.ones(4, 3).bool()] * 2}, TypeError, "present: expected a tensor beside a tensor"),
        ({"step_scale": torch.ones(3)}, ValueError, r"step_scale: expected shape \[2\], got \[3\]"),
        ({"step_scale": torch.ones(2).double()}, TypeError, "step_scale: expected torch.float32, got torch.float64"),
        ({"step_scale": torch.tensor([1.0, 0.0])}, ValueError, r"step_scale\[1\]: expected a positive number, got 0"),
    ],
)
def test_wrong_masks_and_scales(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    library, graph = nf.ModuleLibrary(2, 2, 1, 4, (4,), (4,)), nf.MegaGraph.complete(2, 3)
    calls: list[Callable[..., Tensor]] = [
        lambda **more: rollout_energy(
            library, graph, torch.zeros(2, 4, 3, 2), torch.zeros(2, 3, 3).long(), None, 1, **more
        ),
        lambda **more: heat_bath_scores(library, graph, torch.zeros(2, 4, 3, 2), **more),
    ]
    for call in calls:
        with pytest.raises(kind, match=message):
            call(**change)


def test_masks_of_ragged_systems_and_nan_where_a_state_is_present() -> None:
    library, graph = nf.ModuleLibrary(2, 2, 1, 4, (4,), (4,)), nf.MegaGraph.complete_ragged([2, 3])
    states, types = [torch.zeros(4, 2, 2), torch.zeros(4, 3, 2)], torch.zeros(8, dtype=torch.uint8)
    mask = [torch.ones(4, 2).bool(), torch.ones(4, 3).bool()]
    with pytest.raises(ValueError, match=r"present: expected one \[steps, N_b\] for each of 2 systems, got 1"):
        rollout_energy(library, graph, states, types, rollout=1, present=mask[:1])
    with pytest.raises(ValueError, match=r"present\[1\]: expected shape \[4, 3\], got \[4, 2\]"):
        rollout_energy(library, graph, states, types, rollout=1, present=[mask[0], mask[0]])
    states[1][2, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="system 1, step 2, entity 1, feature 0 is nan"):
        rollout_energy(library, graph, states, types, rollout=1, present=mask)
    mask[1][2, 1] = False
    assert bool(torch.isfinite(rollout_energy(library, graph, states, types, rollout=1, present=mask)).all())
    with pytest.raises(ValueError, match=r"present: expected shape \[5\]"):
        forecast(library, graph, torch.zeros(5, 2), types, present=torch.ones(4).bool())
