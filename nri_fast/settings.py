"""Settings of a training run, and the presets that bundle them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

Bounce = Literal["soft", "sampled", "metropolis"]
Proposal = Literal["random", "edge", "node", "flip", "system"]
ProposalSource = Literal["network", "heat_bath", "both"]
Rule = Literal["hastings", "plain"]
TemperatureRule = Literal["acceptance", "residuals", "geometric"]
RateRule = Literal["one_cycle", "plateau"]
NetworkKind = Literal["none", "mlp", "cnn", "structure", "mlp+structure", "cnn+structure"]
NetworkOptimiser = Literal["adam", "sgd"]
Search = Literal["heat_bath", "annealing", "network", "learned", "combined"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run does, beside its data and its seed.

    Attributes
    ----------
    edge_types, node_types : int
        Numbers of types to tell apart.
    message : int
        Width of a message.
    edge_hidden, node_hidden : tuple of int
        Hidden widths of the modules.
    relative : tuple of str
        Features, by name, that count only relative to the receiver (see ModuleLibrary). Names that the data lacks are
        ignored.
    judged : tuple of str
        Features, by name, whose one-step prediction judges structures; all if empty. Where some of the features follow
        from an entity's own state, whoever acts on it, they would drown the others. Roll-outs are judged by all.
    silent : bool
        Edge type 0 means "no interaction".
    bounce : {"soft", "sampled", "metropolis"}
        How structures are searched: heat bath weighing every assignment, heat bath drawing one, or the paper's
        Metropolis chain on roll-out energies.
    undirected : bool
        Both directions of a pair have one type.
    shared : bool
        All systems are recordings of one structure. A Metropolis bounce judges it by a batch of them at a time.
    neighbours : int or None
        Candidate senders of an entity: that many nearest ones, by the mean distance through a recording; None: all.
        Others never interact with it: their edges are of the silent type 0.
    radius : float or None
        Largest mean distance of a candidate sender, in recorded units; None: any.
    block : int
        Heat bath: most assignments of a receiver's incoming edges that are weighed jointly. Where there are more, every
        step frees a random choice of edges and holds the others.
    steps : int
        Gradient steps.
    batch : int
        Systems per gradient step.
    transitions : int
        Heat bath: random one-step transitions of each system per step.
    rollout : int
        Metropolis: steps that a roll-out takes between recorded states (R).
    proposals : int
        Metropolis: proposals per system and gradient step (the paper: 1).
    robust : bool
        Robust error ``log(s^2 + e)`` per transition instead of the squared error. Features weigh less in it the
        noisier they are recorded (:mod:`nri_fast.observation_noise`).
    first_scale, last_scale : float
        s^2, in units of the variance of one step's change: annealed geometrically from the first to the last over the
        first `scale_share` of training, but never below the median of the errors that are still made.
    scale_share : float
        See above.
    first_temperature, last_temperature : float
        Heat bath: temperature in units of the spread of a receiver's scores, falling linearly over the first
        `temperature_share` of training.
    temperature_share : float
        See above.
    learning_rate : float
        Peak of a one-cycle schedule of Adam.
    clip : float
        Largest norm of the gradient.
    polish_steps : int
        Gradient steps behind the bounces that train a copy of the modules, for forecasts, on roll-outs of `rollout`
        steps under the structures found.
    polish_first_share : float
        Share of those that is spent on modules for a forecast's first step; a copy of them then learns roll-outs, which
        start anywhere and grow. Zero: the first step is like the others.
    polish_rate : float
        Peak learning rate of those.
    polish_positions : bool
        The copy sees `relative` features as they are: walls can be learned, from enough systems.
    polish_substeps : int
        Steps that forecasts take from one recorded state to the next. Above 1 they are made with new modules, not with
        a copy, which learn one recorded step at a time: sudden changes more often in the share `polish_first_share`,
        and behind it from the states that forecasts come to (:mod:`nri_fast.substeps`).
    proposal : {"random", "edge", "node", "flip", "system"}
        Metropolis: what a proposal changes. "random": one random edge or entity, to a random other type. The others
        draw from probabilities: one edge ("edge"), all incoming edges of one entity ("node"), the same with the current
        types left out ("flip"), or everything ("system").
    proposal_source : {"network", "heat_bath", "both"}
        Whose probabilities: a proposal network's, those of the one-step heat bath, or the mean of both.
    temperature_rule : {"acceptance", "residuals", "geometric"}
        Metropolis: the temperature follows the share of worsening moves accepted (the paper), or the training loss and
        the residuals' autocorrelation, so that the chain samples the posterior; or it falls geometrically, from a tenth
        to 1e-5 of the variance of one step's change (of robust energies: from 0.1 to 1e-5).
    rule : {"hastings", "plain"}
        Metropolis: acceptance carries how likely the proposal is there and back, so that the chain samples from the
        Boltzmann distribution; or the paper's plain rule, which does not.
    network : {"none", "mlp", "cnn", "structure", "mlp+structure", "cnn+structure"}
        Proposal network that learns to imitate the structures, under any bounce: it sees the recordings (MLP: of the
        training systems' length; CNN: of any length), the rest of the structure, or both in turn.
    network_hidden : int
        Its width.
    network_dropout : float
        Share of its units left out while it learns.
    network_optimiser : {"adam", "sgd"}
        SGD with momentum 0.9 is the paper's.
    network_rate : float
        Its learning rate.
    rate_rule : {"one_cycle", "plateau"}
        The modules' learning rate rises and falls once, or is the authors': halved where the loss of epochs stops
        falling.
    linear_start : bool
        Node modules begin with the best linear prediction of an entity's change from its own state, instead of random
        weights (see :mod:`nri_fast.linear_start`).
    scaled : bool
        Errors and predicted changes are in units of one step's change. Without, as the authors have it, in the units of
        the normalised states.
    """

    edge_types: int = 2
    node_types: int = 1
    message: int = 32
    edge_hidden: tuple[int, ...] = (32,)
    node_hidden: tuple[int, ...] = (32, 32)
    relative: tuple[str, ...] = ("x", "y", "z")
    judged: tuple[str, ...] = ()
    silent: bool = False
    bounce: Bounce = "soft"
    undirected: bool = False
    shared: bool = False
    neighbours: int | None = None
    radius: float | None = None
    block: int = 4096
    steps: int = 1000
    batch: int = 25
    transitions: int = 12
    rollout: int = 10
    proposals: int = 1
    robust: bool = True
    first_scale: float = 0.3
    last_scale: float = 1e-6
    scale_share: float = 0.6
    first_temperature: float = 0.3
    last_temperature: float = 0.021
    temperature_share: float = 0.7
    learning_rate: float = 3e-3
    clip: float = 1.0
    polish_steps: int = 0
    polish_first_share: float = 0.0
    polish_rate: float = 2e-3
    polish_positions: bool = False
    polish_substeps: int = 1
    proposal: Proposal = "random"
    proposal_source: ProposalSource = "network"
    temperature_rule: TemperatureRule = "acceptance"
    rule: Rule = "hastings"
    network: NetworkKind = "none"
    network_hidden: int = 128
    network_dropout: float = 0.0
    network_optimiser: NetworkOptimiser = "adam"
    network_rate: float = 1e-3
    rate_rule: RateRule = "one_cycle"
    linear_start: bool = False
    scaled: bool = True

    def __post_init__(self) -> None:
        """Checks the values."""
        whole = (
            "edge_types",
            "node_types",
            "message",
            "steps",
            "batch",
            "transitions",
            "rollout",
            "proposals",
            "block",
            "polish_substeps",
        )
        for name, least in [*((name, 1) for name in whole), ("polish_steps", 0)]:
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected a whole number, at least {least}, got {value}")
        for name in ("first_scale", "last_scale", "learning_rate", "polish_rate", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if not 0 <= self.polish_first_share < 1:
            raise ValueError(f"polish_first_share: expected 0 to below 1, got {self.polish_first_share}")
        for name in ("scale_share", "temperature_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share above 0 and up to 1, got {getattr(self, name)}")
        for name in ("first_temperature", "last_temperature"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a number, at least 0, got {getattr(self, name)}")
        if self.bounce not in ("soft", "sampled", "metropolis"):
            raise ValueError(f"bounce: expected soft, sampled or metropolis, got {self.bounce!r}")
        if self.neighbours is not None and (not isinstance(self.neighbours, int) or self.neighbours < 1):
            raise ValueError(f"neighbours: expected a whole number, at least 1, or None, got {self.neighbours}")
        if self.radius is not None and not 0 < self.radius < float("inf"):
            raise ValueError(f"radius: expected a positive number, or None, got {self.radius}")
        if self.neighbours is not None or self.radius is not None:
            if not self.silent and self.edge_types > 1:
                raise ValueError(
                    "neighbours, radius: need silent, which is what entities far apart are, got silent=False"
                )
            if self.shared:
                raise ValueError("neighbours, radius: expected None with shared structures, recordings of one graph")
        self._check_proposals()

    def _check_proposals(self) -> None:
        for name, kind in (
            ("proposal", Proposal),
            ("proposal_source", ProposalSource),
            ("temperature_rule", TemperatureRule),
            ("rule", Rule),
            ("rate_rule", RateRule),
            ("network", NetworkKind),
            ("network_optimiser", NetworkOptimiser),
        ):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}: expected one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if not isinstance(self.network_hidden, int) or self.network_hidden < 1:
            raise ValueError(f"network_hidden: expected a whole number, at least 1, got {self.network_hidden}")
        if not 0 < self.network_rate < float("inf"):
            raise ValueError(f"network_rate: expected a positive number, got {self.network_rate}")
        if not 0 <= self.network_dropout < 1:
            raise ValueError(f"network_dropout: expected a share from 0 to below 1, got {self.network_dropout}")
        if self.proposal != "random" and self.bounce != "metropolis":
            raise ValueError(f"proposal: {self.proposal!r} needs bounce 'metropolis', got {self.bounce!r}")
        if self.proposal != "random" and self.proposal_source != "heat_bath" and self.network == "none":
            raise ValueError(
                f"proposal_source: {self.proposal_source!r} needs a network (mlp, cnn, structure, ...), got 'none'"
            )

    def judged_places(self, feature_names: tuple[str, ...]) -> list[int]:
        """Places of the judged features among those of the data."""
        if not self.judged:
            return list(range(len(feature_names)))
        missing = [name for name in self.judged if name not in feature_names]
        if missing:
            raise ValueError(f"judged: expected features of the data, {', '.join(feature_names)}; got {missing}")
        return [feature_names.index(name) for name in self.judged]

    @property
    def polish_first_steps(self) -> int:
        """Gradient steps on modules for a forecast's first step; zero: it has none of its own."""
        return int(self.polish_first_share * self.polish_steps)

    @property
    def forecast_substeps(self) -> int:
        """Steps of the forecaster's modules for each recorded one."""
        return self.polish_substeps if self.polish_steps else 1

    @property
    def least_steps(self) -> int:
        """Steps that a recording must have to be trained on."""
        return self.rollout + 1 if self.bounce == "metropolis" else 2

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The inverse of :meth:`to_dict`; unknown names are errors, missing ones, of older versions, take defaults."""
        odd = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if odd:
            raise ValueError(f"settings: unknown names {odd}")
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**plain)


_WIDE: dict[str, Any] = {"message": 64, "edge_hidden": (64,), "node_hidden": (64, 64), "learning_rate": 0.01}

#: What `train --preset NAME` uses. Reasons and figures: docs/presets.md.
PRESETS: dict[str, Settings] = {
    "own": Settings(**_WIDE, relative=(), steps=600, polish_steps=200),
    "springs": Settings(polish_steps=300),
    "springs10": Settings(batch=10, transitions=6, steps=2000, polish_steps=300),
    "charged": Settings(
        **_WIDE,
        undirected=True,
        batch=50,
        steps=10_000,
        temperature_share=0.5,
        polish_steps=5000,
        polish_first_share=0.3,
        polish_rate=8e-3,
        polish_positions=True,
    ),
    "kuramoto": Settings(
        judged=("dphi",), undirected=True, batch=50, steps=3000, learning_rate=0.01, polish_steps=1000
    ),
    "metropolis": Settings(
        message=64,
        edge_hidden=(64,),
        node_hidden=(64, 64),
        bounce="metropolis",
        robust=False,
        batch=50,
        steps=4000,
        learning_rate=1e-3,
    ),
    "fmml": Settings(
        message=256,
        edge_hidden=(256, 256),
        node_hidden=(256, 256, 256),
        relative=(),
        bounce="metropolis",
        robust=False,
        scaled=False,
        batch=128,
        steps=1_564_000,
        rollout=10,
        learning_rate=0.01,
        rate_rule="plateau",
        clip=1e9,
        proposal="edge",
        rule="plain",
        network="mlp",
        network_hidden=512,
        network_dropout=0.5,
        network_optimiser="sgd",
        network_rate=1e-3,
    ),
}


def settings_of(preset: str, settings: Settings | None = None) -> Settings:
    """The settings, or those of the preset where there are none.

    Raises
    ------
    ValueError
        There is no preset of this name.
    """
    if settings is not None:
        return settings
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    return PRESETS[preset]
