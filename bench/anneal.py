"""Annealing apart from energies: proposing, accepting and rejecting, with all random numbers, as a share of a sweep.

A sweep proposes one change for every system, computes the proposals' energies, and decides; many sweeps are one call.
What is not energy is measured as the same sweeps with modules of width 1 and one transition, whose energies cost
little: an upper bound. For scale, a flip of dwave-samplers' annealer, whose energy is a table look-up: spins in the
place of edges, coupled where edges share a receiver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.cases import Case, Effort, RolloutProblem
from bench.peers import spins
from bench.rows import OURS, Contest, Row, use_threads
from bench.timer import Work
from nri_fast import ops

DECISIONS = "propose and decide"
LEAST_SWEEPS, PROPOSALS = 8, 128  # of one call; a search makes a thousand and more


def rows(effort: Effort) -> Iterator[Row]:
    """A row a case; cases are those of the energy, five entities."""
    cases = [case for case in effort.cases() if case.entities == min(effort.entities)]
    for asked in cases:
        case = asked.fitted(effort.gflop / sweeps_at_once(asked))
        use_threads(case.threads)
        chain, cheap = Chain(case), Chain(without_energies(case))
        competitors: dict[str, Work] = {OURS: chain.run, DECISIONS: cheap.run}
        operations = chain.sweeps * case.systems * case.shape.energy(case.transitions)
        graph_steps = chain.sweeps * case.systems * case.transitions
        left_out = {}
        reason = spins.why_not()
        if reason is not None:
            left_out["dwave-samplers"] = reason
        contest = Contest("anneal", "annealing sweeps", case, asked, operations, graph_steps, competitors, left_out)
        row = contest.measure(effort)
        decisions = row["runs"].pop(DECISIONS)
        row["decisions"] = {
            "median_ms": float(f"{decisions['median_ms'] / chain.sweeps:.4g}"),
            "share_of_sweep": decisions["times_slower"],
            "ns_per_proposal": round(1e6 * decisions["median_ms"] / chain.sweeps / case.systems, 1),
        }
        row["sweeps"] = chain.sweeps
        if reason is None:
            row["dwave_samplers_ns_per_flip"] = round(spins.nanoseconds_per_flip(case.systems, case.entities), 2)
        yield row


def sweeps_at_once(case: Case) -> int:
    """In one call."""
    return max(LEAST_SWEEPS, PROPOSALS // case.systems)


def without_energies(case: Case) -> Case:
    """The case with the cheapest energies that there are."""
    return dataclasses.replace(case, width=1, steps=2, rollout=1)


class Chain:
    """A Metropolis chain a system, from the case's structure on."""

    def __init__(self, case: Case, device: torch.device | str = "cpu") -> None:
        self.problem = RolloutProblem.of(case, device)
        graph = self.problem.graph
        self.parameters = self.problem.library.flat_parameters().detach()
        self.types = self.problem.edge_types.clone()
        self.energy = self.problem.energies(self.parameters)
        self.temperature = self.energy.double().mean().reshape(1, 1) / 100
        self.counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64, device=device)
        self.ids = torch.arange(graph.systems, device=device)
        self.step, self.sweeps = 0, sweeps_at_once(case)

    def draws(self) -> ops.Draws:
        """Of the next sweep."""
        return ops.Draws(1, self.step, self.ids)

    def run(self) -> None:
        """Sweeps in one call."""
        problem, case = self.problem, self.problem.case
        ops.metropolis_run(
            problem.library,
            self.parameters,
            problem.graph,
            problem.states.flatten(),
            case.steps,
            case.rollout,
            problem.error,
            self.draws(),
            [ops.ProposalSource(None, case.edge_types, 1)],
            ops.ChainArrays(self.energy[None], self.types[None], None, self.counts[None]),
            self.temperature.expand(self.sweeps, 1).contiguous(),
        )
        self.step += self.sweeps

    def run_one_by_one(self) -> None:
        """The same sweeps, each with a call for the proposals, one for their energies and one for the decisions."""
        for _ in range(self.sweeps):
            proposed = self.propose()
            self.decide(self.energies(proposed), proposed)

    def propose(self) -> Tensor:
        """[edges] a proposal for every system."""
        problem = self.problem
        return ops.metropolis_propose(problem.graph, self.draws(), problem.case.edge_types, 1, self.types)[0]

    def energies(self, types: Tensor) -> Tensor:
        """[systems] of a structure."""
        return dataclasses.replace(self.problem, edge_types=types).energies(self.parameters)

    def decide(self, proposed_energy: Tensor, proposed: Tensor) -> None:
        """Accepts or rejects, and goes on to the next sweep."""
        warm = self.temperature[0].to(self.energy.dtype)
        graph, held = self.problem.graph, (self.energy, self.types)
        ops.metropolis_decide(graph, self.draws(), warm, proposed_energy, proposed, None, *held, None, self.counts)
        self.step += 1
