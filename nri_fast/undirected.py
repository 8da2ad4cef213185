"""Undirected structures: both directions of a pair have one type.

A pair's type enters the one-step energies of both of its ends, so receivers can no longer be weighed one by one. Their
rows become factors of a graphical model whose variables are the pairs; belief propagation finds its marginals.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast.graph import MegaGraph
from nri_fast.heat_bath_rows import HeatBathRows, ReceiverGroup

SWEEPS = 12  # on complete graphs of five the messages have settled behind a few
IMPOSSIBLE = -1e12  # the log weight of an assignment without a finite score
LEAST = 1e-300  # a type's share of the weight of a receiver's assignments, so that its logarithm stays finite
SMALLEST = 2.0**-24  # weights below this share of the largest are zero, so that the gradient skips them


def undirected_responsibilities(rows: HeatBathRows, scores: Tensor, temperature: float) -> Tensor:
    """[rows] weights of every receiver's assignments, both ends of each pair agreeing.

    Loopy belief propagation (sum-product) on the factors ``exp(-score / temperature)``, half of each message kept from
    the sweep before. Exact where pairs form a tree, otherwise an approximation. An edge whose reverse is absent stays
    on its own.

    Parameters
    ----------
    rows : HeatBathRows
        Blocks in which both directions of a pair are free, or none.
    scores : Tensor
        [rows].
    temperature : float
        At least 0; 0 stands for a temperature so low that only the best assignments have weight.
    """
    graph = rows.graph
    # At zero the others' weights must vanish, while messages stay finite.
    cold = max(temperature, 1e-4 * rows.spread(scores), 1e-30)
    likelihood = torch.where(torch.isfinite(scores), -scores.double() / cold, IMPOSSIBLE)
    paired = (graph.reverse >= 0)[:, None]
    reverse = graph.reverse.clamp(min=0)
    incoming = torch.zeros(graph.edges, rows.edge_types, dtype=torch.float64, device=graph.device)
    for _ in range(SWEEPS):
        outgoing = torch.zeros_like(incoming)
        for group in rows.groups:
            total = _with_messages(group, likelihood, incoming)
            weight = torch.exp(total - total.amax(-1, keepdim=True))
            sums = weight @ group.gives_type.flatten(0, 1).T  # [n, f K]
            belief = sums.clamp(min=LEAST).log().view(*group.edges.shape, rows.edge_types)
            message = belief - incoming[group.edges]
            outgoing[group.edges] = message - message.mean(-1, keepdim=True)
        incoming = torch.where(paired, 0.5 * (incoming + outgoing[reverse]), incoming)
    weights = torch.zeros_like(likelihood)
    for group in rows.groups:
        weight = torch.softmax(_with_messages(group, likelihood, incoming), -1)
        weight = torch.where(weight < SMALLEST * weight.amax(-1, keepdim=True), 0.0, weight)
        weights[group.rows] = weight / weight.sum(-1, keepdim=True)
    return torch.where(torch.isfinite(scores), weights, 0.0).to(scores.dtype)


def agree(graph: MegaGraph, probabilities: Tensor) -> Tensor:
    """[E, K] probabilities, the same for both directions of a pair: the mean of the two."""
    reverse = graph.reverse
    both = 0.5 * (probabilities + probabilities[reverse.clamp(min=0)])
    return torch.where((reverse >= 0)[:, None], both, probabilities)


def _with_messages(group: ReceiverGroup, likelihood: Tensor, incoming: Tensor) -> Tensor:
    """[n, R] log weights of a group's rows, the messages from the other ends included."""
    return likelihood[group.rows] + incoming[group.edges].flatten(1) @ group.gives_type.flatten(0, 1)
