"""Recorded trajectories on their way to the kernels: checked, and laid out flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nri_fast.checks import FLOATS, check_finite, check_tensor
from nri_fast.graph import MegaGraph
from nri_fast.modules import ModuleLibrary
from nri_fast.presence import flat_places


def dtype_of(library: ModuleLibrary) -> torch.dtype:
    """The type of a library's weights, and so of the states that it takes."""
    dtype = library.change_scale.dtype
    if dtype not in FLOATS:
        raise TypeError(f"library: expected {' or '.join(map(str, FLOATS))}, got {dtype}")
    return dtype


@dataclass(frozen=True)
class Recorded:
    """Trajectories as the kernels see them.

    Attributes
    ----------
    states : Tensor
        Flat: each system's [steps, entities, features] behind the other.
    steps : int
        Of the longest recording.
    present : Tensor or None
        uint8, laid out likewise without features: zero where a state is absent.
    """

    states: Tensor
    steps: int
    present: Tensor | None


def pack_trajectories(
    library: ModuleLibrary,
    graph: MegaGraph,
    trajectories: Tensor | Sequence[Tensor],
    present: Tensor | Sequence[Tensor] | None = None,
    least_steps: int = 2,
    observed: Tensor | None = None,
    rollout: int = 1,
) -> Recorded:
    """Checks trajectories and lays them out flat, each system's [steps, entities, features] behind the other.

    Parameters
    ----------
    library, graph : ModuleLibrary, MegaGraph
        What they will be used with.
    trajectories : Tensor or sequence of Tensor
        [systems, steps, N, D] where all systems have N entities, otherwise one [steps, N_b, D] per system; these may
        differ in steps.
    present : Tensor or sequence of Tensor, optional
        The same without features, bool or uint8: false where a state is absent, and may be anything.
    least_steps : int
        How many steps there must be.
    observed : Tensor, optional
        [nodes] flags: unobserved entities' states must be finite only where roll-outs of `rollout` steps start.
    """
    device = library.change_scale.device
    dtype = dtype_of(library)
    flags: Tensor | None = None
    if isinstance(trajectories, Tensor):
        sizes = set(graph.sizes)
        if len(sizes) > 1:
            raise ValueError("trajectories: the systems differ in size, expected one [steps, N_b, D] per system")
        shape = (graph.systems, None, sizes.pop() if sizes else None, library.features)
        check_tensor("trajectories", trajectories, shape, dtype, device)
        steps = trajectories.shape[1]
        states = trajectories.contiguous().flatten()
        if present is not None:
            if not isinstance(present, Tensor):
                raise TypeError(f"present: expected a tensor beside a tensor of trajectories, got {type(present)}")
            check_tensor("present", present, trajectories.shape[:3], (torch.bool, torch.uint8), device)
            flags = present.flatten()
    else:
        if len(trajectories) != graph.systems:
            raise ValueError(f"trajectories: expected {graph.systems} systems, got {len(trajectories)}")
        for b, one in enumerate(trajectories):
            check_tensor(f"trajectories[{b}]", one, (None, graph.sizes[b], library.features), dtype, device)
        lengths = [len(one) for one in trajectories]
        steps = max(lengths, default=0)
        states = joined(trajectories, steps) if lengths else torch.empty(0, dtype=dtype, device=device)
        masks = _checked_masks(present, trajectories)
        if masks is None and min(lengths, default=0) < steps:
            masks = [one.new_ones(one.shape[:2], dtype=torch.bool) for one in trajectories]
        flags = None if masks is None else joined(masks, steps)
    if graph.device != device:
        raise ValueError(f"graph: expected on {device}, got {graph.device}")
    if graph.systems == 0:
        raise ValueError("trajectories: expected at least one system, got none")
    if steps < least_steps:
        raise ValueError(f"trajectories: expected at least {least_steps} steps, got {steps}")
    flags = None if flags is None else flags.bool().to(torch.uint8)
    read = states.detach()
    absent = None if flags is None else flags == 0
    if observed is not None:
        unread = _unread(graph, observed, steps, rollout)
        absent = unread if absent is None else absent | unread
    if absent is not None:
        read = read.masked_fill(absent.repeat_interleave(library.features), 0.0)
    check_finite("trajectories", read, graph, steps, library.features)
    return Recorded(states, steps, flags)


def joined(parts: Sequence[Tensor], steps: int) -> Tensor:
    """[steps_b, ...] of each system, filled up with zeros to `steps`, flat behind each other."""
    return torch.cat([torch.cat([one, one.new_zeros(steps - len(one), *one.shape[1:])]).flatten() for one in parts])


def _checked_masks(
    present: Tensor | Sequence[Tensor] | None, trajectories: Sequence[Tensor]
) -> Sequence[Tensor] | None:
    if present is None:
        return None
    if isinstance(present, Tensor) or len(present) != len(trajectories):
        got = "a tensor" if isinstance(present, Tensor) else f"{len(present)}"
        raise ValueError(f"present: expected one [steps, N_b] for each of {len(trajectories)} systems, got {got}")
    for b, (mask, one) in enumerate(zip(present, trajectories, strict=True)):
        check_tensor(f"present[{b}]", mask, one.shape[:2], (torch.bool, torch.uint8), one.device)
    return present


def _unread(graph: MegaGraph, observed: Tensor, steps: int, rollout: int) -> Tensor:
    """[nodes * steps] flat: unobserved entities' states that no roll-out starts from."""
    step = torch.arange(steps, device=graph.device)[:, None]
    starts = (step < steps - 1) & (step % rollout == 0)
    unread = torch.empty(graph.nodes * steps, dtype=torch.bool, device=graph.device)
    unread[flat_places(graph, steps)] = ~(observed.bool() | starts)
    return unread


def flat_step_scale(library: ModuleLibrary, graph: MegaGraph, step_scale: Tensor | None) -> Tensor | None:
    """Checks scales of time steps, [systems]."""
    if step_scale is None:
        return None
    scale = library.change_scale
    check_tensor("step_scale", step_scale, (graph.systems,), scale.dtype, scale.device)
    good = (step_scale > 0) & torch.isfinite(step_scale)
    if not bool(good.all()):
        system = int((~good).nonzero()[0])
        raise ValueError(f"step_scale[{system}]: expected a positive number, got {float(step_scale[system])}")
    return step_scale.detach().contiguous().clone()
