"""Motion capture, CMU's ``.asf`` (skeleton) and ``.amc`` (motion): positions of joints by forward kinematics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nri_fast.readers.recording import Array, DataError, Recording, Source, whole
from nri_fast.readers.skeleton import ROOT, Skeleton, lines_of, read_skeleton

FRAMES_PER_SECOND = 120.0  # CMU's recordings


def read_mocap(
    skeleton: str | os.PathLike[str],
    motions: Sequence[str | os.PathLike[str]],
    joints: Sequence[str] | None = None,
    rate: float = FRAMES_PER_SECOND,
) -> Source:
    """Read trials of one subject.

    Parameters
    ----------
    skeleton : path
        ``.asf``.
    motions : sequence of path
        ``.amc``; each is a recording.
    joints : sequence of str, optional
        Joints to keep, by name (a joint is the far end of the bone of its name, or ``root``); by default all.
    rate : float
        Frames a second.

    Returns
    -------
    Source
        Features x, y, z in metres, y pointing up.

    Raises
    ------
    FileNotFoundError
    DataError
        Damage, a frame that is missing or lacks a bone, a joint that is not there: file and line are named.
    """
    if not rate > 0:
        raise ValueError(f"rate: expected a positive number of frames a second, got {rate}")
    body = read_skeleton(skeleton)
    kept = list(body.joints if joints is None else joints)
    unknown = [joint for joint in kept if joint not in body.joints]
    if unknown or len(set(kept)) != len(kept) or not kept:
        wrong = repr(unknown[0]) if unknown else f"{kept}"
        raise DataError(f"{skeleton}: joints: expected different ones of {', '.join(body.joints)}, got {wrong}")
    places = [body.joints.index(joint) for joint in kept]
    recordings = []
    for file in motions:
        states = body.positions(read_motion(file, body))[:, places]
        recordings.append(Recording(Path(file).stem, len(states), tuple(kept), 1 / rate, whole(states)))
    return Source(str(skeleton), ("x", "y", "z"), recordings)


def read_motion(file: str | os.PathLike[str], skeleton: Skeleton) -> dict[str, Array]:
    """Read an ``.amc`` file: [frames, channels] for the root and every bone that turns, in the file's units.

    Raises
    ------
    FileNotFoundError
    DataError
        See :func:`read_mocap`.
    """
    path = Path(file)
    wanted = {ROOT: len(skeleton.channels)} | {b.name: len(b.channels) for b in skeleton.bones if b.channels}
    values: dict[str, list[list[float]]] = {name: [] for name in wanted}
    frame, begun = 0, 0
    first: int | None = None
    for line, words in lines_of(path):
        if words[0].startswith(":"):
            if words[0].lower() in (":radians", ":degrees") and (words[0].lower() == ":degrees") != skeleton.degrees:
                raise DataError(f"{path}: line {line}: {words[0]}, but the skeleton says otherwise")
            continue
        if words[0].isdigit() and len(words) == 1:
            if first is not None:
                _check_frame(path, begun, frame, first, wanted, values)
            number = int(words[0])
            if first is not None and number != frame + 1:
                raise DataError(f"{path}: line {line}: expected frame {frame + 1}, got {number}")
            first = number if first is None else first
            frame, begun = number, line
            continue
        if first is None:
            raise DataError(f"{path}: line {line}: expected the number of a frame, got {words[0]!r}")
        name = words[0]
        if name not in wanted:
            raise DataError(f"{path}: line {line}: {name!r} is no bone of the skeleton that turns")
        if len(values[name]) != frame - first:
            raise DataError(f"{path}: line {line}: {name!r} is there twice in frame {frame}")
        try:
            numbers = [float(word) for word in words[1:]]
        except ValueError:
            raise DataError(f"{path}: line {line}: expected numbers, got {' '.join(words[1:])!r}") from None
        if len(numbers) != wanted[name] or not np.isfinite(numbers).all():
            raise DataError(
                f"{path}: line {line}: {name!r}: expected {wanted[name]} finite numbers, got {' '.join(words[1:])!r}"
            )
        values[name].append(numbers)
    if first is None:
        raise DataError(f"{path}: expected frames, got none")
    _check_frame(path, begun, frame, first, wanted, values)
    return {name: np.array(rows) for name, rows in values.items()}


def _check_frame(
    path: Path, line: int, frame: int, first: int, wanted: dict[str, int], values: dict[str, list[list[float]]]
) -> None:
    lacking = [name for name in wanted if len(values[name]) != frame - first + 1]
    if lacking:
        raise DataError(f"{path}: line {line}: frame {frame}: expected values for {', '.join(lacking)}, there are none")
