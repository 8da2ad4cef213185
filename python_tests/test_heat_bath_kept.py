"""What scoring keeps for the gradient, and how few systems are cut: neither may change a bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from cases import assert_same_bits
from test_heat_bath import choices
from test_present import choice, make_holes
from test_rollout_energy import SHAPES, shaped_case
from torch import Tensor

import nri_fast as nf
from nri_fast import ops
from nri_fast.energies import all_transitions, error_measure, heat_bath_scores

Scores = Callable[[], Tensor]


@dataclass
class Rooms:
    """Counts the rooms that scoring was given, or gives none."""

    monkeypatch: pytest.MonkeyPatch
    given: int = 0

    def count(self) -> None:
        room = ops.HeatBathProblem.room

        def counted(problem: ops.HeatBathProblem, parameters: Tensor) -> ops.Room | None:
            found = room(problem, parameters)
            self.given += found is not None
            return found

        self.monkeypatch.setattr(ops.HeatBathProblem, "room", counted)

    def refuse(self) -> None:
        self.monkeypatch.setattr(ops.HeatBathProblem, "room", lambda problem, parameters: None)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Rooms:
    return Rooms(monkeypatch)


def with_gradient(library: nf.ModuleLibrary, scores: Scores, share: float) -> list[Tensor]:
    """Scores, and their gradient under weights of which this share is not zero."""
    found = scores()
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(found.shape, generator=generator) * (torch.rand(found.shape, generator=generator) < share)
    gradients = torch.autograd.grad(found, list(library.parameters()), weight.to(found), allow_unused=True)
    return [found.detach(), *(g for g in gradients if g is not None)]


def check_kept(rooms: Rooms, library: nf.ModuleLibrary, scores: Scores) -> None:
    """Whatever share of the rows is active, the bits are those of a gradient that runs everything again."""
    for share in (1.0, 0.6, 0.1, 0.0):
        with rooms.monkeypatch.context():
            rooms.count()
            kept = with_gradient(library, scores, share)
        rooms.monkeypatch.undo()
        rooms.refuse()
        again = with_gradient(library, scores, share)
        rooms.monkeypatch.undo()
        for got, expected in zip(kept, again, strict=True):
            assert_same_bits(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", ["blocks", "held", "conditionals"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_of_kept_activations(rooms: Rooms, shape: str, rows: str, dtype: torch.dtype) -> None:
    case = shaped_case(shape, dtype)
    if rows == "conditionals" and case.graph.edges == 0:
        return  # nothing to score
    arguments = (case.library, case.graph, case.trajectories)
    chosen = choices(case, rows)
    check_kept(rooms, case.library, lambda: heat_bath_scores(*arguments, node_types=case.node_types, **chosen))
    assert rooms.given == 4


@pytest.mark.parametrize("rows", ["blocks", "held", "conditionals"])
def test_gradient_of_kept_activations_where_states_are_absent(rooms: Rooms, rows: str) -> None:
    holes = make_holes(torch.float32)
    case = holes.case
    arguments = (case.library, case.graph, case.trajectories)
    options = choice(holes, rows) | {"present": holes.present, "step_scale": holes.scale}
    check_kept(rooms, case.library, lambda: heat_bath_scores(*arguments, node_types=case.node_types, **options))
    assert rooms.given == 4


def problem_of(library: nf.ModuleLibrary, states: Tensor, transitions: int) -> ops.HeatBathProblem:
    """The first transitions of complete systems."""
    graph = nf.MegaGraph.complete(len(states), states.shape[2])
    start = all_transitions(graph, transitions + 1)
    rows = ops.RowLayout.blocks(graph, library.edge_types)
    robust = error_measure(library, "robust", 0.1)
    return ops.HeatBathProblem(library, graph, states.flatten(), states.shape[1], start, rows, robust)


@pytest.mark.parametrize(("systems", "transitions"), [(1, 18), (3, 18), (16, 6)])
def test_few_systems_are_cut_without_a_trace(systems: int, transitions: int) -> None:
    library = nf.ModuleLibrary(4, 2, 1, 20, (33,), (40,))
    states = torch.randn(systems, transitions + 1, 5, 4)
    parameters = library.flat_parameters().detach()
    found = []
    before = ops.get_threads()
    try:
        for threads in (1, 2, 3, 8):
            ops.set_threads(threads)
            problem = problem_of(library, states, transitions)
            kept = problem.room(parameters)
            assert kept is not None
            scores = problem.scores(parameters, kept)
            weights = ops.responsibilities(problem.rows.offset, scores, 0.3)
            found.append((scores, problem.gradient(parameters, weights, kept)))
    finally:
        ops.set_threads(before)
    for scores, gradient in found[1:]:
        assert_same_bits(scores, found[0][0])
        assert_same_bits(gradient, found[0][1])
    alone = problem_of(library, states[-1:], transitions).scores(parameters)
    assert_same_bits(alone, found[0][0][-len(alone) :])


def test_a_long_recording_of_one_system_is_cut_by_receivers() -> None:
    """Too many errors to wait in a table: the same bits as in a batch."""
    library = nf.ModuleLibrary(2, 2, 1, 3, (4,), (4,))
    states = torch.randn(16, 300, 10, 2)
    parameters = library.flat_parameters().detach()
    one = problem_of(library, states[:1], 299)
    assert one.rows.rows * 299 > 1 << 20
    assert one.room(parameters) is None
    assert_same_bits(one.scores(parameters), problem_of(library, states, 299).scores(parameters)[: one.rows.rows])


def test_large_batches_keep_nothing() -> None:
    for width, most in ((64, 4 << 20), (128, 24 << 20)):
        library = nf.ModuleLibrary(4, 2, 1, width, (width,), (width,))
        parameters = library.flat_parameters().detach()
        one, many = (problem_of(library, torch.randn(n, 13, 5, 4), 12).room(parameters) for n in (1, 40))
        assert one is not None
        assert many is None
        assert one.memory.nbytes < most


def test_a_room_is_for_one_at_a_time() -> None:
    like = torch.zeros(1)
    first = ops.Room(like, 5000)
    second = ops.Room(like, 5000)
    places = {first.memory.data_ptr(), second.memory.data_ptr()}
    assert len(places) == 2
    del first, second
    third = ops.Room(like, 4000)
    assert third.memory.data_ptr() in places
    assert ops.Room(like, 4000).memory.data_ptr() != third.memory.data_ptr()
    del third
    assert ops.Room(like.double(), 4000).memory.dtype == torch.float64
    assert ops.Room(like, 10_000).memory.numel() == 10_000
