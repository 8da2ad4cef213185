"""Real car platoons: the chain of who follows whom, beside correlation and Granger causality.

Only speeds are looked at: positions of such recordings jump. Speeds are averaged over a second, because changes from
one frame to the next are noise, and a driver or a cruise control takes a second or two to answer. Every run of cars is
judged by modules that never saw it, all of its seconds together. Scores are shown as they are, and under what one knows
about traffic in lanes: a car follows at most one other (:func:`one_leader`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from nri_fast import plot
from nri_fast.causality import granger_causality, lagged_correlation
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.experiments.lesson import trained
from nri_fast.infer import infer
from nri_fast.metrics import Array, edge_auroc
from nri_fast.readers.platoons import read_platoons
from nri_fast.readers.recording import DataError, Recording
from nri_fast.run import Run
from nri_fast.settings import Settings
from nri_fast.trajectory_data import TrajectoryData

FEATURES = ("speed", "change")  # metres a second, and what it changed by since the second before
WINDOW = 20  # seconds of a system to learn from; shorter runs are only judged
OFFSETS = 5  # series of seconds are read from a run, begun at different frames
FOLDS = 3
SEEDS = {"small": 3, "full": 3}  # the full size takes a minute or two, and less is worse
STEPS = {"small": 600, "full": 600}
SETTINGS = Settings(
    message=8, edge_hidden=(16,), node_hidden=(16,), relative=(), judged=("speed",), silent=True,
    robust=False, batch=16, transitions=8, block=32,
)  # fmt: skip
LEAST_SECONDS = 6
SAMPLED = (0.5, 1.0)  # seconds; of the baselines, which get the best of all their settings
LONGEST_LAG, ORDERS = 3.0, (1, 2, 4)
CERTAIN = 1e-30  # probabilities below count as this one
KNOWN = ", at most one leader"


def parts(scale: Scale, seed: int, files: tuple[Path, ...], tested: tuple[Path, ...] = ()) -> list[Part]:
    """The baselines, then every fold of every seed; of files to judge by, every seed."""
    made = [Part("baselines", partial(baselines, tested or files))]
    for repetition in range(seed, seed + SEEDS[scale]):
        for fold in range(1 if tested else FOLDS):
            name = f"seed{repetition}" if tested else f"seed{repetition}-fold{fold}"
            made.append(Part(name, partial(judged, files, tested, STEPS[scale], repetition, fold)))
    return made


def platoons(files: Sequence[Path], least: int = 1) -> list[Recording]:
    """Runs of all files that are long enough, `least` of them or more."""
    runs = [run for file in files for run in read_platoons(file).recordings]
    kept = [run for run in runs if run.steps * run.time_step >= LEAST_SECONDS + 1]
    if len(kept) < least:
        raise DataError(
            f"{', '.join(map(str, files))}: expected at least {least} runs of {LEAST_SECONDS + 1} s, got {len(kept)}"
        )
    names = [run.name for run in kept]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{', '.join(map(str, files))}: expected runs of different names, got {twice[0]!r} twice")
    return kept


def speeds(run: Recording, seconds: float, offset: int = 0) -> Array:
    """[steps, cars] mean speeds over `seconds` each, begun `offset` frames late."""
    recorded = np.concatenate(list(run.pieces()))[offset:, :, -1]
    if np.isnan(recorded).any():
        raise DataError(f"run {run.name!r}: expected speeds without holes")
    frames = max(1, round(seconds / run.time_step))
    count = len(recorded) // frames
    return recorded[: count * frames].reshape(count, frames, -1).mean(1)


def states(run: Recording) -> list[Array]:
    """[steps, cars, features] series of one run; all of one length."""
    frames = max(1, round(1 / run.time_step))
    offsets = sorted({round(k * frames / OFFSETS) for k in range(OFFSETS)} - {frames})
    series = [speeds(run, 1.0, offset) for offset in offsets]
    length = min(map(len, series))
    return [np.stack([s[1:length], np.diff(s[:length], axis=0)], axis=-1) for s in series]


def windows(runs: Sequence[Recording]) -> TrajectoryData:
    """Systems to learn from: windows that overlap by half, of all series of all runs."""
    cut = [
        series[first : first + WINDOW]
        for run in runs
        for series in states(run)
        for first in range(0, len(series) - WINDOW + 1, WINDOW // 2)
    ]
    if not cut:
        raise DataError(f"expected runs to learn from of at least {WINDOW + 2} s, got none")
    sizes = torch.tensor([window.shape[1] for window in cut])
    padded = np.zeros((len(cut), WINDOW, int(sizes.max()), len(FEATURES)))
    for place, window in zip(padded, cut, strict=True):
        place[:, : window.shape[1]] = window
    return TrajectoryData(torch.from_numpy(padded), None, FEATURES, "platoons", sizes=sizes)


def folds(count: int, seed: int) -> list[list[int]]:
    """Places of the runs, dealt out at random."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(count)
    return [sorted(order[fold::FOLDS].tolist()) for fold in range(FOLDS)]


