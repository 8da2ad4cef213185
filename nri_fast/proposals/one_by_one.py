"""Metropolis proposals one after the other, where a native run cannot make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from nri_fast import ops
from nri_fast.proposals.proposers import Proposer
from nri_fast.rollouts import Rollouts


def one_by_one(
    rollouts: Rollouts,
    proposer: Proposer,
    draws: ops.Draws,
    temperatures: Sequence[Tensor],
    hastings: bool,
    energy: Tensor,
    edge_types: Tensor,
    node_types: Tensor,
    counts: Tensor,
    unit: Tensor | None = None,
) -> None:
    """A proposal for every structure at each of the temperatures, accepted or rejected, in place.

    To the bit what :func:`nri_fast.ops.metropolis_run` makes of the same proposals.

    Parameters
    ----------
    rollouts, proposer
        Give energies and proposals.
    draws : Draws
        Of the first proposal; the others have the next steps.
    temperatures : sequence of Tensor
        One number each, in the units of the energy.
    hastings : bool
        Metropolis-Hastings, or the plain rule.
    energy : Tensor
        [structures] of those held, in those units.
    edge_types, node_types : Tensor
        Flat uint8 types of the structures held.
    counts : Tensor
        [structures, 4] int64 (:data:`nri_fast.ops.COUNTS`), added to.
    unit : Tensor, optional
        [structures] that energies are divided by.
    """
    for place, temperature in enumerate(temperatures):
        draw = replace(draws, step=draws.step + place)
        edges, nodes, log_ratio = proposer.propose(draw, edge_types, node_types)
        proposed = rollouts.energies(edges, nodes)
        ops.metropolis_decide(
            rollouts.graph,
            draw,
            temperature.to(energy.dtype),
            proposed if unit is None else proposed / unit,
            edges,
            nodes,
            energy,
            edge_types,
            node_types,
            counts,
            log_ratio if hastings else None,
        )
