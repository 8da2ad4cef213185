"""Random moves between structures: proposals, decisions, draws from a heat bath."""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast import _core
from nri_fast.graph import MegaGraph
from nri_fast.ops.draws import Draws
from nri_fast.ops.heat_bath import RowLayout
from nri_fast.ops.place import address, on_device, place

PROPOSALS = ("edge", "node", "flip", "system")  # ProposalKind in csrc/ops/propose_from_table.h
COUNTS = ("proposed", "accepted", "accepted_worsening", "not_finite")


def metropolis_propose(
    graph: MegaGraph,
    draws: Draws,
    edge_types_count: int,
    node_types_count: int,
    edge_types: Tensor,
    node_types: Tensor | None = None,
    reverse: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Copies of the types with one random edge or entity of every system changed.

    With ``reverse`` (:attr:`MegaGraph.reverse`) both directions of a pair change together. See ``csrc/ops/anneal.h``.
    """
    proposed_edges = torch.empty_like(edge_types)
    proposed_nodes = None if node_types is None else torch.empty_like(node_types)
    _core.metropolis_propose(
        place(edge_types),
        graph.native,
        draws.seed,
        draws.step,
        address(draws.system_ids),
        address(reverse),
        edge_types_count,
        node_types_count,
        address(edge_types),
        address(node_types),
        address(proposed_edges),
        address(proposed_nodes),
    )
    return proposed_edges, proposed_nodes


def metropolis_decide(
    graph: MegaGraph,
    draws: Draws,
    temperature: Tensor,
    proposed_energy: Tensor,
    proposed_edge_types: Tensor,
    proposed_node_types: Tensor | None,
    energy: Tensor,
    edge_types: Tensor,
    node_types: Tensor | None,
    counts: Tensor,
    log_ratio: Tensor | None = None,
) -> None:
    """Accepts or rejects every system's proposal in place.

    ``energy`` [systems] and the types are updated where accepted; ``counts`` [systems, 4] int64 is added to (columns:
    :data:`COUNTS`). ``temperature`` is one number in a tensor. ``log_ratio`` [systems] float64 is what
    :func:`propose_from_table` gives, None for the plain rule. See ``csrc/ops/anneal.h``.
    """
    _core.metropolis_decide(
        place(energy),
        energy.dtype == torch.float64,
        graph.native,
        draws.seed,
        draws.step,
        address(draws.system_ids),
        address(temperature),
        address(log_ratio),
        address(proposed_energy),
        address(proposed_edge_types),
        address(proposed_node_types),
        address(energy),
        address(edge_types),
        address(node_types),
        address(counts),
    )


def propose_from_table(
    graph: MegaGraph,
    draws: Draws,
    kind: str,
    edge_probability: Tensor,
    node_probability: Tensor | None,
    edge_types: Tensor,
    node_types: Tensor | None = None,
    may_change: Tensor | None = None,
    reverse: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Copies of the types with one proposal of ``kind`` (:data:`PROPOSALS`) a system, and its log ratio [systems].

    ``edge_probability`` is [edges, K] float64, ``node_probability`` [nodes, M] float64 or None for one node type,
    ``may_change`` [edges] uint8 or None. With ``reverse`` (:attr:`MegaGraph.reverse`) both directions of a pair change
    together. See ``csrc/ops/propose_from_table.h``.
    """
    proposed_edges = torch.empty_like(edge_types)
    proposed_nodes = None if node_types is None else torch.empty_like(node_types)
    log_ratio = torch.empty(graph.systems, dtype=torch.float64, device=edge_types.device)
    _core.propose_from_table(
        place(edge_types),
        graph.native,
        draws.seed,
        draws.step,
        address(draws.system_ids),
        PROPOSALS.index(kind),
        edge_probability.shape[1],
        1 if node_probability is None else node_probability.shape[1],
        address(edge_probability),
        address(node_probability),
        address(may_change),
        address(reverse),
        address(edge_types),
        address(node_types),
        address(proposed_edges),
        address(proposed_nodes),
        address(log_ratio),
    )
    return proposed_edges, proposed_nodes, log_ratio


def blur(graph: MegaGraph, draws: Draws, share: float, whole_entity: bool = False) -> Tensor:
    """[edges] uint8: 1 where a structure encoder must not see an edge's type.

    Each edge with probability ``share``, or all edges into one random entity of every system. See
    ``csrc/ops/propose_from_table.h``.
    """
    blurred = torch.empty(graph.edges, dtype=torch.uint8, device=graph.device)
    _core.blur(
        place(blurred),
        graph.native,
        draws.seed,
        draws.step,
        address(draws.system_ids),
        share,
        whole_entity,
        address(blurred),
    )
    return blurred


def heat_bath_sample(
    graph: MegaGraph,
    draws: Draws,
    edge_types_count: int,
    rows: RowLayout,
    scores: Tensor,
    temperature: float | Tensor,
    edge_types: Tensor,
    node_types_count: int = 1,
    node_types: Tensor | None = None,
) -> None:
    """Draws types from softmax(-scores / temperature), in place. See ``csrc/ops/anneal.h``.

    ``rows`` are the blocks of one node type; ``scores`` has them for each node type, the receiver's own type slowest.
    ``temperature`` may be one float64 in a tensor: nobody waits for its value.
    """
    temperature = on_device(temperature, scores.device)
    offset = rows.offset * node_types_count
    _core.heat_bath_sample(
        place(scores),
        scores.dtype == torch.float64,
        graph.native,
        draws.seed,
        draws.step,
        address(draws.system_ids),
        edge_types_count,
        node_types_count,
        address(offset),
        address(rows.stride),
        address(scores),
        address(temperature),
        address(edge_types),
        address(node_types),
    )


def responsibilities(row_offset: Tensor, scores: Tensor, temperature: float | Tensor, group: int = 0) -> Tensor:
    """[rows] softmax(-scores / temperature) over each receiver's rows, or over every ``group`` consecutive rows.

    Weights below 2^-24 of the largest are exactly zero. ``temperature`` may be one float64 in a tensor.
    """
    temperature = on_device(temperature, scores.device)
    weights = torch.empty_like(scores)
    _core.responsibilities(
        place(scores),
        scores.dtype == torch.float64,
        row_offset.numel() - 1,
        address(row_offset),
        group,
        address(scores),
        address(temperature),
        address(weights),
    )
    return weights
