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
        [S, N, N] uint8 true types, the hidden entities numbered last, right behind a system's seen ones.
    sizes : Tensor or None
        [S] int64: entities of each system, the hidden ones included. None: all have N.
    present : Tensor or None
        [S, T, H] bool: which of the states there are. None: all.
    """

    states: Tensor
    edges: Tensor | None
    sizes: Tensor | None = None
    present: Tensor | None = None


def hide(data: TrajectoryData, entities: Sequence[int]) -> tuple[TrajectoryData, Hidden]:
    """Takes entities out of recordings, the same ones of every system.

    Parameters
    ----------
    data : TrajectoryData
        Recordings that have these entities.
    entities : sequence of int
        Which to hide; at least one entity of every system must stay.

    Returns
    -------
    seen : TrajectoryData
        What is left, without labels.
    hidden : Hidden
        What was taken out.
    """
    gone, least = [*dict.fromkeys(entities)], int(data.members.sum(1).min())
    if not gone or len(gone) != len(entities) or not all(0 <= e < least for e in gone):
        raise ValueError(f"entities: expected different ones of 0 to {least - 1}, got {[*entities]}")
    if len(gone) == least:
        raise ValueError(f"entities: expected one of {least} to stay, got {gone}")
    stay = [e for e in range(data.entities) if e not in gone]
    # Padding stays behind; the hidden ones come between it and those that stay.
    sizes = data.members.sum(1)
    order = torch.tensor([*stay, *gone]).repeat(data.systems, 1)
    if data.sizes is not None:
        place = torch.arange(data.entities)
        seen_sizes = (sizes - len(gone))[:, None]
        rank = torch.where(place < seen_sizes, place, place + len(gone))
        rank[:, len(stay) :] = seen_sizes + torch.arange(len(gone))
        order = torch.empty_like(order).scatter(1, rank, order)
    edges = None
    if data.edges is not None:
        edges = data.edges.gather(1, order[:, :, None].expand_as(data.edges))
        edges = edges.gather(2, order[:, None].expand_as(data.edges))
    there = None if data.present is None else data.present[:, :, gone]
    seen = dataclasses.replace(
        data,
        states=data.states[:, :, stay],
        edges=None,
        node_types=None,
        sizes=None if data.sizes is None else sizes - len(gone),
        origin=None if data.origin is None else data.origin.without(gone),
        present=None if data.present is None else data.present[:, :, stay],
    )
    return seen, Hidden(data.states[:, :, gone], edges, None if data.sizes is None else sizes, there)


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
    there = _compared(found, truth)
    order = _matching(found.path.double(), true_path, there)
    path = torch.stack([one[:, o] for one, o in zip(found.path.double(), order, strict=True)])
    deviation = torch.stack([one[o] for one, o in zip(found.deviation.double(), order, strict=True)]).flatten()
    error = _mean_square(path - true_path, there).flatten()
    known = there.any(1).flatten()  # nothing is compared of one that is there in none of the frames
    states, shown = true_path.transpose(1, 2).flatten(0, 1), there.transpose(1, 2).flatten(0, 1)

    def figures(some: Tensor) -> dict[str, Any]:
        return _figures(error[some & known], states[some & known], shown[some & known])

    result: dict[str, Any] = {"systems": len(path), "hidden": path.shape[2], **figures(known)}
    off, deviation = error[known].sqrt(), deviation[known]
    result["sure"] = {
        "rank_correlation": _rank_correlation(off, deviation),
        "within_two": float((off <= 2 * deviation).double().mean()),
    }
    result |= {"linked": None, "by_edges": None, "edge_accuracy": None, "relabelling": None}
    if truth.edges is None:
        return result
    hidden = _hidden_places(truth)
    either = (truth.edges + truth.edges.transpose(1, 2)) > 0
    touching = either.gather(1, hidden[:, :, None].expand(-1, -1, either.shape[2])).sum(2).flatten()
    result["linked"] = figures(touching > 0)
    result["by_edges"] = [{"edges": int(count), **figures(touching == count)} for count in touching[known].unique()]
    result["edge_accuracy"], result["relabelling"] = _edge_accuracy(found.adjacency, truth, order)
    return result


def _compared(found: Unseen, truth: Hidden) -> Tensor:
    """[S, T, H] bool: where there is a true state, in a frame that was looked at."""
    systems, steps, hidden = truth.states.shape[:3]
    there = torch.ones(systems, steps, hidden, dtype=torch.bool) if truth.present is None else truth.present
    if found.frames is None:
        return there
    frame = torch.arange(steps)
    looked_at = (frame >= found.frames[:, :1]) & (frame < found.frames[:, 1:])
    return there & looked_at[..., None]


def _mean_square(off: Tensor, there: Tensor) -> Tensor:
    """[S, H] of [S, T, H, D], over the states there are."""
    square = torch.where(there, (off**2).mean(-1), 0.0)
    return square.sum(1) / there.sum(1)


def _hidden_places(truth: Hidden) -> Tensor:
    """[S, H] int64: which of a system's entities are the hidden ones."""
    assert truth.edges is not None
    hidden = truth.states.shape[2]
    return (_sizes(truth) - hidden)[:, None] + torch.arange(hidden)


