"""Structures of new systems by chains on roll-out energies that propose what a network or the heat bath predicts."""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.couplings import UNTIED, Coupling
from nri_fast.found import Found
from nri_fast.modules import ModuleLibrary
from nri_fast.proposals.chains import Chains
from nri_fast.proposals.network import Table
from nri_fast.proposals.proposers import InTurn, Proposer, RandomProposer, TableProposer
from nri_fast.rollouts import Rollouts
from nri_fast.search import Descent, batches, places_of
from nri_fast.shared_rollouts import tied_rollouts
from nri_fast.system_set import SystemSet

SWEEPS = 3  # proposals for every place that can change, for each chain
FIRST_TEMPERATURE = 1e-3  # in units of the start's energy: a good start is not to be forgotten
COOLING = 1e-3  # over the whole search
RUNG = 3.0  # between the temperatures of neighbouring chains


def chain_search(
    library: ModuleLibrary,
    systems: SystemSet,
    error: ops.ErrorMeasure,
    rollout: int,
    guess: Table,
    chains: int = 1,
    seed: int = 0,
    progress: bool = False,
    coupling: Coupling = UNTIED,
) -> Found:
    """Chains from the likeliest structures of a table, with proposals from the table and random ones in turn.

    Proposals redraw all incoming edges of an entity, one edge, and a random edge, in turn, accepted by roll-out energy
    after Metropolis and Hastings. Temperatures fall geometrically; several chains of a system stand at temperatures a
    factor of 3 apart and exchange structures. The best structure that any of them has held is then improved by single
    changes, as long as one lowers its energy, and gives the conditional probabilities of
    :func:`nri_fast.search.metropolis_search`.

    Parameters
    ----------
    library : ModuleLibrary
        Fixed modules.
    systems : SystemSet
        Systems to search, in normalised units.
    error : ErrorMeasure
        As in training.
    rollout : int
        Steps that a roll-out takes between recorded states (R).
    guess : Table
        Of all systems: a network's (:func:`nri_fast.proposals.predict`), the heat bath's, or a mixture of both.
    chains : int
        Chains per system.
    seed : int
        Names the random draws.
    progress : bool
        Show a progress bar.
    coupling : Coupling, optional
        What structures obey, the table included (:meth:`Table.tied`); nothing if not given.
    """
    if chains < 1:
        raise ValueError(f"chains: expected at least 1, got {chains}")
    found = Found.empty(library, systems)
    with ops.one_torch_thread(), torch.no_grad():
        parameters = library.flat_parameters()
        for batch in batches(library, systems, progress, coupling.shared):
            rollouts = tied_rollouts(library, parameters, batch, systems.steps, rollout, error, coupling)
            best = _best(rollouts, guess.of(batch).of_structures(rollouts), chains, seed)
            end = Descent(rollouts, seed, *best)
            end.descend()
            end.put(found)
    return found


def _best(rollouts: Rollouts, table: Table, chains: int, seed: int) -> tuple[Tensor, Tensor]:
    graph, library, reverse = rollouts.graph, rollouts.library, rollouts.reverse
    edges, nodes = table.likeliest()
    nodes = nodes if library.node_types > 1 else torch.zeros(graph.nodes, dtype=torch.uint8, device=graph.device)
    proposer: Proposer = InTurn(
        (
            TableProposer(graph, table, "node", reverse),
            TableProposer(graph, table, "edge", reverse),
            RandomProposer(graph, library.edge_types, library.node_types, reverse),
        )
    )
    unit = None
    if rollouts.error.scale_squared is None:  # robust energies are logarithms: they have no unit
        start = rollouts.energies(edges, nodes)
        unit = torch.where(torch.isfinite(start), start, torch.ones_like(start)).clamp(
            min=torch.finfo(start.dtype).tiny
        )
    side_by_side = Chains(rollouts, proposer, edges.expand(chains, -1), nodes.expand(chains, -1), seed, unit)
    steps = SWEEPS * places_of(rollouts)
    coldest = [FIRST_TEMPERATURE * COOLING ** (step / steps) for step in range(steps)]
    side_by_side.run(0, [[cold * RUNG**c for c in range(chains)] for cold in coldest])
    return side_by_side.best_edge_types, side_by_side.best_node_types
