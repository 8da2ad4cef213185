"""Structures of systems under fixed modules, by the heat bath or by a Metropolis chain, with probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nri_fast import ops
from nri_fast.energies import all_transitions
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.modules import ModuleLibrary
from nri_fast.system_set import Batch, SystemSet

SCORES_AT_ONCE = 1 << 24  # heat-bath rows held in memory together
SYSTEMS_AT_ONCE = 1024
EDGE_SWEEPS = 10  # passes over every incoming edge, where an entity has too many to weigh their types jointly
PROPOSALS_PER_EDGE = 12  # of a Metropolis chain


@dataclass
class Found:
    """Structures and how sure they are, flat over the systems searched.

    Attributes
    ----------
    edge_types, node_types : Tensor
        [E], [V] uint8: the likeliest types.
    edge_probabilities, node_probabilities : Tensor
        [E, K], [V, M].
    """

    edge_types: Tensor
    node_types: Tensor
    edge_probabilities: Tensor
    node_probabilities: Tensor


def heat_bath_search(
    library: ModuleLibrary,
    systems: SystemSet,
    error: ops.ErrorMeasure,
    temperature: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Found:
    """Heat bath on all one-step transitions: exact marginals of every receiver's incoming edges.

    Where an entity has too many incoming edges for that, edges are redrawn one at a time while the temperature falls,
    and the probabilities are conditional on the structure reached.

    Parameters
    ----------
    library : ModuleLibrary
        Fixed modules.
    systems : SystemSet
        Systems to search, in normalised units.
    error : ErrorMeasure
        As in training.
    temperature : float, optional
        Of the marginals, in the units of a receiver's mean score. By default that at which they are the likelihood's
        (see :meth:`HeatBathRows.in_likelihood_units`).
    seed : int
        Names the random draws.
    progress : bool
        Show a progress bar.
    """
    parts: list[Found] = []
    with ops.one_torch_thread(), torch.no_grad():
        parameters = library.flat_parameters()
        for batch in _batches(library, systems, progress):
            start = all_transitions(batch.graph, systems.steps)
            types = torch.zeros(batch.graph.edges, dtype=torch.uint8, device=batch.graph.device)
            rows = HeatBathRows(library, batch, systems.steps, start, error, types)
            if rows.conditionals:
                _anneal_edges(rows, batch, parameters, types, seed)
            scores = rows.scores(parameters)
            if temperature is None:
                weights = rows.responsibilities(rows.in_likelihood_units(scores), 1.0)
            else:
                weights = rows.responsibilities(scores, temperature)
            edges, nodes = rows.edge_probabilities(weights), rows.node_probabilities(weights)
            parts.append(Found(edges.argmax(-1).byte(), nodes.argmax(-1).byte(), edges, nodes))
    return _joined(parts)


def metropolis_search(
    library: ModuleLibrary,
    systems: SystemSet,
    error: ops.ErrorMeasure,
    rollout: int,
    seed: int = 0,
    progress: bool = False,
) -> Found:
    """A Metropolis chain per system on roll-out energies, from random structures, ever colder.

    The temperature falls geometrically, from the mean energy change of the first proposals by a factor of 10,000. The
    probabilities are those of each edge's types given the rest of the structure reached, under Gaussian errors whose
    variance is the structure's own; robust errors give ``prod (s^2 + e)^(-D / 2)``.

    Parameters
    ----------
    library, systems, error, seed, progress
        As for :func:`heat_bath_search`.
    rollout : int
        Steps that a roll-out takes between recorded states (R).
    """
    parts: list[Found] = []
    with ops.one_torch_thread(), torch.no_grad():
        parameters = library.flat_parameters()
        for batch in _batches(library, systems, progress):
            chain = _Chain(library, parameters, batch, systems.steps, rollout, error, seed)
            chain.anneal()
            edges, nodes = chain.conditionals()
            parts.append(Found(edges.argmax(-1).byte(), nodes.argmax(-1).byte(), edges, nodes))
    return _joined(parts)


class _Chain:
    """Metropolis chains of a batch of systems under fixed modules."""

    def __init__(
        self,
        library: ModuleLibrary,
        parameters: Tensor,
        batch: Batch,
        steps: int,
        rollout: int,
        error: ops.ErrorMeasure,
        seed: int,
    ) -> None:
        self.library, self.parameters, self.batch = library, parameters, batch
        self.steps, self.rollout, self.error, self.seed = steps, rollout, error, seed
        graph = batch.graph
        self.edge_types = torch.zeros(graph.edges, dtype=torch.uint8, device=graph.device)
        self.node_types = torch.zeros(graph.nodes, dtype=torch.uint8, device=graph.device)
        self.energy = self.energies(self.edge_types, self.node_types)
        # Every system has a temperature scale of its own; energies are divided by it, so that none depends on another.
        # Robust energies are logarithms, of either sign: they have no unit already.
        squared = error.scale_squared is None
        unit = torch.where(torch.isfinite(self.energy), self.energy, torch.ones_like(self.energy))
        self.unit = unit.clamp(min=torch.finfo(unit.dtype).tiny) if squared else None

    def energies(self, edge_types: Tensor, node_types: Tensor) -> Tensor:
        """[B] roll-out energies."""
        nodes = node_types if self.library.node_types > 1 else None
        arguments = (self.library, self.parameters, self.batch.graph, self.batch.states, self.steps)
        return ops.rollout_energy(*arguments, edge_types[None], nodes, self.rollout, self.error)[0]

    def anneal(self) -> None:
        """Runs the chains to the cold end."""
        graph, library = self.batch.graph, self.library
        places = int(graph.edges / max(1, graph.systems)) + (
            graph.nodes // graph.systems if library.node_types > 1 else 0
        )
        bounces = PROPOSALS_PER_EDGE * max(1, places)
        counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64, device=graph.device)
        scaled = self.energy.clone() if self.unit is None else self.energy / self.unit
        for step in range(bounces):
            temperature = self.energy.new_full((1,), 0.1 * 10.0 ** (-4.0 * step / bounces))
            draws = ops.Draws(self.seed, step, self.batch.systems)
            edges, nodes = ops.metropolis_propose(
                graph, draws, library.edge_types, library.node_types, self.edge_types, self.node_types
            )
            assert nodes is not None
            proposed = self.energies(edges, nodes)
            if self.unit is not None:
                proposed = proposed / self.unit
            ops.metropolis_decide(
                graph, draws, temperature, proposed, edges, nodes, scaled, self.edge_types, self.node_types, counts
            )
        self.energy = self.energies(self.edge_types, self.node_types)

    def conditionals(self) -> tuple[Tensor, Tensor]:
        """[E, K] and [V, M]: probabilities of each edge's and entity's types, all others staying as they are."""
        edges = self._conditionals(self.edge_types, self.batch.graph.in_offset, self.library.edge_types, True)
        nodes = self._conditionals(self.node_types, None, self.library.node_types, False)
        return edges, nodes

    def _conditionals(self, types: Tensor, in_offset: Tensor | None, count: int, of_edges: bool) -> Tensor:
        graph = self.batch.graph
        begins = graph.node_offset if in_offset is None else in_offset[graph.node_offset]
        sizes = begins.diff()
        owner = torch.repeat_interleave(torch.arange(graph.systems, device=types.device), sizes)
        entries = torch.full((graph.systems,), self.steps - 1, device=types.device) * graph.node_offset.diff()
        entries = entries * self.library.features
        energy = self.energy[owner, None].repeat(1, count)
        for place in range(int(sizes.max()) if count > 1 and len(types) else 0):
            here = sizes > place  # systems that have so many edges change this one, all at once
            index = (begins[:-1] + place)[here]
            for shift in range(1, count):
                changed = types.clone()
                changed[index] = (types[index] + shift) % count
                tried = (changed, self.node_types) if of_edges else (self.edge_types, changed)
                energy[index, changed[index].long()] = self.energies(*tried)[here]
        scaled = 0.5 * entries[owner, None] * (energy - energy.amin(1, keepdim=True))
        if self.unit is not None:
            scaled = scaled / self.energy.clamp(min=torch.finfo(energy.dtype).tiny)[owner, None]
        return torch.softmax(-scaled.double(), 1).to(energy.dtype)


def _joined(parts: list[Found]) -> Found:
    return Found(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def _batches(library: ModuleLibrary, systems: SystemSet, progress: bool) -> Iterator[Batch]:
    """Systems a few at a time, behind a progress bar. How they are cut changes no result."""
    systems.check_fits(library)
    degree = systems.graph.in_offset.diff()
    most = int(degree.max()) if len(degree) else 0
    rows = min(library.edge_types**most, 1 << 30) * library.node_types * max(systems.graph.sizes, default=1)
    size = max(1, min(SYSTEMS_AT_ONCE, SCORES_AT_ONCE // rows))
    bar = tqdm(total=len(systems), desc="searching", unit="system", disable=None if progress else True)
    with bar:
        for ids in torch.arange(len(systems)).split(size):
            yield systems.batch(ids)
            bar.update(len(ids))


def _anneal_edges(rows: HeatBathRows, batch: Batch, parameters: Tensor, types: Tensor, seed: int) -> None:
    """Redraws edge after edge of every receiver, ever colder, then greedily; `types` (the rows' own) change in place.

    Temperatures are in likelihood units, so that no system's depends on another's.
    """
    bounces = EDGE_SWEEPS * int(batch.graph.in_offset.diff().max())
    for step in range(bounces):
        done = step / bounces
        temperature = 0.0 if done > 0.8 else 100.0 * 10.0 ** (-3.0 * done)
        scores = rows.in_likelihood_units(rows.scores(parameters))
        rows.sample(scores, temperature, ops.Draws(seed, step, batch.systems), types)
