"""Measured figures: curves over a quantity, and dots by category, each repetition shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nri_fast.plot.style import COLOURS, INK, TEXT, plain


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    x_log: bool = False,
    y_log: bool = False,
    title: str = "",
) -> Figure:
    """A curve for each series through the means of its repetitions, which are dots.

    Parameters
    ----------
    series : mapping of str to points (x, y)
        By the name that the legend gives them; points with equal x are repetitions.
    x_label, y_label, title : str
    x_log, y_log : bool
        Logarithmic axes.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(6.5, 4.4), layout="constrained")
    axes = figure.subplots()
    for k, (name, points) in enumerate(series.items()):
        colour = COLOURS[k % len(COLOURS)]
        places = sorted({x for x, _ in points})
        means = [float(np.mean([y for x, y in points if x == place])) for place in places]
        axes.plot(places, means, color=colour, lw=2, label=name)
        axes.plot([x for x, _ in points], [y for _, y in points], "o", color=colour, ms=4, alpha=0.7)
    if x_log:
        axes.set_xscale("log")
    if y_log:
        axes.set_yscale("log")
    axes.set_xlabel(x_label, **TEXT)
    axes.set_ylabel(y_label, **TEXT)
    axes.set_title(title, **TEXT)
    if series:
        axes.legend(frameon=False, fontsize=10)
    plain(axes)
    return figure


def dots(groups: Mapping[str, Mapping[str, Sequence[float]]], y_label: str, title: str = "") -> Figure:
    """Values of several things in several categories, a dot for each repetition and a bar at the mean.

    Parameters
    ----------
    groups : mapping of str to mapping of str to values
        Category -> thing -> its values.
    y_label, title : str

    Returns
    -------
    Figure
    """
    things = list(dict.fromkeys(thing for values in groups.values() for thing in values))
    figure = Figure(figsize=(max(4.5, 1.5 + 1.4 * len(groups)), 4.2), layout="constrained")
    axes = figure.subplots()
    for k, thing in enumerate(things):
        colour, offset = COLOURS[k % len(COLOURS)], 0.6 * ((k + 0.5) / len(things) - 0.5)
        for place, values in enumerate(groups.values()):
            found = list(values.get(thing, []))
            if found:
                axes.plot([place + offset - 0.1, place + offset + 0.1], [np.mean(found)] * 2, color=colour, lw=3)
                axes.plot([place + offset] * len(found), found, "o", color=colour, mec="white", ms=5)
        axes.plot([], [], color=colour, lw=3, label=thing)
    axes.set_xticks(range(len(groups)), list(groups), fontsize=10, color=INK)
    axes.set_ylabel(y_label, **TEXT)
    axes.set_title(title, **TEXT)
    if things:
        axes.legend(frameon=False, fontsize=10)
    plain(axes)
    return figure
