"""Springs and charged particles, in double precision; a graph-step is an integration step of a system."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.cases import Case, Effort
from bench.device.contest import Round
from bench.device.limits import Limits
from bench.flops import body_step
from bench.peers.bodies import STEPS_PER_FRAME
from bench.rows import OURS, Row
from nri_fast import ops

DATA_SET = 50_000  # systems of the paper's data sets


def rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """A row for each kind and number of systems."""
    tiny = effort.name == "tiny"

    def row(kind: str, systems: int) -> Row:
        case = Case(0, min(effort.entities), systems, max(effort.threads), steps=3 if tiny else 49, rollout=1)

        def ours() -> Tensor:
            return ops.simulate(
                kind,
                systems=systems,
                entities=case.entities,
                steps=case.steps,
                seed=7,
                split="train",
                first_system=0,
                device=device,
                threads=None,
            )[0]

        steps = systems * case.steps * STEPS_PER_FRAME
        operations = steps * body_step(case.entities, kind == "charged")
        contest = Round(device, ours())
        found = contest.measure(effort, "simulate", f"simulating {kind}", case, ours, operations, floor)
        found["graph_steps"] = steps
        run = found["runs"][OURS]
        run["graph_steps_per_s"] = float(f"{1e3 * steps / run['median_ms']:.5g}")
        return found

    for kind in ("springs", "charged"):
        for systems in (max(effort.systems),) if tiny else (max(effort.systems), DATA_SET):
            yield functools.partial(row, kind, systems)
