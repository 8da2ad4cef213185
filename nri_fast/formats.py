"""Files of trajectories: the ``.npy`` family of NRI (Kipf et al., ICML 2018) and ``.npz``.

==================================================  =========================================================
file                                                arrays
==================================================  =========================================================
``loc_{split}_{name}.npy``, ``vel_{split}_...``     [systems, steps, dimensions, entities]
``feat_{split}_{name}.npy`` (Kuramoto)              [systems, entities, steps, features]
``edges_{split}_{name}.npy`` (optional)             [systems, entities, entities]
``nodes_{split}_{name}.npy`` (optional)             [systems, entities]
``{split}.npz``, ``{split}_{name}.npz``, any        ``states`` (or ``trajectories``) [systems, steps, entities,
``.npz`` by its path                                features]; optional ``edges`` (or ``adjacency``) [systems,
                                                    entities, entities], ``node_types`` [systems, entities],
                                                    ``feature_names``, ``sizes`` [systems] (numbers of entities,
                                                    where they differ), ``lengths`` [systems] (steps, where they
                                                    differ), ``present`` [systems, steps, entities] (where entities
                                                    come and go) and the arrays of :class:`nri_fast.origin.Origin`
==================================================  =========================================================

Orientation: in the ``.npy`` family ``edges[s, i, j]`` belongs to the edge that i *receives* from j, because NRI's code
takes the row as the receiver. Here an adjacency ``A[s, i, j]`` is the type of the edge *from* i *to* j, everywhere and
in ``.npz`` files too; so reading and writing the ``.npy`` family transposes. (Symmetric graphs cannot tell.)

Types: integers from 0 to 255. Edges of -1 and +1 (products of charges) are read as 0 and 1; the diagonal is ignored.

Nothing here runs code from a file: pickled arrays are refused.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nri_fast.origin import ORIGIN_KEYS, Origin
from nri_fast.readers.arrays import DAMAGE, check_numeric, damage, edge_types, node_types_of, open_npy
from nri_fast.trajectory_data import TrajectoryData, hold_out

__all__ = ["TrajectoryData", "hold_out", "load_trajectories", "save_trajectories"]

Array = np.ndarray[Any, Any]

_POSITIONS = ("x", "y", "z")
_VELOCITIES = ("vx", "vy", "vz")
KURAMOTO_FEATURES = ("dphi", "sin_phi", "phi", "w")


def load_trajectories(
    path: str | os.PathLike[str],
    split: str = "train",
    name: str | None = None,
    feature_names: tuple[str, ...] | None = None,
) -> TrajectoryData:
    """Read one split of a data set.

    Parameters
    ----------
    path : path
        A folder, or one ``.npz`` file.
    split : str
        Which of the folder's splits; for one ``.npz`` file only a label.
    name : str, optional
        Which data set, where the folder holds several: ``springs5`` for ``loc_train_springs5.npy``.
    feature_names : tuple of str, optional
        Names the features of an ``.npz`` file that does not name them itself (otherwise ``f0``, ``f1``, ...).
        ``x, y, z`` are positions and ``vx, vy, vz`` velocities.

    Returns
    -------
    TrajectoryData
        States in float64, in the file's units; ``edges`` and ``node_types`` are None where the data set has none.

    Raises
    ------
    FileNotFoundError
        No such path, or no file of this split (and name) in it.
    ValueError
        Several data sets fit; a file is damaged, truncated or holds pickled objects; arrays of wrong rank or of shapes
        that do not fit together; NaN or infinity where a state is not absent; edges that are no types. The message
        names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        found = _find(path, split, name)
        if found.suffix == ".npy":
            return _load_family(found, split, _name_of(found, split))
        return _load_npz(found, split, _name_of(found, split), feature_names)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a folder or an .npz file (give the folder to read NRI's .npy family)")
    return _load_npz(path, split, path.stem if name is None else name, feature_names)


def save_trajectories(data: TrajectoryData, path: str | os.PathLike[str]) -> list[Path]:
    """Write a data set, never over an existing file.

    Parameters
    ----------
    data : TrajectoryData
    path : path
        ``....npz`` for one file. Otherwise a folder (made if absent), which gets NRI's ``.npy`` family if the features
        are positions and velocities, or Kuramoto's, and ``{split}.npz`` or ``{split}_{name}.npz`` if not, and for all
        that these files have no place for: systems of different sizes, absent states, an origin.

    Returns
    -------
    list of Path
        The files written. Each appears whole or not at all.

    Raises
    ------
    FileExistsError
        Names the first file that is already there; nothing is written then.
    """
    path = Path(path)
    suffix = f"{data.split}_{data.name}" if data.name else data.split
    states = data.states.cpu().numpy()
    edges = None if data.edges is None else data.edges.cpu().numpy()
    node_types = None if data.node_types is None else data.node_types.cpu().numpy()
    dimensions = data.features // 2
    family: dict[Path, Array] = {}
    if path.suffix != ".npz" and data.sizes is None and data.origin is None and data.present is None:
        if data.feature_names == _POSITIONS[:dimensions] + _VELOCITIES[:dimensions]:
            family[path / f"loc_{suffix}.npy"] = states[..., :dimensions].transpose(0, 1, 3, 2)
            family[path / f"vel_{suffix}.npy"] = states[..., dimensions:].transpose(0, 1, 3, 2)
        elif data.feature_names == KURAMOTO_FEATURES:
            family[path / f"feat_{suffix}.npy"] = states.transpose(0, 2, 1, 3)
        if family and edges is not None:
            family[path / f"edges_{suffix}.npy"] = edges.transpose(0, 2, 1).astype(np.int64)
        if family and node_types is not None:
            family[path / f"nodes_{suffix}.npy"] = node_types.astype(np.int64)
    if family:
        _write_new({file: [("", array)] for file, array in family.items()})
        return list(family)
    arrays = [("states", states), ("feature_names", np.array(data.feature_names))]
    if edges is not None:
        arrays.append(("edges", edges))
    if node_types is not None:
        arrays.append(("node_types", node_types))
    if data.sizes is not None:
        arrays.append(("sizes", data.sizes.cpu().numpy()))
    if data.present is not None:
        arrays.append(("present", data.present.cpu().numpy()))
    if data.origin is not None:
        arrays += data.origin.arrays().items()
    file = path if path.suffix == ".npz" else path / f"{suffix}.npz"
    _write_new({file: arrays})
    return [file]


def _write_new(files: dict[Path, list[tuple[str, Array]]]) -> None:
    """Write every file aside, then give all of them their names."""
    for file in files:
        if file.exists():
            raise FileExistsError(f"{file}: already there, and nothing is overwritten")
    written: list[tuple[Path, Path]] = []
    try:
        for file, arrays in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
            written.append((temporary, file))
            with open(temporary, "xb") as aside:
                if file.suffix == ".npz":
                    np.savez(aside, **dict(arrays))  # type: ignore[arg-type]  # no key is called allow_pickle
                else:
                    np.save(aside, np.ascontiguousarray(arrays[0][1]), allow_pickle=False)
                aside.flush()
                os.fsync(aside.fileno())
        for temporary, file in written:
            temporary.rename(file)
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


def _name_of(file: Path, split: str) -> str:
    stem = re.sub(r"^(loc|feat)_", "", file.stem) if file.suffix == ".npy" else file.stem
    return stem[len(split) :].lstrip("_")


def _find(folder: Path, split: str, name: str | None) -> Path:
    """Find the file that leads the data set: loc_..., feat_... or an .npz."""
    pattern = re.compile(rf"((loc|feat)_{re.escape(split)}(_.*)?\.npy)|({re.escape(split)}(_.*)?\.npz)")
    leads = sorted(file for file in folder.iterdir() if pattern.fullmatch(file.name))
    wanted = leads if name is None else [f for f in leads if _name_of(f, split) == name.lstrip("_")]
    if len(wanted) == 1:
        return wanted[0]
    if wanted:
        found = ", ".join(file.name for file in wanted)
        raise ValueError(f"{folder}: several data sets have a {split!r} split, choose one by its name: {found}")
    present = ", ".join(sorted(f.name for f in folder.iterdir() if f.suffix in (".npy", ".npz"))) or "none"
    called = "" if name is None else f" called {name!r}"
    raise FileNotFoundError(
        f"{folder}: no data set{called} with a {split!r} split (loc_{split}_*.npy, feat_{split}_*.npy or {split}.npz)"
        f"{_other_splits(folder)}; data files there: {present}"
    )


def _other_splits(folder: Path) -> str:
    found = (re.fullmatch(r"(?:loc|feat)_([^_]+)(?:_.*)?\.npy|([^_]+)(?:_.*)?\.npz", f.name) for f in folder.iterdir())
    splits = sorted({match[1] or match[2] for match in found if match})
    if not splits:
        return ""
    return f", but one with {' and '.join(map(repr, splits))}: name it as the split (--split {splits[0]})"


def _load_family(lead: Path, split: str, name: str) -> TrajectoryData:
    kind, rest = lead.name.split("_", 1)
    if kind == "feat":
        feat = open_npy(lead)
        check_numeric(lead, feat, 4, "[systems, entities, steps, features]")
        names = KURAMOTO_FEATURES if feat.shape[3] == len(KURAMOTO_FEATURES) else _plain_names(feat.shape[3])
        states = np.array(feat.transpose(0, 2, 1, 3), dtype=np.float64, order="C")
    else:
        velocity_file = lead.with_name(f"vel_{rest}")
        loc, vel = open_npy(lead), open_npy(velocity_file)
        layout = "[systems, steps, dimensions, entities]"
        check_numeric(lead, loc, 4, layout)
        check_numeric(velocity_file, vel, 4, layout)
        if loc.shape != vel.shape:
            raise ValueError(
                f"{velocity_file}: expected the shape of {lead.name}, {list(loc.shape)}, got {list(vel.shape)}"
            )
        dimensions = loc.shape[2]
        if not 1 <= dimensions <= len(_POSITIONS):
            raise ValueError(f"{lead}: expected 1 to 3 dimensions in {layout}, got shape {list(loc.shape)}")
        names = _POSITIONS[:dimensions] + _VELOCITIES[:dimensions]
        states = np.empty((loc.shape[0], loc.shape[1], loc.shape[3], 2 * dimensions))
        states[..., :dimensions] = loc.transpose(0, 1, 3, 2)
        states[..., dimensions:] = vel.transpose(0, 1, 3, 2)
    edges_file = lead.with_name(f"edges_{rest}")
    edges = None
    if edges_file.exists():
        edges = edge_types(edges_file, open_npy(edges_file), states.shape[0], states.shape[2])
        edges = np.ascontiguousarray(edges.transpose(0, 2, 1))
    nodes_file = lead.with_name(f"nodes_{rest}")
    nodes = None
    if nodes_file.exists():
        nodes = node_types_of(nodes_file, open_npy(nodes_file), states.shape[0], states.shape[2])
    return _assemble(lead, states, edges, nodes, names, name, split)


def _load_npz(file: Path, split: str, name: str, feature_names: tuple[str, ...] | None) -> TrajectoryData:
    with open(file, "rb") as opened:  # opened here: NumPy leaves a damaged archive open
        try:
            archive = np.load(opened, allow_pickle=False)
        except DAMAGE as problem:
            raise ValueError(damage(file, problem)) from problem
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{file}: expected an .npz archive, got a single array")
        states_key, states = _one_of(file, archive, "states", "trajectories")
        edges_key, edges = _one_of(file, archive, "edges", "adjacency")
        _, nodes = _one_of(file, archive, "node_types")
        _, names = _one_of(file, archive, "feature_names")
        _, sizes = _one_of(file, archive, "sizes")
        _, lengths = _one_of(file, archive, "lengths")
        _, present = _one_of(file, archive, "present")
        origin = {key: array for key in ORIGIN_KEYS if (array := _one_of(file, archive, key)[1]) is not None}
    if states is None:
        raise ValueError(f"{file}: expected an array 'states' or 'trajectories', got {sorted(archive.files)}")
    check_numeric(f"{file}: {states_key}", states, 4, "[systems, steps, entities, features]")
    if names is not None:
        feature_names = tuple(str(n) for n in np.atleast_1d(names))
    elif feature_names is None:
        feature_names = _plain_names(states.shape[3])
    types = None
    if edges is not None:
        types = edge_types(f"{file}: {edges_key}", edges, states.shape[0], states.shape[2])
    if nodes is not None:
        nodes = node_types_of(f"{file}: node_types", nodes, states.shape[0], states.shape[2])
    present = _mask(file, states.shape[:3], sizes, lengths, present)
    return _assemble(file, states, types, nodes, feature_names, name, split, sizes, origin, present)


def _mask(
    file: Path, shape: tuple[int, ...], sizes: Array | None, lengths: Array | None, present: Array | None
) -> Array | None:
    """[systems, steps, entities] bool: which states there are; None: all."""
    if present is not None and (present.dtype.kind not in "biu" or present.shape != shape):
        raise ValueError(
            f"{file}: present: expected flags [systems, steps, entities] = {list(shape)}, "
            f"got {present.dtype} {list(present.shape)}"
        )
    mask = None if present is None else present.astype(bool)
    if lengths is None:
        return mask
    systems, steps, entities = shape
    if lengths.dtype.kind not in "iu" or lengths.shape != (systems,):
        raise ValueError(
            f"{file}: lengths: expected whole numbers [systems] = [{systems}], "
            f"got {lengths.dtype} {list(lengths.shape)}"
        )
    if lengths.min() < 1 or lengths.max() > steps:
        raise ValueError(f"{file}: lengths: expected 1 to {steps} steps, got {lengths.min()} to {lengths.max()}")
    members = np.ones((systems, 1, entities), dtype=bool)
    if sizes is not None and sizes.shape == (systems,):
        members = (np.arange(entities) < sizes[:, None])[:, None]
    recorded = (np.arange(steps) < lengths[:, None])[..., None] & members
    return recorded if mask is None else mask & recorded


def _one_of(file: Path, archive: Any, *keys: str) -> tuple[str, Array | None]:
    """Read the array that goes by one of these names, if it is there."""
    present = [key for key in keys if key in archive.files]
    if len(present) > 1:
        raise ValueError(f"{file}: expected one of {present}, got both")
    if not present:
        return "", None
    try:
        return present[0], archive[present[0]]
    except DAMAGE as problem:
        raise ValueError(damage(f"{file}: {present[0]}", problem)) from problem


def _plain_names(features: int) -> tuple[str, ...]:
    return tuple(f"f{i}" for i in range(features))


def _assemble(
    where: Path,
    states: Array,
    edges: Array | None,
    nodes: Array | None,
    names: tuple[str, ...],
    name: str,
    split: str,
    sizes: Array | None = None,
    origin: dict[str, Array] | None = None,
    present: Array | None = None,
) -> TrajectoryData:
    if sizes is not None and sizes.dtype.kind not in "iu":
        raise ValueError(f"{where}: sizes: expected whole numbers, got dtype {sizes.dtype}")
    try:
        return TrajectoryData(
            states=torch.from_numpy(np.ascontiguousarray(states, dtype=np.float64)),
            edges=None if edges is None else torch.from_numpy(np.ascontiguousarray(edges)),
            feature_names=names,
            name=name,
            split=split,
            node_types=None if nodes is None else torch.from_numpy(np.ascontiguousarray(nodes)),
            sizes=None if sizes is None else torch.from_numpy(sizes.astype(np.int64)),
            origin=Origin.from_arrays(origin) if origin else None,
            present=None if present is None else torch.from_numpy(present),
        )
    except ValueError as problem:
        raise ValueError(f"{where}: {problem}") from problem
