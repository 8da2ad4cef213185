"""Entities that nobody observed, found from how the others move, beside the best constant guess."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from nri_fast import plot
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.experiments.lesson import SEEDS, Lesson, trained
from nri_fast.report import MISSING, percent
from nri_fast.run import Run
from nri_fast.trajectory_data import TrajectoryData
from nri_fast.unseen import Hidden, Unseen, find_unseen, hide, score_unseen

# Paths are told apart by what the modules get wrong: roll-outs are trained for longer than edges alone would need.
LESSONS = {
    "small": Lesson("springs", "springs", 100, tested=16, changes={"polish_steps": 1000}),
    "full": Lesson("springs", "springs", 200, tested=100, changes={"steps": 3000, "polish_steps": 3000}),
}
SHOWN = 4  # systems in the picture


@dataclass(frozen=True)
class Task:
    """What is hidden, and what is known beforehand.

    Attributes
    ----------
    hidden : tuple of int
        Entities.
    undirected : bool
        Whether it is known that both directions of a pair have one type.
    """

    hidden: tuple[int, ...]
    undirected: bool

    @property
    def name(self) -> str:
        """For tables and folders."""
        return f"{len(self.hidden)} hidden, {'undirected' if self.undirected else 'directed'}"


TASKS = {
    "small": (Task((4,), False), Task((4,), True)),
    "full": (Task((4,), False), Task((4,), True), Task((3, 4), False), Task((3, 4), True)),
}


def parts(scale: Scale, seed: int) -> list[Part]:
    """One training run with all searches behind it, for each seed."""
    lessons = [LESSONS[scale].with_seed(seed + repetition) for repetition in range(SEEDS[scale])]
    return [Part(lesson.name, partial(searched, lesson, TASKS[scale])) for lesson in lessons]


def searched(lesson: Lesson, tasks: tuple[Task, ...], place: Workplace) -> Figures:
    """Trains on complete recordings without labels, then searches in others.

    Returns
    -------
    dict
        ``lesson``, ``settings``, ``train_seconds``; ``tasks``, a list of dicts with the task's ``name``, ``seconds``
        (of this process) and ``figures`` (:func:`nri_fast.score_unseen`); ``shown``, the first task's first systems.
    """
    run, train_seconds = trained(lesson.data("train", lesson.systems), lesson.settings, lesson.seed, place)
    test = lesson.data("test", lesson.tested)
    results, shown = [], None
    for task in tasks:
        started = time.monotonic()
        seen, truth = hide(test, task.hidden)
        folder = place.folder / task.name.replace(", ", "-").replace(" ", "-")
        found = find_unseen(run, seen, len(task.hidden), task.undirected, lesson.seed, place.progress, folder)
        seconds = round(time.monotonic() - started, 2)
        figures = score_unseen(run, found, truth)
        results.append({"name": task.name, "seconds": seconds, "figures": figures})
        shown = shown or _shown(run, seen, truth, found, figures)
    return {
        "lesson": dataclasses.asdict(lesson),
        "settings": run.settings.to_dict(),
        "train_seconds": train_seconds,
        "tasks": results,
        "shown": shown,
    }


def report(figures: dict[str, Figures]) -> Report:
    """A row for each task and number of edges that a hidden entity has, over all seeds."""
    rows = []
    names = [task["name"] for task in next(iter(figures.values()))["tasks"]]
    for name in names:
        each = [task["figures"] for part in figures.values() for task in part["tasks"] if task["name"] == name]
        counts = sorted({row["edges"] for one in each for row in one["by_edges"]})
        for count in counts:
            rows.append(_row(name, str(count), [r for one in each for r in one["by_edges"] if r["edges"] == count]))
        rows.append(_row(name, "1 or more", [one["linked"] for one in each]))
    notes = [
        "Mean squared error of hidden paths over all steps and features, normalised units squared.",
        "The best constant guess is the variance of the same entities' states.",
    ]
    for name in names:
        tasks = [task for part in figures.values() for task in part["tasks"] if task["name"] == name]
        notes.append(f"{name}: {_edges_right(tasks)}; {sum(task['seconds'] for task in tasks):.0f} s in all")
    first = next(iter(figures.values()))
    shown = {key: np.asarray(value) for key, value in first["shown"].items()}
    titles = [f"error {value:.1e}" for value in first["shown"]["error"]]
    picture = plot.unseen(
        shown["seen"],
        shown["found"],
        shown["adjacency"],
        shown["true"],
        shown["true_adjacency"],
        shown["probability"],
        silent=0,
        titles=titles,
    )
    columns = ("task", "edges", "hidden entities", "mean error", "median", "best constant guess")
    return Report("Unseen entities, springs5", columns, rows, notes, picture)


def _row(name: str, edges: str, groups: list[dict[str, Any]]) -> tuple[str, ...]:
    """Means over groups, each as heavy as it has entities; the median of a group counts likewise."""
    groups = [group for group in groups if group["entities"]]
    count = sum(group["entities"] for group in groups)
    means = (
        f"{sum(group[key] * group['entities'] for group in groups) / count:.1e}" if count else MISSING
        for key in ("error", "median_error", "guess")
    )
    return name, edges, str(count), *means


def _edges_right(tasks: list[dict[str, Any]]) -> str:
    shares = {"seen": "among seen entities", "out": "from hidden ones", "into": "to hidden ones"}
    found = [task["figures"]["edge_accuracy"] for task in tasks]
    means = {side: sum(one[side] for one in found) / len(found) for side in shares}
    return "edges right " + ", ".join(f"{shares[side]} {percent(mean)}" for side, mean in means.items())


def _shown(run: Run, seen: TrajectoryData, truth: Hidden, found: Unseen, figures: Figures) -> dict[str, Any]:
    """What the picture needs, as lists, rounded to what can be seen."""
    some = slice(0, SHOWN)
    true = run.normalisation.apply(truth.states[some], torch.float64)
    assert truth.edges is not None
    adjacency = found.adjacency[some]
    probability = found.probability[some].gather(-1, adjacency.long()[..., None])[..., 0]
    return {
        "seen": _rounded(run.states(seen)[some].cpu()),
        "found": _rounded(found.path[some]),
        "true": _rounded(true),
        "adjacency": plot.relabel(adjacency, figures["relabelling"]).tolist(),
        "true_adjacency": truth.edges[some].tolist(),
        "probability": _rounded(probability),
        "error": ((found.path[some] - true) ** 2).mean((1, 2, 3)).tolist(),
    }


def _rounded(values: torch.Tensor) -> list[Any]:
    return np.round(values.double().numpy(), 4).tolist()


EXPERIMENT = Experiment(parts, report)
