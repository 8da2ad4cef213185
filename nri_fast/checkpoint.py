"""Files of tensors and facts that are whole or not there: written aside, flushed, renamed. Nothing is pickled."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

METADATA = "nri_fast"  # the entry of a safetensors file's metadata that holds the facts
KEPT = 2  # checkpoints of a run that stay on disk


class CheckpointError(RuntimeError):
    """A file of a run is missing, damaged, or does not belong to what it is loaded into."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file by new content: a crash leaves the old file or the new one, never a part of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Writes tensors (safetensors) with facts (anything that JSON holds) in the same file, atomically.

    A digest of the content stands in it: a flipped bit in a weight is damage too, and nothing else would tell.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry: several would be written in an order that changes from run to run.
    entry = json.dumps({"sha256": _digest(plain, facts), "facts": facts})
    write_atomically(path, save_tensors(plain, metadata={METADATA: entry}))


def _digest(tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> str:
    return hashlib.sha256(save_tensors(tensors, metadata={METADATA: json.dumps(facts)})).hexdigest()


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads what :func:`save` wrote.

    Raises
    ------
    CheckpointError
        Naming the file, if it is missing, truncated or otherwise not what `save` writes.
    """
    try:
        content = path.read_bytes()
        tensors = load_tensors(content)
        (length,) = struct.unpack("<Q", content[:8])
        entry = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][METADATA])
        facts: dict[str, Any] = entry["facts"]
        if _digest(tensors, facts) != entry["sha256"]:
            raise ValueError("its content does not match its digest")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or not a file of nri_fast ({error})") from error
    return tensors, facts


def named(owner: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as a checkpoint names them, with whose they are in front."""
    return {f"{owner}.{name}": value for name, value in tensors.items()}


def part(owner: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of :func:`named`, among all of a checkpoint's tensors; empty where there are none of these."""
    return {k.removeprefix(f"{owner}."): value for k, value in tensors.items() if k.startswith(f"{owner}.")}


class Checkpoints:
    """The numbered checkpoints of a run, newest last; the last two are kept.

    Parameters
    ----------
    folder : Path
        Where they lie; made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """All that are there, oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def save(self, step: int, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Adds one and removes those beyond the last two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save(self.folder / f"step-{step:09d}.safetensors", tensors, {**facts, "step": step})
        for old in self.paths()[:-KEPT]:
            old.unlink()

    def latest(self, warn: Callable[[str], None] = print) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The newest one that can be read; a damaged one is reported through `warn` and passed over.

        None where there is none at all; CheckpointError where there are some, but none can be read.
        """
        damaged = None
        for path in reversed(self.paths()):
            try:
                return load(path)
            except CheckpointError as error:
                damaged = error
                warn(f"{error}; falling back to the checkpoint before it")
        if damaged is not None:
            raise damaged
        return None
