"""The systems of a data set, and minibatches of them, each a mega-graph of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from nri_fast.checks import FLOATS, check_finite, check_tensor
from nri_fast.graph import MegaGraph, to_device
from nri_fast.modules import ModuleLibrary
from nri_fast.presence import compared_by_step, flat_places, lengths, owners, systems_with


@lru_cache(maxsize=16)
def complete_graph(systems: int, entities: int, device: torch.device) -> MegaGraph:
    """Equal systems in which everybody may act on everybody else; the same object for the same arguments."""
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
    present : Tensor or None
        uint8, as the flat states without features: zero where a state is absent. None: all are there.
    step_scale : Tensor or None
        [B] their time steps over the modules'. None: all 1.
    """

    systems: Tensor
    graph: MegaGraph
    states: Tensor
    edges: Tensor
    nodes: Tensor
    present: Tensor | None = None
    step_scale: Tensor | None = None

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
    present : Tensor, optional
        uint8, as the flat states without features: zero where a state is absent. The state is zero there, too.
    step_scale : Tensor, optional
        [systems] each system's time step over that which the modules are made for.

    Raises
    ------
    TypeError, ValueError
        For states of another length, type or device than the graph says, no systems, or a NaN or infinity, whose
        system, step and entity are named; for a system in which nobody is there at two steps in succession.
    """

    def __init__(
        self,
        graph: MegaGraph,
        states: Tensor,
        steps: int,
        features: int,
        present: Tensor | None = None,
        step_scale: Tensor | None = None,
    ) -> None:
        if graph.systems == 0:
            raise ValueError("systems: expected at least one, got none")
        check_tensor("states", states, (graph.nodes * steps * features,), FLOATS, graph.device)
        check_finite("states", states, graph, steps, features)
        self.graph, self.states, self.steps, self.features = graph, states, steps, features
        self.present, self.step_scale = present, step_scale
        if step_scale is not None:
            check_tensor("step_scale", step_scale, (graph.systems,), states.dtype, graph.device)
        if present is not None and steps > 1:
            check_tensor("present", present, (graph.nodes * steps,), torch.uint8, graph.device)
            someone = systems_with(graph, compared_by_step(graph, present, steps)).any(1)
            if not bool(someone.all()):
                raise ValueError(
                    f"present: system {int((~someone).nonzero()[0])}: expected an entity that is there at two steps in "
                    "succession, got none"
                )

    @classmethod
    def complete(cls, states: Tensor, present: Tensor | None = None, step_scale: Tensor | None = None) -> SystemSet:
        """Systems of one size, [systems, steps, N, D], in which every entity may act on every other one.

        `present` [systems, steps, N] bool says which states there are; all by default.
        """
        check_tensor("states", states, (None,) * 4, FLOATS)
        systems, steps, entities, features = states.shape
        graph = complete_graph(systems, entities, states.device)
        if present is None:
            return cls(graph, states.contiguous().flatten(), steps, features, None, step_scale)
        flags = present.to(states.device)
        flat = states.masked_fill(~flags[..., None], 0.0).flatten()
        return cls(graph, flat, steps, features, flags.flatten().byte(), step_scale)

    @classmethod
    def padded(
        cls,
        states: Tensor,
        sizes: Tensor,
        present: Tensor | None = None,
        step_scale: Tensor | None = None,
        candidates: Tensor | None = None,
    ) -> SystemSet:
        """Systems of different sizes, [systems, steps, N, D] with `sizes` [systems] entities.

        i may act on j where `candidates` [systems, N, N] says so; all may act on all by default.
        """
        check_tensor("states", states, (None,) * 4, FLOATS)
        _, steps, entities, features = states.shape
        if candidates is None:
            graph = MegaGraph.complete_ragged(sizes.tolist(), states.device)
        else:
            graph = MegaGraph.from_candidates(candidates, sizes.tolist(), states.device)
        members = torch.arange(entities, device=states.device) < sizes.to(states.device)[:, None]
        taken = members[:, None].expand(-1, steps, -1)
        if present is None:
            return cls(graph, states[taken].flatten(), steps, features, None, step_scale)
        flags = present.to(states.device)
        flat = states.masked_fill(~flags[..., None], 0.0)[taken].flatten()
        return cls(graph, flat, steps, features, flags[taken].byte(), step_scale)

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
        holes = [tensor for tensor in (self.present, self.step_scale) if tensor is not None]
        for tensor in (self.graph.node_offset, self.graph.edge_index, self.states, *holes):
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @cached_property
    def lengths(self) -> Tensor:
        """[systems] int64: steps of each recording, up to the last one at which anybody is there."""
        if self.present is None:
            return torch.full((len(self),), self.steps, device=self.graph.device)
        return lengths(self.graph, self.present, self.steps)

    def changes(self) -> Iterator[Tensor]:
        """[rows, features] float64 of every system: recorded changes of one step, per time step of the modules."""
        for ids in torch.arange(len(self)).split(1024):
            batch = self.batch(ids)
            sizes = batch.graph.sizes
            values = batch.states.double().split([self.steps * n * self.features for n in sizes])
            for system, (n, value) in enumerate(zip(sizes, values, strict=True)):
                change = value.view(self.steps, n, -1).diff(dim=0)
                if batch.step_scale is not None:
                    change = change / batch.step_scale[system].double()
                if batch.present is not None:
                    first = self.steps * int(batch.graph.node_offset[system])
                    there = batch.present[first : first + self.steps * n].view(self.steps, n).bool()
                    yield change[there[1:] & there[:-1]]
                else:
                    yield change.flatten(0, 1)

    def change_deviation(self) -> Tensor:
        """[features] float64: standard deviation of one step's change."""
        squares = torch.zeros(self.features, dtype=torch.float64, device=self.states.device)
        sums, count = torch.zeros_like(squares), 0
        for change in self.changes():
            squares += (change**2).sum(0)
            sums += change.sum(0)
            count += len(change)
        return (squares / count - (sums / count) ** 2).clamp(min=0).sqrt()

    @cached_property
    def sudden(self) -> Tensor:
        """[systems * (steps - 1)] float64, in host memory: running sum of how likely each transition is to be drawn
        where sudden changes are to be met often.

        Half of the draws take all transitions alike, half in proportion to the sum of the entities' squared changes,
        features in units of their :meth:`change_deviation`. Where nobody is compared, none is drawn.
        """
        rows = self.states.view(-1, self.features).double().cpu()
        graph, deviation = self.graph.host, self.change_deviation().cpu()
        unit = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        places = flat_places(graph, self.steps)
        size = torch.stack([((rows[b] - rows[a]) / unit).square().mean(-1) for a, b in pairwise(places)])
        compared = torch.ones_like(size)
        if self.present is not None:
            compared = compared_by_step(graph, self.present.cpu(), self.steps).double()
        sums = torch.zeros(2, len(self), self.steps - 1, dtype=torch.float64)
        sums.index_add_(1, owners(graph), torch.stack([compared, compared * size]).mT)
        usable = (sums[0] > 0).double()
        changed = sums[1] / sums[1].sum() if bool(sums[1].any()) else usable / usable.sum()
        return (usable / usable.sum() + changed).flatten().cumsum(0)

    def __len__(self) -> int:
        return self.graph.systems

    def batch(self, systems: Tensor | Sequence[int]) -> Batch:
        """The mega-graph of some systems, in the order given."""
        graph = self.graph
        chosen = torch.as_tensor(systems, dtype=torch.int64, device="cpu")
        ids = to_device(chosen, graph.device)
        scale = None if self.step_scale is None else self.step_scale[ids]
        if graph.entities is not None:
            part = complete_graph(len(ids), graph.entities, graph.device)
            states = self.states.view(graph.systems, -1)[ids].flatten()
            n = graph.entities
            flags = None if self.present is None else self.present.view(graph.systems, -1)[ids].flatten()
            return Batch(ids, part, states, _equal_ranges(ids, n * (n - 1)), _equal_ranges(ids, n), flags, scale)
        # Planned in host memory, where the graph lies too; only what was found goes to the device.
        host = graph.host
        edges, edge_offset = _ranges(host.host_edge_offset, chosen)
        nodes, node_offset = _ranges(host.node_offset, chosen)
        shift = node_offset[:-1] - host.node_offset[chosen]
        owner = torch.repeat_interleave(torch.arange(len(chosen)), edge_offset.diff())
        part = MegaGraph(node_offset, host.sender[edges] + shift[owner], host.receiver[edges] + shift[owner])
        size = self.steps * self.features
        values, _ = _ranges(graph.node_offset * size, ids, size * part.nodes)
        flags = None
        if self.present is not None:
            flags = self.present[_ranges(graph.node_offset * self.steps, ids, self.steps * part.nodes)[0]]
        return Batch(
            ids,
            part.to(graph.device),
            self.states[values],
            to_device(edges, graph.device),
            to_device(nodes, graph.device),
            flags,
            scale,
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
