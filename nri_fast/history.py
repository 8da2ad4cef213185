"""What happened while a run was trained."""

from __future__ import annotations

from dataclasses import dataclass, field


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

    def to_dict(self) -> dict[str, list[float]]:
        """As JSON can hold it."""
        return {name: list(values) for name, values in vars(self).items()}