def divided(
    files: tuple[Path, ...], tested: tuple[Path, ...], seed: int, fold: int
) -> tuple[list[Recording], list[Recording]]:
    """Runs to learn from, and runs to judge: those of `tested`, or a third of all if there are no such files."""
    if tested:
        return platoons(files), platoons(tested)
    runs = platoons(files, 2 * FOLDS)
    aside = folds(len(runs), seed)[fold]
    return [run for number, run in enumerate(runs) if number not in aside], [runs[number] for number in aside]


def judged(
    files: tuple[Path, ...], tested: tuple[Path, ...], steps: int, seed: int, fold: int, place: Workplace
) -> Figures:
    """Learns from some runs; scores every pair of cars of others."""
    known, unknown = divided(files, tested, seed, fold)
    learn_from = windows(known)
    run, seconds = trained(learn_from, dataclasses.replace(SETTINGS, steps=steps), seed, place)
    return {
        "seed": seed,
        "fold": fold,
        "systems": learn_from.systems,
        "settings": run.settings.to_dict(),
        "train_seconds": seconds,
        "scores": {one.name: influence(run, one).tolist() for one in unknown},
    }


def influence(run: Run, recording: Recording) -> Array:
    """[cars, cars] log-odds that one acts on another, all seconds of a run together, averaged over its series."""
    data = TrajectoryData(torch.from_numpy(np.stack(states(recording))), None, FEATURES)
    probability = infer(run, data).probability.double().clamp(min=CERTAIN).numpy()
    odds = (np.log(probability[..., 1]) - np.log(probability[..., 0])).mean(0)
    np.fill_diagonal(odds, 0.0)
    return np.round(odds, 4)


def baselines(files: tuple[Path, ...], place: Workplace) -> Figures:
    """Every setting of both baselines: how well its scores of all pairs of cars tell the chain."""
    found: dict[str, dict[str, Array]] = {}
    for run in platoons(files):
        for seconds in SAMPLED:
            series = speeds(run, seconds)
            for what, values in (("speeds", series), ("changes of speed", np.diff(series, axis=0))):
                kind = f"{what}, {seconds:g} s"
                scores = {f"lagged correlation; {kind}": lagged_correlation(values, round(LONGEST_LAG / seconds))}
                for order in ORDERS:
                    for conditional in (False, True):
                        name = f"Granger causality; {'conditional, ' * conditional}order {order}, {kind}"
                        scores[name] = granger_causality(values, order, conditional)
                for name, score in scores.items():
                    found.setdefault(name, {})[run.name] = score
    ahead = {name: {run: ahead_of_others(score) for run, score in scores.items()} for name, scores in found.items()}
    return {
        "quality": {name: quality(scores) for name, scores in found.items()},
        "one_leader": {name: quality(scores) for name, scores in ahead.items()},
    }


def one_leader(odds: Array) -> Array:
    """[cars, cars] log-odds once it is known that a car follows at most one other.

    Of all ways to choose the senders that act on a car, edges being independent but for that, those with one sender or
    none are left: ``odds[i, j] - log(1 + sum over other senders k of exp(odds[k, j]))``.
    """
    known = np.zeros_like(odds, dtype=np.float64)
    for i, j in np.argwhere(~np.eye(len(odds), dtype=bool)):
        others = np.delete(odds[:, j], [i, j])
        known[i, j] = odds[i, j] - np.logaddexp.reduce([0.0, *others])
    return known


def ahead_of_others(score: Array) -> Array:
    """[cars, cars] the same knowledge for scores that are no odds: by how much a sender beats the best other one."""
    found = np.zeros_like(score, dtype=np.float64)
    for i, j in np.argwhere(~np.eye(len(score), dtype=bool)):
        found[i, j] = score[i, j] - max(np.delete(score[:, j], [i, j]), default=0.0)
    return found


