"""The alternatives that a heat-bath move weighs, their scores, and what their weights say about edges and entities."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.graph import MegaGraph, to_device
from nri_fast.modules import ModuleLibrary
from nri_fast.presence import compared_transitions
from nri_fast.system_set import Batch


@dataclass(frozen=True)
class ReceiverGroup:
    """Receivers with the same number f of free incoming edges, and so with the same table of rows.

    Attributes
    ----------
    receivers : Tensor
        [n] int64 entities.
    edges : Tensor
        [n, f] int64: the free edges of each, in the graph's order.
    rows : Tensor
        [n, R] int64: the rows of each.
    rows_of_type : Tensor
        [f, K, R / K] int64: which of a receiver's rows give its p-th free edge the type k.
    gives_type : Tensor
        [f, K, R] float64: one where they do.
    """

    receivers: Tensor
    edges: Tensor
    rows: Tensor
    rows_of_type: Tensor
    gives_type: Tensor


class HeatBathRows:
    """Rows of one batch: every assignment of a receiver's free incoming edges.

    With several node types, a receiver's rows run over its own types too, the node type slowest.

    Parameters
    ----------
    library : ModuleLibrary
        The modules.
    batch : Batch
        The systems.
    steps : int
        Recorded steps per system.
    start : Tensor
        [B, L] int64: the transitions' first steps.
    error : ErrorMeasure
        How errors are measured.
    free : Tensor, optional
        [batch edges] bool: the edges whose types vary. All if not given. Best in host memory, where the rows are
        planned; a mask on a device makes the host wait for it.
    held_weight : Tensor, optional
        [batch edges, K] float32: how much each type counts in the message of an edge that does not vary. Needed with
        `free`.
    """

    def __init__(
        self,
        library: ModuleLibrary,
        batch: Batch,
        steps: int,
        start: Tensor,
        error: ops.ErrorMeasure,
        free: Tensor | None = None,
        held_weight: Tensor | None = None,
    ) -> None:
        graph = batch.graph
        self.edge_types, self.node_types, self.graph = library.edge_types, library.node_types, graph
        self._free, self._held_weight = None if free is None else free.cpu(), held_weight
        self.layout = ops.RowLayout.blocks(graph, library.edge_types, self._free)
        problem = ops.HeatBathProblem(
            *(library, graph, batch.states, steps, start, self.layout, error, None, None, held_weight),
            present=batch.present,
            step_scale=batch.step_scale,
        )
        self._problems = [problem]
        if library.node_types > 1:
            types = [
                torch.full((graph.nodes,), m, dtype=torch.uint8, device=graph.device) for m in range(self.node_types)
            ]
            self._problems = [dataclasses.replace(problem, node_types=t) for t in types]
        self.row_offset = self.layout.offset * self.node_types
        self._scored: Tensor | None = None  # the parameters under which `_kept` was filled
        self._kept: list[ops.Room | None] = [None] * len(self._problems)

    @property
    def rows(self) -> int:
        """How many there are, of all node types."""
        return self.layout.rows * self.node_types

    @cached_property
    def _place(self) -> Tensor:
        """[M, rows of one node type]: where the row stands among the rows of all node types."""
        offset = self.layout.offset
        rows = offset.diff()
        every = torch.arange(len(rows), device=offset.device)
        receiver = torch.repeat_interleave(every, rows, output_size=self.layout.rows)
        within = torch.arange(self.layout.rows, device=offset.device) - offset[receiver]
        first = offset[receiver] * self.node_types + within
        return torch.stack([first + m * rows[receiver] for m in range(self.node_types)])

    @cached_property
    def groups(self) -> list[ReceiverGroup]:
        """All receivers, those with equally many free edges together."""
        if self._free is None:
            return _groups_of_all(self.graph, self.edge_types, self.node_types)
        return receiver_groups(self.graph, self.edge_types, self.node_types, self._free)

    def scores(self, parameters: Tensor, keep: bool = False) -> Tensor:
        """[rows] scores; with `keep`, :meth:`gradient` under the same parameters need not run what they have run."""
        if keep:
            self._scored, self._kept = parameters, [problem.room(parameters) for problem in self._problems]
        rooms: list[ops.Room | None] = self._kept if keep else [None] * len(self._problems)
        scores = [p.scores(parameters, room) for p, room in zip(self._problems, rooms, strict=True)]
        if self.node_types == 1:
            return scores[0]
        joint = torch.empty(self.rows, dtype=scores[0].dtype, device=scores[0].device)
        for place, one in zip(self._place, scores, strict=True):
            joint[place] = one
        return joint

    def gradient(self, parameters: Tensor, weights: Tensor) -> Tensor:
        """[P] gradient of the weighted scores."""
        kept: list[ops.Room | None] = self._kept if parameters is self._scored else [None] * len(self._problems)
        if self.node_types == 1:
            return self._problems[0].gradient(parameters, weights, kept[0])
        each = zip(self._problems, self._place, kept, strict=True)
        return torch.stack([p.gradient(parameters, weights[place], room) for p, place, room in each]).sum(0)

    @cached_property
    def _receiver(self) -> Tensor:
        """[rows] whose each row is."""
        rows = self.row_offset.diff()
        every = torch.arange(len(rows), device=rows.device)
        return torch.repeat_interleave(every, rows, output_size=self.rows)

    @cached_property
    def _share(self) -> Tensor | None:
        return compared_share(self._problems[0])

    def evidence(self, scores: Tensor) -> Tensor:
        """[rows] scores as far as they tell structures apart: of every transition, compared or not.

        A receiver that is compared in half of the transitions says half as much: energies are sums of these.
        """
        return scores if self._share is None else scores * self._share[self._receiver]

    def mean_weights(self, weights: Tensor) -> Tensor:
        """[rows] `weights`, one for each receiver together, as they make up a mean over all that is compared."""
        if self._share is None:
            return weights / self.graph.nodes
        return weights * (self._share / self._share.sum())[self._receiver]

    def spread(self, scores: Tensor) -> Tensor:
        """[] float64: mean over receivers of the standard deviation of their scores, the unit of temperatures."""
        share = self._share
        tables = []
        for group in self.groups:
            if group.rows.shape[1] > 1:
                table = scores[group.rows].double().std(-1)
                # A receiver that nothing was compared for has no spread.
                tables.append(table if share is None else table.masked_fill(share[group.receivers] == 0, torch.nan))
        if not tables:
            return torch.zeros((), dtype=torch.float64, device=scores.device)
        return torch.cat(tables).nanmean()

    def responsibilities(self, scores: Tensor, temperature: float | Tensor) -> Tensor:
        """[rows] softmax(-scores / temperature) of each receiver's rows."""
        return ops.responsibilities(self.row_offset, scores, temperature)

    def in_likelihood_units(self, scores: Tensor) -> Tensor:
        """:meth:`evidence` as minus log-likelihoods of a receiver's transitions (see :func:`likelihood_units`)."""
        return likelihood_units(self._problems[0], scores, self._receiver, self.graph.nodes, self._share)

    def sample(
        self, scores: Tensor, temperature: float | Tensor, draws: ops.Draws, edge_types: Tensor, node_types: Tensor
    ) -> None:
        """Draws the free edges' and the entities' types, in place."""
        ops.heat_bath_sample(
            self.graph,
            draws,
            self.edge_types,
            self.layout,
            scores,
            temperature,
            edge_types,
            self.node_types,
            node_types,
        )

    def indicator(self, edge_types: Tensor, node_types: Tensor) -> Tensor:
        """[rows] one at each receiver's row that has these types."""
        assert self.layout.stride is not None
        weights = torch.zeros(self.rows, dtype=self._problems[0].states.dtype, device=self.graph.device)
        row = node_types.long() * self.layout.offset.diff() if self.node_types > 1 else self.row_offset.new_zeros(1)
        row = row.expand(self.graph.nodes).index_add(0, self.graph.receiver, edge_types.long() * self.layout.stride)
        weights[self.row_offset[:-1] + row] = 1.0
        return weights

    def edge_probabilities(self, weights: Tensor) -> Tensor:
        """[E, K] marginal probability of each edge's types; a held edge has its weights."""
        marginal = torch.zeros(self.graph.edges, self.edge_types, dtype=torch.float64, device=self.graph.device)
        if self._held_weight is not None:
            marginal.copy_(self._held_weight)
        for group in self.groups:
            weight = weights.double()[group.rows]
            marginal[group.edges] = weight[:, group.rows_of_type].sum(-1)
        return marginal.to(weights.dtype)

    def node_probabilities(self, weights: Tensor) -> Tensor:
        """[V, M] marginal probability of each entity's types."""
        if self.node_types == 1:
            return torch.ones(self.graph.nodes, 1, dtype=weights.dtype, device=weights.device)
        marginal = torch.empty(self.graph.nodes, self.node_types, dtype=torch.float64, device=weights.device)
        for group in self.groups:
            weight = weights.double()[group.rows]
            marginal[group.receivers] = weight.view(len(weight), self.node_types, -1).sum(-1)
        return marginal.to(weights.dtype)


