"""Heat-bath scores of a receiver's alternatives, and their gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from nri_fast import _core
from nri_fast.graph import MegaGraph, to_device
from nri_fast.modules import ModuleLibrary
from nri_fast.ops.place import address, place, scoring_place
from nri_fast.ops.rollouts import ErrorMeasure


@dataclass(frozen=True)
class RowLayout:
    """Which alternatives a heat bath scores for each receiver. See ``csrc/ops/heat_bath.h``.

    Attributes
    ----------
    offset : Tensor
        [nodes + 1] int64: where each receiver's rows begin.
    stride : Tensor or None
        Blocks: [edges] int64, how many rows lie between two types of a free edge, 0 for an edge that is held.
        None: conditionals.
    host_offset : Tensor
        [systems + 1] int64, in host memory: where each system's rows begin, and their number.
    """

    offset: Tensor
    stride: Tensor | None
    host_offset: Tensor

    @property
    def rows(self) -> int:
        """How many there are, all systems together."""
        return int(self.host_offset[-1])

    @classmethod
    def conditionals(cls, graph: MegaGraph, edge_types_count: int) -> RowLayout:
        """Every type of each edge, the others staying as they are."""
        return cls(graph.in_offset * edge_types_count, None, graph.host_edge_offset * edge_types_count)

    @classmethod
    def blocks(cls, graph: MegaGraph, edge_types_count: int, free: Tensor | None = None) -> RowLayout:
        """Every assignment of a receiver's incoming edges; of those marked in ``free`` [edges], where it is given.

        Planned in host memory: a mask that lies there makes nobody wait for the device.
        """
        if free is None:
            return _whole_blocks(graph, edge_types_count)
        host, free = graph.host, free.cpu()
        before = _offsets(free.long())  # free edges in front of each edge
        count = before[host.in_offset].diff()
        later = before[host.in_offset[host.receiver + 1]] - before[1:]
        stride = torch.where(free, torch.pow(torch.full_like(later, edge_types_count), later), 0)
        offset = _offsets(torch.pow(torch.full_like(count, edge_types_count), count))
        moved = to_device(offset, graph.device), to_device(stride, graph.device)
        return cls(*moved, offset[host.node_offset])


@lru_cache(maxsize=4)
def _whole_blocks(graph: MegaGraph, edge_types_count: int) -> RowLayout:
    """All edges free: the same in every step whose batch has the same graph."""
    return RowLayout.blocks(graph, edge_types_count, torch.ones(graph.edges, dtype=torch.bool))


def _offsets(sizes: Tensor) -> Tensor:
    """Where each of consecutive ranges begins, and the end."""
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


class Room:
    """Memory in which scoring leaves its activations for the gradient.

    Whoever makes a room gets the memory of one that nobody holds any more: fresh pages would cost a small batch's step
    a tenth of its time.

    Parameters
    ----------
    like : Tensor
        Gives type and device, the processor's.
    values : int
        How many it must hold.
    """

    _spare: ClassVar[list[Tensor]] = []  # one at most

    def __init__(self, like: Tensor, values: int) -> None:
        try:
            spare = self._spare.pop()
        except IndexError:
            spare = like.new_empty(0)
        enough = spare.dtype == like.dtype and spare.numel() >= values
        self.memory = spare if enough else like.new_empty(values)

    def __del__(self) -> None:
        if not self._spare:
            self._spare.append(self.memory)


@dataclass(frozen=True)
class HeatBathProblem:
    """Arguments that heat-bath scores and their gradient share. See ``csrc/ops/heat_bath.h``.

    ``start`` is [systems, transitions] int64. Conditionals need ``edge_types`` [edges]; blocks that hold edges need
    ``held_weight`` [edges, K] float32, how much each type counts in a held edge's message. ``present`` and
    ``step_scale`` as for :func:`rollout_energy`.
    """

    library: ModuleLibrary
    graph: MegaGraph
    states: Tensor
    steps: int
    start: Tensor
    rows: RowLayout
    error: ErrorMeasure
    node_types: Tensor | None = None
    edge_types: Tensor | None = None
    held_weight: Tensor | None = None
    present: Tensor | None = None
    step_scale: Tensor | None = None

    def _call(
        self, parameters: Tensor, kept: Room | None, cotangent: Tensor | None = None, output: Tensor | None = None
    ) -> int:
        return _core.heat_bath(
            scoring_place(self.states) if cotangent is None else place(self.states),
            self.states.dtype == torch.float64,
            self.library.layout,
            address(parameters),
            self.graph.native,
            _core.Trajectories(self.steps, address(self.states), address(self.present), address(self.step_scale)),
            self.error.native,
            self.rows.stride is None,
            self.start.shape[1],
            address(self.start),
            address(self.node_types),
            address(self.edge_types),
            address(self.rows.offset),
            address(self.rows.stride),
            address(self.held_weight),
            address(self.rows.host_offset),
            address(None if kept is None else kept.memory),
            address(cotangent),
            address(output),
        )

    def room(self, parameters: Tensor) -> Room | None:
        """Room for what :meth:`scores` leaves for :meth:`gradient`; None where a batch is too large for that.

        At most 24 MiB. The gradient is the same to the bit with and without it.
        """
        values = self._call(parameters, None)
        return Room(self.states, values) if values else None

    def scores(self, parameters: Tensor, kept: Room | None = None) -> Tensor:
        """[rows] scores; fills ``kept``, which is :meth:`room`."""
        scores = self.states.new_empty(self.rows.rows)
        self._call(parameters, kept, None, scores)
        return scores

    def gradient(self, parameters: Tensor, cotangent: Tensor, kept: Room | None = None) -> Tensor:
        """[P] gradient of the sum of ``cotangent * scores``. Rows of zero cotangent cost nothing.

        ``kept`` is what :meth:`scores` has filled under the same parameters.
        """
        gradient = torch.empty_like(parameters)
        self._call(parameters, kept, cotangent, gradient)
        return gradient
