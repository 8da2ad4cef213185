"""Entities that nobody observed: where they were found, beside where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nri_fast.plot.structures import draw_graph
from nri_fast.plot.style import COLOURS, PANEL, TEXT, WRONG_COLOUR, Array, ArrayLike, as_array, plain, type_colour

HIDDEN_COLOUR = "#000000"
TRUE_COLOUR = "#9A9A9A"


def unseen(
    seen: ArrayLike,
    found: ArrayLike,
    adjacency: ArrayLike,
    true: ArrayLike | None = None,
    true_adjacency: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    feature_names: Sequence[str] = ("x", "y", "vx", "vy"),
    silent: int | None = None,
    titles: Sequence[str] | None = None,
    sizes: ArrayLike | None = None,
) -> Figure:
    """Recorded paths of the seen entities, found paths of the unseen ones, and the graph of all below them.

    With features x and y the panels show the plane; otherwise the first feature over the steps.

    Parameters
    ----------
    seen : float array or tensor, [systems, steps, N - H, D]
        Recorded, in normalised units; NaN where nothing is.
    found : float array or tensor, [systems, steps, H, D]
        Unseen entities as :func:`nri_fast.find_unseen` found them.
    adjacency : integer array or tensor, [systems, N, N]
        Types found, the unseen entities numbered last; under the true types' names (:func:`relabel`) beside those.
    true : float array or tensor, [systems, steps, H, D], optional
        Where the unseen entities really were.
    true_adjacency : integer array or tensor, [systems, N, N], optional
        Wrong edges get a cross.
    probability : float array or tensor, [systems, N, N], optional
        Of the types found.
    feature_names : sequence of str, [D]
    silent : int, optional
        A type that means "no interaction": drawn in thin grey.
    titles : sequence of str, [systems], optional
    sizes : integer array or tensor, [systems], optional
        Entities of each system, the unseen ones included and right behind its seen ones. N in all, if not given.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    seen, found, adjacency = as_array(seen), as_array(found), as_array(adjacency)
    true, right = (None if x is None else as_array(x) for x in (true, true_adjacency))
    systems, steps, entities, features = seen.shape
    size = entities + found.shape[2]
    for name, array, shape in (
        ("found", found, (systems, steps, found.shape[2], features)),
        ("adjacency", adjacency, (systems, size, size)),
        ("true", true, found.shape),
        ("true_adjacency", right, adjacency.shape),
    ):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: expected shape {[*shape]}, got {[*array.shape]}")
    strength = np.ones(adjacency.shape) if probability is None else as_array(probability)
    figure = Figure(figsize=(max(1.15 * PANEL * systems, 4.5), 2.2 * PANEL + 0.5), layout="constrained")
    axes = figure.subplots(2, systems, squeeze=False, height_ratios=(1.15, 1))
    plane = "x" in feature_names and "y" in feature_names
    places = [feature_names.index("x"), feature_names.index("y")] if plane else [0]
    every = np.full(systems, size) if sizes is None else as_array(sizes)
    for s, own in enumerate(every.tolist()):
        known, pairs = own - found.shape[2], (slice(own), slice(own))
        _draw_paths(
            axes[0, s],
            seen[s][:, :known][..., places],
            found[s][..., places],
            None if true is None else true[s][..., places],
        )
        axes[0, s].set_title(f"system {s}" if titles is None else titles[s], **TEXT)
        axes[0, s].set_xlabel("x (normalised units)" if plane else "step", **TEXT)
        wrong = None if right is None else (adjacency[s] != right[s])[pairs]
        draw_graph(axes[1, s], adjacency[s][pairs], strength[s][pairs], wrong, silent)
        for entity in range(known, own):
            angle = np.pi / 2 - 2 * np.pi * entity / own
            axes[1, s].plot(np.cos(angle), np.sin(angle), "o", ms=19, mfc="none", mec=HIDDEN_COLOUR, mew=1.8, zorder=3)
    axes[0, 0].set_ylabel("y (normalised units)" if plane else f"{feature_names[0]} (normalised units)", **TEXT)
    figure.legend(
        handles=_marks(adjacency, true is not None, right is not None, silent),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=10,
    )
    return figure


def _draw_paths(axes: Axes, seen: Array, found: Array, true: Array | None) -> None:
    """Paths of one system, [steps, entities, 1 or 2]."""
    for entity in range(seen.shape[1]):
        _draw(axes, seen[:, entity], color=COLOURS[entity % len(COLOURS)], alpha=0.4, lw=3, solid_capstyle="round")
    for entity in range(found.shape[1]):
        if true is not None:
            _draw(axes, true[:, entity], color=TRUE_COLOUR, lw=6, alpha=0.6, solid_capstyle="round")
        _draw(axes, found[:, entity], color=HIDDEN_COLOUR, lw=1.6, ls=(0, (3, 1.2)))
        start, place = np.full_like(found[:, entity], np.nan), np.isfinite(found[:, entity]).all(-1).argmax()
        start[place] = found[place, entity]
        _draw(axes, start, color=HIDDEN_COLOUR, marker="o", ms=6, mec="white", ls="")
    shown = np.concatenate([seen, *([] if true is None else [true])], axis=1).reshape(-1, seen.shape[-1])
    low, high = np.nanmin(shown, 0), np.nanmax(shown, 0)
    half, centre = 0.62 * max(float((high - low).max()), 1e-9), (low + high) / 2
    axes.set_ylim(centre[-1] - half, centre[-1] + half)
    if seen.shape[-1] == 2:
        axes.set_xlim(centre[0] - half, centre[0] + half)
        axes.set_aspect("equal")
    plain(axes)


def _draw(axes: Axes, path: Array, **style: Any) -> None:
    across = path[:, 0] if path.shape[1] == 2 else np.arange(len(path))
    axes.plot(across, path[:, -1], **style)


def _marks(adjacency: Array, with_truth: bool, with_edges: bool, silent: int | None) -> list[Line2D]:
    marks = [
        Line2D([], [], color=COLOURS[0], alpha=0.4, lw=3, label="seen entities, recorded"),
        Line2D([], [], color=HIDDEN_COLOUR, lw=1.6, ls=(0, (3, 1.2)), marker="o", label="unseen entity, found"),
    ]
    if with_truth:
        marks.append(Line2D([], [], color=TRUE_COLOUR, lw=6, alpha=0.6, label="unseen entity, in truth"))
    for kind in range(int(adjacency.max(initial=0)) + 1):
        name = "no interaction" if kind == silent else f"edge type {kind}"
        marks.append(Line2D([], [], color=type_colour(kind, silent), lw=1.2 if kind == silent else 3, label=name))
    if with_edges:
        marks.append(Line2D([], [], color=WRONG_COLOUR, marker="x", ls="", ms=8, mew=2, label="wrong type"))
    return marks