def _sizes(truth: Hidden) -> Tensor:
    assert truth.edges is not None
    return torch.full((len(truth.edges),), truth.edges.shape[1]) if truth.sizes is None else truth.sizes


def _figures(error: Tensor, states: Tensor, there: Tensor) -> dict[str, Any]:
    """Of entities with these errors [E] and true states [E, T, D], where they are there [E, T]."""
    if len(error) == 0:
        return {"entities": 0, "error": None, "median_error": None, "guess": None}
    recorded = states[there]
    guess = ((recorded - recorded.mean(0)) ** 2).mean()
    return {
        "entities": len(error),
        "error": float(error.mean()),
        "median_error": float(error.median()),
        "guess": float(guess),
    }


def _matching(path: Tensor, truth: Tensor, there: Tensor) -> list[list[int]]:
    """For every system, the order of found entities that is nearest to the true ones."""
    hidden = path.shape[2]
    cost = torch.stack([_mean_square(path[:, :, f, None] - truth, there) for f in range(hidden)], 1)  # [S, found, true]
    cost = torch.where(there.any(1)[:, None], cost, 0.0)  # where nothing is compared, anybody will do
    orders = [*itertools.permutations(range(hidden))]
    total = torch.stack([sum(cost[:, f, t] for t, f in enumerate(order)) for order in orders], 1)  # type: ignore[misc]
    return [[*orders[i]] for i in total.nan_to_num(torch.inf).argmin(1).tolist()]


def _edge_accuracy(found: Tensor, truth: Hidden, order: list[list[int]]) -> tuple[dict[str, float | None], list[int]]:
    assert truth.edges is not None
    true, hidden, sizes = truth.edges, _hidden_places(truth), _sizes(truth)
    places = torch.arange(true.shape[1]).repeat(len(true), 1)
    places.scatter_(1, hidden, hidden.gather(1, torch.tensor(order)))
    placed = found.gather(1, places[:, :, None].expand_as(found)).gather(2, places[:, None].expand_as(found))
    _, relabelling = metrics.edge_accuracy(placed, true, sizes=sizes)
    right = torch.as_tensor(relabelling)[placed.long()] == true
    entity = torch.arange(true.shape[1])
    members, sides = entity < sizes[:, None], entity >= hidden[:, :1]
    pairs = members[:, :, None] & members[:, None] & ~torch.eye(true.shape[1], dtype=torch.bool)
    into, out = sides[:, None].expand_as(pairs), sides[:, :, None].expand_as(pairs)
    masks = {"seen": pairs & ~into & ~out, "out": pairs & out & ~into, "into": pairs & into}
    shares = {n: float(right[m].double().mean()) if bool(m.any()) else None for n, m in masks.items()}
    return shares, [int(k) for k in relabelling]


def _rank_correlation(a: Tensor, b: Tensor) -> float | None:
    """Spearman's."""
    ranks = [x.argsort(stable=True).argsort().double() for x in (a, b)]
    ranks = [x - x.mean() for x in ranks]
    size = math.sqrt(float((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / size if size > 0 else None
