"""The alternatives that a heat-bath move weighs, their scores, and what their weights say about edges and entities."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.energies import LARGEST_BLOCK, largest_block
from nri_fast.modules import ModuleLibrary
from nri_fast.system_set import Batch


class HeatBathRows:
    """Rows of one batch: every assignment of a receiver's incoming edges (blocks), or every type of one edge given the
    others (conditionals) where blocks are too large.

    With several node types, a receiver's rows run over its own types too, the node type slowest; blocks only.

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
    current : Tensor
        [batch edges] uint8 types that the other edges have, for conditionals.
    """

    def __init__(
        self,
        library: ModuleLibrary,
        batch: Batch,
        steps: int,
        start: Tensor,
        error: ops.ErrorMeasure,
        current: Tensor,
    ) -> None:
        graph = batch.graph
        self.edge_types, self.node_types, self.graph = library.edge_types, library.node_types, graph
        self.conditionals = largest_block(graph, library.edge_types) > LARGEST_BLOCK
        if self.conditionals and library.node_types > 1:
            raise ValueError(
                f"node_types: {library.node_types} with {largest_block(graph, library.edge_types)} assignments of an "
                f"entity's incoming edges; the heat bath handles one node type above {LARGEST_BLOCK}: use bounce "
                "'metropolis'"
            )
        offset = ops.row_offsets(graph, library.edge_types, self.conditionals)
        problem = ops.HeatBathProblem(
            library, graph, batch.states, steps, start, offset, error, None, current if self.conditionals else None
        )
        self._problems = [problem]
        if library.node_types > 1:
            types = [
                torch.full((graph.nodes,), m, dtype=torch.uint8, device=graph.device) for m in range(self.node_types)
            ]
            self._problems = [dataclasses.replace(problem, node_types=t) for t in types]
        self.row_offset = offset * self.node_types
        self._group = self.edge_types if self.conditionals else 0

    @property
    def terms(self) -> int:
        """Number of distributions that the weights consist of: receivers, or edges."""
        return self.graph.edges if self.conditionals else self.graph.nodes

    @cached_property
    def _place(self) -> Tensor:
        """[M, rows of one node type]: where the row stands among the rows of all node types."""
        offset = self._problems[0].row_offset
        rows = offset.diff()
        receiver = torch.repeat_interleave(torch.arange(len(rows), device=offset.device), rows)
        within = torch.arange(int(offset[-1]), device=offset.device) - offset[receiver]
        first = offset[receiver] * self.node_types + within
        return torch.stack([first + m * rows[receiver] for m in range(self.node_types)])

    def scores(self, parameters: Tensor) -> Tensor:
        """[rows] scores."""
        if self.node_types == 1:
            return self._problems[0].scores(parameters)
        scores = [problem.scores(parameters) for problem in self._problems]
        joint = torch.empty(int(self.row_offset[-1]), dtype=scores[0].dtype, device=scores[0].device)
        for place, one in zip(self._place, scores, strict=True):
            joint[place] = one
        return joint

    def gradient(self, parameters: Tensor, weights: Tensor) -> Tensor:
        """[P] gradient of the weighted scores."""
        if self.node_types == 1:
            return self._problems[0].gradient(parameters, weights)
        parts = [p.gradient(parameters, weights[place]) for p, place in zip(self._problems, self._place, strict=True)]
        return torch.stack(parts).sum(0)

    def spread(self, scores: Tensor) -> float:
        """Mean over receivers (edges) of the standard deviation of their scores: the unit of temperatures."""
        if self.conditionals:
            return float(scores.view(-1, self.edge_types).double().std(-1).nanmean())
        rows = self.row_offset.diff()
        receiver = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), rows)
        zero = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        mean = zero.index_add(0, receiver, scores.double()) / rows
        square = zero.index_add(0, receiver, (scores.double() - mean[receiver]) ** 2)
        spread = (square / (rows - 1).clamp(min=1)).sqrt()[rows > 1]
        return float(spread.nanmean()) if spread.numel() else 0.0

    def responsibilities(self, scores: Tensor, temperature: float) -> Tensor:
        """[rows] softmax(-scores / temperature) of each receiver's (each edge's) rows."""
        return ops.responsibilities(self.row_offset, scores, temperature, self._group)

    def in_likelihood_units(self, scores: Tensor) -> Tensor:
        """Scores as minus log-likelihoods of a receiver's scored transitions (L of them, D features each).

        Robust: every transition has an unknown variance of its own, integrated out, which gives the likelihood
        ``prod (s^2 + e)^(-D / 2)``. Squared: Gaussian errors, their variance the mean error of the receiver's best row.
        """
        problem = self._problems[0]
        scaled = scores * (0.5 * problem.library.features * problem.start.shape[1])
        if problem.error.scale_squared is not None:
            return scaled
        if self.conditionals:
            owner = torch.arange(self.graph.edges, device=scores.device).repeat_interleave(self.edge_types)
        else:
            rows = self.row_offset.diff()
            owner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), rows)
        lowest = torch.full((self.terms,), torch.inf, dtype=scores.dtype, device=scores.device)
        lowest = lowest.scatter_reduce(0, owner, scores.nan_to_num(torch.inf), "amin")
        return scaled / lowest.clamp(min=torch.finfo(scores.dtype).tiny)[owner]

    def sample(self, scores: Tensor, temperature: float, draws: ops.Draws, edge_types: Tensor) -> None:
        """Draws edge types in place. Handles one node type."""
        if self.node_types > 1:
            raise ValueError(f"node_types: {self.node_types}, but sampling handles one; use the soft heat bath")
        ops.heat_bath_sample(
            self.graph, draws, self.edge_types, self.conditionals, self.row_offset, scores, temperature, edge_types
        )

    def indicator(self, edge_types: Tensor) -> Tensor:
        """[rows] one at the row of each receiver (edge) that `edge_types` says, for one node type."""
        weights = torch.zeros(int(self.row_offset[-1]), dtype=self._problems[0].states.dtype, device=self.graph.device)
        if self.conditionals:
            weights.view(-1, self.edge_types).scatter_(1, edge_types.long()[:, None], 1.0)
            return weights
        row = torch.zeros_like(self.row_offset[:-1]).index_add(
            0, self.graph.receiver, edge_types.long() * self._digit_value
        )
        weights[self.row_offset[:-1] + row] = 1.0
        return weights

    @cached_property
    def _digit_value(self) -> Tensor:
        """[E] what one step of an edge's type adds to its receiver's row number."""
        graph = self.graph
        place = torch.arange(graph.edges, device=graph.device) - graph.in_offset[graph.receiver]
        later = graph.in_offset.diff()[graph.receiver] - 1 - place
        return torch.pow(torch.full_like(later, self.edge_types), later)

    def edge_probabilities(self, weights: Tensor) -> Tensor:
        """[E, K] marginal probability of each edge's types."""
        if self.conditionals:
            return weights.view(-1, self.edge_types)
        graph = self.graph
        rows = self.row_offset.diff()[graph.receiver]
        edge = torch.repeat_interleave(torch.arange(graph.edges, device=graph.device), rows)
        begins = rows.cumsum(0) - rows
        row = torch.arange(len(edge), device=graph.device) - begins[edge]
        types = row // self._digit_value[edge] % self.edge_types
        marginal = torch.zeros(graph.edges * self.edge_types, dtype=torch.float64, device=graph.device)
        marginal.index_add_(
            0, edge * self.edge_types + types, weights[self.row_offset[graph.receiver][edge] + row].double()
        )
        return marginal.view(-1, self.edge_types).to(weights.dtype)

    def node_probabilities(self, weights: Tensor) -> Tensor:
        """[V, M] marginal probability of each entity's types."""
        if self.node_types == 1:
            return torch.ones(self.graph.nodes, 1, dtype=weights.dtype, device=weights.device)
        receiver = torch.repeat_interleave(
            torch.arange(self.graph.nodes, device=weights.device), self._problems[0].row_offset.diff()
        )
        columns = [weights.new_zeros(self.graph.nodes).index_add(0, receiver, weights[p]) for p in self._place]
        return torch.stack(columns, -1)

    def likeliest(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """[E] and [V] uint8: the likeliest types by their marginals."""
        edges = self.edge_probabilities(weights).argmax(-1).to(torch.uint8)
        return edges, self.node_probabilities(weights).argmax(-1).to(torch.uint8)
