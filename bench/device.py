"""Our kernels on a GPU: ``python -m bench.device SUBJECT ... [--device cuda] [--out FILE]``.

Times are between CUDA events around so many repetitions that launching them overlaps with running them; `host_ms` is
how long the host took to ask for one. Peers of :mod:`bench.peers` take part where they work, in chunks that suit a GPU,
and are measured only after they gave the same numbers. Limits are of the same process: large products by torch in
float32, TF32 and bf16, and a copy in device memory. Every row is in the file as soon as it is measured: a run that is
killed leaves what it has.

subjects: energy, gradient, heat_bath, anneal, simulate, compiled, training, mega_graph
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nri_fast as nf
from bench import time_to_accuracy
from bench.agreement import agreement
from bench.anneal import DECISIONS, Chain, without_energies
from bench.cases import TRANSITIONS, Case, Effort, RolloutProblem
from bench.flops import body_step
from bench.gradient import fresh, gradient_of
from bench.heat_bath import COLD, HOT, SCALE_SQUARED, HeatBathStep
from bench.heat_bath import gradient_of as heat_bath_gradient_of
from bench.peers import geometric
from bench.peers.bodies import STEPS_PER_FRAME
from bench.peers.bucketed import Bucketed
from bench.peers.compiled import CompiledMasked
from bench.peers.dense_heat_bath import DenseHeatBath
from bench.peers.masked import Masked
from bench.peers.rollouts import TorchRollouts
from bench.rows import OURS, Row
from bench.timer import Times, Work
from nri_fast import ops
from nri_fast.checkpoint import write_atomically
from nri_fast.experiments import mega_graph as mega_graph_experiment
from nri_fast.experiments.experiment import Workplace
from nri_fast.record import provenance

ONE_BY_ONE = "a call for each proposal, energy and decision"
AGREED_SWEEPS = 20
TURN = 0.02  # seconds between two events, at least
MOST_AT_ONCE = 1000  # repetitions between two events
# Of the largest value. TF32 rounds to 11 bits and bf16 to 8, over ten steps and more.
TOLERANCE, TF32_TOLERANCE, BF16_TOLERANCE = 1e-4, 5e-2, 0.4
DATA_SET = 50_000  # systems of the paper's data sets
# Rows of an edge module at a time, and of assignments: what keeps a GPU busy, within tens of gigabytes.
CHUNK_EDGES, CHUNK_EDGES_WITH_GRADIENT, CHUNK_ROWS = 1 << 20, 1 << 18, 1 << 22
Limits = Mapping[str, float]

RUN_LIMITS = {"springs": 30.0, "charged": 75.0}  # seconds until a run to an accuracy is given up


class DeviceLostError(RuntimeError):
    """The device has an error that stays: nothing more can be measured by this process."""


def device_effort() -> Effort:
    """For a GPU: batches that fill it beside one that does not."""
    return Effort("device", 0.5, math.inf, (64, 256), (5,), (128, 4096), (ops.get_threads(),))


def tiny_effort() -> Effort:
    """For tests of this file on any machine."""
    return Effort("tiny", 0.0, math.inf, (8,), (3,), (1, 4), (ops.get_threads(),), least=2)


@dataclass
class DeviceTimes(Times):
    """Seconds of a repetition on the device, and for the host to ask for one."""

    host: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """As a result file holds them."""
        return super().figures() | {"host_ms": float(f"{1e3 * float(torch.tensor(self.host).median()):.4g}")}


def timed(device: torch.device, work: Work, repetitions: int) -> tuple[float, float]:
    """Seconds of one of the repetitions: on the device from the first to the last, and for the host to ask."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repetitions):
            work()
        seconds = (time.perf_counter() - started) / repetitions
        return seconds, seconds
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    begin.record()
    for _ in range(repetitions):
        work()
    end.record()
    asked = (time.perf_counter() - started) / repetitions
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / repetitions, asked


