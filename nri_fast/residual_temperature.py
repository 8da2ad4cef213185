"""The temperature at which a Metropolis chain samples the posterior, read off the residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.rollouts import Rollouts


@dataclass
class ResidualTemperature:
    """Temperature from the training loss and the residuals' autocorrelation.

    Under Gaussian errors of variance s^2, a structure of energy E (the mean squared error over n entries) has the
    log-likelihood ``-n E / (2 s^2)``: a chain samples the posterior at ``T = 2 s^2 / n``. The running training loss
    stands for s^2. Residuals that follow each other are alike; with the autocorrelation r from one step to the next, n
    entries are worth ``n (1 - r) / (1 + r)`` independent ones. A robust energy is a mean of logarithms, a transition's
    minus log-likelihood being ``(D / 2) log(s^2 + e)``, and its temperature ``2 / D`` over the number of transitions,
    corrected likewise.

    The authors offer such a rule as ``auto``; this derivation is this project's.

    Attributes
    ----------
    loss : float or None
        Running mean of the training loss.
    autocorrelation : float
        Running mean, 0 to 0.99.
    """

    loss: float | None = None
    autocorrelation: float = 0.0

    AVERAGING: ClassVar[float] = 0.05

    def update(self, loss: float, autocorrelation: float) -> None:
        """Takes a bounce's; what is not finite says nothing."""
        if not (abs(loss) < float("inf") and abs(autocorrelation) < float("inf")):
            return
        share = 1.0 if self.loss is None else self.AVERAGING
        self.loss = loss if self.loss is None else self.loss + share * (loss - self.loss)
        self.autocorrelation += share * (min(0.99, max(0.0, autocorrelation)) - self.autocorrelation)

    def value(self, transitions: int, features: int, robust: bool) -> float | None:
        """The temperature, in units of the energy; None before the first update.

        Parameters
        ----------
        transitions : int
            Steps times entities that a system's energy averages over.
        features : int
            D.
        robust : bool
            Whether the energy is the robust one.
        """
        if self.loss is None:
            return None
        independent = transitions * features * (1.0 - self.autocorrelation) / (1.0 + self.autocorrelation)
        return 2.0 / independent if robust else 2.0 * self.loss / independent


def residual_autocorrelation(rollouts: Rollouts, edge_types: Tensor, node_types: Tensor) -> float:
    """Autocorrelation of signed residuals from one predicted step to the next, all roll-outs of a batch together.

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
    return float(together / apart) if float(apart) > 0 else 0.0
