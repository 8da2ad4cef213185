"""Schedules: pure functions of how far training has come, and the temperature that acceptance drives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.graph import to_device


def one_cycle(step: int, steps: int, peak: float, warm_share: float = 0.1) -> float:
    """Learning rate: up to `peak` along a cosine over the first share of steps, then down to nearly nothing.

    The shape of Smith and Topin, "Super-convergence" (2019), from peak / 25 and to peak / 250,000.
    """
    warm = max(1.0, warm_share * steps - 1)
    if step < warm:
        return _cosine(peak / 25, peak, step / warm)
    return _cosine(peak, peak / 250_000, min(1.0, (step - warm) / max(1.0, steps - 1 - warm)))


def geometric(done: float, first: float, last: float, share: float) -> float:
    """From `first` to `last` by a constant factor per step over the first `share` of training, then constant."""
    return first * (last / first) ** min(1.0, done / share)


def linear_floor(done: float, first: float, last: float, share: float) -> float:
    """From `first` straight towards zero at `share` of training, but never below `last`."""
    return max(last, first * (1.0 - done / share))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * part))


@dataclass
class ResidualScale:
    """Running median of squared prediction errors: how small the robust error's s^2 may become.

    An s^2 far below the errors that the modules still make, or that the recordings' noise makes unavoidable, weighs all
    structures alike, whatever they predict; so the data decide where annealing it ends.

    Attributes
    ----------
    log_median : float
        Logarithm of the running median; minus infinity before any error was seen.
    """

    log_median: float = -math.inf

    AVERAGING = 0.08

    @property
    def value(self) -> float:
        """The running median."""
        return math.exp(self.log_median)

    def update(self, errors: Tensor) -> None:
        """Takes errors, of any shape; those that are not finite count as large."""
        median = float(errors.flatten().nan_to_num(torch.inf).median())
        if not 0 < median < math.inf:
            return
        if self.log_median == -math.inf:
            self.log_median = math.log(median)
        self.log_median += self.AVERAGING * (math.log(median) - self.log_median)


class AcceptanceTemperature:
    """The paper's temperature: raised while too few worsening moves are accepted, lowered while too many are.

    After every epoch the running rate of accepted worsening moves is compared with a target that falls as
    ``exp(-1 - 5 epoch / 800)``; the temperature is multiplied or divided by 1.1. All of it happens where the chains run
    (``csrc/common/acceptance.h``); reading an attribute waits for them.

    Parameters
    ----------
    temperature : float
        In the units of the energy. The authors start at exp(-9.8), in mean squared error of normalised features.
    rate : float
        Running average of the share of proposals that were accepted although they worsened the energy.
    epoch : int
        Epochs seen.
    proposed, worsening : float
        Proposals of the epoch under way, and accepted ones that worsened the energy.
    device : torch.device or str
        Where the chains run.

    Attributes
    ----------
    state : Tensor
        [5] float64: those numbers in this order.
    """

    def __init__(
        self,
        temperature: float,
        rate: float = 0.0,
        epoch: float = 0,
        proposed: float = 0.0,
        worsening: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        numbers = [temperature, rate, epoch, proposed, worsening]
        self.state = to_device(torch.tensor(numbers, dtype=torch.float64), device)

    @property
    def temperature(self) -> float:
        """See the class."""
        return float(self.state[0])

    @property
    def rate(self) -> float:
        """See the class."""
        return float(self.state[1])

    @property
    def epoch(self) -> int:
        """See the class."""
        return int(self.state[2])

    def take(self, counts: Tensor) -> None:
        """Adds counts [..., 4] (:data:`nri_fast.ops.COUNTS`) to those of the epoch under way."""
        self.state[3:] += counts.flatten(0, -2)[:, [0, 2]].sum(0)

    def update(self, ceiling: Tensor) -> None:
        """Ends the epoch.

        The temperature is not raised past `ceiling` (one float64): where it is so high that energies hardly count, and
        still too few worsening moves are accepted, then it is because too few are proposed.
        """
        ops.end_acceptance_epoch(self.state, ceiling)

    def to_dict(self) -> dict[str, float]:
        """The constructor's numbers, as JSON can hold them."""
        names = ("temperature", "rate", "epoch", "proposed", "worsening")
        return dict(zip(names, self.state.tolist(), strict=True))


@dataclass
class Plateau:
    """The authors' learning rate: halved where the loss stops falling.

    An epoch is better if its loss is under the best one by more than a share of 1e-4. After more than 200 epochs in a
    row that are not, the rate is halved, down to 1e-5, and the next 1,000 epochs are not counted. The rule of PyTorch's
    ``ReduceLROnPlateau``.

    Attributes
    ----------
    rate : float
        Learning rate.
    best : float or None
        Lowest loss of an epoch.
    waited : int
        Epochs in a row that were no better.
    cooling : int
        Epochs still to come that are not counted.
    """

    rate: float
    best: float | None = None
    waited: int = 0
    cooling: int = 0

    PATIENCE: ClassVar[int] = 200
    COOLDOWN: ClassVar[int] = 1000
    FLOOR: ClassVar[float] = 1e-5
    THRESHOLD: ClassVar[float] = 1e-4

    def update(self, loss: float) -> None:
        """Takes an epoch's mean loss."""
        if self.best is None or loss < self.best * (1.0 - self.THRESHOLD):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.cooling > 0:
            self.cooling -= 1
            self.waited = 0
        if self.waited > self.PATIENCE:
            self.rate = max(self.FLOOR, 0.5 * self.rate)
            self.cooling, self.waited = self.COOLDOWN, 0
