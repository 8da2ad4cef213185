"""Polishing: forecasts get modules of their own, which learn behind the bounces, under the structures found."""

from __future__ import annotations

import copy
import dataclasses

from torch import Tensor

from nri_fast import ops
from nri_fast.bounces import BounceResult, Structures, polish_bounce
from nri_fast.checkpoint import named, part
from nri_fast.energies import one_step_error
from nri_fast.graph import to_device
from nri_fast.learner import Learner
from nri_fast.modules import ModuleLibrary
from nri_fast.pieces import from_own_states, horizon, piece, piece_length
from nri_fast.rollouts import Rollouts
from nri_fast.schedule import one_cycle
from nri_fast.settings import Settings
from nri_fast.substeps import short_step_library, spaced
from nri_fast.system_set import Batch, SystemSet
from nri_fast.training_draws import TrainingDraws

# Of the peak rate of short steps: what they learn at behind a forecast's first, where a law is known already.
LATER_RATE = 0.2


class Polishing:
    """Trains the modules that forecasts are made with; those that judge structures stay as they are.

    Errors are squared: a forecast is to be right on average, what cannot be known included.

    Parameters
    ----------
    library : ModuleLibrary
        What judges structures.
    settings : Settings
        Of the run.
    draws : TrainingDraws
        Of the run.
    learner : Learner
        Who turns to the forecaster's weights.

    Attributes
    ----------
    forecaster : ModuleLibrary
        What forecasts are made with; `library` until polishing begins.
    first_step : ModuleLibrary or None
        Modules for a forecast's first step, once there are some.
    rollouts_from : int
        The step from which on roll-outs are trained.
    """

    def __init__(self, library: ModuleLibrary, settings: Settings, draws: TrainingDraws, learner: Learner) -> None:
        self._library, self._settings, self._draws, self._learner = library, settings, draws, learner
        self.forecaster = library
        self.first_step: ModuleLibrary | None = None
        self.rollouts_from = settings.steps + settings.polish_first_steps

    def begin(self, step: int, systems: SystemSet) -> None:
        """Makes the modules that are trained from this step on, if they are others than before."""
        if step == self._settings.steps:
            self._start(systems)
        if step == self.rollouts_from > self._settings.steps:
            self._keep_first_step()

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        s = self._settings
        if step < self.rollouts_from:
            return one_cycle(step - s.steps, s.polish_first_steps, s.polish_rate)
        peak = s.polish_rate if s.polish_substeps == 1 else LATER_RATE * s.polish_rate
        return one_cycle(step - self.rollouts_from, s.polish_steps - s.polish_first_steps, peak)

    def gradient(
        self, systems: SystemSet, batch: Batch, parameters: Tensor, structures: Structures, step: int
    ) -> BounceResult:
        """Loss and gradient of a step, `parameters` [P] being the forecaster's."""
        s, steps = self._settings, step - self.rollouts_from
        length, rollout = systems.steps, min(s.rollout, systems.steps - 1)
        if s.polish_first_steps:
            rollout = 1 if steps < 0 else horizon(steps / (s.polish_steps - s.polish_first_steps), rollout)
            length = piece_length(systems.steps, rollout)
        if s.polish_substeps > 1:
            return self._short_steps(systems, batch, parameters, structures, step, rollout)
        start = self._draws.piece_start(batch, systems.steps, systems.steps - length, step)
        error = one_step_error(self.forecaster, None, None)
        followed = piece(batch, systems.steps, start, length) if length < systems.steps else batch
        return polish_bounce(Rollouts(self.forecaster, parameters, followed, length, rollout, error), structures)

    def state(self) -> dict[str, Tensor]:
        """A checkpoint's tensors: all modules that are not `library`."""
        tensors = {} if self.forecaster is self._library else named("forecaster", self.forecaster.state_dict())
        return tensors if self.first_step is None else tensors | named("first_step", self.first_step.state_dict())

    def restore(self, tensors: dict[str, Tensor], systems: SystemSet) -> None:
        """The inverse of :meth:`state`, among all of a checkpoint's tensors; `library` has been restored before."""
        forecaster, first_step = part("forecaster", tensors), part("first_step", tensors)
        if forecaster:
            self._start(systems)
            self.forecaster.load_state_dict(first_step or forecaster)
        if first_step:
            self._keep_first_step()
            self.forecaster.load_state_dict(forecaster)

    def _start(self, systems: SystemSet) -> None:
        """Forecasts get modules of their own."""
        s = self._settings
        if s.polish_substeps > 1:
            self.forecaster = short_step_library(
                self._library, systems, s.polish_substeps, s.polish_positions, self._draws.seed
            )
        else:
            self.forecaster = self._library.with_positions() if s.polish_positions else copy.deepcopy(self._library)
        self._learner.turn_to(self.forecaster)

    def _keep_first_step(self) -> None:
        """What is right at one step stays; a copy learns roll-outs."""
        self.first_step, self.forecaster = self.forecaster, copy.deepcopy(self.forecaster)
        self._learner.turn_to(self.forecaster)

    def _short_steps(
        self, systems: SystemSet, batch: Batch, parameters: Tensor, structures: Structures, step: int, reach: int
    ) -> BounceResult:
        """One recorded step at a time: from recorded states first, then from those that forecasts of `reach` steps met.

        A gradient through many short steps is all about the few systems in which it explodes, and unlearns the law.
        What a forecast's later steps should say, the mean over what may happen, they learn without: by meeting the
        states that they are given.
        """
        if step < self.rollouts_from or systems.steps < 3:
            ids, start = self._draws.sudden_transitions(systems, step)
            followed = piece(systems.batch(ids), systems.steps, to_device(start, batch.states.device), 2)
            error = one_step_error(self._library, None, None)
        else:
            # As forecasts are examined, all features alike. A law needs positions more exactly, in their own units.
            error = ops.ErrorMeasure((1.0 / (self._library.change_scale**2).mean()).repeat(systems.features))
            reach = min(max(reach, 2), systems.steps - 1)
            followed = self._from_own_states(systems, batch, parameters, structures, step, reach)
        substeps = self._settings.polish_substeps
        states, present, length = spaced(followed.graph, followed.states, followed.present, 2, substeps)
        followed = dataclasses.replace(followed, states=states, present=present)
        return polish_bounce(Rollouts(self.forecaster, parameters, followed, length, substeps, error), structures)

    def _from_own_states(
        self, systems: SystemSet, batch: Batch, parameters: Tensor, structures: Structures, step: int, reach: int
    ) -> Batch:
        """Transitions behind the first one of forecasts of `reach` steps, from one random step of every system on."""
        start = self._draws.piece_start(batch, systems.steps, systems.steps - 1 - reach, step)
        later = self.forecaster, parameters
        first = later if self.first_step is None else (self.first_step, self.first_step.flat_parameters())
        modules = [first, *[later] * (reach - 2)]
        substeps = self._settings.polish_substeps
        return from_own_states(systems, batch, start, modules, substeps, *structures.of(batch))
