"""What the search for structures is annealed by: s^2 of the robust error, and the temperatures of its bounces."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nri_fast.presence import compared_predictions
from nri_fast.residual_temperature import ResidualTemperature
from nri_fast.schedule import AcceptanceTemperature, ResidualScale, geometric, linear_floor
from nri_fast.settings import Settings
from nri_fast.system_set import SystemSet
from nri_fast.warm_start import WarmStart

FIRST_TEMPERATURE = math.exp(-9.8)  # the authors', of a chain that acceptance drives, in mean squared error
HIGHEST_TEMPERATURE = 10.0  # of a chain, in units of the energy; robust energies are logarithms
GEOMETRIC = 0.1, 1e-5  # first and last temperature of a chain that is cooled geometrically


class Annealing:
    """s^2 and temperatures at any step of a run, by its schedule and by what was seen so far.

    Parameters
    ----------
    settings : Settings
        Of the run.
    start : WarmStart, optional
        Modules that know the types apart: nothing is annealed, everything is as at training's end.

    Attributes
    ----------
    acceptance : AcceptanceTemperature
        The chain's temperature by the paper's rule.
    residual_temperature : ResidualTemperature
        The chain's temperature by the residuals.
    residual_scale : ResidualScale
        How small s^2 may become.
    """

    def __init__(self, settings: Settings, start: WarmStart | None = None) -> None:
        self._settings, self._is_over = settings, start is not None
        known = None if start is None else start.scale_squared
        self.residual_scale = ResidualScale() if known is None else ResidualScale(math.log(known))
        self.acceptance = AcceptanceTemperature(FIRST_TEMPERATURE)
        self.residual_temperature = ResidualTemperature()
        self._change_variance = 1.0  # of one step, in the units of errors

    def begin(self, systems: SystemSet, weight: Tensor) -> None:
        """Takes the device and the units of a run's energies, `weight` [D] being that of the features' errors."""
        device = systems.graph.device
        self.acceptance = AcceptanceTemperature(FIRST_TEMPERATURE * float(weight.mean()), device=device)
        self.residual_temperature = ResidualTemperature(device=device)
        if not self._settings.scaled:
            self._change_variance = float((systems.change_deviation() ** 2).mean())

    def scale_squared(self, step: int) -> float | None:
        """s^2 of the robust error; None with the squared error."""
        s = self._settings
        if not s.robust:
            return None
        annealed = geometric(self._done(step), s.first_scale, s.last_scale, s.scale_share)
        return max(annealed, min(s.first_scale, self.residual_scale.value))

    def temperature_factor(self, step: int) -> float:
        """Temperature of a heat bath, in units of the spread of a receiver's scores."""
        s = self._settings
        return linear_floor(self._done(step), s.first_temperature, s.last_temperature, s.temperature_share)

    def chain_temperature(self, step: int, systems: SystemSet) -> Tensor | None:
        """[1] float64, of a Metropolis bounce, in units of the energy; None: acceptance drives it."""
        s = self._settings
        if s.temperature_rule == "acceptance":
            return None
        if s.temperature_rule == "geometric":
            unit = 1.0 if s.robust else self._change_variance
            value = geometric(step / s.steps, *GEOMETRIC, 1.0) * unit
            return torch.full((1,), value, dtype=torch.float64, device=systems.states.device)
        transitions = self._transitions(systems)
        from_residuals = self.residual_temperature.value(transitions, systems.features, s.robust)
        return torch.where(from_residuals.isnan(), self.acceptance.state[:1], from_residuals)

    def end_epoch(self, loss: Tensor) -> None:
        """An epoch of Metropolis bounces is over, whose last loss [] this was."""
        if self._settings.temperature_rule == "acceptance":
            unit = torch.ones_like(loss) if self._settings.robust else loss.abs()
            self.acceptance.update(HIGHEST_TEMPERATURE * unit.double())

    def state(self) -> dict[str, Any]:
        """As a checkpoint's JSON holds it."""
        return {
            "acceptance": self.acceptance.to_dict(),
            "residual_temperature": self.residual_temperature.to_dict(),
            "residual_scale": self.residual_scale.log_median if self._settings.robust else None,
        }

    def restore(self, facts: dict[str, Any], device: torch.device) -> None:
        """The inverse of :meth:`state`, among all of a checkpoint's facts."""
        self.acceptance = AcceptanceTemperature(**facts["acceptance"], device=device)
        self.residual_temperature = ResidualTemperature(**facts["residual_temperature"], device=device)
        if facts["residual_scale"] is not None:
            self.residual_scale = ResidualScale(facts["residual_scale"])

    def _done(self, step: int) -> float:
        """How far the temperature of a heat bath and s^2 have come."""
        return 1.0 if self._is_over else min(1.0, step / self._settings.steps)

    def _transitions(self, systems: SystemSet) -> int:
        """That a structure's roll-out energy is the mean of, on average."""
        recordings = min(self._settings.batch, len(systems)) if self._settings.shared else 1
        if systems.present is None:
            return recordings * (systems.steps - 1) * systems.graph.nodes // len(systems)
        counts = compared_predictions(systems.graph, systems.present, systems.steps, self._settings.rollout)
        return max(1, recordings * int(counts.sum()) // len(systems))
