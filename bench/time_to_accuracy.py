"""Seconds from nothing to an accuracy on systems never seen: simulate, train, infer. The start of the process is apart.

The clock stands still while accuracy is watched; one inference of all held-out systems counts. An accuracy is reached
at the first of two looks in a row that see it. The peers are the same method in plain PyTorch: `dense_trainer`, on the
same data, and any training script (`--beside SCRIPT`), which simulates its own and looks when it likes.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nri_fast as nf
from bench.cases import Effort
from bench.limits import figures, limits
from bench.peers.dense_trainer import DenseTrainer, Recipe
from bench.peers.trainer_script import watch_script
from bench.rows import OURS, Row, use_threads
from bench.timer import interleaved
from nri_fast.couplings import Coupling
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.metrics import edge_accuracy

PEER = "dense trainer"


@dataclass(frozen=True)
class Lesson:
    """What is learned, and when it is learned well enough.

    Attributes
    ----------
    kind : str
        Of the simulator; five entities.
    systems, held_out : int
        To learn from, and to be examined on.
    accuracies : tuple of float
        Shares of held-out edges, ascending.
    settings : Settings
        Ours; forecasts are not asked for, so nothing is polished.
    recipe : Recipe
        The peer's.
    seeds : tuple of int
        Repetitions, in turns.
    """

    kind: str
    systems: int
    held_out: int
    accuracies: tuple[float, ...]
    settings: nf.Settings
    recipe: Recipe
    seeds: tuple[int, ...]


def lessons(effort: Effort) -> list[Lesson]:
    """Springs; for the record charged particles too."""
    springs = Lesson(
        "springs",
        20,
        200,
        (0.99,),
        dataclasses.replace(nf.PRESETS["springs"], polish_steps=0),
        Recipe(width=32, steps=1000, batch=20, last_scale=0.003),
        (1, 2, 3) if effort.full else (1,),
    )
    charged = Lesson(
        "charged",
        2500,
        200,
        (0.95, 0.98),
        dataclasses.replace(nf.PRESETS["charged"], steps=5000, polish_steps=0),  # half the preset's: enough for 98%
        Recipe(width=64, steps=14_000, batch=50, last_scale=3e-5),
        (1,),
    )
    if effort.name == "tiny":
        small = {"steps": 3, "batch": 2, "message": 4, "edge_hidden": (4,), "node_hidden": (4, 4)}
        settings = nf.Settings.from_dict(springs.settings.to_dict() | small)
        return [dataclasses.replace(springs, systems=3, held_out=2, settings=settings, recipe=Recipe(4, 3, 2, 0.1))]
    return [springs, charged] if effort.full else [springs]


class _EnoughError(Exception):
    pass


@dataclass
class Watch:
    """A clock that stands still while accuracy is measured, and what it saw.

    Attributes
    ----------
    accuracies : tuple of float
        To be reached.
    limit : float
        Seconds after which it is given up.
    curve : list of tuple
        Seconds, step, accuracy of every look.
    inference : float
        Seconds that the last look's inference took.
    wait : callable
        Returns when the device has done what it was asked for.
    """

    accuracies: tuple[float, ...]
    limit: float
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    inference: float = 0.0
    wait: Callable[[], object] = lambda: None
    _started: float = field(default_factory=time.perf_counter)
    _stood: float = 0.0
    _next: float = 0.0

    def look(self, step: int, infer: Callable[[], Tensor], truth: Tensor) -> None:
        """Measures if it is time to; stops the training by an exception once nothing is left to be seen."""
        now = time.perf_counter()
        elapsed = now - self._started - self._stood
        if elapsed < self._next and elapsed < self.limit:
            return
        self.wait()
        now = time.perf_counter()
        elapsed = now - self._started - self._stood
        inferred = infer()
        self.inference = time.perf_counter() - now
        self.curve.append((round(elapsed, 3), step, round(edge_accuracy(inferred, truth)[0], 5)))
        self._next = elapsed + max(0.1, 0.04 * elapsed)
        done = self.reached(self.accuracies[-1]) is not None or elapsed >= self.limit
        self._stood += time.perf_counter() - now
        if done:
            raise _EnoughError

    def reached(self, accuracy: float) -> float | None:
        """Seconds to an accuracy, one inference included; None if it was not reached."""
        for (seconds, _, first), (_, _, second) in zip(self.curve, self.curve[1:], strict=False):
            if min(first, second) >= accuracy:
                return seconds + self.inference
        return None

    def figures(self) -> dict[str, Any]:
        """For the result file."""
        seconds, steps, last = self.curve[-1] if self.curve else (0.0, 0, 0.0)
        reached = {f"{a:g}": self.reached(a) for a in self.accuracies}
        return {
            "reached_s": {a: None if s is None else round(s, 2) for a, s in reached.items()},
            "watched_s": round(seconds, 2),
            "last_accuracy": last,
            "steps_per_s": round(steps / max(seconds, 1e-9), 2),
            "inference_s": round(self.inference, 3),
            "curve": self.curve,
        }


def rows(effort: Effort, limit: float, beside: Path | None = None) -> Iterator[Row]:
    """A row for each lesson and seed; each run is given up after `limit` seconds. All threads."""
    threads = max(effort.threads)
    use_threads(threads)
    for lesson in lessons(effort):
        test = nf.simulate(lesson.kind, lesson.held_out, seed=1, split="test")
        for seed in lesson.seeds:
            floor = limits(threads)
            before = interleaved({name: one.work for name, one in floor.items()}, 0.1)
            watches = {}
            for name, learn in ((OURS, ours), (PEER, theirs)):
                watches[name] = Watch(lesson.accuracies, limit)
                learn(lesson, seed, test, watches[name])
            if beside is not None:
                watches[beside.name] = watch = Watch(lesson.accuracies, limit)
                watch.curve = watch_script(beside, lesson.kind, lesson.systems, lesson.recipe, threads, seed, limit)
            after = interleaved({name: one.work for name, one in floor.items()}, 0.1)
            for name, times in after.items():
                before[name].seconds += times.seconds
            runs = {name: watch.figures() for name, watch in watches.items()}
            best = runs[OURS]["reached_s"]
            for name in runs.keys() - {OURS}:
                runs[name]["times_slower"] = {
                    a: None if s is None or best[a] is None else round(s / best[a], 2)
                    for a, s in runs[name]["reached_s"].items()
                }
            yield {
                "subject": "time_to_accuracy",
                "work": f"{lesson.kind}5, {lesson.systems:,} systems",
                "case": {"threads": threads, "seed": seed, "held_out_systems": lesson.held_out, "limit_s": limit},
                "settings": lesson.settings.to_dict(),
                "recipe": dataclasses.asdict(lesson.recipe),
                "limits": figures(floor, before),
                "runs": runs,
                "left_out": {},
            }


def ours(lesson: Lesson, seed: int, test: nf.TrajectoryData, watch: Watch, device: torch.device | str = "cpu") -> None:
    """By `nri_fast.train`."""
    data = nf.simulate(lesson.kind, lesson.systems, seed=seed)
    truth = test.edges
    assert truth is not None
    held_out = nf.SystemSet.complete(nf.Normalisation.learn(data).apply(test.states).to(device))
    coupling = Coupling(lesson.settings.undirected)
    steps = itertools.count(1)

    def on_step(trainer: nf.BounceGrad) -> None:
        def infer() -> Tensor:
            measure = trainer.error_measure()
            found = heat_bath_search(trainer.library, held_out, measure, temperature=0.0, coupling=coupling)
            return held_out.graph.adjacency(found.edge_types).cpu()

        watch.look(next(steps), infer, truth)

    try:
        nf.train(data, settings=lesson.settings, seed=seed, device=device, progress=False, on_step=on_step)
    except _EnoughError:
        return


def theirs(lesson: Lesson, seed: int, test: nf.TrajectoryData, watch: Watch) -> None:
    """By plain PyTorch."""
    data = nf.simulate(lesson.kind, lesson.systems, seed=seed)
    truth = test.edges
    assert truth is not None
    normalisation = nf.Normalisation.learn(data)
    held_out = normalisation.apply(test.states)
    trainer = DenseTrainer(normalisation.apply(data.states), lesson.recipe, seed)
    try:
        trainer.fit(lambda now: watch.look(now.done, lambda: now.infer(held_out), truth))
    except _EnoughError:
        return