def receiver_groups(graph: MegaGraph, edge_types: int, node_types: int, free: Tensor) -> list[ReceiverGroup]:
    """All receivers of a graph, those with equally many free incoming edges together.

    `free` ([E] bool) lies in host memory, where the groups are made; they go to the graph's device.
    """
    host = graph.host
    edges = free.nonzero().flatten()
    count = torch.zeros(graph.nodes, dtype=torch.int64).index_add(0, host.receiver[edges], torch.ones_like(edges))
    first = count.cumsum(0) - count
    rows = node_types * edge_types**count
    row_offset = rows.cumsum(0) - rows
    groups = []
    for f in count.unique().tolist():
        receivers = (count == f).nonzero().flatten()
        size = node_types * edge_types**f
        row, place = torch.arange(size), torch.arange(f)
        types = row[:, None] // edge_types ** (f - 1 - place) % edge_types  # [R, f]
        gives = types.T[:, None, :] == torch.arange(edge_types)[:, None]  # [f, K, R]
        tables = (
            receivers,
            edges[first[receivers][:, None] + place],
            row_offset[receivers][:, None] + row,
            gives.nonzero()[:, 2].view(f, edge_types, size // edge_types),
            gives.double(),
        )
        groups.append(ReceiverGroup(*(to_device(table, graph.device) for table in tables)))
    return groups


@lru_cache(maxsize=4)
def _groups_of_all(graph: MegaGraph, edge_types: int, node_types: int) -> list[ReceiverGroup]:
    """The groups if every edge is free: the same in every step whose batch has the same graph."""
    return receiver_groups(graph, edge_types, node_types, torch.ones(graph.edges, dtype=torch.bool))


def compared_share(problem: ops.HeatBathProblem) -> Tensor | None:
    """[nodes] share of its system's transitions in which each receiver is compared; None: all of them."""
    if problem.present is None:
        return None
    counts = compared_transitions(problem.graph, problem.present, problem.steps, problem.start)
    return counts.to(problem.states.dtype) / problem.start.shape[1]


def likelihood_units(
    problem: ops.HeatBathProblem, scores: Tensor, owner: Tensor, owners: int, share: Tensor | None
) -> Tensor:
    """Evidence as minus log-likelihoods of the scored transitions (L of them, D features that count in each).

    Robust: every transition has an unknown variance of its own, integrated out, which gives the likelihood
    ``prod (s^2 + e)^(-D / 2)``. Squared: Gaussian errors, their variance the mean error of the best of the rows that
    have the same `owner` ([rows] int64, 0 to `owners` - 1).

    Parameters
    ----------
    problem : HeatBathProblem
        What was scored.
    scores : Tensor
        [rows] evidence: scores times the share of the transitions in which the owner is compared.
    owner, owners
        As above.
    share : Tensor or None
        [owners] that share; None: all 1.
    """
    features = int((problem.error.weight != 0).sum())
    scaled = scores * (0.5 * features * problem.start.shape[1])
    if problem.error.scale_squared is not None:
        return scaled
    lowest = torch.full((owners,), torch.inf, dtype=scores.dtype, device=scores.device)
    lowest = lowest.scatter_reduce(0, owner, scores.nan_to_num(torch.inf), "amin")
    if share is not None:
        lowest = torch.where(share > 0, lowest / share, lowest)
    return scaled / lowest.clamp(min=torch.finfo(scores.dtype).tiny)[owner]


def edges_in_block(edge_types: int, block: int) -> int:
    """The most edges, at least one, that have at most `block` assignments together."""
    most = 1
    while edge_types > 1 and edge_types ** (most + 1) <= block:
        most += 1
    return most


def random_free_edges(graph: MegaGraph, most: int, generator: np.random.Generator, undirected: bool) -> Tensor:
    """[E] bool, in host memory: some `most` of every receiver's incoming edges, drawn by the entities' numbers.

    Those are numbers within the system, so systems of one size have the same edges free, and what is free in a system
    does not depend on its batch.

    Parameters
    ----------
    graph : MegaGraph
        Who may act on whom.
    most : int
        Free edges per receiver.
    generator : numpy.random.Generator
        Decides.
    undirected : bool
        Both directions of a pair are free, or none is; some receivers have fewer free edges then.
    """
    graph = graph.host
    size = max(graph.sizes)
    table = generator.random((size, size))
    if undirected:
        table = np.minimum(table, table.T)
    keys = graph.flatten_types(torch.from_numpy(table).expand(graph.systems, -1, -1))
    order = keys.argsort(stable=True)
    order = order[graph.receiver[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(graph.edges) - graph.in_offset[graph.receiver[order]]
    free = rank < most
    if undirected:
        free &= free[graph.reverse] | (graph.reverse < 0)
    return free
