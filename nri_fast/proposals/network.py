"""The proposal network: an encoder of states, one of structures, or both, and the tables that they give."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from nri_fast.couplings import Coupling
from nri_fast.found import Found
from nri_fast.graph import MegaGraph
from nri_fast.proposals.encoders import CnnStateEncoder, MlpStateEncoder, StructureEncoder
from nri_fast.proposals.layers import Dropout
from nri_fast.proposals.seen_part import seen_part
from nri_fast.rollouts import Rollouts
from nri_fast.settings import NetworkKind
from nri_fast.system_set import Batch, SystemSet
from nri_fast.undirected import agree

FLOOR = 0.001  # share of the uniform distribution in every table: a chain that is to sample must reach everything
GRID = 2.0**-12  # logits at meta-test are rounded to multiples of this
EDGE_STEPS_AT_ONCE = 1 << 18  # edges times recorded steps encoded together


@dataclass
class Table:
    """Probabilities that proposals are drawn from.

    Attributes
    ----------
    edge : Tensor
        [E, K] float64.
    node : Tensor or None
        [V, M] float64; None with one node type.
    """

    edge: Tensor
    node: Tensor | None

    @classmethod
    def of_logits(cls, edge: Tensor, node: Tensor) -> Table:
        """Softmax, with a floor."""
        return cls.of_probabilities(edge.double().softmax(-1), node.double().softmax(-1))

    @classmethod
    def of_probabilities(cls, edge: Tensor, node: Tensor) -> Table:
        """Probabilities of any type, with a floor."""
        return cls(_floored(edge), _floored(node) if node.shape[-1] > 1 else None)

    def mixed(self, other: Table) -> Table:
        """Half of this one and half of another."""
        node = None if self.node is None or other.node is None else 0.5 * (self.node + other.node)
        return Table(0.5 * (self.edge + other.edge), node)

    def of(self, batch: Batch) -> Table:
        """A batch's part of a table of the whole set."""
        node = None if self.node is None else self.node[batch.nodes].contiguous()
        return Table(self.edge[batch.edges].contiguous(), node)

    def agreed(self, graph: MegaGraph) -> Table:
        """The same for both directions of a pair: the mean of the two."""
        return Table(agree(graph, self.edge).contiguous(), self.node)

    def tied(self, graph: MegaGraph, coupling: Coupling) -> Table:
        """A table of all systems of a graph that obeys a coupling.

        Recordings of one structure have normalised geometric means: what is likeliest by them is so by the recordings'
        product too, but they are no surer than one recording is.
        """
        table = self.agreed(graph) if coupling.undirected else self
        if not coupling.shared:
            return table
        node = None if table.node is None else coupling.scores(graph, table.node.log()).softmax(-1)
        return Table(coupling.scores(graph, table.edge.log()).softmax(-1), node)

    def of_structures(self, rollouts: Rollouts) -> Table:
        """A batch's table, which obeys the coupling, as roll-outs take structures."""
        edge, node = rollouts.of_structures(self.edge, self.edge[:0] if self.node is None else self.node)
        return Table(edge, None if self.node is None else node)

    def found(self, systems: SystemSet) -> Found:
        """The likeliest structures and their probabilities as a search result."""
        none = self.edge.new_ones(systems.graph.nodes, 1)
        node = none if self.node is None else self.node
        kind = systems.states.dtype
        edges, nodes = self.edge.argmax(-1).byte(), node.argmax(-1).byte()
        return Found(edges, nodes, self.edge.to(kind), node.to(kind))

    def likeliest(self) -> tuple[Tensor, Tensor]:
        """[E], [V] uint8; with one node type the second is empty."""
        none = torch.zeros(0, dtype=torch.uint8, device=self.edge.device)
        return self.edge.argmax(-1).byte(), none if self.node is None else self.node.argmax(-1).byte()


def _floored(probabilities: Tensor) -> Tensor:
    p = probabilities.double()
    return ((1.0 - FLOOR) * p + FLOOR / p.shape[-1]).contiguous()


