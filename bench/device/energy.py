"""Roll-out energies of one structure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch

from bench.cases import Case, Effort, RolloutProblem
from bench.device.contest import Round
from bench.device.limits import Limits
from bench.device.peers import (
    enter_energies,
    enter_geometric,
    enter_layer_by_layer,
    enter_precisions,
    rollout_peers,
)
from bench.rows import Row


def rows(
    device: torch.device, effort: Effort, floor: Limits, with_compiled: bool = False
) -> Iterator[Callable[[], Row]]:
    """A row a case; for the compiled peer, the larger batches only."""

    def row(case: Case) -> Row:
        problem = RolloutProblem.of(case, device)
        parameters = problem.library.flat_parameters().detach()
        ours = functools.partial(problem.energies, parameters)
        contest = Round(device, ours())
        if device.type == "cuda" and not with_compiled:
            enter_precisions(contest, ours)
            enter_layer_by_layer(contest, ours, ours)
        for name, make in rollout_peers(problem, with_compiled).items():
            enter_energies(contest, name, make)
        if not with_compiled:
            enter_geometric(contest, problem)
        operations = case.systems * case.shape.energy(case.transitions)
        subject = "compiled" if with_compiled else "energy"
        return contest.measure(effort, subject, "energy", case, ours, operations, floor)

    for case in effort.cases():
        if not with_compiled or case.systems == max(effort.systems):
            yield functools.partial(row, case)
