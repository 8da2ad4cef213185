"""Heat-bath scores of the fused CUDA kernels in each precision, against the oracle with the same numbers rounded."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from cases import Case, assert_close, assert_same_bits, make_case
from test_fused_energy import MOST, PRECISIONS, TOLERANCE, fused, rounded_layers
from test_heat_bath import choices
from torch import Tensor

import nri_fast as nf
from nri_fast import ops, reference
from nri_fast.energies import heat_bath_scores

__all__ = ["fused"]  # the fixture

SHAPES = {
    "ragged": {"message": 20, "edge_hidden": (33,), "node_hidden": (24, 17)},
    "three types, one silent": {"sizes": [3, 1, 4], "edge_types": 3, "node_types": 3, "silent": True},
    "one type": {"edge_types": 1, "node_types": 1, "edge_hidden": ()},
    "many rows": {"sizes": [6], "keep": 2.0, "node_types": 1},
    "one node layer": {"sizes": [4, 3], "node_hidden": (), "edge_types": 3},
    "128 wide": {"sizes": [4, 2], "message": 70, "edge_hidden": (35,), "node_hidden": (100,), "features": 1},
    "256 wide": {"sizes": [4], "message": 12, "edge_hidden": (9,), "node_hidden": (200, 10), "features": 7},
    "no edges": {"sizes": [3, 1], "keep": -1.0},
}
ROWS = ["blocks", "held", "conditionals"]


def shaped_case(shape: str, **more: object) -> Case:
    torch.manual_seed(6)
    case = make_case(torch.float32, **({"steps": 4} | SHAPES[shape] | more))
    case.library.change_scale.fill_(1.0)  # is multiplied into weights before they are rounded
    return case


def scores_of(case: Case, rows: str, precision: str, **options: object) -> Tensor:
    arguments = (case.library, case.graph, case.trajectories)
    with torch.no_grad(), ops.scoring_precision(precision):
        return heat_bath_scores(*arguments, node_types=case.node_types, **choices(case, rows), **options).flatten()


def oracle_of(case: Case, rows: str, *error: object) -> Tensor:
    chosen, steps = choices(case, rows), len(case.trajectories[0])
    transitions = torch.arange(steps - 1).repeat(case.graph.systems, 1)
    current = chosen.pop("edge_types", None)
    arguments = (case.library, case.graph, case.trajectories, transitions, current, case.node_types)
    with torch.no_grad():
        return reference.heat_bath_scores(*arguments, *error, **chosen)


@cache
def exact_oracle(shape: str, rows: str) -> Tensor:
    return oracle_of(shaped_case(shape), rows)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_equal_oracle(fused: torch.device, shape: str, rows: str, precision: str) -> None:
    case = shaped_case(shape)
    if rows == "conditionals" and case.graph.edges == 0:
        assert scores_of(case.on(fused), rows, precision).numel() == 0
        return
    exact = exact_oracle(shape, rows)
    got = scores_of(case.on(fused), rows, precision)
    assert_close(got, exact, MOST[precision])
    if precision == "fp32":
        return
    with rounded_layers(case.library, precision, one_by_one=True):
        expected = oracle_of(case, rows)
    assert_close(got, expected, TOLERANCE[precision])
    # it is this rounding and no other
    assert 2 * float((got.cpu() - expected).abs().max()) < float((exact - expected).abs().max())


@pytest.mark.parametrize("rows", ROWS)
def test_robust_scores_equal_oracle(fused: torch.device, rows: str) -> None:
    case = shaped_case("ragged")
    weight = torch.rand(case.library.features)
    expected = oracle_of(case, rows, 0.1, weight)
    options = {"error": "robust", "scale_squared": 0.1, "weight": weight.to(fused)}
    assert_close(scores_of(case.on(fused), rows, "fp32", **options), expected, 1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rows", ROWS)
def test_scores_do_not_know_their_batch(fused: torch.device, rows: str, precision: str) -> None:
    case = shaped_case("ragged", sizes=[4] * 7, keep=2.0, steps=8).on(fused)
    chosen = choices(case, rows)
    width, types = case.graph.edges // 7, case.library.edge_types

    def scores(systems: Tensor, transitions: Tensor) -> Tensor:
        parts = {name: x.reshape(7, width, *x.shape[1:])[systems].flatten(0, 1) for name, x in chosen.items()}
        graph = nf.MegaGraph.complete(len(systems), 4, fused)
        states = torch.stack(case.trajectories)[systems]
        nodes = case.node_types.view(7, 4)[systems]
        steps = transitions.to(fused).repeat(len(systems), 1)
        with torch.no_grad(), ops.scoring_precision(precision):
            found = heat_bath_scores(
                case.library, graph, states, node_types=nodes, transitions=steps, error="robust", scale_squared=0.1,
                **parts,
            )  # fmt: skip
        if rows != "held":
            return found.flatten(1)
        free = chosen["free"].reshape(7, 4, 3)
        sizes = (types ** free.sum(-1)).sum(-1)[systems].tolist()
        return torch.nn.utils.rnn.pad_sequence(list(found.split(sizes)), batch_first=True)

    everything = torch.arange(7)
    together = scores(everything, everything)
    for some in (torch.randperm(7), torch.tensor([4]), torch.arange(2, 6)):
        found = scores(some, everything)
        assert_same_bits(found, together[some][:, : found.shape[1]])
    alone = scores(torch.tensor([5]), torch.tensor([3]))
    assert_same_bits(alone, scores(everything, torch.tensor([3]))[5:6, : alone.shape[1]])


@pytest.mark.parametrize("rows", ROWS)
def test_long_recordings(fused: torch.device, rows: str) -> None:
    """More transitions than a tile has."""
    case = shaped_case("ragged", sizes=[3], steps=140, node_types=1)
    expected = oracle_of(case, rows)
    assert_close(scores_of(case.on(fused), rows, "fp32"), expected, 1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_system_that_runs_away_leaves_its_tile_alone(fused: torch.device, precision: str) -> None:
    case = shaped_case("ragged").on(fused)
    before = scores_of(case, "blocks", precision)
    case.trajectories[2][:] = 3e38
    after = scores_of(case, "blocks", precision)
    offset = ops.RowLayout.blocks(case.graph, 2).host_offset
    assert not bool(torch.isfinite(after[offset[2] : offset[3]]).any())
    assert_same_bits(after[: offset[2]], before[: offset[2]])
    assert_same_bits(after[offset[3] :], before[offset[3] :])


def test_systems_too_large_for_a_tile(fused: torch.device) -> None:
    """They take the unfused kernels, and their neighbours do not notice."""
    torch.manual_seed(5)
    options = {"edge_types": 4, "node_hidden": (200,), "message": 8, "steps": 3}
    case = make_case(torch.float32, sizes=[4, 64, 2, 3], keep=0.02, **options).on(fused)
    double = replace(
        case, library=deepcopy(case.library).double(), trajectories=[x.double() for x in case.trajectories]
    )
    expected = scores_of(double, "conditionals", "fp32").float()
    large = (4 * case.graph.host_edge_offset[1:3]).tolist()
    assert large[1] - large[0] > 4 * 60  # so many edges may all come into one entity
    for precision in PRECISIONS:
        together = scores_of(case, "conditionals", precision)
        assert_close(together, expected, 1e-5 if precision == "fp32" else 0.05)
        first = row = 0
        for b, states in enumerate(case.trajectories):
            mine = (case.graph.receiver >= first) & (case.graph.receiver < first + len(states[0]))
            index = torch.stack([case.graph.sender[mine], case.graph.receiver[mine]]) - first
            alone = replace(
                case,
                graph=nf.MegaGraph.from_edge_index(index, [len(states[0])]),
                trajectories=[case.trajectories[b]],
                edge_types=case.edge_types[mine],
                node_types=case.node_types[first : first + len(states[0])],
            )
            found = scores_of(alone, "conditionals", precision)
            assert_same_bits(found, together[row : row + len(found)])
            first, row = first + len(states[0]), row + len(found)
    fp32, bf16 = (scores_of(case, "conditionals", precision) for precision in ("fp32", "bf16"))
    assert_same_bits(fp32[large[0] : large[1]], bf16[large[0] : large[1]])
    assert not torch.equal(fp32, bf16)


def test_libraries_too_wide_for_a_tile(fused: torch.device) -> None:
    case = shaped_case("ragged", node_hidden=(260,)).on(fused)
    assert_same_bits(scores_of(case, "blocks", "tf32"), scores_of(case, "blocks", "fp32"))


def test_gradients_and_doubles_are_as_always(fused: torch.device) -> None:
    case = shaped_case("ragged").on(fused)

    def gradients() -> list[Tensor]:
        scores = heat_bath_scores(case.library, case.graph, case.trajectories, node_types=case.node_types)
        return list(torch.autograd.grad(scores.sum(), list(case.library.parameters())))

    before = gradients()
    with ops.scoring_precision("tf32"):
        for a, b in zip(before, gradients(), strict=True):
            assert_same_bits(a, b)
    double = make_case(torch.float64, sizes=[3]).on(fused)
    assert_same_bits(scores_of(double, "blocks", "tf32"), scores_of(double, "blocks", "fp32"))
