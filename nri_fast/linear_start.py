"""Modules that begin with what an entity's own state says: the best linear prediction of its change.

Learning how fast a position moves at a given velocity from random weights takes thousands of steps and stays inexact,
and an error in it grows with every step of a roll-out. Here least squares does it, and training begins behind that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nri_fast.modules import ModuleLibrary
from nri_fast.presence import owners
from nri_fast.system_set import SystemSet


def start_linearly(library: ModuleLibrary, systems: SystemSet) -> None:
    """Sets the node modules' weights so that, whatever the messages, they predict the linear least-squares change.

    A number passes a ReLU layer unharmed in two units, one for its positive and one for its negative part. All other
    units keep their random weights, and count nothing in the output until training makes them.

    Parameters
    ----------
    library : ModuleLibrary
        With its change scale set; changed in place.
    systems : SystemSet
        Training systems.

    Raises
    ------
    ValueError
        A hidden layer of the node modules has fewer than two units for each feature that they see.
    """
    seen = [d for d in range(library.features) if d not in library.relative]
    units = 2 * len(seen)
    if min(library.node_hidden, default=0) < units:
        raise ValueError(
            f"node_hidden: expected at least one layer, each of {units} units or more for a linear start with "
            f"{len(seen)} features, got {library.node_hidden}"
        )
    coefficients = linear_change(systems, seen, library.change_scale)
    with torch.no_grad():
        for module in library.node:
            first, *middle, last = [layer for layer in module.children() if isinstance(layer, nn.Linear)]
            pair = first.weight.new_tensor([1.0, -1.0])
            first.weight[:units] = 0.0
            first.weight[torch.arange(units), library.message + torch.tensor(seen).repeat_interleave(2)] = pair.repeat(
                len(seen)
            )
            first.bias[:units] = 0.0
            for layer in middle:
                layer.weight[:units] = 0.0
                layer.weight[:units, :units].fill_diagonal_(1.0)
                layer.bias[:units] = 0.0
            last.weight.zero_()
            last.weight[:, :units] = coefficients[:, :-1].repeat_interleave(2, 1) * pair.repeat(len(seen))
            last.bias.copy_(coefficients[:, -1])


def linear_change(systems: SystemSet, seen: list[int], scale: Tensor) -> Tensor:
    """[D, seen + 1] of one step's change, in units of `scale` [D]: slopes by the features `seen`, and the constant.

    Over all recorded transitions, a change being that of the modules' time step.
    """
    batch = systems.batch(range(len(systems)))
    recorded = batch.states.view(-1, systems.features)
    size = len(seen) + 1
    squares = torch.zeros(size, size, dtype=torch.float64, device=recorded.device)
    products = torch.zeros(size, systems.features, dtype=torch.float64, device=recorded.device)
    for step in range(systems.steps - 1):
        here, next_one = (batch.places(systems.steps, torch.full_like(batch.systems, s)) for s in (step, step + 1))
        now, change = recorded[here].double(), (recorded[next_one].double() - recorded[here]) / scale
        if batch.step_scale is not None:
            change /= batch.step_scale[owners(batch.graph)][:, None]
        design = torch.cat([now[:, seen], torch.ones_like(now[:, :1])], 1)
        if batch.present is not None:
            design *= (batch.present[here] & batch.present[next_one])[:, None]
        squares += design.T @ design
        products += design.T @ change
    return torch.linalg.pinv(squares, hermitian=True).matmul(products).T.to(scale.dtype)