def in_turns(
    device: torch.device, competitors: Mapping[str, Work], seconds: float, least: int = 3
) -> dict[str, DeviceTimes]:
    """Times pieces of work in turns, each for about so many seconds; long ones at least `least` times.

    Work that takes longer than `seconds` is warmed up once, and timed twice.
    """
    times: dict[str, DeviceTimes] = {}
    at_once: dict[str, int] = {}
    rounds: dict[str, int] = {}
    for name, work in competitors.items():
        timed(device, work, 1)
        once, _ = timed(device, work, 1)
        times[name] = DeviceTimes()
        at_once[name] = min(MOST_AT_ONCE, max(1, math.ceil(TURN / max(once, 1e-9)))) if seconds else 1
        wanted = math.ceil(seconds / max(once * at_once[name], 1e-9))
        rounds[name] = 2 if once > seconds > 0 else min(50, max(least, wanted))
    for turn in range(max(rounds.values())):
        for name, work in competitors.items():
            if turn < rounds[name]:
                measured, asked = timed(device, work, at_once[name])
                times[name].seconds.append(measured)
                times[name].host.append(asked)
    return times


@contextmanager
def tf32() -> Iterator[None]:
    """Products of float32 in TF32 meanwhile."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_tf32(work: Work) -> Work:
    """The same work with products in TF32."""

    def with_tf32() -> object:
        with tf32():
            return work()

    return with_tf32


def limits(device: torch.device, effort: Effort) -> dict[str, float]:
    """What torch reaches: products in TFLOP/s, and a copy in GB/s, read and written counted."""
    small = effort.name == "tiny"
    size, count = (32, 1 << 10) if small else (8192, 1 << 29)
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    works: dict[str, tuple[Work, float]] = {}
    out = torch.empty_like(a)
    works["product_fp32_tflops"] = (lambda: torch.mm(a, b, out=out), 2e-12 * size**3)
    if device.type == "cuda":
        works["product_tf32_tflops"] = (in_tf32(lambda: torch.mm(a, b, out=out)), 2e-12 * size**3)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    half_out = torch.empty_like(half_a)
    works["product_bf16_tflops"] = (lambda: torch.mm(half_a, half_b, out=half_out), 2e-12 * size**3)
    source = torch.zeros(count, device=device)
    target = torch.empty_like(source)
    works["copy_gb_per_s"] = (lambda: target.copy_(source), 8e-9 * count)
    times = in_turns(device, {name: work for name, (work, _) in works.items()}, effort.seconds / 2, effort.least)
    return {name: float(f"{amount / times[name].median:.4g}") for name, (_, amount) in works.items()}


def one_line(error: BaseException) -> str:
    """An error as a result file holds it."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def difference(got: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest expected value; NaN if anything is not finite."""
    scale = max(float(expected.detach().abs().max()), 1e-30)
    return float((got - expected).detach().abs().max()) / scale


