"""Edges right over the number of systems to learn from."""

from __future__ import annotations

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale
from nri_fast.experiments.lesson import UNPOLISHED, Lesson, at_scale

SYSTEMS: dict[Scale, dict[str, tuple[int, ...]]] = {
    "small": {"springs": (5, 10, 20, 50)},
    "full": {
        "springs": (10, 20, 50, 100, 200, 500, 1000, 2500, 10_000, 50_000),
        "charged": (100, 500, 2500, 10_000, 50_000),
    },
}
SEEDS = {"small": {"springs": 1}, "full": {"springs": 3, "charged": 1}}  # of charged, minutes each


def parts(scale: Scale, seed: int) -> list[Part]:
    """The fewest systems first."""
    lessons = [
        Lesson(kind, kind, count, seed=seed + repetition, changes=UNPOLISHED)
        for kind, counts in SYSTEMS[scale].items()
        for count in counts
        for repetition in range(SEEDS[scale][kind])
    ]
    return [at_scale(scale, lesson).part() for lesson in sorted(lessons, key=lambda lesson: lesson.systems)]


def report(figures: dict[str, Figures]) -> Report:
    """A row for each family and number of systems."""
    groups: dict[tuple[str, int], list[Figures]] = {}
    for part in figures.values():
        lesson = part["lesson"]
        groups.setdefault((lesson["title"], lesson["systems"]), []).append(part)
    rows = []
    series: dict[str, list[tuple[float, float]]] = {}
    for (kind, systems), runs in sorted(groups.items()):
        edges = {way: [run[way]["edge_accuracy"] for run in runs] for way in ("directed", "undirected")}
        time = text.seconds([run["train_seconds"] for run in runs])
        rows.append((kind, f"{systems:,}", text.percent(edges["directed"]), text.percent(edges["undirected"]), time))
        for way, values in edges.items():
            series.setdefault(f"{kind}, {way}", []).extend((systems, 100 * value) for value in values)
    return Report(
        "Data efficiency",
        ("data", "systems to learn from", "edges right, directed (%)", "undirected (%)", "training (s)"),
        rows,
        ("200 systems never seen; the same number of gradient steps, however many systems there are to learn from.",),
        plot.curves(series, "systems to learn from", "edges right on systems never seen (%)", x_log=True),
    )


EXPERIMENT = Experiment(parts, report)
