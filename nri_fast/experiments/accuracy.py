"""Edges right and forecast errors on systems never seen, for every simulated family."""

from __future__ import annotations

from nri_fast import plot
from nri_fast.experiments import text
from nri_fast.experiments.experiment import Experiment, Figures, Part, Report, Scale
from nri_fast.experiments.lesson import SMALL_CHARGED, Lesson, at_scale

AHEAD = 21  # NRI's published forecasts: 20 steps from the first that structures are not found in

# As many systems as published figures need; forecasts of charged particles become better with more steps for long.
PUBLISHED = Lesson("charged", "charged", 50_000, tested=1000, ahead=AHEAD, changes={"polish_steps": 20_000})

# Lessons, and over how many seeds of data and training each is repeated.
FULL = (
    (Lesson("springs", "springs", 50, tested=1000, ahead=AHEAD), 3),
    (Lesson("charged", "charged", 2500, tested=1000, ahead=AHEAD), 3),
    (PUBLISHED, 3),
    (Lesson("charged", "charged", 100, tested=1000, ahead=AHEAD), 1),
    (Lesson("kuramoto", "kuramoto", 500, tested=1000, ahead=AHEAD), 3),
    (Lesson("springs", "springs10", 100, entities=10, tested=1000, ahead=AHEAD), 3),
)
SMALL = (
    (Lesson("springs", "springs", 20, ahead=AHEAD), 1),
    (Lesson("charged", "charged", 200, ahead=AHEAD, changes=SMALL_CHARGED), 1),
    (Lesson("kuramoto", "kuramoto", 50, ahead=AHEAD), 1),
    (Lesson("springs", "springs10", 20, entities=10, tested=50, ahead=AHEAD), 1),
)


def parts(scale: Scale, seed: int) -> list[Part]:
    """Every family, over seeds."""
    return [
        at_scale(scale, lesson.with_seed(seed + repetition)).part()
        for lesson, repetitions in (FULL if scale == "full" else SMALL)
        for repetition in range(repetitions)
    ]


def report(figures: dict[str, Figures]) -> Report:
    """A row for each family and number of systems."""
    rows, dots = [], {}
    for title, runs in by_lesson(figures).items():
        directed, undirected = [run["directed"] for run in runs], [run["undirected"] for run in runs]
        edges = [run["edge_accuracy"] for run in directed], [run["edge_accuracy"] for run in undirected]
        dots[title] = {"directed": [100 * e for e in edges[0]], "undirected": [100 * e for e in edges[1]]}
        within, ahead = forecasts(undirected), forecasts([run["ahead"] for run in undirected])
        time = text.seconds([run["train_seconds"] for run in runs])
        rows.append((title, str(len(runs)), text.percent(edges[0]), text.percent(edges[1]), *within, *ahead, time))
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
            "ahead: error at 1 step",
            "at 10",
            "at 20",
            '"nothing moves" at 10',
            "training (s)",
        ),
        rows,
        (
            "Edges under the one relabelling of the types that is best over the test set.",
            "Undirected: both directions of a pair have one type, as the simulators' graphs do.",
            "Charged particles and oscillators were trained with that constraint, springs without.",
            "Errors: mean squared error of open-loop forecasts with the undirected structures, normalised units.",
            "From recorded steps 0 and 20; ahead: from the first step behind the 49 that structures were found in.",
        ),
        plot.dots(dots, "edges right (%)", "Systems never seen"),
    )


def forecasts(found: list[Figures]) -> list[str]:
    """Cells: errors at 1, 10 and 20 steps, and of "nothing moves" at 10."""
    return [text.error([run[f"mse_{name}"] for run in found]) for name in ("1", "10", "20", "10_nothing_moves")]


def by_lesson(figures: dict[str, Figures]) -> dict[str, list[Figures]]:
    """Repetitions together, by data set and number of systems."""
    groups: dict[str, list[Figures]] = {}
    for part in figures.values():
        lesson = part["lesson"]
        groups.setdefault(f"{lesson['title']}, {lesson['systems']:,}", []).append(part)
    return groups


EXPERIMENT = Experiment(parts, report)
