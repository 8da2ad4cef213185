"""Metropolis sweeps in one call (on a GPU a CUDA graph) and one by one; what of them is proposing and deciding.

Both must come to the same bits. On the side: how often the CPU's energies would have decided otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench.agreement import agreement
from bench.anneal import DECISIONS, Chain, without_energies
from bench.cases import Case, Effort
from bench.device.contest import Round
from bench.device.limits import Limits
from bench.rows import Row

ONE_BY_ONE = "a call for each proposal, energy and decision"
AGREED_SWEEPS = 20


def rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """A row a case."""

    def row(case: Case) -> Row:
        together, apart, cheap = Chain(case, device), Chain(case, device), Chain(without_energies(case), device)
        together.run()
        apart.run_one_by_one()
        same = torch.equal(together.types, apart.types) and torch.equal(together.energy, apart.energy)
        figures: dict[str, Any] = {"same_bits": same}
        if case.systems == min(effort.systems):
            host = Chain(case)
            figures["cpu"] = agreement(
                Chain(case, device), lambda types: host.energies(types.cpu()), AGREED_SWEEPS
            ).to_dict()
        contest = Round(device, together.energy)
        for name, work in ((ONE_BY_ONE, apart.run_one_by_one), (DECISIONS, cheap.run)):
            contest.competitors[name], contest.differs[name] = work, 0.0
        operations = together.sweeps * case.systems * case.shape.energy(case.transitions)
        found = contest.measure(effort, "anneal", "annealing sweeps", case, together.run, operations, floor)
        decisions = found["runs"].pop(DECISIONS)
        found["decisions"] = {name: decisions[name] for name in ("median_ms", "host_ms", "times_slower")}
        found["decisions"]["share_of_sweep"] = found["decisions"].pop("times_slower")
        found["decisions"]["ns_per_proposal"] = float(
            f"{1e6 * decisions['median_ms'] / together.sweeps / case.systems:.4g}"
        )
        found["sweeps"] = together.sweeps
        found["figures"] = figures
        found["graph_steps"] *= together.sweeps
        for run in found["runs"].values():
            run["graph_steps_per_s"] *= together.sweeps
        return found

    for case in effort.cases():
        yield functools.partial(row, case)
