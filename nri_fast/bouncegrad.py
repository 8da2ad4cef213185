"""BounceGrad: bounces that search structures alternate with gradient steps on the shared modules."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from nri_fast import ops
from nri_fast.bounces import BounceResult, Structures, heat_bath_bounce, metropolis_bounce, polish_bounce
from nri_fast.checkpoint import CheckpointError, Checkpoints
from nri_fast.couplings import Coupling
from nri_fast.energies import one_step_error
from nri_fast.graph import to_device
from nri_fast.heat_bath_rows import HeatBathRows
from nri_fast.heat_bath_search import heat_bath_search
from nri_fast.history import History
from nri_fast.linear_start import start_linearly
from nri_fast.modules import ModuleLibrary
from nri_fast.ops import one_torch_thread
from nri_fast.parameter_vector import ParameterVector
from nri_fast.polishing import from_own_states, horizon, piece, piece_length
from nri_fast.presence import compared_predictions
from nri_fast.proposals.imitation import Imitation
from nri_fast.proposals.sources import make_imitation, make_proposer
from nri_fast.residual_temperature import ResidualTemperature, residual_autocorrelation
from nri_fast.rollouts import Rollouts, residuals
from nri_fast.schedule import AcceptanceTemperature, Plateau, ResidualScale, geometric, linear_floor, one_cycle
from nri_fast.settings import Settings
from nri_fast.shared_rollouts import tied_rollouts
from nri_fast.substeps import short_step_library, spaced
from nri_fast.system_set import Batch, SystemSet
from nri_fast.training_draws import TrainingDraws
from nri_fast.warm_start import WarmStart

CHECKPOINT_SECONDS = 30.0
HIGHEST_TEMPERATURE = 10.0  # of a chain, in units of the energy; robust energies are logarithms
GEOMETRIC = 0.1, 1e-5  # first and last temperature of a chain that is cooled geometrically
MOST_SKIPPED = 20  # gradient steps in a row that may be skipped because they are not finite
LATER_RATE = (
    0.2  # of the peak rate of short steps: what they do behind a forecast's first, where a law is known already
)
RESIDUALS_EVERY = 4  # steps; what is followed changes slowly


class Skips:
    """How many gradient steps were not taken, counted where they were not.

    Parameters
    ----------
    device : torch.device
        Where training runs.
    total, in_a_row, longest : int
        All of them, those up to the last step, and the most in a row.
    """

    def __init__(self, device: torch.device, total: int = 0, in_a_row: int = 0, longest: int = 0) -> None:
        self._counts = to_device(torch.tensor([total, in_a_row, longest]), device)

    def count(self, skipped: Tensor) -> None:
        """Takes a step: whether it was skipped, [] bool."""
        total, in_a_row, longest = self._counts.unbind()
        in_a_row = (in_a_row + 1) * skipped
        self._counts = torch.stack([total + skipped, in_a_row, torch.maximum(longest, in_a_row)])

    @property
    def total(self) -> int:
        """See the class."""
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        """See the class."""
        return int(self._counts[2])

    def to_list(self) -> list[int]:
        """The constructor's numbers."""
        return [int(count) for count in self._counts.tolist()]


