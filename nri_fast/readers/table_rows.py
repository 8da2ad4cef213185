"""Rows of a table, chunk by chunk, from CSV and Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nri_fast.readers import csv_columns
from nri_fast.readers.recording import Array, DataError

DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Names(Sequence[str]):
    """A column of names, of which there are few in many rows.

    Attributes
    ----------
    distinct : list of str
        In the order in which they come.
    each : ndarray, int64
        For every row the place of its name among them.
    """

    distinct: list[str]
    each: Array

    @classmethod
    def of(cls, file: Path, row: int, column: str, cells: Any) -> Names:
        """Of a column's cells, the first of which is in `row`, without blanks around them.

        Raises
        ------
        DataError
            An empty name.
        """
        if hasattr(cells, "dictionary_encode"):  # pyarrow's, which does it sooner
            encoded = cells.dictionary_encode()
            written, each = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
        else:
            places: dict[str, int] = {}
            each = np.fromiter((places.setdefault(cell, len(places)) for cell in cells), np.int64, len(cells))
            written = list(places)
        names = cls([name.strip() for name in written], each)
        if "" in names.distinct:
            empty = row + next(k for k, name in enumerate(names) if not name)
            raise DataError(f"{file}: row {empty}, column {column!r}: expected a name or number, got nothing")
        return names

    def __len__(self) -> int:
        return len(self.each)

    def __getitem__(self, row: Any) -> Any:
        return self.distinct[self.each[row]]


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Attributes
    ----------
    first_row : int
        Number of the first one; the header of a CSV file is row 1, the first row of a Parquet file too.
    text : dict of str
        Columns that were asked for as text.
    numbers : dict of str
        Columns that were asked for as numbers: float64 arrays, NaN where a cell is empty.
    """

    first_row: int
    text: dict[str, Names]
    numbers: dict[str, Array]

    def __len__(self) -> int:
        return len(next(iter((*self.text.values(), *self.numbers.values()))))


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
            written = {places[name] for name in text}
            numeric = {places[name] for name in numbers} - written
            row = 2
            for columns in csv_columns.read_columns(
                file, opened, delimiter, len(header), written, numeric, reader.line_num
            ):
                rows = Rows(
                    row,
                    {name: Names.of(file, row, name, columns[places[name]]) for name in text},
                    {name: _csv_numbers(file, row, name, columns[places[name]]) for name in numbers},
                )
                yield rows
                row += len(rows)
    except UnicodeDecodeError as problem:
        raise DataError(f"{file}: expected UTF-8 text, got byte {problem.object[problem.start]:#x}") from problem


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
            for batch in opened.iter_batches(csv_columns.ROWS, columns=list(dict.fromkeys([*text, *numbers]))):
                yield Rows(
                    row,
                    {
                        name: Names.of(file, row, name, ["" if v is None else str(v) for v in batch[name].to_pylist()])
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
