"""What every reader gives: recordings whose states are read piece by piece, so that none need fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

Array = np.ndarray[Any, Any]


class DataError(ValueError):
    """A source is damaged or contradicts itself; the message names file, and row, line or key."""


@dataclass(frozen=True)
class Recording:
    """Entities observed together, at equal time steps.

    Attributes
    ----------
    name : str
        By which errors, splits and the stored origin know it.
    steps : int
    entities : tuple of str
        Names of all entities that are there at some step.
    time_step : float
        Between two steps.
    pieces : callable
        Returns an iterator over float64 arrays [some steps, entities, features], which together are the recording, in
        order. NaN where an entity is not there.
    edges : ndarray, uint8, [entities, entities], optional
        True types, if they are known: ``edges[i, j]`` is the type of the edge from i to j.
    node_types : ndarray, uint8, [entities], optional
        True types of the entities.
    split : str, optional
        The split that the source itself puts it into.
    step_name : callable
        What the source calls a step, for errors.
    """

    name: str
    steps: int
    entities: tuple[str, ...]
    time_step: float
    pieces: Callable[[], Iterator[Array]]
    edges: Array | None = None
    node_types: Array | None = None
    split: str | None = None
    step_name: Callable[[int], str] = field(default=str)


class MadeOnDemand(Sequence[Recording]):
    """Recordings of which each is made when it is asked for, so that none of many takes memory."""

    def make(self, place: int) -> Recording:
        """The recording at a place from 0 on."""
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> Recording: ...
    @overload
    def __getitem__(self, place: slice) -> list[Recording]: ...
    def __getitem__(self, place: int | slice) -> Recording | list[Recording]:
        if isinstance(place, slice):
            return [self[k] for k in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self.make(place)


@dataclass(frozen=True)
class Source:
    """Everything that a reader found.

    Attributes
    ----------
    where : str
        The file or files, for errors.
    feature_names : tuple of str
    recordings : sequence of Recording
        Of a large table, made when they are asked for.
    notes : dict of str
        What the reader did to the data, kept with them.
    """

    where: str
    feature_names: tuple[str, ...]
    recordings: Sequence[Recording]
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a source without recordings or with repeated names of features."""
        if not self.recordings:
            raise DataError(f"{self.where}: expected at least one recording, got none")
        if len(set(self.feature_names)) != len(self.feature_names) or not self.feature_names:
            raise DataError(f"{self.where}: expected different names of features, got {self.feature_names}")


def whole(states: Array) -> Callable[[], Iterator[Array]]:
    """`pieces` of a recording that is at hand, [steps, entities, features] (perhaps mapped from a file)."""
    return lambda: iter([np.asarray(states, dtype=np.float64)])


def every_kth(pieces: Iterable[Array], k: int) -> Iterator[Array]:
    """Keep steps 0, k, 2k, ..."""
    passed = 0
    for piece in pieces:
        kept = piece[-passed % k :: k]
        passed += len(piece)
        if len(kept):
            yield kept
