"""Graphs whose shape was never seen in training: springs, training and test systems share no isomorphism class."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.experiments.graph_shapes import graph_shapes
from nri_fast.experiments.lesson import SEEDS, Lesson, at_scale, examined
from nri_fast.metrics import Array
from nri_fast.trajectory_data import TrajectoryData

LESSON = Lesson("springs", "springs", 50)
SHAPES_OF = 4  # as many systems are simulated as are wanted, times this
NEW, SEEN = "shapes never seen", "any shapes"


def parts(scale: Scale, seed: int) -> list[Part]:
    """With and without shapes in common, over seeds."""
    made = []
    for repetition in range(SEEDS[scale]):
        lesson = at_scale(scale, LESSON.with_seed(seed + repetition))
        made += [
            Part(f"{lesson.name}-new-shapes", partial(without_common_shapes, lesson)),
            Part(f"{lesson.name}-any-shapes", partial(with_any_shapes, lesson)),
        ]
    return made


def without_common_shapes(lesson: Lesson, place: Workplace) -> Figures:
    """Half of the shapes (by the systems that have them) to learn from, the other half to be examined on."""
    learn_from, test = disjoint(
        lesson.data("train", SHAPES_OF * lesson.systems), lesson.data("test", SHAPES_OF * lesson.tested), lesson.seed
    )
    learn_from = learn_from.select(torch.arange(min(lesson.systems, learn_from.systems)))
    return shapes_told(NEW, lesson, place, learn_from, test.select(torch.arange(min(lesson.tested, test.systems))))


def with_any_shapes(lesson: Lesson, place: Workplace) -> Figures:
    """The same numbers of systems as they come."""
    data = lesson.data("train", lesson.systems), lesson.data("test", lesson.tested)
    return shapes_told(SEEN, lesson, place, *data)


def shapes_told(
    title: str, lesson: Lesson, place: Workplace, learn_from: TrajectoryData, test: TrajectoryData
) -> Figures:
    """Examination, and how many shapes there were."""
    assert learn_from.edges is not None
    assert test.edges is not None
    shapes, tested = set(graph_shapes(learn_from.edges)), set(graph_shapes(test.edges))
    counts = {"learned": len(shapes), "tested": len(tested), "common": len(shapes & tested)}
    return examined(lesson, place, learn_from, test) | {"test": title, "shapes": counts}


def disjoint(one: TrajectoryData, other: TrajectoryData, seed: int) -> tuple[TrajectoryData, TrajectoryData]:
    """Those systems of `one` and of `other` that have no shape in common.

    Shapes are dealt out in random order, until those of `one` make up half of its systems.
    """
    assert one.edges is not None
    assert other.edges is not None
    mine, its = graph_shapes(one.edges), graph_shapes(other.edges)
    names, counts = np.unique(mine, return_counts=True)
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    kept = set(names[order][before < len(mine) / 2])

    def chosen(shapes: Array, wanted: bool) -> torch.Tensor:
        return torch.tensor([s for s, shape in enumerate(shapes) if (shape in kept) == wanted])

    return one.select(chosen(mine, True)), other.select(chosen(its, False))


def report(figures: dict[str, Figures]) -> Report:
    """A row for each kind of test."""
    rows, dots = [], {}
    for title in (SEEN, NEW):
        runs = [part for part in figures.values() if part["test"] == title]
        edges = {way: [run[way]["edge_accuracy"] for run in runs] for way in ("directed", "undirected")}
        shapes = [" / ".join(str(run["shapes"][key]) for key in ("learned", "tested", "common")) for run in runs]
        dots[title] = {way: [100 * value for value in values] for way, values in edges.items()}
        accuracy = text.percent(edges["directed"]), text.percent(edges["undirected"])
        systems = str(min(run["directed"]["systems"] for run in runs))
        rows.append((title, str(len(runs)), "; ".join(shapes), systems, *accuracy))
    return Report(
        "Graphs of shapes never seen",
        ("test systems", "seeds", "shapes learned / tested / common", "tested", "edges right, directed (%)",
         "undirected (%)"),
        rows,
        (
            f"springs5, {LESSON.systems} systems to learn from. A shape is a graph up to the entities' numbering.",
        ),
        plot.dots(dots, "edges right (%)"),
    )  # fmt: skip


EXPERIMENT = Experiment(parts, report)
