"""Encoders: networks that tell the types of edges (and entities) from recordings, or from the rest of a structure."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nri_fast.graph import MegaGraph
from nri_fast.presence import compared_by_step
from nri_fast.proposals.layers import BatchNorm, Dropout, Linear, Mlp, PairMlp, Rounds, sequences
from nri_fast.proposals.seen_part import Spans, edges_only

KERNEL = 5  # steps that a convolution sees
POOL = 2


class StateEncoder(nn.Module):
    """What encoders of recordings have in common: their input.

    All recorded steps of an entity, and every step's change in units of its standard deviation: a linear map of the
    same recordings, which spares the network from resolving forces as tiny differences of positions. A step counts
    where it and the one before are recorded; elsewhere all of these are zero, whatever the states hold.

    Parameters
    ----------
    change_scale : Tensor
        [D] standard deviation of one step's change, as :class:`nri_fast.ModuleLibrary` has it.
    masked : bool
        One more number a step says whether it is missing: for recordings with holes.
    """

    change_scale: Tensor

    def __init__(self, change_scale: Tensor, masked: bool) -> None:
        super().__init__()
        self.register_buffer("change_scale", change_scale.detach().clone())
        self.masked = masked

    @property
    def numbers(self) -> int:
        """Of a step's input: F."""
        return 2 * len(self.change_scale) + self.masked

    def inputs(self, states: Tensor, graph: MegaGraph, steps: int, usable: Tensor | None) -> Tensor:
        """[V, T - 1, F]: the state at each step but the first, beside the change that led to it."""
        recorded = sequences(states, graph, steps, len(self.change_scale))
        seen = torch.cat([recorded[:, 1:], recorded.diff(dim=1) / self.change_scale], dim=-1)
        if usable is not None:
            seen = torch.where(usable[..., None], seen, 0.0)
        if not self.masked:
            return seen
        missing = torch.zeros_like(seen[..., :1]) if usable is None else (~usable[..., None]).to(seen.dtype)
        return torch.cat([seen, missing], dim=-1)

    def told(self, graph: MegaGraph, steps: int, present: Tensor | None) -> Tensor | None:
        """[E] bool: the edges that recordings say something about; None: all of them."""
        return None


def usable_changes(graph: MegaGraph, steps: int, present: Tensor | None) -> Tensor | None:
    """[V, T - 1] bool: whether an entity is there before and after a step; None: always."""
    return None if present is None else compared_by_step(graph, present, steps).T