class ProposalNetwork(nn.Module):
    """Predicts structures; trained by :class:`nri_fast.proposals.Imitation`.

    Parameters
    ----------
    kind : {"mlp", "cnn", "structure", "mlp+structure", "cnn+structure"}
        Which encoders there are.
    features, edge_types, node_types : int
        D, K, M.
    steps : int
        Recorded steps of the training systems; binds the MLP encoder.
    hidden : int
        Width of all layers.
    dropout : float
        Share of units left out while training.
    change_scale : Tensor, optional
        [D] standard deviation of one step's change; ones if not given (a saved network brings its own).
    masked : bool
        For recordings with holes: state encoders are told what is missing. Others take them too, as if nothing happened
        there.

    Attributes
    ----------
    states : MlpStateEncoder, CnnStateEncoder or None
    structures : StructureEncoder or None
    edge_prior, node_prior : Tensor
        [K], [M] logarithms of how common the types are; added to the logits.
    """

    edge_prior: Tensor
    node_prior: Tensor

    def __init__(
        self,
        kind: NetworkKind,
        features: int,
        edge_types: int,
        node_types: int,
        steps: int,
        hidden: int = 128,
        dropout: float = 0.0,
        change_scale: Tensor | None = None,
        masked: bool = False,
    ) -> None:
        super().__init__()
        if kind not in get_args(NetworkKind)[1:]:
            raise ValueError(f"kind: expected one of {', '.join(get_args(NetworkKind)[1:])}, got {kind!r}")
        if hidden < 1:
            raise ValueError(f"hidden: expected at least 1, got {hidden}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a share from 0 to below 1, got {dropout}")
        if steps < 2:
            raise ValueError(f"steps: expected at least 2, got {steps}")
        if "cnn" in kind and steps < CnnStateEncoder.least_steps:
            raise ValueError(f"steps: expected at least {CnnStateEncoder.least_steps} for the CNN encoder, got {steps}")
        self._settings = {
            "kind": kind,
            "features": features,
            "edge_types": edge_types,
            "node_types": node_types,
            "steps": steps,
            "hidden": hidden,
            "dropout": dropout,
            "masked": masked,
        }
        scale = torch.ones(features) if change_scale is None else change_scale
        self.states: MlpStateEncoder | CnnStateEncoder | None = None
        if kind.startswith("mlp"):
            self.states = MlpStateEncoder(scale, steps, edge_types, node_types, hidden, dropout, masked)
        elif kind.startswith("cnn"):
            self.states = CnnStateEncoder(scale, edge_types, node_types, hidden, dropout, masked)
        self.structures = (
            StructureEncoder(edge_types, node_types, hidden, dropout) if kind.endswith("structure") else None
        )
        # Training weighs all types alike; how common each one is comes back in here.
        self.register_buffer("edge_prior", torch.zeros(edge_types))
        self.register_buffer("node_prior", torch.zeros(node_types))

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        return dict(self._settings)

    def name_randomness(self, generator: torch.Generator) -> None:
        """The generator of the next training pass's dropout."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def state_logits(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """[E, K], [V, M] of the state encoder, without the prior; zero where nothing was seen."""
        assert self.states is not None
        part = seen_part(batch, steps)
        return part.put_back(*self.states(part.batch.states, part.batch.graph, steps, part.batch.present))

    def state_table(self, batch: Batch, steps: int) -> Table:
        """What the state encoder proposes for a batch, in the network's own precision, with gradients off."""
        with torch.no_grad():
            training = self.training
            self.eval()
            edge, node = self.state_logits(batch, steps)
            self.train(training)
        return Table.of_logits(edge + self.edge_prior, node + self.node_prior)

    def structure_table(self, edge_types: Tensor, blurred: Tensor, graph: MegaGraph) -> Table:
        """What the structure encoder proposes for the blurred edges."""
        assert self.structures is not None
        with torch.no_grad():
            training = self.training
            self.eval()
            edge, node = self.structures(edge_types, blurred, graph)
            self.train(training)
        return Table.of_logits(_on_grid(edge + self.edge_prior), _on_grid(node + self.node_prior))


def predict(network: ProposalNetwork, systems: SystemSet) -> Table:
    """One forward pass of the state encoder for all systems: fast inference, and the table of meta-test proposals.

    Parameters
    ----------
    network : ProposalNetwork
        With a state encoder.
    systems : SystemSet
        In the network's units.

    Returns
    -------
    Table

    Notes
    -----
    How a matrix product rounds can depend on how many rows it has. Logits are therefore computed in double precision
    and rounded to multiples of 2^-12, which makes a system's the same whatever its company, threads and device, but for
    a chance of about 1e-11 each that a rounding error straddles a boundary of the grid.
    """
    if network.states is None:
        raise ValueError("network: expected one with a state encoder (mlp or cnn), got a structure encoder alone")
    exact = copy.deepcopy(network).double().eval()
    most = max(1, EDGE_STEPS_AT_ONCE // max(1, systems.steps * math.ceil(systems.graph.edges / len(systems))))
    graph, device = systems.graph, systems.states.device
    edges = torch.zeros(graph.edges, len(exact.edge_prior), dtype=torch.float64, device=device)
    nodes = torch.zeros(graph.nodes, len(exact.node_prior), dtype=torch.float64, device=device)
    with torch.no_grad():
        for ids in torch.arange(len(systems)).split(most):
            batch = systems.batch(ids)
            edge, node = exact.state_logits(replace(batch, states=batch.states.double()), systems.steps)
            edges[batch.edges] = _on_grid(edge + exact.edge_prior)
            nodes[batch.nodes] = _on_grid(node + exact.node_prior)
    return Table.of_logits(edges, nodes)


def _on_grid(logits: Tensor) -> Tensor:
    return (logits / GRID).round() * GRID
