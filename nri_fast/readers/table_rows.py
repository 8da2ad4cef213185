"""Rows of a table, chunk by chunk: CSV with the standard library, Parquet with pyarrow."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from nri_fast.readers.recording import Array, DataError

ROWS = 1 << 16  # rows of a chunk
DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Attributes
    ----------
    first_row : int
        Number of the first one; the header of a CSV file is row 1, the first row of a Parquet file too.
    text : dict of str
        Columns that were asked for as text: lists of str.
    numbers : dict of str
        Columns that were asked for as numbers: float64 arrays, NaN where a cell is empty.
    """

    first_row: int
    text: dict[str, list[str]]
    numbers: dict[str, Array]


#: Reads columns of a file: its path, and the names of those wanted as text and as numbers.
RowReader = Callable[[Path, Sequence[str], Sequence[str]], Iterator[Rows]]


def csv_rows(file: Path, text: Sequence[str], numbers: Sequence[str]) -> Iterator[Rows]:
    """Read some columns of a CSV file (UTF-8, a header, separated by comma, semicolon, tab or bar).

    Parameters
    ----------
    file : path
    text, numbers : sequence of str
        Columns wanted as text and as numbers.

    Yields
    ------
    Rows

    Raises
    ------
    FileNotFoundError
    DataError
        A column that is not there or there twice, a row with too few or too many cells, a cell that is no number, an
        empty name: file, row and column are named.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            first = opened.readline()
            if not first.strip():
                raise DataError(f"{file}: row 1: expected a header with the names of the columns, got nothing")
            opened.seek(0)
            delimiter = max(DELIMITERS, key=first.count)
            reader = csv.reader(opened, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader)]
            places = _places(file, header, [*text, *numbers])
            numeric = {places[name] for name in numbers if name not in text}
            kind = np.dtype([(f"column {k}", "f8" if k in numeric else "O") for k in range(len(header))])
            row = 2
            for columns in _csv_columns(file, opened, delimiter, kind, reader.line_num):
                yield Rows(
                    row,
                    {name: _names(file, row, name, columns[places[name]]) for name in text},
                    {name: _csv_numbers(file, row, name, columns[places[name]]) for name in numbers},
                )
                row += len(columns[0])
    except UnicodeDecodeError as problem:
        raise DataError(f"{file}: expected UTF-8 text, got byte {problem.object[problem.start]:#x}") from problem


def _csv_columns(
    file: Path, opened: Iterator[str], delimiter: str, kind: np.dtype[np.void], lines_before: int
) -> Iterator[Sequence[Any]]:
    """Some rows at a time, as a sequence for each column.

    NumPy reads what is plain, twice as fast. What it does not take is read with the csv module, which can tell where a
    mistake is; from the first quote on that reads all, as a quoted cell may have several lines.
    """
    row = 2
    while lines := list(islice(opened, ROWS)):
        quoted = '"' in "".join(lines)
        table = None if quoted else _plain(lines, delimiter, kind)
        if table is not None:
            yield [table[name] for name in kind.names or ()]
        else:
            rest = chain(lines, opened) if quoted else iter(lines)
            yield from _careful(file, rest, delimiter, len(kind.names or ()), row, lines_before)
        row += len(lines)
        lines_before += len(lines)


def _plain(lines: list[str], delimiter: str, kind: np.dtype[np.void]) -> Array | None:
    """A row for each line; None if there are empty cells or lines, odd numbers of cells, or text for numbers."""
    if not lines[0].strip():
        return None
    try:
        table = np.loadtxt(lines, kind, comments=None, delimiter=delimiter, encoding=None, ndmin=1)
    except ValueError:
        return None
    return table if len(table) == len(lines) else None


def _careful(
    file: Path, lines: Iterator[str], delimiter: str, width: int, row: int, lines_before: int
) -> Iterator[Sequence[Any]]:
    """The same by the csv module; `row` is the first one's number."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        while rows := list(islice(reader, ROWS)):
            if set(map(len, rows)) != {width}:
                odd = next(k for k, cells in enumerate(rows) if len(cells) != width)
                raise DataError(f"{file}: row {row + odd}: expected {width} cells, got {len(rows[odd])}")
            yield list(zip(*rows, strict=True))
            row += len(rows)
    except csv.Error as problem:
        raise DataError(f"{file}: line {lines_before + reader.line_num}: damaged ({problem})") from problem


def parquet_rows(file: Path, text: Sequence[str], numbers: Sequence[str]) -> Iterator[Rows]:
    """Read some columns of a Parquet file; arguments, result and errors as of :func:`csv_rows`.

    Raises
    ------
    DataError
        Also if pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise DataError(f"{file}: Parquet files need pyarrow: pip install 'nri_fast[tables]' ({problem})") from problem
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        with pq.ParquetFile(file) as opened:
            _places(file, opened.schema_arrow.names, [*text, *numbers])
            row = 1
            for batch in opened.iter_batches(ROWS, columns=list(dict.fromkeys([*text, *numbers]))):
                yield Rows(
                    row,
                    {
                        name: _names(file, row, name, ["" if v is None else str(v) for v in batch[name].to_pylist()])
                        for name in text
                    },
                    {name: _parquet_numbers(file, row, name, batch[name]) for name in numbers},
                )
                row += batch.num_rows
    except (pa.ArrowException, OSError) as problem:
        raise DataError(f"{file}: damaged or no Parquet file ({problem})") from problem


def _places(file: Path, header: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    for name in wanted:
        if header.count(name) != 1:
            there = "is not there" if name not in header else f"is there {header.count(name)} times"
            raise DataError(f"{file}: expected one column {name!r}, it {there}; columns: {', '.join(header)}")
    return {name: header.index(name) for name in wanted}


def _names(file: Path, row: int, column: str, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if "" in names:
        raise DataError(
            f"{file}: row {row + names.index('')}, column {column!r}: expected a name or number, got nothing"
        )
    return names


def _csv_numbers(file: Path, row: int, column: str, cells: Sequence[str] | Array) -> Array:
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "f":
        return _check_finite(file, row, column, cells)
    if "" in cells:
        cells = [cell or "nan" for cell in cells]
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        values = np.array([_number(file, row + k, column, cell) for k, cell in enumerate(cells)])
    return _check_finite(file, row, column, values)


def _number(file: Path, row: int, column: str, cell: str) -> float:
    try:
        return float(cell.strip() or "nan")
    except ValueError:
        raise DataError(f"{file}: row {row}, column {column!r}: expected a number, got {cell!r}") from None


def _parquet_numbers(file: Path, row: int, column: str, values: object) -> Array:
    import pyarrow as pa

    assert isinstance(values, pa.Array)
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{file}: column {column!r}: expected numbers, got {kind}")
    return _check_finite(file, row, column, np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False)))


def _check_finite(file: Path, row: int, column: str, values: Array) -> Array:
    infinite = np.isinf(values)
    if infinite.any():
        place = int(infinite.argmax())
        raise DataError(f"{file}: row {row + place}, column {column!r}: expected a finite number, got {values[place]}")
    return values
