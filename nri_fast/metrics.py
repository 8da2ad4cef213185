"""The field's figures: edges right up to relabelling, AUROC, and the error of open-loop forecasts beside baselines.

Graphs are adjacencies ``A[s, i, j]``, the type of the edge from i to j; their diagonals are never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

Array = np.ndarray[Any, Any]
ArrayLike = Array | torch.Tensor

# Features whose rate of change is another feature.
RATES = {"x": "vx", "y": "vy", "z": "vz", "phi": "dphi"}


def _array(values: ArrayLike | Sequence[int]) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def off_diagonal(adjacency: Array, sizes: ArrayLike | None = None) -> Array:
    """Keep each system's off-diagonal entries: [S, N, N, ...] -> [S * N * (N - 1), ...].

    With `sizes` [S], the numbers of entities of systems that differ in size, only those of a system's own entities.
    """
    if sizes is not None:
        there = np.arange(adjacency.shape[1]) < _array(sizes)[:, None]
        return adjacency[there[:, :, None] & there[:, None] & ~np.eye(adjacency.shape[1], dtype=bool)]
    return adjacency[:, ~np.eye(adjacency.shape[1], dtype=bool)].reshape(-1, *adjacency.shape[3:])


def _check_adjacency(argument: str, adjacency: Array, types: int | None) -> None:
    if adjacency.ndim != 3 or adjacency.shape[1] != adjacency.shape[2]:
        raise ValueError(f"{argument}: expected [systems, entities, entities], got shape {list(adjacency.shape)}")
    if adjacency.dtype.kind not in "iu":
        raise TypeError(f"{argument}: expected integer types, got {adjacency.dtype}")
    bad = (adjacency < 0) | (adjacency >= (256 if types is None else types))
    if bad.any():
        s, i, j = (int(k) for k in np.argwhere(bad)[0])
        expected = "0 to 255" if types is None else f"0 to {types - 1}"
        raise ValueError(
            f"{argument}: expected types from {expected}, got {adjacency[s, i, j]} in system {s}, edge {i} -> {j}"
        )


def confusion(inferred: ArrayLike, true: ArrayLike, types: int | None = None, sizes: ArrayLike | None = None) -> Array:
    """Count how often each inferred type stands where each true type does.

    Parameters
    ----------
    inferred, true : integer array or tensor, [systems, entities, entities]
    types : int, optional
        Number of types K; by default as many as occur in either.
    sizes : int array or tensor, [systems], optional
        Numbers of entities, where systems differ in size; what lies behind is not counted.

    Returns
    -------
    ndarray, int64, [K, K]
        Rows are inferred types, columns true ones. The diagonals of the adjacencies are not counted.

    Raises
    ------
    TypeError, ValueError
        No integers; shapes that differ; a type out of range (system and edge are named).
    """
    inferred, true = _array(inferred), _array(true)
    _check_adjacency("inferred", inferred, types)
    _check_adjacency("true", true, types)
    if inferred.shape != true.shape:
        raise ValueError(f"inferred: expected the shape of true, {list(true.shape)}, got {list(inferred.shape)}")
    rows = off_diagonal(inferred, sizes).astype(np.int64)
    columns = off_diagonal(true, sizes).astype(np.int64)
    if types is None:
        types = int(max(rows.max(initial=0), columns.max(initial=0))) + 1
    return np.bincount(rows * types + columns, minlength=types * types).reshape(types, types)


def edge_accuracy(
    inferred: ArrayLike, true: ArrayLike, types: int | None = None, sizes: ArrayLike | None = None
) -> tuple[float, Array]:
    """Share of edges whose type is right, under the one relabelling of the types that is best over the whole set.

    Unsupervised types have no names: the best one-to-one renaming is found as an assignment problem on the confusion
    matrix of all systems together. Inferred types beyond the number of true ones stay wrong.

    Parameters
    ----------
    inferred, true : integer array or tensor, [systems, entities, entities]
    types : int, optional
        Number of types K; by default as many as occur in either.
    sizes : int array or tensor, [systems], optional
        As for `confusion`.

    Returns
    -------
    accuracy : float
        From 0 to 1; NaN if there is no edge at all.
    relabelling : ndarray, int64, [K]
        A permutation: inferred type k means true type ``relabelling[k]``.

    Raises
    ------
    TypeError, ValueError
        As `confusion`.
    """
    return _best_relabelling(confusion(inferred, true, types, sizes))


def node_accuracy(inferred: ArrayLike, true: ArrayLike, types: int | None = None) -> tuple[float, Array]:
    """Share of entities whose type is right, under the one relabelling of the types that is best over the whole set.

    Parameters
    ----------
    inferred, true : integer array or tensor, [systems, entities]
    types : int, optional
        Number of types M; by default as many as occur in either.

    Returns
    -------
    accuracy : float
        From 0 to 1; NaN if there is no entity at all.
    relabelling : ndarray, int64, [M]
        A permutation: inferred type m means true type ``relabelling[m]``.

    Raises
    ------
    TypeError, ValueError
        No integers; shapes that differ; a type out of range.
    """
    rows, columns = _array(inferred), _array(true)
    for name, array in (("inferred", rows), ("true", columns)):
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected integer types, got {array.dtype}")
        if array.ndim != 2:
            raise ValueError(f"{name}: expected [systems, entities], got shape {list(array.shape)}")
    if rows.shape != columns.shape:
        raise ValueError(f"inferred: expected the shape of true, {list(columns.shape)}, got {list(rows.shape)}")
    if types is None:
        types = int(max(rows.max(initial=0), columns.max(initial=0))) + 1
    for name, array in (("inferred", rows), ("true", columns)):
        if array.size and not (array.min() >= 0 and array.max() < types):
            raise ValueError(f"{name}: expected types from 0 to {types - 1}, got {array.min()} to {array.max()}")
    joint = rows.astype(np.int64).ravel() * types + columns.astype(np.int64).ravel()
    return _best_relabelling(np.bincount(joint, minlength=types * types).reshape(types, types))


def _best_relabelling(counts: Array) -> tuple[float, Array]:
    """Share that is right, and the permutation that makes it so; rows are inferred types, columns true ones."""
    _, relabelling = linear_sum_assignment(counts, maximize=True)
    total = int(counts.sum())
    right = int(counts[np.arange(len(counts)), relabelling].sum())
    return (right / total if total else float("nan")), relabelling.astype(np.int64)


def edge_auroc(
    probability: ArrayLike,
    true: ArrayLike,
    relabelling: ArrayLike | Sequence[int] | None = None,
    sizes: ArrayLike | None = None,
) -> float:
    """Area under the ROC curve of the edges' probabilities, exact, ties counting half.

    Parameters
    ----------
    probability : float array or tensor, [systems, entities, entities, K]
        Probability of each inferred type.
    true : integer array or tensor, [systems, entities, entities]
    relabelling : int array, [K], optional
        Inferred type k means true type ``relabelling[k]`` (see `edge_accuracy`); identity by default.
    sizes : int array or tensor, [systems], optional
        As for `confusion`.

    Returns
    -------
    float
        K = 2: of type 1 against type 0. More types: the plain mean over the types that occur of each one against the
        rest. NaN where it is undefined: fewer than two types occur among the true edges.

    Raises
    ------
    TypeError, ValueError
        Shapes that do not fit, a true type out of range, a relabelling that is no permutation, NaN probabilities.
    """
    probability, true, order = check_probability(probability, true, relabelling)
    types = probability.shape[3]
    scores, labels = off_diagonal(probability, sizes), off_diagonal(true, sizes)
    inferred_as = np.argsort(order)  # true type c was inferred as type inferred_as[c]
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    wanted = [1] if types == 2 else [int(c) for c in present]
    return float(np.mean([_auroc(scores[:, inferred_as[c]], labels == c) for c in wanted]))


def check_probability(
    probability: ArrayLike, true: ArrayLike, relabelling: ArrayLike | Sequence[int] | None
) -> tuple[Array, Array, Array]:
    """Probabilities, true types and relabelling as arrays, if they fit together.

    Raises
    ------
    TypeError, ValueError
        As `edge_auroc`.
    """
    probability, true = _array(probability), _array(true)
    if probability.ndim != 4 or probability.shape[:3] != true.shape:
        raise ValueError(
            f"probability: expected [systems, entities, entities, types] beside true {list(true.shape)}, "
            f"got shape {list(probability.shape)}"
        )
    types = probability.shape[3]
    _check_adjacency("true", true, types)
    order = np.arange(types) if relabelling is None else _array(relabelling)
    if sorted(order.tolist()) != list(range(types)):
        raise ValueError(f"relabelling: expected a permutation of 0 to {types - 1}, got {order.tolist()}")
    if np.isnan(off_diagonal(probability)).any():
        raise ValueError("probability: expected numbers, got NaN on an edge")
    return probability, true, order


def _auroc(score: Array, positive: Array) -> float:
    """Mann and Whitney's U over its largest value."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    ranks = rankdata(score)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def forecast_errors(
    predicted: torch.Tensor,
    recorded: torch.Tensor,
    horizons: Sequence[int] = (1, 10, 20),
    compared: torch.Tensor | None = None,
) -> dict[int, float]:
    """Mean squared error of a forecast at some horizons, over systems, entities and features.

    Parameters
    ----------
    predicted, recorded : Tensor, [systems, horizon, entities, features]
        Index h - 1 holds the state h steps after the start. Usually in normalised units.
    horizons : sequence of int, >= 1
    compared : Tensor, bool, [systems, horizon, entities], optional
        Which predictions count; all by default.

    Returns
    -------
    dict
        Error at each horizon; NaN at horizons that were not recorded, and wherever a prediction that counts is NaN.

    Raises
    ------
    ValueError
        Shapes that differ or have the wrong rank; a horizon below 1.
    """
    if predicted.dim() != 4 or predicted.shape != recorded.shape:
        raise ValueError(
            "predicted: expected [systems, horizon, entities, features] as recorded, "
            f"got {list(predicted.shape)} beside {list(recorded.shape)}"
        )
    if min(horizons, default=1) < 1:
        raise ValueError(f"horizons: expected 1 or more, got {tuple(horizons)}")
    errors = {}
    for horizon in horizons:
        if horizon > predicted.shape[1]:
            errors[horizon] = float("nan")
            continue
        difference = predicted[:, horizon - 1].double() - recorded[:, horizon - 1].double()
        if compared is not None:
            difference = difference[compared[:, horizon - 1]]
        errors[horizon] = float(difference.square().mean())
    return errors


