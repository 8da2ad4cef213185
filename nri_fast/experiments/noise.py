"""Edges right over observation noise, which training and test recordings both have."""

from __future__ import annotations

from typing import Any

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale
from nri_fast.experiments.lesson import SMALL_CHARGED, UNPOLISHED, Lesson, at_scale

SHARES: dict[Scale, dict[str, tuple[float, ...]]] = {
    "small": {"springs": (0.0, 0.01, 0.05), "charged": (0.0, 0.01, 0.05)},
    "full": {"springs": (0.0, 0.01, 0.05), "charged": (0.0, 0.01)},
}
SYSTEMS = {"small": {"springs": 50, "charged": 300}, "full": {"springs": 50, "charged": 500}}
SEEDS = {"small": {"springs": 1, "charged": 1}, "full": {"springs": 3, "charged": 1}}  # of charged, minutes each
# Under noise the types are told apart later, and as directed graphs not always: on one of three data sets all of three
# starts ended in a wrong explanation. What acts both ways is learned as such, as charged particles are.
CHANGES: dict[tuple[Scale, str], dict[str, Any]] = {
    ("small", "charged"): SMALL_CHARGED,
    ("full", "springs"): {"steps": 2000, "undirected": True},
}


def parts(scale: Scale, seed: int) -> list[Part]:
    """The cleanest recordings first."""
    made = []
    for share in SHARES[scale]["springs"]:
        for kind, systems in SYSTEMS[scale].items():
            if share not in SHARES[scale][kind]:
                continue
            for repetition in range(SEEDS[scale][kind]):
                changes = UNPOLISHED | CHANGES.get((scale, kind), {})
                lesson = Lesson(kind, kind, systems, noise_share=share, seed=seed + repetition, changes=changes)
                lesson = at_scale(scale, lesson)
                made.append(lesson.part(f"{lesson.name}-noise{share}".replace(".", "-")))
    return made


def report(figures: dict[str, Figures]) -> Report:
    """A row for each family and amount of noise."""
    groups: dict[tuple[str, float], list[Figures]] = {}
    for part in figures.values():
        lesson = part["lesson"]
        groups.setdefault((lesson["title"], lesson["noise_share"]), []).append(part)
    rows = []
    series: dict[str, list[tuple[float, float]]] = {}
    for (kind, share), runs in sorted(groups.items()):
        edges = {way: [run[way]["edge_accuracy"] for run in runs] for way in ("directed", "undirected")}
        calibration = text.number([run["undirected"]["edge_ece"] for run in runs])
        amounts = text.percent(edges["directed"]), text.percent(edges["undirected"])
        systems, seeds = str(runs[0]["lesson"]["systems"]), str(len(runs))
        rows.append((kind, systems, seeds, f"{100 * share:g}", *amounts, calibration))
        for way, values in edges.items():
            series.setdefault(f"{kind}, {way}", []).extend((100 * share, 100 * value) for value in values)
    return Report(
        "Observation noise",
        ("data", "systems to learn from", "seeds", "noise (% of the spread)", "edges right, directed (%)",
         "undirected (%)", "calibration error"),
        rows,
        (
            "Noise: standard deviation, as a share of that of positions and that of velocities, in training and test.",
            "Trained with undirected structures (springs at the full scale, charged particles always).",
        ),
        plot.curves(series, "noise (% of the spread of positions and of velocities)", "edges right (%)"),
    )  # fmt: skip


EXPERIMENT = Experiment(parts, report)
