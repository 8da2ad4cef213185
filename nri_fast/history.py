"""What happened while a run was trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nri_fast.bounces import BounceResult
    from nri_fast.proposals.imitation import Imitation


@dataclass
class History:
    """What happened, one entry per recorded step: enough to draw a run's curves.

    With a proposal network: its loss, how much of the structures' entropy its predictions tell (0 nothing, 1 all), and
    how often it has collapsed and was started anew. The lists of these are empty without one.
    """

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    temperature: list[float] = field(default_factory=list)
    scale_squared: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    network_loss: list[float] = field(default_factory=list)
    network_information: list[float] = field(default_factory=list)
    network_restarts: list[int] = field(default_factory=list)

    def add(
        self, step: int, result: BounceResult, rate: float, scale_squared: float | None, imitation: Imitation | None
    ) -> None:
        """Takes a step's bounce, its learning rate and s^2, and how the network came out of it."""
        self.step.append(step)
        self.loss.append(float(result.loss))
        self.temperature.append(float(result.temperature))
        self.scale_squared.append(scale_squared or 0.0)
        self.learning_rate.append(rate)
        if imitation is not None:
            self.network_loss.append(imitation.loss)
            self.network_information.append(imitation.information)
            self.network_restarts.append(imitation.restarts)
        counts = result.counts
        self.accepted.append(0.0 if counts is None else float(counts[:, 1].sum()) / max(1, int(counts[:, 0].sum())))

    def to_dict(self) -> dict[str, list[float]]:
        """As JSON can hold it."""
        return {name: list(values) for name, values in vars(self).items()}
