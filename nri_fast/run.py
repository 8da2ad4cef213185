"""A run: what training leaves behind, in memory and as a folder, and what can be done with it."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.bouncegrad import BounceGrad
from nri_fast.checkpoint import CheckpointError, Checkpoints, load, save, write_atomically
from nri_fast.energies import one_step_error
from nri_fast.history import History
from nri_fast.metrics import displacement_fit
from nri_fast.modules import ModuleLibrary
from nri_fast.neighbours import candidates
from nri_fast.normalisation import Normalisation
from nri_fast.observation_noise import feature_weights, noise_share
from nri_fast.proposals.network import ProposalNetwork
from nri_fast.record import write_made
from nri_fast.settings import Settings, settings_of
from nri_fast.system_set import SystemSet
from nri_fast.tensorboard_log import logged, summary_writer
from nri_fast.trajectory_data import TrajectoryData
from nri_fast.warm_start import WarmStart, origin

RUN_FILE = "run.json"
LIBRARY_FILE = "library.safetensors"
NETWORK_FILE = "network.safetensors"
FORECASTER_FILE = "forecaster.safetensors"
FIRST_STEP_FILE = "first_step.safetensors"
HISTORY_FILE = "history.json"
FORMAT = 2
SAME_TIME_STEP = 1e-4  # relative; times in files are rounded


@dataclass
class Run:
    """A trained library with all that its use needs.

    Attributes
    ----------
    library : ModuleLibrary
        The modules that structures are judged by.
    forecaster : ModuleLibrary
        The modules that forecasts are made with: a polished copy of them, or the same.
    normalisation : Normalisation
        Learned on the training split; maps recorded units to the modules'.
    settings : Settings
        What training did.
    seed : int
        Of the run.
    trained_on : dict
        Name, split, systems, steps and features of the training data.
    scale_squared : float or None
        s^2 that the robust error ended with; None with the squared error.
    feature_weights : tuple of float
        Of the judged features in the error that judges structures; empty: all alike.
    history : History
        Training curves.
    displacement_fit : dict
        Of the training data, for the constant-velocity baseline (see :func:`nri_fast.metrics.displacement_fit`).
    network : ProposalNetwork or None
        The proposal network, if the settings asked for one.
    started_from : dict or None
        The run whose modules training began with: its seed, training data and steps, a digest of the modules, and its
        own start. None: random weights.
    first_step : ModuleLibrary or None
        The modules that a forecast's first step is made with, if the settings asked for some.
    starts : list of dict or None
        The starts that this run is the best of, each with its ``seed`` and its ``error`` (see
        :func:`nri_fast.train_starts`). None: it was the only one.
    time_step : float or None
        Time between two steps that the modules are made for: the training systems' (the median, if they differ). None:
        not known.
    """

    library: ModuleLibrary
    forecaster: ModuleLibrary
    normalisation: Normalisation
    settings: Settings
    seed: int
    trained_on: dict[str, Any]
    scale_squared: float | None
    feature_weights: tuple[float, ...] = ()
    history: History = field(default_factory=History)
    displacement_fit: dict[str, tuple[float, float]] = field(default_factory=dict)
    network: ProposalNetwork | None = None
    started_from: dict[str, Any] | None = None
    first_step: ModuleLibrary | None = None
    time_step: float | None = None
    starts: list[dict[str, Any]] | None = None

    @property
    def device(self) -> torch.device:
        """Where the modules live."""
        return self.library.change_scale.device

    @property
    def whole_steps(self) -> ModuleLibrary:
        """The best modules at forecasts of those that take one step from a recorded state to the next."""
        return self.forecaster if self.settings.forecast_substeps == 1 else self.library

    def error_measure(self) -> ops.ErrorMeasure:
        """The error that training ended with."""
        judged = self.settings.judged_places(self.normalisation.feature_names)
        return one_step_error(self.library, judged, self.scale_squared, self.feature_weights)

    def systems(self, data: TrajectoryData) -> SystemSet:
        """The data in the run's units, on its device."""
        return systems_of(data, self.padded_states(data), self.step_scale(data), candidates(data, self.settings))

    def step_scale(self, data: TrajectoryData) -> Tensor | None:
        """[systems] float32 time steps over the run's; None if they are the same, or not known."""
        return step_scale(data, self.time_step)

    def states(self, data: TrajectoryData) -> Tensor:
        """[systems, steps, N, D] float32 states in the run's units, on its device.

        Raises
        ------
        ValueError
            The features are not those of the run, the systems are of different sizes, or states are absent.
        """
        if data.present is not None:
            raise ValueError("data: expected recordings of one length without holes here, got some with absent states")
        if data.sizes is not None:
            raise ValueError(
                "data: expected systems of one size here, "
                f"got {int(data.sizes.min())} to {int(data.sizes.max())} entities"
            )
        return self.padded_states(data)

    def padded_states(self, data: TrajectoryData) -> Tensor:
        """The same of systems that may differ in size, with holes; what stands where nothing is means nothing."""
        if data.feature_names != self.normalisation.feature_names:
            raise ValueError(
                f"data: features {data.feature_names}, but the run was trained on {self.normalisation.feature_names}"
            )
        return self.normalisation.apply(data.states).to(self.device)

    def save(self, folder: Path) -> None:
        """Writes the run's files; each is replaced as a whole."""
        folder.mkdir(parents=True, exist_ok=True)
        libraries = {LIBRARY_FILE: self.library, FORECASTER_FILE: self.forecaster, FIRST_STEP_FILE: self.first_step}
        for file, library in libraries.items():
            if library is not None:
                save(folder / file, library.state_dict(), {"library": library.settings()})
        if self.network is not None:
            save(folder / NETWORK_FILE, self.network.state_dict(), {"network": self.network.settings()})
        _write_json(folder / HISTORY_FILE, self.history.to_dict())
        facts = {
            "format": FORMAT,
            "settings": self.settings.to_dict(),
            "normalisation": self.normalisation.to_dict(),
            "seed": self.seed,
            "trained_on": self.trained_on,
            "scale_squared": self.scale_squared,
            "feature_weights": self.feature_weights,
            "displacement_fit": self.displacement_fit,
        }
        if self.started_from is not None:
            facts["started_from"] = self.started_from
        if self.starts is not None:
            facts["starts"] = self.starts
        if self.time_step is not None:
            facts["time_step"] = self.time_step
        _write_json(folder / RUN_FILE, facts)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> Run:
        """Reads a run's folder.

        Raises
        ------
        CheckpointError
            Naming the file that is missing or damaged.
        """
        path = Path(folder)
        facts = _read_json(path / RUN_FILE)
        try:
            if facts["format"] != FORMAT:
                raise CheckpointError(f"{path / RUN_FILE}: format {facts['format']}, expected {FORMAT}")
            settings = Settings.from_dict(facts["settings"])
            normalisation = Normalisation.from_dict(facts["normalisation"])
            library, forecaster = (_load_library(path / file, device) for file in (LIBRARY_FILE, FORECASTER_FILE))
            history = History(**_read_json(path / HISTORY_FILE))
            fit = {name: (float(a), float(b)) for name, (a, b) in facts["displacement_fit"].items()}
            scale = float(facts["scale_squared"]) if settings.robust else None
            network = None if settings.network == "none" else load_network(path / NETWORK_FILE).to(device)
            return cls(
                library,
                forecaster,
                normalisation,
                settings,
                facts["seed"],
                facts["trained_on"],
                scale,
                _weights(facts["feature_weights"], settings, normalisation),
                history,
                fit,
                network,
                facts.get("started_from"),
                _load_library(path / FIRST_STEP_FILE, device) if settings.polish_first_steps else None,
                None if facts.get("time_step") is None else float(facts["time_step"]),
                facts.get("starts"),
            )
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path}: damaged or not a run of nri_fast ({error})") from error


