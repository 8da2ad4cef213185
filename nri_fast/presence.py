"""Who is there when: masks of recorded states as the kernels see them, and what follows from them.

A flat mask is uint8, [sum over systems of steps * N_b], laid out as flat states are (``csrc/common/views.h``), zero
where nothing was recorded; None stands for recordings without holes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast.graph import MegaGraph


def flat_places(graph: MegaGraph, steps: int) -> Tensor:
    """[steps, nodes] int64: where each entity's state at each step stands in flat states."""
    sizes = graph.node_offset.diff()
    first = graph.node_offset[:-1].repeat_interleave(sizes)
    within = torch.arange(graph.nodes, device=graph.device) - first
    step = torch.arange(steps, device=graph.device)[:, None]
    return steps * first + step * sizes.repeat_interleave(sizes) + within


def owners(graph: MegaGraph) -> Tensor:
    """[nodes] int64: the system of every entity."""
    return torch.arange(graph.systems, device=graph.device).repeat_interleave(graph.node_offset.diff())


def present_by_step(graph: MegaGraph, present: Tensor, steps: int) -> Tensor:
    """[steps, nodes] bool."""
    return present.bool()[flat_places(graph, steps)]


def compared_by_step(graph: MegaGraph, present: Tensor, steps: int) -> Tensor:
    """[steps - 1, nodes] bool: whether an entity is there before and after a transition."""
    there = present_by_step(graph, present, steps)
    return there[:-1] & there[1:]


def compared_transitions(graph: MegaGraph, present: Tensor, steps: int, start: Tensor) -> Tensor:
    """[nodes] int64: in how many of its system's transitions, which begin at `start` [systems, L], each is compared."""
    compared = compared_by_step(graph, present, steps)
    return compared.gather(0, start[owners(graph)].T).sum(0)


def systems_with(graph: MegaGraph, flags: Tensor) -> Tensor:
    """[systems, steps] bool: whether there is an entity of the system with a flag, `flags` being [steps, nodes]."""
    counts = torch.zeros(graph.systems, len(flags), dtype=torch.int32, device=graph.device)
    return counts.index_add_(0, owners(graph), flags.T.int()) > 0


def lengths(graph: MegaGraph, present: Tensor, steps: int) -> Tensor:
    """[systems] int64: steps of each recording up to the last one at which anybody is there."""
    there = systems_with(graph, present_by_step(graph, present, steps))
    return (there * torch.arange(1, steps + 1, device=graph.device)).amax(1)


def compared_predictions(graph: MegaGraph, present: Tensor, steps: int, rollout: int) -> Tensor:
    """[systems] int64: predictions that roll-outs of `rollout` steps are compared in."""
    there = present_by_step(graph, present, steps)
    start = torch.arange(steps - 1, device=graph.device) // rollout * rollout
    counts = (there[start] & there[1:]).sum(0)
    return torch.zeros(graph.systems, dtype=torch.int64, device=graph.device).index_add_(0, owners(graph), counts)
