"""Columns of a CSV file, some rows at a time, by the fastest reader that takes them.

What is plain is read by pyarrow, if it is installed, or by NumPy. What these do not take is read with the csv module,
which can tell where a mistake is; from the first quote on that reads all, as a quoted cell may have several lines.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from nri_fast.readers.recording import DataError

try:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
except ImportError:
    pa = None

ROWS = 1 << 16  # rows of a chunk

#: Columns by their place; each a list of str, an array of str or of float64, or an array of pyarrow's.
Columns = Mapping[int, Any]


def read_columns(
    file: Path,
    opened: Iterator[str],
    delimiter: str,
    width: int,
    text: Collection[int],
    numeric: Collection[int],
    lines_before: int,
) -> Iterator[Columns]:
    """Read the columns `text` and `numeric` of the rows behind the header.

    Parameters
    ----------
    file : path
        For errors.
    opened : iterator of str
        Lines, with their ends.
    delimiter : str
    width : int
        Number of columns of the table.
    text, numeric : collection of int
        Places of the columns wanted as they are written, and as numbers where all of a chunk's are plain numbers.
    lines_before : int
        Lines that were read already.

    Raises
    ------
    DataError
        A row with too few or too many cells, or an unfinished quote: file and row are named.
    """
    row = 2
    plain = _by_numpy if pa is None else _by_pyarrow
    while lines := list(islice(opened, ROWS)):
        quoted = '"' in "".join(lines)
        columns = None if quoted else plain(lines, delimiter, width, text, numeric)
        if columns is not None:
            yield columns
        else:
            rest = chain(lines, opened) if quoted else iter(lines)
            yield from _by_csv(file, rest, delimiter, width, row, lines_before)
        row += len(lines)
        lines_before += len(lines)


def _by_pyarrow(
    lines: list[str], delimiter: str, width: int, text: Collection[int], numeric: Collection[int]
) -> Columns | None:
    """A row for each line; None if there are empty cells or lines, odd numbers of cells, or text for numbers."""
    names = [str(k) for k in range(width)]
    wanted = {names[k]: pa.string() for k in text} | {names[k]: pa.float64() for k in numeric}
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader("".join(lines).encode()),
            arrow_csv.ReadOptions(use_threads=False, column_names=names),
            arrow_csv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            arrow_csv.ConvertOptions(column_types=wanted, include_columns=list(wanted), null_values=[]),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != len(lines):
        return None
    columns = {int(name): table[name].combine_chunks() for name in wanted}
    return columns | {k: columns[k].to_numpy(zero_copy_only=False) for k in numeric}


def _by_numpy(
    lines: list[str], delimiter: str, width: int, text: Collection[int], numeric: Collection[int]
) -> Columns | None:
    """The same."""
    if not lines[0].strip():
        return None
    kind = np.dtype([(str(k), "f8" if k in numeric else "O") for k in range(width)])
    try:
        table = np.loadtxt(lines, kind, comments=None, delimiter=delimiter, encoding=None, ndmin=1)
    except ValueError:
        return None
    return {k: table[str(k)] for k in (*text, *numeric)} if len(table) == len(lines) else None


def _by_csv(
    file: Path, lines: Iterator[str], delimiter: str, width: int, row: int, lines_before: int
) -> Iterator[Columns]:
    """All columns as they are written; `row` is the first one's number."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        while rows := list(islice(reader, ROWS)):
            if set(map(len, rows)) != {width}:
                odd = next(k for k, cells in enumerate(rows) if len(cells) != width)
                raise DataError(f"{file}: row {row + odd}: expected {width} cells, got {len(rows[odd])}")
            yield dict(enumerate(zip(*rows, strict=True)))
            row += len(rows)
    except csv.Error as problem:
        raise DataError(f"{file}: line {lines_before + reader.line_num}: damaged ({problem})") from problem
