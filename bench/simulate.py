"""Simulated data: bodies on springs and charged bodies, beside the same integration over whole arrays in NumPy.

Operations are in double precision, in which the peak is half of what stands in the row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

import nri_fast as nf
from bench.cases import Case, Effort
from bench.flops import body_step
from bench.peers.bodies import STEPS_PER_FRAME, Bodies
from bench.rows import OURS, Contest, Row, check_close, use_threads
from bench.timer import Work

KINDS = ("springs", "charged")
PEER = "NumPy arrays"
# Systems beside the peer, whose repetition takes seconds; and what a data set of the paper has.
SYSTEMS, DATA_SET = 1000, 50_000
PEER_FRAMES = 5


def rows(effort: Effort) -> Iterator[Row]:
    """A row for each kind and number of threads, and, for the record, a whole data set of springs."""
    entities = min(effort.entities)
    systems = min(SYSTEMS, 10 * max(effort.systems))
    for threads in effort.threads:
        use_threads(threads)
        for kind in KINDS:
            case = Case(0, entities, systems, threads, steps=PEER_FRAMES, rollout=1)
            data = simulated(kind, case)
            assert data.edges is not None
            peer = Bodies(kind, data.edges.numpy(), data.states[:, 0].numpy())
            check_close(kind, torch.from_numpy(peer.frames(PEER_FRAMES)), data.states)
            # The peer starts from the first frame, so it integrates one frame less; it gets one more to be equal.
            competitors: dict[str, Work] = {
                OURS: functools.partial(simulated, kind, case),
                PEER: functools.partial(peer.frames, PEER_FRAMES + 1),
            }
            yield contest(kind, case, competitors).measure(effort)
        if effort.full:
            case = Case(0, entities, DATA_SET, threads, rollout=1)
            yield contest("springs", case, {OURS: functools.partial(simulated, "springs", case)}).measure(effort)


def simulated(kind: str, case: Case) -> nf.TrajectoryData:
    """By our simulator."""
    return nf.simulate(kind, case.systems, case.entities, case.steps, seed=7, threads=case.threads)


def contest(kind: str, case: Case, competitors: dict[str, Work]) -> Contest:
    """Here a graph-step is an integration step of a system."""
    steps = case.systems * case.steps * STEPS_PER_FRAME
    operations = steps * body_step(case.entities, kind == "charged")
    return Contest("simulate", f"simulating {kind}", case, case, operations, steps, competitors)
