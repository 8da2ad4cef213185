"""A Metropolis choice for every system, and the gradient of the structures kept: a step of the paper's BounceGrad.

One pass over both structures, against two energies, the decision and the gradient one after the other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.cases import Case, Effort, RolloutProblem
from bench.peers.bucketed import Bucketed
from bench.rows import OURS, Contest, Row, check_close, use_threads
from bench.timer import Work
from nri_fast import ops

ONE_BY_ONE = "one by one"
TEMPERATURE = 0.05


def rows(effort: Effort) -> Iterator[Row]:
    """A row a case of several systems of the smallest size.

    Two energies and a gradient are five passes of the roll-outs' work, of which four are left where nothing runs twice.
    """
    measured = set()
    for asked in effort.cases():
        case = asked.fitted(effort.gflop, passes=4)
        alone = case.systems == 1  # training takes few systems by one operation after the other
        if alone or case.entities > min(effort.entities) or case in measured:
            continue
        measured.add(case)
        use_threads(case.threads)
        step = Step.of(case)
        peer, proposed = Bucketed(step.held), Bucketed(step.proposed)
        energies, gradient = step.together()
        expected, expected_gradient = step.one_by_one()
        check_close("energies", energies, expected)
        check_close("gradient", gradient, expected_gradient)
        check_close("bucketed energies", torch.stack([peer.energies(), proposed.energies()]), expected)
        competitors: dict[str, Work] = {
            OURS: step.together,
            ONE_BY_ONE: step.one_by_one,
            "bucketed": functools.partial(plain_step, peer, proposed),
        }
        operations = case.systems * (
            case.shape.energy(case.transitions) + case.shape.energy_gradient(case.transitions, case.rollouts)
        )
        graph_steps = 2 * case.systems * case.transitions
        yield Contest("choice", "choice and gradient", case, asked, operations, graph_steps, competitors).measure(
            effort
        )


def plain_step(held: Bucketed, proposed: Bucketed) -> None:
    """What plain PyTorch has to compute: the gradient's own energies are those of the structures held."""
    proposed.energies()
    held.problem.library.zero_grad()
    held.gradient()


@dataclass(frozen=True)
class Step:
    """Systems that hold a structure, and one with another edge of each proposed."""

    held: RolloutProblem
    proposed: RolloutProblem
    parameters: Tensor
    draws: ops.Draws

    @classmethod
    def of(cls, case: Case) -> Step:
        """The first edge of every system gets another type."""
        held = RolloutProblem.of(case)
        types = held.edge_types.clone()
        types.view(case.systems, -1)[:, 0] = 1 - types.view(case.systems, -1)[:, 0]
        proposed = dataclasses.replace(held, edge_types=types)
        draws = ops.Draws(1, 0, torch.arange(case.systems))
        return cls(held, proposed, held.library.flat_parameters().detach(), draws)

    def together(self) -> tuple[Tensor, Tensor]:
        """Energies and gradient in one pass."""
        both = torch.stack([self.held.edge_types, self.proposed.edge_types])
        temperature = self.parameters.new_full((1,), TEMPERATURE)
        held, case = self.held, self.held.case
        front = (held.library, self.parameters, held.graph, held.states.flatten(), case.steps)
        return ops.rollout_choice(*front, both, None, case.rollout, held.error, self.draws, temperature)

    def one_by_one(self) -> tuple[Tensor, Tensor]:
        """The same by three operations and a decision."""
        held, graph = self.held, self.held.graph
        energies = torch.stack([held.energies(self.parameters), self.proposed.energies(self.parameters)])
        energy, types = energies[0].clone(), held.edge_types.clone()
        counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64)
        temperature = self.parameters.new_full((1,), TEMPERATURE)
        change = (energies[1], self.proposed.edge_types, None, energy, types, None, counts)
        ops.metropolis_decide(graph, self.draws, temperature, *change)
        even = energy.new_full((graph.systems,), 1.0 / graph.systems)
        front = (held.library, self.parameters, graph, held.states.flatten(), held.case.steps)
        return energies, ops.rollout_gradient(*front, types, None, held.case.rollout, held.error, even)[1]
