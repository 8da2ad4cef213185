"""Roll-out energies with the gradient of the modules' parameters: the other half of a step of BounceGrad."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.cases import Effort, RolloutProblem
from bench.energy import COMPILED, worth_compiling
from bench.peers.bucketed import Bucketed
from bench.peers.masked import Masked
from bench.peers.rollouts import TorchRollouts
from bench.rows import OURS, Contest, Row, check_close, use_threads
from bench.timer import Work


def rows(effort: Effort) -> Iterator[Row]:
    """A row a case. Every competitor leaves the gradient in the parameters of the same torch modules."""
    for asked in effort.cases():
        case = asked.fitted(effort.gflop, passes=3)
        use_threads(case.threads)
        problem = RolloutProblem.of(case)
        peers: dict[str, TorchRollouts] = {"bucketed": Bucketed(problem), "masked": Masked(problem)}
        compiled_here, reason = worth_compiling("gradient", case, effort)
        if compiled_here:
            peers |= {name: make(problem) for name, make in COMPILED.items()}
        left_out = {} if compiled_here else dict.fromkeys(COMPILED, reason)
        expected = gradient_of(problem, problem.gradient)
        competitors: dict[str, Work] = {OURS: functools.partial(fresh, problem, problem.gradient)}
        for name, peer in peers.items():
            check_close(name, gradient_of(problem, peer.gradient), expected)
            competitors[name] = functools.partial(fresh, problem, peer.gradient)
        operations = case.systems * case.shape.energy_gradient(case.transitions, case.rollouts)
        graph_steps = case.systems * case.transitions
        work = "energy and gradient"
        contest = Contest("gradient", work, case, asked, operations, graph_steps, competitors, left_out)
        yield contest.measure(effort)


def fresh(problem: RolloutProblem, gradient: Callable[[], Tensor]) -> None:
    """As a training step begins."""
    problem.library.zero_grad()
    gradient()


def gradient_of(problem: RolloutProblem, gradient: Callable[[], Tensor]) -> Tensor:
    """[P] what it leaves in the parameters."""
    fresh(problem, gradient)
    found = [value.grad.flatten() for value in problem.library.parameters() if value.grad is not None]
    return torch.cat(found)
