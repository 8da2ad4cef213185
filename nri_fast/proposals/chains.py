"""Several Metropolis chains a system on roll-out energies, with replica exchange and the best structure kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.graph import to_device
from nri_fast.proposals.proposers import Proposer
from nri_fast.rollouts import Rollouts


class Chains:
    """Chains of every system of a batch, side by side in one mega-graph.

    Chain c of all systems has one temperature. Energies may be counted in a unit of each system's own, so that one
    ladder of temperatures suits systems of any scale and none depends on its company.

    Parameters
    ----------
    rollouts : Rollouts
        Gives energies, and says what structures obey.
    proposer : Proposer
        Gives proposals; a chain samples only while it stays the same.
    edge_types, node_types : Tensor
        [chains, edges], [chains, nodes] uint8 of the roll-outs' graph: where the chains start. Copied.
    seed : int
        Names the random draws.
    unit : Tensor, optional
        [B] positive units of energy; ones if not given.
    hastings : bool
        Metropolis-Hastings, or the paper's plain rule.

    Attributes
    ----------
    energy : Tensor
        [chains, B] in those units.
    best_edge_types, best_node_types, best_energy : Tensor
        The structures of lowest energy that any chain of a system has held.
    counts : Tensor
        [chains, B, 4] (:data:`nri_fast.ops.COUNTS`).
    exchanged : Tensor
        [chains - 1] int64: accepted exchanges between neighbouring temperatures, all systems together.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        proposer: Proposer,
        edge_types: Tensor,
        node_types: Tensor,
        seed: int = 0,
        unit: Tensor | None = None,
        hastings: bool = True,
    ) -> None:
        graph = rollouts.graph
        chains = edge_types.shape[0]
        if edge_types.shape != (chains, graph.edges) or node_types.shape != (chains, graph.nodes) or chains < 1:
            raise ValueError(
                f"edge_types, node_types: expected [chains, {graph.edges}] and [chains, {graph.nodes}], got "
                f"{[*edge_types.shape]} and {[*node_types.shape]}"
            )
        self.rollouts, self.proposer, self.seed, self.unit, self.hastings = rollouts, proposer, seed, unit, hastings
        self.edge_types, self.node_types = edge_types.clone(), node_types.clone()
        self.energy = self._energies(self.edge_types, self.node_types)
        self.counts = torch.zeros(chains, graph.systems, len(ops.COUNTS), dtype=torch.int64, device=graph.device)
        self.exchanged = torch.zeros(chains - 1, dtype=torch.int64, device=graph.device)
        self.best_edge_types, self.best_node_types = self.edge_types[0].clone(), self.node_types[0].clone()
        self.best_energy = self.energy[0].clone()
        self._keep_best()

    def __len__(self) -> int:
        return self.edge_types.shape[0]

    def step(self, number: int, temperatures: Sequence[float]) -> None:
        """One proposal for every chain of every system, accepted or rejected.

        Parameters
        ----------
        number : int
            Of the step, below 2^31 / chains; names its random draws.
        temperatures : sequence of float
            One for each chain.
        """
        if len(temperatures) != len(self):
            raise ValueError(f"temperatures: expected {len(self)}, one for each chain, got {len(temperatures)}")
        proposals = [
            self.proposer.propose(self._draws(number, c), self.edge_types[c], self.node_types[c])
            for c in range(len(self))
        ]
        energy = self._energies(torch.stack([p[0] for p in proposals]), torch.stack([p[1] for p in proposals]))
        for c, ((edges, nodes, log_ratio), temperature) in enumerate(zip(proposals, temperatures, strict=True)):
            ops.metropolis_decide(
                self.rollouts.graph,
                self._draws(number, c),
                self.energy.new_full((1,), temperature),
                energy[c],
                edges,
                nodes,
                self.energy[c],
                self.edge_types[c],
                self.node_types[c],
                self.counts[c],
                log_ratio if self.hastings else None,
            )
        self._keep_best()

    def run(self, number: int, temperatures: Sequence[Sequence[float]]) -> None:
        """:meth:`step` and :meth:`exchange` again and again, with the bits that they would give one by one.

        Where no network is asked between proposals, and no structure is shared, it is a single call of the kernels.

        Parameters
        ----------
        number : int
            Of the first step.
        temperatures : sequence of sequences of float
            [steps, chains], positive.
        """
        sources = self.proposer.sources() if self.rollouts.runs_natively else None
        table = torch.tensor(temperatures, dtype=torch.float64).reshape(-1, len(self))
        if sources is None or not bool((table > 0).all()):
            for step, row in enumerate(temperatures):
                self.step(number + step, row)
                self.exchange(number + step, row)
            return
        nodes = self.rollouts.library.node_types > 1
        chains = ops.ChainArrays(
            self.energy,
            self.edge_types,
            self.node_types if nodes else None,
            self.counts,
            self.exchanged,
            self.best_energy,
            self.best_edge_types,
            self.best_node_types if nodes else None,
        )
        self.rollouts.run(
            self._draws(number, 0),
            sources,
            chains,
            to_device(table, self.energy.device),
            stride=2 * len(self),
            hastings=self.hastings,
            exchange=True,
            unit=self.unit,
        )

    def exchange(self, number: int, temperatures: Sequence[float]) -> None:
        """Neighbouring chains swap structures with probability min(1, exp((1/T_a - 1/T_b) (E_a - E_b))).

        Pairs (0, 1), (2, 3), ... at even steps, the others at odd ones. Source: Swendsen and Wang (1986), Geyer (1991).
        An energy that is not finite is never swapped. Temperatures must be positive.
        """
        graph = self.rollouts.graph
        nothing = torch.zeros(graph.edges, dtype=torch.uint8, device=graph.device)
        for a in range(number % 2, len(self) - 1, 2):
            b = a + 1
            if not (temperatures[a] > 0 and temperatures[b] > 0):
                raise ValueError(f"temperatures: expected positive ones, got {temperatures[a]} and {temperatures[b]}")
            rise = (self.energy[a] - self.energy[b]) * (1.0 / temperatures[b] - 1.0 / temperatures[a])
            counts = torch.zeros(graph.systems, len(ops.COUNTS), dtype=torch.int64, device=graph.device)
            # The Metropolis rule at temperature 1, for an energy that would rise by so much.
            draws, one = self._draws(number, len(self) + a), torch.ones_like(self.energy[0, :1])
            now = torch.zeros_like(rise)
            ops.metropolis_decide(graph, draws, one, rise, nothing, None, now, nothing.clone(), None, counts)
            swap = counts[:, 1].bool()
            self._swap(a, b, swap)
            self.exchanged[a] += swap.sum()

    def _swap(self, a: int, b: int, swap: Tensor) -> None:
        graph = self.rollouts.graph
        of_node = torch.repeat_interleave(swap, graph.node_offset.diff())
        for values, chosen in (
            (self.energy, swap),
            (self.edge_types, of_node[graph.receiver]),
            (self.node_types, of_node),
        ):
            first, second = values[a].clone(), values[b].clone()
            values[a] = torch.where(chosen, second, first)
            values[b] = torch.where(chosen, first, second)

    def _draws(self, number: int, place: int) -> ops.Draws:
        return ops.Draws(self.seed, number * 2 * len(self) + place, self.rollouts.names)

    def _energies(self, edge_types: Tensor, node_types: Tensor) -> Tensor:
        energy = self.rollouts.energies_of_several(edge_types, node_types)
        return energy if self.unit is None else energy / self.unit

    def _keep_best(self) -> None:
        graph = self.rollouts.graph
        for c in range(len(self)):
            better = (self.energy[c] < self.best_energy) | (self.best_energy.isnan() & ~self.energy[c].isnan())
            of_node = torch.repeat_interleave(better, graph.node_offset.diff())
            self.best_energy = torch.where(better, self.energy[c], self.best_energy)
            self.best_edge_types = torch.where(of_node[graph.receiver], self.edge_types[c], self.best_edge_types)
            self.best_node_types = torch.where(of_node, self.node_types[c], self.best_node_types)
