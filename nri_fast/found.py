"""What every search for structures returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast.modules import ModuleLibrary
from nri_fast.system_set import Batch, SystemSet


@dataclass
class Found:
    """Structures and how sure they are, flat over the systems searched.

    Attributes
    ----------
    edge_types, node_types : Tensor
        [E], [V] uint8: the likeliest types.
    edge_probabilities, node_probabilities : Tensor
        [E, K], [V, M].
    """

    edge_types: Tensor
    node_types: Tensor
    edge_probabilities: Tensor
    node_probabilities: Tensor

    @classmethod
    def empty(cls, library: ModuleLibrary, systems: SystemSet) -> Found:
        """Room for all systems."""
        graph, states = systems.graph, systems.states
        return cls(
            torch.zeros(graph.edges, dtype=torch.uint8, device=graph.device),
            torch.zeros(graph.nodes, dtype=torch.uint8, device=graph.device),
            states.new_zeros(graph.edges, library.edge_types),
            states.new_zeros(graph.nodes, library.node_types),
        )

    def put(
        self,
        batch: Batch,
        edge_probabilities: Tensor,
        node_probabilities: Tensor,
        edge_types: Tensor | None = None,
        node_types: Tensor | None = None,
    ) -> None:
        """Writes what was found for a batch to its systems' places; types that are not given are the likeliest."""
        self.edge_types[batch.edges] = edge_probabilities.argmax(-1).byte() if edge_types is None else edge_types
        self.node_types[batch.nodes] = node_probabilities.argmax(-1).byte() if node_types is None else node_types
        self.edge_probabilities[batch.edges] = edge_probabilities
        self.node_probabilities[batch.nodes] = node_probabilities
