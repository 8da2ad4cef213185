"""An ``.npz`` file of systems, written system by system, so that a data set need not fit into memory."""

from __future__ import annotations

import io
import math
import os
import zipfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from nri_fast.origin import Origin
from nri_fast.readers.recording import Array

BLOCK = 1 << 21  # numbers held in memory while states are copied


class SystemsFile:
    """Collects the systems of one split and writes them in the package's own format (:mod:`nri_fast.formats`).

    Parameters
    ----------
    file : path
        Of the ``.npz`` file.
    scratch : path
        Folder for numbers that wait; removed by the caller.
    feature_names : sequence of str
    """

    def __init__(self, file: Path, scratch: Path, feature_names: Sequence[str]) -> None:
        self.file, self.feature_names = file, tuple(feature_names)
        self._waiting = scratch / f"{file.stem}.states"
        self._states: BinaryIO = self._waiting.open("wb")
        self._flags = scratch / f"{file.stem}.present"
        self._present: BinaryIO = self._flags.open("wb")
        self._lengths = array("q")
        self._there = self._all = 0  # states
        self._sizes, self._recording, self._first, self._time = array("q"), array("q"), array("q"), array("d")
        self._names: list[tuple[str, ...]] = []
        self._edges: list[Array] = []
        self._node_types: list[Array] = []
        self._recordings: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def recordings(self) -> int:
        """Recordings that the systems come from."""
        return len(self._recordings)

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Fewest and most entities of a system, fewest and most steps."""
        return (min(self._sizes), max(self._sizes)), (min(self._lengths), max(self._lengths))

    @property
    def share_present(self) -> float:
        """Share of the states, up to the ends of the recordings, that are there."""
        return self._there / self._all

    def add(
        self,
        recording: str,
        first_step: int,
        time_step: float,
        entities: tuple[str, ...],
        edges: Array | None,
        node_types: Array | None,
    ) -> None:
        """Begin a system; its states follow."""
        self._lengths.append(0)
        self._sizes.append(len(entities))
        self._recording.append(self._recordings.setdefault(recording, len(self._recordings)))
        self._first.append(first_step)
        self._time.append(time_step)
        self._names.append(entities)
        if edges is not None:
            self._edges.append(edges)
        if node_types is not None:
            self._node_types.append(node_types)

    def append(self, states: Array) -> None:
        """Write some more steps, [steps, entities, features], of the system that was begun last.

        A state with a NaN is absent as a whole.
        """
        there = np.ascontiguousarray(~np.isnan(states).any(axis=-1))
        self._states.write(np.ascontiguousarray(np.where(there[..., None], states, 0.0), dtype=np.float64).data)
        self._present.write(there.data)
        self._lengths[-1] += len(states)
        self._there += int(there.sum())
        self._all += there.size

    def close(self) -> None:
        """No more states will come."""
        self._states.close()
        self._present.close()

    def write(self, notes: dict[str, str]) -> Path:
        """Write the archive beside its final place, and return where."""
        self.close()
        (_, largest), (shortest, steps) = self.ranges
        systems = len(self)
        sizes, lengths = np.array(self._sizes, dtype=np.int64), np.array(self._lengths, dtype=np.int64)
        names = np.array([[*n, *[""] * (largest - len(n))] for n in self._names], dtype=np.str_)
        origin = Origin(
            torch.from_numpy(np.array(self._recording, dtype=np.int64)),
            tuple(self._recordings),
            torch.from_numpy(np.array(self._first, dtype=np.int64)),
            torch.from_numpy(np.array(self._time, dtype=np.float64)),
            names.reshape(systems, largest),
            notes,
        )
        arrays = {"feature_names": np.array(self.feature_names), **origin.arrays()}
        if sizes.min() < largest:
            arrays["sizes"] = sizes
        if shortest < steps:
            arrays["lengths"] = lengths
        if self._edges:
            arrays["edges"] = np.zeros((systems, largest, largest), dtype=np.uint8)
            for place, edges in enumerate(self._edges):
                arrays["edges"][place, : len(edges), : len(edges)] = edges
        if self._node_types:
            arrays["node_types"] = np.zeros((systems, largest), dtype=np.uint8)
            for place, types in enumerate(self._node_types):
                arrays["node_types"][place, : len(types)] = types
        aside = self.file.with_name(f".{self.file.name}.{os.getpid()}.part")
        with aside.open("wb") as opened:
            with zipfile.ZipFile(opened, "w", zipfile.ZIP_STORED) as archive:
                shape = (systems, steps, largest, len(self.feature_names))
                self._copy(archive, "states", np.dtype("<f8"), shape, sizes, lengths)
                if self._there < self._all:
                    self._copy(archive, "present", np.dtype("|b1"), shape[:3], sizes, lengths)
                for name, values in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        content = io.BytesIO()
                        np.save(content, np.require(values, requirements="C"), allow_pickle=False)
                        member.write(content.getbuffer())
            opened.flush()
            os.fsync(opened.fileno())
        self._waiting.unlink()
        self._flags.unlink()
        return aside

    def _copy(
        self,
        archive: zipfile.ZipFile,
        name: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        sizes: Array,
        lengths: Array,
    ) -> None:
        """Copy what waits, every system filled up with zeros to the size of the largest and length of the longest."""
        steps, largest, rest = shape[1], shape[2], shape[3:]
        at_once = max(1, BLOCK // (largest * math.prod(rest)))
        with (
            archive.open(f"{name}.npy", "w", force_zip64=True) as member,
            (self._waiting if rest else self._flags).open("rb") as waiting,
        ):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
            member.write(header.getvalue())
            for n, length in zip(sizes.tolist(), lengths.tolist(), strict=True):
                for first in range(0, steps, at_once):
                    block = np.zeros((min(at_once, steps - first), largest, *rest), dtype)
                    count = max(0, min(length - first, len(block)))
                    values = np.fromfile(waiting, dtype, count * n * math.prod(rest))
                    block[:count, :n] = values.reshape(count, n, *rest)
                    member.write(block.data)
