"""The mega-graph: many systems side by side in one disconnected graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from nri_fast import _core


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Host values on a device, which nobody waits for: a copy to a GPU goes through pinned memory."""
    device = torch.device(device)
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class MegaGraph:
    """Connectivity of a batch of systems, systems of different sizes included.

    Entities are numbered through the whole batch, a system's entities consecutively. Edges are held in one order: by
    receiver, then by sender; flat edge types follow it. Build one with :meth:`complete`, :meth:`complete_ragged`,
    :meth:`from_candidates` or :meth:`from_edge_index`.

    Attributes
    ----------
    systems, nodes, edges : int
        How many there are, all systems together.
    node_offset : Tensor
        [systems + 1] int64; system ``b`` holds entities ``node_offset[b]`` to ``node_offset[b + 1] - 1``.
    in_offset : Tensor
        [nodes + 1] int64; entity ``v`` receives edges ``in_offset[v]`` to ``in_offset[v + 1] - 1``.
    sender, receiver : Tensor
        [edges] int64; where each edge comes from and goes to.
    entities : int or None
        Entities per system where the graph is complete and all systems are of one size, otherwise None.
    host : MegaGraph
        The same graph in host memory, by which work on a device is planned; itself, where it lies there.
    host_edge_offset : Tensor
        [systems + 1] int64, in host memory; system ``b`` holds edges ``host_edge_offset[b]`` to the next.
    """

    def __init__(self, node_offset: Tensor, sender: Tensor, receiver: Tensor, entities: int | None = None) -> None:
        """Of arrays in host memory; :meth:`to` takes the graph to another device."""
        self.systems = node_offset.numel() - 1
        self.nodes = int(node_offset[-1])
        self.edges = sender.numel()
        self.entities = entities
        self.node_offset = node_offset.contiguous()
        self.sender = sender
        self.receiver = receiver
        degree = torch.bincount(receiver, minlength=self.nodes)
        self.in_offset = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        self.host_edge_offset = self.in_offset[node_offset]
        self._host: MegaGraph | None = None

    @classmethod
    def complete(cls, systems: int, entities: int, device: torch.device | str = "cpu") -> MegaGraph:
        """Every entity of a system acts on every other one; all systems have the same number of entities.

        Parameters
        ----------
        systems : int
            Number of systems, at least 0.
        entities : int
            Entities per system, at least 1.
        device : torch.device or str
            Where the index arrays live: the device of the trajectories they will be used with.
        """
        if systems < 0 or entities < 1:
            raise ValueError(f"systems, entities: expected at least 0 and 1, got {systems} and {entities}")
        receiver = torch.arange(entities).repeat_interleave(entities - 1)
        sender = torch.arange(entities * (entities - 1)) % max(entities - 1, 1)
        sender = sender + (sender >= receiver)
        shift = (torch.arange(systems) * entities)[:, None]
        node_offset = torch.arange(systems + 1) * entities
        return cls(node_offset, (sender + shift).flatten(), (receiver + shift).flatten(), entities).to(device)

    @classmethod
    def complete_ragged(cls, entities: Sequence[int], device: torch.device | str = "cpu") -> MegaGraph:
        """Complete graphs of different sizes, ``entities[b]`` (at least 1) being system ``b``'s."""
        sizes = torch.as_tensor(entities, dtype=torch.int64).cpu()
        small = (sizes < 1).nonzero()
        if small.numel():
            b = int(small[0])
            raise ValueError(f"entities[{b}]: expected at least 1, got {int(sizes[b])}")
        offset = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        size_of_node, first_of_node = sizes.repeat_interleave(sizes), offset[:-1].repeat_interleave(sizes)
        degree = size_of_node - 1
        receiver = torch.arange(len(degree)).repeat_interleave(degree)
        first = first_of_node[receiver]
        # Numbers every receiver's edges from 0 on, and leaves out the one from itself.
        sender = first + torch.arange(len(receiver)) - (degree.cumsum(0) - degree)[receiver]
        sender += sender >= receiver
        uniform = int(sizes[0]) if len(sizes) and bool((sizes == sizes[0]).all()) else None
        return cls(offset, sender, receiver, uniform).to(device)

    @classmethod
    def from_edge_index(cls, edge_index: Tensor, entities: Sequence[int]) -> MegaGraph:
        """Any set of edges.

        Parameters
        ----------
        edge_index : Tensor
            [2, edges] integers; row 0 senders, row 1 receivers, numbered through the whole batch (the convention of
            PyTorch Geometric). Any order; the graph's own is by receiver, then sender, as :attr:`edge_index` shows.
        entities : sequence of int
            Number of entities of each system.

        Raises
        ------
        IndexError
            If an edge names an entity that is not there or joins two systems.
        ValueError
            For a wrong shape, an edge from an entity to itself, or one given twice.
        """
        if not isinstance(edge_index, Tensor):
            raise TypeError(f"edge_index: expected a tensor, got {type(edge_index).__name__}")
        odd = edge_index.is_floating_point() or edge_index.is_complex() or edge_index.dtype == torch.bool
        if edge_index.ndim != 2 or edge_index.shape[0] != 2 or odd:
            raise ValueError(f"edge_index: expected integers [2, edges], got {edge_index.dtype} {[*edge_index.shape]}")
        sizes = torch.tensor([int(n) for n in entities], dtype=torch.int64)
        if (sizes < 1).any():
            raise ValueError(f"entities[{int((sizes < 1).nonzero()[0])}]: expected at least 1")
        node_offset = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        index = edge_index.detach().to("cpu", torch.int64)
        nodes = int(node_offset[-1])
        outside = ((index < 0) | (index >= nodes)).any(0).nonzero()
        if outside.numel():
            e = int(outside[0])
            raise IndexError(f"edge_index[:, {e}]: entities {index[:, e].tolist()}, expected 0 to {nodes - 1}")
        system = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        across = (system[index[0]] != system[index[1]]).nonzero()
        if across.numel():
            e = int(across[0])
            raise IndexError(f"edge_index[:, {e}]: joins systems {system[index[:, e]].tolist()}, expected one system")
        loops = (index[0] == index[1]).nonzero()
        if loops.numel():
            raise ValueError(f"edge_index[:, {int(loops[0])}]: an edge from an entity to itself")
        key, order = torch.sort(index[1] * nodes + index[0])
        twice = (key[1:] == key[:-1]).nonzero()
        if twice.numel():
            e = int(order[int(twice[0]) + 1])
            raise ValueError(f"edge_index[:, {e}]: edge {index[:, e].tolist()} is given twice")
        return cls(node_offset, index[0][order], index[1][order]).to(edge_index.device)

    @classmethod
    def from_candidates(
        cls, candidates: Tensor, entities: Sequence[int] | None = None, device: torch.device | str | None = None
    ) -> MegaGraph:
        """The edges that a mask names; time and memory grow with the mask, on its device, not with systems in Python.

        Parameters
        ----------
        candidates : Tensor
            [systems, N, N] bool: whether there is an edge from i to j, for [i, j].
        entities : sequence of int, optional
            Number of entities of each system, 1 to N; by default N.
        device : torch.device or str, optional
            Where the index arrays are to live; by default the mask's device.

        Raises
        ------
        TypeError, ValueError
            No such mask; an edge from an entity to itself, or at one that is not there (system and edge are named).
        """
        if not isinstance(candidates, Tensor) or candidates.dtype != torch.bool:
            found = candidates.dtype if isinstance(candidates, Tensor) else type(candidates).__name__
            raise TypeError(f"candidates: expected a bool tensor, got {found}")
        if candidates.ndim != 3 or candidates.shape[1] != candidates.shape[2]:
            raise ValueError(f"candidates: expected [systems, N, N], got {[*candidates.shape]}")
        systems, most, _ = candidates.shape
        given = [most] * systems if entities is None else entities
        sizes = torch.as_tensor(given, dtype=torch.int64, device=candidates.device)
        if len(sizes) != systems or (systems and not (int(sizes.min()) >= 1 and int(sizes.max()) <= most)):
            raise ValueError(f"entities: expected {systems} numbers from 1 to {most}, got {sizes.tolist()}")
        system, receiver, sender = candidates.mT.nonzero(as_tuple=True)  # in the graph's order
        wrong = ((sender == receiver) | (torch.maximum(sender, receiver) >= sizes[system])).nonzero()
        if wrong.numel():
            e = wrong[0]
            raise ValueError(
                f"candidates: expected edges between two of {int(sizes[system[e]])} entities in system "
                f"{int(system[e])}, got {int(sender[e])} -> {int(receiver[e])}"
            )
        offset = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        first = offset[system]
        return cls(offset, first + sender, first + receiver).to(candidates.device if device is None else device)

    @property
    def device(self) -> torch.device:
        """Where the index arrays live."""
        return self.sender.device

    @property
    def edge_index(self) -> Tensor:
        """[2, edges] int64: row 0 senders, row 1 receivers, in the graph's order."""
        return torch.stack([self.sender, self.receiver])

    @property
    def host(self) -> MegaGraph:
        """See the class."""
        return self if self._host is None else self._host

    def to(self, device: torch.device | str) -> MegaGraph:
        """The same graph on another device."""
        device = torch.device(device)
        if device == self.device:
            return self
        host = self.host
        if device == host.device:
            return host
        moved = copy.copy(host)
        for name in ("_adjacency_index", "native", "reverse", "system_of_edges"):  # cached, of the host's arrays
            moved.__dict__.pop(name, None)
        for name in ("node_offset", "in_offset", "sender", "receiver"):
            setattr(moved, name, to_device(getattr(host, name), device))
        moved._host = host
        return moved

    @cached_property
    def sizes(self) -> list[int]:
        """Number of entities of each system."""
        return self.host.node_offset.diff().tolist()

    def system_of_edge(self, edge: int) -> int:
        """The system that an edge belongs to."""
        return int(torch.searchsorted(self.host_edge_offset, edge, right=True)) - 1

    @cached_property
    def system_of_edges(self) -> Tensor:
        """[edges] int64: the system of every edge."""
        return self._adjacency_index[0]

    def flatten_types(self, adjacency: Tensor) -> Tensor:
        """Types per edge, [..., edges], from adjacencies [..., systems, N, N] with A[..., b, i, j] on edge i -> j."""
        n = max(self.sizes, default=0)
        if adjacency.shape[-3:] != (self.systems, n, n):
            expected = [self.systems, n, n]
            raise ValueError(f"adjacency: expected [..., {expected}], got {[*adjacency.shape]}")
        system, sender, receiver = self._adjacency_index
        return adjacency[..., system, sender, receiver]

    def adjacency(self, types: Tensor) -> Tensor:
        """Adjacencies [..., systems, N, N] from types per edge [..., edges]; 0 where there is no edge.

        In a ragged graph N is the size of the largest system and smaller ones are padded with zeros.
        """
        n = max(self.sizes, default=0)
        result = types.new_zeros(*types.shape[:-1], self.systems, n, n)
        system, sender, receiver = self._adjacency_index
        result[..., system, sender, receiver] = types
        return result

    @cached_property
    def _adjacency_index(self) -> tuple[Tensor, Tensor, Tensor]:
        sizes = self.node_offset.diff()
        every = torch.arange(self.systems, device=self.device)
        system = torch.repeat_interleave(every, sizes, output_size=self.nodes)[self.receiver]
        first = self.node_offset[system]
        return system, self.sender - first, self.receiver - first

    @cached_property
    def reverse(self) -> Tensor:
        """[edges] int64: the edge the other way round, -1 where there is none."""
        key = self.receiver * self.nodes + self.sender  # ascending: the graph's order
        wanted = self.sender * self.nodes + self.receiver
        place = torch.searchsorted(key, wanted).clamp(max=max(0, self.edges - 1))
        return torch.where(key[place] == wanted, place, torch.full_like(place, -1))

    @cached_property
    def all_paired(self) -> bool:
        """Whether every edge has another the other way round."""
        return bool((self.host.reverse >= 0).all())

    @cached_property
    def native(self) -> _core.Graph:
        """What the kernels see. Holds addresses of this object's arrays."""
        return _core.Graph(
            self.systems,
            self.nodes,
            self.edges,
            self.node_offset.data_ptr(),
            self.in_offset.data_ptr(),
            self.sender.data_ptr(),
            self.receiver.data_ptr(),
            self.host.node_offset.data_ptr(),
            self.host_edge_offset.data_ptr(),
        )

    def __repr__(self) -> str:
        return f"MegaGraph(systems={self.systems}, nodes={self.nodes}, edges={self.edges}, device={self.device})"
