"""Roll-out energies of one batch under fixed modules, and the gradient of their mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.modules import ModuleLibrary
from nri_fast.system_set import Batch


@dataclass(frozen=True)
class Rollouts:
    """What energies of a batch have in common, whatever the structure.

    Attributes
    ----------
    library : ModuleLibrary
        The modules.
    parameters : Tensor
        [P] their flat parameters.
    batch : Batch
        The systems.
    steps, rollout : int
        Recorded steps, and steps that a roll-out takes between recorded states (R).
    error : ErrorMeasure
        How errors are measured.
    """

    library: ModuleLibrary
    parameters: Tensor
    batch: Batch
    steps: int
    rollout: int
    error: ops.ErrorMeasure

    def energies(self, edge_types: Tensor, node_types: Tensor) -> Tensor:
        """[B] energies of flat types."""
        return ops.rollout_energy(
            self.library,
            self.parameters,
            self.batch.graph,
            self.batch.states,
            self.steps,
            edge_types[None],
            self._varying(node_types),
            self.rollout,
            self.error,
        )[0]

    def mean_gradient(self, edge_types: Tensor, node_types: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the structures' energies, which the caller has, and its gradient [P].

        Systems whose energy is not finite take no part; where none is left the mean is NaN.
        """
        finite = torch.isfinite(energy)
        _, gradient, _ = ops.rollout_gradient(
            self.library,
            self.parameters,
            self.batch.graph,
            self.batch.states,
            self.steps,
            edge_types,
            self._varying(node_types),
            self.rollout,
            self.error,
            finite.to(energy.dtype) / len(energy),
        )
        mean = torch.where(finite, energy, torch.zeros_like(energy)).mean()
        return mean if bool(finite.any()) else torch.full_like(mean, torch.nan), gradient

    def _varying(self, node_types: Tensor) -> Tensor | None:
        return node_types if self.library.node_types > 1 else None
