"""Problems that the operations' tests share, and helpers that compare results and refuse NaN."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

import nri_fast as nf

# relative tolerance of a kernel against the oracle, by type
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


@dataclass
class Case:
    """A library, a ragged mega-graph, trajectories, and a structure."""

    library: nf.ModuleLibrary
    graph: nf.MegaGraph
    trajectories: list[Tensor]
    edge_types: Tensor
    node_types: Tensor

    def on(self, device: torch.device) -> Case:
        """A copy on another device; this case, its library too, stays where it is."""
        return Case(
            copy.deepcopy(self.library).to(device),
            self.graph.to(device),
            [x.to(device) for x in self.trajectories],
            self.edge_types.to(device),
            self.node_types.to(device),
        )


def random_edges(sizes: list[int], keep: float) -> Tensor:
    """[2, E] a random subset of all edges inside systems, in random order."""
    pairs, first = [], 0
    for n in sizes:
        pairs += [(first + i, first + j) for i in range(n) for j in range(n) if i != j]
        first += n
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    chosen = torch.rand(index.shape[1]) < keep
    return index[:, chosen][:, torch.randperm(int(chosen.sum()))]


def make_case(
    dtype: torch.dtype = torch.float64,
    sizes: list[int] | None = None,
    keep: float = 0.7,
    steps: int = 8,
    features: int = 3,
    edge_types: int = 2,
    node_types: int = 2,
    message: int = 5,
    edge_hidden: tuple[int, ...] = (7,),
    node_hidden: tuple[int, ...] = (9, 6),
    relative: tuple[int, ...] = (),
    silent: bool = False,
) -> Case:
    """A random problem; widths that are multiples of nothing, systems of different sizes, edges missing."""
    sizes = [3, 1, 5, 2] if sizes is None else sizes
    library = nf.ModuleLibrary(features, edge_types, node_types, message, edge_hidden, node_hidden, relative, silent)
    library.change_scale.copy_(torch.rand(features) + 0.5)
    graph = nf.MegaGraph.from_edge_index(random_edges(sizes, keep), sizes)
    states = [torch.randn(steps, n, features, dtype=dtype) for n in sizes]
    types = torch.randint(edge_types, (graph.edges,), dtype=torch.uint8)
    nodes = torch.randint(node_types, (graph.nodes,), dtype=torch.uint8)
    return Case(library.to(dtype), graph, states, types, nodes)


def assert_close(got: Tensor, expected: Tensor, relative: float) -> None:
    """Passes if every difference is within `relative` of the largest expected magnitude; NaN and infinity fail."""
    got, expected = got.detach().cpu(), expected.detach().cpu()
    assert got.shape == expected.shape, f"shape {[*got.shape]}, expected {[*expected.shape]}"
    assert bool(torch.isfinite(expected).all()), "the expected values are not finite"
    assert bool(torch.isfinite(got).all()), "the values got are not finite"
    if expected.numel() == 0:
        return
    scale = float(expected.abs().max())
    worst = float((got - expected).abs().max())
    assert worst <= relative * max(scale, torch.finfo(expected.dtype).tiny), (
        f"off by {worst:.3g}, values up to {scale:.3g}"
    )


def assert_same_bits(got: Tensor, expected: Tensor) -> None:
    """Passes if both are equal to the last bit; NaN fails."""
    assert got.shape == expected.shape
    assert torch.equal(got.cpu(), expected.cpu())