class Round:
    """One row in the making: who takes part, who does not and why, and then the times.

    Parameters
    ----------
    device : torch.device
    expected : Tensor
        What ours gives.
    """

    def __init__(self, device: torch.device, expected: Tensor) -> None:
        self.device, self.expected = device, expected
        self.competitors: dict[str, Work] = {}
        self.differs: dict[str, float] = {}
        self.left_out: dict[str, str] = {}
        if not bool(torch.isfinite(expected).all()):
            raise RuntimeError("our values are not finite")

    def peer(
        self, name: str, make: Callable[[], tuple[Work, Callable[[], Tensor]]], tolerance: float = TOLERANCE
    ) -> None:
        """Takes a peer in, if it works here and agrees.

        `make` gives what is timed, and what is compared.
        """
        try:
            work, result = make()
            differs = difference(result(), self.expected)
        except Exception as error:  # whatever a peer may raise: it is left out
            must_answer(self.device, error)
            self.left_out[name] = one_line(error)
            return
        if not differs <= tolerance:
            self.left_out[name] = f"differs by {differs:.2g} of the largest value, expected {tolerance:g}"
            return
        self.differs[name], self.competitors[name] = float(f"{differs:.2g}"), work

    def measure(
        self, effort: Effort, subject: str, work: str, case: Case, ours: Work, operations: float, floor: Limits
    ) -> Row:
        """The row, ours first."""
        times = in_turns(self.device, {OURS: ours, **self.competitors}, effort.seconds, effort.least)
        graph_steps = case.systems * case.transitions
        runs: dict[str, Any] = {}
        for name, taken in times.items():
            rate = operations / taken.median / 1e12
            runs[name] = taken.figures() | {
                "graph_steps_per_s": float(f"{graph_steps / taken.median:.5g}"),
                "tflops": float(f"{rate:.4g}"),
                "of_fp32_product": float(f"{rate / floor['product_fp32_tflops']:.4g}"),
            }
            if name != OURS:
                runs[name]["times_slower"] = float(f"{taken.median / times[OURS].median:.4g}")
                runs[name]["differs_by"] = self.differs[name]
        return {
            "subject": subject,
            "work": work,
            "case": case.to_dict(),
            "gflop": float(f"{operations / 1e9:.6g}"),
            "graph_steps": graph_steps,
            "runs": runs,
            "left_out": self.left_out,
        }


def must_answer(device: torch.device, error: BaseException) -> None:
    """Raises DeviceLostError if the device has an error that stays; otherwise frees memory.

    Raises
    ------
    DeviceLostError
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    except RuntimeError as second:
        raise DeviceLostError(f"{one_line(error)}; then {one_line(second)}") from error


def sized(peer: TorchRollouts) -> TorchRollouts:
    """The peer with chunks for a GPU."""
    peer.chunk_edges = CHUNK_EDGES
    peer.chunk_edges_with_gradient = CHUNK_EDGES_WITH_GRADIENT
    return peer


def rollout_peers(problem: RolloutProblem, with_compiled: bool) -> dict[str, Callable[[], TorchRollouts]]:
    """Peers of roll-out energies by name."""
    if with_compiled:
        return {"compiled masked": lambda: sized(CompiledMasked(problem))}
    return {"bucketed": lambda: sized(Bucketed(problem)), "masked": lambda: sized(Masked(problem))}


def energy_rows(
    device: torch.device, effort: Effort, floor: Limits, with_compiled: bool = False
) -> Iterator[Callable[[], Row]]:
    """Roll-out energies of one structure."""

    def row(case: Case) -> Row:
        problem = RolloutProblem.of(case, device)
        parameters = problem.library.flat_parameters().detach()
        ours = functools.partial(problem.energies, parameters)
        contest = Round(device, ours())
        if device.type == "cuda" and not with_compiled:
            enter_precisions(contest, ours)
            enter_layer_by_layer(contest, ours, ours)
        for name, make in rollout_peers(problem, with_compiled).items():
            enter_energies(contest, name, make, device)
        if not with_compiled:
            enter_geometric(contest, problem)
        operations = case.systems * case.shape.energy(case.transitions)
        subject = "compiled" if with_compiled else "energy"
        return contest.measure(effort, subject, "energy", case, ours, operations, floor)

    for case in effort.cases():
        if not with_compiled or case.systems == max(effort.systems):
            yield functools.partial(row, case)


def enter_precisions(contest: Round, ours: Callable[[], Tensor]) -> None:
    """Our own energies or scores from products of rounded numbers."""

    def entered(precision: str) -> tuple[Work, Callable[[], Tensor]]:
        def rounded() -> Tensor:
            with ops.scoring_precision(precision):
                return ours()

        return rounded, rounded

    contest.peer(f"{OURS}, TF32", lambda: entered("tf32"), TF32_TOLERANCE)
    contest.peer(f"{OURS}, bf16", lambda: entered("bf16"), BF16_TOLERANCE)


def enter_layer_by_layer(contest: Round, work: Work, answer: Callable[[], Tensor]) -> None:
    """Our own kernels, but not the fused ones, which only GPUs have."""

    def unfused(call: Callable[[], Any]) -> Callable[[], Any]:
        def called() -> Any:
            with ops.layer_by_layer():
                return call()

        return called

    if contest.device.type == "cuda":
        contest.peer(f"{OURS}, layer by layer", lambda: (unfused(work), unfused(answer)))


def enter_energies(contest: Round, name: str, make: Callable[[], TorchRollouts], device: torch.device) -> None:
    """In float32, and in TF32 where there is such a thing."""

    def plain() -> tuple[Work, Callable[[], Tensor]]:
        peer = make()
        return peer.energies, peer.energies

    def rounded() -> tuple[Work, Callable[[], Tensor]]:
        peer = make()

        def energies() -> Tensor:
            with tf32():
                return peer.energies()

        return energies, energies

    contest.peer(name, plain)
    if device.type == "cuda":
        contest.peer(f"{name}, TF32", rounded, TF32_TOLERANCE)


def enter_geometric(contest: Round, problem: RolloutProblem) -> None:
    """PyTorch Geometric, where it is installed."""
    reason = geometric.why_not()
    if reason is not None:
        contest.left_out["HeteroLinear"] = reason
        return

    def make() -> tuple[Work, Callable[[], Tensor]]:
        peer = sized(geometric.Geometric(problem, "HeteroLinear"))
        return peer.energies, peer.energies

    contest.peer("HeteroLinear", make)


def gradient_rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """Roll-out energies with the gradient of the modules' parameters."""

    def row(case: Case) -> Row:
        problem = RolloutProblem.of(case, device)
        contest = Round(device, gradient_of(problem, problem.gradient))
        enter_layer_by_layer(
            contest,
            functools.partial(fresh, problem, problem.gradient),
            functools.partial(gradient_of, problem, problem.gradient),
        )

        def entered(make: Callable[[], TorchRollouts]) -> tuple[Work, Callable[[], Tensor]]:
            peer = make()
            return functools.partial(fresh, problem, peer.gradient), functools.partial(
                gradient_of, problem, peer.gradient
            )

        for name, make in rollout_peers(problem, with_compiled=False).items():
            contest.peer(name, functools.partial(entered, make))
        operations = case.systems * case.shape.energy_gradient(case.transitions, case.rollouts)
        ours = functools.partial(fresh, problem, problem.gradient)
        return contest.measure(effort, "gradient", "energy and gradient", case, ours, operations, floor)

    for case in effort.cases():
        yield functools.partial(row, case)


