"""Structures of systems under fixed modules, by a Metropolis chain, and what every search returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nri_fast import ops
from nri_fast.energies import LARGEST_BLOCK
from nri_fast.modules import ModuleLibrary
from nri_fast.rollouts import Rollouts
from nri_fast.system_set import Batch, SystemSet

SCORES_AT_ONCE = 1 << 22  # heat-bath rows held in memory together, a score of each for every block of transitions
SYSTEMS_AT_ONCE = 1024
PROPOSALS_PER_EDGE = 50  # of a Metropolis chain
FIRST_TEMPERATURE, COOLING = 0.3, 1e-3  # in units of the first structure's energy, and over the whole search


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

    @classmethod
    def empty(cls, library: ModuleLibrary, systems: SystemSet) -> Found:
        """Room for all systems."""
        graph, states = systems.graph, systems.states
        return cls(
            torch.zeros(graph.edges, dtype=torch.uint8, device=graph.device),
            torch.zeros(graph.nodes, dtype=torch.uint8, device=graph.device),
            states.new_zeros(graph.edges, library.edge_types),
            states.new_zeros(graph.nodes, library.node_types),
        )

    def put(
        self,
        batch: Batch,
        edge_probabilities: Tensor,
        node_probabilities: Tensor,
        edge_types: Tensor | None = None,
        node_types: Tensor | None = None,
    ) -> None:
        """Writes what was found for a batch to its systems' places; types that are not given are the likeliest."""
        self.edge_types[batch.edges] = edge_probabilities.argmax(-1).byte() if edge_types is None else edge_types
        self.node_types[batch.nodes] = node_probabilities.argmax(-1).byte() if node_types is None else node_types
        self.edge_probabilities[batch.edges] = edge_probabilities
        self.node_probabilities[batch.nodes] = node_probabilities


def metropolis_search(
    library: ModuleLibrary,
    systems: SystemSet,
    error: ops.ErrorMeasure,
    rollout: int,
    seed: int = 0,
    progress: bool = False,
) -> Found:
    """A Metropolis chain per system on roll-out energies, from type 0 everywhere, ever colder.

    The temperature falls geometrically, from 0.3 of the first structure's energy by a factor of 1,000; then single
    changes are made as long as one lowers the energy. The probabilities are those of each edge's types given the rest
    of the structure reached, under Gaussian errors whose variance is the structure's own; robust errors give
    ``prod (s^2 + e)^(-D / 2)``.

    Parameters
    ----------
    library, systems, error, seed, progress
        As for :func:`nri_fast.heat_bath_search.heat_bath_search`.
    rollout : int
        Steps that a roll-out takes between recorded states (R).
    """
    found = Found.empty(library, systems)
    with ops.one_torch_thread(), torch.no_grad():
        parameters = library.flat_parameters()
        for batch in batches(library, systems, progress):
            chain = Descent(Rollouts(library, parameters, batch, systems.steps, rollout, error), seed)
            chain.anneal()
            chain.descend()
            found.put(batch, *chain.conditionals(), chain.edge_types, chain.node_types)
    return found


