"""True edges from a table: one row an edge."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nri_fast.readers.recording import Array, DataError, MadeOnDemand, Recording, Source
from nri_fast.readers.table_rows import RowReader

SENDER, RECEIVER, TYPE = "sender", "receiver", "type"


def read_labels(source: Source, file: Path, rows: RowReader, system: str | None) -> Source:
    """Add true edges to recordings; pairs that are in no row have type 0.

    Parameters
    ----------
    source : Source
    file : path
        Table with the columns ``sender``, ``receiver`` and ``type`` (0 to 255).
    rows : callable
        :func:`csv_rows` or :func:`parquet_rows`.
    system : str, optional
        Column of the system; None: the edges are those of all recordings.

    Raises
    ------
    DataError
        A system or entity that is not in the recordings, a type that is none, an edge from an entity to itself: file,
        row and column are named.
    """
    entities = {recording.name: recording.entities for recording in source.recordings}
    edges: dict[str, Array] = {name: np.zeros((len(e), len(e)), dtype=np.uint8) for name, e in entities.items()}
    text = [SENDER, RECEIVER] if system is None else [system, SENDER, RECEIVER]
    for chunk in rows(file, text, [TYPE]):
        for k, value in enumerate(chunk.numbers[TYPE].tolist()):
            row = f"{file}: row {chunk.first_row + k}"
            if not (value == value and 0 <= value <= 255 and value == int(value)):
                raise DataError(f"{row}, column {TYPE!r}: expected a whole number from 0 to 255, got {value:g}")
            named = list(entities) if system is None else [chunk.text[system][k]]
            sender, receiver = chunk.text[SENDER][k], chunk.text[RECEIVER][k]
            if sender == receiver:
                raise DataError(f"{row}: expected an edge between two entities, got {sender!r} twice")
            for name in named:
                if name not in entities:
                    raise DataError(f"{row}, column {system!r}: no system {name!r} in {source.where}")
                for column, entity in ((SENDER, sender), (RECEIVER, receiver)):
                    if entity not in entities[name]:
                        raise DataError(f"{row}, column {column!r}: no entity {entity!r} in system {name!r}")
                edges[name][entities[name].index(sender), entities[name].index(receiver)] = int(value)
    return dataclasses.replace(source, recordings=_Labelled(source.recordings, edges))


class _Labelled(MadeOnDemand):
    """Recordings with their edges."""

    def __init__(self, recordings: Sequence[Recording], edges: dict[str, Array]) -> None:
        self._recordings, self._edges = recordings, edges

    def __len__(self) -> int:
        return len(self._recordings)

    def make(self, place: int) -> Recording:
        recording = self._recordings[place]
        return dataclasses.replace(recording, edges=self._edges[recording.name])
