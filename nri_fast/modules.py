"""The module library: the small networks that all systems share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nri_fast import _core


def _mlp(sizes: Sequence[int], relu_last: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        if relu_last or i + 2 < len(sizes):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class _FixedLinear(nn.Module):
    """Multiplies by a matrix that is not learned."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T


class ModuleLibrary(nn.Module):
    """Edge modules, one per edge type, and node modules, one per node type, shared by all systems.

    One step of message passing is ``m_ij = f_k([x_i, x_j])`` on the edge i -> j of type k, ``a_j = sum_i m_ij``,
    ``x_j <- x_j + g_m([a_j, x_j])`` for an entity of type m (Alet et al., "Neural Relational Inference with Fast
    Modular Meta-Learning", NeurIPS 2019). Edge modules are perceptrons with ReLU after every layer, the last too; node
    modules are perceptrons with a linear last layer, whose output is multiplied by :attr:`change_scale`.

    Parameters
    ----------
    features : int
        Features of an entity's state (D).
    edge_types, node_types : int
        Numbers of types (K and M).
    message : int
        Width of a message.
    edge_hidden, node_hidden : sequence of int
        Hidden widths of the edge and the node modules.
    relative : sequence of int
        Features that count relative to the receiver only: edge modules see the sender's minus the receiver's, node
        modules do not see them. Physics that does not depend on where it happens needs far less data so.
    silent : bool
        Edge type 0 sends no message and has no module.

    Attributes
    ----------
    change_scale : Tensor
        [D] buffer, ones at first: the size of one step's change. It makes learning independent of the features' units;
        training sets it to the standard deviation of the recorded changes.
    """

    change_scale: Tensor
    _pair: Tensor
    _own: Tensor

    def __init__(
        self,
        features: int,
        edge_types: int = 2,
        node_types: int = 1,
        message: int = 64,
        edge_hidden: Sequence[int] = (64,),
        node_hidden: Sequence[int] = (64, 64),
        relative: Sequence[int] = (),
        silent: bool = False,
    ) -> None:
        super().__init__()
        widths = {"features": features, "edge_types": edge_types, "node_types": node_types, "message": message}
        for name, value in widths.items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if edge_types > 255 or node_types > 255:
            raise ValueError(f"edge_types, node_types: expected at most 255, got {edge_types} and {node_types}")
        if any(w < 1 for w in [*edge_hidden, *node_hidden]):
            raise ValueError(f"hidden widths: expected at least 1, got {[*edge_hidden]} and {[*node_hidden]}")
        if any(not 0 <= d < features for d in relative):
            raise ValueError(f"relative: expected features 0 to {features - 1}, got {[*relative]}")
        self.features, self.edge_types, self.node_types, self.message = features, edge_types, node_types, message
        self.edge_hidden, self.node_hidden = tuple(edge_hidden), tuple(node_hidden)
        self.relative, self.silent = tuple(relative), silent
        edge_sizes = [2 * features, *edge_hidden, message]
        node_sizes = [message + features, *node_hidden, features]
        self.edge = nn.ModuleList(_mlp(edge_sizes, relu_last=True) for _ in range(edge_types - int(silent)))
        self.node = nn.ModuleList(_mlp(node_sizes, relu_last=False) for _ in range(node_types))
        self.register_buffer("change_scale", torch.ones(features))

        # Relative coordinates are linear maps in front of the modules: [x_i - x_j, .] and [a_j, 0]. The kernels never
        # see them, because a linear map can be multiplied into the first layer's weight.
        pair, own = torch.eye(2 * features), torch.ones(message + features)
        for d in self.relative:
            pair[d, features + d] = -1.0
            pair[features + d, features + d] = 0.0
            own[message + d] = 0.0
        self.register_buffer("_pair", pair, persistent=False)
        self.register_buffer("_own", own, persistent=False)
        self._layout_arguments = (features, edge_types, node_types, silent, edge_sizes, node_sizes)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        names = ["features", "edge_types", "node_types", "message", "edge_hidden", "node_hidden", "relative", "silent"]
        values = {name: getattr(self, name) for name in names}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def take_units(self, deviation: Tensor) -> None:
        """Sets :attr:`change_scale` so that changes of these standard deviations [D] have 1 in the modules' units."""
        # A feature that never changes is predicted perfectly by any scale.
        self.change_scale.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def edge_module(self, edge_type: int) -> nn.Module:
        """The law of one edge type: a plain torch module, [..., 2 D] sender and receiver state -> [..., message].

        It shares the library's parameters. The silent type has no module: ValueError.
        """
        if not 0 <= edge_type < self.edge_types:
            raise IndexError(f"edge_type: expected 0 to {self.edge_types - 1}, got {edge_type}")
        if self.silent and edge_type == 0:
            raise ValueError("edge_type: type 0 is silent and has no module")
        module = self.edge[edge_type - int(self.silent)]
        return nn.Sequential(_FixedLinear(self._pair), module) if self.relative else module

    def node_module(self, node_type: int) -> nn.Module:
        """The law of one node type: a plain torch module, [..., message + D] summed messages and own state -> [..., D]
        change of state. It shares the library's parameters.
        """
        if not 0 <= node_type < self.node_types:
            raise IndexError(f"node_type: expected 0 to {self.node_types - 1}, got {node_type}")
        change = _FixedLinear(torch.diag(self.change_scale))
        return nn.Sequential(_FixedLinear(torch.diag(self._own)), self.node[node_type], change)

    @property
    def layout(self) -> _core.Layout:
        """The shapes of the modules, for the kernels."""
        return _core.Layout(*self._layout_arguments)

    def flat_parameters(self) -> Tensor:
        """[P] all weights as the kernels read them, differentiable in the modules' own parameters."""
        pieces: list[Tensor] = []
        for edge in self.edge:
            first, *others = linear_layers(edge)
            pieces += [(first.weight @ self._pair if self.relative else first.weight).flatten(), first.bias]
            pieces += [value.flatten() for layer in others for value in (layer.weight, layer.bias)]
        for node in self.node:
            weights: list[Tensor] = [layer.weight for layer in linear_layers(node)]
            biases: list[Tensor] = [layer.bias for layer in linear_layers(node)]
            if self.relative:
                weights[0] = weights[0] * self._own
            weights[-1] = weights[-1] * self.change_scale[:, None]
            biases[-1] = biases[-1] * self.change_scale
            pieces += [value.flatten() for pair in zip(weights, biases, strict=True) for value in pair]
        return torch.cat(pieces)

    def with_positions(self) -> ModuleLibrary:
        """A library that computes the same, but whose modules see every feature as it is.

        What counted relative to the receiver only (`relative`) may be learned absolutely from here on: node modules
        start with zero weights on it.
        """
        free = ModuleLibrary(**self.settings() | {"relative": []})
        free = free.to(self.change_scale.device, self.change_scale.dtype)
        free.load_state_dict(self.state_dict())
        with torch.no_grad():
            for module in free.edge:
                first = linear_layers(module)[0]
                first.weight.copy_(first.weight @ self._pair)
            for module in free.node:
                first = linear_layers(module)[0]
                first.weight.mul_(self._own)
        return free

    def extra_repr(self) -> str:
        """What ``repr`` shows beside the modules."""
        return ", ".join(f"{name}={value}" for name, value in self.settings().items())


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    """A perceptron's layers, without what stands between them."""
    return [layer for layer in module.children() if isinstance(layer, nn.Linear)]
