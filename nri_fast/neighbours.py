"""Neighbour lists: who may act on whom where there are too many entities for everyone to act on everyone."""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast.normalisation import POSITION_NAMES
from nri_fast.settings import Settings
from nri_fast.trajectory_data import TrajectoryData

PAIRS_AT_ONCE = 1 << 22  # systems are taken a few at a time: that many distances in memory


def candidates(data: TrajectoryData, settings: Settings) -> Tensor | None:
    """Ordered pairs of entities between which a run looks for edges; all other pairs never interact.

    An entity's candidate senders are its `settings.neighbours` nearest, and no farther than `settings.radius`, by the
    mean distance through all steps at which both are there, in recorded units. Of senders equally near, those with the
    lower number count. If structures are undirected, a pair that is near in one direction is a candidate in both.

    Parameters
    ----------
    data : TrajectoryData
        With positions (x, y, z, or some of them).
    settings : Settings
        Of the run.

    Returns
    -------
    Tensor or None
        [systems, N, N] bool on the data's device: whether i may act on j, for [i, j]. None: every entity on every
        other one.

    Raises
    ------
    ValueError
        There are no positions.
    """
    if settings.neighbours is None and settings.radius is None:
        return None
    if settings.radius is None and settings.neighbours is not None and settings.neighbours >= data.entities - 1:
        return None
    places = [data.feature_names.index(name) for name in POSITION_NAMES if name in data.feature_names]
    if not places:
        raise ValueError(
            f"neighbours, radius: expected positions among the features ({', '.join(POSITION_NAMES)}), "
            f"got {', '.join(data.feature_names)}"
        )
    found, pairs = [], data.pairs
    for some in torch.arange(data.systems).split(max(1, PAIRS_AT_ONCE // data.entities**2)):
        near = pairs[some]
        there = None if data.present is None else data.present[some]
        distance = mean_distance(data.states[some][..., places], there).masked_fill_(~near, torch.inf)
        near &= distance < torch.inf
        if settings.radius is not None:
            near &= distance <= settings.radius
        if settings.neighbours is not None:
            order = distance.sort(dim=1, stable=True).indices[:, : settings.neighbours]
            near &= torch.zeros_like(near).scatter_(1, order, True)
        found.append(near | near.mT if settings.undirected else near)
    return torch.cat(found)


def mean_distance(positions: Tensor, present: Tensor | None = None) -> Tensor:
    """[systems, N, N]: the mean distance between two entities over the steps at which both are there; else infinite.

    Parameters
    ----------
    positions : Tensor
        [systems, steps, N, dimensions].
    present : Tensor, optional
        [systems, steps, N] bool; everyone is always there if not given.
    """
    systems, steps, entities, _ = positions.shape
    total = positions.new_zeros(systems, entities, entities)
    met = torch.full_like(total, steps if present is None else 0)
    for step, now in enumerate(positions.unbind(1)):
        distance = (now[:, :, None] - now[:, None]).square().sum(-1).sqrt()
        if present is None:
            total += distance
            continue
        both = present[:, step, :, None] & present[:, step, None]
        total += torch.where(both, distance, 0.0)
        met += both
    return torch.where(met > 0, total / met, torch.inf)
