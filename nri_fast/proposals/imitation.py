"""Training of the proposal network: it imitates the structures that the search holds, while the search goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nri_fast import ops
from nri_fast.graph import MegaGraph
from nri_fast.proposals.encoders import StateEncoder
from nri_fast.proposals.network import ProposalNetwork
from nri_fast.proposals.seen_part import seen_part
from nri_fast.settings import NetworkOptimiser
from nri_fast.system_set import Batch

SMOOTHING = 0.02  # of the targets: logits stay bounded, and a network that is wrong is not sure
LARGEST_GRADIENT = 1.0
BLURRED = 0.2  # share of the edges that the structure encoder must guess
AVERAGING = 0.02  # of the running tables of what was predicted where
FIRST_WINDOW = 200  # imitation steps between two looks at whether an encoder has collapsed
COLLAPSED = 0.01  # share of the structures' entropy that predictions must tell
DIVERSE = 0.1  # share of the largest entropy that structures must have for that to be asked
RAREST = 0.05  # classes rarer than this weigh no more than this would


@dataclass
class Encountered:
    """Running table of which types were predicted where which types were held.

    Attributes
    ----------
    table : Tensor
        [K, K] float64, rows the types held, columns those predicted; sums to 1 once anything was seen.
    """

    table: Tensor

    @classmethod
    def nothing(cls, types: int) -> Encountered:
        """An empty one."""
        return cls(torch.zeros(types, types, dtype=torch.float64))

    def add(self, held: Tensor, predicted: Tensor) -> None:
        """Takes flat types of equal length."""
        if held.numel() == 0:
            return
        types = self.table.shape[0]
        counts = torch.bincount(held.long() * types + predicted.long(), minlength=types * types).cpu().double()
        share = AVERAGING if float(self.table.sum()) > 0 else 1.0
        self.table += share * (counts.view(types, types) / held.numel() - self.table)

    @property
    def frequency(self) -> Tensor:
        """[K] how often each type is held."""
        return self.table.sum(1)

    def information(self) -> float:
        """Mutual information of predictions and structures over the structures' entropy: 1 perfect, 0 blind."""
        entropy = _entropy(self.frequency)
        if entropy <= 0:
            return 0.0
        mutual = entropy + _entropy(self.table.sum(0)) - _entropy(self.table.flatten())
        return max(0.0, mutual) / entropy

    def diverse(self) -> bool:
        """Whether the structures have types to tell apart."""
        types = self.table.shape[0]
        return types > 1 and _entropy(self.frequency) > DIVERSE * math.log(types)


def _entropy(p: Tensor) -> float:
    positive = p[p > 0]
    return float(-(positive * positive.log()).sum())


