"""The temperature at which a Metropolis chain samples the posterior, read off the residuals."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.graph import to_device
from nri_fast.rollouts import Rollouts


class ResidualTemperature:
    """Temperature from the training loss and the residuals' autocorrelation.

    Under Gaussian errors of variance s^2, a structure of energy E (the mean squared error over n entries) has the
    log-likelihood ``-n E / (2 s^2)``: a chain samples the posterior at ``T = 2 s^2 / n``. The running training loss
    stands for s^2. Residuals that follow each other are alike; with the autocorrelation r from one step to the next, n
    entries are worth ``n (1 - r) / (1 + r)`` independent ones. A robust energy is a mean of logarithms, a transition's
    minus log-likelihood being ``(D / 2) log(s^2 + e)``, and its temperature ``2 / D`` over the number of transitions,
    corrected likewise.

    The authors offer such a rule as ``auto``; this derivation is this project's.

    What is known stays on the device where training runs; reading an attribute waits for it.

    Parameters
    ----------
    loss : float or None
        Running mean of the training loss; None before any was seen.
    autocorrelation : float
        Running mean, 0 to 0.99.
    device : torch.device or str
        Where training runs.
    """

    AVERAGING: ClassVar[float] = 0.05

    def __init__(
        self, loss: float | None = None, autocorrelation: float = 0.0, device: torch.device | str = "cpu"
    ) -> None:
        known = torch.tensor([math.nan if loss is None else loss, autocorrelation], dtype=torch.float64)
        self._known = to_device(known, device)

    @property
    def loss(self) -> float | None:
        """See the class."""
        loss = float(self._known[0])
        return None if math.isnan(loss) else loss

    @property
    def autocorrelation(self) -> float:
        """See the class."""
        return float(self._known[1])

    def to_dict(self) -> dict[str, float | None]:
        """The constructor's numbers, as JSON can hold them."""
        return {"loss": self.loss, "autocorrelation": self.autocorrelation}

    def update(self, loss: Tensor, autocorrelation: Tensor) -> None:
        """Takes a bounce's, [] each; what is not finite says nothing."""
        before, alike = self._known.unbind()
        first = before.isnan()
        now = torch.where(first, loss, before + self.AVERAGING * (loss - before))
        alike = alike + torch.where(first, 1.0, self.AVERAGING) * (autocorrelation.clamp(0.0, 0.99) - alike)
        usable = torch.isfinite(loss) & torch.isfinite(autocorrelation)
        self._known = torch.where(usable, torch.stack([now, alike]), self._known)

    def value(self, transitions: int, features: int, robust: bool) -> Tensor:
        """[1] float64: the temperature, in units of the energy; NaN before the first update.

        Parameters
        ----------
        transitions : int
            Steps times entities that a system's energy averages over.
        features : int
            D.
        robust : bool
            Whether the energy is the robust one.
        """
        loss, alike = self._known[:1], self._known[1:]
        independent = transitions * features * (1.0 - alike) / (1.0 + alike)
        value = 2.0 / independent if robust else 2.0 * loss / independent
        return torch.where(loss.isnan(), torch.nan, value)


def residual_autocorrelation(rollouts: Rollouts, edge_types: Tensor, node_types: Tensor) -> Tensor:
    """[] float64: autocorrelation of signed residuals from one predicted step to the next, over all roll-outs.

    Zero-mean: ``sum r_t r_(t+1) / sum (r_t^2 + r_(t+1)^2) / 2``, features weighed as in the error. 0 with a roll-out of
    one step, which has no next.
    """
    batch, library, steps = rollouts.batch, rollouts.library, rollouts.steps
    recorded = batch.states.view(-1, library.features)
    nodes = node_types if library.node_types > 1 else None
    together = torch.zeros((), dtype=torch.float64, device=recorded.device)
    apart = torch.zeros_like(together)
    zero = torch.zeros(batch.graph.systems, dtype=torch.int64, device=recorded.device)
    flags, part = batch.present, None
    for start in range(0, steps - 2, rollouts.rollout):
        horizon = min(rollouts.rollout, steps - 1 - start)
        places = batch.places(steps, zero + start)
        part = None if flags is None else flags[places]
        flat = ops.forecast(
            *(library, rollouts.parameters, batch.graph, recorded[places], horizon, edge_types, nodes),
            present=part,
            step_scale=batch.step_scale,
        )
        predicted = flat.view(-1, library.features)
        errors = torch.stack(
            [
                predicted[batch.places(horizon, zero + h)] - recorded[batch.places(steps, zero + start + h + 1)]
                for h in range(horizon)
            ]
        )
        if flags is not None and part is not None:  # who is not compared adds to neither sum
            there = torch.stack([flags[batch.places(steps, zero + start + h + 1)] & part for h in range(horizon)])
            errors = torch.where(there.bool()[..., None], errors, 0.0)
        errors = errors.double() * rollouts.error.weight.double().sqrt()
        together += (errors[:-1] * errors[1:]).sum()
        apart += 0.5 * ((errors[:-1] ** 2).sum() + (errors[1:] ** 2).sum())
    return torch.where(apart > 0, together / apart, 0.0)
