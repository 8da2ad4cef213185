"""Undirected structures: both directions of a pair have one type.

A pair's type enters the one-step energies of both of its ends, so receivers can no longer be weighed one by one. Their
rows become factors of a graphical model whose variables are the pairs; belief propagation finds its marginals.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast.graph import MegaGraph
from nri_fast.heat_bath_rows import HeatBathRows, ReceiverGroup

SWEEPS = 8  # on complete graphs of five the weights have settled to a tenth behind six of them
NEWS = 0.8  # the share of a message that is new in every sweep; some of the old one keeps loops from swinging
IMPOSSIBLE = -1e12  # the log weight of an assignment without a finite score
LEAST = 1e-300  # a type's share of the weight of a receiver's assignments, so that its logarithm stays finite
SMALLEST = 2.0**-24  # weights below this share of the largest are zero, so that the gradient skips them


def undirected_responsibilities(rows: HeatBathRows, scores: Tensor, temperature: float | Tensor) -> Tensor:
    """[rows] weights of every receiver's assignments, both ends of each pair agreeing.

    Loopy belief propagation (sum-product) on the factors ``exp(-score / temperature)``, a fifth of each message kept
    from the sweep before. Exact where pairs form a tree, otherwise an approximation. An edge whose reverse is absent
    stays on its own.

    Parameters
    ----------
    rows : HeatBathRows
        Blocks in which both directions of a pair are free, or none.
    scores : Tensor
        [rows].
    temperature : float or Tensor
        At least 0; 0 stands for a temperature so low that only the best assignments have weight.
    """
    # At zero the others' weights must vanish, while messages stay finite.
    cold = (1e-4 * rows.spread(scores)).nan_to_num(0.0).clamp(min=1e-30).clamp(min=temperature)
    likelihood = torch.where(torch.isfinite(scores), -scores.double() / cold, IMPOSSIBLE)
    factors = [_Factor(group, likelihood) for group in rows.groups]
    incoming = _settled_messages(rows, factors)
    weights = torch.zeros_like(likelihood)
    for factor in factors:
        weight = torch.softmax(factor.with_messages(incoming), -1)
        weight = torch.where(weight < SMALLEST * weight.amax(-1, keepdim=True), 0.0, weight)
        weights[factor.group.rows] = weight / weight.sum(-1, keepdim=True)
    return torch.where(torch.isfinite(scores), weights, 0.0).to(scores.dtype)


def _settled_messages(rows: HeatBathRows, factors: list[_Factor]) -> Tensor:
    """[E, K] what the other end of each edge's pair says about its type: logarithms, their mean zero."""
    reverse = rows.graph.reverse
    paired = (reverse >= 0)[:, None]
    all_paired, reverse = rows.graph.all_paired, reverse.clamp(min=0)
    incoming = torch.zeros(len(reverse), rows.edge_types, dtype=torch.float64, device=reverse.device)
    outgoing = torch.zeros_like(incoming)
    for _ in range(SWEEPS):
        for factor in factors:
            outgoing[factor.group.edges] = factor.messages(incoming)
        news = outgoing.index_select(0, reverse)
        if not all_paired:
            news = torch.where(paired, news, incoming)
        incoming = incoming.lerp(news, NEWS)
    return incoming


class _Factor:
    """The rows of a group of receivers as factors over their free edges' types."""

    def __init__(self, group: ReceiverGroup, likelihood: Tensor) -> None:
        self.group = group
        self._likelihood = likelihood[group.rows]
        self._gives_type = group.gives_type.flatten(0, 1)  # [f K, R]

    def with_messages(self, incoming: Tensor) -> Tensor:
        """[n, R] log weights of the rows, the messages from the other ends included."""
        return torch.addmm(self._likelihood, incoming[self.group.edges].flatten(1), self._gives_type)

    def messages(self, incoming: Tensor) -> Tensor:
        """[n, f, K] what the receivers say about their edges' types, beyond what they were told."""
        total = self.with_messages(incoming)
        weight = total.sub_(total.amax(-1, keepdim=True)).exp_()
        belief = (weight @ self._gives_type.T).clamp_(min=LEAST).log_()  # [n, f K]
        message = belief.view(*self.group.edges.shape, incoming.shape[1]).sub_(incoming[self.group.edges])
        return message.sub_(message.mean(-1, keepdim=True))


def agree(graph: MegaGraph, probabilities: Tensor) -> Tensor:
    """[E, K] probabilities, the same for both directions of a pair: the mean of the two."""
    reverse = graph.reverse
    both = 0.5 * (probabilities + probabilities[reverse.clamp(min=0)])
    return torch.where((reverse >= 0)[:, None], both, probabilities)
