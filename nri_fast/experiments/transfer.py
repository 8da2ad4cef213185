"""Modules learned on five entities judge ten, without another gradient step: a law does not know how many obey it."""

from __future__ import annotations

from functools import partial

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale, Workplace
from nri_fast.experiments.lesson import SMALL_CHARGED, Lesson, at_scale, figures_of, trained
from nri_fast.simulate import data_name, simulate

ENTITIES = (5, 10)
# The smallest scales judge the crowd of ten worse than this one, and more steps judge it better.
CHARGED = {"steps": 14_000, "last_scale": 3e-5, "polish_steps": 0}
LESSONS = {
    "small": (Lesson("springs", "springs", 20, tested=50), Lesson("charged", "charged", 200, changes=SMALL_CHARGED)),
    "full": (Lesson("springs", "springs", 100), Lesson("charged", "charged", 2500, changes=CHARGED)),
}


def parts(scale: Scale, seed: int) -> list[Part]:
    """One run for each family."""
    lessons = [at_scale(scale, lesson.with_seed(seed)) for lesson in LESSONS[scale]]
    return [Part(lesson.name, partial(examined_on_more, lesson)) for lesson in lessons]


def examined_on_more(lesson: Lesson, place: Workplace) -> Figures:
    """Trains on five entities and examines on five and on ten."""
    run, seconds = trained(lesson.data("train", lesson.systems), lesson.settings, lesson.seed, place)
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
    }


def report(figures: dict[str, Figures]) -> Report:
    """A row for each family and number of entities."""
    rows, dots = [], {}
    for part in figures.values():
        for n, found in part["entities"].items():
            right = {way: [found[way]["edge_accuracy"]] for way in found}
            name = data_name(part["kind"], int(n))
            dots[name] = {way: [100 * share for share in shares] for way, shares in right.items()}
            learned = f"{part['systems']:,} of 5 entities"
            rows.append((name, learned, text.percent(right["directed"]), text.percent(right["undirected"])))
    return Report(
        "Learned on five entities, examined on more",
        ("examined on", "systems to learn from", "edges right, directed (%)", "undirected (%)"),
        rows,
        (
            "No gradient step is taken on systems of ten; all 512 assignments of a receiver's edges are weighed.",
            "Charged particles were trained with undirected structures, springs without.",
        ),
        plot.dots(dots, "edges right (%)", "Learned on five entities"),
    )


EXPERIMENT = Experiment(parts, report)
