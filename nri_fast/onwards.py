"""Forecasts of what comes behind recordings, from graphs that are found in them."""

from __future__ import annotations

import csv
import dataclasses
import io

import torch

from nri_fast.infer import forecast, infer
from nri_fast.run import Run
from nri_fast.settings import Search
from nri_fast.trajectory_data import TrajectoryData


def forecast_onwards(
    run: Run,
    data: TrajectoryData,
    horizon: int = 20,
    start: int | None = None,
    search: Search | None = None,
    chains: int = 1,
    progress: bool = False,
) -> TrajectoryData:
    """What comes behind a step of every recording; nothing behind that step is looked at.

    Parameters
    ----------
    run : Run
        The modules.
    data : TrajectoryData
        The recordings, in which graphs are found: in all steps up to `start`.
    horizon : int
        Steps to predict.
    start : int, optional
        Recorded step that forecasts start from, at least 1; by default each recording's last.
    search, chains, progress
        As for :func:`nri_fast.infer`.

    Returns
    -------
    TrajectoryData
        `horizon` steps in recorded units, without labels; an origin's first steps count on. Absent: entities that are
        not there at the step that forecasts start from.

    Raises
    ------
    ValueError
        No step to predict, or one to start from that does not leave two recorded steps.
    """
    if horizon < 1:
        raise ValueError(f"horizon: expected at least 1, got {horizon}")
    if start is not None and not 1 <= start < data.steps:
        raise ValueError(f"start: expected 1 to {data.steps - 1}, a recorded step with one before it, got {start}")
    last = data.lengths - 1 if start is None else torch.full((data.systems,), start)
    if bool((last < 1).any()):
        short = int((last < 1).nonzero()[0])
        raise ValueError(f"data: expected recordings of at least 2 steps, got one in system {short}")
    states = torch.zeros(data.systems, horizon, data.entities, data.features, dtype=torch.float64)
    there = torch.zeros(data.systems, horizon, data.entities, dtype=torch.bool)
    for step in last.unique().tolist():
        chosen = (last == step).nonzero().flatten()
        seen = data.select(chosen).part(slice(0, step + 1))
        found = infer(run, seen, progress=progress, search=search, chains=chains)
        n = seen.entities
        now = seen.there[:, step, None].expand(-1, horizon, -1)
        ahead = forecast(run, seen, found, horizon, start=step).double()
        states[chosen, :, :n] = torch.where(now[..., None], ahead, 0.0)
        there[chosen, :, :n] = now
    origin = data.origin
    if origin is not None:
        origin = dataclasses.replace(origin, first_step=origin.first_step + last + 1)
    return dataclasses.replace(
        data, states=states, edges=None, node_types=None, split="forecast", origin=origin, present=there
    )


def states_table(data: TrajectoryData, first_step: torch.Tensor, numbers: torch.Tensor) -> str:
    """States as CSV text: a row for every system, step and entity that is there.

    Parameters
    ----------
    data : TrajectoryData
    first_step : Tensor, int64, [systems]
        What each system's first step is called.
    numbers : Tensor, int64, [systems]
        What the systems are called.

    Returns
    -------
    str
        The columns system, recording, step, entity and the features.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("system", "recording", "step", "entity", *data.feature_names))
    for s, t, i in data.there.nonzero().tolist():
        recording, entity = "", str(i)
        if data.origin is not None:
            recording = data.origin.recording_names[int(data.origin.recording[s])]
            entity = str(data.origin.entity_names[s, i])
        place = int(numbers[s]), recording, int(first_step[s]) + t, entity
        writer.writerow((*place, *(f"{value:.8g}" for value in data.states[s, t, i].tolist())))
    return text.getvalue()
