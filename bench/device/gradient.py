"""Roll-out energies with the gradient of the modules' parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.cases import Case, Effort, RolloutProblem
from bench.device.contest import Round
from bench.device.limits import Limits
from bench.device.peers import enter_layer_by_layer, rollout_peers
from bench.gradient import fresh, gradient_of
from bench.peers.rollouts import TorchRollouts
from bench.rows import Row
from bench.timer import Work


def rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """A row a case."""

    def row(case: Case) -> Row:
        problem = RolloutProblem.of(case, device)
        contest = Round(device, gradient_of(problem, problem.gradient))
        enter_layer_by_layer(
            contest,
            functools.partial(fresh, problem, problem.gradient),
            functools.partial(gradient_of, problem, problem.gradient),
        )

        def entered(make: Callable[[], TorchRollouts]) -> tuple[Work, Callable[[], Tensor]]:
            peer = make()
            return functools.partial(fresh, problem, peer.gradient), functools.partial(
                gradient_of, problem, peer.gradient
            )

        for name, make in rollout_peers(problem, with_compiled=False).items():
            contest.peer(name, functools.partial(entered, make))
        operations = case.systems * case.shape.energy_gradient(case.transitions, case.rollouts)
        ours = functools.partial(fresh, problem, problem.gradient)
        return contest.measure(effort, "gradient", "energy and gradient", case, ours, operations, floor)

    for case in effort.cases():
        yield functools.partial(row, case)
