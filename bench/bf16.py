"""Scoring in bfloat16 (:func:`nri_fast.ops.scoring_precision`): how much faster, and what it decides otherwise.

The decisions are those of a library that has learned charged particles for a while, on systems that it has not seen:
receivers' best assignments by all transitions, and random changes of one edge that Metropolis accepts by roll-outs of
ten steps, at the temperature that half of the changes' energies exceed, with the same random numbers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import nri_fast as nf
from bench.cases import ROLLOUT, Effort, RolloutProblem
from bench.heat_bath import HeatBathStep, fitted
from bench.rows import OURS, Contest, Row, use_threads
from bench.timer import Work
from nri_fast import _core, ops
from nri_fast.energies import all_transitions

PLAIN = "float32"
SYSTEMS = 128
LESSONS = {"tiny": 3, "quick": 150, "full": 1500}  # gradient steps before decisions are compared


def rows(effort: Effort) -> Iterator[Row]:
    """Energies and heat-bath scores in each width; none where the processor has no such products."""
    if not _core.bf16_available():
        return
    decided = decisions(LESSONS[effort.name])
    for asked in effort.cases():
        if asked.entities != effort.entities[0] or asked.systems not in (SYSTEMS, min(effort.systems)):
            continue
        use_threads(asked.threads)
        case = asked.fitted(effort.gflop)
        problem = RolloutProblem.of(case)
        energies = functools.partial(problem.energies, problem.library.flat_parameters().detach())
        operations = case.systems * case.shape.energy(case.transitions)
        graph_steps = case.systems * case.transitions
        facts = decided | {"largest_difference": differs(energies)}
        both: dict[str, Work] = {OURS: in_bf16(energies), PLAIN: energies}
        yield Contest("bf16", "energy in bf16", case, asked, operations, graph_steps, both, facts=facts).measure(effort)
        case = fitted(asked, effort.gflop)
        bath = HeatBathStep.of(case)
        graph_steps = case.systems * case.transitions
        operations = graph_steps * case.heat_bath_shape.heat_bath_scores()
        facts = decided | {"largest_difference": differs(bath.scores)}
        both = {OURS: in_bf16(bath.scores), PLAIN: bath.scores}
        name = "heat-bath scores in bf16"
        yield Contest("bf16", name, case, asked, operations, graph_steps, both, facts=facts).measure(effort)


def in_bf16(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same work, its products in bf16."""

    def rounded() -> Tensor:
        with ops.scoring_precision("bf16"):
            return work()

    return rounded


def differs(work: Callable[[], Tensor]) -> float:
    """Largest difference that bf16 makes, as a share of the largest value."""
    exact, rounded = work(), in_bf16(work)()
    return float(f"{float((exact - rounded).abs().max() / exact.abs().max()):.3g}")


def decisions(steps: int) -> dict[str, float]:
    """Shares of decisions that change: ``best_assignments_changed``, ``acceptances_changed``."""
    settings = dataclasses.replace(nf.PRESETS["charged"], steps=steps, polish_steps=0)
    run = nf.train(nf.simulate("charged", 300, seed=1), settings=settings, seed=1, progress=False)
    test = nf.simulate("charged", 200, seed=1, split="test")
    systems = run.systems(test)
    graph, states = systems.graph, systems.states
    library, parameters = run.library, run.library.flat_parameters().detach()
    problem = ops.HeatBathProblem(
        library,
        graph,
        states,
        systems.steps,
        all_transitions(graph, systems.steps),
        ops.RowLayout.blocks(graph, library.edge_types),
        run.error_measure(),
    )
    assignments = library.edge_types ** (systems.graph.sizes[0] - 1)

    def best() -> Tensor:
        return problem.scores(parameters).view(-1, assignments).argmin(-1)

    generator = torch.Generator().manual_seed(4)
    types = graph.flatten_types(nf.infer(run, test).adjacency)
    changed = types.clone().view(graph.systems, -1)
    place = torch.randint(changed.shape[1], (graph.systems, 1), generator=generator)
    changed.scatter_(1, place, 1 - changed.gather(1, place))
    both = torch.stack([types, changed.flatten()])

    def differences() -> Tensor:
        energy = ops.rollout_energy(
            library, parameters, graph, states, systems.steps, both, None, ROLLOUT, run.error_measure()
        )
        return energy[1] - energy[0]

    temperature = float(differences().abs().median())
    threshold = -temperature * torch.rand(graph.systems, generator=generator).log()

    def accepted() -> Tensor:
        return differences() < threshold

    return {
        "best_assignments_changed": share_changed(best),
        "acceptances_changed": share_changed(accepted),
        "decisions_after_steps": steps,
    }


def share_changed(decide: Callable[[], Tensor]) -> float:
    """Of decisions, between float32 and bf16."""
    return round(float((decide() != in_bf16(decide)()).double().mean()), 5)
