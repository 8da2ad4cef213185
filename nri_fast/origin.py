"""Where the systems of a data set come from: recording, first step, time between steps, names of entities."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]
#: Arrays of an .npz file that hold an origin.
ORIGIN_KEYS = ("recording", "recording_names", "first_step", "time_step", "entity_names", "notes")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What is known about the systems of a data set beside their states.

    Several systems may be windows of one recording; splits keep recordings together (:mod:`nri_fast.readers.splits`).

    Parameters
    ----------
    recording : Tensor, int64, [systems]
        Place in `recording_names` of the recording that a system was cut from.
    recording_names : tuple of str, [recordings]
    first_step : Tensor, int64, [systems]
        The system's first step, counted in steps of its recording.
    time_step : Tensor, float64, [systems]
        Time between two steps, in the units that velocities are given in.
    entity_names : ndarray of str, [systems, entities]
        Names by which the source knows the entities; empty where a smaller system is padded.
    notes : dict of str
        What was done to the source: how velocities were estimated, how windows were cut.

    Raises
    ------
    ValueError
        Arrays whose shapes or dtypes do not fit together, a recording out of range, a time step that is not positive.
    """

    recording: torch.Tensor
    recording_names: tuple[str, ...]
    first_step: torch.Tensor
    time_step: torch.Tensor
    entity_names: Array
    notes: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the arrays fit together."""
        systems = len(self.recording)
        for name, dtype in (("recording", torch.int64), ("first_step", torch.int64), ("time_step", torch.float64)):
            values = getattr(self, name)
            if values.shape != (systems,) or values.dtype != dtype:
                raise ValueError(
                    f"origin.{name}: expected {dtype} [{systems}], got {values.dtype} {list(values.shape)}"
                )
        outside = (self.recording < 0) | (self.recording >= len(self.recording_names))
        if bool(outside.any()):
            system = int(outside.nonzero()[0])
            raise ValueError(
                f"origin.recording: expected 0 to {len(self.recording_names) - 1}, "
                f"got {int(self.recording[system])} for system {system}"
            )
        if not bool(((self.time_step > 0) & torch.isfinite(self.time_step)).all()):
            raise ValueError("origin.time_step: expected positive finite numbers")
        if self.entity_names.ndim != 2 or len(self.entity_names) != systems or self.entity_names.dtype.kind != "U":
            raise ValueError(
                f"origin.entity_names: expected strings [{systems}, entities], "
                f"got {self.entity_names.dtype} {list(self.entity_names.shape)}"
            )

    def select(self, systems: torch.Tensor, entities: int) -> Origin:
        """Keep some of the systems, with names of the first `entities` entities."""
        return dataclasses.replace(
            self,
            recording=self.recording[systems],
            first_step=self.first_step[systems],
            time_step=self.time_step[systems],
            entity_names=self.entity_names[systems.numpy()][:, :entities],
        )

    def without(self, entities: Sequence[int]) -> Origin:
        """The same systems without some entities, the same ones of each."""
        return dataclasses.replace(self, entity_names=np.delete(self.entity_names, list(entities), axis=1))

    def arrays(self) -> dict[str, Array]:
        """Plain arrays by the names of :data:`ORIGIN_KEYS`, ready for an ``.npz`` file."""
        return {
            "recording": self.recording.numpy(),
            "recording_names": np.array(self.recording_names, dtype=np.str_),
            "first_step": self.first_step.numpy(),
            "time_step": self.time_step.numpy(),
            "entity_names": self.entity_names,
            "notes": np.array(json.dumps(self.notes, sort_keys=True)),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array]) -> Origin:
        """Read what `arrays` gave.

        Raises
        ------
        ValueError
            An array is missing or does not fit.
        """
        missing = [key for key in ORIGIN_KEYS if key not in arrays]
        if missing:
            raise ValueError(f"origin: expected the arrays {', '.join(ORIGIN_KEYS)}, {missing[0]!r} is missing")
        try:
            notes = json.loads(str(arrays["notes"]))
        except ValueError as problem:
            raise ValueError(f"notes: expected JSON text, got {str(arrays['notes'])[:40]!r}") from problem
        if not isinstance(notes, dict):
            raise ValueError(f"notes: expected a JSON object, got {notes!r}")
        return cls(
            torch.from_numpy(_whole("recording", arrays["recording"])),
            tuple(str(name) for name in np.atleast_1d(arrays["recording_names"])),
            torch.from_numpy(_whole("first_step", arrays["first_step"])),
            torch.from_numpy(_numbers("time_step", arrays["time_step"]).astype(np.float64)),
            arrays["entity_names"],
            {str(key): str(value) for key, value in notes.items()},
        )


def named_entities(count: int, entities: int, names: Sequence[str] | None = None) -> Array:
    """The same names, by default "0", "1", ..., for every one of `count` systems: [count, entities] of str."""
    row = np.array([str(i) for i in range(entities)] if names is None else list(names), dtype=np.str_)
    return np.broadcast_to(row, (count, entities))


def _numbers(name: str, values: Array) -> Array:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected numbers, got dtype {values.dtype}")
    return values


def _whole(name: str, values: Array) -> Array:
    if _numbers(name, values).dtype.kind == "f":
        raise ValueError(f"{name}: expected whole numbers, got dtype {values.dtype}")
    return values.astype(np.int64)
