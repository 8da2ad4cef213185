"""Structures of systems under fixed modules, by a Metropolis chain."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nri_fast import ops
from nri_fast.couplings import UNTIED, Coupling
from nri_fast.energies import LARGEST_BLOCK
from nri_fast.found import Found
from nri_fast.graph import to_device
from nri_fast.modules import ModuleLibrary
from nri_fast.proposals.one_by_one import one_by_one
from nri_fast.proposals.proposers import RandomProposer
from nri_fast.rollouts import Rollouts
from nri_fast.shared_rollouts import tied_rollouts
from nri_fast.system_set import Batch, SystemSet

SCORES_AT_ONCE = 1 << 22  # heat-bath rows held in memory together, a score of each for every block of transitions
SYSTEMS_AT_ONCE = 1024
PROPOSALS_PER_EDGE = 50  # of a Metropolis chain
FIRST_TEMPERATURE, COOLING = 0.3, 1e-3  # in units of the first structure's energy, and over the whole search


def metropolis_search(
    library: ModuleLibrary,
    systems: SystemSet,
    error: ops.ErrorMeasure,
    rollout: int,
    seed: int = 0,
    progress: bool = False,
    coupling: Coupling = UNTIED,
) -> Found:
    """A Metropolis chain per system on roll-out energies, from type 0 everywhere, ever colder.

    The temperature falls geometrically, from 0.3 of the first structure's energy by a factor of 1,000; then single
    changes are made as long as one lowers the energy. The probabilities are those of each edge's types given the rest
    of the structure reached, under Gaussian errors whose variance is the structure's own; robust errors give
    ``prod (s^2 + e)^(-D / 2)``.

    Parameters
    ----------
    library, systems, error, seed, progress, coupling
        As for :func:`nri_fast.heat_bath_search.heat_bath_search`.
    rollout : int
        Steps that a roll-out takes between recorded states (R).
    """
    found = Found.empty(library, systems)
    with ops.one_torch_thread(), torch.no_grad():
        parameters = library.flat_parameters()
        for batch in batches(library, systems, progress, coupling.shared):
            rollouts = tied_rollouts(library, parameters, batch, systems.steps, rollout, error, coupling)
            chain = Descent(rollouts, seed)
            chain.anneal()
            chain.descend()
            chain.put(found)
    return found


def places_of(rollouts: Rollouts) -> int:
    """How many edges (pairs, where these have one type) and entities of a structure can change, at least 1.

    All structures of the roll-outs have the same numbers of edges and entities.
    """
    graph, library = rollouts.graph, rollouts.library
    edges = graph.edges // graph.systems
    if rollouts.coupling.undirected:
        edges = (edges + 1) // 2
    return max(1, edges + (graph.nodes // graph.systems if library.node_types > 1 else 0))


class Descent:
    """Metropolis chains of a batch of systems under fixed modules, and the way from where they end to a minimum.

    Parameters
    ----------
    rollouts : Rollouts
        Gives energies, and says what structures obey.
    seed : int
        Names the random draws.
    edge_types, node_types : Tensor, optional
        [edges], [nodes] uint8 of the roll-outs' graph: where to start; type 0 everywhere if not given.
    """

    def __init__(
        self, rollouts: Rollouts, seed: int, edge_types: Tensor | None = None, node_types: Tensor | None = None
    ) -> None:
        self.rollouts, self.seed = rollouts, seed
        self.library, self.graph = rollouts.library, rollouts.graph
        graph = self.graph
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
        graph, library = self.graph, self.library
        bounces = PROPOSALS_PER_EDGE * places_of(self.rollouts)
        counts = torch.zeros(1, graph.systems, len(ops.COUNTS), dtype=torch.int64, device=graph.device)
        scaled = self.energy.clone() if self.unit is None else self.energy / self.unit
        random = RandomProposer(graph, library.edge_types, library.node_types, self.rollouts.reverse)
        cooling = [[FIRST_TEMPERATURE * COOLING ** (step / bounces)] for step in range(bounces)]
        temperatures = to_device(torch.tensor(cooling, dtype=torch.float64), graph.device)
        draws = ops.Draws(self.seed, 0, self.rollouts.names)
        if self.rollouts.runs_natively:
            nodes = self.node_types[None] if library.node_types > 1 else None
            chain = ops.ChainArrays(scaled[None], self.edge_types[None], nodes, counts)
            self.rollouts.run(draws, random.sources(), chain, temperatures, unit=self.unit)
        else:
            types = self.edge_types, self.node_types
            one_by_one(self.rollouts, random, draws, [*temperatures], True, scaled, *types, counts[0], self.unit)
        self.energy = self.rollouts.energies(self.edge_types, self.node_types)

    def descend(self) -> None:
        """Makes each system's best single change as long as it lowers its energy."""
        graph = self.graph
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
                places = begins[:-1][chosen] + place // count
                self._change(types, places, (place % count).byte(), types is self.edge_types)
            self.energy = self.rollouts.energies(self.edge_types, self.node_types)

    def conditionals(self) -> tuple[Tensor, Tensor]:
        """[E, K] and [V, M]: probabilities of each edge's and entity's types, all others staying as they are.

        Where both directions of a pair have one type, that of the pair.
        """
        return self._probabilities(self._changed_energies(True)), self._probabilities(self._changed_energies(False))

    def put(self, found: Found) -> None:
        """Writes the structures reached, and how sure they are, to their systems' places."""
        types = self.rollouts.of_systems(self.edge_types, self.node_types)
        found.put(self.rollouts.batch, *self.rollouts.of_systems(*self.conditionals()), *types)

    def _changed_energies(self, of_edges: bool) -> Tensor:
        """[E, K] or [V, M]: the energy of the system if this edge (entity) had this type."""
        types = self.edge_types if of_edges else self.node_types
        count = self.library.edge_types if of_edges else self.library.node_types
        size = len(types) // self.graph.systems
        energy = self.energy.repeat_interleave(size)[:, None].repeat(1, count)
        for index in (self._edges_in_turn if of_edges else self._in_turn(size)) if count > 1 else ():
            for shift in range(1, count):
                changed = types.clone()
                self._change(changed, index, (types[index] + shift) % count, of_edges)
                tried = (changed, self.node_types) if of_edges else (self.edge_types, changed)
                energy[index, changed[index].long()] = self.rollouts.energies(*tried)[index // size]
        reverse = self.rollouts.reverse
        if of_edges and reverse is not None:
            return torch.where(self._follows[:, None], energy[reverse.clamp(min=0)], energy)
        return energy

    def _in_turn(self, size: int) -> list[Tensor]:
        """Places that are tried together, one of every system."""
        systems = self.graph.systems
        return [*torch.arange(systems * size, device=self.graph.device).view(systems, size).T]

    @cached_property
    def _edges_in_turn(self) -> list[Tensor]:
        """The same of edges; a pair with one type is tried at its later edge; some systems have more than others."""
        turns = self._in_turn(self.graph.edges // self.graph.systems)
        if self.rollouts.reverse is None or not turns:
            return turns
        places = torch.stack(turns, 1)  # [systems, edges]
        first = self._follows[places].byte().argsort(dim=1, stable=True)
        each = (turn[~self._follows[turn]] for turn in places.gather(1, first).T)
        return [turn for turn in each if len(turn)]

    @cached_property
    def _follows(self) -> Tensor:
        """[E] bool: whether an edge has the type of a later one."""
        assert self.rollouts.reverse is not None
        return self.rollouts.reverse > torch.arange(self.graph.edges, device=self.graph.device)

    def _change(self, types: Tensor, places: Tensor, values: Tensor, of_edges: bool) -> None:
        types[places] = values
        if of_edges and self.rollouts.reverse is not None:
            other = self.rollouts.reverse[places]
            types[torch.where(other >= 0, other, places)] = values

    def _probabilities(self, energy: Tensor) -> Tensor:
        size = len(energy) // self.graph.systems
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


def batches(library: ModuleLibrary, systems: SystemSet, progress: bool, shared: bool = False) -> Iterator[Batch]:
    """Systems a few at a time, behind a progress bar; all of them, if they are recordings of one structure.

    Otherwise a batch's systems have the same numbers of entities, edges, edges into their best-connected entity and
    recorded steps, so that how long and how they are searched does not depend on their company.
    """
    systems.check_fits(library)
    if shared:
        yield systems.batch(range(len(systems)))
        return
    graph = systems.graph.host
    degree, ids = graph.in_offset.diff(), torch.arange(len(systems))
    most = (
        torch.stack([d.max() for d in degree.split(graph.sizes)])
        if graph.entities is None
        else degree[:: graph.entities]
    )
    edges_of_system = graph.in_offset[graph.node_offset].diff()
    lengths = torch.full_like(ids, systems.steps) if systems.present is None else systems.lengths.cpu()
    shape = torch.stack([graph.node_offset.diff(), edges_of_system, most, lengths], 1)
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
