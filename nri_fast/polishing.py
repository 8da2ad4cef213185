"""What training of forecasts asks for: how far its roll-outs reach, and the pieces of recordings that they follow."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from nri_fast.system_set import Batch

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
