"""Learned laws: pull over distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.figure import Figure

from nri_fast.plot.style import COLOURS, INK, TEXT, Array, ArrayLike, as_array, plain
from nri_fast.run import Run


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
    distance = torch.as_tensor(as_array(distances), dtype=torch.float64)
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
    across = as_array(distances)
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#999999", lw=0.8)
    for k, curve in enumerate(law_curves(run, across, entities)):
        name = f"learned, type {k}" if type_names is None else f"learned: {type_names[k]}"
        axes.plot(across, curve, color=COLOURS[k % len(COLOURS)], lw=3.5, label=name)
    for name, law in (truth or {}).items():
        axes.plot(across, law(across), color=INK, lw=1.2, ls=(0, (4, 2)), label=name)
    axes.set_xlabel("distance between sender and receiver (recorded units)", **TEXT)
    axes.set_ylabel("change of velocity towards\nthe sender in one step", **TEXT)
    axes.legend(frameon=False, fontsize=11)
    plain(axes)
    return figure
