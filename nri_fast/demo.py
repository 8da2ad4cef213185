"""The first five minutes: simulate, train, infer on systems never seen, print the table, draw pictures."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nri_fast import plot
from nri_fast.bouncegrad import BounceGrad
from nri_fast.checkpoint import write_atomically
from nri_fast.infer import Inference, evaluate, forecast, infer
from nri_fast.normalisation import Normalisation
from nri_fast.record import machine
from nri_fast.report import evaluation_table, json_text
from nri_fast.run import Run, train
from nri_fast.settings import PRESETS, Settings
from nri_fast.simulate import simulate
from nri_fast.trajectory_data import TrajectoryData

DEFAULT_FOLDER = "nri-fast-demo"
LOOKS = 16  # how often, while training, held-out systems are looked at for the picture
SHOWN = 4  # systems in a picture


@dataclass(frozen=True)
class Example:
    """One simulated family, from recordings to graphs.

    Attributes
    ----------
    kind : str
        Simulator (:data:`nri_fast.simulate.KINDS`).
    settings : Settings
        Of training.
    systems, watched, tested : int
        Systems to learn from, to watch while training (for the picture only), and to test on.
    type_names : tuple of str
        Of the true edge types.
    silent : int or None
        True type that means "no interaction".
    forecast : int
        Steps of the forecast in the picture.
    caption : str
        What a reader should know about the figures.
    seed : int
        Of the simulation and of the run.
    """

    kind: str
    settings: Settings
    systems: int
    type_names: tuple[str, ...]
    silent: int | None
    forecast: int
    caption: str
    watched: int = 50
    tested: int = 200
    seed: int = 7


EXAMPLES = (
    Example(
        "springs",
        PRESETS["springs"],
        50,
        ("no spring", "spring"),
        0,
        48,
        "Each pair of bodies is joined by a spring or is not. Fifty recordings are enough to tell which.",
    ),
    Example(
        "charged",
        dataclasses.replace(
            PRESETS["charged"],
            message=32,
            edge_hidden=(32,),
            node_hidden=(32, 32),
            batch=25,
            steps=4500,
            polish_steps=0,
        ),
        300,
        ("attraction", "repulsion"),
        None,
        20,
        "Charges attract or repel, and close encounters are chaotic: harder. This run is kept short; the documentation "
        "tells what more systems and more steps reach.",
    ),
)


class Watch:
    """Looks at held-out systems every so often while training; the time it takes is not the training's.

    Parameters
    ----------
    held_out : TrajectoryData
        With true graphs.
    normalisation : Normalisation
        That of the training data.
    total_steps : int
        Of the run. Looks are more frequent early on, where most happens.
    """

    def __init__(self, held_out: TrajectoryData, normalisation: Normalisation, total_steps: int) -> None:
        self.held_out, self.normalisation = held_out, normalisation
        self.looks = {max(1, round(total_steps * (look / LOOKS) ** 2)) for look in range(1, LOOKS + 1)}
        self.steps: list[int] = []
        self.accuracy: list[float] = []
        self.seconds = 0.0
        self._calls = 0

    def __call__(self, trainer: BounceGrad) -> None:
        """Called after every gradient step."""
        self._calls += 1
        if self._calls not in self.looks:
            return
        started = time.monotonic()
        # The library is in the middle of its training; everything else of a run is known.
        library, settings = trainer.library, trainer.settings
        scale, weights = trainer.scale_squared, trainer.feature_weights
        run = Run(library, library, self.normalisation, settings, trainer.seed, {}, scale, weights)
        self.steps.append(self._calls)
        self.accuracy.append(evaluate(run, self.held_out)["edge_accuracy"])
        self.seconds += time.monotonic() - started


def demo(
    out: Path | None = None, examples: Sequence[Example] = EXAMPLES, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Runs the examples and leaves pictures, figures and runs in a new folder.

    Parameters
    ----------
    out : Path, optional
        Folder that does not exist or is empty; by default ``nri-fast-demo``, or ``nri-fast-demo-2`` and so on.
    examples : sequence of Example
        What to run.
    say : callable
        Takes each line of text.

    Returns
    -------
    dict
        The figures of each example, by kind, as its JSON file has them.

    Raises
    ------
    FileExistsError
        If `out` is there and not empty.
    """
    started = time.monotonic()
    folder = _fresh_folder(out)
    say("Who acts on whom? nri_fast sees recorded paths only; true graphs serve to count its mistakes.")
    figures = {}
    for example in examples:
        say("")
        figures[example.kind] = _run_example(example, folder, say)
    say("")
    say(f"Done in {time.monotonic() - started:.0f} s. Look at the pictures in {folder}/")
    say(f"Your own recordings: nri-fast train --help. These runs: nri-fast infer {folder / examples[0].kind}_run ...")
    return figures


