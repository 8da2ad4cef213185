"""Heat bath: scores of all assignments, and training steps at the presets' first and last temperature."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from bench.cases import TRANSITIONS, Case, Effort
from bench.device.contest import Round
from bench.device.limits import Limits
from bench.device.peers import enter_layer_by_layer, enter_precisions
from bench.heat_bath import COLD, HOT, SCALE_SQUARED, HeatBathStep, gradient_of
from bench.peers.dense_heat_bath import DenseHeatBath
from bench.rows import Row

CHUNK_ROWS = 1 << 22  # of assignments at a time: what keeps a GPU busy, within tens of gigabytes


def rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """Three rows a case."""

    def made(case: Case) -> tuple[HeatBathStep, DenseHeatBath]:
        problem = HeatBathStep.of(case, device)
        peer = DenseHeatBath(problem.library, case.entities, SCALE_SQUARED)
        peer.chunk_rows = CHUNK_ROWS
        return problem, peer

    def scores(case: Case) -> Row:
        problem, peer = made(case)
        contest = Round(device, problem.scores())
        if device.type == "cuda":
            enter_precisions(contest, problem.scores)
            enter_layer_by_layer(contest, problem.scores, problem.scores)
        theirs = functools.partial(peer.scores, problem.states)
        contest.peer("dense", lambda: (theirs, lambda: theirs().flatten()))
        operations = case.systems * case.transitions * case.heat_bath_shape.heat_bath_scores()
        return contest.measure(effort, "heat_bath", "heat-bath scores", case, problem.scores, operations, floor)

    def step(case: Case, name: str, factor: float) -> Row:
        problem, peer = made(case)
        ours = functools.partial(problem.step, factor)
        theirs = functools.partial(peer.step, problem.states, factor)
        contest = Round(device, gradient_of(problem, ours))
        enter_layer_by_layer(contest, ours, functools.partial(gradient_of, problem, ours))
        contest.peer("dense", lambda: (theirs, lambda: gradient_of(problem, theirs)))
        shape, transitions = case.heat_bath_shape, case.systems * case.transitions
        operations = transitions * (shape.heat_bath_scores() + shape.heat_bath_gradient(*problem.live(factor)))
        return contest.measure(effort, "heat_bath", name, case, ours, operations, floor)

    for asked in effort.cases():
        case = replace(asked, steps=TRANSITIONS + 1, rollout=1)
        yield functools.partial(scores, case)
        yield functools.partial(step, case, "hot heat-bath step", HOT)
        yield functools.partial(step, case, "cold heat-bath step", COLD)
