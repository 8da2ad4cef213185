"""What a proposal network gets to see of recordings with holes: the entities that are there, and when."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast.graph import MegaGraph
from nri_fast.presence import compared_by_step, flat_places
from nri_fast.system_set import Batch


@dataclass(frozen=True)
class SeenPart:
    """A batch without the entities that are nowhere there at two steps in succession.

    Nobody could tell anything about them, so a network neither reads them nor learns from them.

    Attributes
    ----------
    batch : Batch
        Of the others, with the edges between them.
    edges, nodes : Tensor
        int64: their places among those of the whole batch.
    whole : MegaGraph
        That of the whole batch.
    """

    batch: Batch
    edges: Tensor
    nodes: Tensor
    whole: MegaGraph

    def put_back(self, edges: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """[E, ...] and [V, ...] for the whole batch: zero where nothing was seen."""
        all_edges = edges.new_zeros(self.whole.edges, *edges.shape[1:])
        all_nodes = nodes.new_zeros(self.whole.nodes, *nodes.shape[1:])
        return all_edges.index_copy(0, self.edges, edges), all_nodes.index_copy(0, self.nodes, nodes)


def seen_part(batch: Batch, steps: int) -> SeenPart:
    """Cuts the entities that are there out of a batch; the whole batch, where everybody is."""
    graph = batch.graph
    if batch.present is None:
        return _everything(batch)
    there = compared_by_step(graph, batch.present, steps).any(0)
    if bool(there.all()):
        return _everything(batch)
    nodes = there.nonzero().flatten()
    edges = (there[graph.sender] & there[graph.receiver]).nonzero().flatten()
    before = torch.cat([there.new_zeros(1, dtype=torch.int64), there.cumsum(0)])
    ends = before[graph.sender[edges]].cpu(), before[graph.receiver[edges]].cpu()
    part = MegaGraph(before[graph.node_offset].cpu(), *ends).to(graph.device)
    from_places, to_places = flat_places(graph, steps)[:, nodes], flat_places(part, steps)
    recorded = batch.states.view(graph.nodes * steps, -1)
    states, present = torch.empty_like(recorded[: part.nodes * steps]), batch.present[: part.nodes * steps].clone()
    states[to_places], present[to_places] = recorded[from_places], batch.present[from_places]
    cut = dataclasses.replace(
        batch,
        graph=part,
        states=states.flatten(),
        edges=batch.edges[edges],
        nodes=batch.nodes[nodes],
        present=present,
    )
    return SeenPart(cut, edges, nodes, graph)


def _everything(batch: Batch) -> SeenPart:
    graph = batch.graph
    edges, nodes = (torch.arange(count, device=graph.device) for count in (graph.edges, graph.nodes))
    return SeenPart(batch, edges, nodes, graph)


@dataclass(frozen=True)
class Spans:
    """When both ends of an edge are there: from the first to the last such change, whatever is missing in between.

    Attributes
    ----------
    begin, length : Tensor
        [E] int64: the first change's number, and how many changes lie in the span.
    """

    begin: Tensor
    length: Tensor

    @classmethod
    def of(cls, usable: Tensor, graph: MegaGraph) -> Spans:
        """Of the changes [V, T - 1] that are recorded of each entity."""
        both = usable[graph.sender] & usable[graph.receiver]
        number = torch.arange(1, both.shape[1] + 1, device=both.device)
        end = (both * number).amax(1)
        begin = torch.where(both, number - 1, both.shape[1]).amin(1)
        return cls(begin, (end - begin).clamp(min=0))

    def select(self, edges: Tensor) -> Spans:
        """Those of some edges."""
        return Spans(self.begin[edges], self.length[edges])


def edges_only(graph: MegaGraph, edges: Tensor) -> MegaGraph:
    """The same entities with some of the edges (bool [E])."""
    host = graph.host
    keep = edges.cpu()
    return MegaGraph(host.node_offset, host.sender[keep], host.receiver[keep]).to(graph.device)
