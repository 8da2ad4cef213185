"""Car platoons in ``.npz`` files (OpenACC): cars one behind the other, so who follows whom is known by construction."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from nri_fast.readers.npz_arrays import read_npz_recordings
from nri_fast.readers.recording import Source

FEATURES = ("x", "y", "speed")


def read_platoons(file: str | os.PathLike[str]) -> Source:
    """Read one array a run, [steps, cars, 3]: east and north in metres, speed in metres a second, in platoon order.

    Parameters
    ----------
    file : path
        ``.npz``; an array ``dt`` is the time step in seconds.

    Returns
    -------
    Source
        With edges: car j acts on car j + 1, which follows it (type 1), and on no other.

    Raises
    ------
    FileNotFoundError
    DataError
        Damage, or a run without three features: file and key are named.
    """
    source = read_npz_recordings(file, FEATURES)
    recordings = []
    for run in source.recordings:
        chain = np.eye(len(run.entities), k=1, dtype=np.uint8)
        recordings.append(dataclasses.replace(run, edges=chain))
    return dataclasses.replace(source, recordings=recordings, notes={"edges": "the platoon's chain, by construction"})
