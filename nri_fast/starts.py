"""Several starts of training, and the choice among them without labels.

Training can end in a wrong explanation of the data that holds together well enough, where other random weights end in
the right one. Errors tell, if graphs have to predict what they were not found from: they are searched in the first half
of every recording and judged by the one-step errors in the second half.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from nri_fast import ops
from nri_fast.infer import find
from nri_fast.record import write_made
from nri_fast.run import RUN_FILE, Run, claim, train
from nri_fast.settings import Settings, settings_of
from nri_fast.trajectory_data import TrajectoryData

STARTS = "starts"  # folder of the single runs


def train_starts(
    data: TrajectoryData,
    starts: int,
    preset: str = "springs",
    settings: Settings | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    tensorboard: bool = False,
) -> Run:
    """Trains from several random starts and keeps the run whose graphs predict best; labels are never looked at.

    Parameters
    ----------
    data : TrajectoryData
        Training systems, of at least 4 steps.
    starts : int
        How many, at least 1. They have the seeds `seed`, ``seed + 1``, ...: each is what :func:`nri_fast.train` gives
        with that seed.
    preset, settings, seed, device, progress
        As for :func:`nri_fast.train`.
    out : path, optional
        Folder of the best run; the others are in its folder ``starts``.
    resume : bool
        Go on in `out`: finished starts are not repeated.
    tensorboard : bool
        Every start writes its curves to the folder ``tensorboard`` in its own.

    Returns
    -------
    Run
        The best one. Its `seed` is its own; its `starts` has every start's ``seed`` and ``error``: the one-step error
        in the second halves of the recordings under the graphs found in the first halves, on the robust error's
        logarithmic scale (or squared, where training has the squared error); None if it is not finite.

    Raises
    ------
    FileExistsError, ValueError, DivergedError, CheckpointError
        As :func:`nri_fast.train`; ValueError also if `starts` is below 1 or recordings are too short to be halved.
    """
    if starts < 1:
        raise ValueError(f"starts: expected 1 or more, got {starts}")
    if data.steps < 4:
        raise ValueError(f"starts: expected recordings of at least 4 steps, to be judged by halves, got {data.steps}")
    settings = settings_of(preset, settings)
    folder = None if out is None else claim(Path(out), resume)
    began = time.monotonic()
    runs = []
    for own in tqdm(range(seed, seed + starts), "starts", unit="start", disable=None if progress else True):
        place = None if folder is None else folder / STARTS / f"seed-{own}"
        if place is not None and (place / RUN_FILE).exists():
            runs.append(Run.load(place, device))
        else:
            how: dict[str, Any] = {"settings": settings, "seed": own, "device": device, "progress": progress}
            runs.append(train(data, out=place, resume=resume, tensorboard=tensorboard, **how))
    scales = [run.scale_squared for run in runs if run.scale_squared is not None]
    errors = [error_of_halves(run, data, min(scales, default=None)) for run in runs]
    best = runs[errors.index(min(errors))]
    told = [
        {"seed": run.seed, "error": error if math.isfinite(error) else None}
        for run, error in zip(runs, errors, strict=True)
    ]
    best = dataclasses.replace(best, starts=told)
    if folder is not None:
        best.save(folder)
        write_made(folder, time.monotonic() - began, str(device), resume)
    return best


def error_of_halves(run: Run, data: TrajectoryData, scale_squared: float | None) -> float:
    """One-step error in the second halves of recordings under the graphs found in the first halves.

    Parameters
    ----------
    run : Run
    data : TrajectoryData
    scale_squared : float, optional
        s^2 of the robust error: the same for runs that are compared. None: the squared error.

    Returns
    -------
    float
        Mean over systems; infinite where one is not finite.
    """
    middle = data.steps // 2
    first, second = (run.systems(data.part(steps)) for steps in (slice(0, middle + 1), slice(middle, None)))
    found = find(run, first, "heat_bath")
    with torch.no_grad():
        energy = ops.rollout_energy(
            run.library,
            run.library.flat_parameters(),
            second.graph,
            second.states,
            second.steps,
            found.edge_types[None],
            found.node_types if run.settings.node_types > 1 else None,
            1,
            dataclasses.replace(run, scale_squared=scale_squared).error_measure(),
        )
    there = data.there[:, middle:]
    told = (there[:, 1:] & there[:, :-1]).flatten(1).any(1).to(energy.device)  # something is compared in them
    mean = float(energy[0, told].double().mean())
    return mean if math.isfinite(mean) else math.inf
