"""Signs, told without labels, that a run ended where graphs mean nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nri_fast.infer import Inference, evaluate, find
from nri_fast.influence import influence, spread_systems
from nri_fast.metrics import off_diagonal
from nri_fast.run import Run
from nri_fast.trajectory_data import TrajectoryData

# A sign is worth a look and no more: these limits are loose, so that a good run seldom sees one.
UNSURE = 0.25  # mean sureness, from 0 (all types equally likely) to 1
ALIKE = 0.02  # of one step's change: two types that move receivers no more differently than that
DISAGREEING = 0.5  # agreement beyond chance of the graphs of two halves of the recordings
FEWEST_STEPS = 8  # that halves are compared from
SYSTEMS, ENTITIES = 500, 2500  # looked at for signs that take computing, evenly spread over the data


def doubts(run: Run, data: TrajectoryData, found: Inference, figures: dict[str, Any] | None = None) -> list[str]:
    """What speaks against a run's graphs; labels are not looked at.

    Parameters
    ----------
    run : Run
    data : TrajectoryData
        Where systems are many, forecasts and halves of at most 500 systems or 2,500 entities are looked at.
    found : Inference
        Of the data.
    figures : dict, optional
        What :func:`nri_fast.evaluate` said, if it is there already.

    Returns
    -------
    list of str
        A sentence for each sign: probabilities near even, one type for all edges, types that act alike, forecasts no
        better than baselines, and halves of the recordings that tell different graphs. None of them proves anything,
        and without any a run can still be wrong.
    """
    types, sure = (
        off_diagonal(found.adjacency.numpy(), data.sizes),
        off_diagonal(found.probability.max(-1).values.numpy(), data.sizes),
    )
    kinds = run.settings.edge_types
    if kinds < 2 or not len(types):
        return []
    signs = []
    above_even = float((sure.mean() - 1 / kinds) / (1 - 1 / kinds))
    if above_even < UNSURE:
        signs.append(
            f"The probabilities are near even: the likeliest types have {100 * sure.mean():.0f} % on the mean, where "
            f"guessing has {100 / kinds:.0f} %."
        )
    counts = np.bincount(types, minlength=kinds)
    if counts.max() > 0.995 * counts.sum():
        signs.append(f"Almost all edges have type {counts.argmax()}: no second type was found.")
    some = spread_systems(data, min(SYSTEMS, max(1, ENTITIES // data.entities)))
    data = data.select(some)
    found = found.select(some, data.entities)
    contrast = influence(run, data, found).contrast
    for k in range(kinds):
        for other in range(k):
            if contrast[k, other] < ALIKE:
                signs.append(f"Types {other} and {k} move their receivers alike: telling them apart means nothing.")
    signs += _against_baselines(evaluate(run, data, found) if figures is None else figures)
    agreement = agreement_of_halves(run, data)
    if agreement is not None and agreement < DISAGREEING:
        signs.append(
            "The graphs found from the first and from the second halves of the recordings agree little: "
            f"{agreement:.2f}, where 0 is chance and 1 is full agreement. Training may have ended at chance (`train "
            "--starts 3` keeps the best of three), or the recordings tell too little, or graphs change over time."
        )
    return signs


def _against_baselines(figures: dict[str, Any]) -> list[str]:
    names = {"_nothing_moves": "that nothing moves", "_constant_velocity": "constant velocity"}
    for suffix, name in names.items():
        ours, theirs = figures.get("mse_1"), figures.get(f"mse_1{suffix}")
        if theirs is not None and (ours is None or ours >= theirs):
            return [f"The forecast of one step is no better than to say {name}: the modules have learned little."]
    return []


def agreement_of_halves(run: Run, data: TrajectoryData) -> float | None:
    """How much the graphs of the first and of the second halves of recordings agree, beyond chance.

    Parameters
    ----------
    run : Run
    data : TrajectoryData

    Returns
    -------
    float or None
        Cohen's kappa over all edges ("A coefficient of agreement for nominal scales", 1960): 1 where all types are
        alike, 0 where they agree as often as two independent draws with the same shares of types would. None where it
        is not defined: recordings of fewer than 8 steps, or one type in both halves.
    """
    if data.steps < FEWEST_STEPS:
        return None
    middle = data.steps // 2
    halves = [_types(run, data, slice(0, middle + 1)), _types(run, data, slice(middle, None))]
    kinds = run.settings.edge_types
    joint = torch.bincount(halves[0] * kinds + halves[1], minlength=kinds * kinds).view(kinds, kinds).double()
    joint /= joint.sum()
    by_chance = float(joint.sum(0) @ joint.sum(1))
    return None if by_chance == 1 else (float(joint.trace()) - by_chance) / (1 - by_chance)


def _types(run: Run, data: TrajectoryData, steps: slice) -> torch.Tensor:
    part = data.part(steps)
    return find(run, run.systems(part), "heat_bath").edge_types.long().cpu()
