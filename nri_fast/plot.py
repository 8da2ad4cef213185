"""Pictures: graphs, trajectories, training, learned laws, confusion.

Every function returns a :class:`matplotlib.figure.Figure` that belongs to nobody: ``figure.savefig("x.png")`` writes
it, a notebook shows it, and no global state of matplotlib is touched. Colours are those of Okabe and Ito, which
colour-blind readers can tell apart; a wrong edge is marked by a cross as well as by its colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from nri_fast import metrics
from nri_fast.bouncegrad import History
from nri_fast.run import Run

Array = np.ndarray[Any, Any]
ArrayLike = Array | torch.Tensor

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
SILENT_COLOUR = "#B8B8B8"
WRONG_COLOUR = "#D00000"
INK = "#333333"
PANEL = 2.5  # inches

_STYLE: dict[str, Any] = {"fontsize": 11, "color": INK}


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
    named = np.asarray(relabelling, dtype=np.int64)[_array(adjacency)]
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

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    inferred = _array(inferred)
    true = None if true is None else _array(true)
    strength = np.ones(inferred.shape) if probability is None else _array(probability)
    if inferred.ndim != 3 or inferred.shape[1] != inferred.shape[2]:
        raise ValueError(f"inferred: expected [systems, N, N], got shape {list(inferred.shape)}")
    for name, other in (("true", true), ("probability", strength)):
        if other is not None and other.shape != inferred.shape:
            raise ValueError(f"{name}: expected the shape of inferred, {list(inferred.shape)}, got {list(other.shape)}")
    systems, entities = inferred.shape[:2]
    rows = [("inferred", inferred)] if true is None else [("true", true), ("inferred", inferred)]
    figure = Figure(figsize=(max(PANEL * systems, 4.5), 0.92 * PANEL * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots(len(rows), systems, squeeze=False)
    for row, (title, adjacency) in enumerate(rows):
        for s in range(systems):
            certain = strength[s] if title == "inferred" else np.ones((entities, entities))
            wrong = None if true is None or title == "true" else adjacency[s] != true[s]
            _draw_graph(axes[row, s], adjacency[s], certain, wrong, silent)
        axes[row, 0].set_ylabel(title, fontsize=14, color=INK)
    for s in range(systems):
        axes[0, s].set_title(f"system {s}" if titles is None else titles[s], **_STYLE)
    types = 1 + max(int(a.max(initial=0)) for _, a in rows)
    names = [f"type {k}" for k in range(types)] if type_names is None else list(type_names)
    marks: list[Line2D] = [
        Line2D([], [], color=_type_colour(k, silent), lw=1.2 if k == silent else 3, label=name)
        for k, name in enumerate(names)
    ]
    if true is not None:
        marks.append(Line2D([], [], color=WRONG_COLOUR, marker="x", ls="", ms=8, mew=2, label="wrong type"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=11)
    return figure


def _draw_graph(axes: Axes, adjacency: Array, strength: Array, wrong: Array | None, silent: int | None) -> None:
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
                color=_type_colour(kind, silent),
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


def trajectories(
    recorded: ArrayLike,
    forecast: ArrayLike | None = None,
    start: int = 0,
    feature_names: Sequence[str] = ("x", "y", "vx", "vy"),
    unit: str = "recorded units",
    titles: Sequence[str] | None = None,
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

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        Shapes that do not fit.
    """
    recorded = _array(recorded)
    if recorded.ndim != 4 or recorded.shape[3] != len(feature_names):
        raise ValueError(
            f"recorded: expected [systems, steps, N, {len(feature_names)}], got shape {list(recorded.shape)}"
        )
    predicted = None
    if forecast is not None:
        predicted = _array(forecast)
        if predicted.shape[:1] + predicted.shape[2:] != recorded.shape[:1] + recorded.shape[2:]:
            raise ValueError(f"forecast: expected [systems, horizon, N, D] as {list(recorded.shape)}")
        # It begins at the state that it starts from.
        predicted = np.concatenate([recorded[:, start : start + 1], predicted], axis=1)
    systems, steps, entities, _ = recorded.shape
    columns = min(systems, 4)
    rows = math.ceil(systems / columns)
    figure = Figure(figsize=(max(3.3 * columns, 4.5), 3.4 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    plane = "x" in feature_names and "y" in feature_names
    first, second = (feature_names.index("x"), feature_names.index("y")) if plane else (0, 0)
    for s, axes in enumerate(panels[:systems]):
        for j in range(entities):
            colour = COLOURS[j % len(COLOURS)]
            path = recorded[s, :, j]
            across = path[:, first] if plane else np.arange(steps)
            axes.plot(across, path[:, second], color=colour, alpha=0.35, lw=4, solid_capstyle="round")
            if predicted is not None:
                ahead = predicted[s, :, j]
                across = ahead[:, first] if plane else start + np.arange(len(ahead))
                axes.plot(across, ahead[:, second], color=colour, lw=1.4, ls=(0, (4, 1.5)))
                axes.plot(across[0], ahead[0, second], "o", color=colour, ms=5, mec="white")
        _frame(axes, recorded[s], first if plane else None, second)
        axes.set_xlabel(f"x ({unit})" if plane else "step", **_STYLE)
        axes.set_ylabel(f"y ({unit})" if plane else f"{feature_names[0]} ({unit})", **_STYLE)
        axes.set_title(f"system {s}" if titles is None else titles[s], **_STYLE)
        _plain(axes)
    for axes in panels[systems:]:
        axes.remove()
    marks = [Line2D([], [], color="#888888", alpha=0.5, lw=4, label="recorded")]
    if predicted is not None:
        label = f"forecast, {predicted.shape[1] - 1} steps from the dot on"
        marks.append(Line2D([], [], color=INK, lw=1.4, ls=(0, (4, 1.5)), marker="o", ms=5, label=label))
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    return figure


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
        axes.set_ylabel("edges right (%)\nheld-out systems", **_STYLE)
        axes.set_ylim(top=101.5)
        _plain(axes)
    for i, (axes, (label, values, scale)) in enumerate(zip(panels, curves, strict=True)):
        shown = values if scale == "linear" else np.where(values > 0, values, np.nan)
        colour = COLOURS[i if i < 2 else i + 1]
        if label.startswith("energy"):
            axes.plot(steps, shown, color=colour, alpha=0.25, lw=0.8)
            parts = np.split(shown, [len(steps) if polish_from is None else np.searchsorted(steps, polish_from)])
            shown = np.concatenate([_running_mean(part) for part in parts])
        axes.plot(steps, shown, color=colour, lw=1.8)
        axes.set_yscale(scale)
        axes.set_ylabel(label, **_STYLE)
        _plain(axes)
    for axes in figure.axes:
        if polish_from is not None:
            axes.axvspan(polish_from, steps[-1] if len(steps) else polish_from, color="#000000", alpha=0.06, lw=0)
    if polish_from is not None:
        figure.axes[0].annotate(
            "roll-outs", (polish_from, 0.06), xycoords=("data", "axes fraction"), xytext=(4, 0),
            textcoords="offset points", fontsize=9, color="#666666",
        )  # fmt: skip
    panels[-1].set_xlabel("gradient step", **_STYLE)
    figure.align_ylabels()
    return figure


def law_curves(run: Run, distances: ArrayLike, entities: int = 5, directions: int = 32) -> Array:
    """Pull that one sender exerts on a receiver at rest, by distance, for each edge type, as the modules have it.

    Parameters
    ----------
    run : Run
        Features must include x, y, vx, vy.
    distances : float array or tensor, [n]
        In recorded units.
    entities : int
        Of the systems that the run was trained on: the other senders add the mean message, so that the node module sees
        sums of a size that it knows.
    directions : int
        The pull is a mean over so many directions, which cancels what does not point along the line.

    Returns
    -------
    ndarray, float64, [K, n]
        Change of the receiver's velocity towards the sender in one step, recorded units; negative repels.

    Raises
    ------
    ValueError
        The run's features have no positions and velocities in a plane.
    """
    library, normalisation, names = run.library, run.normalisation, list(run.normalisation.feature_names)
    if any(name not in names for name in ("x", "y", "vx", "vy")):
        raise ValueError(f"run: expected the features x, y, vx and vy, got {names}")
    distance = torch.as_tensor(_array(distances), dtype=torch.float64)
    angle = 2 * torch.pi * torch.arange(directions, dtype=torch.float64) / directions
    unit = torch.stack([angle.cos(), angle.sin()], -1)  # from the receiver to the sender
    receiver = torch.zeros(len(distance), directions, len(names), dtype=torch.float64)
    sender = receiver.clone()
    for axis, name in enumerate(("x", "y")):
        sender[..., names.index(name)] = distance[:, None] * unit[:, axis]
    with torch.no_grad():
        sender, receiver = normalisation.apply(sender).to(run.device), normalisation.apply(receiver).to(run.device)
        pairs = torch.cat([sender, receiver], -1)
        silent = torch.zeros(*pairs.shape[:2], library.message, device=run.device)
        messages = [
            silent if library.silent and k == 0 else library.edge_module(k)(pairs) for k in range(library.edge_types)
        ]
        background = (entities - 2) * torch.stack(messages).mean((0, 1, 2))
        node = library.node_module(0)
        velocity = [names.index("vx"), names.index("vy")]
        low = torch.tensor(normalisation.low, dtype=torch.float64)[velocity]
        high = torch.tensor(normalisation.high, dtype=torch.float64)[velocity]
        curves = []
        for message in messages:
            change = node(torch.cat([message + background, receiver], -1))[..., velocity].double().cpu()
            curves.append((change * (high - low) / 2 * unit).sum(-1).mean(-1))
    return torch.stack(curves).numpy()


def laws(
    run: Run,
    distances: ArrayLike,
    entities: int = 5,
    type_names: Sequence[str] | None = None,
    truth: Mapping[str, Callable[[Array], Array]] | None = None,
) -> Figure:
    """Learned law of each edge type: pull over distance.

    Parameters
    ----------
    run, distances, entities
        As for :func:`law_curves`.
    type_names : sequence of str, [K], optional
        Of the run's own types.
    truth : mapping of str to function, optional
        True laws to draw beside them, by name: distances -> pull in one step.

    Returns
    -------
    Figure
    """
    across = _array(distances)
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#999999", lw=0.8)
    for k, curve in enumerate(law_curves(run, across, entities)):
        name = f"learned, type {k}" if type_names is None else f"learned: {type_names[k]}"
        axes.plot(across, curve, color=COLOURS[k % len(COLOURS)], lw=3.5, label=name)
    for name, law in (truth or {}).items():
        axes.plot(across, law(across), color=INK, lw=1.2, ls=(0, (4, 2)), label=name)
    axes.set_xlabel("distance between sender and receiver (recorded units)", **_STYLE)
    axes.set_ylabel("change of velocity towards\nthe sender in one step", **_STYLE)
    axes.legend(frameon=False, fontsize=11)
    _plain(axes)
    return figure


def confusion(inferred: ArrayLike, true: ArrayLike, type_names: Sequence[str] | None = None) -> Figure:
    """How often each inferred type stands where each true type does.

    Parameters
    ----------
    inferred, true : integer array or tensor, [systems, N, N]
        Inferred types under the true types' names (:func:`relabel`).
    type_names : sequence of str, [K], optional

    Returns
    -------
    Figure
        Rows are true types; each row adds up to 100 %.
    """
    counts = metrics.confusion(_array(inferred), _array(true), None if type_names is None else len(type_names)).T
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [f"type {k}" for k in range(len(counts))] if type_names is None else list(type_names)
    figure = Figure(figsize=(2.6 + 1.1 * len(counts), 1.8 + 1.1 * len(counts)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(*counts.shape):
        text = f"{share[row, column]:.1f} %\n{counts[row, column]:,}"
        colour = "white" if share[row, column] > 55 else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    axes.set_xticks(range(len(names)), names, **_STYLE)
    axes.set_yticks(range(len(names)), names, **_STYLE)
    axes.set_xlabel("inferred type", **_STYLE)
    axes.set_ylabel("true type", **_STYLE)
    figure.colorbar(image, ax=axes, label="share of the true type's edges (%)", shrink=0.85)
    return figure


def _array(values: ArrayLike) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _frame(axes: Axes, recorded: Array, first: int | None, second: int) -> None:
    """Shows where the recorded paths run, however far off a forecast wanders; a plane is shown as a square."""
    shown = [second] if first is None else [first, second]
    low, high = (extreme(recorded, axis=(0, 1))[shown] for extreme in (np.min, np.max))
    half = 0.58 * max(float((high - low).max()), 1e-9)
    centre = (low + high) / 2
    axes.set_ylim(centre[-1] - half, centre[-1] + half)
    if first is not None:
        axes.set_xlim(centre[0] - half, centre[0] + half)
        axes.set_aspect("equal")


def _type_colour(kind: int, silent: int | None) -> str:
    return SILENT_COLOUR if kind == silent else COLOURS[kind % len(COLOURS)]


def _running_mean(values: Array) -> Array:
    """Mean over a window that narrows at both ends, about 2 % of the curve wide."""
    half = len(values) // 100
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    width = np.minimum(np.minimum(at, len(values) - 1 - at), half)
    return (sums[at + width + 1] - sums[at - width]) / (2 * width + 1)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
    axes.grid(True, color="#E6E6E6", lw=0.6)
    axes.set_axisbelow(True)
