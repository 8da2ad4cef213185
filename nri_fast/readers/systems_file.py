"""An ``.npz`` file of systems, written system by system, so that a data set need not fit into memory."""

from __future__ import annotations

import io
import os
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

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
        self._written = 0  # numbers of the system being written
        self._sizes, self._recording, self._first, self._time = array("q"), array("q"), array("q"), array("d")
        self._names: list[tuple[str, ...]] = []
        self._edges: list[Array] = []
        self._node_types: list[Array] = []
        self._recordings: dict[str, int] = {}
        self.steps: int | None = None

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def recordings(self) -> int:
        """Recordings that the systems come from."""
        return len(self._recordings)

    @property
    def sizes(self) -> tuple[int, int]:
        """Fewest and most entities of a system."""
        return min(self._sizes), max(self._sizes)

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
        """Write some more steps, [steps, entities, features], of the system that was begun last."""
        self._states.write(np.ascontiguousarray(states, dtype=np.float64).data)

    def close(self) -> None:
        """No more states will come."""
        self._states.close()

    def write(self, steps: int, notes: dict[str, str]) -> Path:
        """Write the archive beside its final place, and return where; `steps` is the length of every system."""
        self.close()
        systems, largest = len(self), self.sizes[1]
        sizes = np.array(self._sizes, dtype=np.int64)
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
                with archive.open("states.npy", "w", force_zip64=True) as member:
                    shape = (systems, steps, largest, len(self.feature_names))
                    header = io.BytesIO()
                    np.lib.format.write_array_header_1_0(
                        header, {"descr": "<f8", "fortran_order": False, "shape": shape}
                    )
                    member.write(header.getvalue())
                    for block in self._padded(sizes, steps, largest):
                        member.write(block.data)
                for name, values in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        content = io.BytesIO()
                        np.save(content, np.require(values, requirements="C"), allow_pickle=False)
                        member.write(content.getbuffer())
            opened.flush()
            os.fsync(opened.fileno())
        self._waiting.unlink()
        return aside

    def _padded(self, sizes: Array, steps: int, largest: int) -> Iterator[Array]:
        """The waiting states, every system filled up with zeros to the size of the largest."""
        features = len(self.feature_names)
        with self._waiting.open("rb") as waiting:
            for n in sizes.tolist():
                left = steps
                while left:
                    count = min(left, max(1, BLOCK // (largest * features)))
                    states = np.fromfile(waiting, np.float64, count * n * features).reshape(count, n, features)
                    left -= count
                    if n < largest:
                        padded = np.zeros((count, largest, features))
                        padded[:, :n] = states
                        states = padded
                    yield states
