"""Whether probabilities of edges mean what they say."""

from __future__ import annotations

import numpy as np

from nri_fast import plot
from nri_fast.calibration import Reliability
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale
from nri_fast.experiments.lesson import SMALL_CHARGED, UNPOLISHED, Lesson, at_scale

LESSONS = {
    "small": (
        Lesson("springs", "springs", 20, changes=UNPOLISHED),
        Lesson("charged", "charged", 200, changes=UNPOLISHED | SMALL_CHARGED),
    ),
    "full": (
        Lesson("springs", "springs", 50, tested=1000, changes=UNPOLISHED),
        Lesson("charged", "charged", 500, tested=1000, changes=UNPOLISHED),
    ),
}
SEEDS = {"small": {"springs": 1, "charged": 1}, "full": {"springs": 3, "charged": 1}}  # of charged, minutes each


def parts(scale: Scale, seed: int) -> list[Part]:
    """Both families, over seeds."""
    return [
        at_scale(scale, lesson.with_seed(seed + repetition)).part()
        for lesson in LESSONS[scale]
        for repetition in range(SEEDS[scale][lesson.kind])
    ]


def report(figures: dict[str, Figures]) -> Report:
    """A row and a curve for each family, directed and undirected; the curve pools the seeds."""
    rows, tables = [], {}
    for kind in dict.fromkeys(part["lesson"]["title"] for part in figures.values()):
        runs = [part for part in figures.values() if part["lesson"]["title"] == kind]
        for way in ("directed", "undirected"):
            found = [run[way] for run in runs]
            each = [Reliability.from_dict(run["reliability"]) for run in found]
            tables[f"{kind}, {way}"] = pooled = together(each)
            sure = float(np.nansum(pooled.confidence * pooled.count) / pooled.count.sum())
            edges = [run["edge_accuracy"] for run in found]
            errors = text.number([table.error for table in each]), text.number([max(t.error for t in each)])
            rows.append((f"{kind}, {way}", str(len(runs)), text.percent(edges), f"{100 * sure:.2f}", *errors))
    return Report(
        "Calibration of edge probabilities",
        ("data", "seeds", "edges right (%)", "mean probability of the likeliest type (%)", "calibration error",
         "worst seed"),
        rows,
        ("Expected calibration error, 20 bins of equal width (Guo et al., ICML 2017); the figure pools the seeds.",),
        plot.reliability(tables),
    )  # fmt: skip


def together(tables: list[Reliability]) -> Reliability:
    """One table of the edges of all."""
    count = np.sum([table.count for table in tables], axis=0)
    with np.errstate(invalid="ignore"):
        confidence, right = (
            np.nansum([getattr(table, name) * table.count for table in tables], axis=0) / count
            for name in ("confidence", "right")
        )
    return Reliability(tables[0].edge, count, confidence, right)


EXPERIMENT = Experiment(parts, report)
