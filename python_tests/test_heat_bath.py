"""Heat-bath scores and their gradient, against whole one-step evaluations of enumerated structures."""

from __future__ import annotations

import pytest
import torch
from cases import TOLERANCE, assert_close, assert_same_bits, make_case
from test_rollout_energy import SHAPES

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.energies import heat_bath_scores, rollout_energy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", ["blocks", "conditionals"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_equal_oracle(backend: torch.device, shape: str, rows: str, dtype: torch.dtype) -> None:
    case = make_case(dtype, **SHAPES[shape])
    current = case.edge_types if rows == "conditionals" else None
    transitions = torch.randint(7, (case.graph.systems, 5))
    for scale_squared in (None, 0.1):
        there = case.on(backend)
        got = heat_bath_scores(
            there.library,
            there.graph,
            there.trajectories,
            None if current is None else current.to(backend),
            there.node_types,
            transitions.to(backend),
            "squared" if scale_squared is None else "robust",
            scale_squared,
        )
        case = case.on(torch.device("cpu"))
        if current is not None and case.graph.edges == 0:
            assert got.numel() == 0
            continue
        expected = reference.heat_bath_scores(
            case.library, case.graph, case.trajectories, transitions, current, case.node_types, scale_squared
        )
        assert_close(got.flatten(), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("rows", ["blocks", "conditionals"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_autograd_of_oracle(backend: torch.device, shape: str, rows: str) -> None:
    case = make_case(**SHAPES[shape])
    current = case.edge_types if rows == "conditionals" else None
    if current is not None and case.graph.edges == 0:
        return  # nothing to score: covered by test_scores_equal_oracle
    transitions = torch.randint(7, (case.graph.systems, 5))
    scores = reference.heat_bath_scores(
        case.library, case.graph, case.trajectories, transitions, current, case.node_types, 0.1
    )
    cotangent = torch.randn_like(scores) * (torch.rand_like(scores) < 0.5)
    parameters = list(case.library.parameters())
    expected = torch.autograd.grad(scores, parameters, cotangent, allow_unused=True)
    there = case.on(backend)
    got_scores = heat_bath_scores(
        there.library,
        there.graph,
        there.trajectories,
        None if current is None else current.to(backend),
        there.node_types,
        transitions.to(backend),
        "robust",
        0.1,
    )
    inputs = list(there.library.parameters())
    got = torch.autograd.grad(got_scores.flatten(), inputs, cotangent.to(backend), allow_unused=True)
    for g, e, p in zip(got, expected, parameters, strict=True):
        assert_close(torch.zeros_like(p) if g is None else g, torch.zeros_like(p) if e is None else e, 1e-10)


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
