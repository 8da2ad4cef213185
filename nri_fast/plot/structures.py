"""Graphs, true above inferred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from nri_fast.plot.style import INK, PANEL, TEXT, WRONG_COLOUR, Array, ArrayLike, as_array, sizes_of, type_colour


def relabel(adjacency: ArrayLike, relabelling: Sequence[int]) -> Array:
    """Inferred types under their true names.

    Parameters
    ----------
    adjacency : integer array or tensor, [systems, entities, entities]
    relabelling : sequence of int, [K]
        Inferred type k means true type ``relabelling[k]`` (:func:`nri_fast.evaluate` finds it).

    Returns
    -------
    ndarray, int64, [systems, entities, entities]
        With a zero diagonal.
    """
    named = np.asarray(relabelling, dtype=np.int64)[as_array(adjacency)]
    entities = named.shape[1]
    named[:, np.arange(entities), np.arange(entities)] = 0
    return named


def graphs(
    inferred: ArrayLike,
    true: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    type_names: Sequence[str] | None = None,
    silent: int | None = None,
    titles: Sequence[str] | None = None,
    sizes: ArrayLike | None = None,
) -> Figure:
    """True graphs above inferred ones, a column for each system, entities on a circle.

    Edges are coloured by type and as strong as they are probable; wrong ones carry a red cross. Two edges between the
    same entities are drawn as two arcs, and each arrow points at the receiver.

    Parameters
    ----------
    inferred : integer array or tensor, [systems, N, N]
        ``inferred[s, i, j]`` is the type of the edge from i to j, under the true types' names (:func:`relabel`).
    true : integer array or tensor, [systems, N, N], optional
        The true types.
    probability : float array or tensor, [systems, N, N], optional
        Of the inferred type.
    type_names : sequence of str, optional
        For the legend.
    silent : int, optional
        A type that means "no interaction": drawn in thin grey.
    titles : sequence of str, [systems], optional
    sizes : int array or tensor, [systems], optional
        Numbers of entities, where systems differ in size; what lies behind them is not drawn.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    inferred = as_array(inferred)
    true = None if true is None else as_array(true)
    strength = np.ones(inferred.shape) if probability is None else as_array(probability)
    if inferred.ndim != 3 or inferred.shape[1] != inferred.shape[2]:
        raise ValueError(f"inferred: expected [systems, N, N], got shape {list(inferred.shape)}")
    for name, other in (("true", true), ("probability", strength)):
        if other is not None and other.shape != inferred.shape:
            raise ValueError(f"{name}: expected the shape of inferred, {list(inferred.shape)}, got {list(other.shape)}")
    systems = len(inferred)
    there = sizes_of(inferred.shape[1], systems, sizes)
    rows = [("inferred", inferred)] if true is None else [("true", true), ("inferred", inferred)]
    figure = Figure(figsize=(max(PANEL * systems, 4.5), 0.92 * PANEL * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots(len(rows), systems, squeeze=False)
    for row, (title, adjacency) in enumerate(rows):
        for s, n in enumerate(there):
            own = (s, slice(n), slice(n))
            certain = strength[own] if title == "inferred" else np.ones((n, n))
            wrong = None if true is None or title == "true" else adjacency[own] != true[own]
            draw_graph(axes[row, s], adjacency[own], certain, wrong, silent)
        axes[row, 0].set_ylabel(title, fontsize=14, color=INK)
    for s in range(systems):
        axes[0, s].set_title(f"system {s}" if titles is None else titles[s], **TEXT)
    types = 1 + max(int(a.max(initial=0)) for _, a in rows)
    names = [f"type {k}" for k in range(types)] if type_names is None else list(type_names)
    marks: list[Line2D] = [
        Line2D([], [], color=type_colour(k, silent), lw=1.2 if k == silent else 3, label=name)
        for k, name in enumerate(names)
    ]
    if true is not None:
        marks.append(Line2D([], [], color=WRONG_COLOUR, marker="x", ls="", ms=8, mew=2, label="wrong type"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=11)
    return figure


def draw_graph(axes: Axes, adjacency: Array, strength: Array, wrong: Array | None, silent: int | None) -> None:
    """One graph [N, N], entities on a circle, edges as strong as their probability [N, N], those of `wrong` crossed."""
    entities = len(adjacency)
    angles = np.pi / 2 - 2 * np.pi * np.arange(entities) / max(entities, 1)
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    crowded = entities > 6
    for i in range(entities):
        for j in range(entities):
            if i == j:
                continue
            kind = int(adjacency[i, j])
            is_wrong = wrong is not None and bool(wrong[i, j])
            quiet = kind == silent and not is_wrong
            certain = float(np.clip(strength[i, j], 0, 1))
            arrow = FancyArrowPatch(
                places[i],
                places[j],
                connectionstyle="arc3,rad=0.13",
                arrowstyle="-|>",
                mutation_scale=5 if quiet else 9,
                shrinkA=9,
                shrinkB=9,
                lw=(0.6 if quiet else (1.2 if crowded else 2.0)) * (0.3 + 0.7 * certain),
                alpha=0.25 + 0.75 * certain,
                color=type_colour(kind, silent),
                zorder=1 if quiet else 2,
            )
            axes.add_patch(arrow)
            if is_wrong:
                # The middle of the arc: half its control point's offset, to the left of its way.
                way = places[j] - places[i]
                middle = (places[i] + places[j]) / 2 + 0.065 * np.array([way[1], -way[0]])
                axes.plot(*middle, marker="x", color=WRONG_COLOUR, ms=7, mew=2, zorder=4)
    axes.plot(places[:, 0], places[:, 1], "o", ms=15, mfc="white", mec=INK, mew=1.2, zorder=3)
    for number, (x, y) in enumerate(places):
        axes.text(x, y, str(number), ha="center", va="center", fontsize=9, color=INK, zorder=5)
    axes.set(xlim=(-1.25, 1.25), ylim=(places[:, 1].min() - 0.25, 1.25), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
