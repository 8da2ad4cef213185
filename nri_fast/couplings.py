"""What ties the parts of structures together: one type for both directions, one structure for all recordings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.graph import MegaGraph
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.undirected import agree, undirected_responsibilities


@dataclass(frozen=True)
class Coupling:
    """How the types of different edges depend on each other; by default they do not.

    Attributes
    ----------
    undirected : bool
        Both directions of a pair have one type.
    shared : bool
        All systems are recordings of one structure. They must be complete graphs of one size.
    """

    undirected: bool = False
    shared: bool = False

    def scores(self, graph: MegaGraph, scores: Tensor) -> Tensor:
        """The scores to weigh: each system's own, or the mean over the recordings."""
        if not self.shared:
            return scores
        table = _by_system(graph, scores)
        return table.mean(0, keepdim=True).expand_as(table).reshape(scores.shape)

    def weights(self, rows: HeatBathRows, scores: Tensor, temperature: float | Tensor) -> Tensor:
        """[rows] how much each assignment of each receiver weighs; `scores` from :meth:`scores`."""
        weigh = undirected_responsibilities if self.undirected else HeatBathRows.responsibilities
        return weigh(rows, scores, temperature)

    def pair_scores(self, graph: MegaGraph, scores: Tensor) -> Tensor:
        """[E, K] scores of each edge's types given the rest: with those of its reverse, of all recordings."""
        scores = self.scores(graph, scores)
        if not self.undirected:
            return scores
        return scores + torch.where((graph.reverse >= 0)[:, None], scores[graph.reverse.clamp(min=0)], 0.0)

    def agreed(self, graph: MegaGraph, probabilities: Tensor) -> Tensor:
        """[E, K] probabilities that obey the coupling."""
        return agree(graph, probabilities) if self.undirected else probabilities

    def draw(
        self, rows: HeatBathRows, weights: Tensor, draws: ops.Draws, edge_types: Tensor, node_types: Tensor
    ) -> None:
        """Draws a row of each receiver by its weight and writes its types, in place.

        Of the two ends of an undirected pair, the one with the higher number decides; of shared recordings, the first.
        """
        rows.sample(-weights.log(), 1.0, draws, edge_types, node_types)
        edge_types.copy_(self.applied(rows.graph, edge_types))
        node_types.copy_(self.applied_to_entities(rows.graph, node_types))

    def applied_to_entities(self, graph: MegaGraph, node_types: Tensor) -> Tensor:
        """[V] types that obey the coupling."""
        return _first_for_all(graph, node_types) if self.shared else node_types

    def applied(self, graph: MegaGraph, edge_types: Tensor) -> Tensor:
        """[E] types that obey the coupling: the deciding edges', for those that depend on them."""
        if self.undirected:
            edge_types = mirrored(graph, edge_types)
        return _first_for_all(graph, edge_types) if self.shared else edge_types


UNTIED = Coupling()


def mirrored(graph: MegaGraph, edge_types: Tensor) -> Tensor:
    """[E] types in which an edge to the lower of two entities has the type of its reverse, if there is one."""
    follows = (graph.receiver < graph.sender) & (graph.reverse >= 0)
    return torch.where(follows, edge_types[graph.reverse.clamp(min=0)], edge_types)


def _first_for_all(graph: MegaGraph, values: Tensor) -> Tensor:
    table = _by_system(graph, values)
    return table[:1].expand_as(table).reshape(values.shape)


def _by_system(graph: MegaGraph, values: Tensor) -> Tensor:
    """[B, ...] view of flat values of equal systems."""
    if graph.entities is None:
        raise ValueError("shared: expected complete graphs of one size, got systems that differ")
    return values.reshape(graph.systems, -1)
