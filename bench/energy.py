"""Roll-out energies without a gradient: what every proposal of the paper's annealing costs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from bench.cases import Case, Effort, RolloutProblem
from bench.peers import compiled, geometric
from bench.peers.bucketed import Bucketed
from bench.peers.compiled import CompiledBucketed, CompiledMasked
from bench.peers.masked import Masked
from bench.peers.one_at_a_time import OneAtATime
from bench.peers.rollouts import TorchRollouts
from bench.rows import OURS, Contest, Row, check_close, use_threads
from bench.timer import Work

Peer = Callable[[RolloutProblem], TorchRollouts]

# Peers for scale, with the useful GFLOP of a repetition that takes them a second or two.
SLOW_PEERS: dict[str, tuple[float, Peer]] = {
    "one at a time": (4.0, OneAtATime),
    "HeteroLinear": (12.0, functools.partial(geometric.Geometric, way="HeteroLinear")),
    "RGCNConv": (8.0, functools.partial(geometric.Geometric, way="RGCNConv")),
    "FastRGCNConv": (1.0, functools.partial(geometric.Geometric, way="FastRGCNConv")),
}
COMPILED: dict[str, Peer] = {"compiled bucketed": CompiledBucketed, "compiled masked": CompiledMasked}
COMPILED_WIDTHS = {"energy": (64, 256), "gradient": (64,)}  # a backward pass takes much longer to compile


def rows(effort: Effort) -> Iterator[Row]:
    """A row a case."""
    for asked in effort.cases():
        case = asked.fitted(effort.gflop)
        use_threads(case.threads)
        problem = RolloutProblem.of(case)
        parameters = problem.library.flat_parameters().detach()
        expected = problem.energies(parameters)
        operations = case.systems * case.shape.energy(case.transitions)
        peers, left_out = peers_of(problem, effort, operations / 1e9)
        competitors: dict[str, Work] = {OURS: functools.partial(problem.energies, parameters)}
        for name, peer in peers.items():
            check_close(name, peer.energies(), expected)
            competitors[name] = peer.energies
        graph_steps = case.systems * case.transitions
        contest = Contest("energy", "energy", case, asked, operations, graph_steps, competitors, left_out)
        yield contest.measure(effort)


def peers_of(problem: RolloutProblem, effort: Effort, gflop: float) -> tuple[dict[str, TorchRollouts], dict[str, str]]:
    """Peers that can take part in a case, and why the others do not."""
    peers: dict[str, TorchRollouts] = {"bucketed": Bucketed(problem), "masked": Masked(problem)}
    left_out: dict[str, str] = {}
    absent = geometric.why_not()
    for name, (most, make) in SLOW_PEERS.items():
        if name in geometric.WAYS and absent is not None:
            left_out[name] = absent
        elif gflop > most:
            left_out[name] = f"a repetition would take seconds: measured up to {most:g} useful GFLOP"
        else:
            peers[name] = make(problem)
    compiled_here, reason = worth_compiling("energy", problem.case, effort)
    for name, make in COMPILED.items():
        if compiled_here:
            peers[name] = make(problem)
        else:
            left_out[name] = reason
    return peers, left_out


def worth_compiling(subject: str, case: Case, effort: Effort) -> tuple[bool, str]:
    """Whether ``torch.compile`` takes part in a subject's case, and why not."""
    if not effort.full:
        return False, "compiling takes longer than all of --quick"
    if case.entities != 5 or case.systems != 128 or case.threads != max(effort.threads):
        return False, "compiling takes a minute a case: measured with 5 entities, 128 systems, all threads"
    if case.width not in COMPILED_WIDTHS[subject]:
        return False, f"compiling takes a minute a case: measured at widths {COMPILED_WIDTHS[subject]}"
    reason = compiled.why_not()
    return reason is None, reason or ""
