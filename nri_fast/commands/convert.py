"""The command ``nri-fast convert``.

:data:`SOURCES` is the table of sources: each is a dataclass of its own arguments, whose `open` gives what its reader
found.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nri_fast.commands.arguments import optional

if TYPE_CHECKING:
    from nri_fast.readers.recording import Source


Files = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE [FILE ...]")]
File = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
Folder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Systems:
    """Arguments by which every source chooses how recordings become systems, and where they go."""

    out: Path
    """Folder for train.npz, valid.npz, test.npz. Files that are there already are never overwritten."""
    name: str = ""
    """What to call the data set: train_NAME.npz. Several data sets can share a folder."""
    window: Annotated[int | None, optional("STEPS", "a recording is one system")] = None
    """Cut recordings into systems of so many steps."""
    stride: Annotated[int | None, optional("STEPS", "as --window: windows do not overlap")] = None
    """Steps from the start of one window to that of the next."""
    min_presence: float = 0.2
    """Share of a window's steps that an entity must be there to be in its system, and at two steps in succession in any
    case. 1: only who is there throughout."""
    every: int = 1
    """Keep every so many-th step only."""
    velocities: Literal["central", "backward", "none"] = "central"
    """Where positions x, y, z have no velocities, estimate them. central: from the steps before and after, the more
    exact. backward: from the step before only, for forecasts that may know nothing of the next step."""
    valid: float = 0.0
    """Share of the recordings for validation. Windows of one recording never lie in two splits."""
    test: float = 0.0
    """Share of the recordings for testing."""
    seed: int = 0
    """Names the draw of these recordings."""
    split: str = "train"
    """Which split gets all other recordings."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """What the source's reader found."""
        raise NotImplementedError

    def run(self) -> None:
        """Converts and says what was written."""
        from nri_fast.readers.convert import Cut, convert

        cut = Cut(self.window, self.stride, self.every, self.velocities, self.min_presence)
        with self.open() as source:
            done = convert(
                source, self.out, cut, self.valid, self.test, self.seed, self.split, self.name, progress=True
            )
        print("\n".join(done.lines))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(Systems):
    """Arguments by which tables say what their columns mean."""

    files: Files
    """Tables. Without --system every file is one recording."""
    features: tuple[str, ...]
    """Columns of numbers, NAME or NAME=COLUMN. x, y, z are positions, vx, vy, vz velocities; any other name is fine."""
    entity: str = "entity"
    """Column that names the entity."""
    step: str = "step"
    """Column of the frame number or time; within a system at equal distances, in rows of any order."""
    system: Annotated[str | None, optional("COLUMN", "every file is one")] = None
    """Column that names the system (the recording)."""
    time_unit: float = 1.0
    """Time that 1 in the step column stands for: 0.1 for the frame numbers of a recording at 10 Hz."""
    edges: Annotated[Path | None, optional("FILE", "no labels")] = None
    """Table of the true edges: columns sender, receiver, type, and the system's if there is --system."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Csv(Table):
    """CSV tables with a header: a row tells where one entity is at one step of one system."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Sorts the tables into a scratch file."""
        from nri_fast.readers.table import Columns, read_csv

        columns = Columns(self.entity, self.step, self.features, self.system)
        return read_csv(self.files, columns, self.time_unit, self.edges)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parquet(Table):
    """Parquet tables (needs pyarrow): a row tells where one entity is at one step of one system."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Sorts the tables into a scratch file."""
        from nri_fast.readers.table import Columns, read_parquet

        columns = Columns(self.entity, self.step, self.features, self.system)
        return read_parquet(self.files, columns, self.time_unit, self.edges)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Npz(Systems):
    """An .npz file: one array of many systems, or (--recordings) one array a recording."""

    file: File
    """The file."""
    recordings: bool = False
    """Every array [steps, entities, features] is a recording; they may differ in steps and entities."""
    states: Annotated[str | None, optional("KEY", "states or trajectories")] = None
    """Name of the array of states."""
    edges: Annotated[str | None, optional("KEY", "edges or adjacency, if there is one")] = None
    """Name of the array of true edges, [systems, sender, receiver]."""
    axes: str = "systems-steps-entities-features"
    """Order of the axes of the states; without "systems" the array is one system."""
    features: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]")] = ()
    """Names of the features: x, y, z are positions and vx, vy, vz velocities."""
    time_step: Annotated[float | None, optional("FLOAT", "the array dt, or 1")] = None
    """Time between two steps."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Reads the arrays."""
        from nri_fast.readers.npz_arrays import read_npz, read_npz_recordings

        names = self.features or None
        if self.recordings:
            return contextlib.nullcontext(read_npz_recordings(self.file, names, self.time_step))
        return contextlib.nullcontext(read_npz(self.file, self.states, self.edges, self.axes, names, self.time_step))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Family(Systems):
    folder: Folder
    """Folder with the files; splits that are there stay as they are."""
    data: Annotated[str | None, optional("NAME", "the only one there")] = None
    """Which data set, where the folder holds several: springs5 for loc_train_springs5.npy."""
    time_step: float = 1.0
    """Time between two recorded steps, in the units of the velocities."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nri(_Family):
    """NRI's files: loc_SPLIT_NAME.npy, and vel_... and edges_... if they are there."""

    axes: Annotated[
        Literal["systems-steps-dimensions-entities", "systems-steps-entities-dimensions"] | None,
        optional("AXES", "the one that fits"),
    ] = None
    """Order of the axes: systems-steps-dimensions-entities (NRI's own) or systems-steps-entities-dimensions."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Maps the files into memory."""
        from nri_fast.readers.npy_family import read_nri

        return contextlib.nullcontext(read_nri(self.folder, self.data, self.axes, self.time_step))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FeatureFamily(_Family):
    axes: Annotated[
        Literal["systems-steps-entities-features", "systems-entities-steps-features"] | None,
        optional("AXES", "the one that fits the labels"),
    ] = None
    """Order of the axes: systems-steps-entities-features or systems-entities-steps-features."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kuramoto(_FeatureFamily):
    """Oscillators as Amortized Causal Discovery has them: feat_SPLIT_NAME.npy, and edges_... if it is there."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Maps the files into memory."""
        from nri_fast.readers.npy_family import read_kuramoto

        return contextlib.nullcontext(read_kuramoto(self.folder, self.data, self.axes, self.time_step))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fmml(_FeatureFamily):
    """The files of the paper's authors: state_NAME_SPLIT.npy, and edges_... if it is there."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Maps the files into memory."""
        from nri_fast.readers.npy_family import read_fmml

        return contextlib.nullcontext(read_fmml(self.folder, self.data, self.axes, self.time_step))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mocap(Systems):
    """Motion capture as CMU has it: a skeleton (.asf) and motions (.amc), turned into positions of joints in metres."""

    files: Files
    """One skeleton and the trials of that subject, each of which is a recording: files, folders, or an archive (tar,
    zip)."""
    joints: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[JOINT ...]", help_behavior_hint="(otherwise: all)")] = ()
    """Joints to keep: root, or the name of the bone whose far end it is."""
    rate: float = 120.0
    """Frames a second."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Reads the trials."""
        from nri_fast.readers.subject import read_subject

        return contextlib.nullcontext(read_subject(self.files, self.joints or None, self.rate))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vehicles(Systems):
    """Vehicle tracks: CommonRoad scenarios (.xml), or .npz files with scenario, track, step and x_y_heading_speed."""

    files: Files
    """Scenarios; each is a recording."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Reads the scenarios."""
        from nri_fast.readers.vehicles import read_vehicles

        return contextlib.nullcontext(read_vehicles(self.files))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Platoons(Systems):
    """Car platoons in an .npz file, one array [steps, cars, 3] (east, north, speed) a run, cars in platoon order."""

    file: File
    """The file. Its true edges, from each car to the one behind it, are known by construction."""

    def open(self) -> contextlib.AbstractContextManager[Source]:
        """Reads the runs."""
        from nri_fast.readers.platoons import read_platoons

        return contextlib.nullcontext(read_platoons(self.file))


