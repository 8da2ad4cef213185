"""Systems cut from recordings: windows of one length in which every entity that is kept is there at every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nri_fast.readers.recording import Array, DataError, Recording


@dataclass(frozen=True)
class Window:
    """One system.

    Attributes
    ----------
    first_step : int
        In steps of its recording.
    states : ndarray, [length, kept entities, features]
    kept : ndarray, int64, [kept entities]
        Their places among the recording's entities.
    """

    first_step: int
    states: Array
    kept: Array


def check_complete(piece: Array, first_step: int, recording: Recording, where: str, every: int = 1) -> None:
    """Refuse a piece of a recording, which begins with `first_step` and has every so many-th step, if it has a hole.

    Raises
    ------
    DataError
        Names recording, entity and step of the first hole.
    """
    missing = np.isnan(piece).any(axis=-1)
    if not missing.any():
        return
    step, entity = (int(k) for k in np.argwhere(missing)[0])
    raise DataError(
        f"{where}: recording {recording.name!r}, entity {recording.entities[entity]!r}: nothing at step "
        f"{recording.step_name(first_step + step * every)} (no row, or an empty cell); expected every entity at "
        "every step, or --window STEPS, which keeps the entities that are there throughout a window"
    )


def cut_windows(pieces: Iterable[Array], length: int, stride: int) -> Iterator[Window]:
    """Cut windows from a recording; those with fewer than two entities throughout are left out.

    Parameters
    ----------
    pieces : iterable of ndarray, [steps, entities, features]
        NaN where an entity is not there.
    length : int
        Steps of a window.
    stride : int
        Steps from the start of one window to that of the next.

    Yields
    ------
    Window
    """
    buffer: Array | None = None
    first = 0  # step that the buffer begins with: always a window's
    skip = 0  # steps to leave out before the next window begins, where windows do not touch
    for arriving in pieces:
        piece = arriving[skip:]
        skip -= len(arriving) - len(piece)
        if not len(piece):
            continue
        buffer = piece if buffer is None else np.concatenate([buffer, piece])
        count = (len(buffer) - length) // stride + 1 if len(buffer) >= length else 0
        if not count:
            continue
        there = np.asarray(~np.isnan(buffer).any(axis=-1))
        complete = bool(there.all())
        everyone = np.arange(buffer.shape[1])
        for w in range(count):
            begin = w * stride
            kept = everyone if complete else np.flatnonzero(there[begin : begin + length].all(axis=0))
            if len(kept) < 2:
                continue
            states = buffer[begin : begin + length]
            yield Window(first + begin, states if complete else states[:, kept], kept)
        used = count * stride
        skip = max(0, used - len(buffer))
        first += used
        buffer = buffer[used:].copy() if used < len(buffer) else None
