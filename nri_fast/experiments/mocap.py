"""A walking person, CMU's subject 35: 48 frames forecast after 50 seen, by the protocol of NRI and dNRI.

A state is a joint's position and its displacement since the frame before, as there, and two things that follow from
them: where the joint is seen from the root, and where it is on average (in training), which tells joints apart. Errors
are those of position and displacement only, in units that map the training range of all positions, and that of all
displacements, to [-1, 1]. Trials that are forecast are not learned from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nri_fast import metrics, plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.experiments.lesson import trained
from nri_fast.infer import forecast, infer
from nri_fast.metrics import Array
from nri_fast.normalisation import Normalisation
from nri_fast.readers.recording import DataError
from nri_fast.readers.skeleton import ROOT
from nri_fast.readers.splits import split_recordings
from nri_fast.readers.subject import read_subject
from nri_fast.settings import Settings
from nri_fast.trajectory_data import TrajectoryData

MOVING = ("x", "y", "z", "vx", "vy", "vz")
FEATURES = (*MOVING, "from_root_x", "from_root_y", "from_root_z", "mean_x", "mean_y", "mean_z")
BURN_IN, AHEAD, STRIDE = 50, 48, 10  # frames
SHOWN = (1, 20, 40)
TESTED, VALIDATED = 0.25, 0.125  # shares of the trials; settings were chosen on validation trials
STEPS = {"small": (20, 100), "full": (100, 4000)}
RELATED = Settings(
    edge_types=1, neighbours=6, message=32, edge_hidden=(32,), node_hidden=(96,), robust=False, batch=6, transitions=8,
    learning_rate=1e-3, polish_rate=1e-3, polish_first_share=0.05, rollout=40, linear_start=True,
)  # fmt: skip
VARIANTS = {
    "without relations": dataclasses.replace(RELATED, neighbours=None, silent=True),
    "with relations": RELATED,
}
# Mean squared errors at 20 and 40 frames, read off the figures of dNRI's paper; other trials of the same subject.
PUBLISHED = {"dNRI (published, 16 types)": (1.9e-4, 2.7e-4), "NRI (published, 8 types)": (4.0e-4, 6e-4)}


def parts(scale: Scale, seed: int, files: tuple[Path, ...]) -> list[Part]:
    """One model each."""
    return [Part(name.replace(" ", "-"), partial(walked, files, name, STEPS[scale], seed)) for name in VARIANTS]


def trials(files: Sequence[Path]) -> tuple[list[str], list[Array]]:
    """Names, and positions and displacements [frames, joints, 6], of every trial; the first frame is lost."""
    source = read_subject(files)
    found = []
    for recording in source.recordings:
        position = np.concatenate(list(recording.pieces()))
        if len(position) <= BURN_IN + AHEAD:
            raise DataError(
                f"trial {recording.name!r}: expected more than {BURN_IN + AHEAD} frames, got {len(position)}"
            )
        root = recording.entities.index(ROOT)
        order = [root, *(k for k in range(len(recording.entities)) if k != root)]
        found.append(np.concatenate([position[1:], np.diff(position, axis=0)], axis=-1)[:, order])
    return [recording.name for recording in source.recordings], found


def windows(found: Sequence[Array], length: int, mean: Array) -> TrajectoryData:
    """Every :data:`STRIDE`-th frame of each trial begins a system; the root comes first."""
    cut = []
    for moving in found:
        seen_from_root = moving[..., :3] - moving[:, :1, :3]
        states = np.concatenate([moving, seen_from_root, np.broadcast_to(mean, seen_from_root.shape)], axis=-1)
        cut += [states[first : first + length] for first in range(0, len(states) - length + 1, STRIDE)]
    return TrajectoryData(torch.from_numpy(np.stack(cut)), None, FEATURES, "mocap")


def mean_places(found: Sequence[Array]) -> Array:
    """[joints, 3] seen from the root, over all frames."""
    return np.concatenate([moving[..., :3] - moving[:, :1, :3] for moving in found]).mean(0)


def walked(files: tuple[Path, ...], name: str, steps: tuple[int, int], seed: int, place: Workplace) -> Figures:
    """Learns from some trials and forecasts others."""
    names, found = trials(files)
    split = split_recordings(len(found), VALIDATED, TESTED, seed)
    chosen = {part: [k for k, one in enumerate(split) if one == part] for part in ("train", "valid", "test")}
    learn_from = [found[k] for k in chosen["train"]]
    mean = mean_places(learn_from)
    data = windows(learn_from, BURN_IN, mean)
    settings = dataclasses.replace(VARIANTS[name], steps=steps[0], polish_steps=steps[1])
    run, seconds = trained(data, settings, seed, place)
    errors = {}
    for part in ("valid", "test"):
        whole = windows([found[k] for k in chosen[part]], BURN_IN + AHEAD, mean)
        seen = dataclasses.replace(whole, states=whole.states[:, :BURN_IN])
        ahead = forecast(run, seen, infer(run, seen), AHEAD, start=BURN_IN - 1, normalised=True)
        errors[part] = {name: error(ahead, whole, run.normalisation)} | simple(whole, run.normalisation)
    return {
        "trials": {part: [names[k] for k in places] for part, places in chosen.items()},
        "systems": data.systems,
        "windows": whole.systems,
        "settings": run.settings.to_dict(),
        "train_seconds": seconds,
        "errors": errors,
    }


def simple(whole: TrajectoryData, normalisation: Normalisation) -> dict[str, list[float]]:
    """Of forecasts that learn nothing: every joint stays, or goes on as it last went."""
    now = whole.states[:, BURN_IN - 1 : BURN_IN].expand(-1, AHEAD, -1, -1).clone()
    frames = torch.arange(1, AHEAD + 1, dtype=now.dtype)[:, None, None]
    on = now.clone()
    on[..., :3] += frames * now[..., 3:6]
    forecasts = {"nothing moves": now, "constant velocity": on}
    return {name: error(normalisation.apply(one), whole, normalisation) for name, one in forecasts.items()}


def error(ahead: Tensor, whole: TrajectoryData, normalisation: Normalisation) -> list[float]:
    """[AHEAD] mean squared errors of positions and displacements, normalised."""
    recorded = normalisation.apply(whole.states[:, BURN_IN:])
    moving = slice(0, len(MOVING))
    found = metrics.forecast_errors(ahead[..., moving], recorded[..., moving], range(1, AHEAD + 1))
    return list(found.values())


def report(figures: dict[str, Figures]) -> Report:
    """Test errors at some frames, beside what learns nothing and what was published."""
    first = next(iter(figures.values()))
    errors, valid = (_simple_first(figures, part) for part in ("test", "valid"))
    rows = [(name, *(text.error([one[frame - 1]]) for frame in SHOWN)) for name, one in errors.items()]
    for name, (at_20, at_40) in PUBLISHED.items():
        rows.append((name, text.NONE, f"{at_20:.1e}", ("> " if name.startswith("NRI") else "") + f"{at_40:.1e}"))
    trials_of = {part: ", ".join(names) for part, names in first["trials"].items()}
    seconds = [part["train_seconds"] for part in figures.values() if part["train_seconds"] is not None]
    notes = [
        f"Mean squared error of positions and displacements, normalised, at so many frames after {BURN_IN} seen; "
        f"{first['windows']} windows of the test trials {trials_of['test']}; learned from {trials_of['train']}; "
        f"validation {trials_of['valid']}.",
        "With relations: the 6 joints that are nearest on average act, all by one law. Without: the same modules, all "
        "edges silent.",
        "Validation errors: "
        + "; ".join(f"{name} {', '.join(text.error([one[f - 1]]) for f in SHOWN)}" for name, one in valid.items()),
        "Published: dNRI's protocol on 23 trials of this subject, read off its figures.",
        f"Training: {text.seconds(seconds)} s each on average.",
    ]
    series: dict[str, Any] = {name: list(enumerate(one, 1)) for name, one in errors.items()}
    series |= {name: list(zip(SHOWN[1:], values, strict=True)) for name, values in PUBLISHED.items()}
    columns = ("model", *(f"error at {frame}" for frame in SHOWN))
    picture = plot.curves(series, "frames ahead", "mean squared error", y_log=True, title="CMU 35, walking")
    return Report("Motion capture: a walking person", columns, rows, notes, picture)


def _simple_first(figures: dict[str, Figures], part: str) -> dict[str, list[float]]:
    """Errors of all models, those that learn nothing first."""
    found = {name: one for model in figures.values() for name, one in model["errors"][part].items()}
    return dict(sorted(found.items(), key=lambda item: item[0] in VARIANTS))


EXPERIMENT = Experiment(parts, report, "a skeleton .asf and the trials .amc of one subject")
