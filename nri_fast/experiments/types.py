"""Two types of entities and of edges together; three types of edges."""

from __future__ import annotations

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale
from nri_fast.experiments.lesson import SEEDS, Lesson, at_scale

LESSONS = (
    Lesson("springs_mass", "springs", 100, changes={"node_types": 2}),
    Lesson("springs3", "springs", 100, changes={"edge_types": 3}),
)
WHAT = {
    "springs_mass": "light and heavy bodies, with and without springs",
    "springs3": "no, weak and strong springs",
}


def parts(scale: Scale, seed: int) -> list[Part]:
    """Both simulators, over seeds."""
    return [
        at_scale(scale, lesson.with_seed(seed + repetition)).part()
        for lesson in LESSONS
        for repetition in range(SEEDS[scale])
    ]


def report(figures: dict[str, Figures]) -> Report:
    """A row for each simulator."""
    rows, dots = [], {}
    for kind, what in WHAT.items():
        runs = [part for part in figures.values() if part["lesson"]["kind"] == kind]
        edges = [run["directed"]["edge_accuracy"] for run in runs]
        nodes = [share for run in runs if (share := run["directed"]["node_accuracy"]) is not None]
        dots[what] = {"edges": [100 * e for e in edges], "entities": [100 * n for n in nodes]}
        settings = runs[0]["settings"]
        types = str(settings["edge_types"]), str(settings["node_types"])
        time = text.seconds([run["train_seconds"] for run in runs])
        rows.append((what, *types, str(len(runs)), text.percent(edges), text.percent(nodes), time))
    return Report(
        "Several types of edges and of entities",
        ("data", "edge types", "entity types", "seeds", "edges right (%)", "entities right (%)", "training (s)"),
        rows,
        (
            "100 systems to learn from, 200 never seen; directed structures.",
            "Edges and entities each under the one relabelling of their types that is best over the test set.",
        ),
        plot.dots(dots, "types right on systems never seen (%)"),
    )


EXPERIMENT = Experiment(parts, report)