@dataclass
class Progress:
    """What is known of one encoder's training, beside its weights."""

    edges: Encountered
    nodes: Encountered
    window: int = FIRST_WINDOW
    since: int = 0
    restarts: int = 0
    loss: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        plain = {name: getattr(self, name) for name in ("window", "since", "restarts", "loss")}
        return plain | {"edges": self.edges.table.tolist(), "nodes": self.nodes.table.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """The inverse of :meth:`to_dict`."""
        tables = {n: Encountered(torch.tensor(values[n], dtype=torch.float64)) for n in ("edges", "nodes")}
        return cls(**(values | tables))

    @property
    def information(self) -> float:
        """Of edges, or of entities where edges have one type only."""
        return (self.edges if self.edges.table.shape[0] > 1 else self.nodes).information()


@dataclass
class _Part:
    """One encoder with its optimiser."""

    encoder: nn.Module
    progress: Progress
    optimiser: torch.optim.Optimizer = field(init=False)


class Imitation:
    """Trains the encoders of a proposal network on the structures that the search holds at the moment.

    Cross-entropy, one optimiser an encoder. Types are weighed by how rare they are, so that a first lean towards one of
    them is not its own reward; the network's prior puts the frequencies back in. Where an encoder's predictions come to
    tell nothing of the structures although these do have types to tell apart, it has collapsed: all edges are predicted
    alike, no gradient leads out, and the authors report it on springs. It is then started anew from fresh weights, and
    looked at again after twice as many steps.

    Parameters
    ----------
    network : ProposalNetwork
        Trained in place.
    rate : float
        Learning rate.
    optimiser : {"adam", "sgd"}
        SGD has momentum 0.9 (the authors').
    seed : int
        Names dropout, blurred edges and fresh weights.
    undirected : bool
        Both directions of a pair have one type, so both are blurred: the one would give the other away.

    Notes
    -----
    Source: Alet et al. (2019): the network imitates the structures that annealing accepted. Balanced loss, smoothing
    and fresh starts are this project's.
    """

    def __init__(
        self,
        network: ProposalNetwork,
        rate: float,
        optimiser: NetworkOptimiser = "adam",
        seed: int = 0,
        undirected: bool = False,
    ) -> None:
        if not 0 < rate < float("inf"):
            raise ValueError(f"rate: expected a positive number, got {rate}")
        if optimiser not in ("adam", "sgd"):
            raise ValueError(f"optimiser: expected adam or sgd, got {optimiser!r}")
        self.network, self.rate, self.kind, self.seed, self.undirected = network, rate, optimiser, seed, undirected
        self._parts: dict[str, _Part] = {}
        for name in ("states", "structures"):
            encoder = getattr(network, name)
            if encoder is not None:
                edges, nodes = (Encountered.nothing(len(p)) for p in (network.edge_prior, network.node_prior))
                self._parts[name] = _Part(encoder, Progress(edges, nodes))
                self._new_optimiser(self._parts[name])

    @property
    def progress(self) -> dict[str, Progress]:
        """What is known of each encoder's training, by name: "states", "structures"."""
        return {name: part.progress for name, part in self._parts.items()}

    @property
    def information(self) -> float:
        """Of the encoder of states, or of structures where it is alone (see :meth:`Encountered.information`)."""
        return next(iter(self._parts.values())).progress.information

    @property
    def loss(self) -> float:
        """Last step's, all encoders together."""
        return sum(part.progress.loss for part in self._parts.values())

    @property
    def restarts(self) -> int:
        """How often an encoder was started anew."""
        return sum(part.progress.restarts for part in self._parts.values())

    def step(
        self,
        batch: Batch,
        steps: int,
        edge_types: Tensor,
        node_types: Tensor,
        number: int,
        rate: float | None = None,
    ) -> None:
        """One gradient step of every encoder on a batch; on the entities that are there, where some are absent.

        Parameters
        ----------
        batch : Batch
            The systems.
        steps : int
            Recorded steps per system.
        edge_types, node_types : Tensor
            [batch edges], [batch nodes] uint8: the structures to imitate.
        number : int
            Of the step; names its randomness.
        rate : float, optional
            Of this step; that of the constructor if not given.
        """
        generator = torch.Generator().manual_seed(_mixed(self.seed, number))
        self.network.name_randomness(generator)
        self.network.train()
        seen = seen_part(batch, steps)
        batch, edge_types, node_types = seen.batch, edge_types[seen.edges], node_types[seen.nodes]
        graph = batch.graph
        for name, part in self._parts.items():
            for group in part.optimiser.param_groups:
                group["lr"] = self.rate if rate is None else rate
            asked: Tensor | None = None
            if name == "states":
                assert isinstance(part.encoder, StateEncoder)
                edge, node = part.encoder(batch.states, graph, steps, batch.present)
                asked = part.encoder.told(graph, steps, batch.present)
            else:
                draws = ops.Draws(self.seed, number, batch.systems)
                asked = blurred_edges(graph, draws, number % 2 == 1, graph.reverse if self.undirected else None)
                edge, node = part.encoder(edge_types, asked, graph)
            self._learn(part, edge, node, edge_types, node_types, asked)
            self._look(name, part)
        main = next(iter(self._parts.values())).progress
        self.network.edge_prior.copy_(_log_frequency(main.edges))
        self.network.node_prior.copy_(_log_frequency(main.nodes))
        self.network.eval()

    def _learn(
        self, part: _Part, edge: Tensor, node: Tensor, edge_types: Tensor, node_types: Tensor, asked: Tensor | None
    ) -> None:
        progress = part.progress
        if asked is not None:
            edge, edge_types = edge[asked.bool()], edge_types[asked.bool()]
        loss = edge.sum() * 0.0
        for logits, types, seen in ((edge, edge_types, progress.edges), (node, node_types, progress.nodes)):
            if logits.numel() == 0 or logits.shape[1] == 1:
                continue
            # Without the prior: rare types would otherwise never be predicted at first, which looks like a collapse.
            seen.add(types, logits.detach().argmax(-1))
            loss = loss + functional.cross_entropy(
                logits, types.long(), _rarity(seen).to(logits), label_smoothing=SMOOTHING
            )
        part.optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad and bool(torch.isfinite(loss)):
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(part.encoder.parameters(), LARGEST_GRADIENT)
            if bool(torch.isfinite(norm)):
                part.optimiser.step()
        progress.loss = float(loss.detach())

    def _look(self, name: str, part: _Part) -> None:
        """Starts a collapsed encoder anew."""
        progress = part.progress
        progress.since += 1
        if progress.since < progress.window:
            return
        edges = progress.edges.table.shape[0] > 1
        collapsed = progress.information < COLLAPSED and (progress.edges if edges else progress.nodes).diverse()
        finite = all(bool(torch.isfinite(value).all()) for value in part.encoder.state_dict().values())
        progress.since = 0
        if finite and not collapsed:
            return
        progress.restarts += 1
        progress.window *= 2
        fresh_weights(part.encoder, _mixed(self.seed, progress.restarts, name == "structures"))
        self._new_optimiser(part)

    def _new_optimiser(self, part: _Part) -> None:
        parameters = list(part.encoder.parameters())
        if self.kind == "adam":
            part.optimiser = torch.optim.Adam(parameters, lr=self.rate)
        else:
            part.optimiser = torch.optim.SGD(parameters, lr=self.rate, momentum=0.9)

    # State ----------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and facts that JSON can hold, from which :meth:`restore` continues to the bit."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, part in self._parts.items():
            for i, slot in part.optimiser.state_dict()["state"].items():
                for key, value in slot.items():
                    if value is not None:
                        tensors[f"imitation.{name}.{i}.{key}"] = torch.as_tensor(value)
        return tensors, {name: progress.to_dict() for name, progress in self.progress.items()}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        weights = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        self.network.load_state_dict(weights)
        for name, part in self._parts.items():
            part.progress = Progress.from_dict(facts[name])
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _under(tensors, f"imitation.{name}."):
                i, slot = key.split(".")
                state.setdefault(int(i), {})[slot] = value
            groups = part.optimiser.state_dict()["param_groups"]
            part.optimiser.load_state_dict({"state": state, "param_groups": groups})


def blurred_edges(graph: MegaGraph, draws: ops.Draws, whole_entity: bool, reverse: Tensor | None) -> Tensor:
    """[E] uint8: the edges that a structure encoder must guess, with their reverses where these have the same types.

    A share of the edges (of the pairs), or all edges into one entity of every system.
    """
    blurred = ops.blur(graph, draws, BLURRED, whole_entity)
    if reverse is None:
        return blurred
    other = torch.where(reverse >= 0, blurred[reverse.clamp(min=0)], blurred)
    if whole_entity:
        return blurred | other
    later = reverse > torch.arange(graph.edges, device=graph.device)
    return torch.where(later, other, blurred)


def fresh_weights(module: nn.Module, seed: int) -> None:
    """Random weights that the seed decides, whatever state torch's generator is in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module.apply(_reset)


def _reset(module: nn.Module) -> None:
    reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
    if reset is not None:
        device = next(iter(module.parameters())).device
        module.to("cpu")  # torch's generators differ between devices, the weights must not
        reset()
        module.to(device)


def _under(tensors: dict[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    return ((key.removeprefix(prefix), value) for key, value in tensors.items() if key.startswith(prefix))


def _log_frequency(seen: Encountered) -> Tensor:
    frequency = seen.frequency
    if not float(frequency.sum()) > 0:
        return torch.zeros_like(frequency)
    return (frequency.clamp(min=RAREST) / frequency.clamp(min=RAREST).sum()).log()


def _rarity(seen: Encountered) -> Tensor:
    """[K] weights of the loss, one on average over the edges."""
    frequency = seen.frequency.clamp(min=RAREST)
    return frequency.sum() / (len(frequency) * frequency)


def _mixed(*numbers: int) -> int:
    """A seed of 63 bits from several numbers, order included."""
    value = 0x9E3779B97F4A7C15
    for number in numbers:
        value ^= int(number) & 0xFFFFFFFFFFFFFFFF
        value = value * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 29
    return value >> 1
