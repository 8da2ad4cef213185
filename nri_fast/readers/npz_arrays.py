"""``.npz`` files with named arrays: one array of many systems, or one array a recording."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nri_fast.readers.arrays import DAMAGE, Array, check_numeric, damage, edge_types
from nri_fast.readers.axes import axes_of
from nri_fast.readers.recording import DataError, Recording, Source, whole

STATES, EDGES = ("states", "trajectories"), ("edges", "adjacency")
AXES = "systems-steps-entities-features"


def open_npz(file: str | os.PathLike[str]) -> dict[str, Array]:
    """All arrays of an ``.npz`` file.

    Raises
    ------
    FileNotFoundError
    DataError
        The file is damaged, no ``.npz``, or holds pickled objects, which are refused: they could run code.
    """
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    key = ""
    arrays = {}
    with open(path, "rb") as opened:
        try:
            archive = np.load(opened, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: expected an .npz archive, got a single array")
            for key in archive.files:
                arrays[key] = archive[key]
        except DataError:
            raise
        except DAMAGE as problem:
            raise DataError(damage(f"{path}: {key}" if key else path, problem)) from problem
    return arrays


def read_npz(
    file: str | os.PathLike[str],
    states: str | None = None,
    edges: str | None = None,
    axes: str = AXES,
    feature_names: tuple[str, ...] | None = None,
    time_step: float | None = None,
) -> Source:
    """Read one array of many systems.

    Parameters
    ----------
    file : path
    states, edges : str, optional
        Names of the arrays; by default ``states`` or ``trajectories``, and ``edges`` or ``adjacency`` if it is there:
        [systems, N, N], ``edges[s, i, j]`` the type of the edge from i to j.
    axes : str
        Order of the axes of `states`: the words systems, steps, entities and features, joined by hyphens; without
        ``systems`` the array is one system.
    feature_names : tuple of str, optional
        By default the array ``feature_names``, or f0, f1, ...
    time_step : float, optional
        Between two steps; by default the file's array ``dt``, or 1.

    Raises
    ------
    FileNotFoundError
    ValueError
        Damage, no such array, axes that do not fit: file and key are named.
    """
    path, arrays = Path(file), open_npz(file)
    if time_step is None:
        time_step = time_step_of(path, arrays)
    states = _key(path, arrays, STATES if states is None else (states,))
    words = axes.split("-")
    if sorted(words) not in (sorted(AXES.split("-")), sorted(AXES.split("-")[1:])):
        raise ValueError(f"axes: expected the words of {AXES} in some order (systems may be left out), got {axes!r}")
    check_numeric(f"{path}: {states}", arrays[states], len(words), f"[{axes}]")
    axes_of(f"{path}: {states}", arrays[states].shape, [axes])
    order = [words.index(axis) for axis in AXES.split("-") if axis in words]
    values = arrays[states].transpose(order)
    values = values if "systems" in words else values[None]
    names = feature_names
    if names is None and "feature_names" in arrays:
        names = tuple(str(name) for name in np.atleast_1d(arrays["feature_names"]))
    names = _named(path, states, names, values.shape[3])
    types = None
    if edges is not None or any(key in arrays for key in EDGES):
        key = _key(path, arrays, EDGES if edges is None else (edges,))
        given = arrays[key] if arrays[key].ndim == 3 else arrays[key][None]
        types = edge_types(f"{path}: {key}", given, values.shape[0], values.shape[2])
    entities = tuple(str(e) for e in range(values.shape[2]))
    recordings = [
        Recording(str(s), values.shape[1], entities, time_step, whole(values[s]), None if types is None else types[s])
        for s in range(values.shape[0])
    ]
    return Source(str(path), names, recordings)


def read_npz_recordings(
    file: str | os.PathLike[str], feature_names: tuple[str, ...] | None = None, time_step: float | None = None
) -> Source:
    """Read one array a recording: every array of numbers with three axes, [steps, entities, features], is one.

    Parameters
    ----------
    file : path
    feature_names : tuple of str, optional
        By default f0, f1, ...
    time_step : float, optional
        By default the file's array ``dt``, or 1.

    Raises
    ------
    FileNotFoundError
    DataError
        Damage, no such array, different numbers of features: file and key are named.
    """
    path, arrays = Path(file), open_npz(file)
    if time_step is None:
        time_step = time_step_of(path, arrays)
    found = {key: array for key, array in arrays.items() if array.ndim == 3 and array.dtype.kind in "fiu"}
    if not found:
        raise DataError(f"{path}: expected arrays [steps, entities, features], got {sorted(arrays)}")
    recordings = []
    names: tuple[str, ...] = ()
    for key, array in found.items():
        names = _named(path, key, names or feature_names, array.shape[2])
        entities = tuple(str(e) for e in range(array.shape[1]))
        recordings.append(Recording(key, array.shape[0], entities, time_step, whole(array)))
    return Source(str(path), names, recordings)


def time_step_of(path: Path, arrays: dict[str, Array]) -> float:
    """The number in an array ``dt``, or 1."""
    if "dt" not in arrays:
        return 1.0
    value = arrays["dt"]
    if value.size != 1 or value.dtype.kind not in "fiu" or not 0 < float(value.reshape(-1)[0]) < float("inf"):
        raise DataError(f"{path}: dt: expected one positive number, got {value!r}")
    return float(value.reshape(-1)[0])


def _key(path: Path, arrays: dict[str, Array], names: tuple[str, ...]) -> str:
    there = [name for name in names if name in arrays]
    if len(there) != 1:
        raise DataError(f"{path}: expected one array called {' or '.join(names)}, got {sorted(arrays)}")
    return there[0]


def _named(path: Path, key: str, names: tuple[str, ...] | None, features: int) -> tuple[str, ...]:
    names = tuple(f"f{d}" for d in range(features)) if names is None else names
    if len(names) != features:
        raise DataError(f"{path}: {key}: expected {len(names)} features ({', '.join(names)}), got {features}")
    return names
