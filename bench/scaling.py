"""What our energies cost over entities, edge types, roll-out length and systems: linear in systems, up to a million."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

from bench.cases import Case, Effort, RolloutProblem
from bench.rows import OURS, Contest, Row, use_threads

WIDTH = 64
MANY_WIDTH = 16  # of the modules where there are up to a million systems, of two transitions each
ENTITIES = (2, 5, 10, 20, 40)
EDGE_TYPES = (1, 2, 4, 8, 16)
ROLLOUTS = (1, 2, 5, 10, 20, 48)
SYSTEMS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)


def rows(effort: Effort) -> Iterator[Row]:
    """A row a case, all threads."""
    threads, largest = max(effort.threads), 1.0 if effort.full else 0.01
    shrink = effort.name == "tiny"
    base = Case(16 if shrink else WIDTH, 5, 2 if shrink else 32, threads)
    series = {
        "entities": [dataclasses.replace(base, entities=n) for n in ENTITIES],
        "edge_types": [dataclasses.replace(base, edge_types=k) for k in EDGE_TYPES],
        "rollout": [dataclasses.replace(base, rollout=r) for r in ROLLOUTS],
        "systems": [
            dataclasses.replace(base, width=MANY_WIDTH, systems=b, steps=3, rollout=1)
            for b in SYSTEMS
            if b <= (100 if shrink else largest * SYSTEMS[-1])
        ],
    }
    use_threads(threads)
    for name, cases in series.items():
        for case in cases[:2] if shrink else cases:
            problem = RolloutProblem.of(case)
            work = functools.partial(problem.energies, problem.library.flat_parameters().detach())
            operations = case.systems * case.shape.energy(case.transitions)
            steps = case.systems * case.transitions
            contest = Contest("scaling", f"energy over {name}", case, case, operations, steps, {OURS: work})
            yield contest.measure(dataclasses.replace(effort, seconds=effort.seconds / 4)) | {"over": name}
