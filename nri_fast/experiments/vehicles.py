"""Real vehicles on a freeway: forecasts with and without relations, and what the types of edges turn out to mean.

Coordinates are turned into the direction of travel: x runs along the lanes, y across, times :data:`LATERAL`, so that
the nearest vehicles are those ahead, behind and beside, and not a row of strangers in other lanes. A state is position,
velocity, and what the speed along the lanes has gained over the last half second and the one before: recorded speeds
and their past, nothing of what comes. Forecasts begin where a second of states ends, for every vehicle that is there
through it; an error counts where the vehicle is still there. Scenarios that are forecast are not learned from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
from nri_fast.readers.vehicles import read_vehicles
from nri_fast.run import Run
from nri_fast.settings import Settings
from nri_fast.trajectory_data import TrajectoryData

FEATURES = ("x", "y", "vx", "vy", "gain", "gain_before")
LATERAL = 5.0
STEP = 0.5  # seconds between two states
HORIZONS = (1.0, 3.0, 5.0)  # seconds
SEEN = 2  # steps of a vehicle before the state that its forecast starts from; the first has a second of past in it
FOLDS = 5
STEPS = {"small": (20, 200), "full": (100, 600)}
RELATED = Settings(
    edge_types=1, neighbours=8, message=32, edge_hidden=(32,), node_hidden=(48,), relative=("x", "y"), robust=False,
    batch=8, transitions=6, learning_rate=1e-3, polish_rate=1e-3, polish_first_share=0.02, linear_start=True,
)  # fmt: skip
ALONE = dataclasses.replace(RELATED, neighbours=None, silent=True)
TYPED = dataclasses.replace(
    RELATED, edge_types=2, silent=True, judged=("vx",), block=16, learning_rate=3e-3, transitions=10
)
LANE = 1.8  # metres; vehicles nearer than that across are in one lane


def parts(scale: Scale, seed: int, files: tuple[Path, ...], tested: tuple[Path, ...] = ()) -> list[Part]:
    """Every fold; one part if there are files to judge by."""
    names = ["forecasts"] if tested else [f"seed{seed}-fold{fold}" for fold in range(FOLDS)]
    return [Part(name, partial(forecasts, files, tested, STEPS[scale], seed, fold)) for fold, name in enumerate(names)]


def scenarios(files: Sequence[Path], least: int = 1) -> list[tuple[str, int, Array]]:
    """Name, frames per step, and states [frames, vehicles, features] of every scenario; NaN where nobody is."""
    source = read_vehicles(files)
    if source.feature_names != FEATURES[:4]:
        raise DataError(f"{source.where}: expected positions, headings and speeds, got {source.feature_names}")
    if len(source.recordings) < least:
        raise DataError(f"{source.where}: expected at least {least} scenarios, got {len(source.recordings)}")
    return [(r.name, max(1, round(STEP / r.time_step)), states(r)) for r in source.recordings]


def states(recording: Recording) -> Array:
    """[frames, vehicles, features] in lane coordinates."""
    recorded = np.concatenate(list(recording.pieces()))
    along = np.nanmean(recorded[..., 2:], axis=(0, 1))
    along = along / np.hypot(*along)
    turn = np.array([[along[0], -LATERAL * along[1]], [along[1], LATERAL * along[0]]])
    turned = np.concatenate([recorded[..., :2] @ turn, recorded[..., 2:] @ turn], axis=-1)
    frames = max(1, round(STEP / recording.time_step))
    gain, before = (np.full(turned.shape[:2], np.nan) for _ in range(2))
    gain[frames:] = turned[frames:, :, 2] - turned[:-frames, :, 2]
    before[frames:] = gain[:-frames]
    return np.concatenate([turned, gain[..., None], before[..., None]], axis=-1)


def systems(windows: Sequence[Array]) -> TrajectoryData:
    """Windows [steps, vehicles, features] of one length as systems of different sizes."""
    sizes = torch.tensor([window.shape[1] for window in windows])
    padded = np.zeros((len(windows), len(windows[0]), int(sizes.max()), len(FEATURES)))
    for place, window in zip(padded, windows, strict=True):
        place[:, : window.shape[1]] = window
    return TrajectoryData(torch.from_numpy(padded), None, FEATURES, "vehicles", sizes=sizes)


def windows(found: Sequence[tuple[str, int, Array]]) -> TrajectoryData:
    """Systems to learn from: every second frame begins a window as long as the longest forecast."""
    length = round(max(HORIZONS) / STEP)
    cut = []
    for _, frames, moving in found:
        for first in range(0, len(moving) - length * frames, 2):
            window = moving[first : first + length * frames + 1 : frames]
            there = np.isfinite(window).all(axis=(0, 2))
            if there.sum() > 1:
                cut.append(window[:, there])
    if not cut:
        raise DataError(f"expected scenarios to learn from of {max(HORIZONS) + 2 * STEP} s or more, got none")
    return systems(cut)


def tasks(found: Sequence[tuple[str, int, Array]]) -> tuple[list[Array], list[Array]]:
    """What is seen, [SEEN + 1, vehicles, features], and what comes, [horizons, vehicles, 2] in metres, NaN if gone."""
    seen, coming = [], []
    for _, frames, moving in found:
        ahead = [round(h / STEP) * frames for h in HORIZONS]
        for now in range((SEEN + 2) * frames, len(moving) - ahead[-1], frames):
            window = moving[now - SEEN * frames : now + 1 : frames]
            there = np.isfinite(window).all(axis=(0, 2))
            if there.sum() > 1:
                seen.append(window[:, there])
                coming.append(metres(moving[[now + k for k in ahead]][:, there, :2]))
    if not seen:
        raise DataError(f"expected scenarios to forecast of {max(HORIZONS) + (SEEN + 2) * STEP} s or more, got none")
    return seen, coming


def metres(places: Array) -> Array:
    """Along and across, both in metres."""
    return places / [1.0, LATERAL]


def folds(count: int, seed: int) -> list[list[int]]:
    """Places of the scenarios, dealt out at random."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(count)
    return [sorted(order[fold::FOLDS].tolist()) for fold in range(FOLDS)]


