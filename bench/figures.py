"""Pictures of the record: the share of the peak over batch size and width, and how cost grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.rows import OURS
from nri_fast.plot.style import COLOURS, PANEL, TEXT, plain

Rows = list[dict[str, Any]]

SCALED = {"entities": "entities", "edge_types": "edge types", "rollout": "roll-out length", "systems": "systems"}


def draw_peak(rows: Rows, path: Path) -> None:
    """A panel for each piece of work and number of threads; a line for each width, dashed for larger systems."""
    works = list(dict.fromkeys(row["work"] for row in rows))
    threads = sorted({row["case"]["threads"] for row in rows})
    widths = sorted({row["case"]["width"] for row in rows})
    entities = sorted({row["case"]["entities"] for row in rows})
    figure = Figure(figsize=(1.2 + PANEL * len(works), 0.6 + PANEL * len(threads)), layout="constrained")
    grid = figure.subplots(len(threads), len(works), squeeze=False, sharex=True, sharey=True)
    for row_axes, count in zip(grid, threads, strict=True):
        for axes, work in zip(row_axes, works, strict=True):
            for k, width in enumerate(widths):
                for n, style in zip(entities, ("-", "--"), strict=False):
                    points = sorted(
                        (row["case"]["systems"], 100 * row["runs"][OURS]["of_peak"])
                        for row in rows
                        if row["work"] == work
                        and (row["case"]["threads"], row["case"]["width"], row["case"]["entities"]) == (count, width, n)
                    )
                    label = f"width {width}, {n} entities"
                    axes.plot(*zip(*points, strict=True), style, marker="o", ms=3, color=COLOURS[k], label=label)
            axes.set_xscale("log")
            axes.set_ylim(0, 105)
            axes.set_title(f"{work}, {count} thread{'s' if count > 1 else ''}", **{**TEXT, "fontsize": 9})
            plain(axes)
    for axes in grid[-1]:
        axes.set_xlabel("systems", **TEXT)
    for axes in grid[:, 0]:
        axes.set_ylabel("% of FMA peak", **TEXT)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_scaling(rows: Rows, path: Path) -> None:
    """A panel for each quantity, the dashed line being proportional to the useful operations."""
    figure = Figure(figsize=(0.6 + PANEL * len(SCALED), 0.4 + PANEL), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(SCALED)), SCALED.items(), strict=True):
        points = sorted(
            (row["case"][name], row["runs"][OURS]["median_ms"], row["gflop"]) for row in rows if row["over"] == name
        )
        places, times, work = zip(*points, strict=True)
        axes.plot(places, times, "o-", ms=3, color=COLOURS[0])
        axes.plot(places, [times[-1] * done / work[-1] for done in work], "--", lw=0.8, color="0.6")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(0.5 * min(times), max(2 * max(times), 20 * min(times)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(title, **TEXT)
        axes.set_ylabel("ms", **TEXT)
        plain(axes)
    figure.savefig(path, dpi=110)