def nothing_moves(states: torch.Tensor, start: int, horizon: int) -> torch.Tensor:
    """Forecast that every state stays what it is at step `start`.

    Parameters
    ----------
    states : Tensor, [systems, steps, entities, features]
    start : int
    horizon : int

    Returns
    -------
    Tensor, [systems, horizon, entities, features]
    """
    _check_start(states, start)
    return states[:, start : start + 1].expand(-1, horizon, -1, -1)


def displacement_fit(
    states: torch.Tensor,
    feature_names: Sequence[str],
    present: torch.Tensor | None = None,
    step_scale: torch.Tensor | None = None,
) -> dict[str, tuple[float, float]]:
    """Fit how far a position moves in one step, as a linear function of its recorded velocity.

    ``position[t + 1] - position[t] = slope * velocity[t] + offset`` by least squares. Slope and offset carry the time
    between two steps and the two normalisations; x, y and z share theirs.

    Parameters
    ----------
    states : Tensor, [systems, steps, entities, features]
        Of the training split, so that the baseline learns from no more than a model does.
    feature_names : sequence of str, [features]
    present : Tensor, bool, [systems, steps, entities], optional
        Which states are there; all by default.
    step_scale : Tensor, [systems], optional
        Time steps, in units of the one that slope and offset are for; all 1 by default.

    Returns
    -------
    dict
        (slope, offset) for each feature that has its rate (``vx`` for ``x``, ``dphi`` for ``phi``) among the features.
    """
    names = list(feature_names)
    paired = [name for name in names if RATES.get(name) in names]
    values = states.double()
    fit = {}
    for group in ([n for n in paired if n != "phi"], [n for n in paired if n == "phi"]):
        if not group:
            continue
        positions = values[..., [names.index(n) for n in group]]
        speed = values[:, :-1, :, [names.index(RATES[n]) for n in group]]
        change = positions[:, 1:] - positions[:, :-1]
        time = torch.ones_like(change)
        if step_scale is not None:
            time = time * step_scale.to(change)[:, None, None, None]
        if present is not None:
            there = present[:, 1:] & present[:, :-1]
            speed, change, time = speed[there], change[there], time[there]
        velocities, moved = speed.reshape(-1).cpu().numpy(), change.reshape(-1).cpu().numpy()
        passed = time.reshape(-1).cpu().numpy()
        design = np.stack([velocities * passed, passed], axis=1)
        slope, offset = np.linalg.lstsq(design, moved, rcond=None)[0] if len(moved) else (0.0, 0.0)
        fit.update({name: (float(slope), float(offset)) for name in group})
    return fit


