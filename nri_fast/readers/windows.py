"""Systems cut from recordings: windows of one length, of the entities that are there for long enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nri_fast.readers.recording import Array


@dataclass(frozen=True)
class Window:
    """One system.

    Attributes
    ----------
    first_step : int
        In steps of its recording.
    states : ndarray, [length, kept entities, features]
        NaN where an entity is not there.
    kept : ndarray, int64, [kept entities]
        Their places among the recording's entities.
    """

    first_step: int
    states: Array
    kept: Array


def stays(there: Array, least: float) -> Array:
    """[entities] bool: who is there often enough.

    Parameters
    ----------
    there : ndarray, bool, [steps, entities]
    least : float
        Share of the steps that an entity must be there, 0 to 1. It must be there at two steps in succession in any
        case: only such can be learned from.
    """
    often = there.mean(axis=0) >= least
    return np.asarray(often & (there[1:] & there[:-1]).any(axis=0))


def cut_windows(pieces: Iterable[Array], length: int, stride: int, least: float = 1.0) -> Iterator[Window]:
    """Cut windows from a recording; those with fewer than two entities that are there often enough are left out.

    Parameters
    ----------
    pieces : iterable of ndarray, [steps, entities, features]
        NaN where an entity is not there.
    length : int
        Steps of a window.
    stride : int
        Steps from the start of one window to that of the next.
    least : float
        Share of a window's steps that an entity must be there to be kept, see :func:`stays`.

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
            kept = everyone if complete else np.flatnonzero(stays(there[begin : begin + length], least))
            if len(kept) < 2:
                continue
            states = buffer[begin : begin + length]
            yield Window(first + begin, states if complete else states[:, kept], kept)
        used = count * stride
        skip = max(0, used - len(buffer))
        first += used
        buffer = buffer[used:].copy() if used < len(buffer) else None