class MlpStateEncoder(StateEncoder):
    """Kipf et al. (2018), "MLP encoder": two rounds of entity -> edge on whole recordings of one length.

    Parameters
    ----------
    change_scale : Tensor
        [D].
    steps : int
        Recorded steps (T) that it is made for.
    edge_types, node_types : int
        K, M.
    hidden : int
        Width.
    dropout : float
        Share of units left out while training.
    masked : bool
        See :class:`StateEncoder`. Shorter recordings then are such as end in a hole.
    """

    def __init__(
        self,
        change_scale: Tensor,
        steps: int,
        edge_types: int,
        node_types: int,
        hidden: int,
        dropout: float,
        masked: bool = False,
    ) -> None:
        super().__init__(change_scale, masked)
        self.steps = steps
        self.entity = Mlp((steps - 1) * self.numbers, hidden, dropout)
        self.pair = PairMlp(hidden, 0, hidden, dropout)
        self.rounds = Rounds(hidden, edge_types, node_types, dropout)

    def forward(
        self, states: Tensor, graph: MegaGraph, steps: int, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Flat states (and which of them there are) -> logits [E, K], [V, M].

        Another number of steps than the encoder's is a ValueError, fewer only if it is not `masked`.
        """
        if steps > self.steps or (steps < self.steps and not self.masked):
            raise ValueError(
                f"steps: the MLP encoder was made for recordings of {self.steps} steps, got {steps}; the CNN encoder "
                "takes any length"
            )
        seen = self.inputs(states, graph, steps, usable_changes(graph, steps, present))
        if steps < self.steps:
            end = seen.new_zeros(len(seen), self.steps - steps, self.numbers)
            end[..., -1] = 1.0
            seen = torch.cat([seen, end], dim=1)
        entities = self.entity(seen.flatten(1))
        return self.rounds(self.pair(entities, graph), graph)


class CnnStateEncoder(StateEncoder):
    """Kipf et al. (2018), "CNN encoder": convolutions over time for each edge, pooled by attention, then the rounds.

    It takes recordings of any length from :attr:`least_steps` on. Convolutions are products over windows, and the first
    one, linear in sender and receiver, is taken per entity. Where states are missing an edge is seen from the first to
    the last change that is recorded of both its ends, as if the recording had no more. Of an edge whose span is shorter
    than :attr:`least_steps` nothing is told: its logits are zero, and it takes no part in those of the others.
    """

    least_steps = 1 + (KERNEL - 1) + POOL * KERNEL

    def __init__(
        self,
        change_scale: Tensor,
        edge_types: int,
        node_types: int,
        hidden: int,
        dropout: float,
        masked: bool = False,
    ) -> None:
        super().__init__(change_scale, masked)
        window = KERNEL * self.numbers
        self.sender = Linear(window, hidden, bias=False)
        self.receiver = Linear(window, hidden)
        self.first_normalise = BatchNorm(hidden)
        self.dropout = Dropout(dropout)
        self.second = Linear(KERNEL * hidden, hidden)
        self.second_normalise = BatchNorm(hidden)
        self.value, self.attention = Linear(hidden, hidden), Linear(hidden, 1)
        self.edge = Mlp(hidden, hidden, dropout)
        self.rounds = Rounds(hidden, edge_types, node_types, dropout)

    def told(self, graph: MegaGraph, steps: int, present: Tensor | None) -> Tensor | None:
        """See :class:`StateEncoder`."""
        usable = usable_changes(graph, steps, present)
        return None if usable is None else Spans.of(usable, graph).length >= self.least_steps - 1

    def forward(
        self, states: Tensor, graph: MegaGraph, steps: int, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Flat states (and which of them there are) -> logits [E, K], [V, M]. Too few steps are a ValueError."""
        if steps < self.least_steps:
            raise ValueError(f"steps: expected at least {self.least_steps} for the CNN encoder, got {steps}")
        usable = usable_changes(graph, steps, present)
        windows = _windows(self.inputs(states, graph, steps, usable))
        if usable is None:
            first = self.sender(windows)[graph.sender] + self.receiver(windows)[graph.receiver]
            return self.rounds(self.edge(self._pooled(first, None)), graph)
        spans = Spans.of(usable, graph)
        told = spans.length >= self.least_steps - 1
        part, spans = edges_only(graph, told), spans.select(told)
        # Every edge's windows begin where its span does, so that pairs of windows are pooled as in what was cut out.
        at = (spans.begin[:, None] + torch.arange(windows.shape[1], device=told.device)).clamp(max=windows.shape[1] - 1)
        first = self.sender(windows)[part.sender[:, None], at] + self.receiver(windows)[part.receiver[:, None], at]
        edge, node = self.rounds(self.edge(self._pooled(first, spans.length)), part)
        return edge.new_zeros(graph.edges, edge.shape[1]).index_copy(0, told.nonzero().flatten(), edge), node

    def _pooled(self, first: Tensor, changes: Tensor | None) -> Tensor:
        """[E, W, H] first layer -> [E, H]; of so many changes [E] each, if they differ."""
        windows = None if changes is None else changes - KERNEL + 1
        x = self.dropout(_on_rows(self.first_normalise, functional.elu(first), windows))
        x = x[:, : x.shape[1] // POOL * POOL].unflatten(1, (-1, POOL)).amax(2)
        after = None if windows is None else windows // POOL - KERNEL + 1
        x = _on_rows(self.second_normalise, functional.elu(self.second(_windows(x))), after)
        attention = self.attention(x)
        if after is not None:
            attention = torch.where(_within(x, after)[..., None], attention, -torch.inf)
        return (torch.softmax(attention, dim=1) * self.value(x)).sum(1)


class StructureEncoder(nn.Module):
    """Tells blurred edges from the rest of the structure: what graphs of this kind look like.

    An edge is seen as its own type and that of the edge the other way round; a blurred one as all types alike.
    """

    def __init__(self, edge_types: int, node_types: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.edge_types = edge_types
        self.edge = Mlp(2 * edge_types + 1, hidden, dropout)
        self.rounds = Rounds(hidden, edge_types, node_types, dropout)

    def forward(self, edge_types: Tensor, blurred: Tensor, graph: MegaGraph) -> tuple[Tensor, Tensor]:
        """[E] uint8 types and what is blurred -> logits [E, K], [V, M]."""
        seen = functional.one_hot(edge_types.long(), self.edge_types).to(self.edge.first.weight.dtype)
        seen = torch.where(blurred.bool()[:, None], torch.full_like(seen, 1.0 / self.edge_types), seen)
        place = graph.reverse
        there = (place >= 0)[:, None]
        reverse = torch.where(there, seen[place.clamp(min=0)], torch.zeros_like(seen))
        return self.rounds(self.edge(torch.cat([seen, reverse, there.to(seen.dtype)], dim=-1)), graph)


def _windows(x: Tensor) -> Tensor:
    """[rows, T, F] -> [rows, T - KERNEL + 1, F * KERNEL]."""
    return x.unfold(1, KERNEL, 1).flatten(2)


def _within(x: Tensor, lengths: Tensor) -> Tensor:
    """[rows, T] bool: whether a place of [rows, T, H] is one of the first `lengths` [rows]."""
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def _on_rows(module: nn.Module, x: Tensor, lengths: Tensor | None) -> Tensor:
    """[rows, T, H] through a module that takes rows; beyond `lengths` there is nothing to take, and zero comes out."""
    if lengths is None:
        return module(x.flatten(0, 1)).view(x.shape)
    places = _within(x, lengths).flatten().nonzero().flatten()
    rows = x.flatten(0, 1)
    return torch.zeros_like(rows).index_copy(0, places, module(rows[places])).view(x.shape)
