"""One way of measuring and reporting: a row a case, never a bare time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from bench.cases import Case, Effort
from bench.limits import PEAK, figures, limits
from bench.timer import Work, interleaved
from nri_fast import ops

OURS = "nri_fast"

Row = dict[str, Any]


def use_threads(threads: int) -> None:
    """The same number for our pool and for torch's."""
    ops.set_threads(threads)
    torch.set_num_threads(threads)


@dataclass
class Contest:
    """Ways of doing the same work.

    Attributes
    ----------
    subject, work : str
        File that measures it, and what exactly it measures.
    case : Case
        As measured.
    asked : Case
        As wished for, before it was cut down.
    operations : float
        Useful floating-point operations of one repetition (:mod:`bench.flops`).
    graph_steps : float
        Message-passing steps of one repetition, one a system and transition.
    competitors : dict of str to callable
        Ours is ``nri_fast``.
    left_out : dict of str to str
        Peers that do not take part, and why.
    facts : dict
        What else is to stand in the row.
    """

    subject: str
    work: str
    case: Case
    asked: Case
    operations: float
    graph_steps: float
    competitors: dict[str, Work]
    left_out: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def measure(self, effort: Effort) -> Row:
        """Times everyone, and the machine's limits with them."""
        floor = limits(self.case.threads)
        everyone: dict[str, Work] = {**self.competitors, **{name: limit.work for name, limit in floor.items()}}
        times = interleaved(everyone, effort.seconds, effort.least)
        machine = figures(floor, times)
        ours = times[OURS].median
        runs = {}
        for name in self.competitors:
            median = times[name].median
            runs[name] = times[name].figures() | rates(self, median, machine[PEAK])
            if name != OURS:
                runs[name]["times_slower"] = float(f"{median / ours:.4g}")
        return {
            "subject": self.subject,
            "work": self.work,
            "case": self.case.to_dict(),
            "asked_systems": self.asked.systems,
            "gflop": float(f"{self.operations / 1e9:.6g}"),
            "graph_steps": self.graph_steps,
            "limits": machine,
            "runs": runs,
            "left_out": self.left_out,
            **self.facts,
        }


def rates(contest: Contest, seconds: float, peak: float) -> dict[str, float]:
    """Work done in a second, and as a share of the measured peak."""
    rate = contest.operations / seconds / 1e9
    return {
        "graph_steps_per_s": float(f"{contest.graph_steps / seconds:.5g}"),
        "gflops": float(f"{rate:.5g}"),
        "of_peak": float(f"{rate / peak:.4g}"),
    }


def check_close(name: str, got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    """A peer that computes something else is not timed.

    Raises
    ------
    RuntimeError
        If a value differs from ours by more than `tolerance` of the largest, or is not finite.
    """
    scale = max(float(expected.detach().abs().max()), 1e-30)
    worst = float((got - expected).detach().abs().max()) / scale
    if not worst <= tolerance:
        raise RuntimeError(f"{name}: differs from nri_fast by {worst:.2g} of the largest value, expected {tolerance:g}")


def describe(row: Row) -> str:
    """One line for people."""
    if "reached_s" in row["runs"][OURS]:
        reached = [f"{name} {_reached(run)}" for name, run in row["runs"].items()]
        return f"{row['work']}, {row['case']['threads']} threads, seed {row['case']['seed']}: {'; '.join(reached)}"
    case, ours = row["case"], row["runs"][OURS]
    size = f"width {case['width']}, {case['entities']} entities, {case['systems']:,} systems, {case['threads']} threads"
    peers = ", ".join(f"{name} {run['times_slower']:.2f}x" for name, run in row["runs"].items() if name != OURS)
    return (
        f"{row['work']}: {size}: {ours['graph_steps_per_s']:,.0f} graph-steps/s, {ours['gflops']:.1f} GFLOP/s, "
        f"{100 * ours['of_peak']:.0f}% of peak" + (f"; {peers}" if peers else "") + _doubt(row["limits"])
    )


def _doubt(machine: Row) -> str:
    """The peak is steady where nobody else uses the processors."""
    low, high = (machine[f"{PEAK}_{quartile}"] for quartile in ("lower_quartile", "upper_quartile"))
    return f" (busy machine: half of the peaks between {low:.0f} and {high:.0f} GFLOP/s)" if high > 1.2 * low else ""


def _reached(run: Row) -> str:
    found = [
        f"{100 * float(a):g}% " + (f"in {s:.1f} s" if s is not None else f"not reached in {run['watched_s']:.0f} s")
        for a, s in run["reached_s"].items()
    ]
    return ", ".join(found)