def train(
    data: TrajectoryData,
    preset: str = "springs",
    settings: Settings | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    on_step: Callable[[BounceGrad], None] | None = None,
    start: Run | None = None,
    tensorboard: bool = False,
) -> Run:
    """Learns modules and structures from trajectories alone; labels in the data are never looked at.

    Parameters
    ----------
    data : TrajectoryData
        Training systems, in the units they were recorded in.
    preset : str
        Name in :data:`nri_fast.settings.PRESETS`; used if `settings` is not given.
    settings : Settings, optional
        What to do instead.
    seed : int
        Names every random draw, initial weights included.
    device : torch.device or str
        Where to train.
    out : path, optional
        Folder of the run: checkpoints meanwhile, the run at the end. It must not exist, unless `resume`.
    resume : bool
        Continue the run in `out`, to the same bits that it would have reached undisturbed.
    progress : bool
        Show a progress bar on terminals.
    on_step : callable, optional
        Called with the BounceGrad object after every step.
    start : Run, optional
        Begin with this run's modules instead of random weights, in its normalisation, and as cold as it ended: systems
        of another size, or more of them. Its proposal network and its forecaster are not taken over. To resume, pass
        the same again.
    tensorboard : bool
        Write the curves, while it trains, to the folder ``tensorboard`` in `out` too. A run that has that folder goes
        on writing when it is resumed.

    Returns
    -------
    Run

    Raises
    ------
    FileExistsError
        If `out` exists, is not empty, and `resume` is not set.
    ImportError
        If `tensorboard` is set and its package is not installed.
    ValueError, DivergedError, CheckpointError
        As :meth:`BounceGrad.fit`; ValueError, too, if `start` has other modules than the settings ask for, or the data
        other features.
    """
    if tensorboard and out is None:
        raise ValueError("tensorboard: expected `out`, the folder of the run, got None")
    if tensorboard:
        summary_writer()  # missing: known before anything is made
    settings = settings_of(preset, settings)
    warm = None if start is None else WarmStart.of(start, settings, data.feature_names)
    folder = None if out is None else claim(Path(out), resume)
    began = time.monotonic()
    normalisation = Normalisation.learn(data) if start is None else start.normalisation
    states = normalisation.apply(data.states)
    relative = [d for d, name in enumerate(data.feature_names) if name in settings.relative]
    library = initial_library(data.features, relative, settings, seed) if warm is None else copy.deepcopy(warm.library)
    library = library.to(device)
    judged = settings.judged_places(data.feature_names)
    weights = feature_weights(noise_share(states, data.there)[judged]) if settings.robust else ()
    trainer = BounceGrad(library, settings, seed, judged, warm, weights)
    checkpoints = None if folder is None else Checkpoints(folder / "checkpoints")
    states = states.to(device)
    time_step = reference_time_step(data) if start is None else start.time_step
    systems = systems_of(data, states, step_scale(data, time_step), candidates(data, settings))
    with logged(on_step, folder, tensorboard) as watch:
        trainer.fit(systems, checkpoints, resume, progress, watch)
    trained_on = {
        "name": data.name,
        "split": data.split,
        "systems": data.systems,
        "steps": data.steps,
        "entities": data.entities,
    }
    fit = displacement_fit(states, data.feature_names, data.there.to(states.device), step_scale(data, time_step))
    network = None if trainer.imitation is None else trainer.imitation.network
    scale, history = trainer.scale_squared, trainer.history
    run = Run(
        library,
        trainer.forecaster,
        normalisation,
        settings,
        seed,
        trained_on,
        scale,
        trainer.feature_weights,
        history,
        fit,
        network,
        None if start is None or warm is None else origin(start, warm.digest()),
        trainer.first_step,
        time_step,
    )
    if folder is not None:
        run.save(folder)
        write_made(folder, time.monotonic() - began, str(device), resume)
    return run


