"""Real vehicles on a freeway: forecasts with and without relations, and what the types of edges turn out to mean.

Coordinates are turned into the direction of travel: x runs along the lanes, y across, times :data:`LATERAL`, so that
the nearest vehicles are those ahead and behind in the lane, and not strangers beside. A state is position, speed along
the lanes, what it has gained over the last half second and the one before, and the drift across: its mean over the last
second, because recorded headings are noisy. All of it is recorded, nothing is of what comes. Forecasts begin where a
second of states ends, for every vehicle that is there through it; an error counts where the vehicle is still there.
Scenarios that are forecast are not learned from. A forecast is the mean of several runs' that differ in nothing but
their random numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.experiments.lesson import trained
from nri_fast.infer import forecast, infer
from nri_fast.metrics import Array
from nri_fast.readers.recording import DataError, Recording
from nri_fast.readers.vehicles import MOVING, read_vehicles
from nri_fast.run import Run
from nri_fast.settings import Settings
from nri_fast.trajectory_data import TrajectoryData

FEATURES = ("x", "y", "vx", "drift", "gain", "gain_before")
LATERAL = 20.0
STEP = 0.5  # seconds between two states
HORIZONS = (1.0, 3.0, 5.0)  # seconds
STAY = 3  # steps that a vehicle must be there to be learned from
SEEN = 2  # steps of a vehicle before the state that its forecast starts from; the first has a second of past in it
FOLDS = 5
TOGETHER = {"small": 1, "full": 3}  # runs whose forecasts are averaged
ONE_RUN = ", one run"
STEPS = {"small": (20, 200), "full": (100, 600)}
RELATED = Settings(
    edge_types=1, neighbours=4, message=32, edge_hidden=(32,), node_hidden=(48,), relative=("x", "y"), robust=False,
    batch=8, transitions=6, learning_rate=1e-3, polish_rate=3e-3, polish_first_share=0.02, linear_start=True,
)  # fmt: skip
ALONE = dataclasses.replace(RELATED, neighbours=None, silent=True)
TYPED = dataclasses.replace(
    RELATED, edge_types=2, silent=True, judged=("vx",), block=16, learning_rate=3e-3, transitions=10
)
LANE = 1.8  # metres; vehicles nearer than that across are in one lane


@dataclass(frozen=True)
class Scenario:
    """A recording in lane coordinates; NaN where nobody is.

    Attributes
    ----------
    name : str
        In the file.
    frames : int
        From one state of a system to the next.
    states : Array
        [frames, vehicles, features], y and drift times :data:`LATERAL`.
    velocity : Array
        [frames, vehicles, 2] as recorded, along and across, in m/s.
    """

    name: str
    frames: int
    states: Array
    velocity: Array


@dataclass(frozen=True)
class Task:
    """What is to be forecast at one time of a scenario.

    Attributes
    ----------
    seen : Array
        [SEEN + 1, vehicles, features]: the last of it is now.
    straight_on : Array
        [horizons, vehicles, 2] in metres: constant velocity, the recorded speed along the recorded heading.
    coming : Array
        [horizons, vehicles, 2] in metres, NaN where the vehicle is gone.
    """

    seen: Array
    straight_on: Array
    coming: Array


def parts(scale: Scale, seed: int, files: tuple[Path, ...], tested: tuple[Path, ...] = ()) -> list[Part]:
    """Every fold; one part if there are files to judge by."""
    names = ["forecasts"] if tested else [f"seed{seed}-fold{fold}" for fold in range(FOLDS)]
    return [Part(name, partial(forecasts, files, tested, scale, seed, fold)) for fold, name in enumerate(names)]


def scenarios(files: Sequence[Path], least: int = 1) -> list[Scenario]:
    """All scenarios of the files, in their order."""
    source = read_vehicles(files)
    if source.feature_names != MOVING:
        raise DataError(f"{source.where}: expected positions, headings and speeds, got {source.feature_names}")
    if len(source.recordings) < least:
        raise DataError(f"{source.where}: expected at least {least} scenarios, got {len(source.recordings)}")
    return [scenario(recording) for recording in source.recordings]


def scenario(recording: Recording) -> Scenario:
    """In the direction in which its vehicles go on average."""
    recorded = np.concatenate(list(recording.pieces()))
    along = np.nanmean(recorded[..., 2:], axis=(0, 1))
    along = along / np.hypot(*along)
    turn = np.array([[along[0], -along[1]], [along[1], along[0]]])
    place, velocity = recorded[..., :2] @ turn * [1.0, LATERAL], recorded[..., 2:] @ turn
    frames = max(1, round(STEP / recording.time_step))
    drift = (place[..., 1] - before(place[..., 1], 2 * frames)) / (2 * STEP)
    gain = velocity[..., 0] - before(velocity[..., 0], frames)
    moving = (velocity[..., 0], drift, gain, before(gain, frames))
    return Scenario(recording.name, frames, np.concatenate([place, np.stack(moving, axis=-1)], axis=-1), velocity)


def before(series: Array, frames: int) -> Array:
    """[frames, vehicles]: what it was so many frames ago; NaN where that is not known."""
    return np.concatenate([np.full_like(series[:frames], np.nan), series[:-frames]])


def systems(windows: Sequence[Array]) -> TrajectoryData:
    """Windows [steps, vehicles, features] of one length as systems of different sizes; absent where NaN."""
    sizes = torch.tensor([window.shape[1] for window in windows])
    padded = np.full((len(windows), len(windows[0]), int(sizes.max()), len(FEATURES)), np.nan)
    for place, window in zip(padded, windows, strict=True):
        place[:, : window.shape[1]] = window
    there = np.isfinite(padded).all(axis=-1)
    states = np.where(there[..., None], padded, 0.0)
    return TrajectoryData(
        torch.from_numpy(states), None, FEATURES, "vehicles", sizes=sizes, present=torch.from_numpy(there)
    )


def windows(found: Sequence[Scenario]) -> TrajectoryData:
    """Systems to learn from: every second frame begins a window as long as the longest forecast.

    A vehicle is in it if it is there through the first :data:`STAY` steps, and until it leaves.
    """
    length = round(max(HORIZONS) / STEP)
    cut = []
    for one in found:
        for first in range(0, len(one.states) - length * one.frames, 2):
            window = one.states[first : first + length * one.frames + 1 : one.frames]
            there = np.logical_and.accumulate(np.isfinite(window).all(axis=2))
            kept = there[STAY]
            if kept.sum() > 1:
                cut.append(np.where(there[..., None], window, np.nan)[:, kept])
    if not cut:
        raise DataError(f"expected scenarios to learn from of {max(HORIZONS) + 2 * STEP} s or more, got none")
    return systems(cut)


def tasks(found: Sequence[Scenario]) -> list[Task]:
    """What is forecast: every half second of every scenario, for the vehicles with two seconds of past."""
    tasks = []
    for one in found:
        ahead = [round(h / STEP) * one.frames for h in HORIZONS]
        for now in range((SEEN + 2) * one.frames, len(one.states) - ahead[-1], one.frames):
            window = one.states[now - SEEN * one.frames : now + 1 : one.frames]
            there = np.isfinite(window).all(axis=(0, 2))
            if there.sum() > 1:
                here = metres(window[-1, there, :2])
                straight_on = np.stack([here + h * one.velocity[now, there] for h in HORIZONS])
                coming = metres(one.states[[now + k for k in ahead]][:, there, :2])
                tasks.append(Task(window[:, there], straight_on, coming))
    if not tasks:
        raise DataError(f"expected scenarios to forecast of {max(HORIZONS) + (SEEN + 2) * STEP} s or more, got none")
    return tasks


def metres(places: Array) -> Array:
    """Along and across, both in metres."""
    return places / [1.0, LATERAL]


def folds(count: int, seed: int) -> list[list[int]]:
    """Places of the scenarios, dealt out at random."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(count)
    return [sorted(order[fold::FOLDS].tolist()) for fold in range(FOLDS)]