def _fresh_folder(out: Path | None) -> Path:
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(f"{out}: already there and not empty; pass another --out")
        out.mkdir(parents=True, exist_ok=True)
        return out
    for number in itertools.count(1):
        folder = Path(DEFAULT_FOLDER if number == 1 else f"{DEFAULT_FOLDER}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def _run_example(example: Example, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    kind, settings = example.kind, example.settings
    say(f"== {kind} ==")
    say(example.caption)
    started = time.monotonic()
    learn, watched, test = (
        simulate(kind, systems, seed=example.seed, split=split)
        for systems, split in ((example.systems, "train"), (example.watched, "valid"), (example.tested, "test"))
    )
    simulated = time.monotonic()
    total = settings.steps + settings.polish_steps
    say(f"* simulated {example.systems} systems of {learn.entities} bodies to learn from, {test.systems} to test on")
    say(f"* training on the {example.systems}: {total} gradient steps, no labels ...")
    watch = Watch(watched, Normalisation.learn(learn), total)
    run = train(learn, settings=settings, seed=example.seed, out=folder / f"{kind}_run", on_step=watch)
    trained = time.monotonic()
    training_seconds = trained - simulated - watch.seconds
    say(f"* trained in {training_seconds:.1f} s; inferring the graphs of the {test.systems} others ...")
    found = infer(run, test, progress=True)
    inferred = time.monotonic()
    result = evaluate(run, test, found)
    say("")
    say(f"training       {training_seconds:.1f} s")
    say(evaluation_table(result))
    say("")
    pictures = _draw(example, run, test, found, result["relabelling"], watch)
    for name, figure in pictures.items():
        figure.savefig(folder / f"{kind}_{name}.png", dpi=150)
    drawn = time.monotonic()
    say(f"* wrote {kind}.json and pictures: {', '.join(f'{kind}_{name}.png' for name in pictures)}")
    facts = {
        "example": dataclasses.asdict(example),
        "figures": result,
        "held_out_while_training": {"step": watch.steps, "edge_accuracy": watch.accuracy},
        "seconds": {
            "simulate": simulated - started,
            "train": training_seconds,
            "watch": watch.seconds,
            "infer": inferred - trained,
            "evaluate and draw": drawn - inferred,
        },
        "machine": machine(),
        "run": f"{kind}_run",
    }
    write_atomically(folder / f"{kind}.json", (json_text(facts) + "\n").encode())
    return facts


def _draw(
    example: Example, run: Run, test: TrajectoryData, found: Inference, relabelling: list[int], watch: Watch
) -> dict[str, Any]:
    assert test.edges is not None
    named = plot.relabel(found.adjacency, relabelling)
    certainty = found.probability.amax(-1)
    titles = [f"test system {s}" for s in range(SHOWN)]
    settings = run.settings
    pictures = {
        "graphs": plot.graphs(
            named[:SHOWN], test.edges[:SHOWN], certainty[:SHOWN], example.type_names, example.silent, titles
        ),
        "trajectories": plot.trajectories(
            test.states[:SHOWN],
            forecast(run, test, found, example.forecast)[:SHOWN],
            0,
            test.feature_names,
            "simulator's units",
            titles,
        ),
        "training": plot.training(
            run.history, watch.steps, watch.accuracy, settings.steps if settings.polish_steps else None
        ),
        "confusion": plot.confusion(named, test.edges, example.type_names),
    }
    names = [example.type_names[k] if k < len(example.type_names) else f"type {k}" for k in relabelling]
    if example.kind in TRUE_LAWS:
        (near, far), truth = TRUE_LAWS[example.kind]
        pictures["laws"] = plot.laws(run, np.linspace(near, far, 60), test.entities, names, truth)
    return pictures


# Distances to draw, and the true pull in one step of 0.1 time units at each of them.
TRUE_LAWS: dict[str, tuple[tuple[float, float], dict[str, Callable[[plot.Array], plot.Array]]]] = {
    "springs": ((0.0, 2.5), {"true spring": lambda r: 0.01 * r}),
    "charged": ((0.7, 4.0), {"true attraction": lambda r: 0.1 / r**2, "true repulsion": lambda r: -0.1 / r**2}),
}
