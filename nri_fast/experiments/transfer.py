"""Modules learned on five entities judge ten: a law does not know how many obey it. And they are a start for ten."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.experiments.lesson import SMALL_CHARGED, Lesson, at_scale, figures_of, trained
from nri_fast.simulate import data_name, simulate

ENTITIES = (5, 10)
FURTHER = {"batch": 10, "transitions": 6, "polish_steps": 0}  # of ten entities: a receiver has 512 assignments
# Systems of ten to learn further from, and what then differs from the first training.
MORE: dict[Scale, dict[str, tuple[int, dict[str, Any]]]] = {
    "small": {"springs": (20, {"steps": 200}), "charged": (50, {"steps": 200, "learning_rate": 3e-3})},
    "full": {"springs": (100, {"steps": 1000}), "charged": (500, {"steps": 2000, "learning_rate": 3e-3})},
}
# The smallest scales judge the crowd of ten worse than this one, and more steps judge it better.
CHARGED = {"steps": 14_000, "last_scale": 3e-5, "polish_steps": 0}
LESSONS = {
    "small": (Lesson("springs", "springs", 20, tested=50), Lesson("charged", "charged", 200, changes=SMALL_CHARGED)),
    "full": (Lesson("springs", "springs", 100), Lesson("charged", "charged", 2500, changes=CHARGED)),
}


def parts(scale: Scale, seed: int) -> list[Part]:
    """One run for each family."""
    lessons = [at_scale(scale, lesson.with_seed(seed)) for lesson in LESSONS[scale]]
    return [Part(lesson.name, partial(examined_on_more, lesson, *MORE[scale][lesson.kind])) for lesson in lessons]


def examined_on_more(lesson: Lesson, more: int, changes: dict[str, Any], place: Workplace) -> Figures:
    """Trains on five entities and examines on five and on ten; goes on training on ten, and examines again."""
    run, seconds = trained(lesson.data("train", lesson.systems), lesson.settings, lesson.seed, place)
    ten = simulate(lesson.kind, more, ENTITIES[-1], seed=lesson.seed)
    settings = dataclasses.replace(lesson.settings, **FURTHER | changes)
    further, further_seconds = trained(ten, settings, lesson.seed, place, "further", start=run)
    tests = {n: simulate(lesson.kind, lesson.tested, n, seed=lesson.seed, split="test") for n in ENTITIES}
    return {
        "kind": lesson.kind,
        "systems": lesson.systems,
        "settings": run.settings.to_dict(),
        "train_seconds": seconds,
        "entities": {
            str(n): {way: figures_of(run, test, way == "undirected") for way in ("directed", "undirected")}
            for n, test in tests.items()
        },
        "further": {
            "systems": more,
            "settings": settings.to_dict(),
            "train_seconds": further_seconds,
            "entities": {
                str(ENTITIES[-1]): {
                    way: figures_of(further, tests[ENTITIES[-1]], way == "undirected")
                    for way in ("directed", "undirected")
                }
            },
        },
    }


def report(figures: dict[str, Figures]) -> Report:
    """A row for each family and number of entities."""
    rows, dots = [], {}
    for part in figures.values():
        first = f"{part['systems']:,} of 5 entities"
        further = f"{first}, then {part['further']['systems']:,} of 10"
        for learned, examined in ((first, part), (further, part["further"])):
            for n, found in examined["entities"].items():
                right = {way: [found[way]["edge_accuracy"]] for way in found}
                name = data_name(part["kind"], int(n))
                title = name if learned == first else f"{name}, learned further"
                dots[title] = {way: [100 * share for share in shares] for way, shares in right.items()}
                rows.append((name, learned, text.percent(right["directed"]), text.percent(right["undirected"])))
    return Report(
        "Learned on five entities, examined on more",
        ("examined on", "systems to learn from", "edges right, directed (%)", "undirected (%)"),
        rows,
        (
            "Of 5 entities: no gradient step on systems of ten. Then of 10: training goes on from those modules.",
            "All 512 assignments of a receiver's edges are weighed.",
            "Charged particles were trained with undirected structures, springs without.",
        ),
        plot.dots(dots, "edges right (%)", "Learned on five entities"),
    )


EXPERIMENT = Experiment(parts, report)
