"""The ``.npy`` families of NRI, Amortized Causal Discovery (Kuramoto) and FMML: one array a file.

==========================================  =================================================================
family                                      files
==========================================  =================================================================
NRI (Kipf et al., ICML 2018)                ``loc_{split}_{name}.npy``, ``vel_...`` (optional), ``edges_...``
ACD (Loewe et al., CLeaR 2022), Kuramoto    ``feat_{split}_{name}.npy``, ``edges_...``
FMML (Alet et al., NeurIPS 2019)            ``state_{name}_{train,val,test}.npy``, ``edges_{name}_...``
==========================================  =================================================================

Edges are optional, [systems, N, N], [systems, N * N] or, without the diagonal, [systems, N * (N - 1)]. In all three the
row is the receiver, because NRI's code takes it so; what is returned has the sender first, as everywhere here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from nri_fast.formats import KURAMOTO_FEATURES
from nri_fast.normalisation import POSITION_NAMES, VELOCITY_NAMES
from nri_fast.readers.arrays import check_numeric, edge_types, open_npy
from nri_fast.readers.axes import axes_of
from nri_fast.readers.recording import Array, DataError, Recording, Source

Splits = dict[str, dict[str, Path]]  # split -> role (loc, vel, feat, state, edges) -> file
NriAxes = Literal["systems-steps-dimensions-entities", "systems-steps-entities-dimensions"]
FeatureAxes = Literal["systems-steps-entities-features", "systems-entities-steps-features"]
NRI_AXES = ("systems-steps-dimensions-entities", "systems-steps-entities-dimensions")
FEATURE_AXES = ("systems-steps-entities-features", "systems-entities-steps-features")
OWN_NAMES = {"val": "valid"}  # FMML's word for a split, and ours
STATE_FEATURES = {
    count: POSITION_NAMES[: count // 2] + VELOCITY_NAMES[: count // 2] for count in (2, 4, 6)
}  # positions, then velocities


def read_nri(folder: Path, name: str | None = None, axes: NriAxes | None = None, time_step: float = 1.0) -> Source:
    """Read NRI's family.

    Parameters
    ----------
    folder : path
    name : str, optional
        Which data set, where the folder holds several: ``springs5``.
    axes : str, optional
        Order of the axes of ``loc`` and ``vel``; by default the one that fits (1 to 3 dimensions, as many entities as
        the edges have) is recognised.
    time_step : float
        Between two recorded steps, in the units of the velocities.

    Returns
    -------
    Source
        A system is a recording; each split that is there is kept as such.

    Raises
    ------
    FileNotFoundError, ValueError
        Naming the file, and the key or place where a number is wrong.
    """

    def arrays(files: dict[str, Path], entities: int | None) -> tuple[Array, tuple[str, ...], Callable[[int], Array]]:
        loc = open_npy(files["loc"])
        check_numeric(files["loc"], loc, 4, "[systems, steps, dimensions, entities] or [systems, steps, entities, ...]")
        order = axes_of(files["loc"], loc.shape, NRI_AXES, axes, entities, range(1, 4))
        places = [order.index(axis) for axis in ("systems", "steps", "entities", "dimensions")]
        loc = loc.transpose(places)
        names = POSITION_NAMES[: loc.shape[3]]
        if "vel" not in files:
            return loc, names, loc.__getitem__
        vel = open_npy(files["vel"])
        check_numeric(files["vel"], vel, 4, "the axes of loc")
        if vel.transpose(places).shape != loc.shape:
            expected = open_npy(files["loc"]).shape
            raise DataError(
                f"{files['vel']}: expected the shape of {files['loc'].name}, {list(expected)}, got {list(vel.shape)}"
            )
        vel = vel.transpose(places)
        names += VELOCITY_NAMES[: loc.shape[3]]
        return loc, names, lambda s: np.concatenate([loc[s], vel[s]], axis=-1)

    return _read(
        folder, _found(folder, r"(loc|vel|edges)_(train|valid|test)_?(.*)\.npy", "loc", name), arrays, time_step
    )


def read_kuramoto(
    folder: Path, name: str | None = None, axes: FeatureAxes | None = None, time_step: float = 1.0
) -> Source:
    """Read the Kuramoto files of Amortized Causal Discovery; arguments, result and errors as of :func:`read_nri`.

    Four features are ``dphi, sin_phi, phi, w``. Without labels the order of the axes must be named.
    """
    pattern = r"(feat|edges)_(train|valid|test)_?(.*)\.npy"
    return _read(folder, _found(folder, pattern, "feat", name), _features("feat", axes, _kuramoto_names), time_step)


def read_fmml(folder: Path, name: str | None = None, axes: FeatureAxes | None = None, time_step: float = 1.0) -> Source:
    """Read FMML's files; arguments, result and errors as of :func:`read_nri`.

    The states are what the authors normalised to [-1, 1]. Their split ``val`` becomes ``valid``. Four features are
    ``x, y, vx, vy``. Without labels the order of the axes must be named.
    """
    pattern = r"(?P<role>state|edges)_(?P<name>.*?)_?(?P<split>train|val|valid|test)\.npy"
    return _read(folder, _found(folder, pattern, "state", name), _features("state", axes, _state_names), time_step)


def _kuramoto_names(count: int) -> tuple[str, ...]:
    return KURAMOTO_FEATURES if count == len(KURAMOTO_FEATURES) else tuple(f"f{d}" for d in range(count))


def _state_names(count: int) -> tuple[str, ...]:
    return STATE_FEATURES.get(count, tuple(f"f{d}" for d in range(count)))


def _features(
    role: str, axes: FeatureAxes | None, names: Callable[[int], tuple[str, ...]]
) -> Callable[[dict[str, Path], int | None], tuple[Array, tuple[str, ...], Callable[[int], Array]]]:
    def arrays(files: dict[str, Path], entities: int | None) -> tuple[Array, tuple[str, ...], Callable[[int], Array]]:
        file = files[role]
        states = open_npy(file)
        check_numeric(file, states, 4, "[systems, steps, entities, features] or [systems, entities, steps, features]")
        order = axes_of(file, states.shape, FEATURE_AXES, axes, entities)
        states = states.transpose([order.index(axis) for axis in ("systems", "steps", "entities", "features")])
        return states, names(states.shape[3]), states.__getitem__

    return arrays


def _found(folder: Path, pattern: str, lead: str, name: str | None) -> Splits:
    """Files by split and role."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    sets: dict[str, Splits] = {}
    for file in sorted(folder.iterdir()):
        match = re.fullmatch(pattern, file.name)
        if match:
            role, split, called = match[1], match[2], match[3]
            if "split" in match.groupdict():
                role, split, called = match["role"], match["split"], match["name"]
            sets.setdefault(called, {}).setdefault(OWN_NAMES.get(split, split), {})[role] = file
    sets = {called: splits for called, splits in sets.items() if any(lead in files for files in splits.values())}
    if name is not None:
        sets = {called: splits for called, splits in sets.items() if called == name.lstrip("_")}
    if len(sets) != 1:
        listed = ", ".join(sorted(sets)) or "none"
        wanted = f"one data set of files {lead}_*.npy" + ("" if name is None else f" called {name!r}")
        raise FileNotFoundError(f"{folder}: expected {wanted}, found {listed} (--data chooses)")
    for split, files in next(iter(sets.values())).items():
        if lead not in files:
            raise FileNotFoundError(
                f"{folder}: the {split!r} split has {', '.join(f.name for f in files.values())} only"
            )
    return next(iter(sets.values()))


