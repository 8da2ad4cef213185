"""Acclaim skeletons (``.asf``): bones, how they hang together, and where joints are when bones turn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from nri_fast.readers.recording import Array, DataError

ROOT = "root"
INCH = 0.0254  # metres; the format counts in inches, scaled by the skeleton's `length`
TURNS = ("rx", "ry", "rz")
ROOT_CHANNELS = ("tx", "ty", "tz", *TURNS)


@dataclass(frozen=True)
class Bone:
    """A bone, and the joint at its far end, which has the bone's name.

    Attributes
    ----------
    name : str
    parent : str
        The bone that it hangs on, or ``root``.
    offset : ndarray, [3]
        From the parent's joint to its own, in the rest pose, in the file's units of length.
    frame : Rotation
        Of the axes that it turns about.
    order : str
        Order in which it turns about them, such as ``xyz`` (about x first).
    channels : tuple of str
        Which of ``rx``, ``ry``, ``rz`` a motion gives, in this order.
    """

    name: str
    parent: str
    offset: Array
    frame: Rotation
    order: str
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Skeleton:
    """Bones, parents before children.

    Attributes
    ----------
    bones : tuple of Bone
    channels : tuple of str
        What a motion gives for the root: ``tx``, ``ty``, ``tz``, ``rx``, ``ry``, ``rz`` in some order.
    order : str
        Order of the root's turns.
    frame : Rotation
        Of the root's axes.
    degrees : bool
        Whether angles of motions are in degrees.
    metres : float
        Metres of a unit of length.
    """

    bones: tuple[Bone, ...]
    channels: tuple[str, ...]
    order: str
    frame: Rotation
    degrees: bool
    metres: float

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of all joints, the root first."""
        return (ROOT, *(bone.name for bone in self.bones))

    def positions(self, motion: dict[str, Array]) -> Array:
        """Forward kinematics.

        Parameters
        ----------
        motion : dict of ndarray, [frames, channels]
            For the root and for every bone that turns.

        Returns
        -------
        ndarray, float64, [frames, joints, 3]
            In metres; y points up. Joints are in the order of `joints`.
        """
        root = motion[ROOT]
        moved = root[:, [self.channels.index(axis) for axis in ("tx", "ty", "tz")]]
        turned = {ROOT: self._turned(root, self.channels, self.order, self.frame)}
        at = {ROOT: moved}
        for bone in self.bones:
            own = turned[bone.parent]
            if bone.channels:
                own = own * self._turned(motion[bone.name], bone.channels, bone.order, bone.frame)
            turned[bone.name] = own
            at[bone.name] = at[bone.parent] + own.apply(bone.offset)
        return np.stack([at[joint] for joint in self.joints], axis=1) * self.metres

    def _turned(self, values: Array, channels: tuple[str, ...], order: str, frame: Rotation) -> Rotation:
        angles = np.zeros((len(values), 3))
        for place, axis in enumerate(order):
            if f"r{axis}" in channels:
                angles[:, place] = values[:, channels.index(f"r{axis}")]
        return frame * Rotation.from_euler(order, angles, degrees=self.degrees) * frame.inv()


def read_skeleton(file: str | os.PathLike[str]) -> Skeleton:
    """Read an ``.asf`` file.

    Raises
    ------
    FileNotFoundError
    DataError
        A section or entry is missing, is no number, or contradicts another: file and line are named.
    """
    path = Path(file)
    sections = _sections(path)
    for name in ("root", "bonedata", "hierarchy"):
        if name not in sections:
            raise DataError(f"{path}: expected a section :{name}, got {', '.join(f':{s}' for s in sections) or 'none'}")
    units = {words[0]: (line, words[1:]) for line, words in sections.get("units", [])}
    length = _numbers(path, *units["length"], count=1)[0] if "length" in units else 1.0
    degrees = units.get("angle", (0, ["deg"]))[1][:1] != ["rad"]
    if not length > 0:
        raise DataError(f"{path}: line {units['length'][0]}: expected a positive length, got {length}")
    parents = _parents(path, sections["hierarchy"])
    bones = {bone.name: bone for bone in _bones(path, sections["bonedata"], parents, degrees)}
    for child, (line, parent) in parents.items():
        for name in (child, parent):
            if name != ROOT and name not in bones:
                raise DataError(f"{path}: line {line}: no bone {name!r} in :bonedata")
    ordered: list[Bone] = []
    reached = {ROOT}
    while len(ordered) < len(bones):
        ready = [bone for bone in bones.values() if bone.name not in reached and bone.parent in reached]
        if not ready:
            lost = ", ".join(sorted(set(bones) - reached))
            raise DataError(f"{path}: :hierarchy: expected every bone to hang on the root, these do not: {lost}")
        ordered += ready
        reached |= {bone.name for bone in ready}
    root = {words[0]: (line, words[1:]) for line, words in sections["root"]}
    line, words = root.get("order", (0, []))
    channels = tuple(word.lower() for word in words)
    if sorted(channels) != sorted(ROOT_CHANNELS):
        raise DataError(f"{path}: line {line}: :root order: expected TX TY TZ RX RY RZ in some order, got {words}")
    line, words = root.get("axis", (0, ["XYZ"]))
    order = _order(path, line, words[:1])
    line, words = root.get("orientation", (0, ["0", "0", "0"]))
    frame = Rotation.from_euler(order, _numbers(path, line, words, 3), degrees=degrees)
    return Skeleton(tuple(ordered), channels, order, frame, degrees, INCH / length)


