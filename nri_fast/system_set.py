"""The systems of a data set, and minibatches of them, each a mega-graph of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from nri_fast.checks import FLOATS, check_finite, check_tensor
from nri_fast.graph import MegaGraph, to_device
from nri_fast.modules import ModuleLibrary


@lru_cache(maxsize=16)
def _complete(systems: int, entities: int, device: torch.device) -> MegaGraph:
    return MegaGraph.complete(systems, entities, device)


@dataclass(frozen=True)
class Batch:
    """Some of the systems, side by side.

    Attributes
    ----------
    systems : Tensor
        [B] int64: their places in the whole set; they name the batch's random draws.
    graph : MegaGraph
        Their mega-graph.
    states : Tensor
        Flat recorded states.
    edges, nodes : Tensor
        [batch edges], [batch nodes] int64: places of the batch's edges and entities in the whole set's flat arrays.
    """

    systems: Tensor
    graph: MegaGraph
    states: Tensor
    edges: Tensor
    nodes: Tensor

    def places(self, steps: int, step: Tensor) -> Tensor:
        """[batch nodes] int64: where each entity's state at its system's `step` [B] stands in flat states.

        Flat states are [steps, entities] of each system, one system behind the other.
        """
        first, sizes = self.graph.node_offset[:-1], self.graph.node_offset.diff()
        nodes = self.graph.nodes
        before = torch.repeat_interleave((steps - 1) * first + step * sizes, sizes, output_size=nodes)
        return before + torch.arange(nodes, device=first.device)


class SystemSet:
    """All systems of a data set, in normalised units.

    Parameters
    ----------
    graph : MegaGraph
        Of all systems together.
    states : Tensor
        Flat: each system's [steps, entities, features] behind the other.
    steps, features : int
        Recorded steps per system, features of an entity.

    Raises
    ------
    TypeError, ValueError
        For states of another length, type or device than the graph says, no systems, or a NaN or infinity, whose
        system, step and entity are named.
    """

    def __init__(self, graph: MegaGraph, states: Tensor, steps: int, features: int) -> None:
        if graph.systems == 0:
            raise ValueError("systems: expected at least one, got none")
        check_tensor("states", states, (graph.nodes * steps * features,), FLOATS, graph.device)
        check_finite("states", states, graph, steps, features)
        self.graph, self.states, self.steps, self.features = graph, states, steps, features

    @classmethod
    def complete(cls, states: Tensor) -> SystemSet:
        """Systems of one size, [systems, steps, N, D], in which every entity may act on every other one."""
        check_tensor("states", states, (None,) * 4, FLOATS)
        systems, steps, entities, features = states.shape
        graph = _complete(systems, entities, states.device)
        return cls(graph, states.contiguous().flatten(), steps, features)

    @classmethod
    def padded(cls, states: Tensor, sizes: Tensor) -> SystemSet:
        """Systems of different sizes, [systems, steps, N, D] with `sizes` [systems] entities; all may act on all."""
        check_tensor("states", states, (None,) * 4, FLOATS)
        _, steps, entities, features = states.shape
        graph = MegaGraph.complete_ragged(sizes.tolist(), states.device)
        there = torch.arange(entities, device=states.device) < sizes.to(states.device)[:, None]
        flat = states[there[:, None].expand(-1, steps, -1)]
        return cls(graph, flat.flatten(), steps, features)

    def check_fits(self, library: ModuleLibrary) -> None:
        """Raises TypeError or ValueError unless the library takes states of this kind, on this device."""
        scale = library.change_scale
        if self.features != library.features:
            raise ValueError(f"systems: expected {library.features} features, as the library has, got {self.features}")
        check_tensor("systems' states", self.states, (None,), scale.dtype, scale.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the states and of who may act on whom: a checkpoint tells by it whose it is."""
        digest = hashlib.sha256()
        for tensor in (self.graph.node_offset, self.graph.edge_index, self.states):
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def change_deviation(self) -> Tensor:
        """[features] float64: standard deviation of one step's change."""
        squares = torch.zeros(self.features, dtype=torch.float64, device=self.states.device)
        sums, count = torch.zeros_like(squares), 0
        for ids in torch.arange(len(self)).split(1024):
            batch = self.batch(ids)
            sizes = batch.graph.sizes
            values = batch.states.double().split([self.steps * n * self.features for n in sizes])
            for n, value in zip(sizes, values, strict=True):
                change = value.view(self.steps, n, -1).diff(dim=0).flatten(0, 1)
                squares += (change**2).sum(0)
                sums += change.sum(0)
                count += len(change)
        return (squares / count - (sums / count) ** 2).clamp(min=0).sqrt()

    def __len__(self) -> int:
        return self.graph.systems

    def batch(self, systems: Tensor | Sequence[int]) -> Batch:
        """The mega-graph of some systems, in the order given."""
        graph = self.graph
        chosen = torch.as_tensor(systems, dtype=torch.int64, device="cpu")
        ids = to_device(chosen, graph.device)
        if graph.entities is not None:
            part = _complete(len(ids), graph.entities, graph.device)
            states = self.states.view(graph.systems, -1)[ids].flatten()
            n = graph.entities
            return Batch(ids, part, states, _equal_ranges(ids, n * (n - 1)), _equal_ranges(ids, n))
        # Planned in host memory, where the graph lies too; only what was found goes to the device.
        host = graph.host
        edges, edge_offset = _ranges(host.host_edge_offset, chosen)
        nodes, node_offset = _ranges(host.node_offset, chosen)
        shift = node_offset[:-1] - host.node_offset[chosen]
        owner = torch.repeat_interleave(torch.arange(len(chosen)), edge_offset.diff())
        part = MegaGraph(node_offset, host.sender[edges] + shift[owner], host.receiver[edges] + shift[owner])
        size = self.steps * self.features
        values, _ = _ranges(graph.node_offset * size, ids, size * part.nodes)
        return Batch(
            ids,
            part.to(graph.device),
            self.states[values],
            to_device(edges, graph.device),
            to_device(nodes, graph.device),
        )


def _equal_ranges(ids: Tensor, size: int) -> Tensor:
    """Concatenated ranges i * size .. (i + 1) * size - 1 for i in `ids`."""
    return (ids[:, None] * size + torch.arange(size, device=ids.device)).flatten()


def _ranges(offset: Tensor, ids: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """Concatenated ranges offset[i] .. offset[i + 1] - 1 for i in `ids`, and where each begins in the result.

    `total` is the number of places, where it is known: on a device, nobody then waits for it.
    """
    sizes = offset.diff()[ids]
    begins = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    total = int(begins[-1]) if total is None else total
    places = torch.arange(total, device=offset.device)
    return places + torch.repeat_interleave(offset[ids] - begins[:-1], sizes, output_size=total), begins
