"""PyTorch Geometric's typed linear layers in the place of one module a type.

The method's edge module is not linear, so a relational convention's sum over neighbours cannot stand for it as a whole.
What can is each of its layers: the rows of a layer are edges, a type's weight is applied to each. ``HeteroLinear`` does
that; ``RGCNConv`` and ``FastRGCNConv`` do it on the graph that joins every edge's row to itself, with the type as
relation. Biases and ReLU are added where they belong, so that the numbers are ours.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from bench.cases import RolloutProblem
from bench.peers.rollouts import TorchRollouts

WAYS = ("HeteroLinear", "RGCNConv", "FastRGCNConv")


def why_not() -> str | None:
    """Why it cannot take part; None if it can."""
    if importlib.util.find_spec("torch_geometric") is None:
        return "torch_geometric is not installed (pip install torch-geometric)"
    return None


class Geometric(TorchRollouts):
    """Typed layers by PyTorch Geometric.

    Parameters
    ----------
    problem : RolloutProblem
    way : {"HeteroLinear", "RGCNConv", "FastRGCNConv"}
    """

    def __init__(self, problem: RolloutProblem, way: str) -> None:
        super().__init__(problem)
        self.way = way
        self.chunk_edges = 256 if way == "FastRGCNConv" else 4096  # the former copies a weight for every edge
        layers = [[m for m in module.children() if isinstance(m, nn.Linear)] for module in self.library.edge]
        self.typed = [self._typed(list(same_depth)) for same_depth in zip(*layers, strict=True)]
        self.bias = [torch.stack([layer.bias.detach() for layer in same]) for same in zip(*layers, strict=True)]

    def _typed(self, layers: list[nn.Linear]) -> Any:
        from torch_geometric import nn as geometric

        weight = torch.stack([layer.weight.detach().T for layer in layers])  # [K, in, out]
        kinds, wide, narrow = weight.shape
        made: Any
        if self.way == "HeteroLinear":
            made = geometric.HeteroLinear(wide, narrow, kinds, bias=False)
        else:
            made = getattr(geometric, self.way)(wide, narrow, kinds, aggr="add", root_weight=False, bias=False)
        with torch.no_grad():
            made.weight.copy_(weight)
        return made.to(weight.device)

    def summed_messages(self, states: Tensor, types: Tensor) -> Tensor:
        """[rows, N, D], [rows, edges] -> [rows, N, message]."""
        h = torch.cat([states[:, self.sender], states[:, self.receiver]], -1).flatten(0, 1)
        kinds = types.flatten()
        itself = torch.arange(len(h), device=h.device).expand(2, -1)
        for typed, bias in zip(self.typed, self.bias, strict=True):
            linear = typed(h, kinds) if self.way == "HeteroLinear" else typed(h, itself, kinds)
            h = torch.relu(linear + bias[kinds])
        return h.view(*states.shape[:2], self.degree, -1).sum(2)
