"""How right inferred types are, and how right when how sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nri_fast import metrics
from nri_fast.calibration import Reliability
from nri_fast.plot.style import COLOURS, INK, TEXT, ArrayLike, as_array, plain


def confusion(
    inferred: ArrayLike,
    true: ArrayLike,
    type_names: Sequence[str] | None = None,
    sizes: ArrayLike | None = None,
) -> Figure:
    """How often each inferred type stands where each true type does.

    Parameters
    ----------
    inferred, true : integer array or tensor, [systems, N, N]
        Inferred types under the true types' names (:func:`relabel`).
    type_names : sequence of str, [K], optional
    sizes : int array or tensor, [systems], optional
        Numbers of entities, where systems differ in size; what lies behind them is not counted.

    Returns
    -------
    Figure
        Rows are true types; each row adds up to 100 %.
    """
    types = None if type_names is None else len(type_names)
    counts = metrics.confusion(as_array(inferred), as_array(true), types, sizes).T
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [f"type {k}" for k in range(len(counts))] if type_names is None else list(type_names)
    figure = Figure(figsize=(2.6 + 1.1 * len(counts), 1.8 + 1.1 * len(counts)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(*counts.shape):
        text = f"{share[row, column]:.1f} %\n{counts[row, column]:,}"
        colour = "white" if share[row, column] > 55 else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    axes.set_xticks(range(len(names)), names, **TEXT)
    axes.set_yticks(range(len(names)), names, **TEXT)
    axes.set_xlabel("inferred type", **TEXT)
    axes.set_ylabel("true type", **TEXT)
    figure.colorbar(image, ax=axes, label="share of the true type's edges (%)", shrink=0.85)
    return figure


def reliability(tables: Mapping[str, Reliability]) -> Figure:
    """Reliability diagram: share of edges that are right over how sure they are, and how many are how sure.

    Parameters
    ----------
    tables : mapping of str to Reliability
        By the name that the legend gives them (see :func:`nri_fast.calibration.reliability`).

    Returns
    -------
    Figure
        On the diagonal, probabilities mean what they say; below it they are too sure.
    """
    figure = Figure(figsize=(6.0, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    lowest = 1.0
    for k, (name, table) in enumerate(tables.items()):
        there = table.count > 0
        colour = COLOURS[k % len(COLOURS)]
        label = f"{name}: expected calibration error {table.error:.4f}"
        above.plot(table.confidence[there], table.right[there], color=colour, marker="o", ms=5, lw=1.6, label=label)
        share = 100 * table.count / max(int(table.count.sum()), 1)
        below.plot(table.confidence[there], share[there], color=colour, marker="o", ms=4, lw=1.2)
        lowest = min([lowest, *table.edge[:-1][there].tolist()])
    above.plot([lowest, 1], [lowest, 1], color=INK, lw=1.0, ls=(0, (4, 2)))
    above.set_ylabel("share of edges that are right", **TEXT)
    above.legend(frameon=False, fontsize=10, loc="upper left")
    below.set_yscale("log")
    below.set_ylabel("edges (%)", **TEXT)
    below.set_xlabel("probability of the likeliest type", **TEXT)
    for axes in (above, below):
        plain(axes)
    return figure
