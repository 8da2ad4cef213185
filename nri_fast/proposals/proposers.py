"""Where the proposals of a Metropolis chain come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from nri_fast import ops
from nri_fast.graph import MegaGraph
from nri_fast.proposals.imitation import blurred_edges
from nri_fast.proposals.network import ProposalNetwork, Table


class Proposer(Protocol):
    """Proposes a changed structure for every system of a batch."""

    def propose(self, draws: ops.Draws, edge_types: Tensor, node_types: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Proposed types, and the log of the way back's probability over the way there's [B], or None where equal."""
        ...

    def sources(self) -> tuple[ops.ProposalSource, ...] | None:
        """The same proposals as a native run draws them, in turn by the number of the step; None if it cannot."""
        ...


@dataclass(frozen=True)
class RandomProposer:
    """One random edge or entity gets a random other type.

    With `reverse` (:attr:`MegaGraph.reverse`), here and below, both directions of a pair are changed as one.
    """

    graph: MegaGraph
    edge_types: int
    node_types: int
    reverse: Tensor | None = None

    def propose(self, draws: ops.Draws, edge_types: Tensor, node_types: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See :class:`Proposer`."""
        edges, nodes = ops.metropolis_propose(
            self.graph, draws, self.edge_types, self.node_types, edge_types, node_types, self.reverse
        )
        assert nodes is not None
        return edges, nodes, None

    def sources(self) -> tuple[ops.ProposalSource, ...]:
        """See :class:`Proposer`."""
        return (ops.ProposalSource(None, self.edge_types, self.node_types, reverse=self.reverse),)


@dataclass(frozen=True)
class TableProposer:
    """Draws from fixed probabilities: those of a state encoder, of the one-step heat bath, or of both."""

    graph: MegaGraph
    table: Table
    kind: str
    reverse: Tensor | None = None

    def propose(self, draws: ops.Draws, edge_types: Tensor, node_types: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See :class:`Proposer`."""
        edges, nodes, log_ratio = ops.propose_from_table(
            self.graph,
            draws,
            self.kind,
            self.table.edge,
            self.table.node,
            edge_types,
            node_types,
            reverse=self.reverse,
        )
        assert nodes is not None
        return edges, nodes, log_ratio

    def sources(self) -> tuple[ops.ProposalSource, ...] | None:
        """See :class:`Proposer`."""
        edge, node = self.table.edge, self.table.node
        node_types = 1 if node is None else node.shape[1]
        return (ops.ProposalSource(self.kind, edge.shape[1], node_types, edge, node, self.reverse),)


@dataclass(frozen=True)
class StructureProposer:
    """Draws what a structure encoder makes of blurred edges.

    Only blurred edges are changed, and the encoder does not see their types: it predicts the same from the structure
    before and after, so that one forward pass gives both directions' probabilities. Which edges are blurred does not
    depend on the structure, so the mixture over them keeps detailed balance. Entities keep their types.
    """

    graph: MegaGraph
    network: ProposalNetwork
    kind: str
    reverse: Tensor | None = None

    def propose(self, draws: ops.Draws, edge_types: Tensor, node_types: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See :class:`Proposer`."""
        whole_entity = self.kind in ("node", "flip")
        blurred = blurred_edges(self.graph, draws, whole_entity, self.reverse)
        table = self.network.structure_table(edge_types, blurred, self.graph)
        if self.reverse is not None:
            table = table.agreed(self.graph)
        kind = "edge" if self.kind == "edge" else "system"
        edges, _, log_ratio = ops.propose_from_table(
            self.graph, draws, kind, table.edge, None, edge_types, None, blurred, self.reverse
        )
        return edges, node_types, log_ratio

    def sources(self) -> tuple[ops.ProposalSource, ...] | None:
        """See :class:`Proposer`: a network is asked before every proposal."""
        return None


@dataclass(frozen=True)
class InTurn:
    """One proposer after the other, by the number of the step."""

    proposers: tuple[Proposer, ...]

    def propose(self, draws: ops.Draws, edge_types: Tensor, node_types: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See :class:`Proposer`."""
        return self.proposers[draws.step % len(self.proposers)].propose(draws, edge_types, node_types)

    def sources(self) -> tuple[ops.ProposalSource, ...] | None:
        """See :class:`Proposer`."""
        each = [proposer.sources() for proposer in self.proposers]
        if any(one is None or len(one) > 1 for one in each) or len(each) > ops.MOST_SOURCES:
            return None
        return tuple(source for one in each if one is not None for source in one)
