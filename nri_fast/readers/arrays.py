"""Arrays from files: nothing is unpickled, and what is damaged or does not fit is refused by name."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
#: What a damaged .npy or .npz makes NumPy raise.
DAMAGE = (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error)


def open_npy(file: Path) -> Array:
    """Map a .npy file into memory, so that a big one is read once, straight to where it is wanted."""
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except DAMAGE as problem:
        raise ValueError(damage(file, problem)) from problem


def damage(where: object, problem: Exception) -> str:
    """What to say about a file that NumPy could not read."""
    if "allow_pickle" in str(problem) or "pickle" in str(problem).lower() or "Python objects" in str(problem):
        return f"{where}: not a plain numeric array; pickled objects could run code and are refused ({problem})"
    return f"{where}: damaged or truncated ({problem})"


def check_numeric(where: object, array: Array, rank: int, dimensions: str) -> None:
    """Raise ValueError unless an array holds real numbers and has this rank."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{where}: expected real numbers, got dtype {array.dtype}")
    if array.ndim != rank:
        raise ValueError(
            f"{where}: expected {rank} dimensions {dimensions}, got {array.ndim} with shape {list(array.shape)}"
        )


def edge_types(where: object, edges: Array, systems: int, entities: int) -> Array:
    """Check edges and turn them into uint8 types with a zero diagonal, in the file's orientation."""
    check_numeric(where, edges, 3, "[systems, entities, entities]")
    if edges.shape != (systems, entities, entities):
        raise ValueError(
            f"{where}: expected [systems, entities, entities] = {[systems, entities, entities]}, "
            f"got {list(edges.shape)}"
        )
    values = np.array(edges, dtype=np.float64)
    values[:, np.arange(entities), np.arange(entities)] = 0
    if (values == -1).any():
        off_diagonal = ~np.eye(entities, dtype=bool)
        bad = off_diagonal & (values != -1) & (values != 1)
        expected = "-1 or +1 throughout, as other edges are -1"
        values[:, off_diagonal] = (values[:, off_diagonal] + 1) / 2
    else:
        bad = _no_types(values)
        expected = "whole numbers from 0 to 255 (or -1 and +1)"
    if bad.any():
        s, i, j = (int(k) for k in np.argwhere(bad)[0])
        raise ValueError(f"{where}: expected edge types to be {expected}, got {edges[s, i, j]} at [{s}, {i}, {j}]")
    return values.astype(np.uint8)


def node_types_of(where: object, nodes: Array, systems: int, entities: int) -> Array:
    """Check entities' types and turn them into uint8."""
    check_numeric(where, nodes, 2, "[systems, entities]")
    if nodes.shape != (systems, entities):
        raise ValueError(f"{where}: expected [systems, entities] = {[systems, entities]}, got {list(nodes.shape)}")
    bad = _no_types(nodes)
    if bad.any():
        s, i = (int(k) for k in np.argwhere(bad)[0])
        raise ValueError(
            f"{where}: expected entity types to be whole numbers from 0 to 255, got {nodes[s, i]} at [{s}, {i}]"
        )
    return nodes.astype(np.uint8)


def _no_types(values: Array) -> Array:
    return ~((values >= 0) & (values <= 255) & (values == np.floor(values)))
