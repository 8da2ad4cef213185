"""Roll-outs: their energies, gradients of these, choices between two of them, and forecasts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast import _core
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary
from nri_fast.ops.draws import Draws
from nri_fast.ops.place import address, place, scores_rounded, scoring_place, uses_cuda_kernels


@dataclass(frozen=True)
class ErrorMeasure:
    """How a transition's error is measured.

    ``e`` is the mean over features of ``weight * (predicted - recorded)^2``; the energy averages ``e`` over transitions
    and entities, or, with ``scale_squared`` set, the robust ``log(scale_squared + e)``.

    Attributes
    ----------
    weight : Tensor
        [D] weights, same type and device as the trajectories.
    scale_squared : float or None
        s^2 of the robust error, positive.
    """

    weight: Tensor
    scale_squared: float | None = None

    @property
    def native(self) -> _core.ErrorMeasure:
        """What the kernels see."""
        return _core.ErrorMeasure(self.scale_squared is not None, self.scale_squared or 0.0, self.weight.data_ptr())


def rollout_energy(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    states: Tensor,
    steps: int,
    edge_types: Tensor,
    node_types: Tensor | None,
    rollout: int,
    error: ErrorMeasure,
    observed: Tensor | None = None,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """[structures, systems] energies of ``edge_types`` [structures, edges]. See ``csrc/ops/rollout_energy.h``.

    ``observed`` [nodes] uint8 is zero where an entity's predictions are not compared; ``present`` uint8, laid out as
    the states, where a state is absent; ``step_scale`` is [systems].
    """
    energy = states.new_empty(edge_types.shape[0], graph.systems)
    _core.rollout_energy(
        scoring_place(states),
        states.dtype == torch.float64,
        library.layout,
        address(parameters),
        graph.native,
        _core.Trajectories(steps, address(states), address(present), address(step_scale)),
        error.native,
        rollout,
        address(node_types),
        address(observed),
        edge_types.shape[0],
        address(edge_types),
        address(energy),
    )
    return energy


def rollout_gradient(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    states: Tensor,
    steps: int,
    edge_types: Tensor,
    node_types: Tensor | None,
    rollout: int,
    error: ErrorMeasure,
    cotangent: Tensor,
    with_states: bool = False,
    observed: Tensor | None = None,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Energies [systems], parameter gradient [P] and, if wanted, the gradient of ``states``, for one structure.

    See ``csrc/ops/rollout_gradient.h``. Systems with a zero ``cotangent`` may go unevaluated: their energies come as 0.
    """
    energy = states.new_empty(graph.systems)
    parameter_gradient = torch.empty_like(parameters)
    state_gradient = torch.empty_like(states) if with_states else None
    _core.rollout_gradient(
        place(states),
        states.dtype == torch.float64,
        library.layout,
        address(parameters),
        graph.native,
        _core.Trajectories(steps, address(states), address(present), address(step_scale)),
        error.native,
        rollout,
        address(node_types),
        address(observed),
        address(edge_types),
        address(cotangent),
        address(energy),
        address(parameter_gradient),
        address(state_gradient),
    )
    return energy.masked_fill_(cotangent == 0, 0.0), parameter_gradient, state_gradient


def has_rollout_choice(states: Tensor) -> bool:
    """Whether :func:`rollout_choice` runs where these states lie, in the precision that energies are asked for in."""
    return not (scores_rounded(states) or uses_cuda_kernels(states))


def rollout_choice(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    states: Tensor,
    steps: int,
    edge_types: Tensor,
    node_types: Tensor | None,
    rollout: int,
    error: ErrorMeasure,
    draws: Draws,
    temperature: Tensor,
    log_ratio: Tensor | None = None,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Energies [2, systems] of the structures held and proposed, and the gradient [P] of the chosen ones' mean.

    ``edge_types`` is [2, edges], ``node_types`` [2, nodes]; draws, ``temperature`` and ``log_ratio`` as
    :func:`metropolis_decide` takes them, which comes to the same choice and updates structures. CPU only. See
    ``csrc/ops/rollout_choice.h``.
    """
    energy = states.new_empty(2, graph.systems)
    parameter_gradient = torch.empty_like(parameters)
    _core.rollout_choice(
        place(states),
        states.dtype == torch.float64,
        library.layout,
        address(parameters),
        graph.native,
        _core.Trajectories(steps, address(states), address(present), address(step_scale)),
        error.native,
        rollout,
        address(edge_types),
        address(node_types),
        draws.seed,
        draws.step,
        address(draws.system_ids),
        address(temperature),
        address(log_ratio),
        address(energy),
        address(parameter_gradient),
    )
    return energy, parameter_gradient


def forecast(
    library: ModuleLibrary,
    parameters: Tensor,
    graph: MegaGraph,
    initial: Tensor,
    horizon: int,
    edge_types: Tensor,
    node_types: Tensor | None,
    present: Tensor | None = None,
    step_scale: Tensor | None = None,
) -> Tensor:
    """Flat predicted trajectories of ``horizon`` steps from ``initial`` [nodes, D].

    Entities for which ``present`` [nodes] uint8 is zero take no part: NaN. ``step_scale`` is [systems].
    """
    states = initial.new_empty(horizon * initial.numel())
    _core.forecast(
        place(initial),
        initial.dtype == torch.float64,
        library.layout,
        address(parameters),
        graph.native,
        address(initial),
        horizon,
        address(edge_types),
        address(node_types),
        address(present),
        address(step_scale),
        address(states),
    )
    return states
