"""All systems in one graph against one system at a time: the paper's claim of a factor of about five."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.cases import Effort, RolloutProblem
from bench.peers.bucketed import Bucketed
from bench.peers.one_at_a_time import OneAtATime
from bench.rows import OURS, Contest, Row, check_close, use_threads
from bench.timer import Work
from nri_fast import MegaGraph, ops

ONE_AT_A_TIME = "nri_fast one at a time"


def rows(effort: Effort) -> Iterator[Row]:
    """A row for each width and number of threads: 128 systems of five entities."""
    systems, entities = max(s for s in effort.systems if s <= 128), min(effort.entities)
    for asked in effort.cases():
        if (asked.systems, asked.entities) != (systems, entities):
            continue
        case = asked.fitted(effort.gflop / 4)  # one at a time, plain PyTorch takes many times longer
        use_threads(case.threads)
        problem = RolloutProblem.of(case)
        parameters = problem.library.flat_parameters().detach()
        together = functools.partial(problem.energies, parameters)
        alone = functools.partial(one_at_a_time, problem, parameters)
        bucketed, single = Bucketed(problem), OneAtATime(problem)
        expected = together()
        for name, peer in (("bucketed", bucketed), ("bucketed one at a time", single)):
            check_close(name, peer.energies(), expected)
        competitors: dict[str, Work] = {
            OURS: together,
            ONE_AT_A_TIME: alone,
            "bucketed": bucketed.energies,
            "bucketed one at a time": single.energies,
        }
        operations = case.systems * case.shape.energy(case.transitions)
        graph_steps, facts = case.systems * case.transitions, {"same_bits": bool(torch.equal(alone(), expected))}
        work = "energies of a mega-graph"
        yield Contest("mega_graph", work, case, asked, operations, graph_steps, competitors, {}, facts).measure(effort)


def one_at_a_time(problem: RolloutProblem, parameters: Tensor) -> Tensor:
    """[systems], by our kernels, a call a system."""
    case, alone = problem.case, MegaGraph.complete(1, problem.case.entities)
    types = problem.edge_types.view(case.systems, 1, -1)
    return torch.cat(
        [
            ops.rollout_energy(
                problem.library,
                parameters,
                alone,
                problem.states[s].flatten(),
                case.steps,
                types[s],
                None,
                case.rollout,
                problem.error,
            )[0]
            for s in range(case.systems)
        ]
    )
