"""What an experiment consists of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

Scale = Literal["small", "full"]
Figures = dict[str, Any]  # whatever JSON can hold


@dataclass(frozen=True)
class Workplace:
    """Where and how a part is worked off.

    Attributes
    ----------
    folder : Path
        Belongs to the part; what lies there survives a kill.
    device : str
        Where to compute.
    progress : bool
        Show progress bars on terminals.
    """

    folder: Path
    device: str = "cpu"
    progress: bool = True


@dataclass(frozen=True)
class Part:
    """A piece of work that is done once.

    Attributes
    ----------
    name : str
        Of its JSON file and its folder: letters, digits, hyphens.
    work : callable
        Returns the figures. Depends on nothing but what it was made of and its workplace, and may find the workplace's
        folder as a killed predecessor left it.
    """

    name: str
    work: Callable[[Workplace], Figures]


@dataclass(frozen=True)
class Report:
    """What the parts' figures say.

    Attributes
    ----------
    title : str
        Of the table and the figure.
    columns : sequence of str
        Heads of the table.
    rows : sequence of sequences of str
        Its cells.
    notes : sequence of str
        What a reader has to know about the figures.
    figure : Figure
        The picture.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    figure: Figure

    def markdown(self) -> str:
        """The table with its title and notes, aligned so that it can be read as it is."""
        cells = [list(self.columns), *[list(row) for row in self.rows]]
        for row in cells:
            if len(row) != len(self.columns):
                raise ValueError(f"rows: expected {len(self.columns)} cells, got {row}")
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(self.columns))]
        lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
        lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
        return "\n".join([f"# {self.title}", "", *lines, "", *(f"- {note}" for note in self.notes)]) + "\n"


@dataclass(frozen=True)
class Experiment:
    """Parts and what to make of them.

    Attributes
    ----------
    parts : callable
        (scale, seed) -> the parts, in the order in which they are worked off; (scale, seed, files) if it needs data;
        (scale, seed, files, tested) if it can judge recordings of files that it does not learn from (`tested` is empty:
        it sets some of its recordings aside instead).
    report : callable
        Figures of all parts, by name, in that order -> Report.
    data : str
        Which recordings it needs, for people; empty: none.
    takes_test : bool
        It can judge files that it does not learn from.
    """

    parts: Callable[..., list[Part]]
    report: Callable[[dict[str, Figures]], Report]
    data: str = ""
    takes_test: bool = False
