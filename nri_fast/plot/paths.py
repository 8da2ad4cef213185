"""Recorded paths and forecasts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nri_fast.plot.style import COLOURS, INK, TEXT, Array, ArrayLike, as_array, plain, sizes_of


def trajectories(
    recorded: ArrayLike,
    forecast: ArrayLike | None = None,
    start: int = 0,
    feature_names: Sequence[str] = ("x", "y", "vx", "vy"),
    unit: str = "recorded units",
    titles: Sequence[str] | None = None,
    sizes: ArrayLike | None = None,
) -> Figure:
    """Recorded paths with the open-loop forecast over them, a panel for each system.

    With features x and y the panels show the plane; otherwise the first feature over the steps.

    Parameters
    ----------
    recorded : float array or tensor, [systems, steps, N, D]
    forecast : float array or tensor, [systems, horizon, N, D], optional
        Index h - 1 holds the state h steps after `start`, as :func:`nri_fast.forecast` returns it.
    start : int
        Recorded step that the forecast starts from.
    feature_names : sequence of str, [D]
    unit : str
        Of the positions (or of the first feature), for the labels.
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
    recorded = as_array(recorded)
    if recorded.ndim != 4 or recorded.shape[3] != len(feature_names):
        raise ValueError(
            f"recorded: expected [systems, steps, N, {len(feature_names)}], got shape {list(recorded.shape)}"
        )
    predicted = None
    if forecast is not None:
        predicted = as_array(forecast)
        if predicted.shape[:1] + predicted.shape[2:] != recorded.shape[:1] + recorded.shape[2:]:
            raise ValueError(f"forecast: expected [systems, horizon, N, D] as {list(recorded.shape)}")
        # It begins at the state that it starts from.
        predicted = np.concatenate([recorded[:, start : start + 1], predicted], axis=1)
    systems, steps, _, _ = recorded.shape
    there = sizes_of(recorded.shape[2], systems, sizes)
    columns = min(systems, 4)
    rows = math.ceil(systems / columns)
    figure = Figure(figsize=(max(3.3 * columns, 4.5), 3.4 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    plane = "x" in feature_names and "y" in feature_names
    first, second = (feature_names.index("x"), feature_names.index("y")) if plane else (0, 0)
    for s, axes in enumerate(panels[:systems]):
        for j in range(there[s]):
            colour = COLOURS[j % len(COLOURS)]
            path = recorded[s, :, j]
            across = path[:, first] if plane else np.arange(steps)
            axes.plot(across, path[:, second], color=colour, alpha=0.35, lw=4, solid_capstyle="round")
            if predicted is not None:
                ahead = predicted[s, :, j]
                across = ahead[:, first] if plane else start + np.arange(len(ahead))
                axes.plot(across, ahead[:, second], color=colour, lw=1.4, ls=(0, (4, 1.5)))
                axes.plot(across[0], ahead[0, second], "o", color=colour, ms=5, mec="white")
        _frame(axes, recorded[s, :, : there[s]], first if plane else None, second)
        axes.set_xlabel(f"x ({unit})" if plane else "step", **TEXT)
        axes.set_ylabel(f"y ({unit})" if plane else f"{feature_names[0]} ({unit})", **TEXT)
        axes.set_title(f"system {s}" if titles is None else titles[s], **TEXT)
        plain(axes)
    for axes in panels[systems:]:
        axes.remove()
    marks = [Line2D([], [], color="#888888", alpha=0.5, lw=4, label="recorded")]
    if predicted is not None:
        label = f"forecast, {predicted.shape[1] - 1} steps from the dot on"
        marks.append(Line2D([], [], color=INK, lw=1.4, ls=(0, (4, 1.5)), marker="o", ms=5, label=label))
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    return figure


def _frame(axes: Axes, recorded: Array, first: int | None, second: int) -> None:
    """Shows where the recorded paths run, however far off a forecast wanders; a plane is shown as a square."""
    shown = [second] if first is None else [first, second]
    low, high = (extreme(recorded, axis=(0, 1))[shown] for extreme in (np.nanmin, np.nanmax))
    half = 0.58 * max(float((high - low).max()), 1e-9)
    centre = (low + high) / 2
    axes.set_ylim(centre[-1] - half, centre[-1] + half)
    if first is not None:
        axes.set_xlim(centre[0] - half, centre[0] + half)
        axes.set_aspect("equal")
