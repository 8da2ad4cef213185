"""Encoders: networks that tell the types of edges (and entities) from recordings, or from the rest of a structure."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nri_fast.graph import MegaGraph
from nri_fast.proposals.layers import BatchNorm, Dropout, Linear, Mlp, PairMlp, Rounds, sequences

KERNEL = 5  # steps that a convolution sees
POOL = 2


class StateEncoder(nn.Module):
    """What encoders of recordings have in common: their input.

    All recorded steps of an entity, and every step's change in units of its standard deviation: a linear map of the
    same recordings, which spares the network from resolving forces as tiny differences of positions.

    Parameters
    ----------
    change_scale : Tensor
        [D] standard deviation of one step's change, as :class:`nri_fast.ModuleLibrary` has it.
    """

    change_scale: Tensor

    def __init__(self, change_scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("change_scale", change_scale.detach().clone())

    def inputs(self, states: Tensor, graph: MegaGraph, steps: int) -> Tensor:
        """[V, T - 1, 2 D]: the state at each step but the first, beside the change that led to it."""
        recorded = sequences(states, graph, steps, len(self.change_scale))
        return torch.cat([recorded[:, 1:], recorded.diff(dim=1) / self.change_scale], dim=-1)


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
    """

    def __init__(
        self, change_scale: Tensor, steps: int, edge_types: int, node_types: int, hidden: int, dropout: float
    ) -> None:
        super().__init__(change_scale)
        self.steps = steps
        self.entity = Mlp((steps - 1) * 2 * len(change_scale), hidden, dropout)
        self.pair = PairMlp(hidden, 0, hidden, dropout)
        self.rounds = Rounds(hidden, edge_types, node_types, dropout)

    def forward(self, states: Tensor, graph: MegaGraph, steps: int) -> tuple[Tensor, Tensor]:
        """Flat states -> logits [E, K], [V, M]. Another number of steps than the encoder's is a ValueError."""
        if steps != self.steps:
            raise ValueError(
                f"steps: the MLP encoder was made for recordings of {self.steps} steps, got {steps}; the CNN encoder "
                "takes any length"
            )
        entities = self.entity(self.inputs(states, graph, steps).flatten(1))
        return self.rounds(self.pair(entities, graph), graph)


class CnnStateEncoder(StateEncoder):
    """Kipf et al. (2018), "CNN encoder": convolutions over time for each edge, pooled by attention, then the rounds.

    It takes recordings of any length from :attr:`least_steps` on. Convolutions are products over windows, and the first
    one, linear in sender and receiver, is taken per entity.
    """

    least_steps = 1 + (KERNEL - 1) + POOL * KERNEL

    def __init__(self, change_scale: Tensor, edge_types: int, node_types: int, hidden: int, dropout: float) -> None:
        super().__init__(change_scale)
        window = KERNEL * 2 * len(change_scale)
        self.sender = Linear(window, hidden, bias=False)
        self.receiver = Linear(window, hidden)
        self.first_normalise = BatchNorm(hidden)
        self.dropout = Dropout(dropout)
        self.second = Linear(KERNEL * hidden, hidden)
        self.second_normalise = BatchNorm(hidden)
        self.value, self.attention = Linear(hidden, hidden), Linear(hidden, 1)
        self.edge = Mlp(hidden, hidden, dropout)
        self.rounds = Rounds(hidden, edge_types, node_types, dropout)

    def forward(self, states: Tensor, graph: MegaGraph, steps: int) -> tuple[Tensor, Tensor]:
        """Flat states -> logits [E, K], [V, M]. Too few steps are a ValueError."""
        if steps < self.least_steps:
            raise ValueError(f"steps: expected at least {self.least_steps} for the CNN encoder, got {steps}")
        windows = _windows(self.inputs(states, graph, steps))
        x = functional.elu(self.sender(windows)[graph.sender] + self.receiver(windows)[graph.receiver])
        x = self.dropout(_on_rows(self.first_normalise, x))
        x = x[:, : x.shape[1] // POOL * POOL].unflatten(1, (-1, POOL)).amax(2)
        x = _on_rows(self.second_normalise, functional.elu(self.second(_windows(x))))
        weight = torch.softmax(self.attention(x), dim=1)
        return self.rounds(self.edge((weight * self.value(x)).sum(1)), graph)


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


def _on_rows(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.flatten(0, 1)).view(x.shape)
