"""Annealing apart from energies: proposing, accepting and rejecting, with all random numbers, as a share of a sweep.

A sweep proposes one change for every system, computes the proposals' energies, and decides. For scale, a flip of
dwave-samplers' annealer, whose energy is a table look-up: spins in the place of edges, coupled where edges share a
receiver.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from bench.cases import Case, Effort, RolloutProblem
from bench.peers import spins
from bench.rows import OURS, Contest, Row, use_threads
from bench.timer import Work
from nri_fast import ops

DECISIONS = "propose and decide"


def rows(effort: Effort) -> Iterator[Row]:
    """A row a case; cases are those of the energy, five entities."""
    cases = [case for case in effort.cases() if case.entities == min(effort.entities)]
    for asked in cases:
        case = asked.fitted(effort.gflop)
        use_threads(case.threads)
        chain = Chain(case)
        competitors: dict[str, Work] = {
            OURS: chain.sweep,
            DECISIONS: functools.partial(chain.decide, chain.energy.clone()),
        }
        operations = case.systems * case.shape.energy(case.transitions)
        graph_steps = case.systems * case.transitions
        left_out = {}
        reason = spins.why_not()
        if reason is not None:
            left_out["dwave-samplers"] = reason
        contest = Contest("anneal", "annealing sweep", case, asked, operations, graph_steps, competitors, left_out)
        row = contest.measure(effort)
        decisions = row["runs"].pop(DECISIONS)
        row["decisions"] = {
            "median_ms": decisions["median_ms"],
            "share_of_sweep": decisions["times_slower"],
            "ns_per_proposal": round(1e6 * decisions["median_ms"] / case.systems, 1),
        }
        if reason is None:
            row["dwave_samplers_ns_per_flip"] = round(spins.nanoseconds_per_flip(case.systems, case.entities), 2)
        yield row


class Chain:
    """A Metropolis chain a system."""

    def __init__(self, case: Case, device: torch.device | str = "cpu") -> None:
        self.problem = RolloutProblem.of(case, device)
        graph = self.problem.graph
        self.parameters = self.problem.library.flat_parameters().detach()
        self.types = self.problem.edge_types.clone()
        self.energy = self.problem.energies(self.parameters)
        self.temperature = self.energy.new_full((1,), float(self.energy.mean()) / 100)
        self.counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64, device=device)
        self.ids = torch.arange(graph.systems, device=device)
        self.step = 0

    def sweep(self) -> None:
        """One proposal for every system, with its energy."""
        self.decide(None)

    def decide(self, proposed_energy: torch.Tensor | None) -> None:
        """The same; with energies that are given, nothing is left but proposing and deciding."""
        problem, self.step = self.problem, self.step + 1
        draws = ops.Draws(1, self.step, self.ids)
        proposed, _ = ops.metropolis_propose(problem.graph, draws, problem.case.edge_types, 1, self.types)
        if proposed_energy is None:
            case = problem.case
            proposed_energy = ops.rollout_energy(
                problem.library,
                self.parameters,
                problem.graph,
                problem.states.flatten(),
                case.steps,
                proposed[None],
                None,
                case.rollout,
                problem.error,
            )[0]
        ops.metropolis_decide(
            problem.graph,
            draws,
            self.temperature,
            proposed_energy,
            proposed,
            None,
            self.energy,
            self.types,
            None,
            self.counts,
        )
