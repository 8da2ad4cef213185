"""Plain PyTorch, edges bucketed by type: one dense perceptron a type over its edges, sums by ``index_add``."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.cases import RolloutProblem
from bench.peers.rollouts import CHUNK_EDGES, TorchRollouts


class Bucketed(TorchRollouts):
    """Every edge costs one module; gathering and scattering come on top."""

    chunk_edges = 32768

    def __init__(self, problem: RolloutProblem) -> None:
        super().__init__(problem)
        # With a gradient the best of several: 32,768 at width 64, 2,048 to 8,192, all alike, at width 256.
        self.chunk_edges_with_gradient = max(CHUNK_EDGES, 32768 * 64 // problem.case.width)

    def summed_messages(self, states: Tensor, types: Tensor) -> Tensor:
        """[rows, N, D], [rows, edges] -> [rows, N, message]."""
        rows, entities, _ = states.shape
        flat = states.flatten(0, 1)
        first = torch.arange(rows, device=states.device)[:, None] * entities
        sender, receiver = (first + self.sender).flatten(), (first + self.receiver).flatten()
        sums = states.new_zeros(rows * entities, self.library.message)
        kinds = types.flatten()
        for k, module in enumerate(self.library.edge):
            mine = (kinds == k).nonzero()[:, 0]
            to = receiver[mine]
            sums = sums.index_add(0, to, module(torch.cat([flat[sender[mine]], flat[to]], -1)))
        return sums.view(rows, entities, -1)
