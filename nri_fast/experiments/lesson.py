"""Learn from simulated systems, then infer systems never seen: what most experiments repeat in variations."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nri_fast.calibration import reliability
from nri_fast.experiments.experiment import Figures, Part, Scale, Workplace
from nri_fast.infer import Inference, evaluate, infer
from nri_fast.run import Run, train
from nri_fast.settings import PRESETS, Settings
from nri_fast.simulate import data_name, simulate
from nri_fast.trajectory_data import TrajectoryData

SEEN = 49  # recorded steps that structures are found in, as NRI has it
SMALL_STEPS = 4500  # gradient steps at the small scale, at most
SMALL_CHARGED = {"message": 32, "edge_hidden": (32,), "node_hidden": (32, 32), "batch": 25}
UNPOLISHED = {"polish_steps": 0}  # edges are what counts
SEEDS = {"small": 1, "full": 3}


@dataclass(frozen=True)
class Lesson:
    """One training run and its examination.

    Attributes
    ----------
    kind, entities, noise_share
        Of the simulator (:func:`nri_fast.simulate`).
    systems, tested : int
        Systems to learn from and to be examined on.
    preset : str
        Name in :data:`nri_fast.PRESETS`.
    ahead : int
        Steps of test systems that are forecast and nothing else: they lie behind those that structures are found in.
    changes : dict
        Settings that differ from the preset.
    seed : int
        Of the simulation and of the run.
    """

    kind: str
    preset: str
    systems: int
    entities: int = 5
    tested: int = 200
    noise_share: float = 0.0
    ahead: int = 0
    seed: int = 1
    changes: dict[str, Any] = field(default_factory=dict)

    def with_seed(self, seed: int) -> Lesson:
        """The same with other random numbers."""
        return dataclasses.replace(self, seed=seed)

    @property
    def settings(self) -> Settings:
        """Of the run."""
        return dataclasses.replace(PRESETS[self.preset], **self.changes)

    @property
    def title(self) -> str:
        """Of its data."""
        return data_name(self.kind, self.entities)

    @property
    def name(self) -> str:
        """For a part that differs from others in its data set, its size or its seed."""
        return f"{self.title}-{self.systems}-seed{self.seed}".replace("_", "-")

    def data(self, split: str, systems: int, ahead: int = 0) -> TrajectoryData:
        """Simulated systems, with so many steps behind those that structures are found in."""
        return simulate(self.kind, systems, self.entities, SEEN + ahead, self.seed, split, noise_share=self.noise_share)

    def part(self, name: str | None = None) -> Part:
        """The part that works this lesson off."""
        return Part(self.name if name is None else name, partial(examined, self))


def at_scale(scale: Scale, lesson: Lesson) -> Lesson:
    """The lesson itself, or a shorter one."""
    if scale == "full":
        return lesson
    settings = lesson.settings
    shorter = {"steps": min(settings.steps, SMALL_STEPS), "polish_steps": min(settings.polish_steps, SMALL_STEPS // 10)}
    return dataclasses.replace(lesson, changes={**lesson.changes, **shorter})


def examined(
    lesson: Lesson, place: Workplace, learn_from: TrajectoryData | None = None, test: TrajectoryData | None = None
) -> Figures:
    """Trains, or goes on training, and examines.

    Parameters
    ----------
    lesson : Lesson
        What to do.
    place : Workplace
        Where; the run is left in its folder ``run``.
    learn_from, test : TrajectoryData, optional
        Instead of the lesson's own.

    Returns
    -------
    dict
        ``lesson``, ``settings``, ``train_seconds`` (None if training was interrupted), and for ``directed`` and
        ``undirected`` structures what :func:`nri_fast.evaluate` returns, with the ``reliability`` of probabilities, and
        ``ahead``: errors of forecasts that begin behind the steps that structures were found in, if the lesson asks.
    """
    learn_from = lesson.data("train", lesson.systems) if learn_from is None else learn_from
    test = lesson.data("test", lesson.tested, lesson.ahead) if test is None else test
    run, seconds = trained(learn_from, lesson.settings, lesson.seed, place)
    return {
        "lesson": {"title": lesson.title, **dataclasses.asdict(lesson)},
        "settings": run.settings.to_dict(),
        "train_seconds": seconds,
        "directed": figures_of(run, test, undirected=False, ahead=lesson.ahead),
        "undirected": figures_of(run, test, undirected=True, ahead=lesson.ahead),
    }


def trained(
    data: TrajectoryData,
    settings: Settings,
    seed: int,
    place: Workplace,
    name: str = "run",
    start: Run | None = None,
) -> tuple[Run, float | None]:
    """The run, from random weights or another run's, and how long it took, None if it was interrupted."""
    folder: Path = place.folder / name
    interrupted = folder.exists()
    started = time.monotonic()
    run = train(
        data,
        settings=settings,
        seed=seed,
        device=place.device,
        out=folder,
        resume=True,
        progress=place.progress,
        start=start,
    )
    return run, None if interrupted else round(time.monotonic() - started, 2)


def figures_of(run: Run, test: TrajectoryData, undirected: bool, ahead: int = 0) -> Figures:
    """Evaluation of a run whose structures are searched as directed or as undirected graphs, however it was trained.

    Of the last `ahead` steps no structure is judged: they are forecast from the first of them on.
    """
    searched = dataclasses.replace(run, settings=dataclasses.replace(run.settings, undirected=undirected))
    seen = dataclasses.replace(test, states=test.states[:, : test.steps - ahead])
    found: Inference = infer(searched, seen)
    figures = evaluate(searched, seen, found)
    if seen.edges is not None:
        table = reliability(found.probability, seen.edges, figures["relabelling"])
        figures["reliability"] = table.to_dict()
    if ahead:
        behind = evaluate(searched, test.part(slice(seen.steps, None)), found)
        figures["ahead"] = {name: value for name, value in behind.items() if name.startswith("mse_")}
    return figures
