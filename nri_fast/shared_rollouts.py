"""Roll-out energies of one structure that all systems of a batch are recordings of."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.couplings import Coupling
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary
from nri_fast.rollouts import Rollouts
from nri_fast.system_set import Batch, complete_graph


class SharedRollouts(Rollouts):
    """The batch's recordings count as one long one: the energy is the mean over all predictions of all of them.

    So a recording weighs as much as is compared in it, and a proposal is judged by all of them at once. Chains, bounces
    and descents see one system; its random draws are those of system 0, whatever the batch. Recordings in which nothing
    is finite make the energy so.
    """

    runs_natively = False
    can_choose = False

    @cached_property
    def graph(self) -> MegaGraph:
        """Of the one structure."""
        entities = self.batch.graph.entities
        if entities is None:
            raise ValueError("shared: expected complete graphs of one size, got systems that differ")
        return complete_graph(1, entities, self.batch.graph.device)

    @cached_property
    def names(self) -> Tensor:
        """See :class:`Rollouts`."""
        return torch.zeros(1, dtype=torch.int64, device=self.batch.graph.device)

    def of_structures(self, edges: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The first recording's values, which the others share."""
        return edges[: self.graph.edges].contiguous(), nodes[: self.graph.nodes].contiguous()

    def of_systems(self, edges: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The structure's values, once for each recording."""
        return self._repeated(edges), self._repeated(nodes)

    def energies(self, edge_types: Tensor, node_types: Tensor) -> Tensor:
        """[1] energy of the structure."""
        return self._together(super().energies(*self.of_systems(edge_types, node_types)))

    def energies_of_several(self, edge_types: Tensor, node_types: Tensor) -> Tensor:
        """[S, 1] energies of S structures."""
        if self.library.node_types > 1:
            return super().energies_of_several(edge_types, node_types)  # which asks :meth:`energies` for each
        return self._together(super().energies_of_several(edge_types.repeat(1, len(self.batch.systems)), node_types))

    def compared(self) -> Tensor:
        """[1] int64: predictions that the energy is the mean of."""
        return super().compared().sum(0, keepdim=True)

    def mean_gradient(
        self, edge_types: Tensor, node_types: Tensor, energy: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The structure's energy, which the caller may have, and its gradient [P]."""
        each, gradient = self._gradient(*self.of_systems(edge_types, node_types), self._share.to(self.parameters.dtype))
        return (self._together(each) if energy is None else energy)[0], gradient

    @cached_property
    def _share(self) -> Tensor:
        """[B] float64: of all predictions, those in each recording."""
        counts = super().compared().double()
        return counts / counts.sum()

    def _together(self, energy: Tensor) -> Tensor:
        """[..., B] energies of the recordings -> [..., 1]."""
        each = torch.where(self._share > 0, self._share * energy.double(), 0.0)
        return each.sum(-1, keepdim=True).to(energy.dtype)

    def _repeated(self, values: Tensor) -> Tensor:
        return values.repeat(len(self.batch.systems), *[1] * (values.ndim - 1))


def tied_rollouts(
    library: ModuleLibrary,
    parameters: Tensor,
    batch: Batch,
    steps: int,
    rollout: int,
    error: ops.ErrorMeasure,
    coupling: Coupling,
) -> Rollouts:
    """Energies of structures that obey a coupling; arguments as :class:`Rollouts` has them."""
    kind = SharedRollouts if coupling.shared else Rollouts
    return kind(library, parameters, batch, steps, rollout, error, coupling)
