"""Gradients of the operations for torch's autograd, each by the native gradient kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nri_fast import ops
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary


class RolloutEnergy(torch.autograd.Function):
    """Energies [structures, systems], differentiable in the flat parameters and the flat states."""

    @staticmethod
    def forward(
        ctx: Any,
        parameters: Tensor,
        states: Tensor,
        library: ModuleLibrary,
        graph: MegaGraph,
        steps: int,
        edge_types: Tensor,
        node_types: Tensor | None,
        rollout: int,
        error: ops.ErrorMeasure,
        observed: Tensor | None,
        present: Tensor | None,
        step_scale: Tensor | None,
    ) -> Tensor:
        """Scores every structure."""
        ctx.save_for_backward(parameters, states)
        rest = (edge_types, node_types, rollout, error, observed, present, step_scale)
        ctx.rest = (library, graph, steps, *rest)
        return ops.rollout_energy(library, parameters, graph, states, steps, *rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """One native gradient per structure."""
        parameters, states = ctx.saved_tensors
        library, graph, steps, edge_types, node_types, rollout, error, observed, present, step_scale = ctx.rest
        with_states = ctx.needs_input_grad[1]
        parameter_sum = torch.zeros_like(parameters)
        state_sum = torch.zeros_like(states) if with_states else None
        for types, cotangent in zip(edge_types, cotangents[0].contiguous(), strict=True):
            _, parameter_gradient, state_gradient = ops.rollout_gradient(
                library,
                parameters,
                graph,
                states,
                steps,
                types,
                node_types,
                rollout,
                error,
                cotangent,
                with_states,
                observed,
                present,
                step_scale,
            )
            parameter_sum += parameter_gradient
            if state_sum is not None and state_gradient is not None:
                state_sum += state_gradient
        return parameter_sum, state_sum, *[None] * 10


class HeatBathScores(torch.autograd.Function):
    """Heat-bath scores [rows], differentiable in the flat parameters."""

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, problem: ops.HeatBathProblem) -> Tensor:
        """Scores every row."""
        # The states are saved too, so that changing them in place before the backward pass is noticed.
        ctx.save_for_backward(parameters, problem.states)
        ctx.problem, ctx.kept = problem, problem.room(parameters) if ctx.needs_input_grad[0] else None
        return problem.scores(parameters, ctx.kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the weighted scores."""
        parameters, _ = ctx.saved_tensors
        return ctx.problem.gradient(parameters, cotangents[0].contiguous(), ctx.kept), None


class LinearRows(torch.autograd.Function):
    """A dense layer on rows [rows, in], differentiable in all three: :func:`nri_fast.ops.linear`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[rows, out]."""
        ctx.save_for_backward(rows, weight)
        ctx.with_bias = bias is not None
        return ops.linear(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of all three at once."""
        rows, weight = ctx.saved_tensors
        found, of_weight, of_bias = ops.linear_gradient(
            rows, weight, gradients[0].contiguous(), ctx.needs_input_grad[0]
        )
        return found, of_weight, of_bias if ctx.with_bias else None
