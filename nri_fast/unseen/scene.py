"""Recordings beside room for the entities that nobody saw, and roll-outs of guesses about these, side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary


@dataclass(frozen=True)
class Guesses:
    """Guesses about unseen entities, several for each system; every one has parameters of its own.

    Attributes
    ----------
    owner : Tensor
        [P] int64: the scene's system that each is about.
    name : Tensor
        [P] int64: names its random draws, whatever company it is in.
    start : Tensor
        [P, H, D] states of the unseen entities at frame 0.
    types : Tensor
        [P, E] uint8 types of all edges, in the order of a complete mega-graph.
    objective : Tensor
        [P] float64: how bad it is (see :func:`nri_fast.unseen.fit.fit`); infinite where that is not finite.
    """

    owner: Tensor
    name: Tensor
    start: Tensor
    types: Tensor
    objective: Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, places: Tensor) -> Guesses:
        """Those at some places, repetitions included."""
        return Guesses(
            self.owner[places], self.name[places], self.start[places], self.types[places], self.objective[places]
        )

    def with_types(self, types: Tensor) -> Guesses:
        """The same guesses about states, under other types."""
        return replace(self, types=types)


def ranked(systems: int, objective: Tensor, structures: Tensor) -> tuple[Tensor, Tensor]:
    """Places of every system's guesses, the best first, and whether one is the best of those of its structure.

    Parameters
    ----------
    systems : int
        S; all have equally many guesses, each system's behind each other.
    objective : Tensor
        [P], the lower the better.
    structures : Tensor
        [P, any] uint8.

    Returns
    -------
    places, first : Tensor
        [S, P / S] int64 and bool.
    """
    table = objective.view(systems, -1)
    order = table.argsort(dim=1, stable=True)
    places = order + torch.arange(systems, device=order.device)[:, None] * table.shape[1]
    first = torch.zeros_like(places, dtype=torch.bool)
    for own, row in zip(first, structures[places], strict=True):
        _, kind = row.unique(dim=0, return_inverse=True)
        met: set[int] = set()
        for place, number in enumerate(kind.tolist()):
            own[place] = number not in met
            met.add(number)
    return places, first


@dataclass(frozen=True)
class Rolled:
    """What came of rolling guesses.

    Attributes
    ----------
    path : Tensor
        [P, steps + 1, H, D] of the unseen entities, frame 0 first.
    residual : Tensor
        [P, steps * No * D]: predicted minus recorded states of the seen entities.
    """

    path: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Scene:
    """Recordings of the entities that were seen; those that were not have the last numbers.

    Attributes
    ----------
    library : ModuleLibrary
        Fixed modules, of one entity type: those that forecasts are made with.
    error : ErrorMeasure
        How the heat bath measures one-step errors: as in training.
    states : Tensor
        [S, T, No, D] of the seen entities, in the modules' units. Nothing else is known about the systems.
    hidden : int
        Unseen entities of each system.
    ids : Tensor
        [S] int64: the systems' places in the whole data set; they name the random draws.
    """

    library: ModuleLibrary
    error: ops.ErrorMeasure
    states: Tensor
    hidden: int
    ids: Tensor

    @property
    def seen(self) -> int:
        """Entities that were seen."""
        return self.states.shape[2]

    @property
    def entities(self) -> int:
        """All entities."""
        return self.seen + self.hidden

    @property
    def last_step(self) -> int:
        """Steps that a roll-out of the whole recording takes."""
        return self.states.shape[1] - 1

    @cached_property
    def parameters(self) -> Tensor:
        """[P] of the library."""
        return self.library.flat_parameters().detach()

    @cached_property
    def edges(self) -> MegaGraph:
        """One system's edges."""
        return MegaGraph.complete(1, self.entities, self.states.device)

    @cached_property
    def middle(self) -> Tensor:
        """[S, D] where an unseen entity is expected at frame 0: the mean of the seen ones."""
        return self.states[:, 0].double().mean(1)

    @cached_property
    def spread(self) -> Tensor:
        """[S, D] how far from there: as far as the seen ones come while recorded."""
        square = (self.states.double() - self.middle[:, None, None]) ** 2
        return square.mean((1, 2)).sqrt().clamp(min=0.1)  # a tenth of the normalised range, if nothing moves

    def open_loop(self, guesses: Guesses, start: Tensor, steps: int) -> Rolled:
        """Everything is predicted from frame 0 on; residuals in normalised units."""
        systems = torch.cat([self.states[guesses.owner, 0], start], 1)
        graph = MegaGraph.complete(len(start), self.entities, start.device)
        states = self._advance(graph, systems, guesses.types, steps).view(len(start), steps, self.entities, -1)
        residual = states[:, :, : self.seen] - self.states[guesses.owner, 1 : steps + 1]
        return Rolled(torch.cat([start[:, None], states[:, :, self.seen :]], 1), residual.flatten(1))

    def clamped(self, guesses: Guesses, start: Tensor, steps: int) -> Rolled:
        """Every step starts from the seen entities' recorded states; only the unseen ones' are predicted on and on.

        Errors do not pile up so. Residuals are in units of the spread of one step's change.
        """
        graph = MegaGraph.complete(len(start), self.entities, start.device)
        path, residuals = [start], []
        for step in range(steps):
            systems = torch.cat([self.states[guesses.owner, step], path[-1]], 1)
            states = self._advance(graph, systems, guesses.types, 1).view_as(systems)
            residuals.append(
                (states[:, : self.seen] - self.states[guesses.owner, step + 1]) / self.library.change_scale
            )
            path.append(states[:, self.seen :])
        return Rolled(torch.stack(path, 1), torch.stack(residuals, 1).flatten(1))

    def _advance(self, graph: MegaGraph, systems: Tensor, types: Tensor, steps: int) -> Tensor:
        initial = systems.reshape(-1, self.library.features).contiguous()
        return ops.forecast(self.library, self.parameters, graph, initial, steps, types.flatten().contiguous(), None)
