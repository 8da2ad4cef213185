"""Plain PyTorch, one system after the other: what batching is measured against."""

from __future__ import annotations

from bench.peers.bucketed import Bucketed


class OneAtATime(Bucketed):
    """A chunk is a system."""

    chunk_edges = chunk_edges_with_gradient = 1