class Descent:
    """Metropolis chains of a batch of systems under fixed modules, and the way from where they end to a minimum.

    Parameters
    ----------
    rollouts : Rollouts
        Gives energies.
    seed : int
        Names the random draws.
    edge_types, node_types : Tensor, optional
        [batch edges], [batch nodes] uint8: where to start; type 0 everywhere if not given.
    """

    def __init__(
        self, rollouts: Rollouts, seed: int, edge_types: Tensor | None = None, node_types: Tensor | None = None
    ) -> None:
        self.rollouts, self.seed = rollouts, seed
        self.library, self.batch = rollouts.library, rollouts.batch
        graph = self.batch.graph
        self.edge_types = torch.zeros(graph.edges, dtype=torch.uint8, device=graph.device)
        self.node_types = torch.zeros(graph.nodes, dtype=torch.uint8, device=graph.device)
        if edge_types is not None:
            self.edge_types.copy_(edge_types)
        if node_types is not None:
            self.node_types.copy_(node_types)
        self.energy = self.rollouts.energies(self.edge_types, self.node_types)
        # Every system has a temperature scale of its own; energies are divided by it, so that none depends on another.
        # Robust energies are logarithms, of either sign: they have no unit already.
        squared = self.rollouts.error.scale_squared is None
        unit = torch.where(torch.isfinite(self.energy), self.energy, torch.ones_like(self.energy))
        self.unit = unit.clamp(min=torch.finfo(unit.dtype).tiny) if squared else None

    def anneal(self) -> None:
        """Runs the chains to the cold end."""
        graph, library = self.batch.graph, self.library
        # The batch's systems have the same numbers of edges and entities.
        places = graph.edges // graph.systems + (graph.nodes // graph.systems if library.node_types > 1 else 0)
        bounces = PROPOSALS_PER_EDGE * max(1, places)
        counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64, device=graph.device)
        scaled = self.energy.clone() if self.unit is None else self.energy / self.unit
        for step in range(bounces):
            temperature = self.energy.new_full((1,), FIRST_TEMPERATURE * COOLING ** (step / bounces))
            draws = ops.Draws(self.seed, step, self.batch.systems)
            edges, nodes = ops.metropolis_propose(
                graph, draws, library.edge_types, library.node_types, self.edge_types, self.node_types
            )
            assert nodes is not None
            proposed = self.rollouts.energies(edges, nodes)
            if self.unit is not None:
                proposed = proposed / self.unit
            ops.metropolis_decide(
                graph, draws, temperature, proposed, edges, nodes, scaled, self.edge_types, self.node_types, counts
            )
        self.energy = self.rollouts.energies(self.edge_types, self.node_types)

    def descend(self) -> None:
        """Makes each system's best single change as long as it lowers its energy."""
        graph = self.batch.graph
        edge_begins, node_begins = graph.in_offset[graph.node_offset], graph.node_offset
        while True:
            edges, nodes = self._changed_energies(of_edges=True), self._changed_energies(of_edges=False)
            best_edge, edge_energy = _lowest(edges, graph.systems)
            best_node, node_energy = _lowest(nodes, graph.systems)
            lower = torch.minimum(edge_energy, node_energy) < self.energy
            if not bool(lower.any()):
                return
            for best, energy, other, begins, types in (
                (best_edge, edge_energy, node_energy, edge_begins, self.edge_types),
                (best_node, node_energy, edge_energy, node_begins, self.node_types),
            ):
                chosen = lower & (energy <= other if types is self.edge_types else energy < other)
                count = edges.shape[1] if types is self.edge_types else nodes.shape[1]
                place = best[chosen]
                types[begins[:-1][chosen] + place // count] = (place % count).byte()
            self.energy = self.rollouts.energies(self.edge_types, self.node_types)

    def conditionals(self) -> tuple[Tensor, Tensor]:
        """[E, K] and [V, M]: probabilities of each edge's and entity's types, all others staying as they are."""
        return self._probabilities(self._changed_energies(True)), self._probabilities(self._changed_energies(False))

    def _changed_energies(self, of_edges: bool) -> Tensor:
        """[E, K] or [V, M]: the energy of the system if this edge (entity) had this type."""
        graph = self.batch.graph
        types = self.edge_types if of_edges else self.node_types
        count = self.library.edge_types if of_edges else self.library.node_types
        size = len(types) // graph.systems
        first = torch.arange(graph.systems, device=types.device) * size
        energy = self.energy.repeat_interleave(size)[:, None].repeat(1, count)
        for place in range(size if count > 1 else 0):  # every system changes its edge of this number, all at once
            index = first + place
            for shift in range(1, count):
                changed = types.clone()
                changed[index] = (types[index] + shift) % count
                tried = (changed, self.node_types) if of_edges else (self.edge_types, changed)
                energy[index, changed[index].long()] = self.rollouts.energies(*tried)
        return energy

    def _probabilities(self, energy: Tensor) -> Tensor:
        graph = self.batch.graph
        size = len(energy) // graph.systems
        entries = (self.rollouts.compared() * self.library.features).to(energy.dtype).repeat_interleave(size)
        scaled = 0.5 * entries[:, None] * (energy - energy.amin(1, keepdim=True))
        if self.unit is not None:
            own = self.energy.clamp(min=torch.finfo(energy.dtype).tiny)
            scaled = scaled / own.repeat_interleave(size)[:, None]
        return torch.softmax(-scaled.double(), 1).to(energy.dtype)


def _lowest(energy: Tensor, systems: int) -> tuple[Tensor, Tensor]:
    """Place and value of each system's lowest finite entry; energy is [systems * places, types]."""
    table = energy.nan_to_num(torch.inf).view(systems, -1)
    if table.shape[1] == 0:
        return torch.zeros(systems, dtype=torch.int64, device=table.device), table.new_full((systems,), torch.inf)
    lowest = table.min(1)
    return lowest.indices, lowest.values


def batches(library: ModuleLibrary, systems: SystemSet, progress: bool) -> Iterator[Batch]:
    """Systems a few at a time, behind a progress bar.

    A batch's systems have the same numbers of entities, edges, edges into their best-connected entity and recorded
    steps, so that how long and how they are searched does not depend on their company.
    """
    systems.check_fits(library)
    graph = systems.graph
    degree, ids = graph.in_offset.diff(), torch.arange(len(systems))
    most = (
        torch.stack([d.max() for d in degree.split(graph.sizes)])
        if graph.entities is None
        else degree[:: graph.entities]
    )
    edges_of_system = graph.in_offset[graph.node_offset].diff()
    shape = torch.stack([graph.node_offset.diff(), edges_of_system, most, systems.lengths], 1).cpu()
    bar = tqdm(total=len(systems), desc="searching", unit="system", disable=None if progress else True)
    with bar:
        for nodes, edges, block, length in shape.unique(dim=0).tolist():
            rows = library.edge_types**block
            rows = rows * nodes * library.node_types if rows <= LARGEST_BLOCK else edges * library.edge_types
            size = max(1, min(SYSTEMS_AT_ONCE, SCORES_AT_ONCE // max(1, rows)))
            alike = (shape == torch.tensor([nodes, edges, block, length])).all(1)
            for some in ids[alike].split(size):
                yield systems.batch(some)
                bar.update(len(some))
