"""Bounces: one search move for a batch of systems, and the gradient of the structures that it settled on.

Each bounce is a function of (modules, batch, structures, schedule) that returns what the trainer needs for its gradient
step. Structures live in the trainer's arrays; a bounce updates them in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.modules import ModuleLibrary
from nri_fast.system_set import Batch


@dataclass(frozen=True)
class BounceResult:
    """What a bounce found.

    Attributes
    ----------
    loss : Tensor
        Mean energy over the batch, as weighed by the bounce.
    gradient : Tensor
        [P] gradient of the loss in the flat parameters.
    temperature : float
        That the bounce ran at, in the units of the energy.
    counts : Tensor or None
        [B, 4] Metropolis counts (:data:`nri_fast.ops.COUNTS`).
    """

    loss: Tensor
    gradient: Tensor
    temperature: float
    counts: Tensor | None = None


@dataclass
class Structures:
    """Types of every edge and entity of the data set, flat uint8."""

    edge_types: Tensor
    node_types: Tensor

    @classmethod
    def zeros(cls, edges: int, nodes: int, device: torch.device) -> Structures:
        """All of type 0."""
        return cls(
            torch.zeros(edges, dtype=torch.uint8, device=device), torch.zeros(nodes, dtype=torch.uint8, device=device)
        )


def heat_bath_bounce(
    parameters: Tensor,
    batch: Batch,
    structures: Structures,
    rows: HeatBathRows,
    draws: ops.Draws,
    temperature_factor: float,
    sample: bool,
) -> BounceResult:
    """Scores every assignment and weighs them all by their responsibility, or draws one of them (`sample`).

    The gradient is that of the responsibility-weighted mean score; of the drawn assignment's score with `sample`.
    """
    scores = rows.scores(parameters)
    temperature = temperature_factor * rows.spread(scores) + 1e-9
    if sample:
        drawn = structures.edge_types[batch.edges]
        rows.sample(scores, temperature, draws, drawn)
        structures.edge_types[batch.edges] = drawn
        weights = rows.indicator(drawn)
    else:
        weights = rows.responsibilities(scores, temperature)
        if rows.conditionals:  # the next bounce's rows hold the other edges at their likeliest types
            structures.edge_types[batch.edges] = rows.likeliest(weights)[0]
    weights = weights / rows.terms
    loss = torch.where(weights > 0, weights * scores, torch.zeros_like(scores)).sum()
    if float(weights.sum()) < 0.999:  # somewhere no alternative has a finite score: the modules have diverged
        loss = torch.full_like(loss, torch.nan)
    return BounceResult(loss, rows.gradient(parameters, weights), temperature)


def metropolis_bounce(
    library: ModuleLibrary,
    parameters: Tensor,
    batch: Batch,
    structures: Structures,
    steps: int,
    rollout: int,
    error: ops.ErrorMeasure,
    draws: list[ops.Draws],
    temperature: Tensor,
) -> BounceResult:
    """The paper's bounce: for each of `draws`, one proposal per system, accepted or rejected by its roll-out energy.

    The gradient is that of the mean energy of the structures kept.
    """
    graph, nodes_vary = batch.graph, library.node_types > 1
    edge_types = structures.edge_types[batch.edges]
    node_types = structures.node_types[batch.nodes] if nodes_vary else None
    counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64, device=graph.device)
    energy = ops.rollout_energy(
        library, parameters, graph, batch.states, steps, edge_types[None], node_types, rollout, error
    )[0]
    for draw in draws:
        edges, nodes = ops.metropolis_propose(
            graph, draw, library.edge_types, library.node_types, edge_types, node_types
        )
        proposed = ops.rollout_energy(
            library, parameters, graph, batch.states, steps, edges[None], nodes, rollout, error
        )[0]
        ops.metropolis_decide(graph, draw, temperature, proposed, edges, nodes, energy, edge_types, node_types, counts)
    structures.edge_types[batch.edges] = edge_types
    if node_types is not None:
        structures.node_types[batch.nodes] = node_types
    # Systems whose energy is not finite take no part in the gradient.
    finite = torch.isfinite(energy)
    cotangent = finite.to(energy.dtype) / graph.systems
    _, gradient, _ = ops.rollout_gradient(
        library, parameters, graph, batch.states, steps, edge_types, node_types, rollout, error, cotangent
    )
    loss = torch.where(finite, energy, torch.zeros_like(energy)).sum() / graph.systems
    if not bool(finite.any()):  # nothing is left to learn from: the modules have diverged
        loss = torch.full_like(loss, torch.nan)
    return BounceResult(loss, gradient, float(temperature), counts)
