"""How well unseen entities were found, where the truth is known. Nothing here has a part in the search."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nri_fast import metrics
from nri_fast.run import Run
from nri_fast.trajectory_data import TrajectoryData
from nri_fast.unseen.find import Unseen


@dataclasses.dataclass(frozen=True)
class Hidden:
    """The truth about entities that were hidden.

    Attributes
    ----------
    states : Tensor
        [S, T, H, D] float64, in recorded units.
    edges : Tensor or None
        [S, N, N] uint8 true types, the hidden entities numbered last.
    """

    states: Tensor
    edges: Tensor | None


def hide(data: TrajectoryData, entities: Sequence[int]) -> tuple[TrajectoryData, Hidden]:
    """Takes entities out of recordings, the same ones of every system.

    Parameters
    ----------
    data : TrajectoryData
        Complete recordings.
    entities : sequence of int
        Which to hide; at least one entity must stay.

    Returns
    -------
    seen : TrajectoryData
        What is left, without labels.
    hidden : Hidden
        What was taken out.
    """
    gone = [*dict.fromkeys(entities)]
    if not gone or len(gone) != len(entities) or not all(0 <= e < data.entities for e in gone):
        raise ValueError(f"entities: expected different ones of 0 to {data.entities - 1}, got {[*entities]}")
    stay = [e for e in range(data.entities) if e not in gone]
    if not stay:
        raise ValueError(f"entities: expected one of {data.entities} to stay, got {gone}")
    order = stay + gone
    edges = None if data.edges is None else data.edges[:, order][:, :, order]
    seen = dataclasses.replace(data, states=data.states[:, :, stay], edges=None)
    return seen, Hidden(data.states[:, :, gone], edges)


def score_unseen(run: Run, found: Unseen, truth: Hidden) -> dict[str, Any]:
    """Figures of a search.

    Parameters
    ----------
    run : Run
        Gives the units.
    found : Unseen
        From :func:`find_unseen`.
    truth : Hidden
        From :func:`hide`.

    Returns
    -------
    dict
        ``systems``, ``hidden``; ``error``: mean squared error of the hidden paths, in the run's units squared, over all
        steps and features; ``guess``: that of the best constant guess, which is the hidden states' variance; both again
        under ``linked`` (entities with at least one true edge) and ``by_edges`` (a list, by the number of entities that
        a hidden one has an edge with), where the guess is the best constant for those entities; ``median_error``;
        ``edge_accuracy`` of edges ``seen`` (among seen entities), ``out`` (from hidden ones) and ``into`` (to hidden
        ones), under one ``relabelling``; ``sure``: ``rank_correlation`` of expected deviations with actual ones, and
        ``within_two``, the share of entities less than two expected deviations off. None where there are no labels.

    Notes
    -----
    Several hidden entities have no names: those found are matched with the true ones so that the error is least.
    """
    true_path = run.normalisation.apply(truth.states, torch.float64)
    if true_path.shape != found.path.shape:
        raise ValueError(f"truth: expected states {list(found.path.shape)}, got {list(true_path.shape)}")
    order = _matching(found.path.double(), true_path)
    path = torch.stack([one[:, o] for one, o in zip(found.path.double(), order, strict=True)])
    deviation = torch.stack([one[o] for one, o in zip(found.deviation.double(), order, strict=True)]).flatten()
    error = ((path - true_path) ** 2).mean((1, 3)).flatten()
    states = true_path.transpose(1, 2).flatten(0, 1)
    result: dict[str, Any] = {"systems": len(path), "hidden": path.shape[2], **_figures(error, states)}
    off = error.sqrt()
    result["sure"] = {
        "rank_correlation": _rank_correlation(off, deviation),
        "within_two": float((off <= 2 * deviation).double().mean()),
    }
    result |= {"linked": None, "by_edges": None, "edge_accuracy": None, "relabelling": None}
    if truth.edges is None:
        return result
    seen = truth.edges.shape[1] - path.shape[2]
    touching = ((truth.edges + truth.edges.transpose(1, 2)) > 0)[:, seen:].sum(2).flatten()
    result["linked"] = _figures(error[touching > 0], states[touching > 0])
    result["by_edges"] = [
        {"edges": int(count), **_figures(error[touching == count], states[touching == count])}
        for count in touching.unique()
    ]
    result["edge_accuracy"], result["relabelling"] = _edge_accuracy(found.adjacency, truth.edges, order, seen)
    return result


def _figures(error: Tensor, states: Tensor) -> dict[str, Any]:
    """Of entities with these errors [E] and true states [E, T, D]."""
    if len(error) == 0:
        return {"entities": 0, "error": None, "median_error": None, "guess": None}
    guess = ((states - states.mean((0, 1))) ** 2).mean()
    return {
        "entities": len(error),
        "error": float(error.mean()),
        "median_error": float(error.median()),
        "guess": float(guess),
    }


def _matching(path: Tensor, truth: Tensor) -> list[list[int]]:
    """For every system, the order of found entities that is nearest to the true ones."""
    hidden = path.shape[2]
    cost = ((path[:, :, :, None] - truth[:, :, None]) ** 2).mean((1, 4))  # [S, found, true]
    orders = [*itertools.permutations(range(hidden))]
    total = torch.stack([sum(cost[:, f, t] for t, f in enumerate(order)) for order in orders], 1)  # type: ignore[misc]
    return [[*orders[i]] for i in total.nan_to_num(torch.inf).argmin(1).tolist()]


def _edge_accuracy(
    found: Tensor, true: Tensor, order: list[list[int]], seen: int
) -> tuple[dict[str, float | None], list[int]]:
    placed = torch.stack(
        [
            one[o][:, o]
            for one, o in zip(found, ([*range(seen), *(seen + h for h in each)] for each in order), strict=True)
        ]
    )
    _, relabelling = metrics.edge_accuracy(placed, true)
    right = torch.as_tensor(relabelling)[placed.long()] == true
    off_diagonal = ~torch.eye(true.shape[1], dtype=torch.bool)
    sides = torch.arange(true.shape[1]) >= seen
    into, out = sides.expand_as(off_diagonal), sides[:, None].expand_as(off_diagonal)
    masks = {"seen": off_diagonal & ~into & ~out, "out": off_diagonal & out & ~into, "into": off_diagonal & into}
    shares = {n: float(right[:, m].double().mean()) if bool(m.any()) else None for n, m in masks.items()}
    return shares, [int(k) for k in relabelling]


def _rank_correlation(a: Tensor, b: Tensor) -> float | None:
    """Spearman's."""
    ranks = [x.argsort(stable=True).argsort().double() for x in (a, b)]
    ranks = [x - x.mean() for x in ranks]
    size = math.sqrt(float((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / size if size > 0 else None