def _read(
    folder: Path,
    splits: Splits,
    arrays: Callable[[dict[str, Path], int | None], tuple[Array, tuple[str, ...], Callable[[int], Array]]],
    time_step: float,
) -> Source:
    recordings: list[Recording] = []
    names: tuple[str, ...] = ()
    for split, files in splits.items():
        given = open_npy(files["edges"]) if "edges" in files else None
        entities = None if given is None else _entities(files["edges"], given)
        states, found, system = arrays(files, entities)
        if names and found != names:
            raise DataError(f"{folder}: expected the same features in every split, got {names} and {found}")
        names = found
        edges = None
        if given is not None:
            square = _square(given, states.shape[2])
            edges = edge_types(files["edges"], square, states.shape[0], states.shape[2]).transpose(0, 2, 1)
        for s in range(states.shape[0]):
            recordings.append(
                Recording(
                    f"{split} {s}",
                    states.shape[1],
                    tuple(str(e) for e in range(states.shape[2])),
                    time_step,
                    _piece(system, s),
                    None if edges is None else np.ascontiguousarray(edges[s]),
                    split=split,
                )
            )
    return Source(str(folder), names, recordings)


def _piece(system: Callable[[int], Array], s: int) -> Callable[[], Iterator[Array]]:
    return lambda: iter([np.asarray(system(s), dtype=np.float64)])


def _entities(file: Path, edges: Array) -> int:
    """Number of entities that edges speak of."""
    if edges.ndim == 3 and edges.shape[1] == edges.shape[2]:
        return edges.shape[1]
    if edges.ndim == 2:
        root = round(edges.shape[1] ** 0.5)
        for n in (root, root + 1):
            if edges.shape[1] in (n * n, n * (n - 1)):
                return n
    raise DataError(f"{file}: expected [systems, N, N], [systems, N * N] or [systems, N * (N - 1)], got {edges.shape}")


def _square(edges: Array, n: int) -> Array:
    """Edges as [systems, N, N]; a diagonal that was left out becomes zero, or -1 where other edges are -1."""
    if edges.ndim == 3 or edges.shape[1] == n * n:
        return edges.reshape(len(edges), n, n)
    square = np.full((len(edges), n, n), -1 if (edges == -1).any() else 0, dtype=edges.dtype)
    square[:, ~np.eye(n, dtype=bool)] = edges
    return square
