"""Proposal networks and proposers as a run's settings ask for them."""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.energies import LARGEST_BLOCK, all_transitions, largest_block
from nri_fast.heat_bath_rows import HeatBathRows, compared_share, likelihood_units
from nri_fast.modules import ModuleLibrary
from nri_fast.proposals.imitation import Imitation, fresh_weights
from nri_fast.proposals.network import ProposalNetwork, Table
from nri_fast.proposals.proposers import InTurn, Proposer, RandomProposer, StructureProposer, TableProposer
from nri_fast.rollouts import Rollouts
from nri_fast.settings import Settings
from nri_fast.system_set import SystemSet


def make_imitation(settings: Settings, library: ModuleLibrary, systems: SystemSet, seed: int) -> Imitation | None:
    """The network that the settings ask for, with fresh weights, and its training; None if they ask for none."""
    if settings.network == "none":
        return None
    network = ProposalNetwork(
        settings.network,
        library.features,
        library.edge_types,
        library.node_types,
        systems.steps,
        settings.network_hidden,
        settings.network_dropout,
        step_change_scale(systems),
        systems.present is not None,
    )
    fresh_weights(network, seed)
    network.to(systems.states.device)
    return Imitation(network, settings.network_rate, settings.network_optimiser, seed, settings.undirected)


def make_proposer(
    settings: Settings,
    network: ProposalNetwork | None,
    rollouts: Rollouts,
    edge_types: Tensor,
    node_types: Tensor,
    factor: float,
) -> Proposer:
    """What proposes for one bounce of training.

    Learned proposals take turns with random ones, unless the paper's plain rule is asked for: a network that has
    learned the structures of a few systems by heart proposes nothing else, and the search would stand still.

    Parameters
    ----------
    settings : Settings
        `proposal` and `proposal_source`.
    network : ProposalNetwork or None
        As it is at this moment.
    rollouts : Rollouts
        Of the bounce; the heat bath scores with its modules and recordings.
    edge_types, node_types : Tensor
        [batch edges], [batch nodes] uint8: structures at the start of the bounce.
    factor : float
        The heat bath's temperature in units of the spread of a receiver's scores.
    """
    batch, graph, reverse = rollouts.batch, rollouts.graph, rollouts.reverse
    random = RandomProposer(graph, rollouts.library.edge_types, rollouts.library.node_types, reverse)
    if settings.proposal == "random":
        return random
    tables: list[Table] = []
    if settings.proposal_source != "network":
        tables.append(heat_bath_table(rollouts, edge_types, node_types, factor))
    if settings.proposal_source != "heat_bath":
        assert network is not None
        if network.states is not None:
            seen = network.state_table(batch, rollouts.steps)
            tables.append(seen.tied(batch.graph, rollouts.coupling))
    proposers: list[Proposer] = [] if settings.rule == "plain" else [random]
    if tables:
        table = tables[0] if len(tables) == 1 else tables[0].mixed(tables[1])
        proposers.append(TableProposer(graph, table.of_structures(rollouts), settings.proposal, reverse))
    if settings.proposal_source != "heat_bath" and network is not None and network.structures is not None:
        proposers.append(StructureProposer(graph, network, settings.proposal, reverse))
    return proposers[0] if len(proposers) == 1 else InTurn(tuple(proposers))


def heat_bath_table(rollouts: Rollouts, edge_types: Tensor, node_types: Tensor, factor: float | None = None) -> Table:
    """[batch edges, K], [batch nodes, M]: marginals of the one-step heat bath on all transitions.

    They obey the roll-outs' coupling.

    Their temperature is `factor` times the spread of a receiver's scores, as in a heat-bath bounce: modules that have
    learned nothing yet would be far too sure in likelihood units. None: likelihood units, for trained modules.

    Where an entity has too many incoming edges to weigh their types jointly, an edge's probabilities are conditional on
    everything else being as in `edge_types` and `node_types`: a chain that keeps using the table draws from a fixed
    distribution, and its acceptance stays right.
    """
    library, parameters, batch = rollouts.library, rollouts.parameters, rollouts.batch
    steps, error, coupling = rollouts.steps, rollouts.error, rollouts.coupling
    recordings = len(batch.systems) if coupling.shared else 1
    start = all_transitions(batch.graph, steps)
    if largest_block(batch.graph, library.edge_types) <= LARGEST_BLOCK:
        rows = HeatBathRows(library, batch, steps, start, error)
        scores = rows.evidence(rows.scores(parameters))
        if factor is None:
            scores = coupling.scores(batch.graph, rows.in_likelihood_units(scores))
            weights = coupling.weights(rows, scores, 1.0 / recordings)
        else:
            scores = coupling.scores(batch.graph, scores)
            weights = coupling.weights(rows, scores, factor * rows.spread(scores) + 1e-9)
        edges = coupling.agreed(batch.graph, rows.edge_probabilities(weights))
        return Table.of_probabilities(edges, rows.node_probabilities(weights))
    graph, types = batch.graph, library.edge_types
    layout = ops.RowLayout.conditionals(graph, types)
    nodes = node_types if library.node_types > 1 else None
    problem = ops.HeatBathProblem(
        *(library, graph, batch.states, steps, start, layout, error, nodes, edge_types),
        present=batch.present,
        step_scale=batch.step_scale,
    )
    owner = torch.arange(graph.edges, device=graph.device).repeat_interleave(types)
    offset = torch.arange(graph.edges + 1, device=graph.device) * types
    share = compared_share(problem)
    into = None if share is None else share[graph.receiver]
    scores = problem.scores(parameters)
    temperature: float | Tensor = 1.0
    if into is not None:
        scores = scores * into[owner]
    if factor is None:
        scores = likelihood_units(problem, scores, owner, graph.edges, into) * recordings
    scores = coupling.pair_scores(graph, scores.view(-1, types)).flatten()
    if factor is not None:
        temperature = factor * scores.view(-1, types).double().std(-1).nanmean() + 1e-9
    probabilities = ops.responsibilities(offset, scores, temperature).view(-1, types)
    even = probabilities.new_full((graph.nodes, library.node_types), 1.0 / library.node_types)
    return Table.of_probabilities(probabilities, even)


def step_change_scale(systems: SystemSet) -> Tensor:
    """[D] root mean square of one step's change over all systems, 1 for a feature that never changes."""
    squares = torch.zeros(systems.features, dtype=torch.float64, device=systems.states.device)
    count = 0
    for change in systems.changes():
        squares += (change**2).sum(0)
        count += len(change)
    scale = (squares / count).sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale)).to(systems.states.dtype)
