"""All systems in one graph against one at a time, as ``nri-fast experiment mega-graph`` measures it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bench.cases import Effort
from bench.device.limits import Limits
from bench.rows import Row
from nri_fast.experiments import mega_graph
from nri_fast.experiments.experiment import Workplace


def rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """A row for each width and number of systems."""

    def row(width: int, systems: int, repeats: int) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            place = Workplace(Path(folder), str(device), False)
            figures = mega_graph.measured(systems, width, repeats, 1, place)
        return {
            "subject": "mega_graph",
            "work": "energies of a mega-graph, and one system at a time",
            "case": {"width": width, "systems": systems},
            "figures": figures,
            "times_faster": float(f"{figures['one_at_a_time'] / figures['at_once']:.4g}"),
        }

    tiny = effort.name == "tiny"
    for width in effort.widths:
        for systems in (2,) if tiny else (100, 1000):
            yield functools.partial(row, width, systems, 1 if tiny else 3)