def heat_bath_rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """Scores of all assignments, and training steps at the presets' first and last temperature."""

    def made(case: Case) -> tuple[HeatBathStep, DenseHeatBath]:
        problem = HeatBathStep.of(case, device)
        peer = DenseHeatBath(problem.library, case.entities, SCALE_SQUARED)
        peer.chunk_rows = CHUNK_ROWS
        return problem, peer

    def scores(case: Case) -> Row:
        problem, peer = made(case)
        contest = Round(device, problem.scores())
        if device.type == "cuda":
            enter_precisions(contest, problem.scores)
            enter_layer_by_layer(contest, problem.scores, problem.scores)
        theirs = functools.partial(peer.scores, problem.states)
        contest.peer("dense", lambda: (theirs, lambda: theirs().flatten()))
        operations = case.systems * case.transitions * case.heat_bath_shape.heat_bath_scores()
        return contest.measure(effort, "heat_bath", "heat-bath scores", case, problem.scores, operations, floor)

    def step(case: Case, name: str, factor: float) -> Row:
        problem, peer = made(case)
        ours = functools.partial(problem.step, factor)
        theirs = functools.partial(peer.step, problem.states, factor)
        contest = Round(device, heat_bath_gradient_of(problem, ours))
        enter_layer_by_layer(contest, ours, functools.partial(heat_bath_gradient_of, problem, ours))
        contest.peer("dense", lambda: (theirs, lambda: heat_bath_gradient_of(problem, theirs)))
        shape, transitions = case.heat_bath_shape, case.systems * case.transitions
        operations = transitions * (shape.heat_bath_scores() + shape.heat_bath_gradient(*problem.live(factor)))
        return contest.measure(effort, "heat_bath", name, case, ours, operations, floor)

    for asked in effort.cases():
        case = replace(asked, steps=TRANSITIONS + 1, rollout=1)
        yield functools.partial(scores, case)
        yield functools.partial(step, case, "hot heat-bath step", HOT)
        yield functools.partial(step, case, "cold heat-bath step", COLD)


