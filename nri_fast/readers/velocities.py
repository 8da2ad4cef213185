"""Velocities from positions, where the source recorded none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import numpy as np

from nri_fast.normalisation import POSITION_NAMES, VELOCITY_NAMES
from nri_fast.readers.recording import Array

Velocities = Literal["central", "backward", "none"]
NOTES = {
    "central": "estimated from positions: central differences; one-sided where an entity appears or disappears",
    "backward": "estimated from positions: differences to the step before; an entity's first step is left out",
}


def lacking_velocities(feature_names: tuple[str, ...]) -> list[int]:
    """Places of the positions (x, y, z) whose velocity (vx, vy, vz) is not among the features."""
    pairs = zip(POSITION_NAMES, VELOCITY_NAMES, strict=True)
    return [feature_names.index(p) for p, v in pairs if p in feature_names and v not in feature_names]


def with_velocities(
    pieces: Iterable[Array], positions: list[int], time_step: float, kind: Velocities
) -> Iterator[Array]:
    """Append velocities of some features to every step.

    Parameters
    ----------
    pieces : iterable of ndarray, [steps, entities, features]
        NaN where an entity is not there.
    positions : list of int
        Features to differentiate.
    time_step : float
        Between two steps.
    kind : {"central", "backward"}
        ``(x[t + 1] - x[t - 1]) / 2`` or ``x[t] - x[t - 1]`` over the time step. Where an entity has only one
        neighbouring step, central differences become one-sided; where a velocity cannot be told it is NaN.

    Yields
    ------
    ndarray, [steps, entities, features + positions]
    """
    if kind not in get_args(Velocities) or kind == "none":
        raise ValueError(f"velocities: expected central or backward, got {kind!r}")
    before: Array | None = None  # the step before the pending ones
    pending: Array | None = None
    for piece in pieces:
        pending = piece if pending is None else np.concatenate([pending, piece])
        if len(pending) > 1:
            yield _appended(before, pending[:-1], pending[-1:], positions, time_step, kind)
            before, pending = pending[-2:-1], pending[-1:]
    if pending is not None:
        yield _appended(before, pending, None, positions, time_step, kind)


def _appended(
    before: Array | None, now: Array, after: Array | None, positions: list[int], time_step: float, kind: Velocities
) -> Array:
    unknown = np.full_like(now[:1], np.nan)
    row = np.concatenate([unknown if before is None else before, now, unknown if after is None else after])
    moved = np.diff(row[..., positions], axis=0) / time_step
    back, ahead = moved[:-1], moved[1:]
    if kind == "backward":
        return np.concatenate([now, back], axis=-1)
    middle = (back + ahead) / 2
    one_sided = np.where(np.isnan(back), ahead, back)
    return np.concatenate([now, np.where(np.isnan(middle), one_sided, middle)], axis=-1)
