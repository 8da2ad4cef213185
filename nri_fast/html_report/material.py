"""What the sections are made of: a run, its data, what it found in them, and what follows from that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from nri_fast.infer import Inference, error_growth
from nri_fast.influence import Influence, influence
from nri_fast.metrics import Array, off_diagonal
from nri_fast.run import Run
from nri_fast.trajectory_data import TrajectoryData

LONGEST_FORECAST = 50  # steps


@dataclass(frozen=True)
class Material:
    """What a page is about.

    Attributes
    ----------
    run : Run
    run_name : str
        What the reader calls the run: its folder's name.
    made : dict
        When, how long and by what it was trained, as far as that is known (:func:`nri_fast.record.read_made`).
    data : TrajectoryData
    systems : Tensor, int64, [systems]
        Numbers of the systems in their file.
    found : Inference
    figures : dict
        What :func:`nri_fast.evaluate` says about it.
    doubts : list of str
        What :func:`nri_fast.doubts` says about it.
    """

    run: Run
    run_name: str
    made: dict[str, Any]
    data: TrajectoryData
    systems: torch.Tensor
    found: Inference
    figures: dict[str, Any]
    doubts: list[str]

    @property
    def types(self) -> int:
        """Edge types of the run."""
        return self.run.settings.edge_types

    @property
    def silent(self) -> int | None:
        """Edge type that means "no interaction", if there is one."""
        return 0 if self.run.settings.silent else None

    @property
    def type_names(self) -> list[str]:
        """Of the run's own edge types."""
        return [f"type {k}" + (" (no interaction)" if k == self.silent else "") for k in range(self.types)]

    @cached_property
    def size_of(self) -> list[int]:
        """Entities of each system."""
        sizes = self.data.sizes
        return [self.data.entities] * self.data.systems if sizes is None else [int(n) for n in sizes]

    @cached_property
    def edge_types(self) -> Array:
        """[edges] likeliest type of every edge of all systems."""
        return off_diagonal(self.found.adjacency.numpy(), self.data.sizes).astype(np.int64)

    @cached_property
    def sureness(self) -> Array:
        """[edges] its probability."""
        return off_diagonal(self.found.probability.max(-1).values.numpy(), self.data.sizes)

    @cached_property
    def influence(self) -> Influence | None:
        """What senders do to receivers; None without an edge."""
        return influence(self.run, self.data, self.found) if len(self.edge_types) else None

    @cached_property
    def growth(self) -> dict[str, list[float]]:
        """Forecast errors over steps, beside baselines; empty where the recordings are too short."""
        horizon = min(LONGEST_FORECAST, self.data.steps - 1)
        return error_growth(self.run, self.data, self.found, horizon) if horizon > 0 else {}

    def entity_names(self, system: int) -> list[str]:
        """Of the entities of one system, by its place in the data."""
        if self.data.origin is None:
            return [str(i) for i in range(self.size_of[system])]
        return [str(name) for name in self.data.origin.entity_names[system, : self.size_of[system]]]

    def system_name(self, system: int) -> str:
        """Of one system, by its place in the data."""
        name, origin = f"system {int(self.systems[system])}", self.data.origin
        if origin is None:
            return name
        recording, first = origin.recording_names[int(origin.recording[system])], int(origin.first_step[system])
        windows = int((origin.recording == origin.recording[system]).sum()) > 1
        return f"{name} (recording {recording}" + (f", from step {first})" if windows else ")")