def anneal_rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """Metropolis sweeps in one call (on a GPU a CUDA graph) and one by one; what of them is proposing and deciding.

    Both must come to the same bits. On the side: how often the CPU's energies would have decided otherwise.
    """

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


def simulate_rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """Springs and charged particles, in double precision; a graph-step is an integration step of a system."""
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


def wait_for(device: torch.device) -> None:
    """Returns when the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training_rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """Seconds to an accuracy of held-out edges, by the presets, simulation and inference included."""

    def row(lesson: time_to_accuracy.Lesson) -> Row:
        test = nf.simulate(lesson.kind, lesson.held_out, seed=1, split="test")
        seed, limit = lesson.seeds[0], RUN_LIMITS[lesson.kind]
        if effort.name != "tiny":  # compiles, loads and plans whatever the first steps need
            time_to_accuracy.ours(
                lesson,
                seed,
                test,
                time_to_accuracy.Watch((0.0,), 1.0, wait=functools.partial(wait_for, device)),
                device,
            )
        watch = time_to_accuracy.Watch(lesson.accuracies, limit, wait=functools.partial(wait_for, device))
        time_to_accuracy.ours(lesson, seed, test, watch, device)
        return {
            "subject": "training",
            "work": f"{lesson.kind}5, {lesson.systems:,} systems",
            "case": {"seed": seed, "held_out_systems": lesson.held_out, "limit_s": limit},
            "settings": lesson.settings.to_dict(),
            "runs": {OURS: watch.figures()},
            "left_out": {},
        }

    for lesson in time_to_accuracy.lessons(effort if effort.name == "tiny" else replace(effort, name="full")):
        yield functools.partial(row, lesson)


def mega_graph_rows(device: torch.device, effort: Effort, floor: Limits) -> Iterator[Callable[[], Row]]:
    """All systems in one graph against one at a time, as ``nri-fast experiment mega-graph`` measures it."""

    def row(width: int, systems: int, repeats: int) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            place = Workplace(Path(folder), str(device), False)
            figures = mega_graph_experiment.measured(systems, width, repeats, 1, place)
        return {
            "subject": "mega_graph",
            "work": "energies of a mega-graph, and one system at a time",
            "case": {"width": width, "systems": systems},
            "figures": figures,
            "times_faster": float(f"{figures['one_at_a_time'] / figures['at_once']:.4g}"),
        }

    tiny = effort.name == "tiny"
    for width in effort.widths:
        for systems in (2,) if tiny else (100, 1000):
            yield functools.partial(row, width, systems, 1 if tiny else 3)


Rows = Callable[[torch.device, Effort, Limits], Iterator[Callable[[], Row]]]

SUBJECTS: dict[str, Rows] = {
    "energy": energy_rows,
    "gradient": gradient_rows,
    "heat_bath": heat_bath_rows,
    "anneal": anneal_rows,
    "simulate": simulate_rows,
    "compiled": functools.partial(energy_rows, with_compiled=True),
    "training": training_rows,
    "mega_graph": mega_graph_rows,
}


def machine_of(device: torch.device) -> dict[str, Any]:
    """The device, as JSON can hold it."""
    if device.type != "cuda":
        return {"name": str(device)}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "torch_cuda": torch.version.cuda,
    }


def describe(row: Row) -> str:
    """One line for people."""
    if "problem" in row:
        return f"{row['subject']}, row {row['row']}: FAILED: {row['problem']}"
    case = row["case"]
    if row["subject"] == "training":
        run = row["runs"][OURS]
        return f"{row['work']}: {run['reached_s']} s, {run['steps_per_s']} steps/s, last {run['last_accuracy']}"
    if row["subject"] == "mega_graph":
        same = "same bits" if row["figures"]["same_bits"] else "OTHER BITS"
        return f"{row['work']}: width {case['width']}, {case['systems']}: {row['times_faster']}x faster, {same}"
    ours = row["runs"][OURS]
    line = (
        f"{row['work']}: width {case['width']}, {case['systems']:,} systems: {ours['graph_steps_per_s']:,.0f} "
        f"graph-steps/s, {ours['tflops']:.3g} TFLOP/s, {ours['median_ms']:.4g} ms (host {ours['host_ms']:.4g})"
    )
    peers = [f"{name} {run['times_slower']:.2f}x" for name, run in row["runs"].items() if name != OURS]
    left_out = [f"{name} left out ({reason})" for name, reason in row["left_out"].items()]
    return "; ".join([line, *peers, *left_out])


def measure_subject(name: str, device: torch.device, effort: Effort, out: Path, command: str) -> bool:
    """Measures a subject and puts it into the file row by row; whether all of it worked.

    A row that fails is a row that says why, and the next one is tried. A mega-graph whose bits differ is a failure, and
    so is a peer in float32 that gives other numbers.
    """
    started = time.perf_counter()
    rows: list[Row] = []
    whole: dict[str, Any] = {"command": command, **provenance(), "device": machine_of(device), "finished": False}
    good = True

    def put() -> None:
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        found[name] = whole | {"seconds": round(time.perf_counter() - started, 1), "rows": rows}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, (json.dumps(found, indent=1) + "\n").encode())

    floor = limits(device, effort)
    whole["limits"] = floor
    print(", ".join(f"{limit} {value:,.4g}" for limit, value in floor.items()), flush=True)
    for number, measure in enumerate(SUBJECTS[name](device, effort, floor), 1):
        lost = False
        try:
            row = measure()
            good = good and row.get("figures", {}).get("same_bits", True)
            good = good and not any(reason.startswith("differs by") for reason in row.get("left_out", {}).values())
        except Exception as error:  # whatever was raised is a result
            good, row = False, {"subject": name, "row": number, "problem": one_line(error)}
            try:
                must_answer(device, error)
            except DeviceLostError:
                lost = True
        rows.append(row)
        print(describe(row), flush=True)
        put()
        if lost:
            print("the device answers no more: the rest of this subject is given up", flush=True)
            return False
        if device.type == "cuda":
            torch.cuda.empty_cache()
    whole["finished"] = True
    put()
    return bool(good)


def main() -> None:
    """Measures the subjects that are named, all by default; exit status 1 if a row failed."""
    parser = argparse.ArgumentParser(
        "python -m bench.device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="see above; all by default")
    parser.add_argument("--device", default="cuda", help="cuda by default; cpu to try this command")
    parser.add_argument("--out", type=Path, default=Path("build/device/bench.json"), help="%(default)s")
    parser.add_argument("--tiny", action="store_true", help="problems of no meaning, for a test of this command")
    arguments = parser.parse_args()
    for name in arguments.subjects:
        if name not in SUBJECTS:
            parser.error(f"SUBJECT: expected {', '.join(SUBJECTS)}, got {name}")
    device = torch.device(arguments.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit("no GPU: torch sees no CUDA device")
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    effort = tiny_effort() if arguments.tiny else device_effort()
    command = f"python -m bench.device --device {device.type}" + (" --tiny" if arguments.tiny else "")
    good = True
    for name in arguments.subjects or SUBJECTS:
        print(f"== {name}", flush=True)
        good = measure_subject(name, device, effort, arguments.out, f"{command} {name}") and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
