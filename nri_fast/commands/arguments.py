"""What commands share: how arguments are shown, how runs, systems and devices are chosen, how files are written."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nri_fast.settings import Search

if TYPE_CHECKING:
    import torch

    from nri_fast.run import Run
    from nri_fast.trajectory_data import TrajectoryData

Device = Literal["auto", "cpu", "cuda"]


def optional(metavar: str, otherwise: str) -> Any:
    """Shows an argument that may be left out with its kind and with what stands in for it."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(otherwise: {otherwise})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """Arguments by which commands choose their run and their systems."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a finished run."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Folder of NRI's .npy files or of .npz files, or one .npz file."""
    split: str = "test"
    """Which split of the data."""
    name: Annotated[str | None, optional("NAME", "the only one there")] = None
    """Which data set, where the folder holds several."""
    held_out: bool = False
    """Only the systems that the run set aside (train --hold-out), in the data and split that it was trained on."""
    device: Device = "auto"
    """Where to compute."""

    def load(self) -> tuple[Run, TrajectoryData, torch.Tensor]:
        """The run, the systems, and each system's place in its file."""
        import torch

        from nri_fast.run import Run

        run = Run.load(self.run_folder, choose_device(self.device))
        data, systems = self._data()
        return run, data, torch.arange(data.systems) if systems is None else systems

    def _data(self) -> tuple[TrajectoryData, torch.Tensor | None]:
        import torch

        from nri_fast.formats import load_trajectories
        from nri_fast.plan import PLAN_FILE, Plan, digest_of

        if self.held_out:
            plan = Plan.read(self.run_folder)
            if not plan.held_out:
                raise ValueError(f"--held-out: {self.run_folder} held nothing out (train --hold-out SYSTEMS does)")
            systems = torch.tensor(plan.held_out)
            return plan.load(self.data).select(systems), systems
        data = load_trajectories(self.data, self.split, self.name)
        if (self.run_folder / PLAN_FILE).exists() and (plan := Plan.read(self.run_folder)).digest == digest_of(data):
            trained_on = data.systems - len(plan.held_out)
            print(f"note: {trained_on} of these {data.systems} systems were trained on", file=sys.stderr)
        return data, None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched(Chosen):
    """Arguments by which `infer` and `evaluate` choose their search, too."""

    search: Annotated[
        Search | None, optional("{heat_bath,annealing,network,learned,combined}", "as the run was trained")
    ] = None
    """How graphs are searched. heat_bath: one-step errors, exactly. annealing: the paper's chain of random changes.
    network: one forward pass of the run's proposal network (train --network), no search. learned: a chain that starts
    from the network's graph and draws changes from it. combined: the same with the heat bath's probabilities too."""
    chains: int = 1
    """With --search learned or combined: chains per system, at different temperatures; the best graph is kept."""


def choose_device(wanted: Device) -> str:
    """The device to use: ``cpu`` or ``cuda``.

    Raises
    ------
    ValueError
        CUDA was asked for and cannot be used; the message says why.
    """
    if wanted == "cpu":
        return "cpu"
    from nri_fast.doctor import collect

    problem = collect()["paths"]["cuda"]
    if not problem.startswith("unavailable"):
        return "cuda"
    if wanted == "cuda":
        raise ValueError(f"--device cuda: {problem}")
    return "cpu"


def refuse_existing(file: Path) -> None:
    """Raises FileExistsError if there is such a file."""
    if file.exists():
        raise FileExistsError(f"{file}: already there, and nothing is overwritten")


def write_new(file: Path, content: bytes) -> None:
    """Writes a file that is not there yet, as a whole; its folder is made."""
    from nri_fast.checkpoint import write_atomically

    file.parent.mkdir(parents=True, exist_ok=True)
    refuse_existing(file)
    write_atomically(file, content)
