"""Many sweeps of Metropolis chains in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast import _core
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary
from nri_fast.ops.anneal import PROPOSALS
from nri_fast.ops.draws import Draws
from nri_fast.ops.place import address, on_device, place, scoring_place
from nri_fast.ops.rollouts import ErrorMeasure

MOST_SOURCES = 4  # kMostProposals in csrc/ops/metropolis_run.h


@dataclass(frozen=True)
class ProposalSource:
    """Where the proposals of a run come from. See ``csrc/ops/metropolis_run.h``.

    Attributes
    ----------
    kind : str or None
        One of :data:`PROPOSALS`, drawn from the probabilities; None: random changes.
    edge_types, node_types : int
        How many types there are.
    edge_probability, node_probability : Tensor or None
        [edges, K], [nodes, M] float64, as :func:`propose_from_table` takes them.
    reverse : Tensor or None
        [edges]: both directions of a pair change together (:attr:`MegaGraph.reverse`); None: each on its own.
    """

    kind: str | None
    edge_types: int
    node_types: int
    edge_probability: Tensor | None = None
    node_probability: Tensor | None = None
    reverse: Tensor | None = None

    @property
    def native(self) -> _core.ProposalSource:
        """What the kernels see."""
        return _core.ProposalSource(
            -1 if self.kind is None else PROPOSALS.index(self.kind),
            self.edge_types,
            1 if self.kind is not None and self.node_probability is None else self.node_types,
            address(self.edge_probability),
            address(self.node_probability),
            address(self.reverse),
        )


@dataclass(frozen=True)
class ChainArrays:
    """What a run of Metropolis chains changes in place.

    Attributes
    ----------
    energy : Tensor
        [chains, systems], in the run's units.
    edge_types : Tensor
        [chains, edges] uint8.
    node_types : Tensor or None
        [chains, nodes] uint8; None with one node type.
    counts : Tensor
        [chains, systems, 4] int64 (:data:`COUNTS`), added to.
    exchanged : Tensor or None
        [chains - 1] int64: swaps, added to.
    best_energy, best_edge_types, best_node_types : Tensor or None
        [systems], [edges], [nodes]: the structures of lowest energy that any chain of a system has held.
    """

    energy: Tensor
    edge_types: Tensor
    node_types: Tensor | None
    counts: Tensor
    exchanged: Tensor | None = None
    best_energy: Tensor | None = None
    best_edge_types: Tensor | None = None
    best_node_types: Tensor | None = None


def metropolis_run(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    states: Tensor,
    steps: int,
    rollout: int,
    error: ErrorMeasure,
    draws: Draws,
    sources: Sequence[ProposalSource],
    chains: ChainArrays,
    temperature: Tensor | None = None,
    sweeps: int | None = None,
    stride: int | None = None,
    hastings: bool = True,
    exchange: bool = False,
    unit: Tensor | None = None,
    acceptance: Tensor | None = None,
    epoch_is_sweep: bool = False,
    ceiling: float = math.inf,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> None:
    """Many sweeps of Metropolis chains in one call, without a word from the host in between.

    ``temperature`` [sweeps, chains] float64, or ``acceptance``, the state of
    :class:`nri_fast.schedule.AcceptanceTemperature`, and ``sweeps``. ``draws`` names those of the first sweep's first
    chain; ``stride`` steps lie between sweeps, as many as there are chains by default. ``unit`` [systems] divides
    energies. See ``csrc/ops/metropolis_run.h``.
    """
    count = chains.edge_types.shape[0]
    if temperature is not None:
        sweeps = temperature.shape[0]
    assert sweeps is not None
    assert (temperature is None) != (acceptance is None)
    assert 1 <= len(sources) <= MOST_SOURCES
    _core.metropolis_run(
        scoring_place(states),
        states.dtype == torch.float64,
        library.layout,
        address(parameters),
        graph.native,
        _core.Trajectories(steps, address(states), address(present), address(step_scale)),
        error.native,
        rollout,
        draws.seed,
        draws.step,
        address(draws.system_ids),
        sweeps,
        count,
        count if stride is None else stride,
        [source.native for source in sources],
        hastings,
        exchange,
        address(temperature),
        address(acceptance),
        epoch_is_sweep,
        ceiling,
        address(unit),
        address(chains.energy),
        address(chains.edge_types),
        address(chains.node_types),
        address(chains.counts),
        address(chains.exchanged),
        address(chains.best_energy),
        address(chains.best_edge_types),
        address(chains.best_node_types),
    )


def end_acceptance_epoch(state: Tensor, ceiling: Tensor) -> None:
    """Brings the state of a temperature that acceptance drives up to date; ``ceiling`` is one float64 in a tensor."""
    _core.end_acceptance_epoch(place(state), address(state), address(on_device(ceiling, state.device)))
