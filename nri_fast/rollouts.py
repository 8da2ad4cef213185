"""Roll-out energies of one batch under fixed modules, and the gradient of their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.couplings import UNTIED, Coupling
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary
from nri_fast.presence import compared_predictions
from nri_fast.system_set import Batch

LEAST_SYSTEMS = 16  # of a batch whose choices and gradient are made in one pass


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
    coupling : Coupling
        What structures obey; by default nothing. One that all systems share has energies of its own
        (:class:`nri_fast.shared_rollouts.SharedRollouts`).
    """

    library: ModuleLibrary
    parameters: Tensor
    batch: Batch
    steps: int
    rollout: int
    error: ops.ErrorMeasure
    coupling: Coupling = UNTIED

    # Whether :meth:`run` is there.
    runs_natively = True

    @property
    def graph(self) -> MegaGraph:
        """Whose systems have a structure each."""
        return self.batch.graph

    @property
    def names(self) -> Tensor:
        """[structures] int64: name random draws."""
        return self.batch.systems

    @property
    def reverse(self) -> Tensor | None:
        """[edges] of :attr:`graph`: what edges change together with, if both directions of a pair have one type."""
        return self.graph.reverse if self.coupling.undirected else None

    def of_structures(self, edges: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the batch's edges and entities, which obey the coupling, as values of :attr:`graph`."""
        return edges, nodes

    def of_systems(self, edges: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`of_structures`."""
        return edges, nodes

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
            present=self.batch.present,
            step_scale=self.batch.step_scale,
        )[0]

    def energies_of_several(self, edge_types: Tensor, node_types: Tensor) -> Tensor:
        """[S, B] energies of S structures, types [S, E] and [S, V]."""
        if self.library.node_types > 1:
            return torch.stack([self.energies(e, n) for e, n in zip(edge_types, node_types, strict=True)])
        return ops.rollout_energy(
            self.library,
            self.parameters,
            self.batch.graph,
            self.batch.states,
            self.steps,
            edge_types,
            None,
            self.rollout,
            self.error,
            present=self.batch.present,
            step_scale=self.batch.step_scale,
        )

    @property
    def can_choose(self) -> bool:
        """Whether :meth:`choose` runs here, and has systems enough, which it deals out whole, to keep threads busy."""
        return self.batch.graph.systems >= LEAST_SYSTEMS and ops.has_rollout_choice(self.batch.states)

    def choose(
        self,
        edge_types: Tensor,
        node_types: Tensor,
        draws: ops.Draws,
        temperature: Tensor,
        log_ratio: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """[2, B] energies and the gradient [P] of a Metropolis choice: see :func:`nri_fast.ops.rollout_choice`.

        Types are [2, E] and [2, V]: the structures held and those proposed.
        """
        return ops.rollout_choice(
            self.library,
            self.parameters,
            self.batch.graph,
            self.batch.states,
            self.steps,
            edge_types,
            self._varying(node_types),
            self.rollout,
            self.error,
            draws,
            temperature,
            log_ratio,
            present=self.batch.present,
            step_scale=self.batch.step_scale,
        )

    def compared(self) -> Tensor:
        """[B] int64: predictions that each system's energy is the mean of."""
        graph, present = self.batch.graph, self.batch.present
        if present is None:
            return (self.steps - 1) * graph.node_offset.diff()
        return compared_predictions(graph, present, self.steps, self.rollout)

    def run(
        self,
        draws: ops.Draws,
        sources: Sequence[ops.ProposalSource],
        chains: ops.ChainArrays,
        temperature: Tensor | None = None,
        acceptance: Tensor | None = None,
        sweeps: int | None = None,
        stride: int | None = None,
        hastings: bool = True,
        exchange: bool = False,
        unit: Tensor | None = None,
    ) -> None:
        """Sweeps of Metropolis chains on these energies: see :func:`nri_fast.ops.metropolis_run`."""
        ops.metropolis_run(
            self.library,
            self.parameters,
            self.batch.graph,
            self.batch.states,
            self.steps,
            self.rollout,
            self.error,
            draws,
            sources,
            chains,
            temperature,
            sweeps,
            stride,
            hastings,
            exchange,
            unit,
            acceptance,
            present=self.batch.present,
            step_scale=self.batch.step_scale,
        )

    def mean_gradient(
        self, edge_types: Tensor, node_types: Tensor, energy: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean of the structures' energies, which the caller may have, and its gradient [P].

        Systems whose energy is not finite take no part; where none is left the mean is NaN.
        """
        if energy is None:  # all of them are finite, as a rule: the gradient's own energies will do
            energy, gradient = self._gradient(edge_types, node_types, self._even_share())
            if bool(torch.isfinite(energy).all()):
                return energy.mean(), gradient
        _, gradient = self._gradient(edge_types, node_types, torch.isfinite(energy) * self._even_share())
        return finite_mean(energy), gradient

    def _even_share(self) -> Tensor:
        systems = self.batch.graph.systems
        return self.batch.states.new_full((systems,), 1.0 / systems)

    def _gradient(self, edge_types: Tensor, node_types: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """[B] energies and [P] the gradient of their sum, each as far as its share [B] goes."""
        energy, gradient, _ = ops.rollout_gradient(
            self.library,
            self.parameters,
            self.batch.graph,
            self.batch.states,
            self.steps,
            edge_types,
            self._varying(node_types),
            self.rollout,
            self.error,
            share,
            present=self.batch.present,
            step_scale=self.batch.step_scale,
        )
        return energy, gradient

    def _varying(self, node_types: Tensor) -> Tensor | None:
        return node_types if self.library.node_types > 1 else None


def finite_mean(energy: Tensor) -> Tensor:
    """Sum of the energies that are finite over the number of all; NaN if none is."""
    finite = torch.isfinite(energy)
    mean = torch.where(finite, energy, torch.zeros_like(energy)).mean()
    return torch.where(finite.any(), mean, torch.nan)


def residuals(
    library: ModuleLibrary,
    parameters: Tensor,
    batch: Batch,
    steps: int,
    start: Tensor,
    horizon: int,
    edge_types: Tensor,
    node_types: Tensor,
    weight: Tensor,
) -> Tensor:
    """[predictions compared] weighted mean squared errors of open-loop predictions under a structure.

    Parameters
    ----------
    library, parameters, batch, steps, edge_types, node_types
        As :class:`Rollouts` has them.
    start : Tensor
        [B] int64: recorded step that each system's prediction starts from, at most steps - 1 - horizon.
    horizon : int
        Steps to predict.
    weight : Tensor
        [D] weights of the features, as in an error measure.
    """
    recorded = batch.states.view(-1, library.features)
    places = batch.places(steps, start)
    initial, part = recorded[places], None if batch.present is None else batch.present[places]
    nodes = node_types if library.node_types > 1 else None
    flat = ops.forecast(library, parameters, batch.graph, initial, horizon, edge_types, nodes, part, batch.step_scale)
    predicted = flat.view(-1, library.features)
    errors = []
    for h in range(horizon):
        then = predicted[batch.places(horizon, torch.full_like(start, h))]
        place = batch.places(steps, start + h + 1)
        error = ((then - recorded[place]) ** 2 * weight).mean(-1)
        errors.append(error if part is None or batch.present is None else error[(part & batch.present[place]).bool()])
    return torch.cat(errors)
