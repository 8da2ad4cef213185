"""Records of one kind, sorted on disk: more of them than fit into memory, in whatever order they come."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nri_fast.readers.recording import Array

RUN = 1 << 18  # records sorted in memory at a time
KEYS = ("system", "step", "entity")


def record_type(features: int) -> np.dtype[np.void]:
    """A row of a table: names as numbers, and the row that it stands in."""
    return np.dtype(
        [("system", "<i4"), ("entity", "<i4"), ("step", "<f8"), ("row", "<i8"), ("features", "<f8", (features,))]
    )


def sorted_order(records: Array) -> Array:
    """Order by system, then step, then entity; equal records, which come by row, stay as they are."""
    return np.lexsort([np.ascontiguousarray(records[key]) for key in reversed(KEYS)])


def sort_file(file: Path, kind: np.dtype[np.void], renumber: dict[str, Array]) -> Path:
    """Sort a file of records by :data:`KEYS`, in memory that does not grow with the file.

    Parameters
    ----------
    file : path
        Records of type `kind`, one behind the other. It is consumed.
    kind : dtype
        From :func:`record_type`.
    renumber : dict of ndarray
        For ``system`` and ``entity``: the number that replaces each one before sorting.

    Returns
    -------
    path
        Of the sorted file.
    """
    runs = _sort_runs(file, kind, renumber)
    if all(_not_after(a, b) for (_, _, _, a), (_, _, b, _) in itertools.pairwise(runs)):
        return file  # the table was in order, or short
    merged = file.with_suffix(".sorted")
    with merged.open("wb") as out:
        for block in _merged(file, kind, [(first, count) for first, count, _, _ in runs]):
            out.write(block.data)
    file.unlink()
    return merged


def blocks(file: Path, kind: np.dtype[np.void], first: int, count: int, size: int) -> Iterator[Array]:
    """Read `count` records from place `first` on, `size` at a time."""
    with file.open("rb") as opened:
        opened.seek(first * kind.itemsize)
        while count:
            block = np.fromfile(opened, kind, min(size, count))
            count -= len(block)
            yield block


def _sort_runs(file: Path, kind: np.dtype[np.void], renumber: dict[str, Array]) -> list[tuple[int, int, Array, Array]]:
    """Sort every run of the file where it stands: (first record, records, first one, last one) of each."""
    runs = []
    total = os.path.getsize(file) // kind.itemsize
    with file.open("r+b") as opened:
        for first in range(0, total, RUN):
            opened.seek(first * kind.itemsize)
            records = np.fromfile(opened, kind, min(RUN, total - first))
            for key, numbers in renumber.items():
                records[key] = numbers[records[key]]
            records = records[sorted_order(records)]
            opened.seek(first * kind.itemsize)
            opened.write(records.data)
            runs.append((first, len(records), records[:1].copy(), records[-1:].copy()))
    return runs


def _key(record: Array) -> tuple[float, ...]:
    return tuple(float(record[key][0]) for key in KEYS)


def _not_after(a: Array, b: Array) -> bool:
    return _key(a) <= _key(b)


def _merged(file: Path, kind: np.dtype[np.void], runs: list[tuple[int, int]]) -> Iterator[Array]:
    """Merge sorted runs: what is not after the first to end of the blocks at hand can be passed on."""
    size = max(16, 2 * RUN // len(runs))
    sources = [blocks(file, kind, first, count, size) for first, count in runs]
    left = [count for _, count in runs]
    at_hand: list[Array] = []
    for k, source in enumerate(sources):
        at_hand.append(next(source))
        left[k] -= len(at_hand[k])
    while True:
        for k, source in enumerate(sources):
            if not len(at_hand[k]) and left[k]:
                at_hand[k] = next(source)
                left[k] -= len(at_hand[k])
        ends = [_key(block[-1:]) for k, block in enumerate(at_hand) if left[k]]
        if not ends:
            rest = np.concatenate(at_hand)
            if len(rest):
                yield rest[sorted_order(rest)]
            return
        limit = min(ends)
        passed = [_count_not_after(block, limit) for block in at_hand]
        ready = np.concatenate([block[:count] for block, count in zip(at_hand, passed, strict=True)])
        at_hand = [block[count:] for block, count in zip(at_hand, passed, strict=True)]
        yield ready[sorted_order(ready)]


def _count_not_after(block: Array, limit: tuple[float, ...]) -> int:
    system, step, entity = (block[key] for key in KEYS)
    below = (system < limit[0]) | (
        (system == limit[0]) & ((step < limit[1]) | ((step == limit[1]) & (entity <= limit[2])))
    )
    return int(below.sum())
