"""From what a reader found to files of systems: steps left out, velocities, windows, splits."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nri_fast.formats import load_trajectories
from nri_fast.normalisation import POSITION_NAMES, VELOCITY_NAMES
from nri_fast.readers.recording import Array, DataError, Recording, Source, every_kth
from nri_fast.readers.splits import split_recordings
from nri_fast.readers.systems_file import SystemsFile
from nri_fast.readers.velocities import NOTES, Velocities, lacking_velocities, with_velocities
from nri_fast.readers.windows import cut_windows
from nri_fast.trajectory_data import TrajectoryData


@dataclass(frozen=True)
class Cut:
    """How recordings become systems.

    Attributes
    ----------
    window : int, optional
        Steps of a system. None: a recording is one system, whatever its length.
    stride : int, optional
        Steps from one window's start to the next one's; by default `window`, so that windows do not overlap.
    every : int
        Keep every so many-th step.
    velocities : {"central", "backward", "none"}
        How to estimate velocities of positions (x, y, z) that have none.
    min_presence : float
        Share of a window's steps that an entity must be there to be one of its system, see
        :func:`nri_fast.readers.windows.stays`. 1: only who is there throughout.

    Raises
    ------
    ValueError
        A number that is out of range, or a stride without a window.
    """

    window: int | None = None
    stride: int | None = None
    every: int = 1
    velocities: Velocities = "central"
    min_presence: float = 0.2

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.window is not None and self.window < 2:
            raise ValueError(f"window: expected at least 2 steps, got {self.window}")
        if self.stride is not None and (self.window is None or self.stride < 1):
            raise ValueError(f"stride: expected 1 step or more beside a window, got {self.stride}")
        if self.every < 1:
            raise ValueError(f"every: expected 1 or more, got {self.every}")
        if self.velocities not in ("central", "backward", "none"):
            raise ValueError(f"velocities: expected central, backward or none, got {self.velocities!r}")
        if not 0 <= self.min_presence <= 1:
            raise ValueError(f"min_presence: expected a share from 0 to 1, got {self.min_presence}")


@dataclass
class Conversion:
    """What became of a source.

    Attributes
    ----------
    files : list of Path
        Written, one a split.
    lines : list of str
        What is in them, and what was left out, for people.
    """

    files: list[Path] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def convert(
    source: Source,
    out: Path,
    cut: Cut | None = None,
    valid: float = 0.0,
    test: float = 0.0,
    seed: int = 0,
    split: str = "train",
    name: str = "",
    progress: bool = False,
) -> Conversion:
    """Write a source as files that :func:`nri_fast.load_trajectories` reads, a recording at a time.

    Parameters
    ----------
    source : Source
        What a reader gave.
    out : path
        Folder for ``{split}.npz`` or ``{split}_{name}.npz``, made if absent.
    cut : Cut, optional
        Windows and velocities.
    valid, test : float
        Shares of the recordings that go into splits of their own, see :func:`split_recordings`.
    seed : int
        Of the draw.
    split : str
        Name of the split that gets all other recordings.
    name : str
        Of the data set.
    progress : bool
        Show a progress bar on terminals.

    Returns
    -------
    Conversion

    Raises
    ------
    DataError
        A recording in which nobody is there at two steps in succession, where no window is asked for; a split without a
        window that is long enough.
    FileExistsError
        Names the first file that is already there; nothing is written then.
    """
    cut = Cut() if cut is None else cut
    _check_labels(source)
    splits = _splits(source, valid, test, seed, split)
    files = {which: out / (f"{which}_{name}.npz" if name else f"{which}.npz") for which in dict.fromkeys(splits)}
    for file in files.values():
        if file.exists():
            raise FileExistsError(f"{file}: already there, and nothing is overwritten")
    lacking = lacking_velocities(source.feature_names) if cut.velocities != "none" else []
    names = source.feature_names + tuple(VELOCITY_NAMES[POSITION_NAMES.index(source.feature_names[d])] for d in lacking)
    length = cut.window if cut.window is not None else _longest(source, cut, bool(lacking))
    notes = _notes(source, cut, bool(lacking))
    out.mkdir(parents=True, exist_ok=True)
    aside: dict[Path, Path] = {}
    done, too_short = Conversion(), 0
    try:
        with tempfile.TemporaryDirectory(prefix=".nri_fast.", dir=out) as scratch, contextlib.ExitStack() as opened:
            systems = {
                which: opened.enter_context(contextlib.closing(SystemsFile(file, Path(scratch), names)))
                for which, file in files.items()
            }
            pairs = zip(source.recordings, splits, strict=True)
            for recording, which in tqdm(
                pairs, "converting", len(splits), unit="recording", disable=None if progress else True
            ):
                before = len(systems[which])
                _add(systems[which], source, recording, cut, lacking)
                too_short += len(systems[which]) == before
            for which, file in files.items():
                if not len(systems[which]):
                    raise DataError(
                        f"{source.where}: expected windows of {length} steps with two entities in the {which!r} split, "
                        f"found none in {splits.count(which)} recordings; the longest has "
                        f"{max(r.steps for r in source.recordings)} steps (--window, --every, --min-presence)"
                    )
                done.lines.append(_described(file, systems[which], names))
                aside[systems[which].write(notes)] = file
        for part, file in aside.items():
            part.rename(file)
            done.files.append(file)
    finally:
        for part in aside:
            part.unlink(missing_ok=True)
    if too_short:
        done.lines.append(f"left out: {too_short} recordings without a window of {length} steps with two entities")
    return done


def to_trajectories(source: Source, cut: Cut | None = None, split: str | None = None, name: str = "") -> TrajectoryData:
    """Systems of a source in memory; `split` chooses one of its own splits. The rest is as for :func:`convert`."""
    kept = [r for r in source.recordings if split is None or r.split in (None, split)]
    if len({r.split for r in kept}) != 1:
        found = ", ".join(sorted({str(r.split) for r in source.recordings}))
        raise ValueError(f"split: expected one of {found} ({source.where}), got {split!r}")
    with tempfile.TemporaryDirectory() as folder:
        chosen = dataclasses.replace(source, recordings=kept)
        file = convert(chosen, Path(folder), cut, split=split or "train", name=name).files[0]
        return load_trajectories(file, kept[0].split or split or "train", name=name)


def _check_labels(source: Source) -> None:
    for kind in ("edges", "node_types"):
        without = [recording.name for recording in source.recordings if getattr(recording, kind) is None]
        if without and len(without) < len(source.recordings):
            raise DataError(
                f"{source.where}: expected labels ({kind}) of all recordings or of none, got none for {without[0]!r}"
            )


def _splits(source: Source, valid: float, test: float, seed: int, split: str) -> list[str]:
    own = [recording.split for recording in source.recordings]
    if any(own):
        if valid or test:
            raise ValueError(
                f"valid, test: {source.where} has splits of its own ({', '.join(sorted(set(map(str, own))))})"
            )
        return [which or split for which in own]
    return split_recordings(len(source.recordings), valid, test, seed, split)


def _length(recording: Recording, cut: Cut, estimated: bool) -> int:
    kept = -(-recording.steps // cut.every)
    return kept - 1 if estimated and cut.velocities == "backward" else kept


def _longest(source: Source, cut: Cut, estimated: bool) -> int:
    longest = max(_length(recording, cut, estimated) for recording in source.recordings)
    if longest < 2:
        raise DataError(f"{source.where}: expected at least 2 steps, got {longest}")
    return longest


def _pieces(source: Source, recording: Recording, cut: Cut, lacking: list[int]) -> Iterator[Array]:
    pieces = every_kth(_finite(recording, source), cut.every)
    if not lacking:
        return pieces
    return with_velocities(pieces, lacking, recording.time_step * cut.every, cut.velocities)


def _finite(recording: Recording, source: Source) -> Iterator[Array]:
    """The recording's pieces; infinite numbers are refused."""
    begin = 0
    for piece in recording.pieces():
        infinite = np.isinf(piece)
        if infinite.any():
            step, entity, feature = (int(k) for k in np.argwhere(infinite)[0])
            raise DataError(
                f"{source.where}: recording {recording.name!r}, entity {recording.entities[entity]!r}, step "
                f"{recording.step_name(begin + step)}, feature {source.feature_names[feature]!r}: expected a finite "
                f"number, got {piece[step, entity, feature]}"
            )
        begin += len(piece)
        yield piece