def quality(scores: dict[str, Any]) -> dict[str, float]:
    """AUROC against the chain of all runs' pairs together, the mean over runs, and followers whose leader is first."""
    runs = [np.array(one) for one in scores.values()]
    each = [auroc([one]) for one in runs]
    first = [one[:, j][np.arange(len(one)) != j].argmax() == j - 1 for one in runs for j in range(1, len(one))]
    return {"auroc": auroc(runs), "auroc_of_runs": mean(each), "worst_run": min(each), "leader": float(np.mean(first))}


def auroc(runs: Sequence[Array]) -> float:
    """Of scores [cars, cars] of some runs against j -> j + 1."""
    most = max(map(len, runs))
    score, chain = np.zeros((len(runs), most, most, 2)), np.zeros((len(runs), most, most), dtype=np.uint8)
    for s, one in enumerate(runs):
        n = len(one)
        score[s, :n, :n, 1] = one
        chain[s, :n, :n] = np.eye(n, k=1)
    return edge_auroc(score, chain, sizes=np.array([len(one) for one in runs]))


def report(figures: dict[str, Figures]) -> Report:
    """Ours over seeds, and the best of each baseline."""
    seeds: dict[int, dict[str, Any]] = {}
    for part in figures.values():
        if "seed" in part:
            seeds.setdefault(part["seed"], {}).update(part["scores"])
    each = list(seeds.values())
    rows, groups = [], {}
    for known, told in (("", lambda odds: odds), (KNOWN, one_leader)):
        kinds = {"nri_fast, one training run": each}
        if len(each) > 1:
            kinds = {f"nri_fast, mean score of {len(each)} runs": [mean_scores(each)], **kinds}
        for name, repeated in kinds.items():
            scored = [{run: told(np.array(odds)) for run, odds in scores.items()} for scores in repeated]
            groups[name + known] = [quality(scores) for scores in scored]
            rows.append(_row(name + known, groups[name + known]))
        for name, setting, found in best_baselines(figures["baselines"]["one_leader" if known else "quality"]):
            rows.append(_row(f"{name} ({setting}){known}", [found]))
            groups[name + known] = [found]
    first = next(iter(seeds.values()))
    cars = [len(scores) for scores in first.values()]
    return Report(
        "Car platoons: who follows whom",
        ("score", "AUROC, all pairs", "mean over runs", "worst run", "leader ranked first (%)"),
        rows,
        (
            f"{len(cars)} runs of {min(cars)} to {max(cars)} cars; the truth is the chain from each car to the next "
            "behind it, which nothing but this table looks at.",
            "Every run is scored by modules learned on other runs; a score is the log-odds of an edge by the heat "
            "bath, from speeds averaged over a second and their last change.",
            f'"{KNOWN.strip(", ")}": a car follows no more than one other. Of log-odds, what follows from that for '
            "edges that are independent otherwise; of baselines, by how much a sender beats the best other one.",
            "Baselines: the best by AUROC, true chain in hand, of "
            f"{len(figures['baselines']['quality'])} settings in all.",
        ),
        plot.dots(
            {
                "all pairs": {name: [one["auroc"] for one in found] for name, found in groups.items()},
                "mean over runs": {name: [one["auroc_of_runs"] for one in found] for name, found in groups.items()},
            },
            "AUROC",
            "Car platoons",
        ),
    )


def mean_scores(repeated: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores averaged over repetitions, each of which scored every run of cars."""
    return {name: np.mean([one[name] for one in repeated], axis=0) for name in repeated[0]}


def best_baselines(settings: dict[str, dict[str, float]]) -> list[tuple[str, str, dict[str, float]]]:
    """Name, setting and quality of the best setting of each baseline."""
    best: dict[str, tuple[str, str, dict[str, float]]] = {}
    for title, found in settings.items():
        name, setting = title.split("; ")
        if name not in best or found["auroc"] > best[name][2]["auroc"]:
            best[name] = name, setting, found
    return list(best.values())


def _row(name: str, found: Sequence[dict[str, float]]) -> tuple[str, ...]:
    shown = [text.number([one[key] for one in found], 3) for key in ("auroc", "auroc_of_runs", "worst_run")]
    if len(found) > 1:
        spread = np.std([one["auroc"] for one in found], ddof=1)
        shown[0] += f" ± {spread:.3f}"
    return name, *shown, text.percent([one["leader"] for one in found])


EXPERIMENT = Experiment(
    parts, report, "platoons.npz: one array [steps, cars, 3] a run, cars in platoon order", takes_test=True
)