def constant_velocity(
    states: torch.Tensor,
    start: int,
    horizon: int,
    feature_names: Sequence[str],
    fit: dict[str, tuple[float, float]] | None = None,
    present: torch.Tensor | None = None,
    step_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """Forecast that everything goes on as it goes at step `start`.

    A feature with a recorded rate moves by the same amount each step, as `displacement_fit` tells from that rate; the
    rate itself stays. A feature without one repeats its last displacement, from step ``start - 1`` to `start`; where
    there is none, it stays.

    Parameters
    ----------
    states : Tensor, [systems, steps, entities, features]
        Steps after `start` are not used, except by the default of `fit`.
    start : int
    horizon : int
    feature_names : sequence of str, [features]
    fit : dict, optional
        Result of `displacement_fit` on the training split; by default fitted on `states`.
    present, step_scale
        As for `displacement_fit`.

    Returns
    -------
    Tensor, [systems, horizon, entities, features]
    """
    _check_start(states, start)
    names = list(feature_names)
    if len(names) != states.shape[-1]:
        raise ValueError(f"feature_names: expected {states.shape[-1]} names, got {len(names)}: {names}")
    fit = displacement_fit(states, names, present, step_scale) if fit is None else fit
    current = states[:, start]
    change = torch.zeros_like(current)
    for d, name in enumerate(names):
        if name in fit:
            slope, offset = fit[name]
            change[..., d] = slope * current[..., names.index(RATES[name])] + offset
            if step_scale is not None:
                change[..., d] *= step_scale.to(change)[:, None]
        elif name not in RATES.values() and start > 0:
            change[..., d] = current[..., d] - states[:, start - 1, :, d]
            if present is not None:
                change[..., d] *= present[:, start - 1]
    ahead = torch.arange(1, horizon + 1, dtype=states.dtype, device=states.device)
    return current[:, None] + ahead[None, :, None, None] * change[:, None]


def _check_start(states: torch.Tensor, start: int) -> None:
    if states.dim() != 4:
        raise ValueError(f"states: expected [systems, steps, entities, features], got shape {list(states.shape)}")
    if not 0 <= start < states.shape[1]:
        raise ValueError(f"start: expected 0 to {states.shape[1] - 1}, got {start}")