def divided(
    files: tuple[Path, ...], tested: tuple[Path, ...], seed: int, fold: int
) -> tuple[list[tuple[str, int, Array]], list[tuple[str, int, Array]]]:
    """Scenarios to learn from, and to forecast: those of `tested`, or a part of all if there are no such files."""
    if tested:
        return scenarios(files), scenarios(tested)
    found = scenarios(files, FOLDS)
    aside = folds(len(found), seed)[fold]
    return [one for k, one in enumerate(found) if k not in aside], [found[k] for k in aside]


def forecasts(
    files: tuple[Path, ...],
    tested: tuple[Path, ...],
    steps: tuple[int, int],
    seed: int,
    fold: int,
    place: Workplace,
) -> Figures:
    """Learns from some scenarios, with and without relations; forecasts others."""
    known, unknown = divided(files, tested, seed, fold)
    learn_from = windows(known)
    seen, coming = tasks(unknown)
    given = systems(seen)
    squares = {"constant velocity": squared_errors(straight_on(seen), coming)}
    seconds = {}
    for name, settings in (("without relations", ALONE), ("with relations", RELATED)):
        changed = dataclasses.replace(
            settings, steps=steps[0], polish_steps=steps[1], rollout=round(max(HORIZONS) / STEP)
        )
        run, seconds[name] = trained(learn_from, changed, seed, place, name.replace(" ", "-"))
        squares[name] = squared_errors(predicted(run, given), coming)
    typed, seconds["types"] = trained(learn_from, dataclasses.replace(TYPED, steps=2 * steps[0]), seed, place, "types")
    return {
        "seed": seed,
        "fold": fold,
        "scenarios": [name for name, _, _ in unknown],
        "systems": learn_from.systems,
        "train_seconds": seconds,
        "settings": RELATED.to_dict(),
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


def straight_on(seen: Sequence[Array]) -> list[Array]:
    """Constant velocity: the recorded speed along the recorded heading."""
    return [np.stack([metres(s[-1, :, :2] + h * s[-1, :, 2:4]) for h in HORIZONS]) for s in seen]


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
    mean = data.states.mean(1)
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
        "Without relations: the same modules, all edges silent. With relations: the "
        f"{found[0]['settings']['neighbours']} nearest vehicles may act, distance across counting {LATERAL:g} times.",
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
        name: list(zip(HORIZONS, each.tolist(), strict=True)) for name, each in errors.items()
    }  # fmt: skip
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
