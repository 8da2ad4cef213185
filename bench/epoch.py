"""An epoch of the faithful preset `fmml`: every system gets one proposal, and every batch a gradient step.

Modules as wide as the paper's, batches of 128, roll-outs of ten steps, an edge proposed by a network that learns on the
way. The peer's epoch is plain PyTorch and leaves the network out: per batch the energies of the proposed structures,
then energies and gradient of the kept ones, then Adam.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Any

import torch

import nri_fast as nf
from bench.cases import Case, Effort, RolloutProblem
from bench.limits import PEAK, figures, limits
from bench.peers.bucketed import Bucketed
from bench.rows import OURS, Contest, Row, rates, use_threads
from bench.timer import Times, interleaved
from nri_fast.run import initial_library

PEER = "bucketed"
WIDTH, ENTITIES = 256, 5


def rows(effort: Effort) -> Iterator[Row]:
    """One row, all threads."""
    threads = max(effort.threads)
    use_threads(threads)
    settings, systems, epochs = nf.PRESETS["fmml"], 256, 4 if effort.full else 2
    width = WIDTH
    if effort.name == "tiny":
        width, systems = 8, 6
        narrow: dict[str, Any] = {
            "batch": 3,
            "message": 8,
            "edge_hidden": (8, 8),
            "node_hidden": (8, 8, 8),
            "network_hidden": 8,
        }
        settings = dataclasses.replace(settings, **narrow)
    batches = systems // settings.batch
    settings = dataclasses.replace(settings, steps=(1 + epochs) * batches)
    case = Case(width, ENTITIES, systems, threads)
    yield _contest(case, settings, batches)


def _contest(case: Case, settings: nf.Settings, batches: int) -> Row:
    batch = dataclasses.replace(case, systems=settings.batch)
    peer, floor = PlainEpoch(batch, settings, batches), limits(case.threads)
    machine = interleaved({name: one.work for name, one in floor.items()}, 0.1)
    times = {OURS: Times(), PEER: Times()}
    steps, started = itertools.count(1), time.perf_counter()

    def on_step(_: nf.BounceGrad) -> None:
        """Behind every epoch of ours comes one of the peer's; the first of each is not kept."""
        nonlocal started
        step = next(steps)
        if step % batches:
            return
        ours, before = time.perf_counter() - started, time.perf_counter()
        peer.run()
        if step > batches:
            times[OURS].seconds.append(ours)
            times[PEER].seconds.append(time.perf_counter() - before)
        for name, again in interleaved({name: one.work for name, one in floor.items()}, 0.05).items():
            machine[name].seconds += again.seconds
        started = time.perf_counter()

    data = nf.simulate("springs", case.systems, case.entities, steps=case.steps, seed=1)
    nf.train(data, settings=settings, seed=1, progress=False, on_step=on_step)
    shape = case.shape
    operations = case.systems * (
        shape.energy(case.transitions) + shape.energy_gradient(case.transitions, case.rollouts)
    )
    limit = figures(floor, machine)
    contest = Contest("epoch", "an epoch of fmml", case, case, operations, 2 * case.systems * case.transitions, {})
    runs = {name: t.figures() | rates(contest, t.median, limit[PEAK]) for name, t in times.items()}
    runs[PEER]["times_slower"] = float(f"{times[PEER].median / times[OURS].median:.4g}")
    return {
        "subject": contest.subject,
        "work": contest.work,
        "case": case.to_dict(),
        "asked_systems": case.systems,
        "gflop": float(f"{operations / 1e9:.6g}"),
        "graph_steps": contest.graph_steps,
        "systems_per_s": {name: float(f"{case.systems / t.median:.4g}") for name, t in times.items()},
        "settings": settings.to_dict(),
        "limits": limit,
        "runs": runs,
        "left_out": {},
    }


class PlainEpoch:
    """The arithmetic of an epoch, edges bucketed by type.

    Parameters
    ----------
    batch : Case
        The size of a gradient step.
    settings : Settings
    batches : int
        In an epoch.
    """

    def __init__(self, batch: Case, settings: nf.Settings, batches: int) -> None:
        library = initial_library(4, [], settings, seed=1)
        library.change_scale.fill_(0.1)
        problem = dataclasses.replace(RolloutProblem.of(batch), library=library)
        self.rollouts, self.batches = Bucketed(problem), batches
        self.optimiser = torch.optim.Adam(library.parameters(), settings.learning_rate)

    def run(self) -> None:
        """Every batch once."""
        for _ in range(self.batches):
            self.rollouts.energies()
            self.optimiser.zero_grad()
            self.rollouts.gradient()
            self.optimiser.step()