def divided(
    files: tuple[Path, ...], tested: tuple[Path, ...], seed: int, fold: int
) -> tuple[list[Scenario], list[Scenario]]:
    """Scenarios to learn from, and to forecast: those of `tested`, or a part of all if there are no such files."""
    if tested:
        return scenarios(files), scenarios(tested)
    found = scenarios(files, FOLDS)
    aside = folds(len(found), seed)[fold]
    return [one for k, one in enumerate(found) if k not in aside], [found[k] for k in aside]


def forecasts(
    files: tuple[Path, ...], tested: tuple[Path, ...], scale: Scale, seed: int, fold: int, place: Workplace
) -> Figures:
    """Learns from some scenarios, with and without relations; forecasts others."""
    known, unknown = divided(files, tested, seed, fold)
    learn_from, asked = windows(known), tasks(unknown)
    given, coming = systems([task.seen for task in asked]), [task.coming for task in asked]
    squares = {"constant velocity": squared_errors([task.straight_on for task in asked], coming)}
    seconds = {}
    steps, polish_steps = STEPS[scale]
    for name, settings in (("without relations", ALONE), ("with relations", RELATED)):
        changed = dataclasses.replace(
            settings, steps=steps, polish_steps=polish_steps, rollout=round(max(HORIZONS) / STEP)
        )
        told = []
        for member in range(TOGETHER[scale]):
            label = f"{name} {member}".replace(" ", "-")
            run, seconds[f"{name} {member}"] = trained(learn_from, changed, 100 * seed + member, place, label)
            told.append(predicted(run, given))
        squares[name] = squared_errors([np.mean(each, axis=0) for each in zip(*told, strict=True)], coming)
        singly = [squared_errors(one, coming) for one in told]
        squares[name + ONE_RUN] = np.mean(singly, axis=0).tolist()
    typed, seconds["types"] = trained(learn_from, dataclasses.replace(TYPED, steps=2 * steps), seed, place, "types")
    return {
        "seed": seed,
        "fold": fold,
        "scenarios": [one.name for one in unknown],
        "systems": learn_from.systems,
        "runs": TOGETHER[scale],
        "train_seconds": seconds,
        "settings": changed.to_dict(),
        "forecasts": [int(np.isfinite(one).sum()) for one in np.concatenate(coming, axis=1)[..., 0]],
        "squares": squares,
        "edges": meaning(typed, windows(unknown)),
    }


