"""BounceGrad: bounces that search structures alternate with gradient steps on the shared modules."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nri_fast import ops
from nri_fast.annealing import Annealing
from nri_fast.bounces import BounceResult, Structures, heat_bath_bounce, metropolis_bounce
from nri_fast.checkpoint import CheckpointError, Checkpoints, named, part
from nri_fast.couplings import Coupling
from nri_fast.energies import one_step_error
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.history import History
from nri_fast.learner import Learner
from nri_fast.learning_rate import LearningRate
from nri_fast.linear_start import start_linearly
from nri_fast.modules import ModuleLibrary
from nri_fast.ops import one_torch_thread
from nri_fast.polishing import Polishing
from nri_fast.proposals.imitation import Imitation
from nri_fast.proposals.sources import make_imitation, make_proposer
from nri_fast.residual_temperature import residual_autocorrelation
from nri_fast.rollouts import residuals
from nri_fast.settings import Settings
from nri_fast.shared_rollouts import tied_rollouts
from nri_fast.system_set import Batch, SystemSet
from nri_fast.training_draws import TrainingDraws
from nri_fast.warm_start import WarmStart

CHECKPOINT_SECONDS = 30.0
RESIDUALS_EVERY = 4  # steps; what is followed changes slowly


class BounceGrad:
    """Learns a module library, and a structure for every training system, from trajectories alone.

    Parameters
    ----------
    library : ModuleLibrary
        The modules to train, in place, on the device of the trajectories.
    settings : Settings
        What to do.
    seed : int
        Names every random draw of the run. The library's initial weights are the caller's.
    judged : sequence of int, optional
        Places of the features whose one-step prediction judges structures; all by default.
    start : WarmStart, optional
        Whose modules the library holds. They know the types apart, so that nothing is annealed: temperature and s^2
        are those of training's end from the first step on.
    feature_weights : sequence of float
        Of the judged features in the error that judges structures; all alike if empty.

    Attributes
    ----------
    forecaster : ModuleLibrary
        The modules that forecasts are made with: a polished copy, or the library itself.
    first_step : ModuleLibrary or None
        Modules for a forecast's first step, if the settings ask for some.
    structures : Structures
        The current types of all training systems, after :meth:`fit`.
    history : History
        Curves.
    imitation : Imitation or None
        The proposal network and its training, after :meth:`fit`, if the settings ask for one.
    skipped : int
        Gradient steps that were not taken because the gradient was not finite.

    Notes
    -----
    Nothing depends on time, on the number of threads or on how often a run was interrupted: minibatches and transitions
    are drawn from Philox generators that are named by seed and step.
    """

    def __init__(
        self,
        library: ModuleLibrary,
        settings: Settings,
        seed: int = 0,
        judged: Sequence[int] | None = None,
        start: WarmStart | None = None,
        feature_weights: Sequence[float] = (),
    ) -> None:
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed: expected 0 to 2^64 - 1, got {seed}")
        self.library, self.settings, self.seed = library, settings, seed
        self._judged, self._start, self.feature_weights = judged, start, tuple(feature_weights)
        self._draws = TrainingDraws(seed, settings)
        self.coupling = Coupling(settings.undirected, settings.shared)
        self.history = History()
        self.structures: Structures | None = None
        self.imitation: Imitation | None = None
        self._step = 0
        self._annealing = Annealing(settings, start)
        self._rate = LearningRate(settings)
        self._learner = Learner(library, settings.clip)
        self._polishing = Polishing(library, settings, self._draws, self._learner)

    @property
    def step(self) -> int:
        """Gradient steps taken."""
        return self._step

    @property
    def total_steps(self) -> int:
        """Gradient steps of the whole run, polishing included."""
        return self.settings.steps + self.settings.polish_steps

    @property
    def scale_squared(self) -> float | None:
        """s^2 of the robust error at the current step, None with the squared error."""
        return self._annealing.scale_squared(self._step)

    @property
    def forecaster(self) -> ModuleLibrary:
        """See the class."""
        return self._polishing.forecaster

    @property
    def first_step(self) -> ModuleLibrary | None:
        """See the class."""
        return self._polishing.first_step

    @property
    def skipped(self) -> int:
        """See the class."""
        return self._learner.skipped

    def error_measure(self) -> ops.ErrorMeasure:
        """The error by which structures are judged at the current step."""
        return one_step_error(self.library, self._judged, self.scale_squared, self.feature_weights)

    def fit(
        self,
        systems: SystemSet,
        checkpoints: Checkpoints | None = None,
        resume: bool = False,
        progress: bool = True,
        on_step: Callable[[BounceGrad], None] | None = None,
    ) -> BounceGrad:
        """Trains to the end of the settings' steps.

        Parameters
        ----------
        systems : SystemSet
            Training systems, in normalised units.
        checkpoints : Checkpoints, optional
            Where to save, every half minute and at the end.
        resume : bool
            Continue from the newest checkpoint; the result equals an uninterrupted run's to the bit.
        progress : bool
            Show a progress bar (never where the output is no terminal).
        on_step : callable, optional
            Called with this object after every step.

        Returns
        -------
        BounceGrad
            Itself.

        Raises
        ------
        TypeError, ValueError
            If the systems have too few steps, or do not fit the library.
        DivergedError
            If too many gradient steps in a row were not finite.
        FileExistsError
            If there are checkpoints already and `resume` is not set.
        CheckpointError
            If a checkpoint belongs to other settings or systems, or all are damaged.
        """
        least = self.settings.least_steps
        if systems.steps < least:
            raise ValueError(f"systems: expected at least {least} steps, got {systems.steps}")
        systems.check_fits(self.library)
        if checkpoints is not None and not resume and checkpoints.paths():
            raise FileExistsError(
                f"{checkpoints.folder}: holds checkpoints of another run; pass another folder, or resume"
            )
        self._begin(systems)
        if resume and checkpoints is not None:
            found = checkpoints.latest(lambda message: tqdm.write(message, file=sys.stderr))
            if found is not None:
                self._restore(*found, systems)
        if self._step == 0 and self._start is not None and self._draws.holds_edges(systems.graph):
            self._settle(systems)
        saved = time.monotonic()
        bar = tqdm(
            total=self.total_steps, initial=self._step, desc="training", disable=None if progress else True, unit="step"
        )
        with bar, one_torch_thread():
            while self._step < self.total_steps:
                if self._step == self.settings.steps:
                    self._settle(systems)
                self._polishing.begin(self._step, systems)
                self._one_step(systems)
                bar.update()
                if self._step % 20 == 0 and self.history.loss:
                    bar.set_postfix(loss=f"{self.history.loss[-1]:.4g}", refresh=False)
                if on_step is not None:
                    on_step(self)
                if checkpoints is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    checkpoints.save(self._step, *self._state(systems))
                    saved = time.monotonic()
            self._learner.check(self._step)
            if not self.settings.polish_steps:
                self._settle(systems)
        if checkpoints is not None:
            checkpoints.save(self._step, *self._state(systems))
        return self

    def _begin(self, systems: SystemSet) -> None:
        """Makes everything as it is before the first step."""
        if not self.settings.scaled:
            self.library.change_scale.fill_(1.0)
        elif self._start is None:  # modules of another run keep the units that they were trained in
            self.library.take_units(systems.change_deviation())
        if self.settings.linear_start and self._start is None:
            start_linearly(self.library, systems)
        self._annealing.begin(systems, self.error_measure().weight)
        types = self._draws.first_types(systems.graph, self.coupling)
        self.structures = Structures.undecided(*types, self.library.edge_types)
        self.imitation = make_imitation(self.settings, self.library, systems, self.seed)

    # One step -------------------------------------------------------------------------------------------------------

    def _one_step(self, systems: SystemSet) -> None:
        step, bouncing = self._step, self._step < self.settings.steps
        batch, last_of_epoch = self._draws.batch(systems, step)
        parameters = self._learner.parameters()
        with torch.no_grad():
            if bouncing:
                rate, result = self._rate.at(step), self._bounce(systems, batch, parameters)
            else:
                rate = self._polishing.rate(step)
                result = self._polishing.gradient(systems, batch, parameters, self._held, step)
        self._learner.step(result.loss, result.gradient, rate, step)
        if self.imitation is not None:
            self.imitation.step(batch, systems.steps, *self._held.of(batch), step)
        if last_of_epoch and result.counts is not None:
            self._annealing.end_epoch(result.loss)
        if bouncing:
            self._rate.take(result.loss, last_of_epoch)
        if step % max(1, self.total_steps // 1000) == 0:
            self.history.add(step, result, rate, self.scale_squared, self.imitation)
        if self.settings.robust and bouncing and step % RESIDUALS_EVERY == 0:
            self._follow_residuals(systems, batch, parameters)
        self._step += 1

    @property
    def _held(self) -> Structures:
        """The structures, which are there while training runs."""
        assert self.structures is not None
        return self.structures

    def _bounce(self, systems: SystemSet, batch: Batch, parameters: Tensor) -> BounceResult:
        """Searches the batch's structures; the loss and gradient of those that it settled on."""
        if self.settings.bounce == "metropolis":
            return self._metropolis(systems, batch, parameters)
        return self._heat_bath(systems, batch, parameters)

    def _metropolis(self, systems: SystemSet, batch: Batch, parameters: Tensor) -> BounceResult:
        s, error = self.settings, self.error_measure()
        temperature = self._annealing.chain_temperature(self._step, systems)
        by_acceptance = self._annealing.acceptance if temperature is None else None
        rollouts = tied_rollouts(self.library, parameters, batch, systems.steps, s.rollout, error, self.coupling)
        draws = ops.Draws(self.seed, self._step * s.proposals, rollouts.names)
        network = None if self.imitation is None else self.imitation.network
        factor = self._annealing.temperature_factor(self._step)
        proposer = make_proposer(s, network, rollouts, *self._held.of(batch), factor)
        hastings = s.rule == "hastings"
        result = metropolis_bounce(
            rollouts, self._held, draws, s.proposals, temperature, by_acceptance, proposer, hastings
        )
        if s.temperature_rule == "residuals":
            alike = residual_autocorrelation(rollouts, *self._held.of(batch))
            self._annealing.residual_temperature.update(result.loss.double(), alike)
        return result

    def _heat_bath(self, systems: SystemSet, batch: Batch, parameters: Tensor) -> BounceResult:
        start = self._draws.transitions(batch, systems.steps, self._step)
        free = self._draws.free_edges(batch, self._step)
        held = None if free is None else self._held.beliefs[batch.edges]
        rows = HeatBathRows(self.library, batch, systems.steps, start, self.error_measure(), free, held)
        draws, sample = ops.Draws(self.seed, self._step, batch.systems), self.settings.bounce == "sampled"
        factor = self._annealing.temperature_factor(self._step)
        return heat_bath_bounce(parameters, batch, self._held, rows, self.coupling, draws, factor, sample)

    def _follow_residuals(self, systems: SystemSet, batch: Batch, parameters: Tensor) -> None:
        """Predictions of the batch's structures from one random step of every system tell how small s^2 may become."""
        s = self.settings
        horizon = s.rollout if s.bounce == "metropolis" else 1
        start = self._draws.residual_start(batch, systems.steps, systems.steps - 1 - horizon, self._step)
        types = self._held.of(batch)
        with torch.no_grad():
            weight = self.error_measure().weight
            errors = residuals(self.library, parameters, batch, systems.steps, start, horizon, *types, weight)
        if len(errors):  # nothing is compared where everybody leaves too soon
            self._annealing.residual_scale.update(errors)

    def _settle(self, systems: SystemSet) -> None:
        """Gives every training system the best structure under the modules as they are, by all of its transitions.

        A Metropolis run keeps the structures that its chain has reached.
        """
        if self.settings.bounce != "metropolis":
            found = heat_bath_search(
                self.library, systems, self.error_measure(), temperature=0.0, seed=self.seed, coupling=self.coupling
            )
            self.structures = Structures.settled(found.edge_types, found.node_types, self.library.edge_types)

    # State ----------------------------------------------------------------------------------------------------------

    def _facts(self, systems: SystemSet) -> dict[str, Any]:
        return {
            "settings": self.settings.to_dict(),
            "library": self.library.settings(),
            "seed": self.seed,
            "systems": len(systems),
            "steps_recorded": systems.steps,
            "states": systems.digest,
            "start": None if self._start is None else self._start.digest(),
        }

    def _state(self, systems: SystemSet) -> tuple[dict[str, Tensor], dict[str, Any]]:
        optimiser, skipped = self._learner.state()
        tensors = named("library", self.library.state_dict()) | self._polishing.state() | optimiser
        tensors |= named("structures", vars(self._held))
        facts = self._facts(systems) | self._annealing.state() | self._rate.state()
        facts |= {"skipped": skipped, "history": self.history.to_dict()}
        if self.imitation is not None:
            network, imitation = self.imitation.state()
            tensors |= network
            facts["imitation"] = imitation
        return tensors, facts

    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, Any], systems: SystemSet) -> None:
        for name, value in self._facts(systems).items():
            if facts.get(name) != json.loads(json.dumps(value)):
                raise CheckpointError(
                    f"checkpoint: {name} differs from this run's: {facts.get(name)}, expected {value}"
                )
        device = systems.states.device
        self.library.load_state_dict(part("library", tensors))
        self._polishing.restore(tensors, systems)
        self._learner.restore(tensors, facts["skipped"])
        self.structures = Structures(**{name: value.to(device) for name, value in part("structures", tensors).items()})
        self._annealing.restore(facts, device)
        self._rate.restore(facts, systems.states)
        if self.imitation is not None:
            self.imitation.restore(tensors, facts["imitation"])
        self.history = History(**facts["history"])
        self._step = facts["step"]