def lines_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Words of every line that is neither empty nor a comment, with its number."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(f"{path}: expected a file, got a folder")
    try:
        with path.open(encoding="utf-8") as opened:
            for number, line in enumerate(opened, 1):
                words = line.split()
                if words and not words[0].startswith("#"):
                    yield number, words
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: expected text, got byte {problem.object[problem.start]:#x}") from problem


def _sections(path: Path) -> dict[str, list[tuple[int, list[str]]]]:
    sections: dict[str, list[tuple[int, list[str]]]] = {}
    current: list[tuple[int, list[str]]] = []
    for line, words in lines_of(path):
        if words[0].startswith(":"):
            current = sections.setdefault(words[0][1:].lower(), [])
        else:
            current.append((line, words))
    return sections


def _parents(path: Path, lines: list[tuple[int, list[str]]]) -> dict[str, tuple[int, str]]:
    parents: dict[str, tuple[int, str]] = {}
    if not lines or lines[-1][1] != ["end"]:
        raise DataError(f"{path}: :hierarchy: expected begin ... end, the end is missing; is the file truncated?")
    for line, words in lines[:-1]:
        if words == ["begin"]:
            continue
        for child in words[1:]:
            if child in parents or child == ROOT:
                raise DataError(f"{path}: line {line}: {child!r} has a parent already")
            parents[child] = (line, words[0])
    return parents


def _bones(
    path: Path, lines: list[tuple[int, list[str]]], parents: dict[str, tuple[int, str]], degrees: bool
) -> Iterator[Bone]:
    entries: dict[str, tuple[int, list[str]]] | None = None
    begun = 0
    seen = set()
    for line, words in lines:
        if words == ["begin"]:
            entries, begun = {}, line
        elif entries is None:
            raise DataError(f"{path}: line {line}: expected 'begin', got {words[0]!r}")
        elif words == ["end"]:
            bone = _bone(path, begun, entries, parents, degrees)
            if bone.name in seen:
                raise DataError(f"{path}: line {begun}: a second bone {bone.name!r}")
            seen.add(bone.name)
            yield bone
            entries = None
        else:
            entries[words[0]] = (line, words[1:])
    if entries is not None:
        raise DataError(f"{path}: line {begun}: this bone has no 'end'; is the file truncated?")


def _bone(
    path: Path,
    begun: int,
    entries: dict[str, tuple[int, list[str]]],
    parents: dict[str, tuple[int, str]],
    degrees: bool,
) -> Bone:
    for key in ("name", "direction", "length", "axis"):
        if key not in entries or not entries[key][1]:
            raise DataError(f"{path}: line {begun}: expected an entry {key!r} in this bone, there is none")
    name = entries["name"][1][0]
    if name not in parents:
        raise DataError(f"{path}: line {begun}: bone {name!r} is not in :hierarchy")
    direction = np.array(_numbers(path, *entries["direction"], count=3))
    length = _numbers(path, *entries["length"], count=1)[0]
    norm = float(np.linalg.norm(direction))
    if not norm > 0 or length < 0:
        raise DataError(f"{path}: line {entries['direction'][0]}: expected a direction and a length of at least 0")
    line, words = entries["axis"]
    order = _order(path, line, words[3:4])
    line_of_dof, dof = entries.get("dof", (begun, []))
    channels = tuple(word.lower() for word in dof)
    if not set(channels) <= set(TURNS) or len(set(channels)) != len(channels):
        raise DataError(f"{path}: line {line_of_dof}: dof: expected some of rx, ry and rz, got {' '.join(dof)}")
    frame = Rotation.from_euler(order, _numbers(path, line, words[:3], 3), degrees=degrees)
    return Bone(name, parents[name][1], direction / norm * length, frame, order, channels)


def _order(path: Path, line: int, words: list[str]) -> str:
    order = words[0].lower() if words else ""
    if sorted(order) != ["x", "y", "z"]:
        raise DataError(f"{path}: line {line}: axis: expected an order such as XYZ, got {' '.join(words) or 'nothing'}")
    return order


def _numbers(path: Path, line: int, words: list[str], count: int) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise DataError(f"{path}: line {line}: expected {count} numbers, got {' '.join(words)!r}") from None
    if len(values) != count or not np.isfinite(values).all():
        raise DataError(f"{path}: line {line}: expected {count} finite numbers, got {' '.join(words)!r}")
    return values
