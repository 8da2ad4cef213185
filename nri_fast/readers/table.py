"""Tables, CSV or Parquet: a row tells where one entity is at one step of one system.

Rows may come in any order. They are written to a scratch file and sorted there, so that memory does not grow with the
table; the scratch file takes about as much disk as the table, twice that while it is being sorted.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nri_fast.readers.external_sort import RUN, blocks, record_type, sort_file
from nri_fast.readers.recording import Array, DataError, MadeOnDemand, Recording, Source
from nri_fast.readers.table_labels import read_labels
from nri_fast.readers.table_rows import Names, RowReader, Rows, csv_rows, parquet_rows

PIECE = 1 << 21  # numbers of a piece of a recording
LONGEST_GAP = 10_000  # steps


@dataclass(frozen=True)
class Columns:
    """Which column of a table means what.

    Attributes
    ----------
    entity, step : str
        Names an entity; orders the steps: frame numbers or times, at equal distances within a system.
    features : sequence of str
        Columns of numbers, each ``NAME`` or ``NAME=COLUMN``. x, y, z are positions and vx, vy, vz velocities.
    system : str, optional
        Names the system (the recording). None: every file is one.
    """

    entity: str
    step: str
    features: Sequence[str]
    system: str | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(feature.partition("=")[0] for feature in self.features)

    @property
    def feature_columns(self) -> list[str]:
        """Columns of the features."""
        return [feature.partition("=")[2] or feature for feature in self.features]


class _Numbered(dict[str, int]):
    """Numbers names in the order in which they come."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number

    def numbers(self, names: Names, prefix: str = "") -> Array:
        """Of the names in every row, `prefix` before each."""
        return np.array([self[prefix + name] for name in names.distinct])[names.each]


class _Facts(NamedTuple):
    """A system's place in the sorted file, and its steps."""

    system: int
    first: int
    rows: int
    steps: int
    first_step: float
    between: float  # typical difference of the step column
    time_step: float


