"""Simulated systems."""

from __future__ import annotations

import torch
from torch import Tensor

from nri_fast import _core
from nri_fast.ops.place import address, place

SIMULATORS = ("springs", "charged", "kuramoto", "springs3", "springs_mass", "kuramoto_directed")
SPLITS = ("train", "valid", "test")


def simulate(
    kind: str,
    systems: int,
    entities: int,
    steps: int,
    seed: int,
    split: str = "train",
    first_system: int = 0,
    device: torch.device | str = "cpu",
    threads: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """States [systems, steps, entities, 4] float64, edges [systems, entities, entities] and node types, uint8.

    See ``csrc/ops/simulate.h``. ``threads`` overrides :func:`set_threads` for this call.
    """
    states = torch.empty(systems, steps, entities, 4, dtype=torch.float64, device=device)
    edges = torch.empty(systems, entities, entities, dtype=torch.uint8, device=device)
    node_types = torch.empty(systems, entities, dtype=torch.uint8, device=device)
    _core.simulate(
        place(states, threads=threads),
        SIMULATORS.index(kind),
        systems,
        entities,
        steps,
        seed,
        SPLITS.index(split),
        first_system,
        address(states),
        address(edges),
        address(node_types),
    )
    return states, edges, node_types
