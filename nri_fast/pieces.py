"""Pieces of recordings that forecasts learn from: how far roll-outs reach, what they follow, and what they begin."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from nri_fast import ops
from nri_fast.modules import ModuleLibrary
from nri_fast.presence import owners
from nri_fast.system_set import Batch, SystemSet

LOST = 2.0  # farther from what was recorded a forecast is not followed: normalised features range over that much
GROWTH = 0.5  # share of the steps over which roll-outs grow to their full length


def horizon(done: float, rollout: int) -> int:
    """Steps of a roll-out: from 1 to `rollout` by a constant factor over the first half, then `rollout`.

    Modules that are right at one step are a better start for two than modules that are not, and so on.
    """
    return max(1, min(rollout, int(rollout ** min(1.0, done / GROWTH) + 1e-9)))


def piece_length(steps: int, rollout: int) -> int:
    """Steps of a recording that are followed at a time: room is left for a start at any of `rollout` steps."""
    return min(steps, max(rollout + 1, steps - rollout + 1))


def piece(batch: Batch, steps: int, start: Tensor, length: int) -> Batch:
    """A batch whose systems are recorded from step `start` [B] on, for `length` steps."""
    features = len(batch.states) // (batch.graph.nodes * steps)
    recorded = batch.states.view(-1, features)
    states = recorded.new_empty(batch.graph.nodes * length, features)
    present = None if batch.present is None else batch.present.new_empty(len(states))
    for step in range(length):
        here, there = batch.places(length, torch.full_like(start, step)), batch.places(steps, start + step)
        states[here] = recorded[there]
        if present is not None and batch.present is not None:
            present[here] = batch.present[there]
    return dataclasses.replace(batch, states=states.flatten(), present=present)


def from_own_states(
    systems: SystemSet,
    batch: Batch,
    start: Tensor,
    modules: Sequence[tuple[ModuleLibrary, Tensor]],
    substeps: int,
    edge_types: Tensor,
    node_types: Tensor,
) -> Batch:
    """Transitions that begin at every step of forecasts but their first, and end where recordings did.

    Parameters
    ----------
    systems, batch : SystemSet, Batch
        All systems, and those that are forecast.
    start : Tensor
        [B] int64: the recorded steps that forecasts start from.
    modules : sequence of (ModuleLibrary, Tensor)
        What takes each recorded step of the forecasts, with its flat parameters.
    substeps : int
        Steps of the modules for a recorded one.
    edge_types, node_types : Tensor
        Flat types of the batch.

    Returns
    -------
    Batch
        Of two recorded steps, as :func:`from_forecasts` makes it: all systems one step on, then two, and so on.
    """
    here = batch.places(systems.steps, start)
    state = batch.states.view(-1, systems.features)[here]
    part = None if batch.present is None else batch.present[here]
    last = batch.places(substeps, torch.full_like(start, substeps - 1))
    reached = []
    for library, parameters in modules:
        nodes = node_types if library.node_types > 1 else None
        flat = ops.forecast(
            library, parameters, batch.graph, state, substeps, edge_types, nodes, part, batch.step_scale
        )
        state = flat.view(-1, systems.features)[last]
        reached.append(state)
    steps_on = torch.arange(1, len(modules) + 1, device=start.device)[:, None]
    parts = None if part is None else part.repeat(len(modules))
    return from_forecasts(
        systems, batch.systems.repeat(len(modules)), (start + steps_on).flatten(), torch.cat(reached), parts
    )


def from_forecasts(systems: SystemSet, ids: Tensor, start: Tensor, states: Tensor, part: Tensor | None) -> Batch:
    """Transitions that begin where forecasts have come to, and end where recordings did.

    Parameters
    ----------
    systems : SystemSet
        All systems.
    ids, start : Tensor
        [B] int64: systems, and the recorded steps that were forecast.
    states : Tensor
        [nodes of these systems, D] the forecasts.
    part : Tensor or None
        [nodes] uint8: who took part in them; None: everybody.

    Returns
    -------
    Batch
        Of two recorded steps. Nobody is there in systems of which a forecast is lost, or not finite.
    """
    followed = piece(systems.batch(ids), systems.steps, start, 2)
    graph, rows = followed.graph, followed.states.view(-1, systems.features)
    first = followed.places(2, torch.zeros_like(start))
    present = torch.ones(len(rows), dtype=torch.uint8, device=rows.device)
    if followed.present is not None:
        present = followed.present
    there = present.new_ones(graph.nodes) if part is None else part
    away = (states - rows[first]).abs().amax(1)
    lost = there.bool() & ~(away <= LOST) & (present[first].bool() | ~torch.isfinite(away))
    lost_of_system = torch.zeros(graph.systems, dtype=torch.int32, device=rows.device)
    lost_of_system.index_add_(0, owners(graph), lost.int())
    taken = there.bool() & (lost_of_system == 0)[owners(graph)]
    rows[first] = torch.where(taken[:, None], states, 0.0)
    present[first] = taken.to(torch.uint8)
    return dataclasses.replace(followed, present=present)
