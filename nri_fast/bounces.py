"""Bounces: one search move for a batch of systems, and the gradient of the structures that it settled on.

Each bounce is a function of (modules, batch, structures, schedule) that returns what the trainer needs for its gradient
step. Structures live in the trainer's arrays; a bounce updates them in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.couplings import Coupling
from nri_fast.graph import MegaGraph
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.proposals.one_by_one import one_by_one
from nri_fast.proposals.proposers import Proposer, RandomProposer
from nri_fast.rollouts import Rollouts, finite_mean
from nri_fast.schedule import AcceptanceTemperature
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
    temperature : Tensor
        One number: that the bounce ran at, in the units of the energy.
    counts : Tensor or None
        [B, 4] Metropolis counts (:data:`nri_fast.ops.COUNTS`).
    """

    loss: Tensor
    gradient: Tensor
    temperature: Tensor
    counts: Tensor | None = None


@dataclass
class Structures:
    """What is known of the structure of every system of the data set.

    Attributes
    ----------
    edge_types, node_types : Tensor
        [E], [V] uint8 types.
    beliefs : Tensor
        [E, K] float32: how much each type of an edge weighs, where a heat bath does not free it.
    """

    edge_types: Tensor
    node_types: Tensor
    beliefs: Tensor

    @classmethod
    def zeros(cls, graph: MegaGraph, types: int) -> Structures:
        """Type 0 everywhere, and nothing believed."""
        edge_types = torch.zeros(graph.edges, dtype=torch.uint8, device=graph.device)
        return cls.undecided(edge_types, edge_types.new_zeros(graph.nodes), types)

    @classmethod
    def undecided(cls, edge_types: Tensor, node_types: Tensor, types: int) -> Structures:
        """Types to start from, and beliefs that favour none."""
        return cls(edge_types, node_types, torch.full((len(edge_types), types), 1.0 / types, device=edge_types.device))

    @classmethod
    def settled(cls, edge_types: Tensor, node_types: Tensor, types: int) -> Structures:
        """Types that are believed in."""
        return cls(edge_types, node_types, torch.nn.functional.one_hot(edge_types.long(), types).float())

    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A batch's types."""
        return self.edge_types[batch.edges], self.node_types[batch.nodes]

    def held(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """A batch's types, as its roll-outs take them."""
        return rollouts.of_structures(*self.of(rollouts.batch))

    def hold(self, rollouts: Rollouts, edge_types: Tensor, node_types: Tensor) -> None:
        """Writes them back; a structure that all systems share, to all of them, whatever the batch."""
        if rollouts.coupling.shared:
            self.edge_types.view(-1, len(edge_types)).copy_(edge_types.expand(1, -1))
            self.node_types.view(-1, len(node_types)).copy_(node_types.expand(1, -1))
            return
        self.edge_types[rollouts.batch.edges] = edge_types
        self.node_types[rollouts.batch.nodes] = node_types


def heat_bath_bounce(
    parameters: Tensor,
    batch: Batch,
    structures: Structures,
    rows: HeatBathRows,
    coupling: Coupling,
    draws: ops.Draws,
    temperature_factor: float,
    sample: bool,
) -> BounceResult:
    """Scores every assignment of the free edges, weighs them, and draws one of them for every receiver.

    The gradient is that of the weighted mean score; of the drawn assignment's score with `sample`. The weights'
    marginals are what later bounces hold edges at, where they free some only.
    """
    scores = rows.scores(parameters, keep=True)
    weighed = coupling.scores(rows.graph, rows.evidence(scores))
    temperature = temperature_factor * rows.spread(weighed) + 1e-9
    weights = coupling.weights(rows, weighed, temperature)
    edge_types, node_types = structures.of(batch)
    coupling.draw(rows, weights, draws, edge_types, node_types)
    structures.edge_types[batch.edges], structures.node_types[batch.nodes] = edge_types, node_types
    if sample:
        weights = rows.indicator(edge_types, node_types)
    structures.beliefs[batch.edges] = coupling.agreed(batch.graph, rows.edge_probabilities(weights)).float()
    weights = rows.mean_weights(weights)
    loss = torch.where(weights > 0, weights * scores, torch.zeros_like(scores)).sum()
    # Where no alternative has a finite score the modules have diverged.
    loss = torch.where(weights.sum() < 0.999, torch.nan, loss)
    return BounceResult(loss, rows.gradient(parameters, weights), temperature)


def metropolis_bounce(
    rollouts: Rollouts,
    structures: Structures,
    draws: ops.Draws,
    proposals: int,
    temperature: Tensor | None = None,
    acceptance: AcceptanceTemperature | None = None,
    proposer: Proposer | None = None,
    hastings: bool = True,
) -> BounceResult:
    """The paper's bounce: so many proposals per system, each accepted or rejected by its roll-out energy.

    `draws` name the first proposal; those that follow have the next steps. The temperature is one float64 in a tensor,
    or that of `acceptance`, which takes the counts. By default proposals are random changes. With `hastings`,
    acceptance carries how likely a proposal is there and back, so that the chain samples; without it, it is the paper's
    plain rule. The gradient is that of the mean energy of the structures kept. Where the roll-outs' coupling says so, a
    proposal changes both directions of a pair, or the one structure that all recordings then judge together.
    """
    graph, library = rollouts.graph, rollouts.library
    proposer = proposer or RandomProposer(graph, library.edge_types, library.node_types, rollouts.reverse)
    edge_types, node_types = structures.held(rollouts)
    counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64, device=graph.device)
    held = acceptance.state[:1].clone() if temperature is None and acceptance is not None else temperature
    assert held is not None
    if proposals == 1 and rollouts.can_choose:
        energy, gradient = _choose(rollouts, draws, held, proposer, hastings, edge_types, node_types, counts)
        if acceptance is not None:
            acceptance.take(counts)
        structures.hold(rollouts, edge_types, node_types)
        return BounceResult(finite_mean(energy), gradient, held, counts)
    energy = rollouts.energies(edge_types, node_types)
    sources = proposer.sources() if rollouts.runs_natively else None
    if sources is not None:
        nodes = node_types[None] if library.node_types > 1 else None
        chain = ops.ChainArrays(energy[None], edge_types[None], nodes, counts[None])
        if acceptance is None:
            rollouts.run(draws, sources, chain, held.expand(proposals, 1).contiguous(), hastings=hastings)
        else:
            rollouts.run(draws, sources, chain, acceptance=acceptance.state, sweeps=proposals, hastings=hastings)
    else:
        warm = [held] * proposals
        one_by_one(rollouts, proposer, draws, warm, hastings, energy, edge_types, node_types, counts)
        if acceptance is not None:
            acceptance.take(counts)
    structures.hold(rollouts, edge_types, node_types)
    loss, gradient = rollouts.mean_gradient(edge_types, node_types, energy)
    return BounceResult(loss, gradient, held, counts)


def _choose(
    rollouts: Rollouts,
    draws: ops.Draws,
    temperature: Tensor,
    proposer: Proposer,
    hastings: bool,
    edge_types: Tensor,
    node_types: Tensor,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    """One proposal, decided on and learned from in one pass: [B] energies and [P] gradient; types change in place."""
    edges, nodes, log_ratio = proposer.propose(draws, edge_types, node_types)
    warm, ratio = temperature.to(rollouts.batch.states.dtype), log_ratio if hastings else None
    both = torch.stack([edge_types, edges]), torch.stack([node_types, nodes])
    (energy, proposed), gradient = rollouts.choose(*both, draws, warm, ratio)
    ops.metropolis_decide(
        rollouts.batch.graph, draws, warm, proposed, edges, nodes, energy, edge_types, node_types, counts, ratio
    )
    return energy, gradient


def polish_bounce(rollouts: Rollouts, structures: Structures) -> BounceResult:
    """No search: the gradient of the mean roll-out energy of the structures as they are."""
    return BounceResult(*rollouts.mean_gradient(*structures.of(rollouts.batch)), torch.zeros(1))
