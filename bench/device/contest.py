"""A row in the making: peers take part if they work here and give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.cases import Case, Effort
from bench.device.limits import Limits
from bench.device.timer import in_turns
from bench.rows import OURS, Row
from bench.timer import Work

# Of the largest value. TF32 rounds to 11 bits and bf16 to 8, over ten steps and more.
TOLERANCE, TF32_TOLERANCE, BF16_TOLERANCE = 1e-4, 5e-2, 0.4


class DeviceLostError(RuntimeError):
    """The device has an error that stays: nothing more can be measured by this process."""


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
