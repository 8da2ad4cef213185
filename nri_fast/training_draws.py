"""The random choices of training, each named by the seed, its purpose and the step: nothing has a hidden state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from nri_fast.couplings import Coupling
from nri_fast.energies import largest_block
from nri_fast.graph import MegaGraph, to_device
from nri_fast.heat_bath_rows import edges_in_block, random_free_edges
from nri_fast.presence import compared_by_step, systems_with
from nri_fast.settings import Settings
from nri_fast.system_set import Batch, SystemSet

# What a generator is for. Never renumber: saved runs resume by these numbers.
BATCHES, TRANSITIONS, FIRST_STRUCTURES, FREE_EDGES, RESIDUALS, PIECES, SUDDEN = 1, 2, 3, 4, 5, 6, 7


@dataclass(frozen=True)
class TrainingDraws:
    """Random choices of one run.

    Attributes
    ----------
    seed : int
        Of the run.
    settings : Settings
        Of the run.
    """

    seed: int
    settings: Settings

    def batch(self, systems: SystemSet, step: int) -> tuple[Batch, bool]:
        """Systems of a step, and whether they are an epoch's last.

        Every epoch takes all systems in a random order, cut into batches that differ by one in size at most.
        """
        batches = math.ceil(len(systems) / self.settings.batch)
        epoch, place = divmod(step, batches)
        order = _epoch_order(self.seed, epoch, len(systems))
        return systems.batch(torch.from_numpy(np.array_split(order, batches)[place])), place == batches - 1

    def transitions(self, batch: Batch, steps: int, step: int) -> Tensor:
        """[B, L] int64: recorded steps that the heat bath's transitions start from."""
        return self._starts(TRANSITIONS, batch, steps, steps - 2, min(self.settings.transitions, steps - 1), step)

    def residual_start(self, batch: Batch, steps: int, last: int, step: int) -> Tensor:
        """[B] int64: a recorded step of every system, 0 to `last`."""
        return self._starts(RESIDUALS, batch, steps, last, 1, step)[:, 0]

    def piece_start(self, batch: Batch, steps: int, last: int, step: int) -> Tensor:
        """[B] int64: a recorded step of every system, 0 to `last`, from which on forecasts are trained."""
        return self._starts(PIECES, batch, steps, last, 1, step)[:, 0]

    def sudden_transitions(self, systems: SystemSet, step: int) -> tuple[Tensor, Tensor]:
        """[batch * transitions] int64 each, on the host: systems, and recorded steps that transitions of theirs start
        from, as :attr:`SystemSet.sudden` says how likely they are.
        """
        count = self.settings.batch * min(self.settings.transitions, systems.steps - 1)
        drawn = torch.from_numpy(self._generator(SUDDEN, step).random(count))
        place = torch.searchsorted(systems.sudden, drawn * systems.sudden[-1], right=True)
        return place // (systems.steps - 1), place % (systems.steps - 1)

    def _starts(self, purpose: int, batch: Batch, steps: int, last: int, count: int, step: int) -> Tensor:
        """[B, count] int64: steps from 0 to `last`, where it can be such from which somebody is compared."""
        generator, shape = self._generator(purpose, step), (len(batch.systems), count)
        if batch.present is None:
            return to_device(torch.from_numpy(generator.integers(last + 1, size=shape)), batch.states.device)
        compared = compared_by_step(batch.graph, batch.present, steps)[: last + 1]
        usable = systems_with(batch.graph, compared)
        usable |= ~usable.any(1, keepdim=True)
        before = usable.cumsum(1)
        drawn = to_device(torch.from_numpy(generator.random(shape)), batch.states.device)
        place = (drawn * before[:, -1:]).long() + 1  # the place-th of the usable steps
        return torch.searchsorted(before, place)

    def holds_edges(self, graph: MegaGraph) -> bool:
        """Whether a heat bath holds some edges, because the block does not take all assignments."""
        return largest_block(graph, self.settings.edge_types) > self.settings.block

    def free_edges(self, batch: Batch, step: int) -> Tensor | None:
        """[batch edges] bool, on the host: the edges that a heat bath frees, as many as the block allows; None: all."""
        if not self.holds_edges(batch.graph):
            return None
        types, block = self.settings.edge_types, self.settings.block
        generator = self._generator(FREE_EDGES, step)
        return random_free_edges(batch.graph, edges_in_block(types, block), generator, self.settings.undirected)

    def first_types(self, graph: MegaGraph, coupling: Coupling) -> tuple[Tensor, Tensor]:
        """[E], [V] uint8: random types to start from."""
        generator = self._generator(FIRST_STRUCTURES, 0)
        edges = generator.integers(self.settings.edge_types, size=graph.edges, dtype=np.uint8)
        nodes = generator.integers(self.settings.node_types, size=graph.nodes, dtype=np.uint8)
        edge_types, node_types = (torch.from_numpy(types).to(graph.device) for types in (edges, nodes))
        return coupling.applied(graph, edge_types), coupling.applied_to_entities(graph, node_types)

    def _generator(self, purpose: int, number: int) -> np.random.Generator:
        return _generator(self.seed, purpose, number)


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    key = np.array([seed, purpose], dtype=np.uint64)  # a list with large numbers would become floats
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, number]))


@lru_cache(maxsize=1)
def _epoch_order(seed: int, epoch: int, systems: int) -> np.ndarray:
    """All systems in the epoch's order; asked for by each of its steps."""
    return _generator(seed, BATCHES, epoch).permutation(systems)