def predicted(run: Run, given: TrajectoryData) -> list[Array]:
    """[horizons, vehicles, 2] in metres for every system."""
    steps = [round(h / STEP) for h in HORIZONS]
    ahead = forecast(run, given, infer(run, given), steps[-1], start=given.steps - 1).numpy()
    sizes = given.members.sum(1).tolist()
    return [metres(one[[k - 1 for k in steps], :n, :2]) for one, n in zip(ahead, sizes, strict=True)]


def squared_errors(ahead: Sequence[Array], coming: Sequence[Array]) -> list[float]:
    """Sums of squared distances at each horizon, in metres squared, over vehicles that are still there."""
    gaps = [((a - c) ** 2).sum(-1) for a, c in zip(ahead, coming, strict=True)]
    return [float(np.nansum(one)) for one in np.concatenate(gaps, axis=1)]


GROUPS = {
    "ahead in the lane, within 30 m": lambda gap, offset: (gap > 0) & (gap <= 30) & (np.abs(offset) < LANE),
    "behind in the lane, within 30 m": lambda gap, offset: (gap < 0) & (gap >= -30) & (np.abs(offset) < LANE),
    "ahead in another lane": lambda gap, offset: (gap > 0) & (np.abs(offset) >= LANE),
    "behind in another lane": lambda gap, offset: (gap < 0) & (np.abs(offset) >= LANE),
    "farther away in the lane": lambda gap, offset: (np.abs(gap) > 30) & (np.abs(offset) < LANE),
}


