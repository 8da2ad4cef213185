"""Checks of arguments: an error names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nri_fast.graph import MegaGraph

FLOATS = (torch.float32, torch.float64)


def check_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int | None],
    dtype: torch.dtype | Sequence[torch.dtype],
    device: torch.device | None = None,
) -> None:
    """Raises TypeError or ValueError unless `tensor` has this shape (None: any size), type and device."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    dtypes = (dtype,) if isinstance(dtype, torch.dtype) else tuple(dtype)
    if tensor.dtype not in dtypes:
        raise TypeError(f"{name}: expected {' or '.join(map(str, dtypes))}, got {tensor.dtype}")
    wanted = "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
    fits = tensor.ndim == len(shape) and all(s is None or s == t for s, t in zip(shape, tensor.shape, strict=True))
    if not fits:
        raise ValueError(f"{name}: expected shape {wanted}, got {[*tensor.shape]}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{name}: expected on {device}, got {tensor.device}")


def check_types(name: str, types: Tensor, count: int, graph: MegaGraph, per_edge: bool) -> None:
    """Raises IndexError naming the first type that is not below `count`, with its system."""
    bad = types >= count
    if types.dtype != torch.uint8:
        bad |= types < 0
    if not bool(bad.any()):
        return
    place = int(bad.nonzero()[0, -1])
    value = int(types[bad][0])
    if per_edge:
        system = graph.system_of_edge(place)
        first = int(graph.node_offset[system])
        ends = f"{int(graph.sender[place]) - first} -> {int(graph.receiver[place]) - first}"
        raise IndexError(f"{name}: system {system}, edge {ends} has type {value}, expected 0 to {count - 1}")
    system = int(torch.searchsorted(graph.node_offset, place, right=True)) - 1
    entity = place - int(graph.node_offset[system])
    raise IndexError(f"{name}: system {system}, entity {entity} has type {value}, expected 0 to {count - 1}")


def check_finite(name: str, states: Tensor, graph: MegaGraph, steps: int, features: int) -> None:
    """Raises ValueError naming the first NaN or infinity in flat trajectories: its system, step and entity."""
    if bool(torch.isfinite(states.sum())) or bool(torch.isfinite(states).all()):
        return
    place = int((~torch.isfinite(states)).nonzero()[0])
    system = int(torch.searchsorted(graph.node_offset * (steps * features), place, right=True)) - 1
    size = graph.sizes[system]
    within = place - int(graph.node_offset[system]) * steps * features
    step, entity, feature = within // (size * features), within // features % size, within % features
    where = f"system {system}, step {step}, entity {entity}, feature {feature}"
    raise ValueError(f"{name}: {where} is {float(states[place])}, expected finite numbers")
