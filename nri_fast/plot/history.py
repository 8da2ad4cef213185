"""A run's curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from nri_fast.history import History
from nri_fast.plot.style import COLOURS, TEXT, Array, plain


def training(
    history: History,
    accuracy_steps: Sequence[int] = (),
    accuracy: Sequence[float] = (),
    polish_from: int | None = None,
) -> Figure:
    """A run's curves over its steps, one below the other.

    Parameters
    ----------
    history : History
        Of the run (``run.history``).
    accuracy_steps, accuracy : sequence of int and of float
        Edge accuracy on held-out systems (0 to 1) after some of the steps, if it was watched.
    polish_from : int, optional
        First step that trained on roll-outs with the structures found (``settings.steps``), if there were any.

    Returns
    -------
    Figure
    """
    curves: list[tuple[str, Array, str]] = [
        ("energy\n(robust, log)" if any(history.scale_squared) else "energy", np.array(history.loss), "linear"),
        ("temperature", np.array(history.temperature), "log"),
        ("robust scale $s^2$", np.array(history.scale_squared), "log"),
        ("learning rate", np.array(history.learning_rate), "linear"),
        ("accepted share", np.array(history.accepted), "linear"),
    ]
    curves = [curve for i, curve in enumerate(curves) if i in (0, 3) or np.any(curve[1] > 0)]
    heights = [2.0] + [1.2] * (len(curves) - 1)
    if len(accuracy):
        heights.insert(0, 2.0)
    figure = Figure(figsize=(7.5, 1.25 * sum(heights) + 0.8), layout="constrained")
    panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights).ravel())
    steps = np.array(history.step)
    if len(accuracy):
        axes = panels.pop(0)
        axes.plot(accuracy_steps, 100 * np.array(accuracy), color=COLOURS[2], lw=2, marker="o", ms=4)
        axes.set_ylabel("edges right (%)\nheld-out systems", **TEXT)
        axes.set_ylim(top=101.5)
        plain(axes)
    for i, (axes, (label, values, scale)) in enumerate(zip(panels, curves, strict=True)):
        shown = values if scale == "linear" else np.where(values > 0, values, np.nan)
        colour = COLOURS[i if i < 2 else i + 1]
        if label.startswith("energy"):
            axes.plot(steps, shown, color=colour, alpha=0.25, lw=0.8)
            parts = np.split(shown, [len(steps) if polish_from is None else np.searchsorted(steps, polish_from)])
            shown = np.concatenate([_running_mean(part) for part in parts])
        axes.plot(steps, shown, color=colour, lw=1.8)
        axes.set_yscale(scale)
        axes.set_ylabel(label, **TEXT)
        plain(axes)
    for axes in figure.axes:
        if polish_from is not None:
            axes.axvspan(polish_from, steps[-1] if len(steps) else polish_from, color="#000000", alpha=0.06, lw=0)
    if polish_from is not None:
        figure.axes[0].annotate(
            "roll-outs", (polish_from, 0.06), xycoords=("data", "axes fraction"), xytext=(4, 0),
            textcoords="offset points", fontsize=9, color="#666666",
        )  # fmt: skip
    panels[-1].set_xlabel("gradient step", **TEXT)
    figure.align_ylabels()
    return figure


def _running_mean(values: Array) -> Array:
    """Mean over a window that narrows at both ends, about 2 % of the curve wide."""
    half = len(values) // 100
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    width = np.minimum(np.minimum(at, len(values) - 1 - at), half)
    return (sums[at + width + 1] - sums[at - width]) / (2 * width + 1)
