"""Structures of systems under fixed modules, by the heat bath, with probabilities."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.couplings import Coupling
from nri_fast.energies import LARGEST_BLOCK, all_transitions, largest_block
from nri_fast.found import Found
from nri_fast.heat_bath_rows import (
    HeatBathRows,
    compared_share,
    edges_in_block,
    likelihood_units,
    random_free_edges,
)
from nri_fast.modules import ModuleLibrary
from nri_fast.posterior import bagged, blocks_of
from nri_fast.search import batches
from nri_fast.system_set import Batch, SystemSet

SWEEPS = 10  # how often every edge is redrawn, where an entity has too many to weigh their types jointly
ANNEALING_BLOCK = 16  # assignments weighed jointly meanwhile


def heat_bath_search(
    library: ModuleLibrary,
    systems: SystemSet,
    error: ops.ErrorMeasure,
    temperature: float | None = None,
    seed: int = 0,
    progress: bool = False,
    coupling: Coupling | None = None,
) -> Found:
    """Heat bath on all one-step transitions: marginals of every receiver's incoming edges.

    Exact where receivers are independent; with undirected edges by belief propagation. Where an entity has more
    assignments than ``energies.LARGEST_BLOCK``, a few of its edges at a time are redrawn while the temperature falls,
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
        Of the marginals, in the units of a receiver's mean score. By default they are those of the bagged posterior
        (see :mod:`nri_fast.posterior`) under the likelihood of :func:`nri_fast.heat_bath_rows.likelihood_units`.
    seed : int
        Names the random draws.
    progress : bool
        Show a progress bar.
    coupling : Coupling, optional
        What ties receivers together; nothing if not given.
    """
    found = Found.empty(library, systems)
    with ops.one_torch_thread(), torch.no_grad():
        search = _Search(library, systems, error, temperature, seed, coupling or Coupling())
        for batch in batches(library, systems, progress, search.coupling.shared):
            found.put(batch, *search.probabilities(batch))
    return found


class _Search:
    def __init__(
        self,
        library: ModuleLibrary,
        systems: SystemSet,
        error: ops.ErrorMeasure,
        temperature: float | None,
        seed: int,
        coupling: Coupling,
    ) -> None:
        self.library, self.systems, self.error = library, systems, error
        self.temperature, self.seed, self.coupling = temperature, seed, coupling
        self.parameters = library.flat_parameters()

    def probabilities(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """[E, K] and [V, M]."""
        if largest_block(batch.graph, self.library.edge_types) <= LARGEST_BLOCK:
            rows, weights = self._weights(batch)
            edges = rows.edge_probabilities(weights)
            return self.coupling.agreed(batch.graph, edges), rows.node_probabilities(weights)
        return self._conditionals(batch, *self._annealed(batch))

    def _rows(
        self,
        batch: Batch,
        free: Tensor | None = None,
        held_weight: Tensor | None = None,
        transitions: Tensor | None = None,
    ) -> HeatBathRows:
        start = self._start(batch, transitions)
        return HeatBathRows(self.library, batch, self.systems.steps, start, self.error, free, held_weight)

    def _start(self, batch: Batch, transitions: Tensor | None) -> Tensor:
        """[B, L] first steps of some transitions, all if not given, the same for every system."""
        if transitions is None:
            return all_transitions(batch.graph, self._length(batch))
        return transitions.to(batch.states.device).repeat(len(batch.systems), 1)

    def _length(self, batch: Batch) -> int:
        """Steps up to the end of the batch's recordings, which have one length unless they share a structure."""
        return int(self.systems.lengths[batch.systems].max())

    def _weights(
        self, batch: Batch, free: Tensor | None = None, held_weight: Tensor | None = None
    ) -> tuple[HeatBathRows, Tensor]:
        """Rows and how much they weigh: at the temperature given, or in the bagged posterior."""
        rows = self._rows(batch, free, held_weight)
        if self.temperature is not None:
            scores = self.coupling.scores(rows.graph, rows.evidence(rows.scores(self.parameters)))
            return rows, self.coupling.weights(rows, scores, self.temperature)

        def weigh(scores: Tensor) -> Tensor:
            scores = self.coupling.scores(rows.graph, rows.in_likelihood_units(scores))
            return self.coupling.weights(rows, scores, 1.0 / self._recordings)

        blocks = blocks_of(self._length(batch) - 1)
        parts = []
        for block in blocks:
            part = self._rows(batch, free, held_weight, block)
            parts.append(part.evidence(part.scores(self.parameters)))
        return rows, bagged(parts, [len(block) for block in blocks], weigh)

    @property
    def _recordings(self) -> int:
        """How many systems' likelihoods make up that of a structure."""
        return len(self.systems) if self.coupling.shared else 1

    def _annealed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """[E], [V] types: mean field, a few edges of every receiver freed at a time, ever colder; then descent.

        Temperatures are in likelihood units, so that no system's depends on another's.
        """
        graph, types = batch.graph, self.library.edge_types
        beliefs = torch.full((graph.edges, types), 1.0 / types, device=graph.device)
        most = edges_in_block(types, ANNEALING_BLOCK)
        bounces = SWEEPS * math.ceil(int(graph.host.in_offset.diff().max()) / most)
        for step in range(bounces):
            temperature = 100.0 * 10.0 ** (-3.0 * step / bounces)
            generator = np.random.Generator(np.random.Philox(key=np.array([self.seed, step], dtype=np.uint64)))
            rows = self._rows(batch, random_free_edges(graph, most, generator, self.coupling.undirected), beliefs)
            evidence = rows.evidence(rows.scores(self.parameters))
            scores = self.coupling.scores(graph, rows.in_likelihood_units(evidence))
            weights = self.coupling.weights(rows, scores, temperature)
            beliefs = self.coupling.agreed(graph, rows.edge_probabilities(weights)).float()
        nodes = rows.node_probabilities(weights).argmax(-1).byte()
        edges = self.coupling.applied(graph, beliefs.argmax(-1).byte())
        self._descend(batch, edges, nodes)
        return edges, nodes

    def _descend(self, batch: Batch, edge_types: Tensor, node_types: Tensor) -> None:
        """Makes every receiver's best change of one edge as long as there is one that lowers its score, in place.

        Where receivers depend on each other it is every system's best change.
        """
        graph = batch.graph
        apart = self.coupling == Coupling()
        owner = graph.receiver if apart else graph.system_of_edges
        owners = graph.nodes if apart else graph.systems
        while True:
            problem = self._pair_problem(batch, edge_types, node_types)
            scores = self._pair_scores(problem, self._pair_evidence(problem))
            best = scores.min(-1)
            gain = scores.gather(-1, edge_types.long()[:, None])[:, 0] - best.values
            largest = gain.new_zeros(owners).scatter_reduce(0, owner, gain, "amax")
            first = torch.full((owners,), graph.edges, device=graph.device)
            changes = ((gain > 0) & (gain == largest[owner])).nonzero().flatten()
            if len(changes) == 0:
                return
            changes = first.scatter_reduce(0, owner[changes], changes, "amin")
            changes = changes[changes < graph.edges]
            if self.coupling.undirected:
                changes = torch.cat([changes, graph.reverse[changes]])
                changes = changes[changes >= 0]
            edge_types[changes] = best.indices[changes].byte()

    def _conditionals(self, batch: Batch, edge_types: Tensor, node_types: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of each edge's and entity's types, all others staying as they are."""
        graph, types = batch.graph, self.library.edge_types
        nobody = torch.zeros(graph.edges, dtype=torch.bool)
        held = torch.nn.functional.one_hot(edge_types.long(), types).float()
        rows, weights = self._weights(batch, nobody, held)
        nodes = rows.node_probabilities(weights)
        offset = torch.arange(graph.edges + 1, device=graph.device) * types
        problem = self._pair_problem(batch, edge_types, node_types)

        def weigh(scores: Tensor) -> Tensor:
            temperature = 1.0 if self.temperature is None else self.temperature
            return ops.responsibilities(offset, self._pair_scores(problem, scores).flatten(), temperature)

        if self.temperature is not None:
            return weigh(self._pair_evidence(problem)).view(-1, types), nodes
        blocks = blocks_of(self._length(batch) - 1)
        parts = [self._pair_evidence(self._pair_problem(batch, edge_types, node_types, b)) for b in blocks]
        return bagged(parts, [len(block) for block in blocks], weigh).view(-1, types), nodes

    def _pair_problem(
        self, batch: Batch, edge_types: Tensor, node_types: Tensor, transitions: Tensor | None = None
    ) -> ops.HeatBathProblem:
        graph, library = batch.graph, self.library
        layout = ops.RowLayout.conditionals(graph, library.edge_types)
        start = self._start(batch, transitions)
        nodes = node_types if library.node_types > 1 else None
        return ops.HeatBathProblem(
            *(library, graph, batch.states, self.systems.steps, start, layout, self.error, nodes, edge_types),
            present=batch.present,
            step_scale=batch.step_scale,
        )

    def _pair_evidence(self, problem: ops.HeatBathProblem) -> Tensor:
        """[E * K] scores, each as far as its receiver is compared (:meth:`HeatBathRows.evidence`)."""
        scores, share = problem.scores(self.parameters), compared_share(problem)
        if share is None:
            return scores
        return scores * share[problem.graph.receiver].repeat_interleave(self.library.edge_types)

    def _pair_scores(self, problem: ops.HeatBathProblem, scores: Tensor) -> Tensor:
        """[E, K] score of each edge's types, all others staying as they are; likelihoods if there is no temperature."""
        graph, types = problem.graph, self.library.edge_types
        if self.temperature is None:
            owner = torch.arange(graph.edges, device=graph.device).repeat_interleave(types)
            share = compared_share(problem)
            into = None if share is None else share[graph.receiver]
            scores = likelihood_units(problem, scores, owner, graph.edges, into) * self._recordings
        return self.coupling.pair_scores(graph, scores.view(-1, types)).nan_to_num(torch.inf)
