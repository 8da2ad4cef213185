"""What raggedness costs: systems of different sizes, and absent entities, against uniform systems with as many edges.

``slowdown`` holds ratios of the fastest repetitions, which a busy machine disturbs least; each is to stay under
``bar``. Ragged systems have 3 to 7 entities, on average as many edges as systems of five; of the masked ones, which are
uniform otherwise, every entity is absent for a fifth of the steps, all at once. Heat baths see masked systems and such
that end early, half of them at half of their length: what a receiver's alternatives cost grows with its system by
itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.cases import FEATURES, Case, Effort, RolloutProblem
from bench.heat_bath import HeatBathStep, fitted
from bench.rows import OURS, Contest, Row, use_threads
from bench.timer import Work
from nri_fast import MegaGraph, ops

BAR = 1.2
ENTITIES = 5
SIZES = (3, 4, 5, 5, 7)  # 20 edges on average, as five entities have
ABSENT = 0.2  # share of the states
HEAT_BATH_FACTOR = 0.3  # temperature, in spreads of a receiver's scores: about a third of the rows have weight


def rows(effort: Effort) -> Iterator[Row]:
    """Four rows a width and number of threads: energies, their gradient, heat-bath scores, a heat-bath step."""
    systems = max(1, max(s for s in effort.systems if s <= 128) // len(SIZES)) * len(SIZES)
    for threads in effort.threads:
        for width in effort.widths:
            asked = Case(width, ENTITIES, systems, threads)
            use_threads(threads)
            yield from rollout_rows(asked, effort)
            yield from heat_bath_rows(asked, effort)


def rollout_rows(asked: Case, effort: Effort) -> Iterator[Row]:
    """Energies, and their gradient."""
    for work, passes in (("ragged energies", 1), ("ragged gradient", 3)):
        case = asked.fitted(effort.gflop, passes)
        uniform = RolloutProblem.of(dataclasses.replace(case, systems=max(len(SIZES), case.systems)))
        case = uniform.case
        everyone = {
            OURS: Rollouts(uniform, uniform.graph, uniform.states.flatten(), None),
            "ragged": of_sizes(uniform),
            "masked": Rollouts(uniform, uniform.graph, uniform.states.flatten(), absences(case)),
        }
        competitors: dict[str, Work] = {
            name: problem.gradient if passes > 1 else problem.energies for name, problem in everyone.items()
        }
        steps = case.systems * case.transitions
        operations = passes * case.systems * case.shape.energy(case.transitions)
        yield measured(Contest("ragged", work, case, asked, operations, steps, competitors), effort)


def heat_bath_rows(asked: Case, effort: Effort) -> Iterator[Row]:
    """Scores of all assignments, and a training step."""
    case = fitted(asked, effort.gflop)
    uniform = HeatBathStep.of(case)
    ends = torch.ones(case.systems, case.steps, case.entities, dtype=torch.uint8)
    ends[::2, (case.steps + 1) // 2 :] = 0
    everyone = {
        OURS: uniform,
        "masked": with_mask(uniform, absences(case)),
        "ends early": with_mask(uniform, ends.flatten()),
    }
    transitions = case.systems * (case.steps - 1)
    forward = transitions * case.heat_bath_shape.heat_bath_scores()
    for work, passes in (("ragged heat-bath scores", 1), ("ragged heat-bath step", 3)):
        competitors: dict[str, Work] = {
            name: functools.partial(problem.step, HEAT_BATH_FACTOR) if passes > 1 else problem.scores
            for name, problem in everyone.items()
        }
        yield measured(Contest("ragged", work, case, asked, passes * forward, transitions, competitors), effort)


def measured(contest: Contest, effort: Effort) -> Row:
    """The row, with ratios of the fastest repetitions."""
    row = contest.measure(effort)
    fastest = {name: run["fastest_ms"] for name, run in row["runs"].items()}
    ratios = {name: float(f"{ms / fastest[OURS]:.4g}") for name, ms in fastest.items() if name != OURS}
    return row | {"slowdown": ratios, "bar": BAR}


def absences(case: Case) -> Tensor:
    """Flat mask: every entity is away for a fifth of the steps in succession, beginning at a random one."""
    generator = torch.Generator().manual_seed(3)
    away = max(1, round(ABSENT * case.steps))
    first = torch.randint(case.steps - away + 1, (case.systems, 1, case.entities), generator=generator)
    step = torch.arange(case.steps)[:, None]
    return ((step < first) | (step >= first + away)).to(torch.uint8).flatten()


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Energies of a problem's structures, wired by any graph.

    Attributes
    ----------
    problem : RolloutProblem
        Gives modules, types and how errors are measured.
    graph : MegaGraph
    states : Tensor
        Flat.
    present : Tensor or None
        Flat mask.
    """

    problem: RolloutProblem
    graph: MegaGraph
    states: Tensor
    present: Tensor | None

    def energies(self) -> Tensor:
        """[systems]."""
        p, parameters = self.problem, self.problem.library.flat_parameters().detach()
        return ops.rollout_energy(
            *(p.library, parameters, self.graph, self.states, p.case.steps, p.edge_types[None], None),
            *(p.case.rollout, p.error),
            present=self.present,
        )[0]

    def gradient(self) -> Tensor:
        """[P] of the mean energy."""
        p, parameters = self.problem, self.problem.library.flat_parameters().detach()
        cotangent = self.states.new_full((self.graph.systems,), 1.0 / self.graph.systems)
        return ops.rollout_gradient(
            *(p.library, parameters, self.graph, self.states, p.case.steps, p.edge_types, None),
            *(p.case.rollout, p.error, cotangent),
            present=self.present,
        )[1]


def of_sizes(uniform: RolloutProblem) -> Rollouts:
    """As many systems with as many edges, but of 3 to 7 entities."""
    case = uniform.case
    whole, rest = divmod(case.systems, len(SIZES))
    graph = MegaGraph.complete_ragged([*SIZES * whole, *[ENTITIES] * rest])
    assert graph.edges == uniform.graph.edges
    generator = torch.Generator().manual_seed(1)
    return Rollouts(uniform, graph, torch.randn(graph.nodes * case.steps * FEATURES, generator=generator), None)


def with_mask(uniform: HeatBathStep, present: Tensor) -> HeatBathStep:
    """The same with absent states."""
    return dataclasses.replace(uniform, problem=dataclasses.replace(uniform.problem, present=present))