def _weights(values: Any, settings: Settings, normalisation: Normalisation) -> tuple[float, ...]:
    weights, judged = tuple(map(float, values)), len(settings.judged_places(normalisation.feature_names))
    if len(weights) not in (0, judged):
        raise ValueError(f"feature_weights: expected {judged} of them, got {len(weights)}")
    return weights


def claim(folder: Path, resume: bool) -> Path:
    """The folder, made if it is not there, for a run to be written into.

    Raises
    ------
    FileExistsError
        It is a file, or it is not empty and `resume` is not set.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: expected a folder, got a file")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: the output folder exists and is not empty; pass another, or resume")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def systems_of(data: TrajectoryData, states: Tensor, scale: Tensor | None, near: Tensor | None) -> SystemSet:
    """The systems of some data: `states` [systems, steps, N, D] in the modules' units, on their device.

    Edges are looked for where `near` [systems, N, N] is true; everywhere, if it is None.
    """
    scale = None if scale is None else scale.to(states.device)
    if near is not None:
        return SystemSet.padded(states, data.members.sum(1), data.present, scale, near)
    if data.sizes is None:
        return SystemSet.complete(states, data.present, scale)
    return SystemSet.padded(states, data.sizes, data.present, scale)


def reference_time_step(data: TrajectoryData) -> float | None:
    """The time step that modules trained on some data are made for: the systems' median; None if it is not known."""
    return None if data.origin is None else float(data.origin.time_step.median())


def step_scale(data: TrajectoryData, reference: float | None) -> Tensor | None:
    """[systems] float32: time steps over the reference; None if all are the same up to rounding, or not known."""
    if data.origin is None or reference is None:
        return None
    scale = data.origin.time_step / reference
    return None if bool(((scale - 1.0).abs() < SAME_TIME_STEP).all()) else scale.float()


def load_network(file: Path) -> ProposalNetwork:
    """Reads a proposal network from a run's folder.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged.
    """
    tensors, facts = load(file)
    network = ProposalNetwork(**facts["network"])
    network.load_state_dict(tensors)
    return network.eval()


def initial_library(features: int, relative: list[int], settings: Settings, seed: int) -> ModuleLibrary:
    """A library with random weights that the seed decides, whatever state torch's generator is in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ModuleLibrary(
            features,
            settings.edge_types,
            settings.node_types,
            settings.message,
            settings.edge_hidden,
            settings.node_hidden,
            relative,
            settings.silent,
        )


def _load_library(file: Path, device: torch.device | str) -> ModuleLibrary:
    tensors, shape = load(file)
    library = ModuleLibrary(**shape["library"])
    library.load_state_dict(tensors)
    return library.to(device)


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; is this the folder of a finished run?") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from error