class DivergedError(RuntimeError):
    """Training met energies or gradients that are not finite, too many times in a row."""


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
        self.acceptance = AcceptanceTemperature(math.exp(-9.8))
        self.residual_temperature = ResidualTemperature()
        self._change_variance = 1.0  # of one step, in the units of errors
        known = None if start is None else start.scale_squared
        self.residual_scale = ResidualScale() if known is None else ResidualScale(math.log(known))
        self.plateau = Plateau(settings.learning_rate)
        self._epoch_losses: list[Tensor] = []
        self._skips = Skips(library.change_scale.device)
        self._step = 0
        self.forecaster = library
        self.first_step: ModuleLibrary | None = None
        self._weights, self._optimiser = _learner(library, settings.learning_rate)

    @property
    def step(self) -> int:
        """Gradient steps taken."""
        return self._step

    @property
    def total_steps(self) -> int:
        """Gradient steps of the whole run, polishing included."""
        return self.settings.steps + self.settings.polish_steps

    @property
    def _rollouts_from(self) -> int:
        """The step from which on roll-outs are trained."""
        return self.settings.steps + self.settings.polish_first_steps

    @property
    def scale_squared(self) -> float | None:
        """s^2 of the robust error at the current step, None with the squared error."""
        s = self.settings
        if not s.robust:
            return None
        annealed = geometric(self._annealing_done, s.first_scale, s.last_scale, s.scale_share)
        return max(annealed, min(s.first_scale, self.residual_scale.value))

    @property
    def _annealing_done(self) -> float:
        """How far the temperature of a heat bath and s^2 have come."""
        return min(1.0, self._step / self.settings.steps) if self._start is None else 1.0

    @property
    def _temperature_factor(self) -> float:
        """Temperature of a heat bath, in units of the spread of a receiver's scores."""
        s = self.settings
        return linear_floor(self._annealing_done, s.first_temperature, s.last_temperature, s.temperature_share)

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
        graph = systems.graph
        self._set_change_scale(systems)
        if self.settings.linear_start and self._start is None:
            start_linearly(self.library, systems)
        # The authors' first temperature, in the units of this run's energies.
        first = math.exp(-9.8) * float(self.error_measure().weight.mean())
        self.acceptance = AcceptanceTemperature(first, device=graph.device)
        self.residual_temperature = ResidualTemperature(device=graph.device)
        types = self._draws.first_types(graph, self.coupling)
        self.structures = Structures.undecided(*types, self.library.edge_types)
        self.imitation = make_imitation(self.settings, self.library, systems, self.seed)
        if resume and checkpoints is not None:
            found = checkpoints.latest(lambda message: tqdm.write(message, file=sys.stderr))
            if found is not None:
                self._restore(*found, systems)
        if self._step == 0 and self._start is not None and self._draws.holds_edges(graph):
            self._settle(systems)
        saved = time.monotonic()
        bar = tqdm(
            total=self.total_steps, initial=self._step, desc="training", disable=None if progress else True, unit="step"
        )
        with bar, one_torch_thread():
            while self._step < self.total_steps:
                if self._step == self.settings.steps:
                    self._settle(systems)
                    self._start_polishing(systems)
                if self._step == self._rollouts_from > self.settings.steps:
                    self._keep_first_step()
                self._one_step(systems)
                bar.update()
                if self._step % 20 == 0 and self.history.loss:
                    bar.set_postfix(loss=f"{self.history.loss[-1]:.4g}", refresh=False)
                if on_step is not None:
                    on_step(self)
                if checkpoints is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    checkpoints.save(self._step, *self._state(systems))
                    saved = time.monotonic()
            self._look_at_skips()
            if not self.settings.polish_steps:
                self._settle(systems)
        if checkpoints is not None:
            checkpoints.save(self._step, *self._state(systems))
        return self

    # One step -------------------------------------------------------------------------------------------------------

    def _one_step(self, systems: SystemSet) -> None:
        batch, last_of_epoch = self._draws.batch(systems, self._step)
        polishing = self._step >= self.settings.steps
        parameters = self._weights.kernel()
        with torch.no_grad():
            result = (self._polish if polishing else self._bounce)(systems, batch, parameters)
        rate = self._learning_rate()
        self._apply(result, rate)
        if self._step % (MOST_SKIPPED if batch.states.is_cuda else 1) == 0:
            self._look_at_skips()
        if self.imitation is not None:
            assert self.structures is not None
            types = self.structures.edge_types[batch.edges], self.structures.node_types[batch.nodes]
            self.imitation.step(batch, systems.steps, *types, self._step)
        if last_of_epoch and result.counts is not None and self.settings.temperature_rule == "acceptance":
            unit = torch.ones_like(result.loss) if self.settings.robust else result.loss.abs()
            self.acceptance.update(HIGHEST_TEMPERATURE * unit.double())
        if self.settings.rate_rule == "plateau" and not polishing:
            self._epoch_losses.append(result.loss)
            if last_of_epoch:
                losses = torch.stack(self._epoch_losses).double()
                finite = torch.isfinite(losses)
                mean = float(torch.where(finite, losses, 0.0).sum() / finite.sum())
                self.plateau.update(mean if math.isfinite(mean) else math.inf)
                self._epoch_losses = []
        self._record(result, rate)
        if self.settings.robust and not polishing and self._step % RESIDUALS_EVERY == 0:
            self._follow_residuals(systems, batch, parameters)
        self._step += 1

    def _bounce(self, systems: SystemSet, batch: Batch, parameters: Tensor) -> BounceResult:
        assert self.structures is not None
        s, error = self.settings, self.error_measure()
        if s.bounce == "metropolis":
            temperature = self._chain_temperature(systems)
            by_acceptance = self.acceptance if temperature is None else None
            rollouts = tied_rollouts(self.library, parameters, batch, systems.steps, s.rollout, error, self.coupling)
            draws = ops.Draws(self.seed, self._step * s.proposals, rollouts.names)
            network = None if self.imitation is None else self.imitation.network
            types = self.structures.edge_types[batch.edges], self.structures.node_types[batch.nodes]
            factor = self._temperature_factor
            proposer = make_proposer(s, network, rollouts, *types, factor)
            hastings = s.rule == "hastings"
            result = metropolis_bounce(
                rollouts, self.structures, draws, s.proposals, temperature, by_acceptance, proposer, hastings
            )
            if s.temperature_rule == "residuals":
                types = self.structures.edge_types[batch.edges], self.structures.node_types[batch.nodes]
                self.residual_temperature.update(result.loss.double(), residual_autocorrelation(rollouts, *types))
            return result
        start = self._draws.transitions(batch, systems.steps, self._step)
        free = self._draws.free_edges(batch, self._step)
        held = None if free is None else self.structures.beliefs[batch.edges]
        rows = HeatBathRows(self.library, batch, systems.steps, start, error, free, held)
        draw, sample = ops.Draws(self.seed, self._step, batch.systems), s.bounce == "sampled"
        factor = self._temperature_factor
        return heat_bath_bounce(parameters, batch, self.structures, rows, self.coupling, draw, factor, sample)

    def _start_polishing(self, systems: SystemSet) -> None:
        """Forecasts get modules of their own: those that judge structures stay as they are."""
        s = self.settings
        if s.polish_substeps > 1:
            self.forecaster = short_step_library(
                self.library, systems, s.polish_substeps, s.polish_positions, self.seed
            )
        else:
            self.forecaster = self.library.with_positions() if s.polish_positions else copy.deepcopy(self.library)
        self._weights, self._optimiser = _learner(self.forecaster, s.polish_rate)

    def _keep_first_step(self) -> None:
        """What is right at one step stays; a copy learns roll-outs."""
        self.first_step, self.forecaster = self.forecaster, copy.deepcopy(self.forecaster)
        self._weights, self._optimiser = _learner(self.forecaster, self.settings.polish_rate)

    def _chain_temperature(self, systems: SystemSet) -> Tensor | None:
        """[1] float64, of this step's Metropolis bounce, in units of the energy; None: acceptance drives it."""
        s = self.settings
        if s.temperature_rule == "acceptance":
            return None
        if s.temperature_rule == "geometric":
            unit = 1.0 if s.robust else self._change_variance
            value = geometric(self._step / s.steps, *GEOMETRIC, 1.0) * unit
            return torch.full((1,), value, dtype=torch.float64, device=systems.states.device)
        transitions = self._transitions(systems)
        from_residuals = self.residual_temperature.value(transitions, systems.features, s.robust)
        return torch.where(from_residuals.isnan(), self.acceptance.state[:1], from_residuals)

    def _transitions(self, systems: SystemSet) -> int:
        """That a structure's roll-out energy is the mean of, on average."""
        recordings = min(self.settings.batch, len(systems)) if self.settings.shared else 1
        if systems.present is None:
            return recordings * (systems.steps - 1) * systems.graph.nodes // len(systems)
        counts = compared_predictions(systems.graph, systems.present, systems.steps, self.settings.rollout)
        return max(1, recordings * int(counts.sum()) // len(systems))

    def _polish(self, systems: SystemSet, batch: Batch, parameters: Tensor) -> BounceResult:
        """Squared error: a forecast is to be right on average, what cannot be known included."""
        assert self.structures is not None
        s, steps = self.settings, self._step - self._rollouts_from
        length, rollout = systems.steps, min(s.rollout, systems.steps - 1)
        if s.polish_first_steps:
            rollout = 1 if steps < 0 else horizon(steps / (s.polish_steps - s.polish_first_steps), rollout)
            length = piece_length(systems.steps, rollout)
        if s.polish_substeps > 1:
            return self._polish_short_steps(systems, batch, parameters, rollout)
        start = self._draws.piece_start(batch, systems.steps, systems.steps - length, self._step)
        error = one_step_error(self.forecaster, None, None)
        followed = piece(batch, systems.steps, start, length) if length < systems.steps else batch
        return polish_bounce(Rollouts(self.forecaster, parameters, followed, length, rollout, error), self.structures)

    def _polish_short_steps(self, systems: SystemSet, batch: Batch, parameters: Tensor, reach: int) -> BounceResult:
        """One recorded step at a time: from recorded states first, then from those that forecasts of `reach` steps met.

        A gradient through many short steps is all about the few systems in which it explodes, and unlearns the law.
        What a forecast's later steps should say, the mean over what may happen, they learn without: by meeting the
        states that they are given.
        """
        assert self.structures is not None
        s = self.settings
        if self._step < self._rollouts_from or systems.steps < 3:
            ids, start = self._draws.sudden_transitions(systems, self._step)
            followed = piece(systems.batch(ids), systems.steps, to_device(start, batch.states.device), 2)
            error = one_step_error(self.library, None, None)
        else:
            # As forecasts are examined, all features alike. A law needs positions more exactly, in their own units.
            error = ops.ErrorMeasure((1.0 / (self.library.change_scale**2).mean()).repeat(systems.features))
            followed = self._from_own_states(systems, batch, parameters, min(max(reach, 2), systems.steps - 1))
        states, present, length = spaced(followed.graph, followed.states, followed.present, 2, s.polish_substeps)
        followed = dataclasses.replace(followed, states=states, present=present)
        rollouts = Rollouts(self.forecaster, parameters, followed, length, s.polish_substeps, error)
        return polish_bounce(rollouts, self.structures)

    def _from_own_states(self, systems: SystemSet, batch: Batch, parameters: Tensor, reach: int) -> Batch:
        """Transitions behind the first one of forecasts of `reach` steps, from one random step of every system on."""
        assert self.structures is not None
        start = self._draws.piece_start(batch, systems.steps, systems.steps - 1 - reach, self._step)
        later = self.forecaster, parameters
        first = later if self.first_step is None else (self.first_step, self.first_step.flat_parameters())
        modules = [first, *[later] * (reach - 2)]
        types = self.structures.edge_types[batch.edges], self.structures.node_types[batch.nodes]
        return from_own_states(systems, batch, start, modules, self.settings.polish_substeps, *types)

    def _follow_residuals(self, systems: SystemSet, batch: Batch, parameters: Tensor) -> None:
        """Predictions of the batch's structures from one random step of every system."""
        assert self.structures is not None
        s = self.settings
        horizon = s.rollout if s.bounce == "metropolis" else 1
        start = self._draws.residual_start(batch, systems.steps, systems.steps - 1 - horizon, self._step)
        types = self.structures.edge_types[batch.edges], self.structures.node_types[batch.nodes]
        with torch.no_grad():
            weight = self.error_measure().weight
            errors = residuals(self.library, parameters, batch, systems.steps, start, horizon, *types, weight)
        if len(errors):  # nothing is compared where everybody leaves too soon
            self.residual_scale.update(errors)

    def _settle(self, systems: SystemSet) -> None:
        """Gives every training system the best structure under the modules as they are, by all of its transitions.

        A Metropolis run keeps the structures that its chain has reached.
        """
        assert self.structures is not None
        if self.settings.bounce != "metropolis":
            found = heat_bath_search(
                self.library, systems, self.error_measure(), temperature=0.0, seed=self.seed, coupling=self.coupling
            )
            self.structures = Structures.settled(found.edge_types, found.node_types, self.library.edge_types)

    def error_measure(self) -> ops.ErrorMeasure:
        """The error by which structures are judged at the current step."""
        return one_step_error(self.library, self._judged, self.scale_squared, self.feature_weights)

    def _apply(self, result: BounceResult, rate: float) -> None:
        """Takes the gradient step unless loss or gradient are not finite, which only the device needs to know."""
        finite = torch.isfinite(result.gradient).all() & torch.isfinite(result.loss)
        self._weights.take_gradient(result.gradient)
        torch.nn.utils.clip_grad_norm_([self._weights.weights], self.settings.clip, foreach=True)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        # Fused optimisers leave everything as it is where this is one: what torch's gradient scaler uses.
        self._optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self._optimiser.step()
        self._skips.count(~finite)

    def _look_at_skips(self) -> None:
        longest = self._skips.longest
        if longest > MOST_SKIPPED:
            raise DivergedError(
                f"training diverged: the last {longest} gradients, up to step {self._step}, were not finite. Lower the "
                "learning rate, shorten the roll-out, or look at the data's scale"
            )

    @property
    def skipped(self) -> int:
        """See the class."""
        return self._skips.total

    def _learning_rate(self) -> float:
        s = self.settings
        if self._step < s.steps and s.rate_rule == "plateau":
            return self.plateau.rate
        if self._step < s.steps:
            return one_cycle(self._step, s.steps, s.learning_rate)
        if self._step < self._rollouts_from:
            return one_cycle(self._step - s.steps, s.polish_first_steps, s.polish_rate)
        peak = s.polish_rate if s.polish_substeps == 1 else LATER_RATE * s.polish_rate
        return one_cycle(self._step - self._rollouts_from, s.polish_steps - s.polish_first_steps, peak)

    # State ----------------------------------------------------------------------------------------------------------

    def _set_change_scale(self, systems: SystemSet) -> None:
        """One step's change has standard deviation 1 in the modules' units, if the settings want that.

        Modules that come from another run keep the units that they were trained in.
        """
        deviation = systems.change_deviation()
        # A feature that never changes is predicted perfectly by any scale.
        if self.settings.scaled and self._start is None:
            self.library.change_scale.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))
        elif not self.settings.scaled:
            self.library.change_scale.fill_(1.0)
            self._change_variance = float((deviation**2).mean())

    def _record(self, result: BounceResult, rate: float) -> None:
        every = max(1, self.total_steps // 1000)
        if self._step % every:
            return
        h = self.history
        h.step.append(self._step)
        h.loss.append(float(result.loss))
        h.temperature.append(float(result.temperature))
        h.scale_squared.append(self.scale_squared or 0.0)
        h.learning_rate.append(rate)
        counts = result.counts
        if self.imitation is not None:
            h.network_loss.append(self.imitation.loss)
            h.network_information.append(self.imitation.information)
            h.network_restarts.append(self.imitation.restarts)
        h.accepted.append(0.0 if counts is None else float(counts[:, 1].sum()) / max(1, int(counts[:, 0].sum())))

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
        assert self.structures is not None
        tensors = {f"library.{name}": value for name, value in self.library.state_dict().items()}
        if self.forecaster is not self.library:
            tensors |= {f"forecaster.{name}": value for name, value in self.forecaster.state_dict().items()}
        if self.first_step is not None:
            tensors |= {f"first_step.{name}": value for name, value in self.first_step.state_dict().items()}
        for i, slot in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": torch.as_tensor(value) for name, value in slot.items()}
        tensors["structures.edge_types"] = self.structures.edge_types
        tensors["structures.node_types"] = self.structures.node_types
        tensors["structures.beliefs"] = self.structures.beliefs
        facts = self._facts(systems) | {
            "acceptance": self.acceptance.to_dict(),
            "residual_temperature": self.residual_temperature.to_dict(),
            "plateau": vars(self.plateau),
            "epoch_losses": [float(loss) for loss in self._epoch_losses],
            "residual_scale": self.residual_scale.log_median if self.settings.robust else None,
            "skipped": self._skips.to_list(),
            "history": self.history.to_dict(),
        }
        if self.imitation is not None:
            network, imitation = self.imitation.state()
            tensors |= network
            facts["imitation"] = imitation
        return tensors, facts

    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, Any], systems: SystemSet) -> None:
        assert self.structures is not None
        for name, value in self._facts(systems).items():
            if facts.get(name) != (list(value) if isinstance(value, tuple) else _as_json(value)):
                raise CheckpointError(
                    f"checkpoint: {name} differs from this run's: {facts.get(name)}, expected {value}"
                )
        library, forecaster, first_step = (
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            for prefix in ("library.", "forecaster.", "first_step.")
        )
        self.library.load_state_dict(library)
        if forecaster:
            self._start_polishing(systems)
            self.forecaster.load_state_dict(first_step or forecaster)
        if first_step:
            self._keep_first_step()
            self.forecaster.load_state_dict(forecaster)
        device = systems.states.device
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, i, slot = name.split(".")
                state.setdefault(int(i), {})[slot] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.structures = Structures(
            *(tensors[f"structures.{name}"].to(device) for name in ("edge_types", "node_types", "beliefs"))
        )
        self.acceptance = AcceptanceTemperature(**facts["acceptance"], device=device)
        self.residual_temperature = ResidualTemperature(**facts["residual_temperature"], device=device)
        self.plateau = Plateau(**facts["plateau"])
        self._epoch_losses = [systems.states.new_tensor(loss) for loss in facts["epoch_losses"]]
        if facts["residual_scale"] is not None:
            self.residual_scale = ResidualScale(facts["residual_scale"])
        if self.imitation is not None:
            self.imitation.restore(tensors, facts["imitation"])
        self._skips = Skips(device, *facts["skipped"])
        self.history = History(**facts["history"])
        self._step = facts["step"]


def _learner(library: ModuleLibrary, rate: float) -> tuple[ParameterVector, torch.optim.Adam]:
    """A library's weights, and who changes them."""
    weights = ParameterVector(library)
    return weights, torch.optim.Adam([weights.weights], lr=rate, fused=True)


def _as_json(value: Any) -> Any:
    """The value as it comes back from JSON: tuples as lists."""
    if isinstance(value, dict):
        return {name: _as_json(v) for name, v in value.items()}
    return [_as_json(v) for v in value] if isinstance(value, list | tuple) else value
