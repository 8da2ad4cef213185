"""Useful floating-point operations, counted here and nowhere else.

Counted are the products of the method's own linear layers, at their true sizes: 2 a b for a layer from a to b values.
Not counted: biases, ReLU, sums of messages, errors, random numbers, padding, and whatever an implementation computes
more often than it has to (every type on every edge, forward passes that a gradient repeats). So the figures of all
competitors are those of the same work, and a faster one has the higher figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


def perceptron(sizes: Sequence[int]) -> int:
    """One evaluation of a perceptron with these layer sizes."""
    return sum(2 * a * b for a, b in pairwise(sizes))


@dataclass(frozen=True)
class Shape:
    """What the counts depend on.

    Attributes
    ----------
    edge_sizes, node_sizes : tuple of int
        Layer sizes of an edge module, [2 D, ..., message], and of a node module, [message + D, ..., D].
    entities : int
        Of a system; the graph is complete.
    edge_types : int
        K; each sends messages.
    """

    edge_sizes: tuple[int, ...]
    node_sizes: tuple[int, ...]
    entities: int
    edge_types: int = 2

    @property
    def edges(self) -> int:
        """Of a system."""
        return self.entities * (self.entities - 1)

    @property
    def features(self) -> int:
        """Of an entity (D)."""
        return self.node_sizes[-1]

    def graph_step(self) -> int:
        """One message-passing step of one system, one type evaluated per edge."""
        return self.edges * perceptron(self.edge_sizes) + self.entities * perceptron(self.node_sizes)

    def energy(self, transitions: int) -> int:
        """Roll-outs that predict so many transitions of one system."""
        return transitions * self.graph_step()

    def energy_gradient(self, transitions: int, rollouts: int) -> int:
        """The same with the gradient of the parameters.

        A backward pass is twice a forward one (the gradient of a layer's weights, and of its input), but nobody needs
        that of the recorded states from which the roll-outs start.
        """
        recorded = self.edges * 2 * self.edge_sizes[0] * self.edge_sizes[1]
        recorded += self.entities * 2 * self.features * self.node_sizes[1]
        return 3 * self.energy(transitions) - rollouts * recorded

    def heat_bath_scores(self) -> int:
        """All assignments of every receiver's incoming edges, one transition of one system.

        Every message once, under every type; its product with the node module's first weight once; an assignment is a
        sum of such products and costs the node module's other layers.
        """
        message, first = self.node_sizes[0] - self.features, self.node_sizes[1]
        each_message = perceptron(self.edge_sizes) + 2 * message * first
        own_state = self.entities * 2 * self.features * first
        rows = self.entities * self.edge_types ** (self.entities - 1)
        return self.edges * self.edge_types * each_message + own_state + rows * perceptron(self.node_sizes[1:])

    def heat_bath_gradient(self, live_rows: float, live_messages: float) -> float:
        """Backward pass of the weighted scores, one transition of one system.

        Assignments whose weight is zero have no gradient, nor have messages that only those contain; `live_rows` and
        `live_messages` say how many of a system's have one. Nobody needs the gradient of the recorded states.
        """
        message, first = self.node_sizes[0] - self.features, self.node_sizes[1]
        each_message = (
            2 * (perceptron(self.edge_sizes) + 2 * message * first) - 2 * self.edge_sizes[0] * self.edge_sizes[1]
        )
        own_state = self.entities * 2 * self.features * first
        return live_messages * each_message + own_state + live_rows * 2 * perceptron(self.node_sizes[1:])


def body_step(entities: int, charged: bool) -> int:
    """One integration step of bodies in a box, in double precision; a square root or a division counts as one."""
    pair = 8 + (5 if charged else 0)  # difference, products with the strength, sums at both ends; 1 / r^3
    return entities * (entities - 1) // 2 * pair + entities * 8