def _add(systems: SystemsFile, source: Source, recording: Recording, cut: Cut, lacking: list[int]) -> None:
    """Write the systems of one recording."""
    pieces = _pieces(source, recording, cut, lacking)
    late = 1 if lacking and cut.velocities == "backward" else 0  # the first step has no velocity
    time_step = recording.time_step * cut.every
    if cut.window is None:
        systems.add(
            recording.name, late * cut.every, time_step, recording.entities, recording.edges, recording.node_types
        )
        before, usable = np.zeros(len(recording.entities), dtype=bool), False
        for piece in _after(pieces, late):
            there = np.concatenate([before[None], ~np.isnan(piece).any(axis=-1)])
            usable, before = usable or bool((there[1:] & there[:-1]).any()), there[-1]
            systems.append(piece)
        if not usable:
            raise DataError(
                f"{source.where}: recording {recording.name!r}: expected an entity that is there at two steps in "
                "succession, got none"
            )
        return
    for window in cut_windows(_after(pieces, late), cut.window, cut.stride or cut.window, cut.min_presence):
        kept = window.kept
        everyone = len(kept) == len(recording.entities)
        systems.add(
            recording.name,
            (window.first_step + late) * cut.every,
            time_step,
            recording.entities if everyone else tuple(recording.entities[e] for e in kept),
            None if recording.edges is None else recording.edges[kept][:, kept],
            None if recording.node_types is None else recording.node_types[kept],
        )
        systems.append(window.states)


def _after(pieces: Iterator[Array], late: int) -> Iterator[Array]:
    for piece in pieces:
        yield piece[late:]
        late = 0


def _notes(source: Source, cut: Cut, estimated: bool) -> dict[str, str]:
    notes = dict(source.notes)
    notes["velocities"] = NOTES[cut.velocities] if estimated else "as recorded, if there are any"
    if cut.every > 1:
        notes["steps"] = f"every {cut.every}th step of the recordings"
    if cut.window is not None:
        who = f"entities there in {cut.min_presence:.0%} of the steps and at two in succession"
        notes["windows"] = f"{cut.window} steps, one every {cut.stride or cut.window}; {who}"
    return notes


def _described(file: Path, systems: SystemsFile, names: tuple[str, ...]) -> str:
    entities, steps = (str(most) if fewest == most else f"{fewest} to {most}" for fewest, most in systems.ranges)
    share = systems.share_present
    holes = "" if share == 1.0 else f", {min(share, 0.999):.1%} of their states there"
    return (
        f"{file}: {len(systems)} systems of {entities} entities, {steps} steps{holes}, from {systems.recordings} "
        f"recordings, features {', '.join(names)}"
    )
