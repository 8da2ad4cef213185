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
        [P, steps * No * D]: predicted minus recorded states of the seen entities; zero where they are not compared.
    count : Tensor
        [P] float64: how many are compared, at least 1.
    """

    path: Tensor
    residual: Tensor
    count: Tensor

    @property
    def mean_square(self) -> Tensor:
        """[P] float64, of the residuals that are compared."""
        return (self.residual.double() ** 2).sum(1) / self.count


@dataclass(frozen=True)
class Scene:
    """Recordings of the entities that were seen; those that were not have the last numbers.

    Attributes
    ----------
    library : ModuleLibrary
        Fixed modules, of one entity type, which take whole steps: those that forecasts are made with, if they do.
    error : ErrorMeasure
        How the heat bath measures one-step errors: as in training.
    states : Tensor
        [S, T, No, D] of the seen entities, in the modules' units. Nothing else is known about the systems.
    present : Tensor or None
        [S, T, No] bool: which of these states there are; the others are never read. None: all are.
    step_scale : Tensor or None
        [S] the systems' time steps over the modules'. None: all 1.
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
    present: Tensor | None = None
    step_scale: Tensor | None = None

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
        return self._mean(self.states[:, :1].double(), None if self.present is None else self.present[:, :1])

    @cached_property
    def spread(self) -> Tensor:
        """[S, D] how far from there: as far as the seen ones come while recorded."""
        square = (self.states.double() - self.middle[:, None, None]) ** 2
        return self._mean(square, self.present).sqrt().clamp(min=0.1)  # a tenth of the range, if nothing moves

    @staticmethod
    def _mean(values: Tensor, present: Tensor | None) -> Tensor:
        """[S, D] of [S, T, No, D], over what there is."""
        if present is None:
            return values.mean((1, 2))
        flags = present[..., None]
        return torch.where(flags, values, 0.0).sum((1, 2)) / flags.sum((1, 2))

    def open_loop(self, guesses: Guesses, start: Tensor, steps: int) -> Rolled:
        """Everything is predicted from frame 0 on; residuals in normalised units."""
        states = self.rolled_states(guesses, start, steps)
        residual = states[:, :, : self.seen] - self.states[guesses.owner, 1 : steps + 1]
        path = torch.cat([start[:, None], states[:, :, self.seen :]], 1)
        return self._compared(path, residual, None if self.present is None else self.present[:, :1], guesses.owner)

    def rolled_states(self, guesses: Guesses, start: Tensor, steps: int) -> Tensor:
        """[P, steps, N, D] that an open-loop roll-out predicts; who is absent at frame 0 has no part in it."""
        graph = MegaGraph.complete(len(start), self.entities, start.device)
        states = self._advance(graph, guesses, 0, start, steps)
        return states.view(len(start), steps, self.entities, -1)

    def clamped(self, guesses: Guesses, start: Tensor, steps: int) -> Rolled:
        """Every step starts from the seen entities' recorded states; only the unseen ones' are predicted on and on.

        Errors do not pile up so. Residuals are in units of the spread of one step's change.
        """
        graph = MegaGraph.complete(len(start), self.entities, start.device)
        path, residuals = [start], []
        for step in range(steps):
            states = self._advance(graph, guesses, step, path[-1], 1).view(len(start), self.entities, -1)
            residuals.append(
                (states[:, : self.seen] - self.states[guesses.owner, step + 1]) / self.library.change_scale
            )
            path.append(states[:, self.seen :])
        before = None if self.present is None else self.present[:, :steps]
        return self._compared(torch.stack(path, 1), torch.stack(residuals, 1), before, guesses.owner)

    def _compared(self, path: Tensor, residual: Tensor, before: Tensor | None, owner: Tensor) -> Rolled:
        """Residuals [P, steps, No, D] count where a prediction's entity is there when it starts, and when it ends.

        `before` [S, steps or 1, No] says the first; None: everywhere.
        """
        if self.present is None or before is None:
            count = torch.full((len(path),), residual[0].numel(), dtype=torch.float64, device=path.device)
            return Rolled(path, residual.flatten(1), count)
        there = (before & self.present[:, 1 : residual.shape[1] + 1])[owner]
        count = (there.sum((1, 2)) * residual.shape[-1]).double().clamp(min=1.0)
        return Rolled(path, torch.where(there[..., None], residual, 0.0).flatten(1), count)

    def _advance(self, graph: MegaGraph, guesses: Guesses, step: int, hidden: Tensor, steps: int) -> Tensor:
        """Flat states predicted from a recorded frame and the unseen entities' states [P, H, D]."""
        systems = torch.cat([self.states[guesses.owner, step], hidden], 1)
        part = None
        if self.present is not None:
            there = self.present[guesses.owner, step]
            part = torch.cat([there, there.new_ones(hidden.shape[:2])], 1).flatten().byte()
        initial = systems.reshape(-1, self.library.features).contiguous()
        types = guesses.types.flatten().contiguous()
        scale = self.scale_of(guesses)
        return ops.forecast(self.library, self.parameters, graph, initial, steps, types, None, part, scale)

    def scale_of(self, guesses: Guesses) -> Tensor | None:
        """[P] time steps over the modules'."""
        return None if self.step_scale is None else self.step_scale[guesses.owner]
