"""Whether two ways of computing energies decide alike: on the same proposals, with the same random numbers.

A decision that would come out otherwise if the proposal's energy changed by a little is a near-tie. Energies that are
rounded differently may decide near-ties differently, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bench.anneal import Chain
from nri_fast import ops
from nri_fast.graph import MegaGraph

NEAR = 1e-5  # of the proposal's energy

Energies = Callable[[Tensor], Tensor]  # of a structure [edges], [systems], on any device


@dataclass
class Agreement:
    """What two ways came to.

    Attributes
    ----------
    decisions, differing, near_ties, differing_near_ties : int
        How many there were; decided differently; near-ties of the first way; and both.
    largest_difference : float
        Of energies, as a share of the energy.
    """

    decisions: int = 0
    differing: int = 0
    near_ties: int = 0
    differing_near_ties: int = 0
    largest_difference: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """As a result file holds it."""
        return asdict(self) | {"largest_difference": float(f"{self.largest_difference:.3g}")}


def accepted(graph: MegaGraph, draws: ops.Draws, temperature: Tensor, current: Tensor, proposed: Tensor) -> Tensor:
    """[systems] bool: what the kernels decide. Nothing is changed."""
    counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64, device=graph.device)
    types = torch.zeros(graph.edges, dtype=torch.uint8, device=graph.device)
    ops.metropolis_decide(
        graph, draws, temperature, proposed, types, None, current.clone(), types.clone(), None, counts
    )
    return counts[:, 1] > 0


def near_ties(graph: MegaGraph, draws: ops.Draws, temperature: Tensor, current: Tensor, proposed: Tensor) -> Tensor:
    """[systems] bool: decisions that a change of :data:`NEAR` in the proposal's energy turns."""
    little = NEAR * proposed.abs()
    lower, higher = (accepted(graph, draws, temperature, current, proposed + x) for x in (-little, little))
    return lower != higher


def agreement(chain: Chain, other: Energies, sweeps: int) -> Agreement:
    """Runs a chain on its own energies and asks at every step how another way would have decided.

    Parameters
    ----------
    chain : Chain
        Its energies are the first way's. It ends where its own decisions lead.
    other : callable
        The second way.
    sweeps : int
    """
    found, graph, device = Agreement(), chain.problem.graph, chain.energy.device
    warm = chain.temperature[0].to(chain.energy.dtype)
    theirs = other(chain.types).to(device)
    for _ in range(sweeps):
        proposed, draws = chain.propose(), chain.draws()
        ours_proposed, theirs_proposed = chain.energies(proposed), other(proposed).to(device)
        ours = accepted(graph, draws, warm, chain.energy, ours_proposed)
        differing = ours != accepted(graph, draws, warm, theirs, theirs_proposed)
        close = near_ties(graph, draws, warm, chain.energy, ours_proposed)
        found.decisions += graph.systems
        found.differing += int(differing.sum())
        found.near_ties += int(close.sum())
        found.differing_near_ties += int((differing & close).sum())
        share = (ours_proposed - theirs_proposed).abs() / ours_proposed.abs()
        found.largest_difference = max(found.largest_difference, float(share.max()))
        chain.decide(ours_proposed, proposed)
        theirs = torch.where(ours, theirs_proposed, theirs)
    return found
