"""The learning rate of the modules that judge structures, while they are searched."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nri_fast.schedule import Plateau, one_cycle
from nri_fast.settings import Settings


class LearningRate:
    """Rises and falls once, or is halved where the loss of epochs stops falling, as the settings say.

    Parameters
    ----------
    settings : Settings
        Of the run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plateau = Plateau(settings.learning_rate)
        self._epoch_losses: list[Tensor] = []

    def at(self, step: int) -> float:
        """The rate of a step."""
        s = self._settings
        return self._plateau.rate if s.rate_rule == "plateau" else one_cycle(step, s.steps, s.learning_rate)

    def take(self, loss: Tensor, last_of_epoch: bool) -> None:
        """Takes a step's loss; those that are not finite do not count in an epoch's mean."""
        if self._settings.rate_rule != "plateau":
            return
        self._epoch_losses.append(loss)
        if last_of_epoch:
            losses = torch.stack(self._epoch_losses).double()
            finite = torch.isfinite(losses)
            mean = float(torch.where(finite, losses, 0.0).sum() / finite.sum())
            self._plateau.update(mean if math.isfinite(mean) else math.inf)
            self._epoch_losses = []

    def state(self) -> dict[str, Any]:
        """As a checkpoint's JSON holds it."""
        return {"plateau": vars(self._plateau), "epoch_losses": [float(loss) for loss in self._epoch_losses]}

    def restore(self, facts: dict[str, Any], like: Tensor) -> None:
        """The inverse of :meth:`state`, among all of a checkpoint's facts; losses are of the type of `like`."""
        self._plateau = Plateau(**facts["plateau"])
        self._epoch_losses = [like.new_tensor(loss) for loss in facts["epoch_losses"]]
