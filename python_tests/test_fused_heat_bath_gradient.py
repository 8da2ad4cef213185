"""Gradients of heat-bath scores by the fused CUDA kernel, in float32, against the oracle in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import Case, assert_close, assert_same_bits, make_case
from test_fused_energy import fused
from test_heat_bath import choices
from torch import Tensor

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.energies import heat_bath_scores

__all__ = ["fused"]  # the fixture

TOLERANCE = 2e-5  # of the largest entry; see test_fused_gradient
SHAPES: dict[str, dict[str, Any]] = {
    "ragged": {"message": 20, "edge_hidden": (33,), "node_hidden": (24, 17)},
    "three types, one silent": {"sizes": [3, 1, 4], "edge_types": 3, "node_types": 3, "silent": True},
    "only the silent type": {"sizes": [3, 2], "edge_types": 1, "silent": True},
    "one type": {"edge_types": 1, "node_types": 1, "edge_hidden": ()},
    "one node layer": {"sizes": [4, 3], "node_hidden": (), "edge_types": 3},
    "relative": {"sizes": [3, 4], "features": 4, "relative": (0, 1)},
    "several passes and tiles": {"sizes": [6, 2, 4], "keep": 2.0, "node_types": 1, "message": 4, "node_hidden": (8, 6)},
    "64 wide": {"sizes": [4, 3], "message": 64, "edge_hidden": (64,), "node_hidden": (64,), "features": 16},
    "128 wide": {"sizes": [4, 2], "message": 70, "edge_hidden": (35,), "node_hidden": (100,), "features": 1},
    "256 wide": {"sizes": [4], "message": 256, "edge_hidden": (9,), "node_hidden": (200, 10), "features": 7},
    "no edges": {"sizes": [3, 1], "keep": -1.0},
}
ROWS = ["blocks", "held", "conditionals"]


def shaped_case(shape: str, **more: Any) -> Case:
    torch.manual_seed(4)
    return make_case(torch.float32, **({"steps": 4} | SHAPES[shape] | more))


def transitions_of(case: Case) -> Tensor:
    return torch.arange(len(case.trajectories[0]) - 1).repeat(case.graph.systems, 1)


def of_kernels(case: Case, rows: str, cotangent: Tensor, error: tuple[Any, ...] = (), **options: Any) -> list[Tensor]:
    """In the parameters; with whatever rows count."""
    kind = dict(zip(("error", "scale_squared", "weight"), error, strict=False)) | choices(case, rows) | options
    scores = heat_bath_scores(case.library, case.graph, case.trajectories, node_types=case.node_types, **kind).flatten()
    parameters = list(case.library.parameters())
    found = torch.autograd.grad(scores, parameters, cotangent.to(scores), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def of_oracle(case: Case, rows: str, cotangent: Tensor, *error: Any, **options: Any) -> list[Tensor]:
    exact = copy.deepcopy(case.library).double()
    chosen = choices(case, rows)
    current = chosen.pop("edge_types", None)
    states = [x.double() for x in case.trajectories]
    arguments = (exact, case.graph, states, transitions_of(case), current, case.node_types)
    scores = reference.heat_bath_scores(*arguments, *error, **chosen, **options)
    parameters = list(exact.parameters())
    found = torch.autograd.grad(scores, parameters, cotangent.to(scores), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def row_offsets(case: Case, rows: str) -> list[int]:
    """[systems + 1] the first row of each system."""
    graph, types = case.graph, case.library.edge_types
    if rows == "conditionals":
        return ops.RowLayout.conditionals(graph, types).host_offset.tolist()
    return ops.RowLayout.blocks(graph, types, choices(case, rows).get("free")).host_offset.tolist()


def row_count(case: Case, rows: str) -> int:
    return row_offsets(case, rows)[-1]


def check(got: list[Tensor], expected: list[Tensor]) -> None:
    for g, e in zip(got, expected, strict=True):
        assert_close(g.double(), e, TOLERANCE)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_oracle(fused: torch.device, shape: str, rows: str) -> None:
    case = shaped_case(shape)
    if rows == "conditionals" and case.graph.edges == 0:
        return  # nothing to score
    weight = torch.rand(case.library.features)
    every = torch.randn(row_count(case, rows))
    sparse = every * (torch.rand(len(every)) < 0.3)
    for cotangent in (every, sparse):
        expected = of_oracle(case, rows, cotangent, 0.1, weight.double())
        got = of_kernels(copy.deepcopy(case).on(fused), rows, cotangent, ("robust", 0.1, weight.to(fused)))
        check(got, expected)
    expected = of_oracle(case, rows, sparse)
    check(of_kernels(copy.deepcopy(case).on(fused), rows, sparse), expected)


@pytest.mark.parametrize("rows", ROWS)
def test_who_is_absent_takes_no_part(fused: torch.device, rows: str) -> None:
    case = shaped_case("ragged", steps=6)
    present = [torch.rand(x.shape[:2]) < 0.7 for x in case.trajectories]
    scale = torch.rand(case.graph.systems) + 0.5
    cotangent = torch.randn(row_count(case, rows))
    expected = of_oracle(case, rows, cotangent, present=present, step_scale=scale.double())
    moved = copy.deepcopy(case).on(fused)
    for states, there in zip(moved.trajectories, present, strict=True):
        states[~there.to(fused)] = torch.nan  # nobody looks
    options = {"present": [x.to(fused) for x in present], "step_scale": scale.to(fused)}
    check(of_kernels(moved, rows, cotangent, **options), expected)


@pytest.mark.parametrize("rows", ROWS)
def test_rows_that_do_not_count_touch_nothing(fused: torch.device, rows: str) -> None:
    """What a system without active rows runs away to is never looked at."""
    case = shaped_case("ragged", sizes=[4, 4, 3], keep=2.0, node_types=1)
    cotangent = torch.randn(row_count(case, rows))
    offset = row_offsets(case, rows)
    cotangent[offset[1] : offset[2]] = 0.0
    moved = copy.deepcopy(case).on(fused)
    before = of_kernels(moved, rows, cotangent)
    moved.trajectories[1][:] = 3e38
    for a, b in zip(of_kernels(moved, rows, cotangent), before, strict=True):
        assert_same_bits(a, b)


def test_a_type_that_no_active_row_reads_gets_nothing(fused: torch.device) -> None:
    case = shaped_case("ragged", sizes=[4, 3], keep=2.0, node_types=1)
    cotangent = torch.zeros(row_count(case, "blocks"))
    offset = ops.RowLayout.blocks(case.graph, 2).offset[:-1]
    cotangent[offset] = 1.0  # all edges of type 0
    moved = copy.deepcopy(case).on(fused)
    with torch.no_grad():
        for parameter in moved.library.edge[1].parameters():
            parameter.fill_(torch.nan)
    scores = ops_gradient(moved, cotangent)
    assert all(bool((g == 0).all()) for g in scores["edge.1"])
    assert all(bool(torch.isfinite(g).all()) and bool((g != 0).any()) for g in scores["edge.0"])


def ops_gradient(case: Case, cotangent: Tensor) -> dict[str, list[Tensor]]:
    """By module; scores that are not finite do not matter, rows of zero cotangent being left out."""
    found = of_kernels(case, "blocks", cotangent)
    result: dict[str, list[Tensor]] = {}
    for (name, _), gradient in zip(case.library.named_parameters(), found, strict=True):
        result.setdefault(".".join(name.split(".")[:2]), []).append(gradient)
    return result


@pytest.mark.parametrize("rows", ROWS)
def test_repeated_calls_give_the_same_bits(fused: torch.device, rows: str) -> None:
    case = shaped_case("several passes and tiles").on(fused)
    cotangent = torch.randn(row_count(case, rows))
    first = of_kernels(case, rows, cotangent)
    for a, b in zip(of_kernels(case, rows, cotangent), first, strict=True):
        assert_same_bits(a, b)
    with ops.scoring_precision("bf16"):  # is about scores
        for a, b in zip(of_kernels(case, rows, cotangent), first, strict=True):
            assert_same_bits(a, b)


def test_systems_too_large_for_a_tile_go_with_the_others(fused: torch.device) -> None:
    """Layer by layer, in one sum with what is fused: 398 messages may come into one entity of the second system."""
    case = shaped_case("ragged", sizes=[3, 200, 4], keep=0.01, steps=3)
    assert case.graph.host_edge_offset[1:3].diff() >= 199
    cotangent = torch.randn(row_count(case, "conditionals"))
    double = replace(
        case, library=copy.deepcopy(case.library).double(), trajectories=[x.double() for x in case.trajectories]
    )
    expected = of_kernels(double.on(fused), "conditionals", cotangent)
    check(of_kernels(case.on(fused), "conditionals", cotangent), expected)


def test_many_systems(fused: torch.device) -> None:
    """More tiles than lanes, launch after launch: the sum over systems of what each gives alone."""
    systems = 40
    torch.manual_seed(5)
    library = nf.ModuleLibrary(4, 2, 1, 16, (16,), (16, 16))
    states = torch.randn(systems, 5, 5, 4)
    graph = nf.MegaGraph.complete(systems, 5)
    cotangent = torch.randn(systems, 5, 16)

    def gradient(some: slice) -> list[Tensor]:
        part = nf.MegaGraph.complete(len(range(systems)[some]), 5, fused)
        scores = heat_bath_scores(moved, part, states[some].to(fused))
        return list(torch.autograd.grad(scores, list(moved.parameters()), cotangent[some].to(fused)))

    moved = copy.deepcopy(library).to(fused)
    assert graph.systems == systems
    together = gradient(slice(None))
    single = [gradient(slice(b, b + 1)) for b in range(systems)]
    check(together, [torch.stack(parts).double().sum(0).cpu() for parts in zip(*single, strict=True)])
