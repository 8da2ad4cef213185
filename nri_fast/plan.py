"""What `train` was asked to do, kept in the run's folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from nri_fast.checkpoint import CheckpointError, write_atomically
from nri_fast.formats import load_trajectories
from nri_fast.settings import Settings
from nri_fast.trajectory_data import TrajectoryData, draw_systems

PLAN_FILE = "plan.json"
PLAN_FORMAT = 1
START = "start"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `train` was asked to do. It is in the run's folder before the first step is taken, so that `--resume` needs
    nothing else and `--held-out` means the very systems that were set aside.

    Attributes
    ----------
    data : str
        Absolute path of the data.
    split, name : str
        Of the data; name None: the only one there.
    steps : int
        Recorded steps.
    digest : str
        SHA-256 of the recorded states, all systems: other data are noticed.
    settings : dict
        :meth:`Settings.to_dict`.
    seed : int
        Of the run, and of the choice of systems to set aside.
    held_out : list of int
        Places of the systems set aside, ascending.
    start : str or None
        Absolute path of the run whose modules training begins with; a copy of it is in the folder :data:`START`.
    starts : int
        How many random starts the run is chosen from.
    """

    data: str
    split: str
    name: str | None
    steps: int
    digest: str
    settings: dict[str, Any]
    seed: int
    held_out: list[int]
    start: str | None = None
    starts: int = 1

    @classmethod
    def make(
        cls,
        data: Path,
        split: str,
        name: str | None,
        settings: Settings,
        seed: int,
        hold_out: int,
        start: Path | None = None,
        starts: int = 1,
    ) -> Plan:
        """Looks at the data and draws the systems to set aside."""
        loaded = load_trajectories(data, split, name)
        held_out = draw_systems(loaded.systems, hold_out, seed).tolist() if hold_out else []
        values = json.loads(json.dumps(settings.to_dict()))  # as they will be read again: lists, no tuples
        began = None if start is None else str(start.resolve())
        digest = digest_of(loaded)
        return cls(str(data.resolve()), split, name, loaded.steps, digest, values, seed, held_out, began, starts)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Reads the plan of a run.

        Raises
        ------
        CheckpointError
            It is missing or damaged.
        """
        file = folder / PLAN_FILE
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if values.pop("format") != PLAN_FORMAT:
                raise CheckpointError(f"{file}: written by another version of nri_fast")
            plan = cls(**values)
            Settings.from_dict(plan.settings)
        except FileNotFoundError:
            raise CheckpointError(f"{file}: no such file; is this the folder of a run of `nri-fast train`?") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{file}: damaged ({error})") from error
        return plan

    def write(self, folder: Path) -> None:
        """Writes the plan into the run's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        values = {"format": PLAN_FORMAT, **dataclasses.asdict(self)}
        write_atomically(folder / PLAN_FILE, (json.dumps(values) + "\n").encode())

    def load(self, path: Path | None = None) -> TrajectoryData:
        """All systems of the data, from `path` if they have moved.

        Raises
        ------
        ValueError
            They are not the ones of the plan.
        """
        where = Path(self.data) if path is None else path
        data = load_trajectories(where, self.split, self.name)
        if digest_of(data) != self.digest:
            raise ValueError(f"{where}: split {self.split!r} differs from what the run was started with, {self.data}")
        return data

    def kept(self, data: TrajectoryData) -> TrajectoryData:
        """The systems to train on."""
        keep = torch.ones(data.systems, dtype=torch.bool)
        keep[self.held_out] = False
        return data.select(keep.nonzero().flatten())


def digest_of(data: TrajectoryData) -> str:
    """SHA-256 of the recorded states, their shape, which of them there are, and time steps that differ."""
    digest = hashlib.sha256(str(list(data.states.shape)).encode())
    digest.update(data.states.contiguous().numpy().data)
    if data.sizes is not None:
        digest.update(data.sizes.numpy().data)
    if data.present is not None:
        digest.update(data.present.contiguous().numpy().data)
    if data.origin is not None and bool((data.origin.time_step != data.origin.time_step[0]).any()):
        digest.update(data.origin.time_step.contiguous().numpy().data)
    return digest.hexdigest()