def meaning(run: Run, data: TrajectoryData) -> dict[str, dict[str, float]]:
    """Of candidate edges in whole windows, by where the sender is: how many, how many are active, and relative speeds.

    Type 0 is silent, type 1 active. Gaps (along, positive: the sender is ahead), offsets (across) and speeds are
    differences of means through a window, in metres and metres a second; the speeds are summed up, without sign.
    """
    found = infer(run, data)
    near = data.pairs if found.candidates is None else found.candidates
    mean = data.states.sum(1) / data.there.sum(1).clamp(min=1)[..., None]
    s, i, j = near.nonzero(as_tuple=True)
    gap, across, speed = (mean[s, i] - mean[s, j])[:, :3].numpy().T
    speed = np.abs(speed)
    active = found.adjacency[s, i, j].bool().numpy()
    told = {}
    for where, group in GROUPS.items():
        inside = group(gap, across / LATERAL)
        told[where] = {
            "edges": int(inside.sum()),
            "active": int((inside & active).sum()),
            "active speeds": float(speed[inside & active].sum()),
            "silent speeds": float(speed[inside & ~active].sum()),
        }
    return told


def report(figures: dict[str, Figures]) -> Report:
    """Errors over all scenarios, and the share of active edges by where the sender is."""
    found = list(figures.values())
    count = np.sum([part["forecasts"] for part in found], axis=0)
    errors = {
        name: np.sqrt(np.sum([part["squares"][name] for part in found], axis=0) / count) for name in found[0]["squares"]
    }
    base = errors["constant velocity"]
    rows = []
    for name, each in errors.items():
        gains = [f"{gain:.0f}" for gain in 100 * (1 - each / base)]
        rows.append((name, *(f"{one:.2f}" for one in each), *gains))
    notes = [
        f"Root mean square distance in metres over {int(count[-1]):,} forecasts (vehicle and time) of "
        f"{sum(len(part['scenarios']) for part in found)} scenarios, the same for all; each is forecast by modules "
        "that did not learn from it.",
        f"Forecasts are means of {found[0]['runs']} runs'; one run: their errors on average. Without relations: the "
        f"same modules, all edges silent. With relations: the {found[0]['settings']['neighbours']} nearest vehicles "
        f"act, a metre across counting as {LATERAL:g} along.",
        "Edges of a run with a silent and an active type, judged by the speed along the lanes in held-out scenarios, "
        "are active where the sender is:",
    ]
    shares = {}
    for where in GROUPS:
        told = [part["edges"][where] for part in found]
        total = {key: sum(one[key] for one in told) for key in told[0]}
        if not total["edges"]:
            continue
        shares[where] = [100 * total["active"] / total["edges"]]
        apart = [_mean(total["active speeds"], total["active"]),
                 _mean(total["silent speeds"], total["edges"] - total["active"])]  # fmt: skip
        notes.append(
            f"{where}: {shares[where][0]:.0f} % of {total['edges']:,} edges; speeds differ by {apart[0]} m/s where "
            f"active, {apart[1]} m/s where silent"
        )
    series = {
        name: list(zip(HORIZONS, each.tolist(), strict=True))
        for name, each in errors.items()
        if not name.endswith(ONE_RUN)
    }
    return Report(
        "US-101 vehicles: forecasts",
        ("model", *(f"error at {h:g} s (m)" for h in HORIZONS), *(f"less at {h:g} s (%)" for h in HORIZONS)),
        rows,
        notes,
        figure_of(series, shares),
    )


def _mean(total: float, count: int) -> str:
    return f"{total / count:.1f}" if count else text.NONE


def figure_of(series: dict[str, Any], shares: dict[str, list[float]]) -> Any:
    """Errors over the horizon, and active edges by where the sender is."""
    figure = plot.curves(series, "seconds ahead", "error (m)", title="US-101")
    figure.set_size_inches(11, 4.4)
    left = figure.axes[0]
    grid = figure.add_gridspec(1, 2)
    left.set_subplotspec(grid[0])
    right = figure.add_subplot(grid[1])
    right.barh(list(shares)[::-1], [share[0] for share in shares.values()][::-1], color=plot.COLOURS[0])
    right.set_xlabel("edges that are active (%)", **plot.TEXT)
    plot.plain(right)
    return figure


EXPERIMENT = Experiment(parts, report, "vehicle tracks: .npz or CommonRoad .xml files", takes_test=True)
