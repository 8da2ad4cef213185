"""Edges right and forecast errors on systems never seen, for every simulated family."""

from __future__ import annotations

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale
from nri_fast.experiments.lesson import SEEDS, SMALL_CHARGED, Lesson, at_scale
from nri_fast.settings import PRESETS

# Systems to learn from: what the published figures need is 50,000 of each.
FULL = (
    Lesson("springs", "springs", 50),
    Lesson("charged", "charged", 100),
    Lesson("charged", "charged", 2500),
    Lesson("kuramoto", "kuramoto", 500),
    Lesson("springs", "springs10", 100, entities=10),
    Lesson("charged", "charged10", 2500, entities=10),
)
SMALL = (
    Lesson("springs", "springs", 20),
    Lesson("charged", "charged", 200, changes=SMALL_CHARGED),
    Lesson("kuramoto", "kuramoto", 50),
    Lesson("springs", "springs10", 20, entities=10, tested=50),
    Lesson("charged", "charged10", 100, entities=10, tested=50),
)


def parts(scale: Scale, seed: int) -> list[Part]:
    """Every family with a preset, over seeds."""
    lessons = [lesson for lesson in (FULL if scale == "full" else SMALL) if lesson.preset in PRESETS]
    return [
        at_scale(scale, lesson.with_seed(seed + repetition)).part()
        for lesson in lessons
        for repetition in range(SEEDS[scale])
    ]


def report(figures: dict[str, Figures]) -> Report:
    """A row for each family and number of systems."""
    rows, dots = [], {}
    for title, runs in by_lesson(figures).items():
        directed, undirected = [run["directed"] for run in runs], [run["undirected"] for run in runs]
        edges = [run["edge_accuracy"] for run in directed], [run["edge_accuracy"] for run in undirected]
        dots[title] = {"directed": [100 * e for e in edges[0]], "undirected": [100 * e for e in edges[1]]}
        errors = [text.error([run[f"mse_{h}"] for run in undirected]) for h in (1, 10, 20)]
        still = text.error([run["mse_10_nothing_moves"] for run in undirected])
        time = text.seconds([run["train_seconds"] for run in runs])
        rows.append((title, str(len(runs)), text.percent(edges[0]), text.percent(edges[1]), *errors, still, time))
    return Report(
        "Accuracy and forecasts on systems never seen",
        (
            "data, systems to learn from",
            "seeds",
            "edges right, directed (%)",
            "undirected (%)",
            "error at 1 step",
            "at 10",
            "at 20",
            '"nothing moves" at 10',
            "training (s)",
        ),
        rows,
        (
            "Edges under the one relabelling of the types that is best over the test set.",
            "Undirected: both directions of a pair have one type, as the simulators' graphs do.",
            "Errors: mean squared error of open-loop forecasts with the undirected structures, normalised units.",
        ),
        plot.dots(dots, "edges right (%)", "Systems never seen"),
    )


def by_lesson(figures: dict[str, Figures]) -> dict[str, list[Figures]]:
    """Repetitions together, by data set and number of systems."""
    groups: dict[str, list[Figures]] = {}
    for part in figures.values():
        lesson = part["lesson"]
        groups.setdefault(f"{lesson['title']}, {lesson['systems']:,}", []).append(part)
    return groups


EXPERIMENT = Experiment(parts, report)
