"""Building blocks of the proposal networks: message passing over edge lists of any shape.

Sums over incoming edges run over segments in edge order, and gathers have sorted backward passes, so that two runs on
one device agree to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nri_fast.autograd import LinearRows
from nri_fast.graph import MegaGraph


class Linear(nn.Linear):
    """A dense layer that uses all of the kernels' threads on a CPU, where torch is kept to one while training."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        if x.is_cuda:
            return super().forward(x)
        rows = x.reshape(-1, self.in_features).contiguous()
        return LinearRows.apply(rows, self.weight, self.bias).view(*x.shape[:-1], self.out_features)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over rows; a single row, whose statistics say nothing, is normalised by the running ones."""

    def forward(self, x: Tensor) -> Tensor:
        """[rows, H] -> [rows, H]."""
        if self.training and x.shape[0] > 1:
            return super().forward(x)
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class Dropout(nn.Module):
    """Dropout whose mask comes from a generator that the caller names, so that a run can be resumed to the bit."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Zeroes a share of the numbers while training and scales up the others."""
        if not self.training or self.share == 0:
            return x
        assert self.generator is not None, "a training pass names its generator first"
        kept = torch.rand(x.shape, generator=self.generator) >= self.share
        return x * kept.to(x.device, x.dtype) / (1.0 - self.share)


class Mlp(nn.Module):
    """Two layers with ELU, dropout between them, and batch normalisation (NRI, Kipf et al. 2018, appendix).

    ELU and the normalisation have a second purpose here: units cannot die, which is one way in which an encoder comes
    to predict the same type everywhere.
    """

    def __init__(self, inputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = Linear(inputs, hidden)
        self.rest = _Rest(hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, inputs] -> [rows, H]."""
        return self.rest(self.first(x))


class PairMlp(nn.Module):
    """An :class:`Mlp` on [sender, receiver, what the edge knew before].

    The first layer is linear in each part, so entities are projected before they are gathered: N products instead of
    N^2.
    """

    def __init__(self, inputs: int, skip: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.sender = Linear(inputs, hidden, bias=False)
        self.receiver = Linear(inputs, hidden)
        self.skip = Linear(skip, hidden, bias=False) if skip else None
        self.rest = _Rest(hidden, dropout)

    def forward(self, entities: Tensor, graph: MegaGraph, skip: Tensor | None = None) -> Tensor:
        """[V, inputs] entities, [E, skip] edges -> [E, H]."""
        x = self.sender(entities)[graph.sender] + self.receiver(entities)[graph.receiver]
        if self.skip is not None:
            assert skip is not None
            x = x + self.skip(skip)
        return self.rest(x)


class _Rest(nn.Module):
    """What follows the first linear layer."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.second = Linear(hidden, hidden)
        self.normalise = BatchNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(functional.elu(self.second(self.dropout(functional.elu(x)))))


class Rounds(nn.Module):
    """The second round: edges -> entities -> edges, then logits of the edges' and of the entities' types."""

    def __init__(self, hidden: int, edge_types: int, node_types: int, dropout: float) -> None:
        super().__init__()
        self.entity = Mlp(hidden, hidden, dropout)
        self.pair = PairMlp(hidden, hidden, hidden, dropout)
        self.edge_logits = Linear(hidden, edge_types)
        self.node_logits = Linear(hidden, node_types) if node_types > 1 else None

    def forward(self, edges: Tensor, graph: MegaGraph) -> tuple[Tensor, Tensor]:
        """[E, H] -> [E, K], [V, M]."""
        entities = self.entity(incoming_mean(edges, graph))
        logits = self.edge_logits(self.pair(entities, graph, edges))
        if self.node_logits is None:
            return logits, logits.new_zeros(graph.nodes, 1)
        return logits, self.node_logits(entities)


def incoming_mean(edges: Tensor, graph: MegaGraph) -> Tensor:
    """[V, H]: mean of the values [E, H] of each entity's incoming edges, 0 where there are none."""
    sums = torch.segment_reduce(edges, "sum", offsets=graph.in_offset, axis=0, initial=0)
    return sums / graph.in_offset.diff().clamp(min=1)[:, None]


def sequences(states: Tensor, graph: MegaGraph, steps: int, features: int) -> Tensor:
    """[V, T, D]: every entity's recorded steps, from flat states (each system's [T, N_b, D] behind the other)."""
    sizes = graph.node_offset.diff()
    first = torch.repeat_interleave(graph.node_offset[:-1], sizes)
    size = torch.repeat_interleave(sizes, sizes)
    entity = torch.arange(graph.nodes, device=states.device)
    row = (first * steps + entity - first)[:, None] + torch.arange(steps, device=states.device) * size[:, None]
    return states.view(-1, features)[row]
