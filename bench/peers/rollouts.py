"""What roll-out energies in torch share, however a peer computes messages.

All roll-outs of all systems advance side by side, in chunks of systems of a size that was the fastest of several.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.cases import RolloutProblem

CHUNK_EDGES = 8192  # rows of an edge module at a time: at or near the best of 1,024 to 32,768 for the masked form


class TorchRollouts:
    """Energies and their gradient; a subclass says how messages become sums.

    Parameters
    ----------
    problem : RolloutProblem
        Complete graphs of one size.
    """

    chunk_edges = CHUNK_EDGES
    chunk_edges_with_gradient = CHUNK_EDGES

    def __init__(self, problem: RolloutProblem) -> None:
        self.problem, self.library = problem, problem.library
        entities = problem.case.entities
        self.degree = entities - 1
        each = entities * self.degree
        self.sender, self.receiver = problem.graph.sender[:each], problem.graph.receiver[:each]
        self.types = problem.edge_types.view(-1, each).long()

    def summed_messages(self, states: Tensor, types: Tensor) -> Tensor:
        """[rows, N, D] states and [rows, edges] types -> [rows, N, message]."""
        raise NotImplementedError

    def step(self, states: Tensor, types: Tensor) -> Tensor:
        """One message-passing step."""
        own = torch.cat([self.summed_messages(states, types), states], -1)
        return states + self.library.node[0](own) * self.library.change_scale

    def energies(self) -> Tensor:
        """[systems], without a gradient."""
        with torch.inference_mode():
            return torch.cat([self.chunk_energies(*chunk) for chunk in self.chunks(self.chunk_edges)])

    def gradient(self) -> Tensor:
        """[systems] energies; the gradient of their mean is added to the library's parameters."""
        energies = []
        for chunk in self.chunks(self.chunk_edges_with_gradient):
            energy = self.chunk_energies(*chunk)
            (energy.sum() / self.problem.case.systems).backward()
            energies.append(energy.detach())
        return torch.cat(energies)

    def chunks(self, edges: int) -> Iterator[tuple[Tensor, Tensor]]:
        """States and types of some systems at a time, so many that a step has about so many edges."""
        case = self.problem.case
        systems = max(1, edges // (case.rollouts * len(self.sender)))
        return zip(self.problem.states.split(systems), self.types.split(systems), strict=True)

    def chunk_energies(self, recorded: Tensor, types: Tensor) -> Tensor:
        """[B, T, N, D] and [B, edges] -> [B] mean squared errors of roll-outs from every R-th recorded state."""
        case = self.problem.case
        state = recorded[:, : case.steps - 1 : case.rollout].transpose(0, 1)  # [roll-outs, B, N, D]
        first = torch.arange(0, case.steps - 1, case.rollout)
        total = recorded.new_zeros(len(recorded))
        for h in range(1, min(case.rollout, case.steps - 1) + 1):
            going = int((first + h < case.steps).sum())  # the last roll-out may be shorter
            rows = types.expand(going, -1, -1).flatten(0, 1)
            state = self.step(state[:going].flatten(0, 1), rows).unflatten(0, (going, -1))
            target = recorded[:, h :: case.rollout][:, :going].transpose(0, 1)
            total = total + ((state - target) ** 2).mean(-1).sum((0, 2))
        return total / (case.transitions * case.entities)
