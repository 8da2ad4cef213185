"""Heat-bath scores and their gradient, against whole one-step evaluations of enumerated structures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from cases import TOLERANCE, Case, assert_close, assert_same_bits
from test_rollout_energy import SHAPES, shaped_case
from torch import Tensor

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.energies import heat_bath_scores, rollout_energy


@dataclass(frozen=True)
class Expected:
    """What the oracle says in float64, computed once for all backends and types."""

    transitions: Tensor
    squared: Tensor
    robust: Tensor
    weight: Tensor  # of the features in the robust error
    cotangent: Tensor  # of the robust scores, half of it zero
    gradients: list[Tensor]  # in the parameters


def choices(case: Case, rows: str) -> dict[str, Tensor]:
    """What `rows` asks for; about half of the edges are held, some of their types without any weight."""
    graph = case.graph
    if rows == "conditionals":
        return {"edge_types": case.edge_types}
    if rows == "blocks":
        return {}
    places = torch.arange(graph.edges * case.library.edge_types, device=graph.device)
    weight = (places % 7 / 8).view(graph.edges, case.library.edge_types).float()
    return {"free": torch.arange(graph.edges, device=graph.device) % 5 % 2 == 0, "held_weight": weight}


@cache
def oracle(shape: str, rows: str) -> Expected | None:
    """None where there is nothing to score."""
    case = shaped_case(shape)
    chosen = choices(case, rows)
    if rows == "conditionals" and case.graph.edges == 0:
        return None
    transitions = torch.randint(7, (case.graph.systems, 3))
    weight = torch.rand(case.library.features).double()
    current = chosen.pop("edge_types", None)
    arguments = (case.library, case.graph, case.trajectories, transitions, current, case.node_types)
    with torch.no_grad():
        squared = reference.heat_bath_scores(*arguments, **chosen)
    robust = reference.heat_bath_scores(*arguments, 0.1, weight, **chosen)
    cotangent = torch.randn_like(robust) * (torch.rand_like(robust) < 0.5)
    parameters = list(case.library.parameters())
    gradients = torch.autograd.grad(robust, parameters, cotangent, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    return Expected(transitions, squared, robust.detach(), weight, cotangent, filled)


def scores_of(case: Case, rows: str, transitions: Tensor, *error: Any) -> Tensor:
    kind = dict(zip(("error", "scale_squared", "weight"), error, strict=False)) | choices(case, rows)
    start = transitions.to(case.graph.device)
    arguments = (case.library, case.graph, case.trajectories)
    return heat_bath_scores(*arguments, node_types=case.node_types, transitions=start, **kind).flatten()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", ["blocks", "held", "conditionals"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_equal_oracle(backend: torch.device, shape: str, rows: str, dtype: torch.dtype) -> None:
    expected = oracle(shape, rows)
    case = shaped_case(shape, dtype).on(backend)
    if expected is None:
        assert scores_of(case, rows, torch.zeros(case.graph.systems, 1, dtype=torch.int64)).numel() == 0
        return
    squared = scores_of(case, rows, expected.transitions)
    assert_close(squared.double(), expected.squared, TOLERANCE[dtype])
    robust = scores_of(case, rows, expected.transitions, "robust", 0.1, expected.weight.to(backend, dtype))
    assert_close(robust.double(), expected.robust, TOLERANCE[dtype])


@pytest.mark.parametrize("rows", ["blocks", "held", "conditionals"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_autograd_of_oracle(backend: torch.device, shape: str, rows: str) -> None:
    expected = oracle(shape, rows)
    if expected is None:
        return  # nothing to score: covered by test_scores_equal_oracle
    case = shaped_case(shape).on(backend)
    scores = scores_of(case, rows, expected.transitions, "robust", 0.1, expected.weight.to(backend))
    inputs = list(case.library.parameters())
    got = torch.autograd.grad(scores, inputs, expected.cotangent.to(backend), allow_unused=True)
    for g, e, p in zip(got, expected.gradients, inputs, strict=True):
        assert_close(torch.zeros_like(p) if g is None else g, e, 1e-10)


def test_block_scores_make_up_the_energies_of_structures(backend: torch.device) -> None:
    library = nf.ModuleLibrary(4, 2, 1, 8, (16,), (16,)).to(backend)
    graph = nf.MegaGraph.complete(3, 4, backend)
    states = torch.randn(3, 6, 4, 4, device=backend)
    scores = heat_bath_scores(library, graph, states)
    assert scores.shape == (3, 4, 8)
    for _ in range(10):
        structure = torch.randint(2, (3, 4, 4), device=backend)
        flat = graph.flatten_types(structure).reshape(3, 4, 3)
        row = (flat * torch.tensor([4, 2, 1], device=backend)).sum(-1, keepdim=True)
        assert_close(
            scores.gather(2, row).mean((1, 2)), rollout_energy(library, graph, states, structure, rollout=1), 1e-5
        )


def test_scores_do_not_know_batch_nor_threads(backend: torch.device) -> None:
    library = nf.ModuleLibrary(4, 2, 1, 20, (33,), (40,)).to(backend)
    states = torch.randn(7, 6, 5, 4, device=backend)
    together = heat_bath_scores(
        library, nf.MegaGraph.complete(7, 5, backend), states, error="robust", scale_squared=0.1
    )
    part = heat_bath_scores(
        library, nf.MegaGraph.complete(3, 5, backend), states[[6, 0, 2]], error="robust", scale_squared=0.1
    )
    assert_same_bits(part, together[[6, 0, 2]])
    before = ops.get_threads()
    try:
        ops.set_threads(1)
        alone = heat_bath_scores(
            library, nf.MegaGraph.complete(7, 5, backend), states, error="robust", scale_squared=0.1
        )
    finally:
        ops.set_threads(before)
    assert_same_bits(alone, together)


def test_too_many_assignments_are_refused() -> None:
    library = nf.ModuleLibrary(2, 2, 1, 4, (4,), (4,))
    with pytest.raises(ValueError, match="8192 assignments, expected at most 4096"):
        heat_bath_scores(library, nf.MegaGraph.complete(1, 14), torch.randn(1, 3, 14, 2))