@contextlib.contextmanager
def read_csv(
    files: Sequence[str | os.PathLike[str]],
    columns: Columns,
    time_unit: float = 1.0,
    edges: str | os.PathLike[str] | None = None,
    rows: RowReader = csv_rows,
) -> Iterator[Source]:
    """Read CSV files (UTF-8, with a header). A context manager: the scratch files live as long as it.

    Parameters
    ----------
    files : sequence of path
        Systems of the same name in two files are different systems.
    columns : Columns
    time_unit : float
        Time that the step column's unit stands for: 0.1 for frame numbers of a recording at 10 Hz.
    edges : path, optional
        File of the true edges: columns ``sender``, ``receiver``, ``type`` and, if it is there, the system's; pairs that
        are not in it have type 0.
    rows : callable
        What reads a file's rows.

    Yields
    ------
    Source

    Raises
    ------
    FileNotFoundError
    DataError
        See :func:`nri_fast.readers.table_rows.csv_rows`; also a pair of rows about the same entity at the same step,
        steps at unequal distances. File, row, column are named.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ValueError("files: expected at least one table, got none")
    if not time_unit > 0 or time_unit == float("inf"):
        raise ValueError(f"time_unit: expected a positive number, got {time_unit}")

    def chunks() -> Iterator[tuple[Path, Rows]]:
        text = [columns.entity] if columns.system is None else [columns.system, columns.entity]
        for path in paths:
            for chunk in rows(path, text, [columns.step, *columns.feature_columns]):
                yield path, chunk

    with tempfile.TemporaryDirectory(prefix="nri_fast.") as scratch:
        source = tabulated(
            ", ".join(map(str, paths)), chunks(), columns, Path(scratch), time_unit, several=len(paths) > 1
        )
        if edges is not None:
            source = read_labels(source, Path(edges), rows, columns.system)
        yield source


#: The same for Parquet files, read batch by batch (needs pyarrow).
read_parquet = functools.partial(read_csv, rows=parquet_rows)


def tabulated(
    where: str,
    chunks: Iterator[tuple[Path, Rows]],
    columns: Columns,
    scratch: Path,
    time_unit: float = 1.0,
    several: bool = False,
) -> Source:
    """Turn rows in any order into recordings.

    Parameters
    ----------
    where : str
        For errors.
    chunks : iterator of (path, Rows)
        A table's file and some of its rows.
    columns : Columns
    scratch : path
        Folder for scratch files, which the recordings are read from later.
    time_unit : float
        Time that the step column's unit stands for.
    several : bool
        Whether systems are told apart by their file, too.
    """
    kind = record_type(len(columns.features))
    systems, entities = _Numbered(), _Numbered()
    unsorted = scratch / "rows"
    with unsorted.open("wb") as out:
        for path, chunk in chunks:
            records = np.empty(len(chunk), kind)
            if columns.system is None:
                records["system"] = systems[path.stem]
            else:
                prefix = f"{path.stem}/" if several else ""
                records["system"] = systems.numbers(chunk.text[columns.system], prefix)
            records["entity"] = entities.numbers(chunk.text[columns.entity])
            records["step"] = chunk.numbers[columns.step]
            records["row"] = np.arange(chunk.first_row, chunk.first_row + len(records))
            missing = np.isnan(records["step"])
            if missing.any():
                row = int(records["row"][missing.argmax()])
                raise DataError(f"{path}: row {row}, column {columns.step!r}: expected a number, got nothing")
            for d, column in enumerate(columns.feature_columns):
                records["features"][:, d] = chunk.numbers[column]
            out.write(records.data)
    if not systems:
        raise DataError(f"{where}: expected rows, got none")
    ranks = {"system": _ranks(systems), "entity": _ranks(entities)}
    ordered = sort_file(unsorted, kind, ranks)
    names = {key: _by_rank(numbered, ranks[key]) for key, numbered in (("system", systems), ("entity", entities))}
    recordings = _TableRecordings(where, ordered, kind, time_unit, names["system"], names["entity"])
    for found, members in _facts(where, ordered, kind, names):
        recordings.add(found, members)
    return Source(where, columns.feature_names, recordings)


def _by_rank(numbered: dict[str, int], ranks: Array) -> list[str]:
    names = [""] * len(numbered)
    for name, number in numbered.items():
        names[ranks[number]] = name
    return names


def _ranks(numbered: dict[str, int]) -> Array:
    """Place of every name among all of them: numbers by value, where all are numbers, otherwise as text."""
    names = list(numbered)
    try:
        order = sorted(range(len(names)), key=lambda k: (float(names[k]), names[k]))
    except ValueError:
        order = sorted(range(len(names)), key=names.__getitem__)
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[order] = np.arange(len(names))
    return ranks


def _facts(
    where: str, file: Path, kind: np.dtype[np.void], names: dict[str, list[str]]
) -> Iterator[tuple[_Facts, Array]]:
    """Look at the sorted file once: where each system is and at which steps, and who is there."""
    total = os.path.getsize(file) // kind.itemsize
    begun, place = 0, 0
    current = -1
    entities: list[Array] = []
    steps: list[Array] = []
    last: Array | None = None

    def finished() -> tuple[_Facts, Array]:
        found = _regular(where, names["system"][current], np.unique(np.concatenate(steps)))
        return _Facts(current, begun, place - begun, *found), np.unique(np.concatenate(entities))

    for block in blocks(file, kind, 0, total, RUN):
        checked = block if last is None else np.concatenate([last, block])
        _refuse_repetitions(where, checked, names)
        last = block[-1:]
        ends = np.flatnonzero(np.diff(block["system"])) + 1
        for first, end in itertools.pairwise([0, *ends.tolist(), len(block)]):
            if int(block["system"][first]) != current:
                if current >= 0:
                    yield finished()
                current, begun, entities, steps = int(block["system"][first]), place, [], []
            entities.append(np.unique(block["entity"][first:end]))
            steps.append(np.unique(block["step"][first:end]))
            place += end - first
    yield finished()


def _refuse_repetitions(where: str, records: Array, names: dict[str, list[str]]) -> None:
    a, b = records[:-1], records[1:]
    again = (a["system"] == b["system"]) & (a["step"] == b["step"]) & (a["entity"] == b["entity"])
    if again.any():
        k = int(again.argmax())
        raise DataError(
            f"{where}: rows {int(a['row'][k])} and {int(b['row'][k])}: expected one row, got both about "
            f"system {names['system'][int(a['system'][k])]!r}, entity {names['entity'][int(a['entity'][k])]!r}, "
            f"step {float(a['step'][k]):g}"
        )


def _regular(where: str, name: str, distinct: Array) -> tuple[int, float, float, float]:
    """A system's steps: their number, the first, what lies between two, and the same on the mean.

    Steps may jitter, as times that were rounded do, and some may be missing.
    """
    if len(distinct) == 1:
        return 1, float(distinct[0]), 1.0, 1.0
    apart = np.diff(distinct)
    between = float(np.median(apart))
    numbers = np.rint(apart / between)
    odd = (np.abs(apart / between - numbers) > 0.3) | (numbers < 1) | (numbers > LONGEST_GAP)
    if odd.any():
        k = int(odd.argmax())
        raise DataError(
            f"{where}: system {name!r}: expected steps at equal distances (about {between:g}, up to {LONGEST_GAP} "
            f"missing), got {distinct[k]:g} followed by {distinct[k + 1]:g}"
        )
    steps = int(numbers.sum())
    return steps + 1, float(distinct[0]), between, float(distinct[-1] - distinct[0]) / steps


class _TableRecordings(MadeOnDemand):
    """The systems of a sorted file, some bytes each."""

    def __init__(
        self, where: str, file: Path, kind: np.dtype[np.void], unit: float, systems: list[str], entities: list[str]
    ) -> None:
        self._where, self._file, self._kind, self._unit = where, file, kind, unit
        self._systems, self._entities = systems, entities
        self._facts: tuple[array[Any], ...] = tuple(array(code) for code in "qqqqddd")
        self._members, self._members_end = array("i"), array("q", [0])

    def add(self, facts: _Facts, members: Array) -> None:
        """Remember a system, and the numbers of its entities."""
        for column, value in zip(self._facts, facts, strict=True):
            column.append(value)
        self._members.extend(members.tolist())
        self._members_end.append(len(self._members))

    def __len__(self) -> int:
        return len(self._facts[0])

    def make(self, place: int) -> Recording:
        facts = _Facts(*(column[place] for column in self._facts))
        members = np.array(self._members[self._members_end[place] : self._members_end[place + 1]])
        return Recording(
            self._systems[facts.system],
            facts.steps,
            tuple(self._entities[e] for e in members),
            facts.time_step * self._unit,
            functools.partial(_pieces, self._file, self._kind, facts, members),
            step_name=lambda k: f"{facts.first_step + k * facts.time_step:g}",
        )


def _pieces(file: Path, kind: np.dtype[np.void], facts: _Facts, members: Array) -> Iterator[Array]:
    """A recording's states, some steps at a time; NaN where there is no row."""
    features = kind["features"].shape[0]
    longest = min(facts.steps, max(1, PIECE // (len(members) * features)))
    number, last_step = 0, facts.first_step  # step number of the last row that was placed, and its name
    piece = np.full((longest, len(members), features), np.nan)
    begin = 0  # step number that the piece begins with
    for block in blocks(file, kind, facts.first, facts.rows, max(1, min(RUN, longest * len(members)))):
        apart = np.diff(block["step"], prepend=last_step)
        numbers = number + np.cumsum(np.rint(apart / facts.between)).astype(np.int64)
        number, last_step = int(numbers[-1]), float(block["step"][-1])
        places = np.searchsorted(members, block["entity"])
        done = 0
        while done < len(block):
            fits = int(np.searchsorted(numbers, begin + longest))
            piece[numbers[done:fits] - begin, places[done:fits]] = block["features"][done:fits]
            done = max(done, fits)
            if done < len(block):
                yield piece
                begin += longest
                piece = np.full_like(piece, np.nan)
    yield piece[: facts.steps - begin]
