"""Edges right over the number of systems to learn from."""

from __future__ import annotations

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale
from nri_fast.experiments.lesson import SEEDS, Lesson, at_scale

SYSTEMS = {"small": (5, 10, 20, 50), "full": (10, 20, 50, 100, 200, 500, 1000, 2500, 10_000, 50_000)}
KINDS = {"small": ("springs",), "full": ("springs", "charged")}


def parts(scale: Scale, seed: int) -> list[Part]:
    """The fewest systems first."""
    return [
        at_scale(scale, Lesson(kind, kind, systems, seed=seed + repetition, changes={"polish_steps": 0})).part()
        for systems in SYSTEMS[scale]
        for kind in KINDS[scale]
        for repetition in range(SEEDS[scale])
    ]


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
