"""Plain PyTorch, one system after the other: what batching is measured against."""

from __future__ import annotations

from bench.cases import RolloutProblem
from bench.peers.bucketed import Bucketed


class OneAtATime(Bucketed):
    """A chunk is a system."""

    chunk_edges = 1

    def __init__(self, problem: RolloutProblem) -> None:
        super().__init__(problem)
        self.chunk_edges_with_gradient = 1
