"""A proposal network for modules that are trained already: it learns what their search finds in more systems."""

from __future__ import annotations

import sys
import time
from typing import Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from nri_fast import ops
from nri_fast.checkpoint import CheckpointError, Checkpoints
from nri_fast.found import Found
from nri_fast.modules import ModuleLibrary
from nri_fast.proposals.imitation import Imitation, fresh_weights
from nri_fast.proposals.network import ProposalNetwork
from nri_fast.proposals.sources import step_change_scale
from nri_fast.schedule import one_cycle
from nri_fast.system_set import SystemSet

CHECKPOINT_SECONDS = 30.0

StateNetwork = Literal["mlp", "cnn", "mlp+structure", "cnn+structure"]


def taught_network(
    library: ModuleLibrary,
    systems: SystemSet,
    found: Found,
    network: StateNetwork = "cnn",
    hidden: int = 64,
    steps: int = 2000,
    batch: int = 50,
    rate: float = 3e-3,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    progress: bool = False,
) -> ProposalNetwork:
    """Trains a network to predict what a search has found.

    Parameters
    ----------
    library : ModuleLibrary
        Whose types they are; gives their numbers.
    systems : SystemSet
        Systems to learn from, in normalised units. Labels are needed nowhere.
    found : Found
        Their structures, as :func:`nri_fast.heat_bath_search.heat_bath_search` gives them.
    network : {"mlp", "cnn", "mlp+structure", "cnn+structure"}
        Which encoders (docs/proposals.md).
    hidden : int
        Width.
    steps, batch : int
        Gradient steps, and systems in each.
    rate : float
        Peak of a one-cycle schedule of Adam.
    seed : int
        Names weights, batches, dropout and blurred edges.
    checkpoints : Checkpoints, optional
        Where to save, every half minute and at the end.
    resume : bool
        Continue from the newest checkpoint, to the bits of an undisturbed training.
    progress : bool
        Show a progress bar on terminals.

    Returns
    -------
    ProposalNetwork
        On the device of the systems.

    Raises
    ------
    ValueError
        If the systems do not fit the library, or have too few steps for the encoder.
    CheckpointError
        If a checkpoint belongs to another training.
    FileExistsError
        If there are checkpoints already and `resume` is not set.
    """
    systems.check_fits(library)
    if checkpoints is not None and not resume and checkpoints.paths():
        raise FileExistsError(f"{checkpoints.folder}: holds checkpoints of another training; resume, or pass another")
    student = ProposalNetwork(
        network,
        library.features,
        library.edge_types,
        library.node_types,
        systems.steps,
        hidden,
        change_scale=step_change_scale(systems),
        masked=systems.present is not None,
    )
    fresh_weights(student, seed)
    student.to(systems.states.device)
    teacher = Imitation(student, rate, "adam", seed)
    facts = {"network": student.settings(), "steps": steps, "batch": batch, "rate": rate, "seed": seed}
    facts["states"] = systems.digest
    first = 0
    if resume and checkpoints is not None:
        saved = checkpoints.latest(lambda message: tqdm.write(message, file=sys.stderr))
        if saved is not None:
            if saved[1]["facts"] != facts:
                raise CheckpointError(f"{checkpoints.folder}: belongs to another training: {saved[1]['facts']}")
            teacher.restore(saved[0], saved[1]["imitation"])
            first = saved[1]["step"]

    def save(step: int) -> None:
        if checkpoints is not None:
            tensors, imitation = teacher.state()
            checkpoints.save(step, tensors, {"facts": facts, "imitation": imitation})

    then = time.monotonic()
    bar = tqdm(total=steps, initial=first, desc="teaching", unit="step", disable=None if progress else True)
    with bar, ops.one_torch_thread():
        for step in range(first, steps):
            key = np.array([seed, step], dtype=np.uint64)
            draw = np.random.Generator(np.random.Philox(key=key)).choice(len(systems), min(batch, len(systems)), False)
            some = systems.batch(torch.from_numpy(np.sort(draw)))
            types = found.edge_types[some.edges], found.node_types[some.nodes]
            teacher.step(some, systems.steps, *types, step, one_cycle(step, steps, rate))
            bar.update()
            if time.monotonic() - then > CHECKPOINT_SECONDS:
                save(step + 1)
                then = time.monotonic()
    save(steps)
    return student.eval()
