"""A run gets a proposal network after training: it learns what the run's search finds in further systems."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import get_args

from nri_fast.checkpoint import Checkpoints
from nri_fast.infer import find
from nri_fast.proposals.teach import StateNetwork, taught_network
from nri_fast.run import Run
from nri_fast.trajectory_data import TrajectoryData


def teach(
    run: Run,
    data: TrajectoryData,
    network: StateNetwork = "mlp",
    hidden: int = 192,
    steps: int = 2000,
    batch: int = 50,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Teaches a network the structures that the run's own search finds; labels in the data are never looked at.

    Afterwards ``infer(run, ..., search="network")`` answers by one forward pass, and ``search="learned"`` draws its
    proposals from the network.

    Parameters
    ----------
    run : Run
        From :func:`nri_fast.train`; stays as it is.
    data : TrajectoryData
        Systems to learn from, in recorded units: the more, the better; the run's training systems may be among them.
    network : {"mlp", "cnn", "mlp+structure", "cnn+structure"}
        Which encoders (docs/proposals.md); "mlp" is faster, and bound to recordings of this length.
    hidden : int
        Width.
    steps, batch : int
        Gradient steps, and systems in each.
    seed : int
        Names every random draw.
    out : path, optional
        Folder of the new run: checkpoints meanwhile, the run at the end. It must not exist, unless `resume`.
    resume : bool
        Continue the teaching in `out`, to the bits of an undisturbed one.
    progress : bool
        Show progress bars on terminals.

    Returns
    -------
    Run
        The same modules, with a network.

    Raises
    ------
    FileExistsError
        If `out` exists, is not empty, and `resume` is not set.
    ValueError
        If the systems do not fit the run, or are too short for the encoder.
    CheckpointError
        If the checkpoints in `out` belong to another teaching.
    """
    if network not in get_args(StateNetwork):
        raise ValueError(f"network: expected one of {', '.join(get_args(StateNetwork))}, got {network!r}")
    folder = None if out is None else Path(out)
    if folder is not None:
        if folder.exists() and (not folder.is_dir() or (not resume and any(folder.iterdir()))):
            raise FileExistsError(f"{folder}: the output folder exists and is not empty; pass another, or resume")
        folder.mkdir(parents=True, exist_ok=True)
    systems = run.systems(data)
    student = taught_network(
        run.library,
        systems,
        find(run, systems, seed=seed, progress=progress),
        network,
        hidden,
        steps,
        batch,
        seed=seed,
        checkpoints=None if folder is None else Checkpoints(folder / "teaching"),
        resume=resume,
        progress=progress,
    )
    settings = dataclasses.replace(run.settings, network=network, network_hidden=hidden)
    taught = dataclasses.replace(run, settings=settings, network=student)
    if folder is not None:
        taught.save(folder)
    return taught