SOURCES: dict[str, type[Systems]] = {
    "csv": Csv,
    "parquet": Parquet,
    "npz": Npz,
    "nri": Nri,
    "kuramoto": Kuramoto,
    "fmml": Fmml,
    "mocap": Mocap,
    "vehicles": Vehicles,
    "platoons": Platoons,
}


def _sources() -> Any:
    sources: Any = None
    for name, source in SOURCES.items():
        description = " ".join((source.__doc__ or "").split())
        named = Annotated[source, tyro.conf.subcommand(name, description=description)]  # type: ignore[valid-type]
        sources = named if sources is None else sources | named
    return sources


@dataclasses.dataclass(frozen=True)
class Convert:
    """Turn files that people have (tables, arrays, motion capture, vehicle tracks) into systems to train on."""

    source: tyro.conf.OmitSubcommandPrefixes[_sources()]  # type: ignore[valid-type]
    """What kind of files they are."""

    def run(self) -> None:
        """Converts."""
        self.source.run()


EXAMPLES: dict[type, str] = {
    Convert: """
Recordings become one system each, whatever their lengths and holes; long ones are better cut into windows: --window 50
makes systems of 50 steps, each of the entities that are there for long enough. `nri-fast convert SOURCE --help` tells
the rest.

examples:
  nri-fast convert csv ants.csv --system colony --entity ant --step t --features x y --window 50 --test 0.2 --out data
  nri-fast convert parquet tracks.parquet --entity id --step frame --features x=east y=north --window 40 --out data
  nri-fast convert mocap 35.asf 35_01.amc 35_02.amc --window 50 --out data
  nri-fast convert mocap subject35.tar.gz --window 50 --out data
  nri-fast convert vehicles USA_US101-1_1_T-1.xml --window 50 --stride 10 --out data
  nri-fast convert npz runs.npz --recordings --features x y speed --window 100 --out data""",
}
