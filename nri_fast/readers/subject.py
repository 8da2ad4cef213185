"""A subject's motion capture as people have it: files, folders of them, or the archive that was downloaded."""

from __future__ import annotations

import itertools
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nri_fast.readers.mocap import FRAMES_PER_SECOND, read_mocap
from nri_fast.readers.recording import DataError, Source

WANTED = (".asf", ".amc")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


def read_subject(
    paths: Sequence[str | os.PathLike[str]], joints: Sequence[str] | None = None, rate: float = FRAMES_PER_SECOND
) -> Source:
    """Read all trials of one subject.

    Parameters
    ----------
    paths : sequence of path
        One skeleton (``.asf``) and motions (``.amc``) between them: as files, in folders and those below, or in tar and
        zip archives, whose other members are ignored.
    joints, rate
        As for :func:`nri_fast.readers.mocap.read_mocap`.

    Returns
    -------
    Source
        The trials in the order of their names.

    Raises
    ------
    FileNotFoundError
    DataError
        Not one skeleton, no motions, two motions of one name, a file of another kind, an archive that is damaged or
        would write outside its folder; and what :func:`read_mocap` raises.
    """
    with _unpacked(paths) as files:
        skeletons = [file for file in files if file.suffix.lower() == ".asf"]
        motions = sorted((file for file in files if file.suffix.lower() == ".amc"), key=lambda file: file.name)
        given = ", ".join(str(path) for path in paths)
        if len(skeletons) != 1 or not motions:
            raise DataError(
                f"{given}: expected one skeleton (.asf) and motions (.amc) of that subject, got "
                f"{len(skeletons)} and {len(motions)}"
            )
        twice = [a.name for a, b in itertools.pairwise(motions) if a.stem == b.stem]
        if twice:
            raise DataError(f"{given}: expected different motions, got {twice[0]} twice")
        return read_mocap(skeletons[0], motions, joints, rate)


@contextmanager
def _unpacked(paths: Sequence[str | os.PathLike[str]]) -> Iterator[list[Path]]:
    """Skeletons and motions among all files; what archives hold lies in a folder that is gone afterwards."""
    with ExitStack() as stack:
        files: list[Path] = []
        for given in paths:
            path = Path(given)
            if not path.exists():
                raise FileNotFoundError(f"{path}: no such file or folder")
            if path.is_dir():
                files += _below(path)
            elif path.name.lower().endswith(ARCHIVES):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=path.name.split(".")[0] + "-")))
                _unpack(path, folder)
                files += _below(folder)
            elif path.suffix.lower() in WANTED:
                files.append(path)
            else:
                raise DataError(f"{path}: expected .asf, .amc, a folder, or an archive ({', '.join(ARCHIVES)})")
        yield files


def _below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in WANTED and file.is_file())


def _unpack(archive: Path, folder: Path) -> None:
    """Only what is wanted, and nothing outside the folder."""
    try:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder, [name for name in packed.namelist() if Path(name).suffix.lower() in WANTED])
            return
        with tarfile.open(archive) as packed:
            members = [member for member in packed.getmembers() if Path(member.name).suffix.lower() in WANTED]
            packed.extractall(folder, members, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{archive}: cannot be unpacked: {error}") from error
